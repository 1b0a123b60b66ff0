//! What the events say about each chat since the service began: the turn that is under way, and how often its handler was started again.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::clock::Timestamp;
use crate::names::EventKind;
use crate::store::graph::ChatId;

#[derive(Debug, Default)]
struct OfChat {
    turn_since: Option<Timestamp>,
    restarts: u32,
}

/// The running sum of the events.
#[derive(Debug, Default)]
pub(super) struct Activity {
    chats: BTreeMap<ChatId, OfChat>,
}

impl Activity {
    /// Takes in the next line of the events.
    pub(super) fn hear(&mut self, line: &str) {
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            return;
        };
        let text = |key: &str| event.get(key).and_then(Value::as_str);
        let Some(kind) = text("event").and_then(EventKind::parse) else {
            return;
        };
        let chat = event
            .get("chat_id")
            .and_then(Value::as_u64)
            .and_then(|id| u32::try_from(id).ok());
        let Some(chat) = chat else {
            if kind == EventKind::DaemonStarted {
                // Its restarts are counted anew; a turn in flight goes on over a change of daemons.
                self.chats.values_mut().for_each(|chat| chat.restarts = 0);
            }
            return;
        };
        let entry = self.chats.entry(ChatId(chat)).or_default();
        match kind {
            EventKind::TurnStarted => entry.turn_since = text("ts").and_then(Timestamp::parse),
            EventKind::TurnFinished | EventKind::TurnInterrupted | EventKind::Exited => {
                entry.turn_since = None;
            }
            EventKind::Backoff => entry.restarts += 1,
            EventKind::DaemonStarted
            | EventKind::Adopted
            | EventKind::Held
            | EventKind::HolderGone
            | EventKind::Spawned
            | EventKind::SpawnFailed
            | EventKind::Degraded
            | EventKind::Parked
            | EventKind::Unparked
            | EventKind::Idle
            | EventKind::Woken
            | EventKind::LaneBlocked
            | EventKind::LaneReclaimed
            | EventKind::MemoryWarning
            | EventKind::ReleaseRequested
            | EventKind::TakenOver
            | EventKind::Archived
            | EventKind::Purged
            | EventKind::Restored
            | EventKind::OrphanEnded
            | EventKind::BudgetWarning
            | EventKind::Stopped => {}
        }
    }

    /// Since when the chat's turn is under way, if one is.
    pub(super) fn turn_since(&self, chat: ChatId) -> Option<Timestamp> {
        self.chats.get(&chat)?.turn_since
    }

    /// How often a start followed an ending since the service began.
    pub(super) fn restarts(&self, chat: ChatId) -> u32 {
        self.chats.get(&chat).map_or(0, |chat| chat.restarts)
    }
}

#[cfg(test)]
mod tests {
    use super::Activity;
    use crate::store::graph::ChatId;

    #[test]
    fn a_turn_lasts_from_its_start_to_its_end_and_restarts_are_those_of_this_service() {
        let mut activity = Activity::default();
        let event = |kind: &str| {
            format!(
                r#"{{"ts":"2026-11-20T20:26:09Z","seq":1,"chat_id":3,"event":"{kind}","text":""}}"#
            )
        };
        let chat = ChatId(3);
        activity.hear(&event("turn_started"));
        assert!(activity.turn_since(chat).is_some());
        activity.hear(&event("exited"));
        activity.hear(&event("backoff"));
        activity.hear("not JSON");
        assert_eq!(
            (activity.turn_since(chat), activity.restarts(chat)),
            (None, 1)
        );
        activity
            .hear(r#"{"ts":"2026-11-20T20:26:09Z","seq":2,"event":"daemon_started","text":""}"#);
        assert_eq!(activity.restarts(chat), 0);
        assert_eq!(activity.restarts(ChatId(4)), 0);
    }
}
