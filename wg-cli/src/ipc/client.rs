//! The client's end: one connection, requests answered in order.

#![expect(
    clippy::disallowed_methods,
    reason = "a client reads the clock for its deadline"
)]

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::protocol::{Reply, Request};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::store::workspace::Workspace;

/// How long a plain request may take before the daemon counts as stuck.
const CALL_PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// No daemon serves this workspace.
    NotRunning,
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
            Self::Place(failure) => failure.fmt(f),
            Self::Io { path, .. } => write!(f, "failed to connect to `{}`", path.display()),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotRunning | Self::Place(_) => None,
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
            ConnectError::Place(place) => place,
            ConnectError::Io { source, .. } => failure.caused_by(source),
        }
    }
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
    /// What came back is not a reply.
    Garbled(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { message, .. } => f.write_str(message),
            Self::Broken(_) => f.write_str("the service did not answer"),
            Self::Garbled(what) => write!(f, "the service answered with something else: {what}"),
        }
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Broken(source) => Some(source),
            Self::Refused { .. } | Self::Garbled(_) => None,
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let unavailable =
            |text: String| Failure::new(ExitCode::Unavailable, text).with_cure("wg service status");
        let text = error.to_string();
        match error {
            CallError::Refused { message, code } => Failure::new(
                ExitCode::from_code(i32::from(code)).unwrap_or(ExitCode::Failed),
                message,
            ),
            CallError::Broken(source) => unavailable(text).caused_by(source),
            CallError::Garbled(_) => unavailable(text),
        }
    }
}

/// A connection to the daemon of a workspace.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    ///
    /// [`ConnectError::NotRunning`] where nobody listens.
    pub fn connect(workspace: &Workspace) -> Result<Self, ConnectError> {
        let path = workspace.socket_path().map_err(ConnectError::Place)?;
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Self {
                reader: BufReader::new(stream),
            }),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Err(ConnectError::NotRunning)
            }
            Err(source) => Err(ConnectError::Io { path, source }),
        }
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
        self.send(request)?;
        let line = self
            .next_line(Some(Instant::now() + patience))?
            .ok_or_else(|| {
                CallError::Broken(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the connection was closed",
                ))
            })?;
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
    /// As [`Client::call`].
    pub fn attach(mut self, chat_id: u32, consumer: &str) -> Result<Attachment, CallError> {
        let reply = self.call(&Request::Attach {
            chat_id,
            consumer: Some(consumer.to_owned()),
        })?;
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

    fn send(&mut self, request: &Request) -> Result<(), CallError> {
        let mut line =
            serde_json::to_vec(request).map_err(|e| CallError::Garbled(e.to_string()))?;
        line.push(b'\n');
        self.reader
            .get_mut()
            .write_all(&line)
            .map_err(CallError::Broken)
    }

    fn next_line(&mut self, deadline: Option<Instant>) -> Result<Option<Vec<u8>>, CallError> {
        let mut line = Vec::new();
        loop {
            let patience = match deadline {
                None => None,
                Some(at) => match at.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => Some(left),
                    _ => return Err(CallError::Broken(io::Error::from(io::ErrorKind::TimedOut))),
                },
            };
            self.reader
                .get_ref()
                .set_read_timeout(patience)
                .map_err(CallError::Broken)?;
            match self.reader.read_until(b'\n', &mut line) {
                Ok(_) if line.ends_with(b"\n") => return Ok(Some(line)),
                Ok(_) => return Ok(None),
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::Interrupted
                            | io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                    ) => {}
                Err(e) => return Err(CallError::Broken(e)),
            }
        }
    }
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
