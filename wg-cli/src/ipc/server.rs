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
    /// Connections at once; the oldest idle one goes first.
    pub connections: usize,
    /// Threads that run requests.
    pub workers: usize,
}

impl Limits {
    /// 4 MiB a line, 4 MiB unread, 1,024 connections, 4 workers.
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
    /// Whether the connection must not be closed to make room for another.
    fn is_pinned(&self, connection: ConnectionId) -> bool;
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
                            service.request(from, &line, answer);
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

impl Board {
    fn run(&mut self, listener: &UnixListener, waker: &UnixStream, posts: &Receiver<Post>) {
        loop {
            // One that has hung up is always "ready": it is left out while an answer to it is being worked on.
            let ids: Vec<ConnectionId> = self
                .connections
                .iter()
                .filter(|(_, connection)| !connection.ending || !connection.output.is_empty())
                .map(|(id, _)| *id)
                .collect();
            let mut fds = vec![
                PollFd::new(listener.as_fd(), PollFlags::POLLIN),
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
            match poll(&mut fds, PollTimeout::NONE) {
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
                self.accept(listener);
            }
        }
    }

    fn accept(&mut self, listener: &UnixListener) {
        loop {
            match listener.accept() {
                Ok((stream, _)) => self.admit(stream),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    // Out of descriptors, most likely: make room and let the poll come back.
                    log::warn!("a connection could not be accepted: {e}");
                    self.make_room();
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: UnixStream) {
        match peer_uid(stream.as_fd()) {
            Some(uid) if uid == self.uid || uid == 0 => {}
            other => {
                log::warn!("a connection of uid {other:?} was refused");
                return;
            }
        }
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if self.connections.len() >= self.limits.connections {
            self.make_room();
        }
        let id = ConnectionId(self.next);
        self.next += 1;
        self.connections.insert(
            id,
            Connection {
                stream,
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

    /// Closes the connection that has been idle for longest and is neither owed an answer nor pinned.
    fn make_room(&mut self) {
        let oldest = self
            .connections
            .iter()
            .filter(|(id, connection)| !connection.busy && !self.service.is_pinned(**id))
            .min_by_key(|(_, connection)| connection.last_heard)
            .map(|(id, _)| *id);
        if let Some(id) = oldest {
            log::debug!("connection {} makes room for another", id.0);
            self.close(id);
        }
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
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    struct Upper {
        closed: Sender<ConnectionId>,
    }

    impl Service for Upper {
        fn request(&self, _from: ConnectionId, line: &[u8], answer: Answer) {
            let text = String::from_utf8_lossy(line).to_uppercase();
            if text == "FAIL" {
                return;
            }
            answer.send(&Reply::of(serde_json::json!({ "text": text })));
        }
        fn closed(&self, connection: ConnectionId) {
            self.closed.send(connection).unwrap();
        }
        fn is_pinned(&self, _connection: ConnectionId) -> bool {
            false
        }
    }

    fn serve(
        limits: Limits,
    ) -> (
        Server,
        std::path::PathBuf,
        tempfile::TempDir,
        Receiver<ConnectionId>,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (closed, ends) = crossbeam_channel::unbounded();
        let server = Server::start(
            UnixListener::bind(&path).unwrap(),
            limits,
            Arc::new(Upper { closed }),
        )
        .unwrap();
        (server, path, dir, ends)
    }

    fn ask(stream: &mut BufReader<UnixStream>) -> Reply {
        let mut line = Vec::new();
        stream.read_until(b'\n', &mut line).unwrap();
        Reply::parse(&line).unwrap()
    }

    #[test]
    fn lines_of_one_connection_are_answered_in_order() {
        let (_server, path, _dir, _) = serve(Limits::standard());
        let mut stream = BufReader::new(UnixStream::connect(path).unwrap());
        let many: Vec<u8> = (0..500)
            .flat_map(|n| format!("line {n}\n\n").into_bytes())
            .collect();
        let mut writer = stream.get_ref().try_clone().unwrap();
        let writing = thread::spawn(move || writer.write_all(&many).unwrap());
        for n in 0..500 {
            let Reply::Ok(map) = ask(&mut stream) else {
                panic!("refused")
            };
            assert_eq!(map["text"], format!("LINE {n}"));
        }
        writing.join().unwrap();
    }

    #[test]
    fn a_dropped_answer_is_an_error_and_not_a_hang() {
        let (_server, path, _dir, _) = serve(Limits::standard());
        let mut stream = BufReader::new(UnixStream::connect(path).unwrap());
        stream.get_mut().write_all(b"fail\nnext\n").unwrap();
        assert!(matches!(ask(&mut stream), Reply::Err { code: 70, .. }));
        assert!(matches!(ask(&mut stream), Reply::Ok(_)));
    }

    #[test]
    fn a_line_without_end_is_refused_and_others_are_served_meanwhile() {
        let (_server, path, _dir, ends) = serve(Limits {
            line: 1000,
            ..Limits::standard()
        });
        let mut hostile = BufReader::new(UnixStream::connect(&path).unwrap());
        let silent = UnixStream::connect(&path).unwrap();
        let mut good = BufReader::new(UnixStream::connect(&path).unwrap());
        hostile.get_mut().write_all(&[b'x'; 900]).unwrap();
        good.get_mut().write_all(b"hello\n").unwrap();
        assert!(matches!(ask(&mut good), Reply::Ok(_)));
        hostile.get_mut().write_all(&[b'x'; 900]).unwrap();
        assert!(matches!(ask(&mut hostile), Reply::Err { code: 2, .. }));
        ends.recv().unwrap();
        drop(silent);
        ends.recv().unwrap();
    }

    #[test]
    fn what_was_asked_is_done_although_the_client_is_gone() {
        struct Count(Sender<()>, Sender<ConnectionId>);
        impl Service for Count {
            fn request(&self, _from: ConnectionId, _line: &[u8], answer: Answer) {
                self.0.send(()).unwrap();
                answer.send(&Reply::of(serde_json::json!({})));
            }
            fn closed(&self, connection: ConnectionId) {
                self.1.send(connection).unwrap();
            }
            fn is_pinned(&self, _connection: ConnectionId) -> bool {
                false
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (done, dones) = crossbeam_channel::unbounded();
        let (closed, ends) = crossbeam_channel::unbounded();
        let listener = UnixListener::bind(&path).unwrap();
        let _server =
            Server::start(listener, Limits::standard(), Arc::new(Count(done, closed))).unwrap();
        for _ in 0..50 {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.write_all(b"one\n").unwrap();
            // The answer to the first line stays unread, so that the close resets the connection.
            dones.recv().unwrap();
            stream.write_all(b"two\nthree\n").unwrap();
            drop(stream);
            dones.recv().unwrap();
            dones.recv().unwrap();
            ends.recv().unwrap();
        }
    }

    #[test]
    fn the_oldest_idle_connection_makes_room() {
        let (_server, path, _dir, ends) = serve(Limits {
            connections: 2,
            ..Limits::standard()
        });
        let mut first = BufReader::new(UnixStream::connect(&path).unwrap());
        first.get_mut().write_all(b"a\n").unwrap();
        ask(&mut first);
        let mut second = BufReader::new(UnixStream::connect(&path).unwrap());
        second.get_mut().write_all(b"b\n").unwrap();
        ask(&mut second);
        let mut third = BufReader::new(UnixStream::connect(&path).unwrap());
        third.get_mut().write_all(b"c\n").unwrap();
        ask(&mut third);
        assert_eq!(ends.recv().unwrap(), ConnectionId(0));
        second.get_mut().write_all(b"still here\n").unwrap();
        assert!(matches!(ask(&mut second), Reply::Ok(_)));
    }
}
