//! The handlers that are woken over their connections, so that none of them needs a kernel watch of its own.
//!
//! The kernel gives a user 128 inotify instances. The daemon has one for all sessions and passes on what it sees.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;

use super::Daemon;
use super::inbox_watch::Changed;
use crate::failure::Failure;
use crate::ipc::server::ConnectionId;
use crate::store::graph::ChatId;
use crate::store::resolve::{self, Make};

/// Who listens for which chat.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    open: Mutex<BTreeMap<ConnectionId, ChatId>>,
}

impl Listeners {
    /// Whether the connection is a handler's.
    pub(super) fn is_handler(&self, connection: ConnectionId) -> bool {
        self.open.lock().contains_key(&connection)
    }

    /// Forgets a connection that has ended.
    pub(super) fn closed(&self, connection: ConnectionId) {
        self.open.lock().remove(&connection);
    }

    fn of(&self, chat: ChatId) -> Vec<ConnectionId> {
        let open = self.open.lock();
        open.iter()
            .filter(|(_, of)| **of == chat)
            .map(|(connection, _)| *connection)
            .collect()
    }
}

impl Daemon {
    /// Wakes whoever is on this connection from now on whenever something in the chat's session may concern its handler.
    ///
    /// What happened before is not told: the handler looks once after it was answered.
    pub(super) fn listen(&self, from: ConnectionId, chat: ChatId) -> Result<(), Failure> {
        self.known(chat)?;
        let dir = resolve::session_dir(&self.workspace, chat, Make::Yes)?;
        if let Some(watch) = self.watch.get() {
            watch.add(chat, &dir);
        }
        self.listeners.open.lock().insert(from, chat);
        Ok(())
    }

    /// Passes on that something in a session changed.
    pub(super) fn wake_handlers(&self, chat: ChatId, what: Changed) {
        match what {
            Changed::Inbox | Changed::Release | Changed::Anything => {}
            // The handler's own doing, or nothing of its.
            Changed::Outbox | Changed::Lock | Changed::Marker => return,
        }
        let listeners = self.listeners.of(chat);
        if listeners.is_empty() {
            return;
        }
        let mut line = json!({ "event": "wake", "chat_id": chat.0 }).to_string();
        line.push('\n');
        let bytes: Arc<[u8]> = line.into_bytes().into();
        for listener in listeners {
            self.events.push_to(listener, Arc::clone(&bytes));
        }
    }
}
