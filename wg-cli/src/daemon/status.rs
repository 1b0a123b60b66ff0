//! What the daemon tells of itself and of its chats.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::graph_seen::InGraph;
use super::host::unit_of;
use super::{Daemon, Entry, QUERY, explain, holder, lanes, unread};
use crate::chat::Wish;
use crate::clock;
use crate::names::ChatState;
use crate::ops::ServiceStatus;
use crate::store::graph::ChatId;
use crate::store::resolve::{self, Make, Sessions};

impl Daemon {
    /// How the service is.
    pub(super) fn status(&self) -> ServiceStatus {
        let now = clock::now();
        ServiceStatus {
            status: "running".to_owned(),
            pid: Some(std::process::id()),
            socket: self
                .workspace
                .socket_path()
                .ok()
                .map(|path| path.display().to_string()),
            started_at: Some(self.started_at),
            uptime_secs: Some(now.since(self.started_at).as_secs()),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            paused: self.paused.load(Ordering::SeqCst),
            graph_trouble: self.graph_trouble_or_damage(),
            log: self.workspace.daemon_log_path().display().to_string(),
            chats: self.rows(),
            control_groups: self.groups.are_made(),
            lanes: lanes::of(&self.queue.snapshot()),
        }
    }

    /// Every chat with its true state.
    pub(super) fn rows(&self) -> Vec<crate::ops::ChatRow> {
        let states: BTreeMap<_, _> = self
            .driver()
            .states(QUERY)
            .unwrap_or_default()
            .into_iter()
            .collect();
        let chats: Vec<ChatId> = {
            let chats = self.chats.lock();
            let there = chats
                .iter()
                .filter(|(_, entry)| entry.in_graph != InGraph::Gone);
            there.map(|(chat, _)| *chat).collect()
        };
        let sessions = Sessions::load(&self.workspace).ok();
        chats
            .into_iter()
            .filter_map(|chat| {
                let dir = sessions.as_ref().map(|sessions| sessions.dir(chat));
                explain::row(self, chat, states.get(&unit_of(chat)), dir.as_deref())
            })
            .collect()
    }

    /// One chat with its true state.
    pub(super) fn row(&self, chat: ChatId) -> Option<crate::ops::ChatRow> {
        let dir = resolve::session_dir(&self.workspace, chat, Make::No).ok();
        explain::row(
            self,
            chat,
            self.machine_state(chat).as_ref(),
            dir.as_deref(),
        )
    }

    /// What the chat is doing, in one word.
    pub(super) fn chat_state(&self, chat: ChatId) -> ChatState {
        self.state_with(chat, self.machine_state(chat).as_ref())
    }

    /// What the chat is doing, where its machine stands here. A chat that was never needed has no machine yet, and is as idle
    /// as one that has.
    pub(super) fn state_with(
        &self,
        chat: ChatId,
        machine: Option<&supervisor::State>,
    ) -> ChatState {
        let wish = self
            .chats
            .lock()
            .get(&chat)
            .map_or(Wish::Archived, |entry| entry.core.wish());
        let idle = supervisor::State::Idle {
            since: supervisor::clock::now(),
        };
        let state = crate::chat::state(wish, Some(machine.unwrap_or(&idle)));
        if matches!(state, ChatState::Running | ChatState::Adopted) && self.turns.is_waiting(chat) {
            ChatState::Queued
        } else if state == ChatState::Running && !self.serves(chat) {
            ChatState::Starting
        } else if state == ChatState::Stopped && wish == Wish::Run && self.is_ending() {
            // The end of the service stops its machines, and is no wish of anybody for this chat.
            ChatState::Dormant
        } else {
            state
        }
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// How many messages of this chat, whose session is in `dir`, wait.
    pub(super) fn unread(&self, chat: ChatId, dir: &Path) -> usize {
        let last =
            |chats: &BTreeMap<ChatId, Entry>| chats.get(&chat).and_then(|entry| entry.unread);
        let mut counted = last(&self.chats.lock());
        let before = counted;
        let unread = unread::count(dir, &mut counted, clock::now()).unwrap_or(0);
        if counted != before
            && let Some(entry) = self.chats.lock().get_mut(&chat)
        {
            entry.unread = counted;
        }
        unread
    }

    /// Whether the handler of this chat has had the session: until then it is being started.
    fn serves(&self, chat: ChatId) -> bool {
        let (serves, handler) = {
            let chats = self.chats.lock();
            let Some(entry) = chats.get(&chat) else {
                return false;
            };
            (entry.serves, entry.handler)
        };
        // The notice of its lock may be on its way, or be missed where too many are watched.
        let has_it = || {
            let dir = resolve::session_dir(&self.workspace, chat, Make::No).ok()?;
            holder::seen(&dir)
                .filter(holder::Seen::holds_itself)
                .map(|seen| seen.holder.pid)
        };
        serves || has_it().is_some_and(|pid| Some(pid) == handler)
    }
}
