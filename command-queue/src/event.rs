//! What a listener is told.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Timeout;
use crate::id::TaskId;

/// Something that was decided about a lane or a task. All spans are measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A task started after a wait that was longer than the lane's `warn_after`. Throttled per lane.
    WaitedLong {
        /// The lane's name.
        lane: Arc<str>,
        /// The task.
        id: TaskId,
        /// How long it waited.
        waited: Duration,
        /// Tasks waiting or running when it arrived.
        ahead: usize,
        /// Slots taken now, its own included.
        active: usize,
        /// Tasks waiting now.
        behind: usize,
    },
    /// Work waits and nothing was dispatched for a while. Throttled per lane.
    Blocked {
        /// The lane's name.
        lane: Arc<str>,
        /// Slots taken.
        active: usize,
        /// Slots in all.
        width: usize,
        /// Tasks waiting.
        queued: usize,
        /// Age of the oldest taken slot.
        oldest_active: Duration,
        /// How long the oldest waiting task has waited.
        oldest_queued: Duration,
        /// Every slot is held by a task that was given up.
        wedged: bool,
        /// Reports left out since the last one.
        suppressed: u64,
    },
    /// Four fifths of a task's ceiling passed without progress.
    Suspected {
        /// The lane's name.
        lane: Arc<str>,
        /// The task.
        id: TaskId,
        /// Time since its last progress.
        idle_for: Duration,
        /// Time since its start.
        ran_for: Duration,
    },
    /// A task made no progress for as long as its lane allows, and was told to stop.
    Stalled {
        /// The lane's name.
        lane: Arc<str>,
        /// The task.
        id: TaskId,
        /// Time since its last progress.
        idle_for: Duration,
        /// Time since its start.
        ran_for: Duration,
    },
    /// A task overran a limit of its own, and was told to stop.
    TimedOut {
        /// The lane's name.
        lane: Arc<str>,
        /// The task.
        id: TaskId,
        /// Which limit.
        kind: Timeout,
        /// Time since its last progress.
        idle_for: Duration,
        /// Time since its start.
        ran_for: Duration,
    },
    /// A running task was stopped because its lane was reset.
    Reset {
        /// The lane's name.
        lane: Arc<str>,
        /// The task.
        id: TaskId,
    },
    /// The slot of a task that did not stop was freed. The task still runs.
    Reclaimed {
        /// The lane's name.
        lane: Arc<str>,
        /// The task.
        id: TaskId,
        /// Time since its start.
        ran_for: Duration,
    },
    /// A task did not stop and keeps its slot: the lane has overrun `Hold`, or too many phantoms.
    Held {
        /// The lane's name.
        lane: Arc<str>,
        /// The task.
        id: TaskId,
        /// Time since its start.
        ran_for: Duration,
    },
    /// A task that was given up ended after all. Its result was dropped.
    ReturnedLate {
        /// The lane's name.
        lane: Arc<str>,
        /// The task.
        id: TaskId,
    },
    /// A waiting task gave up.
    QueuedTooLong {
        /// The lane's name.
        lane: Arc<str>,
        /// The task.
        id: TaskId,
        /// How long it waited.
        waited: Duration,
    },
    /// Tasks were given up or reset, and not one slot came free by it.
    RecoveryIneffective {
        /// The lane's name.
        lane: Arc<str>,
        /// Slots taken.
        active: usize,
        /// Tasks waiting.
        queued: usize,
        /// Every slot is held by a task that was given up.
        wedged: bool,
    },
    /// Listeners were too slow, and events were dropped.
    Lost {
        /// How many.
        count: u64,
    },
}
