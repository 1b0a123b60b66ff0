//! Events: every notice of every machine as one line of `events.jsonl`, one sentence of the log, and one line to each
//! subscriber.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use supervisor::{Account, Holder, Moment, Notice, ParkReason, SpawnFailure, UnparkedBy};

use crate::clock::{self, Timestamp};
use crate::ipc::server::{ConnectionId, Poster};
use crate::names::{EventKind, StartReason};
use crate::store::events::{EventLine, EventLog};

use crate::store::graph::ChatId;
use crate::why::LastVerdict;

/// Writes events and hands them to whoever subscribed.
#[derive(Debug)]
pub(super) struct Events {
    log: EventLog,
    /// Keeps the lines and what subscribers see in one order.
    order: Mutex<()>,
    subscribers: Mutex<BTreeMap<ConnectionId, Option<ChatId>>>,
    poster: OnceLock<Poster>,
}

impl Events {
    pub(super) fn new(log: EventLog) -> Self {
        Self {
            log,
            order: Mutex::default(),
            subscribers: Mutex::default(),
            poster: OnceLock::new(),
        }
    }

    pub(super) fn send_through(&self, poster: Poster) {
        drop(self.poster.set(poster));
    }

    pub(super) fn subscribe(&self, connection: ConnectionId, chat: Option<ChatId>) {
        self.subscribers.lock().insert(connection, chat);
    }

    pub(super) fn unsubscribe(&self, connection: ConnectionId) {
        self.subscribers.lock().remove(&connection);
    }

    pub(super) fn is_subscribed(&self, connection: ConnectionId) -> bool {
        self.subscribers.lock().contains_key(&connection)
    }

    /// Writes an event and hands it to the subscribers.
    pub(super) fn write(&self, mut event: EventLine) {
        let _order = self.order.lock();
        match self.log.append(event.clone()) {
            Ok(seq) => event.seq = seq,
            Err(e) => {
                log::error!(
                    "an event could not be written: {}",
                    crate::failure::Failure::from(e)
                );
                return;
            }
        }
        let Some(poster) = self.poster.get() else {
            return;
        };
        let mut bytes = serde_json::to_vec(&event).unwrap_or_default();
        bytes.push(b'\n');
        let bytes: Arc<[u8]> = bytes.into();
        for (connection, wanted) in self.subscribers.lock().iter() {
            if wanted.is_none() || *wanted == event.chat_id {
                poster.push(*connection, Arc::clone(&bytes));
            }
        }
    }

    /// Sends a line to one connection.
    pub(super) fn push_to(&self, connection: ConnectionId, bytes: Arc<[u8]>) {
        if let Some(poster) = self.poster.get() {
            poster.push(connection, bytes);
        }
    }

    /// The last verdict on a handler of this chat, from the events of earlier daemons.
    pub(super) fn last_verdict(&self, chat: ChatId) -> Option<LastVerdict> {
        last_verdict(&self.log, chat)
    }

