//! A handle on a process that turns readable when the process ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::identity::ProcessIdentity;
use crate::readable;
use crate::sys;

/// Watches one process, whoever gets its number later. Linux only.
///
/// The descriptor turns readable when the process has ended, waited for or not; put it into a poll set, or
/// call [`wait`](Self::wait).
#[derive(Debug)]
pub struct PidWatch {
    process: OwnedFd,
    identity: ProcessIdentity,
}

/// Watches the process that has the number `pid` now; `None` if there is none.
///
/// # Errors
///
/// Returns the system's error where it has no process descriptors (`Unsupported` outside Linux).
pub fn watch(pid: u32) -> io::Result<Option<PidWatch>> {
    PidWatch::of(&ProcessIdentity {
        pid,
        start_ticks: None,
        boot_id: None,
    })
}

impl PidWatch {
    /// Watches this very process; `None` if it has ended.
    ///
    /// The identity is compared after the descriptor was opened, so it cannot be another process's.
    ///
    /// # Errors
    ///
    /// Returns the system's error where it has no process descriptors (`Unsupported` outside Linux).
    pub fn of(identity: &ProcessIdentity) -> io::Result<Option<Self>> {
        let process = match sys::open_process(identity.pid) {
            Ok(process) => process,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let now = ProcessIdentity {
            pid: identity.pid,
            start_ticks: sys::start_ticks(identity.pid),
            boot_id: sys::boot_id().map(str::to_owned),
        };
        let is_meant = identity.may_be(&now);
        let watch = Self {
            process,
            identity: now,
        };
        // If it has not ended after its identity was read, the identity was its own.
        Ok(if is_meant && !watch.has_ended()? {
            Some(watch)
        } else {
            None
        })
    }

    /// Returns which process is watched.
    #[must_use]
    pub fn identity(&self) -> &ProcessIdentity {
        &self.identity
    }

    /// Returns whether the process has ended.
    ///
    /// # Errors
    ///
    /// Returns the error of `poll(2)`.
    pub fn has_ended(&self) -> io::Result<bool> {
        readable::is_readable(self.as_fd())
    }

    /// Waits until the process has ended or `deadline` has passed; returns whether it has ended.
    ///
    /// # Errors
    ///
    /// Returns the error of `poll(2)`.
    pub fn wait(&self, deadline: Instant) -> io::Result<bool> {
        Ok(readable::any_readable(&[self.as_fd()], Some(deadline))?.is_some())
    }

    /// Sends a signal to this very process.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        sys::signal_process(self.as_fd(), signal)
    }
}

/// Returns whether an error of opening a process says that there is none.
fn is_absent(error: &io::Error) -> bool {
    let codes = [Errno::ESRCH, Errno::EINVAL, Errno::ENOENT];
    error
        .raw_os_error()
        .is_some_and(|code| codes.contains(&Errno::from_raw(code)))
}

impl AsFd for PidWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}
