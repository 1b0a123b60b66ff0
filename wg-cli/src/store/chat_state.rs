//! `service/coordinator-state-N.json`: what is wished for a chat and what the daemon knows of it.
//!
//! The file is shared with the earlier tool; ours is the one object `wg_supervisor`, everything else is kept as it is.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fields::Fields;
use super::files;
use super::graph::ChatId;
use super::lock;
use super::{StoreError, Workspace, json};
use crate::clock::Timestamp;
use crate::names::{ChatState, StartReason};
use std::path::PathBuf;
use std::time::Duration;

/// The version of the format that is written.
pub const VERSION: u32 = 1;

/// The name of our object in the file.
const KEY: &str = "wg_supervisor";

/// What is kept of a chat over restarts of the daemon.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatRecord {
    /// The version of the format that was read; 0 for an empty record.
    #[serde(default)]
    pub version: u32,
    /// The last known state.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient"
    )]
    pub state: Option<ChatState>,
    /// Why it is in that state, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// What the restart policy remembers, in its own form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Value>,
    /// When a consumer was last connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_consumer_at: Option<Timestamp>,
    /// A person stopped it then; only a person lifts that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<Timestamp>,
    /// It was archived then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived_at: Option<Timestamp>,
    /// It was purged then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purged_at: Option<Timestamp>,
    /// Who stopped, archived or purged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish_actor: Option<String>,
    /// And why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish_reason: Option<String>,
    /// The last decision to start a handler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spawn: Option<SpawnRecord>,
    /// Fields of a later version.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The decision to start a handler, written before the fork.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnRecord {
    /// The last part of the handler's `WG_SESSION`.
    pub nonce: String,
    /// The how-manieth start of this chat.
    pub generation: u64,
    /// Why.
    pub reason: StartReason,
    /// On whose behalf.
    pub actor: String,
    /// When it was decided.
    pub at: Timestamp,
    /// The handler's process, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When that process started, in clock ticks since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ticks: Option<u64>,
    /// Of which boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// At which byte of the handler's log its own words begin.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub log_from: u64,
    /// The directory of the control group that was made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<PathBuf>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A state of a later version is none that we know; it is no reason to lose the rest of the record.
fn lenient<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<ChatState>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(value.as_str().and_then(ChatState::parse))
}

impl ChatRecord {
    /// Whether a person's wish keeps the chat from being served.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.stopped_at.is_some() || self.archived_at.is_some() || self.purged_at.is_some()
    }

    /// Reads the record of a chat; an empty one if there is none.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a file that cannot be read: a wish may stand in it, so it is never taken for empty.
    pub fn load(workspace: &Workspace, chat: ChatId) -> Result<Self, StoreError> {
        let (_, record) = read(workspace, chat)?;
        Ok(record)
    }

    /// The error of somebody whose time was over before he came to the record.
    #[must_use]
    pub fn busy(workspace: &Workspace, chat: ChatId, waited: Duration) -> StoreError {
        let path = lock_path(workspace, chat);
        StoreError::Busy {
            holder: lock::holder(&path),
            path,
            waited,
        }
    }

    /// Changes the record of a chat under its lock and returns it as it is now.
    ///
    /// # Errors
    /// [`StoreError`]. A damaged file is set aside first, with a warning.
    pub fn update(
        workspace: &Workspace,
        chat: ChatId,
        change: impl FnOnce(&mut Self),
    ) -> Result<Self, StoreError> {
        Self::update_within(workspace, chat, lock::PATIENCE, change)
    }

    /// As [`ChatRecord::update`], for those who must not wait for a stopped process that has the file's lock.
    ///
    /// # Errors
    /// As [`ChatRecord::update`]; [`StoreError::Busy`] when the time is over.
    pub fn update_within(
        workspace: &Workspace,
        chat: ChatId,
        patience: Duration,
        change: impl FnOnce(&mut Self),
    ) -> Result<Self, StoreError> {
        let path = workspace.chat_state_path(chat);
        if let Some(parent) = path.parent() {
            files::create_directories(parent)?;
        }
        files::locked_within(&lock_path(workspace, chat), patience, || {
            let (mut file, before) = match read(workspace, chat) {
                Ok(read) => read,
                Err(StoreError::Corrupt { path, reason, .. }) => {
                    let aside = files::set_aside(&path)?;
                    log::warn!(
                        "`{}` was damaged ({reason}) and is now `{}`",
                        path.display(),
                        aside.display()
                    );
                    (Fields::default(), Self::default())
                }
                Err(error) => return Err(error),
            };
            let mut record = before.clone();
            change(&mut record);
            if record != before || file.raw(KEY).is_none() {
                // A later version keeps its number: its fields are still there.
                record.version = record.version.max(VERSION);
                file.set(KEY, &record);
                files::replace_atomically(&path, &json::pretty(&file))?;
            }
            Ok(record)
        })
    }
}

fn lock_path(workspace: &Workspace, chat: ChatId) -> PathBuf {
    files::with_suffix(&workspace.chat_state_path(chat), ".lock")
}

/// Reads the file and our object in it.
fn read(workspace: &Workspace, chat: ChatId) -> Result<(Fields, ChatRecord), StoreError> {
    let path = workspace.chat_state_path(chat);
    let Some(bytes) = files::read(&path)? else {
        return Ok((Fields::default(), ChatRecord::default()));
    };
    let corrupt = |error: serde_json::Error| json::corrupt(&path, &error);
    let file: Fields = serde_json::from_slice(&bytes).map_err(corrupt)?;
    let record = match file.raw(KEY) {
        Some(ours) => serde_json::from_str(ours.get()).map_err(corrupt)?,
        None => ChatRecord::default(),
    };
    Ok((file, record))
}
