//! The daemon's end: one thread polls all sockets and reads lines, a bounded pool runs complete requests.
//!
//! A silent, slow or hostile client therefore costs a descriptor and a bounded buffer, never a thread, and
//! never delays another. Lines of one connection are answered in order: its next line is handed out only
//! after the reply to the one before.

#![expect(
    clippy::disallowed_methods,
    reason = "the server reads the clock to find the connection idle for longest"
)]

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::protocol::Reply;

/// A connection, never reused within one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What bounds a client.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one request line.
    pub line: usize,
    /// Bytes that wait for a client who does not read.
    pub backlog: usize,
    /// Connections of one user at once; the oldest idle one goes first.
    pub connections: usize,
    /// Threads that run requests.
    pub workers: usize,
}

impl Limits {
    /// 4 MiB a line, 4 MiB unread, 1,024 connections of one user, 4 workers.
    #[must_use]
    pub fn standard() -> Self {
        Self {
            line: 4 << 20,
            backlog: 4 << 20,
            connections: 1024,
            workers: 4,
        }
    }
}

/// What the server calls with each line.
pub trait Service: Send + Sync + 'static {
    /// Answers one request line, on a thread of the pool, by calling `answer` once; the answer may come later
    /// and from another thread.
    fn request(&self, from: ConnectionId, line: &[u8], answer: Answer);
    /// A connection has ended; called on the polling thread and must not block.
    fn closed(&self, connection: ConnectionId);
    /// How much would be lost if the connection were closed to make room for another.
    fn standing(&self, connection: ConnectionId) -> Standing;
}

/// How much a connection is worth: the least goes first, and a handler's never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It asks now and then.
    Caller,
    /// It waits for what happens: a consumer, or a subscriber to events.
    Watcher,
    /// A handler's.
    Handler,
}

enum Post {
    Reply { to: ConnectionId, bytes: Vec<u8> },
    Push { to: ConnectionId, bytes: Arc<[u8]> },
    Shutdown,
}

/// Sends lines to connections from any thread.
#[derive(Clone)]
pub struct Poster {
    sender: Sender<Post>,
    waker: Arc<UnixStream>,
}

impl std::fmt::Debug for Poster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poster").finish_non_exhaustive()
    }
}

impl Poster {
    /// Pushes a line that answers no request, such as an event.
    pub fn push(&self, to: ConnectionId, bytes: Arc<[u8]>) {
        self.post(Post::Push { to, bytes });
    }

    fn post(&self, post: Post) {
        if self.sender.send(post).is_ok() {
            // A full pipe already means "look"; a closed one means that the server is gone.
            drop((&*self.waker).write(&[1]));
        }
    }
}

/// The right to answer one request, once. Dropping it unanswered tells the client that the daemon failed.
#[derive(Debug)]
#[must_use = "a client waits for this answer"]
pub struct Answer {
    to: ConnectionId,
    poster: Option<Poster>,
}

impl Answer {
    /// Sends the reply.
    pub fn send(mut self, reply: &Reply) {
        if let Some(poster) = self.poster.take() {
            poster.post(Post::Reply {
                to: self.to,
                bytes: reply.to_line(),
            });
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(poster) = self.poster.take() {
            let reply = Reply::Err {
                error: "the service failed while it handled this request".into(),
                code: 70,
            };
            poster.post(Post::Reply {
                to: self.to,
                bytes: reply.to_line(),
            });
        }
    }
}

/// A running server. Dropping it closes every connection and joins its threads.
#[derive(Debug)]
pub struct Server {
    poster: Poster,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Serves `listener` with `service`.
    ///
    /// # Errors
    ///
    /// The operating system's, when a thread or the wake-up pipe cannot be made.
    pub fn start(
        listener: UnixListener,
        limits: Limits,
        service: Arc<dyn Service>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let (wake_in, wake_out) = UnixStream::pair()?;
        wake_in.set_nonblocking(true)?;
        wake_out.set_nonblocking(true)?;
        let (sender, posts) = crossbeam_channel::unbounded();
        let poster = Poster {
            sender,
            waker: Arc::new(wake_in),
        };
        let (work, jobs) = crossbeam_channel::unbounded::<(ConnectionId, Vec<u8>)>();
        let mut threads = Vec::new();
        for n in 0..limits.workers {
            let jobs = jobs.clone();
            let service = Arc::clone(&service);
            let poster = poster.clone();
            threads.push(
                thread::Builder::new()
                    .name(format!("ipc-{n}"))
                    .spawn(move || {
                        while let Ok((from, line)) = jobs.recv() {
                            let answer = Answer {
                                to: from,
                                poster: Some(poster.clone()),
                            };
                            // A thread that a panic took would be missing for ever; the answer that unwinds tells the client.
                            let asked = AssertUnwindSafe(|| service.request(from, &line, answer));
                            if catch_unwind(asked).is_err() {
                                log::error!("a request of connection {} panicked", from.0);
                            }
                        }
                    })?,
            );
        }
        let uid = nix::unistd::geteuid();
        let mut board = Board {
            limits,
            service,
            work,
            connections: BTreeMap::new(),
            next: 0,
            uid: uid.as_raw(),
        };
        threads.push(
            thread::Builder::new()
                .name("ipc-poll".into())
                .spawn(move || board.run(&listener, &wake_out, &posts))?,
        );
        Ok(Self { poster, threads })
    }

