//! One lane: what waits, what runs, what is held by nobody. No lock, no clock, no thread.
//!
//! A slot is freed exactly once, by whoever removes the task's place: its own end, a reclaim, or a reset.
//! Everybody who comes later finds another sequence number there, or none, and changes nothing. That is
//! the whole fence, and it is per task: taking one slot back cannot touch a healthy sibling.

mod reclaim;
#[cfg(test)]
mod shortcut;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::active::{Active, Limits, Stage};
use super::fifo::{Fifo, Waiting};
use super::phantom::PhantomBudget;
use super::slab::Slab;
use super::step::Step;
use super::throttle::Throttle;
use crate::config::{Capacity, LaneConfig, Priority};
use crate::snapshot::{BlockedBy, LaneSnapshot, TaskSnapshot, Totals};

/// How a task ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it was to do.
    Finished,
    /// It ended, and says that it failed.
    Failed,
    /// It panicked.
    Panicked,
    /// It stopped because it was cancelled.
    Cancelled,
}

#[derive(Debug)]
pub(crate) struct Claimed<T> {
    pub(crate) seq: u64,
    pub(crate) index: u32,
    pub(crate) item: T,
    /// Present if the task waited longer than it should have and the report is not throttled.
    pub(crate) late: Option<Box<WaitedLong>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitedLong {
    pub(crate) waited: Duration,
    pub(crate) ahead: usize,
    pub(crate) active: usize,
    pub(crate) behind: usize,
    pub(crate) suppressed: u64,
}

/// What the end of a task changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The task was the lane's; its outcome was counted and its slot freed.
    Counted,
    /// Its caller had an error already; only the slot was freed.
    SlotOnly { thread_lost: bool },
    /// Its slot had been freed already; nothing changed but the number of phantoms.
    Phantom { thread_lost: bool },
    /// Nobody by that name runs here.
    Unknown,
}

#[derive(Debug)]
struct Phantom {
    seq: u64,
    thread_lost: bool,
}

/// What only some lanes need, so that the others do not pay for it.
#[derive(Debug, Default)]
struct Rare {
    /// Tasks that give up waiting, by time. Entries of tasks that are gone are skipped when they come up.
    expiries: BinaryHeap<Reverse<(Instant, u64)>>,
    blocked: Throttle,
    waited: Throttle,
    phantoms: Vec<Phantom>,
    /// All counters but the two that every task moves.
    totals: Totals,
}

#[derive(Debug)]
pub(crate) struct Lane<T> {
    config: Arc<LaneConfig>,
    /// Four thousand million tasks at once are as good as any number.
    width: u32,
    paused: bool,
    submitted: u64,
    waiting: Fifo<T>,
    active: Slab<Active<T>>,
    /// Those of `active` whose caller has no answer yet.
    live: u32,
    /// Those of `active` that were told to stop and still may.
    cancelling: u32,
    last_dispatch: Option<Instant>,
    /// Nothing has to be looked at before this time; it may be too early, never too late.
    next_check: Option<Instant>,
    /// `next_check` was moved since somebody asked.
    moved: bool,
    finished: u64,
    rare: Option<Box<Rare>>,
}

/// A task that holds a slot.
pub(crate) struct Holder<'a, T> {
    pub(crate) seq: u64,
    pub(crate) started: Instant,
    pub(crate) progress: Instant,
    pub(crate) given_up: bool,
    pub(crate) item: &'a T,
}

impl<T: Clone> Lane<T> {
    pub(crate) fn new(config: Arc<LaneConfig>) -> Self {
        Self {
            width: narrow(config.width),
            config,
            paused: false,
            submitted: 0,
            waiting: Fifo::new(),
            active: Slab::new(),
            live: 0,
            cancelling: 0,
            last_dispatch: None,
            next_check: None,
            moved: false,
            finished: 0,
            rare: None,
        }
    }

    pub(crate) fn config(&self) -> &Arc<LaneConfig> {
        &self.config
    }

    pub(crate) fn width(&self) -> usize {
        self.width as usize
    }

