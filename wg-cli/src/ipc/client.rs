//! The client's end: one connection, requests answered in order.

#![expect(
    clippy::disallowed_methods,
    reason = "a client reads the clock for its deadline"
)]

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::protocol::{PROTOCOL_VERSION, Reply, Request};
use super::silence::{Silence, is_only_late, reach};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::patience::Patience;
use crate::standstill::Standstill;
use crate::store::StoreError;
use crate::store::workspace::Workspace;

/// How long a plain request may take before the daemon counts as stuck.
pub const CALL_PATIENCE: Duration = Duration::from_secs(30);

/// How long a daemon may take to greet before it counts as one that does not answer: it greets without taking any lock.
const GREETING_PATIENCE: Duration = Duration::from_secs(5);

/// How long even somebody without any patience waits for an answer: less tells nothing of a service.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(250);

/// How every daemon begins its answer to a request that it does not know.
const UNKNOWN_REQUEST: &str = "Invalid request: unknown variant";

/// Why there is no connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// No daemon serves this workspace.
    NotRunning,
    /// A daemon listens and does not greet: it hangs.
    Deaf,
    /// A daemon has the workspace, and a signal or a debugger has stopped it.
    StandsStill(Standstill),
    /// There is no safe place for the socket.
    Place(Failure),
    /// The socket is there and cannot be used.
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning => f.write_str("the service is not running"),
            Self::Deaf => f.write_str("the service is running and does not answer"),
            Self::StandsStill(daemon) => f.write_str(&daemon.text),
            Self::Place(failure) => failure.fmt(f),
            Self::Io { path, .. } => write!(f, "failed to connect to `{}`", path.display()),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotRunning | Self::Deaf | Self::StandsStill(_) | Self::Place(_) => None,
            Self::Io { source, .. } => Some(source),
        }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let failure =
            Failure::new(ExitCode::Unavailable, error.to_string()).with_cure("wg service start");
        match error {
            ConnectError::NotRunning => failure,
            ConnectError::Deaf => failure.with_cure("wg service stop --force"),
            ConnectError::StandsStill(daemon) => failure.with_cure(or_end_it(&daemon)),
            ConnectError::Place(place) => place,
            ConnectError::Io { path, source }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                let doing = "connect to";
                StoreError::Io {
                    doing,
                    path,
                    source,
                }
                .into()
            }
            ConnectError::Io { source, .. } => failure
                .caused_by(source)
                .with_cure("wg service logs says more; wg service stop --force ends it"),
        }
    }
}

/// What a person can do about a daemon that stands still.
fn or_end_it(daemon: &Standstill) -> String {
    format!("{}; wg service stop --force ends it", daemon.advice())
}

/// Why a request has no answer to use.
#[derive(Debug)]
#[non_exhaustive]
pub enum CallError {
    /// The daemon refused, in its own words.
    Refused {
        /// One sentence with cause and cure.
        message: String,
        /// The exit code that goes with it.
        code: u8,
    },
    /// The connection broke or the daemon did not answer in time.
    Broken(io::Error),
    /// A signal or a debugger stopped the daemon before it answered; it may do what it was asked once it goes on.
    StandsStill(Standstill),
    /// What came back is not a reply.
    Garbled(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { message, .. } => f.write_str(message),
            Self::Broken(_) => f.write_str("the service did not answer"),
            Self::StandsStill(daemon) => write!(
                f,
                "{}; it may do what it was asked once it goes on",
                daemon.text
            ),
            Self::Garbled(what) => write!(f, "the service answered with something else: {what}"),
        }
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Broken(source) => Some(source),
            Self::Refused { .. } | Self::StandsStill(_) | Self::Garbled(_) => None,
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let unavailable =
            |text: String| Failure::new(ExitCode::Unavailable, text).with_cure("wg service status");
        let text = error.to_string();
        match error {
            CallError::Refused { message, .. } if message.starts_with(UNKNOWN_REQUEST) => {
                Failure::new(
                    ExitCode::Unavailable,
                    "the service is older than this wg and does not know what it is asked",
                )
                .with_cure("wg service restart")
            }
            CallError::Refused { message, code } => Failure::new(
                ExitCode::from_code(i32::from(code)).unwrap_or(ExitCode::Failed),
                message,
            ),
            CallError::Broken(source) => unavailable(text).caused_by(source),
            CallError::StandsStill(daemon) => unavailable(text).with_cure(or_end_it(&daemon)),
            CallError::Garbled(_) => unavailable(text),
        }
    }
}

