//! What must outlive the daemon of a chat's machine: its budgets, its reasons, and its state as it was last known.
//!
//! Written after every notice that changes them, in a lane of the chat's own, so that the driver never waits for a disk and a `kill -9`
//! of the daemon forgives nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use supervisor::{Machine, Notice, Snapshot, ValidPolicy};

use super::host::unit_of;
use super::{Daemon, QUERY};
use crate::clock;
use crate::failure::Failure;
use crate::store::chat_state::ChatRecord;
use crate::store::graph::ChatId;

/// How long another process may have a chat's file while nobody waits for the save.
const IN_THE_LANE: Duration = Duration::from_secs(30);

/// The same at the end of the service.
const AT_THE_END: Duration = Duration::from_millis(250);

/// Whether the books are different after this.
pub(crate) fn matters(notice: &Notice) -> bool {
    match notice {
        // A spawn too: its generation must never be given again.
        Notice::Spawned { .. }
        | Notice::Exited { .. }
        | Notice::Backoff { .. }
        | Notice::Degraded { .. }
        | Notice::BudgetWarning { .. }
        | Notice::Contended { .. }
        | Notice::Held { .. }
        | Notice::Parked { .. }
        | Notice::Unparked { .. }
        | Notice::SpawnFailed { .. }
        | Notice::Stopped
        | Notice::Finished
        | Notice::WokenEarly { .. }
        | Notice::Idle => true,
        Notice::Adopted { .. }
        | Notice::HolderGone { .. }
        | Notice::NotNow { .. }
        | Notice::Stopping { .. } => false,
    }
}

impl Daemon {
    /// Writes the books of a chat soon.
    pub(super) fn save_later(self: &Arc<Self>, chat: ChatId) {
        // What the end of this daemon does to a machine is nobody's wish and must not outlive it; the books were saved when
        // the end began.
        if self.ending.load(Ordering::SeqCst) {
            return;
        }
        let daemon = Arc::clone(self);
        self.in_lane(&format!("books:{}", chat.0), "record", move || {
            if !daemon.ending.load(Ordering::SeqCst) {
                daemon.save(chat, IN_THE_LANE);
            }
        });
    }

    /// Writes the books of a chat, whose file another process may have for so long.
    pub(super) fn save(&self, chat: ChatId, patience: Duration) {
        let Ok(Some(machine)) = self.driver().machine(unit_of(chat), QUERY) else {
            return;
        };
        let state = self.state_with(chat, Some(machine.state()));
        let saved = supervisor::clock::stamp()
            .map_err(|e| e.to_string())
            .and_then(|stamp| {
                serde_json::to_value(machine.snapshot(stamp)).map_err(|e| e.to_string())
            });
        let books = match saved {
            Ok(books) => Some(books),
            Err(e) => {
                log::warn!("{chat}: the budgets could not be saved: {e}");
                None
            }
        };
        let now = clock::now();
        let written = ChatRecord::update_within(&self.workspace, chat, patience, |record| {
            if record.state != Some(state) {
                record.state = Some(state);
                record.since = Some(now);
            }
            if books.is_some() {
                record.machine = books;
            }
        });
        if let Err(e) = written {
            log::warn!(
                "{chat}: the budgets could not be saved: {}",
                Failure::from(e)
            );
        }
    }

    /// Every chat that the driver has a machine for.
    pub(super) fn units(&self) -> Vec<ChatId> {
        let chats = self.chats.lock();
        chats
            .iter()
            .filter(|(_, entry)| entry.has_unit)
            .map(|(chat, _)| *chat)
            .collect()
    }

    /// Writes the books of every chat that has some. The end of the service waits for nobody who has one of the files: that chat's budgets
    /// are those of the last save.
    pub(super) fn save_all(&self) {
        for chat in self.units() {
            self.save(chat, AT_THE_END);
        }
    }

    /// The machine as an earlier daemon left it, or a new one.
    pub(super) fn machine_for(&self, chat: ChatId) -> Machine {
        let policy = crate::wire::policy(&self.config());
        let saved = ChatRecord::load(&self.workspace, chat)
            .ok()
            .and_then(|record| saved(&record, &policy));
        match saved {
            Some(Ok(machine)) => machine,
            nothing => {
                if let Some(Err(e)) = nothing {
                    log::warn!("{chat}: the saved budgets cannot be read and start afresh: {e}");
                }
                Machine::new(policy, u64::from(chat.0), supervisor::clock::now())
            }
        }
    }
}

/// The machine as the last save of a daemon left it, if there was one.
pub(super) fn saved(record: &ChatRecord, policy: &ValidPolicy) -> Option<Result<Machine, String>> {
    let books = record.machine.clone()?;
    let restored = serde_json::from_value::<Snapshot>(books)
        .map_err(|e| e.to_string())
        .and_then(|saved| {
            let now = supervisor::clock::stamp().map_err(|e| e.to_string())?;
            saved
                .restore(policy.clone(), &now)
                .map_err(|e| e.to_string())
        });
    Some(restored)
}
