//! One lane with its lock, and what the driver adds to the rules: the token, the alarm, the group.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::clock;
use super::group::Group;
use super::task::TaskRef;
use crate::config::LaneConfig;
use crate::core::lane::Lane;

/// Where the lane's one token is. A lane that can dispatch has it somewhere; that is what keeps it alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// Nowhere: the lane has nothing to start.
    None,
    /// In the channel of ready lanes, or in the hands of a worker.
    Ready,
    /// With the capacity group, until a slot is handed over.
    Parked,
}

pub(crate) struct LaneState {
    pub(crate) core: Lane<TaskRef>,
    pub(crate) token: Token,
    pub(crate) group: Option<Arc<Group>>,
    /// A slot of a group that was handed to this lane and not used yet.
    pub(crate) granted: Option<Arc<Group>>,
    /// Somebody configured this lane, so it is never forgotten.
    pub(crate) configured: bool,
}

pub(crate) struct LaneCell {
    pub(crate) number: u64,
    pub(crate) name: Arc<str>,
    /// The alarm that counts, 0 for none; others that the watchdog has for this lane were overtaken. Written
    /// under the lane's lock, read without it.
    pub(crate) armed: AtomicU64,
    pub(crate) state: Mutex<LaneState>,
}

/// What has to be done once the lane's lock is released.
#[derive(Debug, Default)]
#[must_use = "a token that is not sent is a lane that never runs again"]
pub(crate) struct After {
    pub(crate) send: bool,
    pub(crate) alarm: Option<Instant>,
}

impl LaneCell {
    pub(crate) fn new(number: u64, name: Arc<str>, config: Arc<LaneConfig>) -> Self {
        Self {
            number,
            name,
            armed: AtomicU64::new(0),
            state: Mutex::new(LaneState {
                core: Lane::new(config),
                token: Token::None,
                group: None,
                granted: None,
                configured: false,
            }),
        }
    }
}

impl LaneCell {
    /// Says what follows from the state as it is now. Called at the end of every critical section that may
    /// have made the lane dispatchable or moved its deadline.
    pub(crate) fn after(&self, state: &mut LaneState) -> After {
        let send = state.token == Token::None && state.core.is_dispatchable();
        if send {
            state.token = Token::Ready;
        }
        After {
            send,
            alarm: self.alarm(state),
        }
    }

    /// Returns the alarm that has to be set, if the one that is set comes too late.
    fn alarm(&self, state: &LaneState) -> Option<Instant> {
        let due = state.core.deadline()?;
        let nanos = clock::to_nanos(due);
        let armed = self.armed.load(Ordering::Relaxed);
        if armed != 0 && armed <= nanos {
            return None;
        }
        self.armed.store(nanos, Ordering::Relaxed);
        Some(due)
    }

    /// Returns whether an alarm is the one that counts.
    pub(crate) fn is_armed_for(&self, at: Instant) -> bool {
        self.armed.load(Ordering::Relaxed) == clock::to_nanos(at)
    }

    /// Returns whether an alarm counts and there is something to look at. Takes the lane's lock.
    pub(crate) fn needs_alarm(&self, at: Instant) -> bool {
        self.is_armed_for(at) && !self.state.lock().core.is_idle()
    }
}