/// A connection to the daemon of a workspace.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
    pid: Option<u32>,
    /// The directory whose lock the daemon has.
    service: PathBuf,
}

impl Client {
    /// Connects, and waits at most 5 s for the daemon's greeting.
    ///
    /// # Errors
    ///
    /// [`ConnectError::NotRunning`] where nobody listens, [`ConnectError::Deaf`] where the one who listens does not greet,
    /// [`ConnectError::StandsStill`], after half a second, where the daemon was stopped, before or after it began to listen.
    pub fn connect(workspace: &Workspace) -> Result<Self, ConnectError> {
        Self::connect_within(workspace, Patience::Forever)
    }

    /// As [`Client::connect`], for somebody whose own patience may be less than that.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`].
    pub fn connect_within(workspace: &Workspace, patience: Patience) -> Result<Self, ConnectError> {
        let path = workspace.socket_path().map_err(ConnectError::Place)?;
        let patience = patience.at_most(GREETING_PATIENCE);
        Self::connect_to(&path, &workspace.service_dir(), patience)
    }

    /// A daemon that was killed a moment ago still has its socket for an instant, and its greeting breaks off. It is greeted once
    /// more, which either finds its successor or nobody.
    fn connect_to(path: &Path, service: &Path, patience: Duration) -> Result<Self, ConnectError> {
        let until = Instant::now() + patience.max(SHORTEST_PATIENCE);
        let mut again = true;
        loop {
            let failed = match reach(path, service, until)? {
                None => return Err(ConnectError::Deaf),
                Some(stream) => match Self::greet(stream, service, until) {
                    Ok(client) => return Ok(client),
                    Err(CallError::StandsStill(daemon)) => {
                        return Err(ConnectError::StandsStill(daemon));
                    }
                    Err(CallError::Broken(error)) if is_out_of_time(&error) => {
                        return Err(ConnectError::Deaf);
                    }
                    Err(CallError::Broken(error)) => error,
                    Err(error @ (CallError::Refused { .. } | CallError::Garbled(_))) => {
                        io::Error::other(error)
                    }
                },
            };
            if !std::mem::take(&mut again) {
                return Err(ConnectError::Io {
                    path: path.to_owned(),
                    source: failed,
                });
            }
        }
    }

    fn greet(stream: UnixStream, service: &Path, until: Instant) -> Result<Self, CallError> {
        let mut client = Self {
            reader: BufReader::new(stream),
            pid: None,
            service: service.to_owned(),
        };
        let hello = Request::Hello {
            version: PROTOCOL_VERSION,
            capabilities: Vec::new(),
        };
        let patience = until.saturating_duration_since(Instant::now());
        match client.call_within(&hello, patience) {
            Ok(reply) => {
                client.pid = reply
                    .get("pid")
                    .and_then(Value::as_u64)
                    .and_then(|pid| u32::try_from(pid).ok());
                Ok(client)
            }
            // Whatever it said, it is there; an earlier daemon may not know the greeting.
            Err(CallError::Refused { .. } | CallError::Garbled(_)) => Ok(client),
            Err(error) => Err(error),
        }
    }

    /// Returns the daemon's process, as its greeting said.
    #[must_use]
    pub fn daemon_pid(&self) -> Option<u32> {
        self.pid
    }

    /// Sends a request and waits for its reply, at most 30 s.
    ///
    /// # Errors
    ///
    /// The daemon's refusal, or a connection that broke.
    pub fn call(&mut self, request: &Request) -> Result<Map<String, Value>, CallError> {
        self.call_within(request, CALL_PATIENCE)
    }