    pub(crate) fn queued(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the number of slots taken, by whomever.
    pub(crate) fn occupied(&self) -> usize {
        self.active.len()
    }

    /// Returns the number of abandoned tasks that still run, with or without a slot.
    pub(crate) fn abandoned(&self) -> usize {
        self.active.len() - self.live as usize - self.cancelling as usize + self.phantoms()
    }

    /// Returns the number of tasks whose slot was freed although they still run.
    pub(crate) fn phantoms(&self) -> usize {
        self.rare.as_ref().map_or(0, |rare| rare.phantoms.len())
    }

    pub(crate) fn totals(&self) -> Totals {
        let rare = self
            .rare
            .as_ref()
            .map_or_else(Totals::default, |rare| rare.totals);
        Totals {
            submitted: self.submitted,
            finished: self.finished,
            ..rare
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused || self.width == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.active.len() >= self.width()
    }

    /// Every slot is held by a task that was given up: nothing that happens inside the queue frees one.
    pub(crate) fn is_wedged(&self) -> bool {
        !self.is_paused() && self.is_full() && self.live == 0 && self.cancelling == 0
    }

    pub(crate) fn is_dispatchable(&self) -> bool {
        !self.waiting.is_empty() && !self.is_full() && !self.paused
    }

    /// Nothing waits and nothing runs that anybody waits for; abandoned tasks may still run.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.live == 0 && self.cancelling == 0
    }

    /// Nothing at all would be lost with this lane except its totals.
    pub(crate) fn is_forgettable(&self) -> bool {
        self.is_idle() && self.active.len() == 0 && self.phantoms() == 0 && !self.paused
    }

    pub(crate) fn last_dispatch(&self) -> Option<Instant> {
        self.last_dispatch
    }

    /// Returns when [`tick`](Self::tick) has to be called, at the latest.
    ///
    /// Moved by: `submit`, `claim`, `tick`, `configure`, `set_width`, `set_paused`, `reset`.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next_check
    }

    /// Whoever watched the deadline no longer does, so it has to be told again.
    pub(crate) fn forget_watch(&mut self) {
        self.moved = true;
    }

    /// Returns the deadline if it was moved since this was last asked.
    pub(crate) fn moved_deadline(&mut self) -> Option<Instant> {
        if !std::mem::take(&mut self.moved) {
            return None;
        }
        self.next_check
    }

    /// Returns how many tasks may still be accepted, or the capacity if none may.
    pub(crate) fn room(&self) -> Result<(), usize> {
        match self.config.capacity {
            Capacity::Unbounded => Ok(()),
            Capacity::Bounded(capacity) if self.waiting.len() < capacity => Ok(()),
            // A task that would start at once does not wait, so a lane of capacity 0 can still run.
            Capacity::Bounded(_) if self.waiting.is_empty() && !self.is_full() && !self.paused => {
                Ok(())
            }
            Capacity::Bounded(capacity) => Err(capacity),
        }
    }

    /// Counts a task that was not accepted.
    pub(crate) fn refuse(&mut self) {
        self.rare().totals.refused += 1;
    }

    /// Something outside changed that the next look should see at once.
    pub(crate) fn look_at(&mut self, now: Instant) {
        self.check_by(Some(now));
    }

    /// Appends a task. The caller has asked for [`room`](Self::room), and numbers tasks in the order in which they
    /// were submitted.
    pub(crate) fn submit(
        &mut self,
        since: Instant,
        seq: u64,
        priority: Priority,
        limits: Option<Box<Limits>>,
        item: T,
    ) -> usize {
        self.submitted += 1;
        let ahead = self.waiting.len() + self.active.len();
        let gives_up = limits
            .as_ref()
            .and_then(|limits| limits.queue)
            .and_then(|span| since.checked_add(span));
        let ahead_short = u32::try_from(ahead).unwrap_or(u32::MAX);
        self.waiting.push(
            priority,
            Waiting::new(seq, since, ahead_short, limits, item),
        );
        if let Some(at) = gives_up {
            self.rare().expiries.push(Reverse((at, seq)));
            self.check_by(Some(at));
        }
        if !self.is_paused() && self.waiting.len() == 1 {
            self.check_by(self.blocked_due());
        }
        ahead
    }

    /// Appends tasks that were left somewhere since the lane was looked at, all of them without anything special.
    pub(crate) fn submit_batch(&mut self, batch: &mut VecDeque<Waiting<T>>) {
        self.submitted += batch.len() as u64;
        let first = self.waiting.is_empty();
        self.waiting.append(batch);
        if !self.is_paused() && first {
            self.check_by(self.blocked_due());
        }
    }

    /// Returns how many of the tasks submitted so far neither wait nor hold a slot any more.
    pub(crate) fn gone(&self) -> u64 {
        self.submitted - (self.waiting.len() + self.active.len()) as u64
    }

