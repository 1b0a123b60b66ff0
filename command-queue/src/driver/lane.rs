//! One lane with its lock, and what the driver adds to the rules: the token, the alarm, the group.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use super::clock;
use super::group::Group;
use super::shared::Shared;
use super::slot::Cancelled;
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
    /// Absent for a lane that never was in a group.
    grouped: Option<Box<Grouped>>,
    /// Somebody configured this lane, so it is never forgotten.
    pub(crate) configured: bool,
}

#[derive(Default)]
struct Grouped {
    group: Option<Arc<Group>>,
    /// A slot that was handed to this lane and not used yet.
    granted: Option<Arc<Group>>,
    /// The slots that running tasks use. Whoever frees a task's slot takes its entry, so it goes back once.
    permits: Vec<(u64, Arc<Group>)>,
}

pub(crate) struct LaneCell {
    /// The queue. Handles hold their lane only, so that submitting does not touch a counter that every thread touches.
    home: Weak<Shared>,
    pub(crate) number: u64,
    /// The hash of the name, which the directory finds this lane by.
    pub(crate) hash: u64,
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
    pub(crate) fn new(
        home: Weak<Shared>,
        number: u64,
        hash: u64,
        name: Arc<str>,
        config: Arc<LaneConfig>,
    ) -> Self {
        Self {
            home,
            number,
            hash,
            name,
            armed: AtomicU64::new(0),
            state: Mutex::new(LaneState {
                core: Lane::new(config),
                token: Token::None,
                grouped: None,
                configured: false,
            }),
        }
    }
}

impl LaneState {
    pub(crate) fn group(&self) -> Option<&Arc<Group>> {
        self.grouped.as_ref()?.group.as_ref()
    }

    /// Changes the group. Returns the one before.
    pub(crate) fn set_group(&mut self, group: Option<Arc<Group>>) -> Option<Arc<Group>> {
        if group.is_none() && self.grouped.is_none() {
            return None;
        }
        std::mem::replace(&mut self.grouped.get_or_insert_default().group, group)
    }

    pub(crate) fn grant(&mut self, group: Arc<Group>) {
        self.grouped.get_or_insert_default().granted = Some(group);
    }

    pub(crate) fn take_granted(&mut self) -> Option<Arc<Group>> {
        self.grouped.as_mut()?.granted.take()
    }

    pub(crate) fn keep_permit(&mut self, seq: u64, group: Arc<Group>) {
        self.grouped
            .get_or_insert_default()
            .permits
            .push((seq, group));
    }

    /// Takes the group's slot that a task uses, which the caller has to give back.
    pub(crate) fn take_permit(&mut self, seq: u64) -> Option<Arc<Group>> {
        let permits = &mut self.grouped.as_mut()?.permits;
        let at = permits.iter().position(|(holder, _)| *holder == seq)?;
        Some(permits.swap_remove(at).1)
    }
}

impl LaneCell {
    /// Returns the queue, unless it is gone with all its threads.
    pub(crate) fn home(&self) -> Option<Arc<Shared>> {
        self.home.upgrade()
    }

    /// Removes a waiting task, or tells a running one to stop.
    pub(crate) fn cancel(self: &Arc<Self>, seq: u64) -> Cancelled {
        // A queue that is gone has answered everybody.
        self.home()
            .map_or(Cancelled::TooLate, |home| home.cancel(self, seq))
    }

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
    fn alarm(&self, state: &mut LaneState) -> Option<Instant> {
        let due = state.core.moved_deadline()?;
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
