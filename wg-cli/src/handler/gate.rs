//! The handler's connection to the daemon: a turn is asked for, held and given back over it.
//!
//! The daemon is a help and not a need. Where there is none, where it goes away, and where it says nothing for a while,
//! turns run without asking. Nothing here waits: the connection is one more descriptor to listen to.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde_json::Value;

use crate::clock::Timestamp;
use crate::ipc::protocol::Request;
use crate::store::Workspace;
use crate::store::graph::ChatId;

/// How often a sign of life is passed on. It must only be well below any ceiling worth having.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// How soon a daemon that went away is looked for again while a turn runs: it may only be restarting.
const LOST_RETRY: Duration = Duration::from_secs(1);

/// How often it is looked for that soon; then it is more than a restart.
const SOON: u32 = 30;

/// How soon one that was never there is, and the most that the search for a lost one slows down to.
const ABSENT_RETRY: Duration = Duration::from_secs(10);

/// The most of a line that is kept; the daemon's lines to a handler are short.
const LONGEST_LINE: usize = 64 << 10;

/// What the daemon said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    /// The turn that was asked for waits in its lane.
    Queued {
        /// Turns that come first.
        ahead: u64,
    },
    /// No turn will be given.
    Refused(String),
    /// The turn of this message may run.
    Granted(u64),
    /// The turn of this message is to end.
    Cancelled(u64),
    /// From now on there is a word whenever something in the session changes.
    Listening,
    /// There will be no such words.
    NotListening,
    /// Something in the session may have changed.
    Wake,
    /// The daemon is gone.
    Gone,
}

/// The handler's side of the connection.
#[derive(Debug)]
pub(crate) struct Gate {
    socket: Option<PathBuf>,
    chat: u32,
    link: Option<Link>,
    /// Whether there was a daemon once.
    known: bool,
    progress_at: Option<Instant>,
    retry_at: Option<Instant>,
    /// How often it was looked for in vain since it was there.
    misses: u32,
}

#[derive(Debug)]
struct Link {
    stream: UnixStream,
    read: Vec<u8>,
    listening: Listening,
}

/// Whether the daemon tells when something in the session changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listening {
    /// It was asked to and has not answered.
    Asked,
    /// It does.
    Yes,
    /// It does not, or there is none.
    No,
}

impl Gate {
    pub(crate) fn new(workspace: &Workspace, chat: ChatId) -> Self {
        let socket = match workspace.socket_path() {
            Ok(path) => Some(path),
            Err(failure) => {
                log::debug!("no daemon can be asked: {failure}");
                None
            }
        };
        Self {
            socket,
            chat: chat.0,
            link: None,
            known: false,
            progress_at: None,
            retry_at: None,
            misses: 0,
        }
    }

    /// Returns whether the daemon tells when something in the session changes.
    pub(crate) fn listening(&self) -> Listening {
        self.link
            .as_ref()
            .map_or(Listening::No, |link| link.listening)
    }

    /// Gives up the wait for an answer to the wish to be told of changes.
    pub(crate) fn listen_no_more(&mut self) {
        if let Some(link) = &mut self.link
            && link.listening == Listening::Asked
        {
            link.listening = Listening::No;
        }
    }

    /// Looks for a daemon between turns, unless it was looked for recently.
    pub(crate) fn look_for_daemon(&mut self, now: Instant) {
        if self.link.is_none() && self.retry_at.is_none_or(|at| now >= at) {
            self.connect();
            self.look_out(now);
        }
    }

    /// Asks for the turn of a message; returns whether there is a daemon to wait for.
    pub(crate) fn ask(&mut self, message: u64) -> bool {
        // One that went away since the last turn is noticed only by listening.
        self.hear();
        self.connect();
        self.send(&Request::TurnBegin {
            chat_id: self.chat,
            message_id: message,
        })
    }

    /// Tells the daemon what the turn of a message waits for before it can be asked for.
    pub(crate) fn wait_for(&mut self, message: u64, reason: &str, now: Instant) {
        // Whatever is said meanwhile is about no turn that runs; unread answers would fill the socket.
        self.hear();
        self.look_for_daemon(now);
        self.send(&Request::TurnWaits {
            chat_id: self.chat,
            message_id: message,
            reason: reason.to_owned(),
        });
    }

    /// Begins to look for a daemon while a turn runs without one.
    pub(crate) fn look_out(&mut self, now: Instant) {
        let after = if self.known && self.misses < SOON {
            LOST_RETRY
        } else {
            ABSENT_RETRY
        };
        self.retry_at = now.checked_add(after);
    }

