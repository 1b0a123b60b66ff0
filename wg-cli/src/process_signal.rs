//! Signals to processes that are proven to be the ones that were meant.

use std::io;
use std::os::fd::AsFd;

pub use rustix::process::Signal;
use session_lock::{PidWatch, ProcessIdentity};

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
