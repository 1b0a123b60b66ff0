//! Events: every notice of every machine as one line of `events.jsonl`, one sentence of the log, and one line to each
//! subscriber.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use supervisor::Notice;

use super::event_writer::EventWriter;
use crate::chat::{Need, WhyNot};
use crate::ipc::server::{ConnectionId, Poster};
use crate::names::{EventKind, StartReason};
use crate::notices;
use crate::store::events::{EventLine, EventLog};
use crate::store::graph::ChatId;
use crate::why::LastVerdict;

/// How long it is waited for an event that is being written. Where somebody else has the file it is not waited for at all.
const WRITTEN: Duration = Duration::from_secs(2);

/// How long the end of the daemon waits for its last events.
pub(super) const LAST_WRITTEN: Duration = Duration::from_secs(5);

/// The same where the end is forced.
pub(super) const WRITTEN_BY_FORCE: Duration = Duration::from_millis(250);

/// Has events written and hands them to whoever subscribed.
#[derive(Debug)]
pub(super) struct Events {
    log: EventLog,
    writer: EventWriter,
    outlets: Arc<Outlets>,
}

/// Whom the events go to.
#[derive(Debug, Default)]
struct Outlets {
    subscribers: Mutex<BTreeMap<ConnectionId, Option<ChatId>>>,
    poster: OnceLock<Poster>,
}

impl Outlets {
    /// Hands an event that was written to the subscribers.
    fn tell(&self, event: &EventLine) {
        let Some(poster) = self.poster.get() else {
            return;
        };
        let subscribers = self.subscribers.lock();
        if subscribers.is_empty() {
            return;
        }
        let mut bytes = serde_json::to_vec(event).unwrap_or_default();
        bytes.push(b'\n');
        let bytes: Arc<[u8]> = bytes.into();
        for (connection, wanted) in subscribers.iter() {
            if wanted.is_none() || *wanted == event.chat_id {
                poster.push(*connection, Arc::clone(&bytes));
            }
        }
    }
}

impl Events {
    pub(super) fn new(log: EventLog) -> io::Result<Self> {
        let outlets = Arc::new(Outlets::default());
        let to = Arc::clone(&outlets);
        let writer = EventWriter::start(log.clone(), move |event| to.tell(event))?;
        Ok(Self {
            log,
            writer,
            outlets,
        })
    }

    pub(super) fn send_through(&self, poster: Poster) {
        drop(self.outlets.poster.set(poster));
    }

    pub(super) fn subscribe(&self, connection: ConnectionId, chat: Option<ChatId>) {
        self.outlets.subscribers.lock().insert(connection, chat);
    }

    pub(super) fn unsubscribe(&self, connection: ConnectionId) {
        self.outlets.subscribers.lock().remove(&connection);
    }

    pub(super) fn is_subscribed(&self, connection: ConnectionId) -> bool {
        self.outlets.subscribers.lock().contains_key(&connection)
    }

    /// Has an event written, without waiting for it.
    pub(super) fn write(&self, event: EventLine) {
        self.writer.write(event);
    }

    /// Waits until the events so far are written, so that whoever is answered next can read them; never for another process.
    pub(super) fn settle(&self) -> bool {
        self.writer.settle(WRITTEN)
    }

    /// Waits for the last events to be written before the end, for at most `within` even for another process, and tells the log how
    /// many were not.
    pub(super) fn finish(&self, within: Duration) {
        let lost = self.writer.finish(within);
        if lost > 0 {
            log::error!(
                "the last {lost} events were not written: another process has the lock of `events.jsonl`"
            );
        }
    }

    /// Sends a line to one connection.
    pub(super) fn push_to(&self, connection: ConnectionId, bytes: Arc<[u8]>) {
        if let Some(poster) = self.outlets.poster.get() {
            poster.push(connection, bytes);
        }
    }

    /// The last verdict on a handler of this chat, from the events of earlier daemons.
    pub(super) fn last_verdict(&self, chat: ChatId) -> Option<LastVerdict> {
        last_verdict(&self.log, chat)
    }

    /// The same for every chat, in one pass over the events.
    pub(super) fn last_verdicts(&self) -> BTreeMap<ChatId, LastVerdict> {
        let is_exit = |event: &EventLine| event.event == EventKind::Exited;
        let exits = self.log.last_of_each(is_exit).unwrap_or_default();
        exits
            .iter()
            .filter_map(|(chat, exit)| Some((*chat, LastVerdict::from_event(exit)?)))
            .collect()
    }

    /// Turns a machine's notice into its event and its log line.
    /// `need` is whether somebody needs the chat, where that was looked at.
    pub(super) fn notice(
        &self,
        chat: ChatId,
        notice: &Notice,
        reason: Option<StartReason>,
        need: Option<Need>,
    ) {
        let n = chat.0;
        match notice {
            // These two are looked for by other people's scripts, word for word.
            Notice::Spawned { pid, .. } => {
                log::info!("Coordinator agent {n} spawned successfully");
                log::info!("Coordinator-{n}: nex subprocess running (pid {pid})");
            }
            Notice::Stopping {
                pid, restart: true, ..
            } => log::info!("Coordinator-{n}: handler {pid} is being replaced"),
            Notice::Stopping {
                pid,
                restart: false,
                ..
            } => log::info!("Coordinator-{n}: handler {pid} is being stopped"),
            Notice::Adopted { .. }
            | Notice::SpawnFailed { .. }
            | Notice::Exited { .. }
            | Notice::Backoff { .. }
            | Notice::Degraded { .. }
            | Notice::BudgetWarning { .. }
            | Notice::Held { .. }
            | Notice::Contended { .. }
            | Notice::HolderGone { .. }
            | Notice::Parked { .. }
            | Notice::Unparked { .. }
            | Notice::Idle
            | Notice::WokenEarly { .. }
            | Notice::NotNow { .. }
            | Notice::Stopped
            | Notice::Finished => {}
        }
        let because = reason.map_or("", StartReason::as_str);
        let line = |kind, text: String| EventLine::new(Some(chat), kind, text);
        let Some(mut event) = notices::event(notice, "handler", because, line) else {
            return;
        };
        if let Notice::Backoff {
            account,
            number,
            delay,
            ..
        } = notice
            && need == Some(Need::Not(WhyNot::NobodyNeedsIt))
        {
            let account = notices::account_text(*account, *number);
            event.text = notices::pause_of_the_unneeded(*delay, &account);
        }
        if !matches!(notice, Notice::Spawned { .. }) {
            log::log!(notices::level(notice), "Coordinator-{n}: {}", event.text);
        }
        self.write(EventLine {
            state: notices::state_after(notice),
            ..event
        });
    }
}

/// The last verdict on a handler of this chat, from the events that were written down.
pub(super) fn last_verdict(log: &EventLog, chat: ChatId) -> Option<LastVerdict> {
    // A chat rarely has this many events after its last exit, and older ones would not explain the present.
    let recent = log.tail(Some(chat), 64).ok()?;
    recent
        .iter()
        .rev()
        .find(|line| line.event == EventKind::Exited)
        .and_then(LastVerdict::from_event)
}
