//! Processes as the kernel shows them: who runs, who ends, and how often a program was started.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{WATCHDOG, until};

/// A process as `/proc` shows it.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) command_line: Vec<String>,
    pub(crate) environ: Vec<u8>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.pid, self.command_line.join(" "))
    }
}

impl Process {
    pub(crate) fn all() -> Vec<Self> {
        let pids = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter_map(Self::look_at).collect()
    }

    pub(crate) fn look_at(pid: i32) -> Option<Self> {
        let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command_line = command_line
            .split(|&byte| byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        Some(Self {
            pid,
            command_line,
            environ,
        })
    }

    fn variable(&self, name: &str) -> Option<String> {
        let prefix = format!("{name}=");
        let entry = self
            .environ
            .split(|&byte| byte == 0)
            .find(|entry| entry.starts_with(prefix.as_bytes()))?;
        Some(String::from_utf8_lossy(&entry[prefix.len()..]).into_owned())
    }

    /// Whether this is a handler that a daemon started.
    pub(crate) fn is_handler(&self) -> bool {
        self.variable("WG_SESSION").is_some()
            && self
                .command_line
                .iter()
                .any(|word| word == "nex" || word == "spawn-task")
    }

    /// The chat that this process belongs to, by its marker.
    pub(crate) fn session(&self) -> Option<String> {
        self.variable("WG_SESSION")
    }

    /// Kills it and waits until it is gone. The descriptor is opened before the environment is looked at again, so that a reused pid
    /// is never hit.
    pub(crate) fn end(&self) {
        let Some(fd) = pidfd(self.pid) else { return };
        if Self::look_at(self.pid).is_none_or(|now| now.environ != self.environ) {
            return;
        }
        kill(Pid::from_raw(self.pid), Signal::SIGKILL).ok();
        wait_readable(&fd, WATCHDOG);
    }
}

/// Opens a descriptor that becomes readable when the process ends.
pub(crate) fn pidfd(pid: i32) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

/// Kills a process of the test and waits until it is gone.
#[track_caller]
pub(crate) fn killed(pid: i32) {
    // 0 and less would mean groups: first of all the one of the test itself.
    assert!(pid > 1, "{pid} is no process of a test");
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        // Its parent, or whoever gets it, may have waited for it by now.
        Ok(()) | Err(Errno::ESRCH) => wait_gone(pid),
        Err(error) => panic!("{pid}: {error}"),
    }
}

/// Stops a process, and returns when it stands still.
#[track_caller]
pub(crate) fn stand_still(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    until("a process to stand still", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.contains("State:\tT")
    });
}

/// Lets a process go on.
pub(crate) fn go_on(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
}

/// Waits until a process is gone.
#[track_caller]
pub(crate) fn wait_gone(pid: i32) {
    if let Some(fd) = pidfd(pid) {
        assert!(wait_readable(&fd, WATCHDOG), "process {pid} does not end");
    }
}

pub(crate) fn wait_readable(fd: &impl AsFd, patience: Duration) -> bool {
    let timeout = PollTimeout::try_from(patience).unwrap();
    loop {
        match nix::poll::poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => return ready > 0,
            Err(Errno::EINTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// Counts how often a program was started, by the kernel's notices that its file was opened.
///
/// The kernel merges equal notices that stand unread next to each other, so a thread reads them as they come: the count may be too low
/// for starts at the same instant, it is never too high, and no start at all is always 0.
#[derive(Debug)]
pub(crate) struct StartCounter {
    watch: Arc<Inotify>,
    count: Arc<AtomicUsize>,
    end: Option<OwnedFd>,
    reader: Option<thread::JoinHandle<()>>,
}

impl StartCounter {
    /// Starts to count.
    pub(crate) fn of(program: &Path) -> Self {
        let watch =
            Arc::new(Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap());
        // The notices of an end stand between those of two starts and keep them apart.
        watch
            .add_watch(
                program,
                AddWatchFlags::IN_OPEN | AddWatchFlags::IN_CLOSE_NOWRITE,
            )
            .unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let (ended, end) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let reader = {
            let (watch, count) = (Arc::clone(&watch), Arc::clone(&count));
            thread::spawn(move || {
                loop {
                    let mut fds = [
                        PollFd::new(watch.as_fd(), PollFlags::POLLIN),
                        PollFd::new(ended.as_fd(), PollFlags::POLLIN),
                    ];
                    nix::poll::poll(&mut fds, PollTimeout::NONE).ok();
                    if fds[1].any().unwrap_or(true) {
                        return;
                    }
                    drain(&watch, &count);
                }
            })
        };
        Self {
            watch,
            count,
            end: Some(end),
            reader: Some(reader),
        }
    }

    /// How often it was started since the counter was made.
    pub(crate) fn count(&self) -> usize {
        drain(&self.watch, &self.count);
        self.count.load(Ordering::SeqCst)
    }
}

impl Drop for StartCounter {
    fn drop(&mut self) {
        drop(self.end.take());
        drop(self.reader.take().map(thread::JoinHandle::join));
    }
}

fn drain(watch: &Inotify, count: &AtomicUsize) {
    while let Ok(events) = watch.read_events() {
        let starts = events
            .iter()
            .filter(|event| event.mask.contains(AddWatchFlags::IN_OPEN))
            .count();
        count.fetch_add(starts, Ordering::SeqCst);
    }
}