    /// Returns when a daemon is to be looked for again; see [`Gate::resume`].
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| self.link.is_none())
    }

    /// Tells a daemon that came while the turn was running that it runs, and otherwise looks again later.
    pub(crate) fn resume(&mut self, message: u64, started_at: Timestamp, now: Instant) {
        if self.link.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.connect();
        let started_at = Some(started_at.format());
        self.send(&Request::TurnResume {
            chat_id: self.chat,
            message_id: message,
            started_at,
        });
        self.look_out(now);
    }

    /// Passes a sign of life on, unless the last one is recent.
    pub(crate) fn progress(&mut self, message: u64, now: Instant) {
        if self
            .progress_at
            .is_none_or(|at| now.saturating_duration_since(at) >= PROGRESS_EVERY)
        {
            self.progress_at = Some(now);
            self.send(&Request::TurnProgress {
                chat_id: self.chat,
                message_id: message,
            });
        }
    }

    /// Gives the turn back, or the wish for it.
    pub(crate) fn end(&mut self, message: u64) {
        self.progress_at = None;
        self.send(&Request::TurnEnd {
            chat_id: self.chat,
            message_id: message,
        });
    }

    /// Stops listening to a daemon that says nothing.
    pub(crate) fn leave(&mut self) {
        self.link = None;
    }

    /// Returns the descriptor that is readable when the daemon has said something.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.link.as_ref().map(|link| link.stream.as_fd())
    }

    /// Takes in what the daemon has said.
    pub(crate) fn hear(&mut self) -> Vec<Word> {
        let Some(link) = &mut self.link else {
            return Vec::new();
        };
        let gone = link.read_available();
        let mut words = Vec::new();
        for line in link.lines() {
            let word = match link.listening {
                // Answers come in the order of the requests, and this request was the first.
                Listening::Asked if is_answer(&line) => {
                    let granted = is_granted(&line);
                    link.listening = if granted {
                        Listening::Yes
                    } else {
                        Listening::No
                    };
                    Some(if granted {
                        Word::Listening
                    } else {
                        Word::NotListening
                    })
                }
                Listening::Asked | Listening::Yes | Listening::No => word(&line),
            };
            words.extend(word);
        }
        if gone {
            log::debug!("the daemon is gone; turns run without it");
            self.link = None;
            words.push(Word::Gone);
        }
        words
    }

    fn connect(&mut self) {
        let Some(path) = self.socket.as_ref().filter(|_| self.link.is_none()) else {
            return;
        };
        match connected(path) {
            Ok(stream) => {
                self.known = true;
                self.misses = 0;
                self.link = Some(Link {
                    stream,
                    read: Vec::new(),
                    listening: Listening::Asked,
                });
                self.send(&Request::Listen { chat_id: self.chat });
            }
            Err(error) => {
                self.misses = self.misses.saturating_add(1);
                log::debug!("no daemon: {error}");
            }
        }
    }

    /// Sends a line; returns whether it is on its way. A daemon that does not read any more is left.
    fn send(&mut self, request: &Request) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        let sent = serde_json::to_vec(request)
            .map_err(io::Error::other)
            .and_then(|mut line| {
                line.push(b'\n');
                link.stream.write_all(&line)
            });
        if let Err(error) = sent {
            log::debug!("the daemon does not listen: {error}");
            self.link = None;
            return false;
        }
        true
    }
}

/// Connects without ever waiting: a daemon that is stuck has a full queue of connections, and refuses at once.
fn connected(path: &PathBuf) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(fd))
}

impl Link {
    /// Reads what is there; returns whether the other side has closed.
    fn read_available(&mut self) -> bool {
        let mut buffer = [0; 4 << 10];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(count) => self.read.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.read.len() > LONGEST_LINE;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    log::debug!("the connection to the daemon broke: {error}");
                    return true;
                }
            }
        }
    }

    /// Takes the complete lines.
    fn lines(&mut self) -> Vec<Vec<u8>> {
        let Some(end) = self.read.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let rest = self.read.split_off(end + 1);
        let complete = std::mem::replace(&mut self.read, rest);
        complete
            .split(|byte| *byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect()
    }
}

/// Whether a line answers a request.
fn is_answer(line: &[u8]) -> bool {
    serde_json::from_slice::<Value>(line).is_ok_and(|line| line.get("ok").is_some())
}

/// Whether a line grants the wish to be told of changes. A daemon that does not know it refuses it.
fn is_granted(line: &[u8]) -> bool {
    serde_json::from_slice::<Value>(line)
        .is_ok_and(|line| line.get("listening").and_then(Value::as_bool) == Some(true))
}

