//! Boot starts a few handlers at a time: each start has a slot of the lane `starts` until its handler has the session, or until
//! it is known that there will be none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use command_queue::{CommandQueue, ConfigError, LaneConfig, Limit, Outcome, Slot, SubmitOptions};
use parking_lot::Mutex;
use supervisor::Notice;

use super::Daemon;
use super::host::unit_of;
use crate::store::config::Config;
use crate::store::graph::ChatId;

const LANE: &str = "starts";

/// A start that takes longer gives its slot away: it must not keep a thousand others waiting.
const PATIENCE: Duration = Duration::from_secs(10);

/// The starts of boot that are under way.
#[derive(Debug, Default)]
pub(super) struct Starts {
    slots: Mutex<BTreeMap<ChatId, Slot>>,
}

/// Sets how many handlers start at a time.
pub(super) fn configure(queue: &CommandQueue, config: &Config) -> Result<(), ConfigError> {
    queue.configure_lane(
        LANE,
        LaneConfig {
            width: usize::try_from(config.service.max_starts.get()).unwrap_or(usize::MAX),
            stall_ceiling: Limit::After(PATIENCE),
            // Waiting here is what the lane is for, and no news.
            warn_after: Duration::from_secs(3600),
            ..LaneConfig::serial()
        },
    )
}

impl Daemon {
    /// Wakes the chat when it is its turn to start.
    pub(super) fn start_in_turn(self: &Arc<Self>, chat: ChatId) {
        let daemon = Arc::clone(self);
        let granted = move |slot| {
            daemon.starts.slots.lock().insert(chat, slot);
            // A machine that its former daemon stopped is lifted by a start; any other is woken by the message.
            daemon.driver().start(unit_of(chat));
            daemon.driver().wake(unit_of(chat));
        };
        let options = SubmitOptions::normal().labelled(chat.to_string());
        if let Err(refused) = self.queue.reserve(LANE, options, granted, |_| {}) {
            log::warn!("{chat}: starts without its turn: {}", refused.reason);
            self.driver().start(unit_of(chat));
            self.driver().wake(unit_of(chat));
        }
    }

    /// The start of this chat is over: its handler has the session, or there will be none for now.
    pub(super) fn start_is_over(&self, chat: ChatId) {
        let slot = self.starts.slots.lock().remove(&chat);
        if let Some(slot) = slot
            && let Err(lost) = slot.finish(Outcome::Finished)
        {
            log::debug!("{chat}: its start had given its place away: {lost}");
        }
    }
}

/// Whether a notice ends a start that was under way without a handler that has the session.
pub(super) fn ends_a_start(notice: &Notice) -> bool {
    match notice {
        Notice::SpawnFailed { .. }
        | Notice::Exited { .. }
        | Notice::Backoff { .. }
        | Notice::Degraded { .. }
        | Notice::Held { .. }
        | Notice::Contended { .. }
        | Notice::Parked { .. }
        | Notice::Idle
        | Notice::NotNow { .. }
        | Notice::Stopping { .. }
        | Notice::Stopped
        | Notice::Finished => true,
        Notice::Spawned { .. }
        | Notice::Adopted { .. }
        | Notice::BudgetWarning { .. }
        | Notice::HolderGone { .. }
        | Notice::Unparked { .. }
        | Notice::WokenEarly { .. } => false,
    }
}