    /// A handle that sends lines to connections.
    #[must_use]
    pub fn poster(&self) -> Poster {
        self.poster.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.poster.post(Post::Shutdown);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of the IPC server panicked");
            }
        }
    }
}

struct Connection {
    stream: UnixStream,
    uid: u32,
    input: Vec<u8>,
    output: VecDeque<u8>,
    /// Complete lines that wait for the one before to be answered.
    waiting: VecDeque<Vec<u8>>,
    busy: bool,
    /// The client has closed its writing side, or broke a rule: close once what is owed has been sent.
    ending: bool,
    /// The client reads no answers any more.
    deaf: bool,
    last_heard: Instant,
}

impl Connection {
    /// Takes bytes in and puts complete lines in the queue. Each byte is looked at once, however long the line grows.
    fn take(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = (&rest[..at], &rest[at + 1..]);
            let mut whole = std::mem::take(&mut self.input);
            whole.extend_from_slice(line);
            if !whole.iter().all(u8::is_ascii_whitespace) {
                self.waiting.push_back(whole);
            }
            rest = after;
        }
        self.input.extend_from_slice(rest);
    }
}

struct Board {
    limits: Limits,
    service: Arc<dyn Service>,
    work: Sender<(ConnectionId, Vec<u8>)>,
    connections: BTreeMap<ConnectionId, Connection>,
    next: u64,
    uid: u32,
}

/// Lines that may wait on one connection before the server stops reading from it.
const PIPELINE: usize = 64;

/// How long nobody new is let in after the system had no descriptor left and no connection could be spared.
const BREATHER_MS: u16 = 100;

/// Whether new connections are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    /// There is no room and none can be made.
    Shut,
}

