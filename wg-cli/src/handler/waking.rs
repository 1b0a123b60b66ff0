//! What wakes a handler between its turns: the daemon, over the connection that there is anyway; without one a kernel watch of its
//! own; where the kernel has none left, a look every second.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::clock;
use crate::store::watch::{DirWatch, Woke};

use super::gate::Listening;

/// How long a daemon that took the connection may take to say whether it wakes. Until then nothing may be missed that comes in
/// between, so it is looked at when this is over.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// The means by which one handler is woken.
#[derive(Debug)]
pub(super) struct Waking {
    session: PathBuf,
    watch: Option<DirWatch>,
    /// Until when an answer of the daemon is waited for.
    answer_by: Option<Instant>,
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waked {
    /// The descriptor of this index is readable, or closed at its other end.
    Ready(usize),
    /// The moment has come, or something in the session may have changed.
    Look,
    /// The daemon took the connection and does not say whether it wakes.
    Unanswered,
}

impl Waking {
    pub(super) fn new(session: PathBuf) -> Self {
        Self {
            session,
            watch: None,
            answer_by: None,
        }
    }

    /// Waits for a change of the session, for one of `fds` or for `deadline`. The connection to the daemon must be one of `fds`.
    pub(super) fn wait(
        &mut self,
        daemon: Listening,
        deadline: Option<Instant>,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<Waked> {
        match daemon {
            Listening::Yes => {
                self.watch = None;
                self.answer_by = None;
                wait_for(fds, deadline)
            }
            Listening::Asked => {
                let now = clock::steady();
                let by = *self.answer_by.get_or_insert(now + ANSWER_WITHIN);
                if now >= by {
                    self.answer_by = None;
                    return Ok(Waked::Unanswered);
                }
                wait_for(fds, deadline.into_iter().chain([by]).min())
            }
            Listening::No => {
                self.answer_by = None;
                let Some(watch) = &mut self.watch else {
                    // What came before this watch is seen only by looking again.
                    let watch = DirWatch::new(&self.session).map_err(io::Error::other)?;
                    self.watch = Some(watch);
                    return Ok(Waked::Look);
                };
                Ok(match watch.wait(deadline, fds)? {
                    Woke::Ready(index) => Waked::Ready(index),
                    Woke::Changed | Woke::Deadline => Waked::Look,
                })
            }
        }
    }
}

/// Waits for one of `fds` or for `deadline`. A signal has also written to its pipe, which is one of them.
fn wait_for(fds: &[BorrowedFd<'_>], deadline: Option<Instant>) -> io::Result<Waked> {
    let timeout = deadline
        .map(|deadline| deadline.saturating_duration_since(clock::steady()))
        .and_then(|left| Timespec::try_from(left).ok());
    let mut polled: Vec<PollFd<'_>> = fds
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(Waked::Look),
        Err(errno) => return Err(errno.into()),
    }
    let ready = polled.iter().position(|fd| !fd.revents().is_empty());
    Ok(ready.map_or(Waked::Look, Waked::Ready))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn there_is_no_kernel_watch_where_the_daemon_wakes_and_one_where_it_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut waking = Waking::new(dir.path().to_owned());
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"x").unwrap();
        let fds = [near.as_fd()];
        assert_eq!(
            waking.wait(Listening::Yes, None, &fds).unwrap(),
            Waked::Ready(0)
        );
        assert!(waking.watch.is_none());
        // The daemon is gone: what came meanwhile is looked for once, with the watch in place.
        assert_eq!(waking.wait(Listening::No, None, &fds).unwrap(), Waked::Look);
        assert!(waking.watch.is_some());
        assert_eq!(
            waking.wait(Listening::No, None, &fds).unwrap(),
            Waked::Ready(0)
        );
        std::fs::write(dir.path().join("inbox.jsonl"), "x").unwrap();
        assert_eq!(waking.wait(Listening::No, None, &[]).unwrap(), Waked::Look);
        // And there again.
        assert_eq!(
            waking.wait(Listening::Yes, None, &fds).unwrap(),
            Waked::Ready(0)
        );
        assert!(waking.watch.is_none());
    }

    #[test]
    fn a_daemon_that_does_not_answer_is_waited_for_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut waking = Waking::new(dir.path().to_owned());
        waking.answer_by = Some(clock::steady());
        assert_eq!(
            waking.wait(Listening::Asked, None, &[]).unwrap(),
            Waked::Unanswered
        );
    }
}
