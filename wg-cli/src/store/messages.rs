//! `inbox.jsonl` and `outbox.jsonl` of a session: what was said, by whom, and what has been answered.
//!
//! Ids rise by one in each file, over rotations too. A reply names its message in `in_reply_to`; the cursors only spare the readers the
//! beginning of the file, and a cursor that is lost or wrong loses no message and answers none twice.

use std::env;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use super::cursor::{
    Cursor, advance_cursor, advance_handler_cursors, advance_past, read_cursor,
};
pub use super::files::Durability;
pub use super::lock::LockHolder;
pub use super::message_log::{
    Read, Tail, append, append_within, decides_what_waits, find_unanswered, last_id,
    next_unanswered, read_after, read_last, unanswered,
};
pub use super::out_of_order::{Numbers, RENUMBERED_FROM, Which, passed_over, renumber};
pub use super::rotation::{Keep, rotate, rotate_history};
use super::{files, json, lock};
use crate::clock::Timestamp;

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
    /// The sender's name for the message; if `None`, one is made up, and for a reply it is left empty.
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

/// Returns who has the lock of the messages now, as far as that can be told.
#[must_use]
pub fn lock_holder(dir: &Path, side: Side) -> Option<LockHolder> {
    lock::holder(&files::with_suffix(&side.path(dir), ".lock"))
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
