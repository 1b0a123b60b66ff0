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
use crate::names::ChatState;
use crate::store::StoreError;
use crate::store::chat_state::ChatRecord;
use crate::store::graph::ChatId;

/// How long another process may have a chat's file while nobody waits for the save.
const IN_THE_LANE: Duration = Duration::from_secs(30);

/// How long other processes may have the files of all chats together at the end of the service.
const AT_THE_END: Duration = Duration::from_millis(250);

const NOT_SAVED: &str = "the budgets could not be saved";

/// What is saved of a chat.
#[derive(Debug)]
pub(super) struct Books {
    state: ChatState,
    machine: Option<serde_json::Value>,
}

/// The lane in which what nobody waits for is written to the chat's state file: one thread waits where another process has it.
pub(super) fn record_lane(chat: ChatId) -> String {
    format!("record:{}", chat.0)
}

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
        self.in_lane(&record_lane(chat), "books", move || {
            // Made afresh before each try: what is written is what holds then.
            let written = daemon.patiently(|| match daemon.books_of(chat) {
                Some(books) => daemon.save(chat, books, IN_THE_LANE),
                None => Ok(()),
            });
            if let Err(e) = written {
                log::warn!("{chat}: {NOT_SAVED}: {}", Failure::from(e));
            }
        });
    }

    /// Does what needs a file again for as long as another process has it, until the end of the service begins.
    pub(super) fn patiently<T>(
        &self,
        mut work: impl FnMut() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        loop {
            match work() {
                Err(StoreError::Busy { .. }) if !self.ending.load(Ordering::SeqCst) => {}
                done => return done,
            }
        }
    }

    /// The books of a chat as they are now; `None` for one that the driver has no machine for.
    fn books_of(&self, chat: ChatId) -> Option<Books> {
        let machine = self.driver().machine(unit_of(chat), QUERY).ok().flatten()?;
        let state = self.state_with(chat, Some(machine.state()));
        let saved = supervisor::clock::stamp()
            .map_err(|e| e.to_string())
            .and_then(|stamp| {
                serde_json::to_value(machine.snapshot(stamp)).map_err(|e| e.to_string())
            });
        let machine = saved
            .inspect_err(|e| log::warn!("{chat}: {NOT_SAVED}: {e}"))
            .ok();
        Some(Books { state, machine })
    }

    /// Writes the books of a chat, whose file another process may have for so long.
    fn save(&self, chat: ChatId, books: Books, patience: Duration) -> Result<(), StoreError> {
        let now = clock::now();
        let written = ChatRecord::update_within(&self.workspace, chat, patience, |record| {
            if record.state != Some(books.state) {
                record.state = Some(books.state);
                record.since = Some(now);
            }
            if books.machine.is_some() {
                record.machine = books.machine;
            }
        });
        written.map(drop)
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

    /// The books of every chat that has some, as they are before the end of the service does anything to them.
    pub(super) fn all_books(&self) -> Vec<(ChatId, Books)> {
        let units = self.units().into_iter();
        units
            .filter_map(|chat| Some((chat, self.books_of(chat)?)))
            .collect()
    }

    /// Writes the books of every chat. The end of the service waits for nobody who has one of the files: that chat's budgets are those of
    /// the last save. Returns a sentence for each that was not written.
    pub(super) fn save_all(&self, books: Vec<(ChatId, Books)>) -> Vec<String> {
        let until = clock::steady() + AT_THE_END;
        let mut unwritten = Vec::new();
        for (chat, books) in books {
            let left = until.saturating_duration_since(clock::steady());
            if let Err(e) = self.save(chat, books, left) {
                let text = format!("{chat}: {NOT_SAVED}: {}", Failure::from(e));
                log::warn!("{text}");
                unwritten.push(text);
            }
        }
        unwritten
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
