//! Waiting for a change in a directory, for a descriptor or for a moment, whichever comes first.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::StoreError;
use super::notify::Notify;
use crate::clock;

/// How often a directory is looked at where the kernel tells nothing about it.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woke {
    /// Something in the directory may have changed; look again. It may also have changed nothing.
    Changed,
    /// The descriptor of this index is readable or closed at its other end.
    Ready(usize),
    /// The moment has come.
    Deadline,
}

/// A watch on one directory: on names that come and go and on files that are written.
#[derive(Debug)]
pub struct DirWatch {
    dir: PathBuf,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Kernel(Notify),
    /// Why the kernel tells nothing.
    Poll(String),
}

impl DirWatch {
    /// Watches `dir`. Changes after this call are not missed: read what is there after it, then wait.
    ///
    /// Where the kernel gives no watch (they are few per user) the directory is looked at every second; see [`DirWatch::polling`].
    ///
    /// # Errors
    /// [`StoreError::Io`] if the directory is not there.
    pub fn new(dir: &Path) -> Result<Self, StoreError> {
        std::fs::metadata(dir).map_err(StoreError::io("watch", dir))?;
        let source = match Notify::on_directory(dir) {
            Ok(notify) => Source::Kernel(notify),
            Err(error) => {
                let why = format!("no kernel watch on `{}`: {}", dir.display(), error);
                log::warn!("{why}; looking every second instead");
                Source::Poll(why)
            }
        };
        Ok(Self {
            dir: dir.to_owned(),
            source,
        })
    }

    /// Returns why the directory is looked at every second, if it is.
    #[must_use]
    pub fn polling(&self) -> Option<&str> {
        match &self.source {
            Source::Kernel(_) => None,
            Source::Poll(why) => Some(why),
        }
    }

    /// Returns the descriptor that is readable when there is a change, for a poll of one's own; `None` where there is none. Call
    /// [`DirWatch::drain`] then.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.source {
            Source::Kernel(notify) => Some(notify.fd()),
            Source::Poll(_) => None,
        }
    }

    /// Takes the changes that are there, so that the descriptor is no longer readable.
    pub fn drain(&mut self) {
        let gone = match &self.source {
            Source::Kernel(notify) => notify.drain(),
            Source::Poll(_) => false,
        };
        if gone {
            // Removed and perhaps made again: the old watch tells nothing any more.
            self.source = match Notify::on_directory(&self.dir) {
                Ok(notify) => Source::Kernel(notify),
                Err(error) => {
                    Source::Poll(format!("`{}` went away: {}", self.dir.display(), error))
                }
            };
        }
    }

    /// Waits for a change, for one of `extra` or for `deadline`. Signals do not end it: let their pipe be one of `extra`.
    ///
    /// # Errors
    /// What poll(2) says; an interrupted call is no error.
    pub fn wait(
        &mut self,
        deadline: Option<Instant>,
        extra: &[BorrowedFd<'_>],
    ) -> io::Result<Woke> {
        let look_again = self
            .polling()
            .is_some()
            .then(|| clock::steady() + POLL_EVERY);
        let until = deadline.into_iter().chain(look_again).min();
        loop {
            // Descriptors before the directory, so that a busy directory cannot hide a signal.
            let own = self.fd();
            let mut fds: Vec<PollFd<'_>> = extra
                .iter()
                .copied()
                .chain(own)
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            match poll(&mut fds, timeout(until)) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => {
                    let ready = fds
                        .iter()
                        .position(|fd| fd.revents().is_some_and(|revents| !revents.is_empty()));
                    match ready {
                        Some(index) if index < extra.len() => return Ok(Woke::Ready(index)),
                        Some(_) => {
                            self.drain();
                            return Ok(Woke::Changed);
                        }
                        None => {}
                    }
                }
                Err(errno) => return Err(errno.into()),
            }
            let now = clock::steady();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Ok(Woke::Deadline);
            }
            if look_again.is_some_and(|at| at <= now) {
                // The directory may be there again, or a watch be free.
                if let Ok(notify) = Notify::on_directory(&self.dir) {
                    self.source = Source::Kernel(notify);
                }
                return Ok(Woke::Changed);
            }
        }
    }
}

/// Returns the time until `until` for poll(2), rounded up so that it is never woken early for nothing.
pub(super) fn timeout(until: Option<Instant>) -> PollTimeout {
    let Some(until) = until else {
        return PollTimeout::NONE;
    };
    let left = until.saturating_duration_since(clock::steady());
    let millis = left.as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}