    /// Returns whether a task that waits for no more than a slot need not be shown to the lane at once: there is
    /// room, and the lane is looked at before anything would have to be said about the wait.
    pub(crate) fn needs_no_notice(&self, now: Instant) -> bool {
        let soon = now.checked_add(self.config.warn_after);
        let reported = self
            .rare
            .as_ref()
            .is_some_and(|rare| rare.blocked.closed_at(now, self.config.warn_every));
        self.config.capacity == Capacity::Unbounded
            && !self.is_paused()
            && !reported
            && self
                .next_check
                .is_some_and(|at| soon.is_none_or(|soon| at <= soon))
    }

    /// Starts the task whose turn it is, if a slot is free.
    pub(crate) fn claim(&mut self, now: Instant) -> Option<Claimed<T>> {
        if !self.is_dispatchable() {
            return None;
        }
        let (waiting, item) = self.waiting.pop(now, self.config.ageing)?;
        let waited = now.saturating_duration_since(waiting.since);
        let index = self.start(now, waiting.seq, waiting.limits, item.clone());
        self.last_dispatch = Some(now);
        let late = if waited >= self.config.warn_after {
            self.waited_long(now, waited, waiting.ahead).map(Box::new)
        } else {
            None
        };
        Some(Claimed {
            seq: waiting.seq,
            index,
            item,
            late,
        })
    }

    /// Starts a task that was running before this queue was, whatever the width says.
    pub(crate) fn adopt(
        &mut self,
        now: Instant,
        seq: u64,
        limits: Option<Box<Limits>>,
        item: T,
    ) -> u32 {
        self.submitted += 1;
        self.start(now, seq, limits, item)
    }

    fn start(&mut self, now: Instant, seq: u64, limits: Option<Box<Limits>>, item: T) -> u32 {
        let active = Active::new(seq, now, limits, item);
        let due = active.due(&self.config);
        let index = self.active.insert(active);
        self.live += 1;
        self.check_by(due);
        index
    }

