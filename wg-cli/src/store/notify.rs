//! What the kernel tells about changes of files: inotify(7), and nothing where there is none.

#[cfg(target_os = "linux")]
pub(super) use linux::Notify;
#[cfg(not(target_os = "linux"))]
pub(super) use other::Notify;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd};
    use std::path::Path;
    use std::time::Instant;

    use nix::errno::Errno;
    use nix::poll::{PollFd, PollFlags, poll};
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

    use super::super::watch::timeout;

    /// A watch on one directory or file.
    #[derive(Debug)]
    pub(in super::super) struct Notify(Inotify);

    impl Notify {
        /// Watches a directory: names that come and go, and files in it that are written.
        pub(in super::super) fn on_directory(dir: &Path) -> io::Result<Self> {
            Self::new(
                dir,
                AddWatchFlags::IN_MODIFY
                    | AddWatchFlags::IN_CREATE
                    | AddWatchFlags::IN_MOVED_TO
                    | AddWatchFlags::IN_MOVED_FROM
                    | AddWatchFlags::IN_DELETE
                    | AddWatchFlags::IN_DELETE_SELF
                    | AddWatchFlags::IN_MOVE_SELF
                    | AddWatchFlags::IN_ONLYDIR,
            )
        }

        /// Watches a file: that somebody closes it, and that it goes away.
        pub(in super::super) fn on_close(file: &Path) -> io::Result<Self> {
            Self::new(
                file,
                AddWatchFlags::IN_CLOSE
                    | AddWatchFlags::IN_ATTRIB
                    | AddWatchFlags::IN_DELETE_SELF
                    | AddWatchFlags::IN_MOVE_SELF
                    | AddWatchFlags::IN_DONT_FOLLOW,
            )
        }

        fn new(path: &Path, flags: AddWatchFlags) -> io::Result<Self> {
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
            inotify.add_watch(path, flags)?;
            Ok(Self(inotify))
        }

        pub(in super::super) fn fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }

        /// Takes every event that is there; `true` if the watch is over because what was watched is gone.
        pub(in super::super) fn drain(&self) -> bool {
            let over = AddWatchFlags::IN_IGNORED
                | AddWatchFlags::IN_DELETE_SELF
                | AddWatchFlags::IN_MOVE_SELF;
            let mut gone = false;
            while let Ok(events) = self.0.read_events() {
                gone |= events.iter().any(|event| event.mask.intersects(over));
            }
            gone
        }

        /// Waits for an event, at most until `deadline`.
        pub(in super::super) fn wait(&mut self, deadline: Instant) -> io::Result<()> {
            wait_for(&mut [PollFd::new(self.fd(), PollFlags::POLLIN)], deadline)?;
            self.drain();
            Ok(())
        }

        /// Waits until `until`, where there is nothing to wait for.
        pub(in super::super) fn pause(until: Instant) -> io::Result<()> {
            wait_for(&mut [], until)
        }
    }

    fn wait_for(fds: &mut [PollFd<'_>], until: Instant) -> io::Result<()> {
        match poll(fds, timeout(Some(until))) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::convert::Infallible;
    use std::io;
    use std::os::fd::BorrowedFd;
    use std::path::Path;
    use std::time::Instant;

    use nix::errno::Errno;
    use nix::poll::poll;

    use super::super::watch::timeout;

    /// A watch that there cannot be.
    #[derive(Debug)]
    pub(in super::super) struct Notify(Infallible);

    impl Notify {
        pub(in super::super) fn on_directory(_dir: &Path) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(in super::super) fn on_close(_file: &Path) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(in super::super) fn fd(&self) -> BorrowedFd<'_> {
            match self.0 {}
        }

        pub(in super::super) fn drain(&self) -> bool {
            match self.0 {}
        }

        pub(in super::super) fn wait(&mut self, _deadline: Instant) -> io::Result<()> {
            match self.0 {}
        }

        pub(in super::super) fn pause(until: Instant) -> io::Result<()> {
            match poll(&mut [], timeout(Some(until))) {
                Ok(_) | Err(Errno::EINTR) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        }
    }
}
