//! Turns are tasks of `turn:<id>` lanes in the group `turns`: how many agents may think at once on this machine.
//!
//! A handler asks for a turn over its connection and gives it back over the same one; the end of the connection gives it
//! back too, so that no slot is ever held by nobody. No thread of this process waits for a turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use command_queue::{
    CommandQueue, Event, LaneConfig, Limit, Outcome, Reservation, Slot, SlotNotice, SubmitOptions,
};
use parking_lot::Mutex;
use serde_json::json;

use super::Daemon;
use super::host::unit_of;
use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, with_causes};
use crate::ipc::server::ConnectionId;
use crate::names::EventKind;
use crate::store::config::{Config, MaxTurns};
use crate::store::graph::ChatId;
use crate::store::messages;
use crate::store::resolve::{self, Make};

/// The group that caps all turns together.
const GROUP: &str = "turns";

/// How long a handler has for ending a stalled turn before it counts as hanging itself, however short the graces are.
const LADDER_AT_LEAST: Duration = Duration::from_secs(5);

/// A turn of this message, asked for over this connection.
type Key = (ConnectionId, ChatId, u64);

#[derive(Debug)]
enum Turn {
    /// Not asked for yet: its handler waits for something else, in words.
    Blocked(String),
    /// Asked for; the place in the lane, once it is known.
    Waiting(Option<Reservation>),
    Running(Slot),
}

/// The turns that handlers hold or wait for.
#[derive(Debug, Default)]
pub(super) struct Turns {
    open: Mutex<BTreeMap<Key, Turn>>,
}

/// Sets the widths of a configuration.
pub(super) fn configure(queue: &CommandQueue, config: &Config) {
    let width = match config.service.max_turns {
        MaxTurns::Auto => std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
        MaxTurns::Count(count) => usize::try_from(count.get()).unwrap_or(usize::MAX),
    };
    queue.configure_group(GROUP, width);
}

fn lane(chat: ChatId) -> String {
    format!("turn:{}", chat.0)
}

impl Turns {
    /// Whether the chat's handler waits for its turn.
    pub(super) fn is_waiting(&self, chat: ChatId) -> bool {
        let open = self.open.lock();
        open.iter().any(|((_, of, _), turn)| {
            *of == chat && matches!(turn, Turn::Waiting(_) | Turn::Blocked(_))
        })
    }

    /// What the chat's turn waits for, where that is not a slot.
    pub(super) fn waits_for(&self, chat: ChatId) -> Option<String> {
        let open = self.open.lock();
        open.iter().find_map(|((_, of, _), turn)| match turn {
            Turn::Blocked(reason) if *of == chat => Some(reason.clone()),
            Turn::Blocked(_) | Turn::Waiting(_) | Turn::Running(_) => None,
        })
    }

    /// Whether the connection has or wants a turn: it is a handler's.
    pub(super) fn is_handler(&self, connection: ConnectionId) -> bool {
        self.open
            .lock()
            .keys()
            .any(|(from, _, _)| *from == connection)
    }

    /// Takes back what a connection that has ended held.
    pub(super) fn closed(&self, connection: ConnectionId) -> Vec<ChatId> {
        let mut gone = Vec::new();
        let mut open = self.open.lock();
        let keys: Vec<Key> = open
            .keys()
            .filter(|(from, _, _)| *from == connection)
            .copied()
            .collect();
        for key in keys {
            gone.extend(open.remove(&key).map(|turn| (key.1, turn)));
        }
        drop(open);
        let chats = gone.iter().map(|(chat, _)| *chat).collect();
        for (_, turn) in gone {
            match turn {
                Turn::Waiting(Some(place)) => {
                    place.cancel();
                }
                // Granted in this very moment: the grant finds its entry gone and gives the slot back.
                Turn::Waiting(None) | Turn::Blocked(_) => {}
                Turn::Running(slot) => drop(slot),
            }
        }
        chats
    }
}

