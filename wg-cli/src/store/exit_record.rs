//! `exit.json` of a session: how the last handler and its agent ended, for a daemon that is not the handler's parent.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{StoreError, files, json};
use crate::clock::Timestamp;

/// The version of the format that is written.
pub const VERSION: u32 = 1;

/// How a handler ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The version of the format.
    pub version: u32,
    /// The handler's process.
    pub pid: u32,
    /// Line 2 of the handler's lock record, which tells it from another process of that number.
    pub at_line2: String,
    /// The last part of its `WG_SESSION`, if a daemon started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// The code with which it exits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why, in one sentence.
    pub cause: String,
    /// How its agent ended, if that is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentEnd>,
    /// The memory for which it left, if that is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryEnd>,
    /// When.
    pub at: Timestamp,
}

/// How an agent ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentEnd {
    /// In words, such as `code 1` or `signal 9 (KILL)`.
    pub ending: String,
}

/// What a handler and everything below it had in memory when it left for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryEnd {
    /// The most that was seen at once, in bytes.
    pub peak: u64,
    /// What it might have, in bytes.
    pub cap: u64,
}

impl ExitRecord {
    /// Returns where the record of a session is.
    #[must_use]
    pub fn path(session: &Path) -> PathBuf {
        session.join("exit.json")
    }

    /// Writes the record.
    ///
    /// # Errors
    /// As [`files::replace_atomically`].
    pub fn write(&self, session: &Path) -> Result<(), StoreError> {
        files::replace_atomically(&Self::path(session), &json::pretty(self))
    }

    /// Reads the record; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it cannot be read; the ending is unknown then.
    pub fn read(session: &Path) -> Result<Option<Self>, StoreError> {
        json::read(&Self::path(session))
    }

    /// Whether this is the record of exactly that handler.
    #[must_use]
    pub fn is_of(&self, pid: u32, at_line2: &str) -> bool {
        self.pid == pid && self.at_line2 == at_line2
    }
}
