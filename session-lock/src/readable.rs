//! Waiting for descriptors, and how long to wait where there is none.
#![expect(
    clippy::disallowed_methods,
    reason = "a wait with an end reads the clock"
)]

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How often to look where the kernel gives no event.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// Returns whether the descriptor is readable now.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Waits until one of the descriptors is readable and returns which, or `None` once `deadline` has passed.
pub(crate) fn any_readable(
    fds: &[BorrowedFd<'_>],
    deadline: Option<Instant>,
) -> io::Result<Option<usize>> {
    let mut fds: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .collect();
    loop {
        let timeout = match deadline {
            None => PollTimeout::NONE,
            // Rounded up to the next millisecond: to wake early would only mean to wait once more.
            Some(deadline) => {
                let left =
                    deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut fds, timeout) {
            Ok(0) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                return Ok(None);
            }
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_ready) => return Ok(fds.iter().position(|fd| fd.any().unwrap_or(false))),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A wait for something that gives no event and takes microseconds.
pub(crate) const MOMENT: Duration = Duration::from_millis(1);

/// Waits for a moment, for something that gives no event and takes microseconds.
pub(crate) fn moment() {
    // A failure means that the moment was shorter.
    drop(any_readable(&[], Some(Instant::now() + MOMENT)));
}
