//! Signals to processes that are proven to be the ones that were meant.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::unistd::{Pid, getpgid, getpgrp};
pub use rustix::process::Signal;
use session_lock::{PidWatch, ProcessIdentity};

/// Signals this very process, through a descriptor that was opened before its identity was compared; `false` if it has
/// ended. Never signals pid 1 or below, nor this process.
///
/// # Errors
///
/// What the system says, such as a process that is not ours to signal.
pub fn send(identity: &ProcessIdentity, signal: Signal) -> io::Result<bool> {
    queue(identity, signal.as_raw(), None)
}

/// As [`send`], for a signal of any number, with the value that goes along if there is one; see sigqueue(3).
///
/// # Errors
///
/// As [`send`].
pub(crate) fn queue(
    identity: &ProcessIdentity,
    number: i32,
    value: Option<usize>,
) -> io::Result<bool> {
    if identity.pid <= 1 || identity.pid == std::process::id() {
        return Ok(false);
    }
    let Some(process) = PidWatch::of(identity)? else {
        return Ok(false);
    };
    match supervisor::tree::send(process.as_fd(), number, value) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a process is in this one's group: what a terminal sends to this one it has sent to that one, too.
pub(crate) fn shares_our_group(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(|pid| getpgid(Some(Pid::from_raw(pid))) == Ok(getpgrp()))
}

/// Returns the signals that this process was started to ignore, one bit each; see `SigIgn` in proc(5).
pub(crate) fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
