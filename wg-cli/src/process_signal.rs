//! Signals to processes that are proven to be the ones that were meant.

use std::io;
use std::os::fd::AsFd;

pub use rustix::process::Signal;
use session_lock::{PidWatch, ProcessIdentity};
use signal_hook::consts::{SIGINT, SIGQUIT};

/// Signals this very process, through a descriptor that was opened before its identity was compared; `false` if it has
/// ended. Never signals pid 1 or below, nor this process.
///
/// # Errors
///
/// What the system says, such as a process that is not ours to signal.
pub fn send(identity: &ProcessIdentity, signal: Signal) -> io::Result<bool> {
    if identity.pid <= 1 || identity.pid == std::process::id() {
        return Ok(false);
    }
    let Some(process) = PidWatch::of(identity)? else {
        return Ok(false);
    };
    match rustix::process::pidfd_send_signal(process.as_fd(), signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a program in the foreground has this signal from the terminal already: it sends these two to its whole foreground
/// group, this process's and its command's. (A `kill -INT` of this process alone looks the same.)
pub(crate) fn told_by_the_terminal(number: i32) -> bool {
    let is_foreground = || {
        // Not one of the three: each may be a file.
        let terminal = std::fs::File::open("/dev/tty").ok()?;
        let group = nix::unistd::tcgetpgrp(&terminal).ok()?;
        Some(group == nix::unistd::getpgrp())
    };
    matches!(number, SIGINT | SIGQUIT) && is_foreground() == Some(true)
}

/// Returns the signals that this process was started to ignore, one bit each; see `SigIgn` in proc(5).
pub(crate) fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
