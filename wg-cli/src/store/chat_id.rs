//! The number of a chat, and the forms in which it is written.

use std::fmt;

/// The number of a chat.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct ChatId(pub u32);

impl ChatId {
    /// Returns the id of its task: `.chat-3`.
    #[must_use]
    pub fn task_id(self) -> String {
        format!(".chat-{}", self.0)
    }

    /// Returns the id that earlier versions gave its task: `.coordinator-3`.
    #[must_use]
    pub fn legacy_task_id(self) -> String {
        format!(".coordinator-{}", self.0)
    }

    /// Reads the id of a task, in either form; the very old `.coordinator` is chat 0.
    #[must_use]
    pub fn from_task_id(id: &str) -> Option<Self> {
        if id == ".coordinator" {
            return Some(Self(0));
        }
        id.strip_prefix(".chat-")
            .or_else(|| id.strip_prefix(".coordinator-"))
            .and_then(Self::from_digits)
    }

    /// Reads a number as `wg` writes it: no sign, no leading zero, not over [`u32::MAX`].
    #[must_use]
    pub fn from_digits(digits: &str) -> Option<Self> {
        let canonical = digits == "0"
            || (!digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()));
        if canonical {
            digits.parse().ok().map(Self)
        } else {
            None
        }
    }

    /// Reads every form of the number: `3`, `chat-3`, `.chat-3`, `coordinator-3`, `.coordinator-3`.
    #[must_use]
    pub fn from_any_form(text: &str) -> Option<Self> {
        let bare = text.strip_prefix('.').unwrap_or(text);
        if bare == "coordinator" {
            return Some(Self(0));
        }
        match bare
            .strip_prefix("chat-")
            .or_else(|| bare.strip_prefix("coordinator-"))
        {
            Some(digits) => Self::from_digits(digits),
            None => Self::from_digits(text),
        }
    }
}

impl fmt::Display for ChatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("chat-{}", self.0))
    }
}
