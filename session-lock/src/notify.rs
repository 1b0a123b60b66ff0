//! Changes of the files in a locked directory, as the kernel reports them.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Reports changes of some names in one directory.
#[derive(Debug)]
pub(crate) struct DirectoryEvents {
    #[cfg(target_os = "linux")]
    inotify: nix::sys::inotify::Inotify,
    #[cfg(not(target_os = "linux"))]
    never: std::convert::Infallible,
    #[cfg(target_os = "linux")]
    names: &'static [&'static CStr],
}

#[cfg(target_os = "linux")]
impl DirectoryEvents {
    /// Reports what may free the lock.
    pub(crate) fn of_lock(dir: &Path) -> io::Result<Self> {
        // The guard's close comes last in a release. The record's removal comes first, but it is all that a tool
        // without a guard does.
        Self::of(dir, &[crate::files::RECORD, crate::files::GUARD])
    }

    /// Reports what may be a release request.
    pub(crate) fn of_marker(dir: &Path) -> io::Result<Self> {
        Self::of(dir, &[crate::files::MARKER])
    }

    fn of(dir: &Path, names: &'static [&'static CStr]) -> io::Result<Self> {
        use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let mask = AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        inotify.add_watch(dir, mask)?;
        Ok(Self { inotify, names })
    }

    /// Takes the events that are there; returns whether one of them concerns the names, or the directory itself.
    pub(crate) fn take_relevant(&mut self) -> bool {
        use std::os::unix::ffi::OsStrExt;
        let mut relevant = false;
        while let Ok(events) = self.inotify.read_events() {
            relevant |= events.iter().any(|event| match &event.name {
                Some(name) => self
                    .names
                    .iter()
                    .any(|ours| ours.to_bytes() == name.as_bytes()),
                None => true,
            });
        }
        relevant
    }
}

#[cfg(not(target_os = "linux"))]
impl DirectoryEvents {
    pub(crate) fn of_lock(_dir: &Path) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn of_marker(_dir: &Path) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn take_relevant(&mut self) -> bool {
        match self.never {}
    }
}

impl AsFd for DirectoryEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        #[cfg(target_os = "linux")]
        {
            self.inotify.as_fd()
        }
        #[cfg(not(target_os = "linux"))]
        {
            match self.never {}
        }
    }
}
