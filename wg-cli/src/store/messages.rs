//! `inbox.jsonl` and `outbox.jsonl` of a session: what was said, by whom, and what has been answered.
//!
//! Ids rise by one in each file, over rotations too. A reply names its message in `in_reply_to`; the cursors only spare the readers the
//! beginning of the file, and a cursor that is lost or wrong loses no message and answers none twice.

use std::env;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use super::cursor::{Cursor, advance_cursor, advance_handler_cursors, read_cursor};
pub use super::files::Durability;
use super::jsonl::{Appender, LinesBackwards};
use super::{StoreError, files, json, registry};
use crate::clock::{self, Timestamp};

/// Which of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// What people say to the agent.
    Inbox,
    /// What the agent answers.
    Outbox,
}

impl Side {
    /// Returns the file's name without its extension.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Outbox => "outbox",
        }
    }

    /// Returns where the file is in a session directory.
    #[must_use]
    pub fn path(self, dir: &Path) -> PathBuf {
        dir.join(self.as_str()).with_extension("jsonl")
    }
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A person, or a program in a person's place.
    User,
    /// The agent.
    Coordinator,
    /// `wg` itself, in the place of a reply that there is not.
    SystemError,
}

impl Role {
    /// Returns the word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Coordinator => "coordinator",
            Self::SystemError => "system-error",
        }
    }

    /// Reads the word; `None` for one that is not ours.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::User, Self::Coordinator, Self::SystemError]
            .into_iter()
            .find(|role| role.as_str() == word)
    }
}

/// How a turn went, in its reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnInfo {
    /// When the agent got the message.
    pub started_at: Timestamp,
    /// When it was done.
    pub ended_at: Timestamp,
    /// How the agent ended, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<String>,
    /// The how-manieth attempt at the message this was, from 1.
    #[serde(default)]
    pub attempt: u32,
    /// How many processes the agent had left behind that were ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_children: Option<u32>,
}

/// A line of either file.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its number in the file, from 1.
    pub id: u64,
    /// When it was written.
    pub timestamp: Timestamp,
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// The sender's name for the message; its reply bears the same. Empty if it had none.
    pub request_id: String,
    /// Which user.
    pub user: String,
    /// The inbox message that this answers.
    pub in_reply_to: Option<u64>,
    /// The inbox message that is asked again with this one.
    pub retry_of: Option<u64>,
    /// How the turn went.
    pub turn: Option<TurnInfo>,
    /// Fields that are not ours, such as `attachments` and `full_response`.
    pub extra: Map<String, Value>,
}

/// A message to write; id and time are given to it then.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// The sender's name for the message; made up if `None`.
    pub request_id: Option<String>,
    /// Which user; the one of this process if `None`.
    pub user: Option<String>,
    /// The inbox message that this answers.
    pub in_reply_to: Option<u64>,
    /// The inbox message that is asked again with this one.
    pub retry_of: Option<u64>,
    /// How the turn went.
    pub turn: Option<TurnInfo>,
    /// Further fields, such as `attachments`.
    pub extra: Map<String, Value>,
}

impl NewMessage {
    /// Returns a message that says `content` and nothing else.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            request_id: None,
            user: None,
            in_reply_to: None,
            retry_of: None,
            turn: None,
            extra: Map::new(),
        }
    }
}

/// The line as it is written. Fields that older readers insist on are always there.
#[derive(Serialize, Deserialize)]
struct Record {
    id: u64,
    #[serde(default = "epoch")]
    timestamp: Timestamp,
    #[serde(default)]
    role: String,
    content: String,
    #[serde(default)]
    request_id: String,
    #[serde(default)]
    user: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    in_reply_to: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_of: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    turn: Option<TurnInfo>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

fn epoch() -> Timestamp {
    Timestamp::EPOCH
}

impl Message {
    /// Reads a line; `None` if it is none.
    #[must_use]
    pub fn parse(line: &[u8], side: Side) -> Option<Self> {
        let record: Record = serde_json::from_slice(line).ok()?;
        let usual = match side {
            Side::Inbox => Role::User,
            Side::Outbox => Role::Coordinator,
        };
        Some(Self {
            id: record.id,
            timestamp: record.timestamp,
            // A word of another version is the usual speaker of the file: then no message is lost for it.
            role: Role::parse(&record.role).unwrap_or(usual),
            content: record.content,
            request_id: record.request_id,
            user: record.user,
            in_reply_to: record.in_reply_to,
            retry_of: record.retry_of,
            turn: record.turn,
            extra: record.extra,
        })
    }

