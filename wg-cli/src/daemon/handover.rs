//! A session that was given up for a person: the daemon keeps away for a while, or until somebody takes it. Whoever that is gets
//! watched from then on.

use supervisor::{Account, Notice, State};

use super::holder::Seen;
use super::host::unit_of;
use super::{Control, Daemon, holder};
use crate::chat::Happened;
use crate::names::EventKind;
use crate::notices;
use crate::store::events::EventLine;
use crate::store::graph::ChatId;
use crate::store::resolve::{self, Make};

/// What is known of a session's way from a handler to a person.
#[derive(Debug, Default)]
pub(super) struct Handover {
    /// The machine keeps away, so that a person gets the session.
    pauses: bool,
    /// Who had it.
    former: Option<u32>,
    /// Who has it now, as far as that was told.
    taken_by: Option<u32>,
}

impl Handover {
    /// Takes note of what the chat's machine does.
    pub(super) fn heed(&mut self, notice: &Notice) {
        match notice {
            Notice::Exited { pid, .. } => self.former = Some(*pid),
            Notice::Backoff { account, .. } => self.pauses = matches!(account, Account::Release),
            Notice::Spawned { .. } | Notice::Adopted { .. } => *self = Self::default(),
            Notice::Degraded { .. }
            | Notice::Held { .. }
            | Notice::Contended { .. }
            | Notice::Parked { .. }
            | Notice::NotNow { .. }
            | Notice::Stopping { .. }
            | Notice::Idle
            | Notice::Stopped
            | Notice::Finished => self.pauses = false,
            Notice::SpawnFailed { .. }
            | Notice::BudgetWarning { .. }
            | Notice::HolderGone { .. }
            | Notice::Unparked { .. }
            | Notice::WokenEarly { .. } => {}
        }
    }
}

/// Whether the machine does nothing but keep away or rest. What crashes, and what is parked, meets the holder when its pause is over or its
/// park is lifted: somebody who takes the session and gives it back forgives nothing and cuts nothing short.
fn keeps_away(state: &State) -> bool {
    match state {
        State::Backoff { account, .. } => matches!(account, Account::Release | Account::NotNow),
        State::Idle { .. }
        | State::Starting { .. }
        | State::Held { .. }
        | State::Contended { .. } => true,
        State::Degraded { .. }
        | State::Parked { .. }
        | State::Running { .. }
        | State::Ending { .. }
        | State::Stopping { .. }
        | State::Stopped { .. } => false,
    }
}

impl Daemon {
    /// Whoever has the session was asked to leave for a person.
    pub(super) fn released(&self, chat: ChatId, actor: &str) {
        let holder = resolve::session_dir(&self.workspace, chat, Make::No)
            .ok()
            .and_then(|dir| holder::seen(&dir))
            .filter(Seen::reads_requests)
            .map(|seen| seen.holder.pid);
        if let Some(entry) = self.chats.lock().get_mut(&chat) {
            entry.handover.former = holder;
        }
        self.act(chat, Happened::Release);
        drop(self.control.send(Control::LookAtDeadlines));
        // Of whom nobody can ask it, nothing was asked.
        if holder.is_some() {
            self.events.write(EventLine {
                pid: holder,
                ..EventLine::new(
                    Some(chat),
                    EventKind::ReleaseRequested,
                    format!("asked to leave at its turn boundary by {actor}"),
                )
            });
        }
    }

    /// A person may have taken a session that was given up: then there is nothing to keep away from any more, and it is held like any other.
    pub(super) fn session_may_be_taken(&self, chat: ChatId) {
        let before = {
            let chats = self.chats.lock();
            let Some(entry) = chats
                .get(&chat)
                .filter(|entry| entry.handover.pauses || entry.core.deadline().is_some())
            else {
                return;
            };
            [entry.handler, entry.handover.former]
        };
        let Ok(dir) = resolve::session_dir(&self.workspace, chat, Make::No) else {
            return;
        };
        let Ok(Some((holder, _))) = holder::live_holder(&dir) else {
            return;
        };
        if holder.pid == 0 || before.contains(&Some(holder.pid)) {
            return;
        }
        let told = {
            let mut chats = self.chats.lock();
            let entry = chats.get_mut(&chat);
            entry
                .is_none_or(|entry| entry.handover.taken_by.replace(holder.pid) == Some(holder.pid))
        };
        if !told {
            log::info!("Coordinator-{}: taken over by {holder}", chat.0);
            self.events.write(EventLine {
                pid: Some(holder.pid),
                ..notices::held_by(
                    &holder,
                    EventLine::new(
                        Some(chat),
                        EventKind::TakenOver,
                        format!("taken over by {holder}"),
                    ),
                )
            });
        }
        self.act(chat, Happened::HoldOffOver);
        if self
            .machine_state(chat)
            .is_none_or(|state| keeps_away(&state))
        {
            // The host is asked, finds it held, and watches the holder.
            self.driver().resume(unit_of(chat));
        }
    }
}
