//! One lane: what waits, what runs, what is held by nobody. No lock, no clock, no thread.
//!
//! A slot is freed exactly once, by whoever removes the task's place: its own end, a reclaim, or a reset.
//! Everybody who comes later finds another sequence number there, or none, and changes nothing. That is
//! the whole fence, and it is per task: taking one slot back cannot touch a healthy sibling.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::active::{Active, Cause, Held, Judgement, Limits, Look, Stage, earlier};
use super::fifo::{Fifo, Waiting};
use super::phantom::PhantomBudget;
use super::slab::Slab;
use super::step::{Blocked, Step};
use super::throttle::Throttle;
use crate::config::{Capacity, LaneConfig, Overrun, Priority};
use crate::snapshot::{BlockedBy, LaneSnapshot, ResetReport, TaskSnapshot, Totals};

/// How long the owner of a task may take to say when it last made progress.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

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
    pub(crate) late: Option<WaitedLong>,
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
    width: usize,
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
            width: config.width,
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
        self.width
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
        self.active.len() >= self.width
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
            self.waited_long(now, waited, waiting.ahead)
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

    /// Frees slots that were kept only because there were too many phantoms.
    pub(crate) fn release_kept(
        &mut self,
        now: Instant,
        budget: &PhantomBudget,
        steps: &mut Vec<Step<T>>,
    ) {
        for index in 0..self.active.places() {
            let kept = self
                .active
                .get_mut(index)
                .is_some_and(|active| active.stage == Stage::Abandoned(Held::ByPhantoms));
            if kept && !self.release(index, now, budget, steps) {
                break;
            }
        }
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
            width: self.width,
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

    /// Stops everything that runs and keeps everything that waits.
    pub(crate) fn reset(
        &mut self,
        now: Instant,
        budget: &PhantomBudget,
        steps: &mut Vec<Step<T>>,
    ) -> ResetReport {
        let mut report = ResetReport {
            cancelled: 0,
            freed: 0,
            kept: 0,
            queued: self.waiting.len(),
        };
        for index in 0..self.active.places() {
            let Some(active) = self.active.get_mut(index) else {
                continue;
            };
            match active.stage {
                Stage::Live | Stage::Asked { .. } => {
                    self.stop(index, Cause::Reset, now, steps);
                    report.cancelled += 1;
                }
                Stage::Cancelling { .. } | Stage::Abandoned(_) => {}
            }
            if self.release(index, now, budget, steps) {
                report.freed += 1;
            } else {
                report.kept += 1;
            }
        }
        if report.kept > 0 && report.freed == 0 {
            let blocked = self.describe(now, 0);
            steps.push(Step::Ineffective(blocked));
        }
        self.rearm();
        report
    }

    pub(crate) fn configure(&mut self, config: Arc<LaneConfig>) {
        self.width = config.width;
        self.config = config;
        self.rearm();
    }

    pub(crate) fn set_width(&mut self, width: usize) {
        self.width = width;
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

    /// Looks at everything that is due.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        budget: &PhantomBudget,
        look: &mut dyn FnMut(&T) -> Look,
        steps: &mut Vec<Step<T>>,
    ) {
        if self.next_check.is_none_or(|at| at > now) {
            return;
        }
        let (mut freed, mut kept) = (0_usize, 0_usize);
        for index in 0..self.active.places() {
            let Some(active) = self.active.get_mut(index) else {
                continue;
            };
            match active.stage {
                Stage::Live | Stage::Asked { .. } => self.judge(index, now, look, steps),
                Stage::Cancelling { .. } | Stage::Abandoned(_) => {}
            }
            let Some(active) = self.active.get_mut(index) else {
                continue;
            };
            if let Stage::Cancelling { until } = active.stage
                && until <= now
            {
                if self.release(index, now, budget, steps) {
                    freed += 1;
                } else {
                    kept += 1;
                }
            }
        }
        self.expire(now, steps);
        // The lane is looked at again: a recovery that recovered nothing is said to be one.
        if kept > 0 && freed == 0 {
            let blocked = self.describe(now, 0);
            steps.push(Step::Ineffective(blocked));
        }
        self.warn_blocked(now, steps);
        self.rearm();
    }

    /// Somebody submits to a full lane: it looks for stalls now instead of when the timer comes, and says that
    /// it is blocked, at most once per span.
    pub(crate) fn asked_while_full(
        &mut self,
        now: Instant,
        budget: &PhantomBudget,
        look: &mut dyn FnMut(&T) -> Look,
        steps: &mut Vec<Step<T>>,
    ) {
        if self.next_check.is_some_and(|at| at <= now) {
            self.tick(now, budget, look, steps);
        } else if self.rare.is_some() {
            // Something was reported before, so there may be a report to suppress and count.
            self.warn_blocked(now, steps);
        }
    }

    fn warn_blocked(&mut self, now: Instant, steps: &mut Vec<Step<T>>) {
        if self.is_paused() || self.stands_still_since().is_none_or(|since| since > now) {
            return;
        }
        let every = self.config.warn_every;
        if let Some(suppressed) = self.rare().blocked.admit(now, every) {
            let blocked = self.describe(now, suppressed);
            steps.push(Step::Blocked(blocked));
        }
    }

    fn judge(
        &mut self,
        index: u32,
        now: Instant,
        look: &mut dyn FnMut(&T) -> Look,
        steps: &mut Vec<Step<T>>,
    ) {
        let config = Arc::clone(&self.config);
        let Some(active) = self.active.get_mut(index) else {
            return;
        };
        if matches!(active.judge(&config, now), Judgement::Fine) {
            return;
        }
        match look(&active.item) {
            Look::Known(progress) => {
                active.stage = Stage::Live;
                if let Some(at) = progress.filter(|at| *at <= now) {
                    active.renew(at);
                }
            }
            Look::Ask => match active.stage {
                Stage::Asked { until } if now < until => return,
                Stage::Asked { .. } => {
                    active.stage = Stage::Live;
                    steps.push(Step::ProbeSilent {
                        seq: active.seq,
                        item: active.item.clone(),
                    });
                }
                Stage::Live | Stage::Cancelling { .. } | Stage::Abandoned(_) => {
                    let until = now.checked_add(PROBE_PATIENCE).unwrap_or(now);
                    active.stage = Stage::Asked { until };
                    steps.push(Step::AskProbe {
                        seq: active.seq,
                        item: active.item.clone(),
                    });
                    return;
                }
            },
        }
        let idle_for = now.saturating_duration_since(active.progress);
        let ran_for = now.saturating_duration_since(active.started);
        match active.judge(&config, now) {
            Judgement::Fine => {}
            Judgement::Suspect => {
                active.suspected = true;
                steps.push(Step::Suspect {
                    seq: active.seq,
                    item: active.item.clone(),
                    idle_for,
                    ran_for,
                });
            }
            Judgement::Stop(cause) => self.stop(index, cause, now, steps),
        }
    }

    /// Settles a running task with an error and gives it the grace to end.
    fn stop(&mut self, index: u32, cause: Cause, now: Instant, steps: &mut Vec<Step<T>>) {
        let until = now.checked_add(self.config.cancel_grace).unwrap_or(now);
        let Some(active) = self.active.get_mut(index) else {
            return;
        };
        active.stage = Stage::Cancelling { until };
        self.live -= 1;
        self.cancelling += 1;
        steps.push(Step::Stop {
            seq: active.seq,
            item: active.item.clone(),
            cause,
            idle_for: now.saturating_duration_since(active.progress),
            ran_for: now.saturating_duration_since(active.started),
        });
        let totals = &mut self.rare().totals;
        match cause {
            Cause::Stalled => totals.stalled += 1,
            Cause::TimedOut { .. } => totals.timed_out += 1,
            Cause::Reset => totals.cancelled += 1,
        }
    }

    /// Gives a stopped task up. Returns whether its slot came free.
    fn release(
        &mut self,
        index: u32,
        now: Instant,
        budget: &PhantomBudget,
        steps: &mut Vec<Step<T>>,
    ) -> bool {
        let (overrun, max_phantoms) = (self.config.overrun, self.config.max_phantoms);
        let phantoms = self.phantoms();
        let Some(active) = self.active.get_mut(index) else {
            return false;
        };
        let first = matches!(active.stage, Stage::Cancelling { .. });
        if overrun == Overrun::Free && phantoms < max_phantoms {
            // A unit may have been spent on the thread when the task was first given up.
            let paid = active.threadless || active.thread_lost || budget.try_take();
            if paid && let Some(active) = self.active.remove(index) {
                self.cancelling -= u32::from(first);
                self.rare().totals.reclaimed += 1;
                let ran_for = now.saturating_duration_since(active.started);
                let thread_lost = !active.threadless;
                let replace = thread_lost && !active.thread_lost;
                self.rare().phantoms.push(Phantom {
                    seq: active.seq,
                    thread_lost,
                });
                steps.push(Step::Freed {
                    seq: active.seq,
                    replace,
                    ran_for,
                });
                return true;
            }
        }
        let Some(active) = self.active.get_mut(index) else {
            return false;
        };
        if first {
            let held = if overrun == Overrun::Hold {
                Held::ByLane
            } else {
                Held::ByPhantoms
            };
            active.stage = Stage::Abandoned(held);
            // The slot stays, but the pool need not do without the thread, if the budget allows.
            active.thread_lost = !active.threadless && phantoms < max_phantoms && budget.try_take();
            self.cancelling -= 1;
            steps.push(Step::Kept {
                seq: active.seq,
                replace: active.thread_lost,
                ran_for: now.saturating_duration_since(active.started),
            });
        }
        false
    }

    fn expire(&mut self, now: Instant, steps: &mut Vec<Step<T>>) {
        let behind = self
            .active
            .iter()
            .map(|active| (active.started, active.seq))
            .min()
            .map(|(_, seq)| seq);
        let Some(rare) = &mut self.rare else { return };
        while let Some(Reverse((at, seq))) = rare.expiries.peek().copied() {
            if at > now {
                break;
            }
            rare.expiries.pop();
            if let Some((since, item)) = self.waiting.remove(seq) {
                rare.totals.timed_out += 1;
                let waited = now.saturating_duration_since(since);
                steps.push(Step::Expired {
                    seq,
                    item,
                    waited,
                    behind,
                });
            }
        }
    }

    /// Returns from when on the lane counts as standing still, if anything waits.
    fn stands_still_since(&self) -> Option<Instant> {
        let oldest = self.waiting.oldest()?;
        let since = self.last_dispatch.map_or(oldest, |last| last.max(oldest));
        since.checked_add(self.config.warn_after)
    }

    fn blocked_due(&self) -> Option<Instant> {
        let still = self.stands_still_since()?;
        let opens = self
            .rare
            .as_ref()
            .and_then(|rare| rare.blocked.opens_at(self.config.warn_every));
        Some(opens.map_or(still, |opens| opens.max(still)))
    }

    fn waited_long(&mut self, now: Instant, waited: Duration, ahead: u32) -> Option<WaitedLong> {
        let every = self.config.warn_every;
        let suppressed = self.rare().waited.admit(now, every)?;
        Some(WaitedLong {
            waited,
            ahead: ahead as usize,
            active: self.active.len(),
            behind: self.waiting.len(),
            suppressed,
        })
    }

    pub(crate) fn oldest_active(&self) -> Option<Instant> {
        self.active.iter().map(|active| active.started).min()
    }

    pub(crate) fn oldest_waiting(&self) -> Option<Instant> {
        self.waiting.oldest()
    }

    fn describe(&self, now: Instant, suppressed: u64) -> Blocked {
        let age = |since: Option<Instant>| {
            since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
        };
        Blocked {
            active: self.active.len(),
            width: self.width,
            queued: self.waiting.len(),
            oldest_active: age(self.oldest_active()),
            oldest_queued: age(self.waiting.oldest()),
            abandoned: self.abandoned(),
            wedged: self.is_wedged(),
            full: self.is_full(),
            suppressed,
        }
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

    /// Recomputes the deadline from what is there.
    fn rearm(&mut self) {
        let config = &self.config;
        let mut next = None;
        for active in self.active.iter() {
            next = earlier(next, active.due(config));
        }
        if let Some(rare) = &self.rare {
            next = earlier(next, rare.expiries.peek().map(|Reverse((at, _))| *at));
        }
        if !self.is_paused() {
            next = earlier(next, self.blocked_due());
        }
        self.next_check = next;
        self.moved = true;
    }
}