    /// Reports progress. Returns whether the task still runs as far as its caller knows.
    pub(crate) fn renew(&mut self, seq: u64, index: u32, at: Instant) -> bool {
        match self.active.get_mut(index) {
            Some(active) if active.seq == seq && active.is_live() => {
                active.renew(at);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Ends a task. Steps may follow from a phantom's return, because somebody's slot may now be freed.
    pub(crate) fn finish(
        &mut self,
        seq: u64,
        index: u32,
        outcome: Outcome,
        now: Instant,
        budget: &PhantomBudget,
        steps: &mut Vec<Step<T>>,
    ) -> Ended {
        if self
            .active
            .get_mut(index)
            .is_some_and(|active| active.seq == seq)
            && let Some(active) = self.active.remove(index)
        {
            return match active.stage {
                Stage::Live | Stage::Asked { .. } => {
                    self.live -= 1;
                    match outcome {
                        Outcome::Finished => self.finished += 1,
                        Outcome::Failed => self.rare().totals.failed += 1,
                        Outcome::Panicked => self.rare().totals.panicked += 1,
                        Outcome::Cancelled => self.rare().totals.cancelled += 1,
                    }
                    Ended::Counted
                }
                Stage::Cancelling { .. } => {
                    self.cancelling -= 1;
                    self.rare().totals.late += 1;
                    Ended::SlotOnly { thread_lost: false }
                }
                Stage::Abandoned(_) => {
                    self.rare().totals.late += 1;
                    if active.thread_lost {
                        budget.give_back();
                    }
                    Ended::SlotOnly {
                        thread_lost: active.thread_lost,
                    }
                }
            };
        }
        let Some(rare) = &mut self.rare else {
            return Ended::Unknown;
        };
        let Some(at) = rare.phantoms.iter().position(|phantom| phantom.seq == seq) else {
            return Ended::Unknown;
        };
        let phantom = rare.phantoms.swap_remove(at);
        rare.totals.late += 1;
        if phantom.thread_lost {
            budget.give_back();
        }
        self.release_kept(now, budget, steps);
        Ended::Phantom {
            thread_lost: phantom.thread_lost,
        }
    }

    /// Ends a task that did what it was to do and starts the next one in its place: `finish` and `claim` in one, for
    /// the case in which there is nothing to decide. In any other it changes nothing.
    ///
    /// The next task falls due later than the one before, so the deadline stands.
    pub(crate) fn succeed(&mut self, seq: u64, index: u32, now: Instant) -> Option<Claimed<T>> {
        if self.paused || self.active.len() > self.width() {
            return None;
        }
        let reported = now.checked_sub(self.config.warn_after)?;
        let active = self.active.get_mut(index)?;
        if active.seq != seq || !active.is_usual() {
            return None;
        }
        let (seq, item) = self.waiting.pop_usual(reported)?;
        active.replace(seq, now, item.clone());
        self.last_dispatch = Some(now);
        self.finished += 1;
        Some(Claimed {
            seq,
            index,
            item,
            late: None,
        })
    }

    /// Removes a waiting task.
    pub(crate) fn cancel(&mut self, seq: u64) -> Option<T> {
        let (_, item) = self.waiting.remove(seq)?;
        self.rare().totals.cancelled += 1;
        Some(item)
    }

    /// Returns a running task whose caller has no answer yet.
    pub(crate) fn running(&self, seq: u64) -> Option<&T> {
        self.active
            .iter()
            .find(|active| active.seq == seq && active.is_live())
            .map(|active| &active.item)
    }

    /// Returns the tasks that run and whose caller has no answer, and those told to stop.
    pub(crate) fn unsettled(&self) -> impl Iterator<Item = (u64, &T)> {
        self.active
            .iter()
            .filter(|active| !matches!(active.stage, Stage::Abandoned(_)))
            .map(|active| (active.seq, &active.item))
    }

    /// Returns everything that holds a slot.
    pub(crate) fn holders(&self) -> impl Iterator<Item = Holder<'_, T>> {
        self.active.iter().map(|active| Holder {
            seq: active.seq,
            started: active.started,
            progress: active.progress,
            given_up: !active.is_live(),
            item: &active.item,
        })
    }

    /// Returns what keeps the next task from starting, as far as the lane itself knows.
    pub(crate) fn blocked_by(&self) -> BlockedBy {
        if self.is_paused() {
            BlockedBy::Pause
        } else if self.is_wedged() {
            BlockedBy::Wedged
        } else if self.is_full() {
            BlockedBy::Lane
        } else {
            BlockedBy::Nothing
        }
    }

    pub(crate) fn snapshot(
        &self,
        name: &Arc<str>,
        now: Instant,
        blocked_by: BlockedBy,
        tasks: Vec<TaskSnapshot>,
    ) -> LaneSnapshot {
        let age = |since: Instant| now.saturating_duration_since(since);
        LaneSnapshot {
            lane: Arc::clone(name),
            queued: self.queued(),
            active: self.live as usize,
            occupied: self.occupied(),
            cancelling: self.cancelling as usize,
            abandoned: self.abandoned(),
            width: self.width(),
            paused: self.is_paused(),
            wedged: self.is_wedged(),
            oldest_active: self.oldest_active().map(age),
            oldest_queued: self.oldest_waiting().map(age),
            blocked_by,
            group: self.config.group.clone(),
            tasks,
            totals: self.totals(),
        }
    }

    /// Returns whether this task was given up and still runs.
    pub(crate) fn is_abandoned(&self, seq: u64) -> bool {
        let kept = self
            .active
            .iter()
            .any(|active| active.seq == seq && matches!(active.stage, Stage::Abandoned(_)));
        let freed = self
            .rare
            .as_ref()
            .is_some_and(|rare| rare.phantoms.iter().any(|phantom| phantom.seq == seq));
        kept || freed
    }

    /// Rejects everything that waits, in the order of submission.
    pub(crate) fn clear(&mut self) -> Vec<T> {
        let all = self.waiting.take_all();
        self.rare().totals.cleared += all.len() as u64;
        all
    }

    pub(crate) fn configure(&mut self, config: Arc<LaneConfig>) {
        self.width = narrow(config.width);
        self.config = config;
        self.rearm();
    }

    pub(crate) fn set_width(&mut self, width: usize) {
        self.width = narrow(width);
        self.rearm();
    }

    pub(crate) fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
        self.rearm();
    }

    /// Gives memory back that only a busier lane needed.
    pub(crate) fn shrink(&mut self) {
        self.waiting.shrink();
        self.active.shrink();
    }

    pub(crate) fn oldest_active(&self) -> Option<Instant> {
        self.active.iter().map(|active| active.started).min()
    }

    pub(crate) fn oldest_waiting(&self) -> Option<Instant> {
        self.waiting.oldest()
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn check_by(&mut self, due: Option<Instant>) {
        let Some(due) = due else { return };
        if self.next_check.is_none_or(|at| due < at) {
            self.next_check = Some(due);
            self.moved = true;
        }
    }
}

fn narrow(width: usize) -> u32 {
    u32::try_from(width).unwrap_or(u32::MAX)
}