    /// Turns a machine's notice into its event and its log line.
    #[expect(
        clippy::too_many_lines,
        reason = "one arm for each notice, side by side"
    )]
    pub(super) fn notice(&self, chat: ChatId, notice: &Notice, reason: Option<StartReason>) {
        let n = chat.0;
        let because = reason
            .map(|reason| format!(" ({reason})"))
            .unwrap_or_default();
        let line = |kind, text: String| EventLine::new(Some(chat), kind, text);
        let event = match notice {
            Notice::Spawned { pid, .. } => {
                log::info!("Coordinator agent {n} spawned successfully");
                log::info!("Coordinator-{n}: nex subprocess running (pid {pid})");
                line(
                    EventKind::Spawned,
                    format!("handler {pid} was started{because}"),
                )
                .of_process(*pid)
            }
            Notice::Adopted { pid, .. } => {
                log::info!("Coordinator-{n}: handler {pid} of an earlier daemon was adopted");
                line(
                    EventKind::Adopted,
                    format!("handler {pid} of an earlier daemon was adopted"),
                )
                .of_process(*pid)
            }
            Notice::SpawnFailed { failure, .. } => {
                let (SpawnFailure::Permanent { reason } | SpawnFailure::Transient { reason }) =
                    failure;
                log::warn!("Coordinator-{n}: no handler was started: {reason}");
                line(
                    EventKind::SpawnFailed,
                    format!("no handler was started: {reason}"),
                )
            }
            // Written by `ended`, with the verdict, before the machine heard of it.
            Notice::Exited { .. } => return,
            Notice::Backoff {
                account,
                number,
                delay,
                until,
            } => {
                let text = format!(
                    "starts again in {} ({} {number})",
                    clock::span(*delay),
                    account_name(*account)
                );
                if !delay.is_zero() {
                    log::info!("Coordinator-{n}: {text}");
                }
                let counted = matches!(account, Account::Crash).then_some(*number);
                EventLine {
                    delay_ms: Some(millis(*delay)),
                    until: Some(wall(*until)),
                    crash_count: counted,
                    ..line(EventKind::Backoff, text)
                }
            }
            Notice::Degraded {
                number,
                in_window,
                window,
                pace,
            } => {
                let text = format!(
                    "{in_window} crashes within {} (number {number}): one attempt every {} from now on",
                    clock::span(*window),
                    clock::span(*pace)
                );
                log::warn!("Coordinator-{n}: {text}");
                EventLine {
                    delay_ms: Some(millis(*pace)),
                    crash_count: Some(*number),
                    ..line(EventKind::Degraded, text)
                }
            }
            Notice::BudgetWarning {
                account,
                count,
                budget,
                window,
                peak,
            } => {
                let mut text = format!(
                    "{count} restarts within {} on the {} account, {budget} are free",
                    clock::span(*window),
                    account_name(*account)
                );
                if let Some(peak) = peak {
                    text = format!(
                        "{text}; it used up to {} MiB: give it more (service.memory_cap) or look for a leak",
                        peak / (1 << 20)
                    );
                }
                log::warn!("Coordinator-{n}: {text}");
                let kind = if matches!(account, Account::Memory) {
                    EventKind::MemoryWarning
                } else {
                    EventKind::BudgetWarning
                };
                let budget = json!({ "account": account_name(*account), "count": count, "window_ms": millis(*window) });
                EventLine {
                    budget: Some(budget),
                    ..line(kind, text)
                }
            }
            Notice::Held { holder } => {
                let text = format!("held by live {holder}: no attempt while it lives");
                log::info!("Coordinator-{n}: {text}");
                line(EventKind::Held, text).held_by(holder)
            }
            Notice::Contended {
                holder,
                refusals,
                until,
            } => {
                let text = format!(
                    "held by {holder}, which cannot be watched: the lock is looked at again (refusal {refusals})"
                );
                log::info!("Coordinator-{n}: {text}");
                EventLine {
                    until: Some(wall(*until)),
                    ..line(EventKind::Held, text).held_by(holder)
                }
            }
            Notice::HolderGone { holder } => {
                log::info!("Coordinator-{n}: {holder} is gone");
                line(EventKind::HolderGone, format!("{holder} is gone")).held_by(holder)
            }
            Notice::Parked { reason } => {
                let text = format!("parked: {}", park_text(reason));
                log::warn!("Coordinator-{n}: {text}");
                line(EventKind::Parked, text)
            }
            Notice::Unparked { by } => {
                let who = match by {
                    UnparkedBy::Resume => "a person resumed it",
                    UnparkedBy::ConfigChanged => "its configuration changed",
                    UnparkedBy::HolderGone => "the holder is gone",
                    UnparkedBy::Adopted => "a handler of it was found alive",
                };
                line(EventKind::Unparked, format!("un-parked: {who}"))
            }
            Notice::Idle => line(
                EventKind::Idle,
                "nobody needs it: a message or a consumer wakes it".to_owned(),
            ),
            Notice::WokenEarly { account, number } => line(
                EventKind::Woken,
                format!(
                    "work cut a pause short ({} {number})",
                    account_name(*account)
                ),
            ),
            Notice::NotNow { reason, until } => {
                log::debug!("Coordinator-{n}: not now: {reason}");
                EventLine {
                    until: Some(wall(*until)),
                    ..line(
                        EventKind::Backoff,
                        format!("cannot start just now: {reason}"),
                    )
                }
            }
            Notice::Stopping { pid, restart, .. } => {
                let text = if *restart {
                    "is being replaced"
                } else {
                    "is being stopped"
                };
                log::info!("Coordinator-{n}: handler {pid} {text}");
                return;
            }
            Notice::Stopped => line(
                EventKind::Stopped,
                "down, and nothing is left of it".to_owned(),
            ),
            Notice::Finished => line(EventKind::Stopped, "its work is done".to_owned()),
        };
        self.write(event);
    }
}

/// What an account is called in a sentence.
pub(super) fn account_name(account: Account) -> &'static str {
    match account {
        Account::Crash => "crash",
        Account::Clean => "clean restart",
        Account::Memory => "memory",
        Account::Contention => "contention",
        Account::Dependency => "dependency",
        Account::Release => "release",
        Account::NotNow => "not now",
    }
}

/// Why a chat is parked, in a sentence.
pub(super) fn park_text(reason: &ParkReason) -> String {
    match reason {
        ParkReason::Permanent { reason } => reason.clone(),
        ParkReason::CrashLimit { crashes, last } => {
            format!("it crashed {crashes} times; the last time it {last}")
        }
        ParkReason::Contended {
            holder, refusals, ..
        } => {
            format!("{holder} held the session through {refusals} looks at the lock")
        }
    }
}

/// A moment of the driver's clock on the wall clock.
pub(super) fn wall(moment: Moment) -> Timestamp {
    let now = supervisor::clock::now();
    if moment >= now {
        clock::now().plus(moment.since(now))
    } else {
        let past = now
            .since(moment)
            .min(Duration::from_secs(60 * 60 * 24 * 365 * 50));
        Timestamp::from_millis(
            clock::now()
                .millis()
                .saturating_sub(i64::try_from(past.as_millis()).unwrap_or(i64::MAX)),
        )
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

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What lines of several kinds carry.
trait About {
    fn of_process(self, pid: u32) -> Self;
    fn held_by(self, holder: &Holder) -> Self;
}

impl About for EventLine {
    fn of_process(self, pid: u32) -> Self {
        Self {
            pid: Some(pid),
            ..self
        }
    }

    fn held_by(self, holder: &Holder) -> Self {
        Self {
            holder: Some(json!({ "pid": holder.pid, "kind": holder.label })),
            ..self
        }
    }
}
