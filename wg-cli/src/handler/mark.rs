//! The mark that everything started for a chat carries in its environment.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use crate::store::Workspace;

/// Name of the variable.
pub const VARIABLE: &str = "WG_SESSION";

/// `WG_SESSION=<workspace id>/<chat>/<nonce>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// `<workspace id>/<chat>/`: what all handlers of the chat have in common.
    pub(crate) prefix: String,
    /// What tells this handler from any other of the chat.
    pub(crate) nonce: String,
}

impl Mark {
    /// Takes over the mark that this process was started with, or makes one where it has none for this chat.
    pub(crate) fn of_this_process(workspace: &Workspace, chat: &str) -> Self {
        Self::from_given(
            &workspace.id(),
            chat,
            std::env::var(VARIABLE).ok().as_deref(),
        )
    }

    fn from_given(workspace: &str, chat: &str, given: Option<&str>) -> Self {
        let prefix = format!("{workspace}/{chat}/");
        let nonce = given
            .and_then(|mark| mark.strip_prefix(&prefix))
            .filter(|nonce| !nonce.is_empty());
        let nonce = nonce.map_or_else(random_nonce, str::to_owned);
        Self { prefix, nonce }
    }

    /// Returns the value of the variable.
    pub(crate) fn value(&self) -> String {
        format!("{}{}", self.prefix, self.nonce)
    }
}

/// Returns whether this process was started by a daemon, which then looks after it.
pub(crate) fn is_under_daemon() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Returns sixteen hexadecimal digits that nobody else has.
#[must_use]
pub fn random_nonce() -> String {
    // The standard library seeds its hasher states from the system's random source and never gives the same twice.
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_the_daemon_gave_is_kept() {
        let mark = Mark::from_given("ws", "chat-3", Some("ws/chat-3/abc"));
        assert_eq!(
            (mark.value().as_str(), mark.nonce.as_str()),
            ("ws/chat-3/abc", "abc")
        );
    }

    #[test]
    fn a_mark_of_another_chat_or_workspace_is_not_taken_over() {
        for given in [
            None,
            Some(""),
            Some("ws/chat-3/"),
            Some("ws/chat-33/abc"),
            Some("other/chat-3/abc"),
        ] {
            let mark = Mark::from_given("ws", "chat-3", given);
            assert_eq!(mark.prefix, "ws/chat-3/");
            assert_eq!(mark.nonce.len(), 16, "{given:?} gave {mark:?}");
        }
    }

    #[test]
    fn nonces_differ() {
        assert_ne!(random_nonce(), random_nonce());
    }
}
