//! What can be seen from outside: plain values, taken at one instant per lane.

use std::sync::Arc;
use std::time::Duration;

use crate::id::TaskId;

/// Counters since the start of the queue.
///
/// At any instant `submitted` = `finished` + `failed` + `panicked` + `cancelled` + `cleared` + `timed_out` +
/// `stalled` + queued + active, where queued and active stand in the snapshot beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tasks that were accepted.
    pub submitted: u64,
    /// Tasks that did what they were to do.
    pub finished: u64,
    /// Tasks that ended and said that they failed.
    pub failed: u64,
    /// Tasks that panicked.
    pub panicked: u64,
    /// Tasks that were cancelled, by their caller or by a reset.
    pub cancelled: u64,
    /// Waiting tasks that were rejected because the lane was cleared or the queue closed.
    pub cleared: u64,
    /// Tasks that overran a limit of their own, in the queue or running.
    pub timed_out: u64,
    /// Tasks that made no progress for as long as their lane allows.
    pub stalled: u64,
    /// Tasks that were refused; they are not among the submitted.
    pub refused: u64,
    /// Slots that were taken from tasks that did not end.
    pub reclaimed: u64,
    /// Tasks that ended after they had been given up; their results were dropped.
    pub late: u64,
}

impl Totals {
    /// Returns the number of tasks whose caller has an answer.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.finished
            + self.failed
            + self.panicked
            + self.cancelled
            + self.cleared
            + self.timed_out
            + self.stalled
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.submitted += other.submitted;
        self.finished += other.finished;
        self.failed += other.failed;
        self.panicked += other.panicked;
        self.cancelled += other.cancelled;
        self.cleared += other.cleared;
        self.timed_out += other.timed_out;
        self.stalled += other.stalled;
        self.refused += other.refused;
        self.reclaimed += other.reclaimed;
        self.late += other.late;
    }
}

/// What keeps the next task of a lane from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlockedBy {
    /// Nothing: a task submitted now would start.
    Nothing,
    /// The lane is paused or its width is 0.
    Pause,
    /// All slots of the lane are taken.
    Lane,
    /// All slots of the lane are held by tasks that were given up.
    Wedged,
    /// All slots of its capacity group are taken.
    Group,
    /// No worker is free.
    Pool,
}

/// One running or abandoned task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSnapshot {
    /// The task's name.
    pub id: TaskId,
    /// What its owner calls it.
    pub label: Option<Box<str>>,
    /// Time since its start.
    pub ran_for: Duration,
    /// Time since its last progress.
    pub idle_for: Duration,
    /// Its caller has an error, and it still holds the slot.
    pub given_up: bool,
}

/// One lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneSnapshot {
    /// The lane's name.
    pub lane: Arc<str>,
    /// Tasks that wait.
    pub queued: usize,
    /// Tasks that run and whose caller has no answer yet.
    pub active: usize,
    /// Slots that are taken, by active tasks or by tasks that were given up.
    pub occupied: usize,
    /// Tasks that were told to stop and may still do so in their grace.
    pub cancelling: usize,
    /// Tasks that were given up and still run, with or without a slot.
    pub abandoned: usize,
    /// Slots in all; 0 means paused.
    pub width: usize,
    /// Whether the lane is paused.
    pub paused: bool,
    /// Whether every slot is held by a task that was given up.
    pub wedged: bool,
    /// Time since the oldest taken slot was taken.
    pub oldest_active: Option<Duration>,
    /// How long the task that waits longest has waited.
    pub oldest_queued: Option<Duration>,
    /// What keeps the next task from starting.
    pub blocked_by: BlockedBy,
    /// The capacity group.
    pub group: Option<String>,
    /// Tasks that hold a slot.
    pub tasks: Vec<TaskSnapshot>,
    /// Counters since the start of this lane.
    pub totals: Totals,
}

impl LaneSnapshot {
    /// Returns whether every accepted task is in exactly one place.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        self.totals.submitted == self.totals.settled() + (self.queued + self.active) as u64
    }
}

/// What a reset did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetReport {
    /// Running tasks whose callers got [`TaskError::Reset`](crate::TaskError::Reset).
    pub cancelled: usize,
    /// Slots that came free; their tasks may still run.
    pub freed: usize,
    /// Slots that stay taken until their tasks end: the lane has overrun `Hold`, or too many phantoms.
    pub kept: usize,
    /// Tasks that still wait.
    pub queued: usize,
}

/// One capacity group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSnapshot {
    /// The group's name.
    pub group: Arc<str>,
    /// Slots in all.
    pub width: usize,
    /// Slots taken.
    pub occupied: usize,
    /// Lanes that wait for one.
    pub parked: usize,
}

/// The whole queue. Each lane is consistent in itself; lanes are looked at one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSnapshot {
    /// The lanes that exist now, by name.
    pub lanes: Vec<LaneSnapshot>,
    /// The capacity groups, by name.
    pub groups: Vec<GroupSnapshot>,
    /// Workers, without those that are held by abandoned tasks.
    pub threads: usize,
    /// Workers that wait for work.
    pub idle_threads: usize,
    /// Workers that are held by abandoned tasks.
    pub phantoms: usize,
    /// Counters over all lanes, those that were forgotten included.
    pub totals: Totals,
}

impl QueueSnapshot {
    /// Returns whether every accepted task is in exactly one place.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        let here: usize = self
            .lanes
            .iter()
            .map(|lane| lane.queued + lane.active)
            .sum();
        self.totals.submitted == self.totals.settled() + here as u64
    }
}