    /// Returns the line, without its line feed.
    #[must_use]
    pub fn format(&self) -> Vec<u8> {
        let record = Record {
            id: self.id,
            timestamp: self.timestamp,
            role: self.role.as_str().to_owned(),
            content: self.content.clone(),
            request_id: self.request_id.clone(),
            user: self.user.clone(),
            in_reply_to: self.in_reply_to,
            retry_of: self.retry_of,
            turn: self.turn.clone(),
            extra: self.extra.clone(),
        };
        json::line(&record)
    }
}

/// Returns who is working here: `WG_USER`, else `USER`, else `unknown`.
#[must_use]
pub fn user() -> String {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    variable("WG_USER")
        .or_else(|| variable("USER"))
        .unwrap_or_else(|| "unknown".to_owned())
}

/// Only the id of a line.
#[derive(Deserialize)]
struct IdOnly {
    id: u64,
}

fn id_of(line: &[u8]) -> Option<u64> {
    serde_json::from_slice::<IdOnly>(line)
        .ok()
        .map(|record| record.id)
}

/// Appends a message and returns its id. With [`Durability::Sync`] it is on disk then.
///
/// Several processes may append at once: ids are dense and rising. A torn last line is moved aside first.
///
/// # Errors
/// [`StoreError`]; nothing was appended then.
pub fn append(
    dir: &Path,
    side: Side,
    message: NewMessage,
    durability: Durability,
) -> Result<u64, StoreError> {
    let path = side.path(dir);
    let mut file = Appender::open(&path, |line| Message::parse(line, side).is_some())?;
    let last = last_in(file.lines_backwards()).map_err(StoreError::io("read", &path))?;
    let id = last
        .max(highest_cursor(dir, side))
        .checked_add(1)
        .ok_or_else(|| StoreError::Corrupt {
            path: path.clone(),
            line: 0,
            reason: "the highest id there can be is taken".to_owned(),
        })?;
    let timestamp = clock::now();
    let request_id = match message.request_id {
        Some(request_id) => request_id,
        None => format!("chat-{}-{}", timestamp.millis(), registry::nonce()?),
    };
    let line = Message {
        id,
        timestamp,
        role: message.role,
        content: message.content,
        request_id,
        user: message.user.unwrap_or_else(user),
        in_reply_to: message.in_reply_to,
        retry_of: message.retry_of,
        turn: message.turn,
        extra: message.extra,
    };
    file.append(&line.format(), durability)?;
    Ok(id)
}

/// Returns the highest id that a reader has seen: a file that was emptied behind our back must not start again below it.
fn highest_cursor(dir: &Path, side: Side) -> u64 {
    let cursors: &[Cursor] = match side {
        Side::Inbox => &[Cursor::Nex, Cursor::Coordinator],
        Side::Outbox => &[Cursor::Consumer],
    };
    cursors
        .iter()
        .map(|cursor| read_cursor(dir, *cursor).unwrap_or(0))
        .max()
        .unwrap_or(0)
}

/// Returns the id of the last line that has one.
fn last_in(mut lines: LinesBackwards<'_>) -> std::io::Result<u64> {
    while let Some(line) = lines.next_line()? {
        if let Some(id) = id_of(&line) {
            return Ok(id);
        }
    }
    Ok(0)
}

/// Returns the id of the last message, 0 if there is none.
///
/// # Errors
/// [`StoreError`].
pub fn last_id(dir: &Path, side: Side) -> Result<u64, StoreError> {
    let path = side.path(dir);
    let Some(file) = files::open_to_read(&path)? else {
        return Ok(0);
    };
    let length = file
        .metadata()
        .map_err(StoreError::io("look at", &path))?
        .len();
    last_in(LinesBackwards::new(&file, length)).map_err(StoreError::io("read", &path))
}

/// Messages, and how many lines were none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Read {
    /// The messages in the order of their ids.
    pub messages: Vec<Message>,
    /// How many complete lines could not be read as messages.
    pub bad_lines: usize,
    /// How many bytes of the file were looked at, from its start: where an incremental reader goes on.
    pub(super) end: u64,
}