impl Daemon {
    /// Queues a handler's turn; it is granted by a line of its own.
    pub(super) fn turn_begin(
        self: &Arc<Self>,
        from: ConnectionId,
        chat: ChatId,
        message: u64,
    ) -> Result<usize, Failure> {
        self.known(chat)?;
        self.configure_lane(chat)?;
        let key = (from, chat, message);
        self.turns.open.lock().insert(key, Turn::Waiting(None));
        let granted = {
            let daemon = Arc::clone(self);
            move |slot: Slot| daemon.granted(key, slot)
        };
        let options = SubmitOptions::normal().labelled(format!("message {message}"));
        let place = self
            .queue
            .reserve(&lane(chat), options, granted, self.on_notice(key))
            .map_err(|refused| {
                self.turns.open.lock().remove(&key);
                Failure::new(ExitCode::Unavailable, "no turn can be given")
                    .caused_by(refused.reason.to_string())
            })?;
        let ahead = place.ahead();
        if let Some(Turn::Waiting(known)) = self.turns.open.lock().get_mut(&key) {
            *known = Some(place);
        }
        Ok(ahead)
    }

    /// Notes what a handler waits for before it asks for its turn. That ends when it asks, gives up, or is gone.
    pub(super) fn turn_waits(&self, from: ConnectionId, chat: ChatId, message: u64, reason: &str) {
        let key = (from, chat, message);
        {
            let mut open = self.turns.open.lock();
            match open.get(&key) {
                Some(Turn::Blocked(known)) if *known == reason => return,
                None | Some(Turn::Blocked(_)) => {
                    open.insert(key, Turn::Blocked(reason.to_owned()));
                }
                // It is said late: the turn was asked for since.
                Some(Turn::Waiting(_) | Turn::Running(_)) => return,
            }
        }
        self.handler_event(
            EventKind::LaneBlocked,
            chat,
            &format!("the turn of message {message} waits: {reason}"),
        );
    }

    /// Takes in a turn that was running before this daemon: it has its slot at once, even over the width.
    pub(super) fn turn_resume(
        self: &Arc<Self>,
        from: ConnectionId,
        chat: ChatId,
        message: u64,
    ) -> Result<(), Failure> {
        self.known(chat)?;
        self.configure_lane(chat)?;
        let key = (from, chat, message);
        let options = SubmitOptions::normal().labelled(format!("message {message}"));
        let slot = self
            .queue
            .adopt_slot_over_width(&lane(chat), options, self.on_notice(key))
            .map_err(|e| {
                Failure::new(ExitCode::Unavailable, "no turn can be given").caused_by(e.to_string())
            })?;
        self.turns.open.lock().insert(key, Turn::Running(slot));
        Ok(())
    }

    /// The agent showed a sign of life.
    pub(super) fn turn_progress(&self, from: ConnectionId, chat: ChatId, message: u64) {
        if let Some(Turn::Running(slot)) = self.turns.open.lock().get(&(from, chat, message)) {
            slot.progress();
        }
    }

    /// The turn is over, however it went; that is written in the reply.
    pub(super) fn turn_end(&self, from: ConnectionId, chat: ChatId, message: u64) {
        let turn = self.turns.open.lock().remove(&(from, chat, message));
        match turn {
            Some(Turn::Running(slot)) => {
                if let Err(lost) = slot.finish(Outcome::Finished) {
                    log::debug!("{chat}: the turn of message {message} had been given up: {lost}");
                }
                // A handler writes the reply first. One that could not answer leaves over it, and that is nothing to be forgiven for.
                let answered = self.is_answered(chat, message);
                if answered {
                    self.driver().progress(unit_of(chat));
                }
                let but = if answered {
                    ""
                } else {
                    ", and it is not answered yet"
                };
                self.handler_event(
                    EventKind::TurnFinished,
                    chat,
                    &format!("the turn of message {message} is over{but}"),
                );
            }
            Some(Turn::Waiting(Some(place))) => {
                place.cancel();
            }
            Some(Turn::Waiting(None) | Turn::Blocked(_)) | None => {}
        }
    }

    fn is_answered(&self, chat: ChatId, message: u64) -> bool {
        let open = resolve::session_dir(&self.workspace, chat, Make::No)
            .and_then(|dir| messages::find_unanswered(&dir, message));
        match open {
            Ok(open) => open.is_none(),
            Err(e) => {
                log::warn!(
                    "{chat}: whether message {message} is answered: {}",
                    with_causes(&e)
                );
                false
            }
        }
    }

