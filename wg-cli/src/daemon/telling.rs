//! In which order the events of a chat are told: a start before whatever its handler does. The driver's thread tells of the start, and the
//! handler may have spoken to another thread by then.

use supervisor::Notice;

use super::{Daemon, starts};
use crate::clock;
use crate::names::EventKind;
use crate::store::events::EventLine;
use crate::store::graph::ChatId;

/// Whether a notice tells what came of a start that was decided.
pub(super) fn follows_a_decision(notice: &Notice) -> bool {
    matches!(notice, Notice::Spawned { .. }) || starts::ends_a_start(notice)
}

impl Daemon {
    /// Tells what a handler does: never before its start, of which another thread tells.
    pub(super) fn handler_event(&self, kind: EventKind, chat: ChatId, text: &str) {
        let event = EventLine::new(Some(chat), kind, text);
        {
            let mut chats = self.chats.lock();
            if let Some(entry) = chats.get_mut(&chat)
                && entry.is_starting
            {
                entry.told_later.push(event);
                return;
            }
        }
        self.events.write(event);
    }

    /// The start was told, or that there was none: what was done meanwhile follows.
    pub(super) fn tell_the_rest(&self, chat: ChatId) {
        // Under the lock, so that nothing that comes now goes before these.
        let mut chats = self.chats.lock();
        let Some(entry) = chats.get_mut(&chat) else {
            return;
        };
        entry.is_starting = false;
        for event in entry.told_later.drain(..) {
            self.events.write(EventLine {
                ts: clock::now(),
                ..event
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use supervisor::{Generation, StartReason as Cause};

    use super::*;
    use crate::ipc::protocol::NewChatRequest;
    use crate::names::StartReason;
    use crate::store::config::Config;
    use crate::store::events::EventLog;
    use crate::store::workspace::Workspace;

    fn spawned() -> Notice {
        Notice::Spawned {
            generation: Generation(1),
            pid: 4711,
            reason: Cause::Woken,
        }
    }

    #[test]
    fn what_a_handler_does_is_told_after_its_start_whichever_thread_hears_of_it_first() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = Workspace::init(dir.path()).unwrap();
        workspace.ensure_service_dir().unwrap();
        let (daemon, _controls) = Daemon::assemble(&workspace, Config::default()).unwrap();
        let chat = ChatId(0);
        super::super::local::create_chat(&workspace, &NewChatRequest::default(), true).unwrap();
        daemon.known(chat).unwrap();
        daemon.starting(chat, StartReason::Message);
        daemon.handler_event(EventKind::TurnStarted, chat, "begun");
        daemon.handler_event(EventKind::TurnFinished, chat, "over");
        daemon.notice(chat, &spawned());
        daemon.handler_event(EventKind::TurnStarted, chat, "begun again");
        daemon.events.finish(Duration::from_secs(100));
        let told = EventLog::open(&workspace, u64::MAX, 0).after(0).unwrap();
        let kinds: Vec<EventKind> = told.iter().map(|event| event.event).collect();
        assert_eq!(
            kinds,
            [
                EventKind::Spawned,
                EventKind::TurnStarted,
                EventKind::TurnFinished,
                EventKind::TurnStarted
            ]
        );
        assert!(told.is_sorted_by_key(|event| event.ts), "{told:#?}");
    }
}