/// Reads the messages with ids over `after`; what lies before them in the file is not read.
///
/// # Errors
/// [`StoreError`]; a line that is no message is counted, never an error.
pub fn read_after(dir: &Path, side: Side, after: u64) -> Result<Read, StoreError> {
    collect(dir, side, |message, _| message.id > after)
}

/// Reads the last `count` messages.
///
/// # Errors
/// As [`read_after`].
pub fn read_last(dir: &Path, side: Side, count: usize) -> Result<Read, StoreError> {
    collect(dir, side, |_, already| already < count)
}

/// Collects messages from the end of the file for as long as `wanted` says so.
fn collect(
    dir: &Path,
    side: Side,
    wanted: impl Fn(&Message, usize) -> bool,
) -> Result<Read, StoreError> {
    let path = side.path(dir);
    let Some(file) = files::open_to_read(&path)? else {
        return Ok(Read::default());
    };
    let length = file
        .metadata()
        .map_err(StoreError::io("look at", &path))?
        .len();
    let mut lines = LinesBackwards::new(&file, length);
    let mut read = Read {
        end: lines
            .complete_end()
            .map_err(StoreError::io("read", &path))?,
        ..Read::default()
    };
    while let Some(line) = lines.next_line().map_err(StoreError::io("read", &path))? {
        match Message::parse(&line, side) {
            Some(message) if wanted(&message, read.messages.len()) => read.messages.push(message),
            Some(_) => break,
            None if line.trim_ascii().is_empty() => {}
            None => read.bad_lines += 1,
        }
    }
    read.messages.reverse();
    read.messages.sort_by_key(|message| message.id);
    Ok(read)
}

/// A reader that returns each message once, as it is appended.
#[derive(Debug)]
pub struct Tail {
    dir: PathBuf,
    side: Side,
    last_id: u64,
}

impl Tail {
    /// Starts after the message `after`; 0 for all of them.
    #[must_use]
    pub fn new(dir: &Path, side: Side, after: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            side,
            last_id: after,
        }
    }

    /// Returns what was appended since the last call.
    ///
    /// # Errors
    /// As [`read_after`].
    pub fn read_new(&mut self) -> Result<Vec<Message>, StoreError> {
        let messages = read_after(&self.dir, self.side, self.last_id)?.messages;
        if let Some(last) = messages.last() {
            self.last_id = last.id;
        }
        Ok(messages)
    }
}

/// Returns the inbox messages that have no reply yet, in order.
///
/// Only what is after the handler's cursor is read. A message is answered if a line of the outbox names it in `in_reply_to` or, where the
/// earlier tool wrote it, bears its request id.
///
/// # Errors
/// [`StoreError`].
pub fn unanswered(dir: &Path) -> Result<Vec<Message>, StoreError> {
    let mut cursor = read_cursor(dir, Cursor::Nex)?;
    if cursor > last_id(dir, Side::Inbox)? {
        // The earlier tool's rotation starts again at 1 and leaves the cursor where it was: it says nothing about this file.
        cursor = 0;
    }
    let mut waiting = read_after(dir, Side::Inbox, cursor)?.messages;
    if waiting.is_empty() {
        return Ok(waiting);
    }
    // Replies come in the order of the messages: what is before the reply to one at or below the cursor answers none of these.
    let replies = collect(dir, Side::Outbox, |reply, _| {
        reply.in_reply_to.is_none_or(|id| id > cursor)
    })?
    .messages;
    waiting.retain(|message| !replies.iter().any(|reply| answers(reply, message)));
    Ok(waiting)
}

/// Whether a line of the outbox is the reply to a message.
fn answers(reply: &Message, message: &Message) -> bool {
    match reply.in_reply_to {
        Some(id) => id == message.id,
        None => !message.request_id.is_empty() && reply.request_id == message.request_id,
    }
}
