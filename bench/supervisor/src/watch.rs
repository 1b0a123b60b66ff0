//! What children and the kernel say.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

/// The first lines of children, through a pipe.
pub(crate) struct Births {
    fifo: File,
    buffer: Vec<u8>,
}

impl Births {
    pub(crate) fn open(path: &Path) -> Result<Self, Box<dyn Error>> {
        // Open for both, so that it never ends.
        let fifo = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self {
            fifo,
            buffer: Vec::new(),
        })
    }

    /// Waits for so many births and returns the pids.
    pub(crate) fn wait(
        &mut self,
        count: usize,
        within: Duration,
    ) -> Result<Vec<u32>, Box<dyn Error>> {
        let until = Instant::now() + within;
        let mut pids = Vec::new();
        let mut chunk = [0; 4_096];
        while pids.len() < count {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("{} of {count} children came up", pids.len()).into());
            }
            let mut fds = [PollFd::new(self.fifo.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::try_from(left)?)?;
            if fds[0].any() != Some(true) {
                continue;
            }
            let read = self.fifo.read(&mut chunk)?;
            self.buffer.extend_from_slice(&chunk[..read]);
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                pids.push(String::from_utf8(line)?.trim().parse()?);
            }
        }
        Ok(pids)
    }
}

/// Processes whose deaths are waited for.
pub(crate) struct Deaths(Vec<OwnedFd>);

impl Deaths {
    pub(crate) fn of(pids: &[u32]) -> Result<Self, Box<dyn Error>> {
        let open = |pid: &u32| Ok(pidfd_open(raw(*pid)?, PidfdFlags::empty())?);
        Ok(Self(
            pids.iter()
                .map(open)
                .collect::<Result<_, Box<dyn Error>>>()?,
        ))
    }

    pub(crate) fn wait(mut self, within: Duration) -> Result<(), Box<dyn Error>> {
        let until = Instant::now() + within;
        while let Some(last) = self.0.last() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("{} children did not end", self.0.len()).into());
            }
            let mut fds = [PollFd::new(last.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::try_from(left)?)?;
            if fds[0].any() == Some(true) {
                self.0.pop();
            }
        }
        Ok(())
    }
}

/// Waits for a while: a poll of nothing.
pub(crate) fn rest(span: Duration) {
    if let Ok(timeout) = PollTimeout::try_from(span) {
        // A rest that is cut short by a signal is no harm.
        let _interrupted = poll(&mut [], timeout);
    }
}

pub(crate) fn kill(pid: u32) -> Result<(), Box<dyn Error>> {
    Ok(rustix::process::kill_process(raw(pid)?, Signal::KILL)?)
}

fn raw(pid: u32) -> Result<Pid, Box<dyn Error>> {
    Pid::from_raw(i32::try_from(pid)?).ok_or_else(|| "pid 0".into())
}

pub(crate) fn pss_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Voluntary context switches of all threads.
pub(crate) fn wakeups(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    tasks
        .filter_map(|task| {
            let text = fs::read_to_string(task.path().join("status")).ok()?;
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            line.trim().parse::<u64>().ok()
        })
        .sum()
}