    fn configure_lane(&self, chat: ChatId) -> Result<(), Failure> {
        let config = self.config();
        let agent = self.agent_of(chat)?;
        // The handler watches its agent itself and says so in the chat. This ceiling is for a handler that hangs.
        let ceiling = agent.stall_ceiling.saturating_add(
            config
                .service
                .stop_grace
                .saturating_mul(3)
                .max(LADDER_AT_LEAST),
        );
        let lane_config = LaneConfig {
            stall_ceiling: Limit::After(ceiling),
            cancel_grace: config.service.stop_grace,
            group: Some(GROUP.to_owned()),
            ..LaneConfig::single_writer()
        };
        self.queue
            .configure_lane(&lane(chat), lane_config)
            .map_err(|e| Failure::new(ExitCode::Bug, "the turn's lane cannot be made").caused_by(e))
    }

    fn granted(&self, key: Key, slot: Slot) {
        let (connection, chat, message) = key;
        {
            let mut open = self.turns.open.lock();
            match open.get_mut(&key) {
                Some(turn) => *turn = Turn::Running(slot),
                // Its handler is gone already: the slot is given back by being dropped.
                None => return,
            }
        }
        self.tell(connection, "turn_granted", chat, message);
        self.handler_event(
            EventKind::TurnStarted,
            chat,
            &format!("the turn of message {message} has begun"),
        );
    }

    fn on_notice(self: &Arc<Self>, key: Key) -> impl Fn(SlotNotice) + Send + Sync + 'static {
        // Weak: the queue belongs to the daemon and must not keep it alive.
        let daemon = Arc::downgrade(self);
        move |notice| {
            let Some(daemon) = daemon.upgrade() else {
                return;
            };
            let (connection, chat, message) = key;
            match notice {
                SlotNotice::Suspected => {
                    log::warn!("{chat}: the turn of message {message} shows no progress");
                }
                SlotNotice::Stop(error) => {
                    let text = format!(
                        "the turn of message {message} made no progress and its handler did not end it: {error}"
                    );
                    log::warn!("Coordinator-{}: {text}", chat.0);
                    daemon.event(EventKind::TurnInterrupted, Some(chat), &text);
                    daemon.tell(connection, "turn_stalled", chat, message);
                    // A handler that can still listen ends the turn; one that cannot is replaced by the ladder.
                    drop(daemon.driver().restart(unit_of(chat)));
                }
                SlotNotice::CancelRequested => {
                    daemon.tell(connection, "turn_cancelled", chat, message);
                }
                SlotNotice::Rejected(error) => {
                    log::debug!("{chat}: the turn of message {message} was not given: {error}");
                }
                other => log::debug!("{chat}: message {message}: {other:?}"),
            }
        }
    }

    fn tell(&self, connection: ConnectionId, event: &str, chat: ChatId, message: u64) {
        let line = json!({ "event": event, "chat_id": chat.0, "message_id": message });
        let mut bytes = line.to_string().into_bytes();
        bytes.push(b'\n');
        self.events.push_to(connection, bytes.into());
    }
}

impl Daemon {
    /// Writes what happens to lanes to the events; the words in the log are the queue's own.
    pub(super) fn report_lanes(self: &Arc<Self>) {
        let daemon = Arc::downgrade(self);
        self.queue.on_event(move |event| {
            let Some(daemon) = daemon.upgrade() else { return };
            let (kind, lane, text) = match event {
                Event::Blocked { lane, active, width, queued, oldest_active, .. } => (
                    EventKind::LaneBlocked,
                    lane,
                    format!(
                        "lane {lane}: {queued} wait, {active} of {width} slots are taken, the oldest for {}",
                        clock::span(*oldest_active)
                    ),
                ),
                Event::Reclaimed { lane, ran_for, .. } => (
                    EventKind::LaneReclaimed,
                    lane,
                    format!("lane {lane}: a slot was taken back after {}", clock::span(*ran_for)),
                ),
                Event::WaitedLong { .. }
                | Event::Suspected { .. }
                | Event::Stalled { .. }
                | Event::TimedOut { .. }
                | Event::Reset { .. }
                | Event::Held { .. }
                | Event::ReturnedLate { .. }
                | Event::QueuedTooLong { .. }
                | Event::RecoveryIneffective { .. }
                | Event::Lost { .. } => return,
            };
            daemon.event(kind, chat_of(lane), &text);
        });
    }
}

/// The chat that a lane belongs to, by its name.
pub(super) fn chat_of(lane: &str) -> Option<ChatId> {
    lane.split_once(':')
        .and_then(|(_, number)| ChatId::from_digits(number))
}
