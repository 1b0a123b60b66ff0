//! Lending the lock to a child, so that the directory stays held while the work outlives the holder.
//!
//! A descriptor is inherited through the table of the thread that spawns. To let one child inherit the guard, and
//! no other that this process may start at the same moment from any thread or library, the spawning is done by a
//! thread that has left the shared table: only its own copy ever has a guard without the close-on-exec flag.

use std::io;
use std::process::{Child, Command};

use crate::lock::SessionLock;

impl SessionLock {
    /// Starts `command` with the lock lent to it: the directory stays held until this process and every process
    /// that inherited the guard from the child are gone, whoever ends first.
    ///
    /// Exactly this child inherits it, whatever else the process spawns at the same time by whatever means. The
    /// child needs to know nothing about it. It passes the guard on to its own children unless it closes unknown
    /// descriptors, as Python and Node.js do; shells pass it on.
    ///
    /// The thread that starts the child stays until the child has ended (with a small stack and no descriptor but
    /// one), because the parent-death signal of Linux fires when the starting *thread* ends.
    ///
    /// # Errors
    ///
    /// Returns what [`Command::spawn`] returns, and the system's error where the guard cannot be passed on.
    pub fn spawn_lent(&self, command: &mut Command) -> io::Result<Child> {
        #[cfg(target_os = "linux")]
        {
            self.note_lent();
            linux::spawn(self.guard_fd(), command)
        }
        #[cfg(not(target_os = "linux"))]
        {
            self.note_lent();
            shared_table::spawn(self.guard_fd(), command)
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{self, IoSlice, IoSliceMut};
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
    use std::os::unix::net::UnixStream;
    use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
    use std::sync::mpsc;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use nix::sys::signal::SigSet;
    use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

    use crate::readable;
    use crate::sys;

    /// Enough for a spawn and a poll.
    const STACK: usize = 256 * 1024;

    pub(super) fn spawn(guard: BorrowedFd<'_>, command: &mut Command) -> io::Result<Child> {
        // The thread outlives this call, so the command goes there by value and comes back with the answer.
        let (orders, order) = mpsc::sync_channel::<Command>(1);
        let (answers, answer) = mpsc::sync_channel(1);
        let (here, there) = UnixStream::pair()?;
        // By number, because whatever the thread owned it would close in its own table, and not in the shared one.
        let (guard, there_fd) = (guard.as_raw_fd(), there.as_raw_fd());
        let body = move || {
            let Ok(mut command) = order.recv() else {
                return;
            };
            let spawned = spawn_in_own_table(guard, &mut command, there_fd);
            let child = spawned.as_ref().ok();
            let watch = child.and_then(|spawned| sys::open_process(spawned.child.id()).ok());
            // The other side waits for this before it goes on, so the lock lives while the copy is made.
            drop(answers.send((spawned, command)));
            linger(watch);
        };
        let lender = std::thread::Builder::new().name("lock-lender".to_owned());
        drop(lender.stack_size(STACK).spawn(body)?);
        // From here on the thread is there to take it and to give it back.
        let sent = orders.send(std::mem::replace(command, Command::new("")));
        let (Ok(()), Ok((spawned, moved))) = (sent, answer.recv()) else {
            return Err(io::Error::other(
                "the thread that starts the child panicked",
            ));
        };
        *command = moved;
        drop(there);
        let Spawned { mut child, pipes } = spawned?;
        match receive(&here, pipes.iter().filter(|pipe| **pipe).count()) {
            Ok(received) => {
                let mut received = received.into_iter();
                let [stdin, stdout, stderr] =
                    pipes.map(|pipe| if pipe { received.next() } else { None });
                child.stdin = stdin.map(ChildStdin::from);
                child.stdout = stdout.map(ChildStdout::from);
                child.stderr = stderr.map(ChildStderr::from);
                Ok(child)
            }
            Err(error) => Err(abandon(child, error)),
        }
    }

    /// Ends a child that the caller will never hear of.
    fn abandon(mut child: Child, error: io::Error) -> io::Error {
        if let Err(error) = child.kill().and_then(|()| child.wait()) {
            log::warn!("failed to end process {}: {error}", child.id());
        }
        error
    }

    struct Spawned {
        child: Child,
        /// Which of the three standard streams are pipes to us.
        pipes: [bool; 3],
    }

    /// Runs in the thread that has a table of its own.
    fn spawn_in_own_table(guard: RawFd, command: &mut Command, to: RawFd) -> io::Result<Spawned> {
        sys::leave_shared_descriptors()?;
        let guard = sys::borrow_in_own_table(guard);
        fcntl(guard, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let mut child = command.spawn()?;
        // Our ends of the pipes exist in this table alone: send them over, and close them here.
        let ends: [Option<OwnedFd>; 3] = [
            child.stdin.take().map(OwnedFd::from),
            child.stdout.take().map(OwnedFd::from),
            child.stderr.take().map(OwnedFd::from),
        ];
        let pipes = [ends[0].is_some(), ends[1].is_some(), ends[2].is_some()];
        let raw: Vec<RawFd> = ends.iter().flatten().map(AsRawFd::as_raw_fd).collect();
        if !raw.is_empty() {
            let message = [ControlMessage::ScmRights(&raw)];
            let byte = [IoSlice::new(b"p")];
            let sent = sendmsg::<()>(to, &byte, &message, MsgFlags::empty(), None);
            if let Err(errno) = sent {
                return Err(abandon(child, errno.into()));
            }
        }
        Ok(Spawned { child, pipes })
    }

    /// Takes the pipes' ends into the shared table.
    fn receive(from: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut byte = [0];
        let mut buffer = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!([RawFd; 3]);
        let message = recvmsg::<()>(
            from.as_raw_fd(),
            &mut buffer,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        let mut received = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                received.extend(fds.into_iter().map(sys::own_received));
            }
        }
        if received.len() == count {
            Ok(received)
        } else {
            Err(io::Error::other("a pipe to the child got lost"))
        }
    }

    /// Keeps the thread until the child has ended.
    fn linger(watch: Option<OwnedFd>) {
        let Some(watch) = watch else { return };
        // The kernel gives SIGCHLD to the thread that started the child, if it takes signals. A handler that writes
        // into a pipe would find that pipe closed here, and the program would never hear of its child's end. Not
        // blocked any earlier, because the child would inherit that.
        if let Err(errno) = SigSet::all().thread_block() {
            log::debug!("failed to leave the signals to the other threads: {errno}");
            return;
        }
        // The copies of everybody's descriptors would keep pipes open that others wait to see closed.
        if let Err(error) = sys::close_all_but(watch.as_fd()) {
            log::debug!("failed to close the lender's descriptors: {error}");
            return;
        }
        drop(readable::any_readable(&[watch.as_fd()], None));
    }
}

#[cfg(not(target_os = "linux"))]
mod shared_table {
    use std::io;
    use std::os::fd::BorrowedFd;
    use std::process::{Child, Command};
    use std::sync::{Mutex, PoisonError};

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    /// One lending spawn at a time.
    static LENDING: Mutex<()> = Mutex::new(());

    pub(super) fn spawn(guard: BorrowedFd<'_>, command: &mut Command) -> io::Result<Child> {
        let _one_at_a_time = LENDING.lock().unwrap_or_else(PoisonError::into_inner);
        fcntl(guard, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let spawned = command.spawn();
        fcntl(guard, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        spawned
    }
}
