//! A running agent: its pipes, its signals, its exit status.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ChildStdin};
use std::time::Instant;

use exit_classifier::Ending;
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread};
use rustix::process::{self, Pid, PidfdFlags, kill_process_group, pidfd_open, pidfd_send_signal};

use crate::clock;

/// A running agent and the pipes to it.
pub(crate) struct Running {
    child: Child,
    pidfd: OwnedFd,
    stdin: Option<ChildStdin>,
    unsent: Vec<u8>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// One of the two streams that an agent writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Its reply.
    Out,
    /// What it says beside it.
    Err,
}

/// Something that a running agent can be ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// It takes more of its message.
    Stdin,
    /// It wrote.
    Output(Stream),
    /// It has ended.
    Ended,
    /// One of the descriptors that were waited for with it.
    Listener,
}

impl Running {
    /// Takes the pipes of a child that was just started. If that fails, the child is ended again.
    pub(crate) fn attach(mut child: Child, message: &str) -> io::Result<Self> {
        let pid = Pid::from_child(&child);
        let opened = pidfd_open(pid, PidfdFlags::empty()).and_then(|pidfd| {
            let stdin = child.stdin.take();
            let stdout = child.stdout.take().map(OwnedFd::from);
            let stderr = child.stderr.take().map(OwnedFd::from);
            let ends = [
                stdin.as_ref().map(AsFd::as_fd),
                stdout.as_ref().map(AsFd::as_fd),
                stderr.as_ref().map(AsFd::as_fd),
            ];
            for end in ends.into_iter().flatten() {
                // Only our ends: the agent's ends of these pipes are descriptions of their own.
                rustix::io::ioctl_fionbio(end, true)?;
            }
            Ok((pidfd, stdin, stdout, stderr))
        });
        match opened {
            Ok((pidfd, stdin, stdout, stderr)) => {
                let mut unsent = message.as_bytes().to_vec();
                unsent.push(b'\n');
                let mut agent = Self {
                    child,
                    pidfd,
                    stdin,
                    unsent,
                    stdout,
                    stderr,
                };
                agent.feed();
                Ok(agent)
            }
            Err(errno) => {
                if let Err(error) = kill_process_group(pid, process::Signal::KILL) {
                    log::warn!("agent {pid:?} could not be ended after a failed start: {error}");
                }
                child.wait()?;
                Err(errno.into())
            }
        }
    }

    /// Returns its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until something is ready or the deadline has passed, and returns what is ready.
    pub(crate) fn wait(
        &self,
        others: Vec<BorrowedFd<'_>>,
        deadline: Option<Instant>,
    ) -> Vec<Ready> {
        let mut waited: Vec<(Ready, BorrowedFd<'_>, PollFlags)> =
            vec![(Ready::Ended, self.pidfd.as_fd(), PollFlags::IN)];
        if let Some(fd) = &self.stdin {
            waited.push((Ready::Stdin, fd.as_fd(), PollFlags::OUT));
        }
        for stream in [Stream::Out, Stream::Err] {
            if let Some(fd) = self.pipe(stream) {
                waited.push((Ready::Output(stream), fd.as_fd(), PollFlags::IN));
            }
        }
        waited.extend(
            others
                .into_iter()
                .map(|fd| (Ready::Listener, fd, PollFlags::IN)),
        );
        let mut fds: Vec<PollFd<'_>> = waited
            .iter()
            .map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags))
            .collect();
        let timeout = deadline
            .map(|deadline| deadline.saturating_duration_since(clock::steady()))
            .and_then(|left| Timespec::try_from(left).ok());
        if let Err(error) = poll(&mut fds, timeout.as_ref()) {
            // A signal that arrived has also written to its pipe, which the next call sees.
            if error != Errno::INTR {
                log::warn!("failed to wait for the agent: {error}");
            }
            return Vec::new();
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        waited
            .iter()
            .zip(&fds)
            .filter(|(_, fd)| ready(fd))
            .map(|((what, ..), _)| *what)
            .collect()
    }

    fn pipe(&self, stream: Stream) -> Option<&OwnedFd> {
        match stream {
            Stream::Out => self.stdout.as_ref(),
            Stream::Err => self.stderr.as_ref(),
        }
    }

    fn close(&mut self, stream: Stream) {
        match stream {
            Stream::Out => self.stdout = None,
            Stream::Err => self.stderr = None,
        }
    }

    /// Reads what is there, closing the pipe at its end, and returns the number of bytes.
    pub(crate) fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> usize {
        let Some(fd) = self.pipe(stream) else {
            return 0;
        };
        match rustix::io::read(fd, &mut *buffer) {
            Ok(0) => self.close(stream),
            Ok(count) => return count,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => {
                log::warn!("failed to read from the agent: {error}");
                self.close(stream);
            }
        }
        0
    }

    /// Returns how many bytes are in the pipe at this moment.
    pub(crate) fn unread(&self, stream: Stream) -> usize {
        let waiting = self.pipe(stream).and_then(|fd| ioctl_fionread(fd).ok());
        waiting
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(0)
    }

    /// Writes as much of the message as fits, and closes stdin when it is all sent or nobody reads it.
    pub(crate) fn feed(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        match stdin.write(&self.unsent) {
            Ok(count) => {
                self.unsent.drain(..count);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                log::debug!("the agent does not read its message: {error}");
                self.unsent.clear();
            }
        }
        if self.unsent.is_empty() {
            // Several real agents wait for more on an open pipe.
            self.stdin = None;
        }
    }

    /// Sends a signal to the agent itself, which hears it also where it was stopped.
    pub(crate) fn signal_leader(&self, signal: Signal) {
        for signal in [signal, Signal::SIGCONT] {
            let sent = named(signal).and_then(|signal| pidfd_send_signal(&self.pidfd, signal));
            if let Err(error) = sent {
                log::debug!("the agent took no signal: {error}");
            }
        }
    }

    /// Sends a signal to the agent's process group, as [`Running::signal_leader`] to the agent.
    pub(crate) fn signal_group(&self, signal: Signal) {
        // The leader is not reaped yet, so the group's number is still its own.
        let group = Pid::from_child(&self.child);
        for signal in [signal, Signal::SIGCONT] {
            if let Err(error) = named(signal).and_then(|signal| kill_process_group(group, signal)) {
                log::debug!("the agent's group took no signal: {error}");
            }
        }
    }

    /// Takes the exit status; from here on its number may belong to another process.
    pub(crate) fn reap(&mut self) -> Ending {
        match self.child.wait() {
            Ok(status) => Ending::from(status),
            Err(error) => {
                log::warn!("the agent's exit status is lost: {error}");
                Ending::Lost
            }
        }
    }
}

/// Returns the signal in the terms of the calls that take a process descriptor.
fn named(signal: Signal) -> Result<process::Signal, Errno> {
    process::Signal::from_named_raw(signal as i32).ok_or(Errno::INVAL)
}