    /// Sends a request and waits at most `patience` for its reply.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub fn call_within(
        &mut self,
        request: &Request,
        patience: Duration,
    ) -> Result<Map<String, Value>, CallError> {
        self.call_telling(request, patience, &mut |_| {})
    }

    /// As [`Client::call_within`]; `told` is given each event that comes before the reply.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub fn call_telling(
        &mut self,
        request: &Request,
        patience: Duration,
        told: &mut dyn FnMut(&Value),
    ) -> Result<Map<String, Value>, CallError> {
        let patience = patience.max(SHORTEST_PATIENCE);
        let until = Instant::now() + patience;
        match self.send(request, until) {
            // A daemon that hangs up in the middle of a request may have said why before.
            Err(CallError::Broken(error)) => {
                let refusal = self.last_words(&error, until);
                return Err(refusal.unwrap_or(CallError::Broken(error)));
            }
            sent => sent?,
        }
        let line = loop {
            let line = self.next_line(Some(until))?.ok_or_else(|| {
                CallError::Broken(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the connection was closed",
                ))
            })?;
            match serde_json::from_slice::<Value>(&line) {
                Ok(event) if event.get("event").is_some() && event.get("ok").is_none() => {
                    told(&event);
                }
                Ok(_) | Err(_) => break line,
            }
        };
        match Reply::parse(&line).map_err(CallError::Garbled)? {
            Reply::Ok(map) => Ok(map),
            Reply::Err { error, code } => Err(CallError::Refused {
                message: error,
                code,
            }),
        }
    }

    /// Makes this connection a consumer of the chat for as long as it lives.
    ///
    /// # Errors
    ///
    /// As [`Client::call_within`].
    pub fn attach(
        mut self,
        chat_id: u32,
        consumer: &str,
        patience: Patience,
    ) -> Result<Attachment, CallError> {
        let request = Request::Attach {
            chat_id,
            consumer: Some(consumer.to_owned()),
        };
        let reply = self.call_within(&request, patience.at_most(CALL_PATIENCE))?;
        Ok(Attachment {
            client: self,
            reply,
        })
    }

    /// Subscribes to events; read them with [`Client::next_event`].
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub fn subscribe(&mut self, chat_id: Option<u32>) -> Result<(), CallError> {
        self.call(&Request::Subscribe { chat_id }).map(drop)
    }

    /// The next event line, or `None` once the daemon is gone.
    ///
    /// # Errors
    ///
    /// A connection that broke, or a line that is not JSON.
    pub fn next_event(&mut self) -> Result<Option<Value>, CallError> {
        let Some(line) = self.next_line(None)? else {
            return Ok(None);
        };
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(|e| CallError::Garbled(e.to_string()))
    }

    fn send(&mut self, request: &Request, until: Instant) -> Result<(), CallError> {
        let mut line = serde_json::to_vec(request)
            .map_err(|error| CallError::Broken(io::Error::from(error)))?;
        line.push(b'\n');
        let mut unsent = line.as_slice();
        let mut silence = Silence::default();
        while !unsent.is_empty() {
            let mut stream = self.reader.get_ref();
            // A daemon that was stopped takes no more than its socket's buffer holds.
            let wait = silence.next_wait(&self.service, Some(until))?;
            stream.set_write_timeout(wait).map_err(CallError::Broken)?;
            match stream.write(unsent) {
                Ok(0) => return Err(CallError::Broken(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    unsent = &unsent[count..];
                    silence = Silence::default();
                }
                Err(error) if is_only_late(&error) => {}
                Err(error) => return Err(CallError::Broken(error)),
            }
        }
        Ok(())
    }

    /// The refusal that stands in a connection which was closed while a request was written to it.
    fn last_words(&mut self, error: &io::Error, until: Instant) -> Option<CallError> {
        if !matches!(
            error.kind(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
        ) {
            return None;
        }
        let line = self.next_line(Some(until)).ok()??;
        match Reply::parse(&line).ok()? {
            Reply::Ok(_) => None,
            Reply::Err { error, code } => Some(CallError::Refused {
                message: error,
                code,
            }),
        }
    }

    fn next_line(&mut self, deadline: Option<Instant>) -> Result<Option<Vec<u8>>, CallError> {
        let mut line = Vec::new();
        let mut silence = Silence::default();
        loop {
            let wait = silence.next_wait(&self.service, deadline)?;
            self.reader
                .get_ref()
                .set_read_timeout(wait)
                .map_err(CallError::Broken)?;
            match self.reader.read_until(b'\n', &mut line) {
                Ok(_) if line.ends_with(b"\n") => return Ok(Some(line)),
                Ok(_) => return Ok(None),
                Err(error) if is_only_late(&error) => {}
                Err(error) => return Err(CallError::Broken(error)),
            }
        }
    }
}

/// Whether an answer did not come in time: a socket's own limit says "would block".
pub(crate) fn is_out_of_time(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
    )
}

