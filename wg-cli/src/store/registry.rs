//! `chat/sessions.json`: the earlier tool's map from session directories to the names of their chats.
//!
//! It is read to find histories, and written only to keep it true, under the lock of `sessions.json.lock`.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::fields::Fields;
use super::files;
use super::graph::ChatId;
use super::{StoreError, Workspace};
use crate::clock;

/// The registry's name in the directory of all sessions.
pub(crate) const FILE_NAME: &str = "sessions.json";

/// The field that holds the sessions.
const SESSIONS: &str = "sessions";

/// The registry as it was read; fields that we do not know are kept.
#[derive(Debug, Clone)]
pub struct Registry {
    path: PathBuf,
    content: Fields,
}

/// A session of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The name of its directory.
    pub uuid: String,
    /// The names that lead to it.
    pub aliases: Vec<String>,
    /// Whether it was archived.
    pub archived: bool,
}

impl Registry {
    /// Reads the registry; `None` if the workspace has none.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it cannot be read as one: then nobody knows which directory is whose, and guessing would split histories.
    pub fn load(workspace: &Workspace) -> Result<Option<Self>, StoreError> {
        let path = workspace.registry_path();
        let Some(bytes) = files::read(&path)? else {
            return Ok(None);
        };
        let content: Fields =
            serde_json::from_slice(&bytes).map_err(|error| super::json::corrupt(&path, &error))?;
        if content.raw(SESSIONS).is_some() && content.inner(SESSIONS).is_none() {
            return Err(StoreError::Corrupt {
                path,
                line: 0,
                reason: format!("`{SESSIONS}` is no object"),
            });
        }
        Ok(Some(Self { path, content }))
    }

    /// Returns the sessions whose directory names are ones: nothing in this file leads out of the chat directory.
    pub fn sessions(&self) -> impl Iterator<Item = Session> {
        let entries = self.entries().to_map();
        entries
            .into_iter()
            .filter(|(uuid, _)| is_uuid(uuid))
            .map(|(uuid, entry)| Session {
                uuid,
                aliases: aliases_in(&entry),
                archived: entry.get("archived_at").is_some_and(|at| !at.is_null()),
            })
    }

    fn entries(&self) -> Fields {
        self.content.inner(SESSIONS).unwrap_or_default()
    }

    /// Returns the session of a chat.
    #[must_use]
    pub fn session_of(&self, chat: ChatId) -> Option<Session> {
        // In the order in which the earlier tool looks, so that both find the same one.
        aliases_of(chat).iter().find_map(|alias| {
            self.sessions()
                .find(|session| session.aliases.contains(alias))
        })
    }

    /// Adds a session for a chat that has none.
    pub fn add(&mut self, uuid: &str, chat: ChatId) {
        let label = format!("chat {}", chat.0);
        let entry = json!({
            "kind": "coordinator",
            "created": clock::now(),
            "aliases": aliases_of(chat),
            "label": label,
        });
        let mut entries = self.entries();
        entries.set(uuid, &entry);
        self.content.set_inner(SESSIONS, &entries);
    }

    /// Adds a session that belongs to no chat.
    pub fn add_named(&mut self, uuid: &str, alias: &str) {
        let entry = json!({
            "kind": "other",
            "created": clock::now(),
            "aliases": [alias],
            "label": alias,
        });
        let mut entries = self.entries();
        entries.set(uuid, &entry);
        self.content.set_inner(SESSIONS, &entries);
    }

    /// Gives a session these names in place of those that it has. Returns whether there is such a session.
    pub fn set_aliases(&mut self, uuid: &str, aliases: &[String]) -> bool {
        let mut entries = self.entries();
        let Some(mut entry) = entries.inner(uuid) else {
            return false;
        };
        entry.set("aliases", &json!(aliases));
        entries.set_inner(uuid, &entry);
        self.content.set_inner(SESSIONS, &entries);
        true
    }

    /// Forgets a session. Returns whether there was one.
    pub fn remove(&mut self, uuid: &str) -> bool {
        let mut entries = self.entries();
        let removed = entries.remove(uuid);
        if removed {
            self.content.set_inner(SESSIONS, &entries);
        }
        removed
    }

    /// Takes the mark of an archived session away. Returns whether it bore one.
    pub fn unmark_archived(&mut self, uuid: &str) -> bool {
        let mut entries = self.entries();
        let Some(mut entry) = entries.inner(uuid) else {
            return false;
        };
        let changed = entry.remove("archived_at");
        if changed {
            entries.set_inner(uuid, &entry);
            self.content.set_inner(SESSIONS, &entries);
        }
        changed
    }

    /// Writes the registry. Only under [`Registry::lock_path`]'s lock.
    ///
    /// # Errors
    /// As [`files::replace_atomically`].
    pub fn save(&self) -> Result<(), StoreError> {
        files::replace_atomically(&self.path, &super::json::pretty(&self.content))
    }

    /// Returns the side file under whose lock the registry is changed.
    #[must_use]
    pub fn lock_path(workspace: &Workspace) -> PathBuf {
        files::with_suffix(&workspace.registry_path(), ".lock")
    }
}

/// The names of a session's entry.
fn aliases_in(entry: &Value) -> Vec<String> {
    let names = entry.get("aliases").and_then(Value::as_array);
    names
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// The names that the earlier tool gives a chat's session.
fn aliases_of(chat: ChatId) -> [String; 3] {
    [
        format!("chat-{}", chat.0),
        format!("coordinator-{}", chat.0),
        chat.0.to_string(),
    ]
}

/// Whether a text can be the name of a session directory.
#[must_use]
pub fn is_uuid(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        && !text.starts_with('-')
}

/// Returns a new session directory's name: a version 7 UUID, which sorts by time as the earlier tool's do.
///
/// # Errors
/// [`StoreError::Io`] if the system gives no random bytes.
pub fn new_uuid() -> Result<String, StoreError> {
    let random = random_bytes()?;
    let millis = u64::try_from(clock::now().millis()).unwrap_or(0);
    let high =
        (millis << 16) | 0x7000 | u64::from(u16::from_be_bytes([random[0], random[1]]) & 0x0fff);
    let tail = random[2..10]
        .iter()
        .fold(0_u64, |bits, byte| (bits << 8) | u64::from(*byte));
    let low = (tail & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
    Ok(format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    ))
}

/// Reads 16 random bytes.
fn random_bytes() -> Result<[u8; 16], StoreError> {
    let path = std::path::Path::new("/dev/urandom");
    let mut bytes = [0; 16];
    std::fs::File::open(path)
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .map_err(StoreError::io("read", path))?;
    Ok(bytes)
}

/// Returns 16 hexadecimal digits that nobody else has: for request ids and nonces.
///
/// # Errors
/// [`StoreError::Io`] if the system gives no random bytes.
pub fn nonce() -> Result<String, StoreError> {
    Ok(random_bytes()?[..8]
        .iter()
        .fold(String::new(), |mut text, byte| {
            use std::fmt::Write;
            write!(text, "{byte:02x}").expect("because writing to a String cannot fail");
            text
        }))
}
