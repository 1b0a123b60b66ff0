//! Changes of the files in a locked directory, as the kernel reports them.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

#[cfg(target_os = "linux")]
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
#[cfg(target_os = "linux")]
use nix::sys::timerfd::TimerFd;

/// Reports changes in one directory; or that it is time to look, where the kernel reports nothing.
#[derive(Debug)]
pub(crate) struct DirectoryEvents {
    #[cfg(target_os = "linux")]
    source: Source,
    #[cfg(not(target_os = "linux"))]
    never: std::convert::Infallible,
}

#[cfg(target_os = "linux")]
#[derive(Debug)]
enum Source {
    Inotify {
        /// Taken away when this is dropped.
        inotify: Option<Inotify>,
        watch: WatchDescriptor,
    },
    /// Readable once a second.
    Clock(TimerFd),
}

#[cfg(target_os = "linux")]
impl DirectoryEvents {
    /// Reports the changes in `dir`.
    pub(crate) fn of(dir: &Path) -> io::Result<Self> {
        let source = match inotify(dir) {
            Ok((inotify, watch)) => Source::Inotify {
                inotify: Some(inotify),
                watch,
            },
            // A user has 128 instances, and may have used them up.
            Err(error) => {
                log::debug!("looking at `{}` once a second: {error}", dir.display());
                Source::Clock(clock()?)
            }
        };
        Ok(Self { source })
    }

    /// Takes the events that are there; returns whether one of them concerns one of `names`, or the
    /// directory itself.
    pub(crate) fn take_relevant(&mut self, names: &[&CStr]) -> bool {
        use std::os::unix::ffi::OsStrExt;
        let mut relevant = false;
        match &self.source {
            Source::Clock(clock) => return clock.wait().is_ok(),
            Source::Inotify { inotify, watch } => {
                while let Some(Ok(events)) = inotify.as_ref().map(Inotify::read_events) {
                    relevant |= events.iter().any(|event| match &event.name {
                        // What is left of an earlier watch of the same instance is not ours.
                        _ if event.wd != *watch && event.wd.as_raw() > 0 => false,
                        Some(name) => names.iter().any(|ours| ours.to_bytes() == name.as_bytes()),
                        None => true,
                    });
                }
            }
        }
        relevant
    }
}

#[cfg(target_os = "linux")]
fn inotify(dir: &Path) -> io::Result<(Inotify, WatchDescriptor)> {
    let inotify = match spare::take() {
        Some(inotify) => inotify,
        None => Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?,
    };
    let mask = AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    let watch = inotify.add_watch(dir, mask)?;
    Ok((inotify, watch))
}

#[cfg(target_os = "linux")]
fn clock() -> io::Result<TimerFd> {
    use nix::sys::time::TimeSpec;
    use nix::sys::timerfd::{ClockId, Expiration, TimerFlags, TimerSetTimeFlags};
    let clock = TimerFd::new(
        ClockId::CLOCK_MONOTONIC,
        TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
    )?;
    let every = Expiration::Interval(TimeSpec::from_duration(crate::readable::TICK));
    clock.set(every, TimerSetTimeFlags::empty())?;
    Ok(clock)
}

#[cfg(target_os = "linux")]
impl Drop for DirectoryEvents {
    fn drop(&mut self) {
        if let Source::Inotify { inotify, watch, .. } = &mut self.source
            && let Some(inotify) = inotify.take()
            // If the directory is gone, so is its watch.
            && inotify.rm_watch(*watch).is_ok()
        {
            spare::keep(inotify);
        }
    }
}

/// Instances that are used again.
///
/// Closing one waits for a grace period of the kernel, 10 to 25 ms measured, which would be the better part of every
/// hand-over. A user may have 128 of them, so each process keeps no more than it ever used at once, and few.
#[cfg(target_os = "linux")]
mod spare {
    use std::sync::Mutex;

    use nix::sys::inotify::Inotify;

    const MOST: usize = 1;

    /// Each with the process that made it: a forked child shares its parent's, and would take its events.
    static SPARE: Mutex<Vec<(u32, Inotify)>> = Mutex::new(Vec::new());

    pub(super) fn take() -> Option<Inotify> {
        // A forked child may find the mutex locked by a thread that it does not have.
        let mut spare = SPARE.try_lock().ok()?;
        let at = spare
            .iter()
            .position(|(pid, _)| *pid == std::process::id())?;
        Some(spare.swap_remove(at).1)
    }

    pub(super) fn keep(inotify: Inotify) {
        if let Ok(mut spare) = SPARE.try_lock()
            && spare.len() < MOST
        {
            spare.push((std::process::id(), inotify));
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl DirectoryEvents {
    pub(crate) fn of(_dir: &Path) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn take_relevant(&mut self, _names: &[&CStr]) -> bool {
        match self.never {}
    }
}

impl AsFd for DirectoryEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        #[cfg(target_os = "linux")]
        {
            match &self.source {
                Source::Clock(clock) => clock.as_fd(),
                Source::Inotify { inotify, .. } => {
                    let inotify = inotify.as_ref();
                    inotify.expect("because only a drop takes it away").as_fd()
                }
            }
        }
        #[cfg(not(target_os = "linux"))]
        {
            match self.never {}
        }
    }
}