/// A live consumer: dropping it tells the daemon that nobody reads any more.
#[derive(Debug)]
#[must_use = "the presence ends when this is dropped"]
pub struct Attachment {
    client: Client,
    reply: Map<String, Value>,
}

impl Attachment {
    /// What the daemon said of the chat at the moment of the attach.
    #[must_use]
    pub fn reply(&self) -> &Map<String, Value> {
        &self.reply
    }

    /// Sends a request over the same connection.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub fn call(&mut self, request: &Request) -> Result<Map<String, Value>, CallError> {
        self.client.call(request)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::Path;
    use std::thread;
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::{CallError, Client, ConnectError, Request};
    use crate::exit_code::ExitCode;
    use crate::failure::Failure;
    use crate::ipc::protocol::Reply;

    /// Longer than any of these tests is let run.
    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn a_daemon_that_listens_and_does_not_greet_is_told_from_one_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        assert!(matches!(
            Client::connect_to(&path, dir.path(), LONG),
            Err(ConnectError::NotRunning)
        ));
        // As a daemon that hangs: the kernel takes the connection, and nobody answers on it.
        let listener = UnixListener::bind(&path).unwrap();
        let error = Client::connect_to(&path, dir.path(), Duration::from_millis(1)).unwrap_err();
        assert!(matches!(error, ConnectError::Deaf), "{error}");
        let failure = Failure::from(error);
        assert_eq!(failure.code, ExitCode::Unavailable);
        assert_eq!(failure.cure(), Some("wg service stop --force"));
        drop(listener);
        assert!(matches!(
            Client::connect_to(&path, dir.path(), LONG),
            Err(ConnectError::NotRunning)
        ));
    }

    #[test]
    fn a_caller_without_patience_is_greeted_all_the_same() {
        let (ours, mut daemons) = UnixStream::pair().unwrap();
        let greeting = Reply::of(json!({ "pid": 4711 })).to_line();
        daemons.write_all(&greeting).unwrap();
        let client = Client::greet(ours, Path::new("/nowhere"), Instant::now()).unwrap();
        assert_eq!(client.daemon_pid(), Some(4711));
    }

    #[test]
    fn a_socket_that_is_closed_to_us_is_somebody_elses_and_no_service_that_is_down() {
        let refused = Failure::from(ConnectError::Io {
            path: "/proc/1/nothing".into(),
            source: std::io::Error::from(std::io::ErrorKind::PermissionDenied),
        });
        assert_eq!(refused.code, ExitCode::NotPermitted);
        assert_ne!(refused.cure(), Some("wg service start"));
    }

    #[test]
    fn the_reason_of_a_daemon_that_hangs_up_in_the_middle_of_a_request_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        let daemon = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 4096];
            while !bytes.contains(&b'\n') {
                assert!(stream.read(&mut bytes).unwrap() > 0);
            }
            stream
                .write_all(&Reply::of(json!({ "pid": 4711 })).to_line())
                .unwrap();
            assert!(stream.read(&mut bytes).unwrap() > 0);
            let refusal = Reply::Err {
                error: "too long".to_owned(),
                code: 2,
            };
            stream.write_all(&refusal.to_line()).unwrap();
        });
        let mut client = Client::connect_to(&path, dir.path(), LONG).unwrap();
        assert_eq!(client.daemon_pid(), Some(4711));
        // More than a socket's buffer holds, so that the writer is still at it when the daemon leaves.
        let request = Request::UserChat {
            message: "y".repeat(16 << 20),
            request_id: None,
            attachments: Vec::new(),
            chat_id: 0,
            user: None,
            patience_ms: None,
        };
        let refused = client.call(&request).unwrap_err();
        assert!(
            matches!(&refused, CallError::Refused { message, code: 2 } if message == "too long"),
            "{refused:?}"
        );
        daemon.join().unwrap();
    }
}