impl Board {
    fn run(&mut self, listener: &UnixListener, waker: &UnixStream, posts: &Receiver<Post>) {
        // Whoever waits at the door keeps it "ready": without a pause this thread would do nothing but fail to let them in.
        let mut door = Door::Open;
        loop {
            // One that has hung up is always "ready": it is left out while an answer to it is being worked on.
            let ids: Vec<ConnectionId> = self
                .connections
                .iter()
                .filter(|(_, connection)| !connection.ending || !connection.output.is_empty())
                .map(|(id, _)| *id)
                .collect();
            let (knocks, timeout) = match door {
                Door::Open => (PollFlags::POLLIN, PollTimeout::NONE),
                Door::Shut => (PollFlags::empty(), PollTimeout::from(BREATHER_MS)),
            };
            let mut fds = vec![
                PollFd::new(listener.as_fd(), knocks),
                PollFd::new(waker.as_fd(), PollFlags::POLLIN),
            ];
            for id in &ids {
                let connection = &self.connections[id];
                let mut interest = PollFlags::empty();
                if !connection.ending && connection.waiting.len() < PIPELINE {
                    interest |= PollFlags::POLLIN;
                }
                if !connection.output.is_empty() {
                    interest |= PollFlags::POLLOUT;
                }
                fds.push(PollFd::new(connection.stream.as_fd(), interest));
            }
            match poll(&mut fds, timeout) {
                Ok(0) => door = Door::Open,
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(e) => {
                    log::error!("the IPC server cannot poll: {e}");
                    return;
                }
            }
            let ready: Vec<PollFlags> = fds
                .iter()
                .map(|fd| fd.revents().unwrap_or(PollFlags::empty()))
                .collect();
            drop(fds);
            if !ready[1].is_empty() {
                drain(waker);
            }
            // Replies first: they free their connections for the next line.
            while let Ok(post) = posts.try_recv() {
                match post {
                    Post::Reply { to, bytes } => {
                        if let Some(connection) = self.connections.get_mut(&to) {
                            connection.output.extend(bytes);
                            connection.busy = false;
                            self.hand_out(to);
                        }
                    }
                    Post::Push { to, bytes } => self.push(to, &bytes),
                    Post::Shutdown => {
                        self.last_words();
                        return;
                    }
                }
            }
            for (id, flags) in ids.iter().zip(&ready[2..]) {
                if flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
                    self.read(*id);
                }
            }
            let all: Vec<ConnectionId> = self.connections.keys().copied().collect();
            for id in all {
                self.write(id);
            }
            if ready[0].contains(PollFlags::POLLIN) {
                door = self.accept(listener);
            }
        }
    }

    fn accept(&mut self, listener: &UnixListener) -> Door {
        loop {
            match listener.accept() {
                Ok((stream, _)) => self.admit(stream),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Door::Open,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    // Out of descriptors, most likely: make room and let the poll come back.
                    let made = self.make_room(|_| true);
                    log::warn!("a connection could not be accepted: {e}");
                    return if made { Door::Open } else { Door::Shut };
                }
            }
        }
    }

    fn admit(&mut self, stream: UnixStream) {
        let uid = match peer_uid(stream.as_fd()) {
            Some(uid) if uid == self.uid || uid == 0 => uid,
            other => {
                log::warn!("a connection of uid {other:?} was refused");
                return;
            }
        };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        let of_this_user = |connection: &Connection| connection.uid == uid;
        let theirs = self.connections.values().filter(|one| of_this_user(one));
        if theirs.count() >= self.limits.connections {
            self.make_room(of_this_user);
        }
        let id = ConnectionId(self.next);
        self.next += 1;
        self.connections.insert(
            id,
            Connection {
                stream,
                uid,
                input: Vec::new(),
                output: VecDeque::new(),
                waiting: VecDeque::new(),
                busy: false,
                ending: false,
                deaf: false,
                last_heard: Instant::now(),
            },
        );
    }

    /// Closes the connection that has been idle for longest, is owed no answer and is no handler's; one that only asks goes before one
    /// that waits for what happens. Returns whether there was one.
    fn make_room(&mut self, may_go: impl Fn(&Connection) -> bool) -> bool {
        let oldest = self
            .connections
            .iter()
            .filter(|(_, connection)| !connection.busy && may_go(connection))
            .map(|(id, connection)| (self.service.standing(*id), connection.last_heard, *id))
            .filter(|(standing, ..)| *standing != Standing::Handler)
            .min()
            .map(|(.., id)| id);
        if let Some(id) = oldest {
            log::debug!("connection {} makes room for another", id.0);
            self.close(id);
        }
        oldest.is_some()
    }

    fn read(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.ending {
            return;
        }
        let mut chunk = [0_u8; 16 * 1024];
        // A few chunks a turn: a client that never stops sending must not keep the thread.
        for _ in 0..8 {
            match connection.stream.read(&mut chunk) {
                Ok(0) => {
                    connection.ending = true;
                    break;
                }
                Ok(n) => {
                    connection.last_heard = Instant::now();
                    connection.take(&chunk[..n]);
                    if connection.input.len() > self.limits.line {
                        let reply = Reply::Err {
                            error: format!(
                                "the request line is longer than {} bytes",
                                self.limits.line
                            ),
                            code: 2,
                        };
                        connection.output.extend(reply.to_line());
                        connection.input = Vec::new();
                        connection.ending = true;
                        break;
                    }
                    if connection.waiting.len() >= PIPELINE {
                        break;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // It is gone without a farewell; what it had asked before is done all the same.
                Err(_) => {
                    connection.ending = true;
                    break;
                }
            }
        }
        self.hand_out(id);
    }

    /// Gives the connection's next line to the pool, if it is not owed an answer already.
    fn hand_out(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        // Who does not read the answers is asked nothing more until it does.
        let is_full = connection.output.len() >= self.limits.backlog && !connection.deaf;
        if connection.busy || is_full {
            return;
        }
        if let Some(line) = connection.waiting.pop_front() {
            connection.busy = self.work.send((id, line)).is_ok();
        }
    }

    fn push(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.output.len() + bytes.len() > self.limits.backlog {
            log::warn!("connection {} does not read its events and is closed", id.0);
            // Closed when what it asked is done: an answer that came later would find its rights gone.
            connection.deaf = true;
            connection.ending = true;
            connection.output.clear();
            return;
        }
        connection.output.extend(bytes);
    }

    fn write(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        while !connection.output.is_empty() {
            let (front, _) = connection.output.as_slices();
            match connection.stream.write(front) {
                Ok(count @ 1..) => drop(connection.output.drain(..count)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Nobody reads any more. What it had asked before is read and done all the same.
                Ok(_) | Err(_) => connection.deaf = true,
            }
            if connection.deaf {
                connection.output.clear();
            }
        }
        if connection.output.is_empty() {
            self.hand_out(id);
        }
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.ending
            && !connection.busy
            && connection.waiting.is_empty()
            && connection.output.is_empty()
        {
            self.close(id);
        }
    }

    fn close(&mut self, id: ConnectionId) {
        if self.connections.remove(&id).is_some() {
            self.service.closed(id);
        }
    }

    /// Sends what is owed as far as the sockets take it without waiting, then closes them all.
    fn last_words(&mut self) {
        let all: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in all {
            self.write(id);
            self.close(id);
        }
    }
}

fn drain(mut stream: &UnixStream) {
    let mut sink = [0_u8; 256];
    while matches!(stream.read(&mut sink), Ok(n) if n > 0) {}
}

#[cfg(target_os = "linux")]
fn peer_uid(fd: BorrowedFd<'_>) -> Option<u32> {
    nix::sys::socket::getsockopt(&fd, nix::sys::socket::sockopt::PeerCredentials)
        .ok()
        .map(|c| c.uid())
}

#[cfg(not(target_os = "linux"))]
fn peer_uid(fd: BorrowedFd<'_>) -> Option<u32> {
    nix::unistd::getpeereid(fd)
        .ok()
        .map(|(uid, _)| uid.as_raw())
}

#[cfg(test)]
mod tests;