/// Understands one line; what is no word to a handler is none.
fn word(line: &[u8]) -> Option<Word> {
    let line: Value = serde_json::from_slice(line).ok()?;
    let message = || line.get("message_id")?.as_u64();
    match line.get("event").and_then(Value::as_str) {
        Some("turn_granted") => Some(Word::Granted(message()?)),
        Some("turn_cancelled" | "turn_stalled") => Some(Word::Cancelled(message()?)),
        Some("wake") => Some(Word::Wake),
        Some(_) => None,
        None if line.get("ok").and_then(Value::as_bool) == Some(false) => {
            let why = line
                .get("error")
                .and_then(Value::as_str)
                .unwrap_or("no reason given");
            Some(Word::Refused(why.to_owned()))
        }
        None => {
            line.get("queued")
                .filter(|queued| **queued != Value::Bool(false))?;
            Some(Word::Queued {
                ahead: line.get("ahead").and_then(Value::as_u64).unwrap_or(0),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_lines_are_understood() {
        for (line, expected) in [
            (
                r#"{"ok":true,"queued":true,"ahead":2}"#,
                Some(Word::Queued { ahead: 2 }),
            ),
            (
                r#"{"ok":false,"error":"paused"}"#,
                Some(Word::Refused("paused".to_owned())),
            ),
            (
                r#"{"event":"turn_granted","chat_id":0,"message_id":7}"#,
                Some(Word::Granted(7)),
            ),
            (
                r#"{"event":"turn_stalled","chat_id":0,"message_id":7}"#,
                Some(Word::Cancelled(7)),
            ),
            (
                r#"{"event":"turn_cancelled","chat_id":0,"message_id":7}"#,
                Some(Word::Cancelled(7)),
            ),
            (r#"{"event":"wake","chat_id":0}"#, Some(Word::Wake)),
            (r#"{"event":"something_else"}"#, None),
            (r#"{"ok":true}"#, None),
            ("", None),
            ("nonsense", None),
        ] {
            assert_eq!(word(line.as_bytes()), expected, "{line}");
        }
    }

    /// Returns a gate that is connected, and the daemon's end of it.
    fn linked() -> (Gate, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let link = Link {
            stream: near,
            read: Vec::new(),
            listening: Listening::No,
        };
        let gate = Gate {
            socket: None,
            chat: 0,
            link: Some(link),
            known: false,
            progress_at: None,
            retry_at: None,
            misses: 0,
        };
        (gate, far)
    }

    #[test]
    fn a_line_that_comes_in_pieces_is_one_line() {
        let (mut gate, mut far) = linked();
        far.write_all(br#"{"event":"turn_gra"#).unwrap();
        assert_eq!(gate.hear(), []);
        far.write_all(b"nted\",\"message_id\":3}\n{\"ok\":true}\n")
            .unwrap();
        assert_eq!(gate.hear(), [Word::Granted(3)]);
        drop(far);
        assert_eq!(gate.hear(), [Word::Gone]);
        assert!(gate.fd().is_none() && !gate.ask(1));
    }

    #[test]
    fn a_daemon_that_never_ends_its_line_is_left() {
        let (mut gate, mut far) = linked();
        let mut words = Vec::new();
        while words.is_empty() {
            far.write_all(&[b'x'; 4 << 10]).unwrap();
            words = gate.hear();
        }
        assert_eq!(words, [Word::Gone]);
    }

    #[test]
    fn the_first_answer_says_whether_the_daemon_wakes_and_no_later_one_does() {
        for (answer, expected, then) in [
            (
                r#"{"ok":true,"listening":true}"#,
                Word::Listening,
                Listening::Yes,
            ),
            (
                r#"{"ok":false,"error":"Invalid request: unknown variant `listen`"}"#,
                Word::NotListening,
                Listening::No,
            ),
        ] {
            let (near, mut far) = UnixStream::pair().unwrap();
            near.set_nonblocking(true).unwrap();
            let mut gate = Gate {
                socket: None,
                chat: 0,
                link: Some(Link {
                    stream: near,
                    read: Vec::new(),
                    listening: Listening::Asked,
                }),
                known: false,
                progress_at: None,
                retry_at: None,
                misses: 0,
            };
            far.write_all(b"{\"event\":\"wake\"}\n").unwrap();
            assert_eq!(gate.hear(), [Word::Wake]);
            assert_eq!(gate.listening(), Listening::Asked, "an event is no answer");
            far.write_all(
                format!("{answer}\n{{\"ok\":true,\"queued\":true,\"ahead\":0}}\n").as_bytes(),
            )
            .unwrap();
            assert_eq!(gate.hear(), [expected, Word::Queued { ahead: 0 }]);
            assert_eq!(gate.listening(), then);
        }
    }
}
