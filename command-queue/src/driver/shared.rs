//! What all threads of one queue share: the lanes, and every way to change one.
//!
//! Each change is one critical section of one lane's lock. What follows from it (a token to send, an alarm
//! to set, callers to answer, lines to log) is collected inside and done outside: no code of the user's runs
//! under a lane's lock, and no lane's lock is held while another is taken.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::clock;
use super::directory::Directory;
use super::group::Group;
use super::lane::{After, LaneCell, LaneState, Posted, Token};
use super::notify::Notifier;
use super::pool::Pool;
use super::slot::{Cancelled, SlotNotice};
use super::sync::MutexGuard;
use super::task::{Task, TaskRef};
use super::watchdog::Watchdog;
use crate::config::{Priority, QueueConfig};
use crate::core::active::Limits;
use crate::core::phantom::PhantomBudget;
use crate::core::step::Step;
use crate::error::{Close, SubmitError, TaskError};

pub(crate) struct Shared {
    pub(crate) config: QueueConfig,
    pub(crate) lanes: Directory,
    pub(crate) groups: Mutex<HashMap<Arc<str>, Arc<Group>>>,
    pub(crate) pool: Pool,
    pub(crate) watchdog: Watchdog,
    pub(crate) notifier: Notifier,
    pub(crate) phantoms: PhantomBudget,
    /// 0 while open, else a [`Close`]. Read under a lane's lock, so that closing can fence each lane.
    closed: AtomicU8,
    /// Threads that wait for lanes to change; nobody rings while there is none.
    watchers: AtomicUsize,
    changes: Mutex<u64>,
    changed: Condvar,
}

const OPEN: u8 = 0;
const DRAINING: u8 = 1;
const STOPPED: u8 = 2;

/// A lane that takes one more task, locked.
struct Admission<'a> {
    now: Instant,
    state: MutexGuard<'a, LaneState>,
    steps: Vec<Step<TaskRef>>,
}

pub(crate) struct Accepted {
    pub(crate) seq: u64,
    /// Tasks of the lane that were waiting or running.
    pub(crate) ahead: usize,
}

impl Shared {
    pub(crate) fn new(config: QueueConfig) -> Arc<Self> {
        Arc::new_cyclic(|home| Self {
            lanes: Directory::new(Weak::clone(home), config.lane_defaults.clone()),
            groups: Mutex::default(),
            pool: Pool::new(&config),
            watchdog: Watchdog::new(),
            notifier: Notifier::new(&config.thread_name),
            phantoms: PhantomBudget::new(config.max_phantoms),
            closed: AtomicU8::new(OPEN),
            watchers: AtomicUsize::new(0),
            changes: Mutex::new(0),
            changed: Condvar::new(),
            config,
        })
    }

    // ---- one lane at a time --------------------------------------------------------------------

    /// Runs one critical section of a lane, and does what follows from it.
    pub(crate) fn visit<V>(
        self: &Arc<Self>,
        lane: &Arc<LaneCell>,
        section: impl FnOnce(&mut LaneState, &mut Vec<Step<TaskRef>>) -> V,
    ) -> V {
        let now = clock::now();
        let mut steps = Vec::new();
        let mut state = lane.lock();
        let value = section(&mut state, &mut steps);
        let after = self.leave(lane, state, now);
        self.follow_up(lane, now, after, steps);
        value
    }

    fn leave(&self, lane: &LaneCell, mut state: MutexGuard<'_, LaneState>, now: Instant) -> After {
        let after = lane.after(&mut state, now);
        drop(state);
        self.ring();
        after
    }

    pub(crate) fn follow_up(
        self: &Arc<Self>,
        lane: &Arc<LaneCell>,
        now: Instant,
        After { send, alarm }: After,
        steps: Vec<Step<TaskRef>>,
    ) {
        if send {
            self.pool.send(self, Arc::clone(lane), now);
        }
        if let Some(at) = alarm {
            self.watchdog.arm(at, lane);
        }
        if !steps.is_empty() {
            self.carry_out(lane, steps);
        }
    }

    /// Sends a lane's token to the workers.
    pub(crate) fn send(self: &Arc<Self>, lane: Arc<LaneCell>) {
        self.pool.send(self, lane, clock::now());
    }

    /// Queues a task. A refused one is given back.
    pub(crate) fn submit<C: Task + 'static>(
        self: &Arc<Self>,
        lane: &Arc<LaneCell>,
        priority: Priority,
        limits: Option<Box<Limits>>,
        mut task: Arc<C>,
    ) -> Result<Accepted, (SubmitError, Arc<C>)> {
        if priority == Priority::Normal && limits.is_none() && lane.is_attended() {
            match lane.post(clock::tick(), task, || self.closed().is_none()) {
                Posted::Left(accepted) => return Ok(accepted),
                Posted::Unattended(accepted) => {
                    self.visit(lane, |_, _| ());
                    return Ok(accepted);
                }
                Posted::Not(refused) => task = refused,
            }
        }
        let now = clock::now();
        // Only this much depends on the type of the task, so only this much is compiled for each.
        match self.admit(lane, now) {
            Ok(admission) => Ok(self.enqueue(lane, admission, priority, limits, task)),
            Err(reason) => Err((reason, task)),
        }
    }

    /// Asks a lane whether it takes one more task, and keeps its lock if it does.
    fn admit<'a>(
        self: &Arc<Self>,
        lane: &'a Arc<LaneCell>,
        now: Instant,
    ) -> Result<Admission<'a>, SubmitError> {
        let mut steps = Vec::new();
        let mut state = lane.lock();
        if let Some(reason) = self.closed() {
            state.core.refuse();
            return Err(SubmitError::Closed { reason });
        }
        if state.core.is_full() {
            // A full lane that is asked to dispatch looks for stalls at once; the timer would find them too.
            let mut look = |task: &TaskRef| task.header().look(now);
            state
                .core
                .asked_while_full(now, &self.phantoms, &mut look, &mut steps);
        }
        let Err(capacity) = state.core.room() else {
            return Ok(Admission { now, state, steps });
        };
        state.core.refuse();
        let after = lane.after(&mut state, now);
        drop(state);
        self.follow_up(lane, now, after, steps);
        Err(SubmitError::Full {
            lane: Arc::clone(&lane.name),
            capacity,
        })
    }

    fn enqueue(
        self: &Arc<Self>,
        lane: &Arc<LaneCell>,
        Admission {
            now,
            mut state,
            steps,
        }: Admission<'_>,
        priority: Priority,
        limits: Option<Box<Limits>>,
        task: TaskRef,
    ) -> Accepted {
        let seq = lane.next_seq(&mut state);
        let ahead = state.core.submit(now, seq, priority, limits, task);
        let after = lane.after(&mut state, now);
        drop(state);
        self.follow_up(lane, now, after, steps);
        Accepted { seq, ahead }
    }

    /// Starts a task that was running before, whatever the widths say.
    pub(crate) fn adopt(
        self: &Arc<Self>,
        lane: &Arc<LaneCell>,
        limits: Option<Box<Limits>>,
        task: TaskRef,
    ) -> Result<(u64, u32), SubmitError> {
        let now = clock::now();
        self.visit(lane, |state, _| {
            if let Some(reason) = self.closed() {
                state.core.refuse();
                return Err(SubmitError::Closed { reason });
            }
            let seq = lane.next_seq(state);
            let index = state.core.adopt(now, seq, limits, task);
            if let Some(group) = state.group().cloned() {
                group.take_over_width();
                state.keep_permit(seq, group);
            }
            Ok((seq, index))
        })
    }

    /// The watchdog's alarm for this lane rang.
    pub(crate) fn alarm_rang(self: &Arc<Self>, lane: &Arc<LaneCell>, at: u64) {
        let now = clock::now();
        self.visit(lane, |state, steps| {
            if lane.is_armed_for(at) {
                lane.armed.store(0, Ordering::Relaxed);
                state.core.forget_watch();
            }
            state.core.tick(
                now,
                &self.phantoms,
                &mut |task| task.header().look(now),
                steps,
            );
        });
    }

    /// A thread came back; lanes that were refused one more phantom are asked again.
    pub(crate) fn retry_kept(self: &Arc<Self>) {
        if !self.phantoms.take_starved() {
            return;
        }
        let now = clock::now();
        for lane in self.lanes.all() {
            self.visit(&lane, |state, steps| {
                state.core.release_kept(now, &self.phantoms, steps);
            });
        }
    }

    /// Gives a place in a group back, which may wake another lane.
    pub(crate) fn give_back(self: &Arc<Self>, group: &Arc<Group>) {
        if let Some(next) = group.give_back() {
            self.hand_over(group, next);
        }
    }

    pub(crate) fn hand_over(self: &Arc<Self>, group: &Arc<Group>, lane: Arc<LaneCell>) {
        {
            let mut state = lane.lock();
            state.grant(Arc::clone(group));
            state.token = Token::Ready;
        }
        self.send(lane);
    }

    pub(crate) fn cancel(self: &Arc<Self>, lane: &Arc<LaneCell>, seq: u64) -> Cancelled {
        enum Found {
            Waiting(TaskRef),
            Running(TaskRef),
            Nothing,
        }
        let found = self.visit(lane, |state, _| {
            if let Some(task) = state.core.cancel(seq) {
                Found::Waiting(task)
            } else if let Some(task) = state.core.running(seq) {
                Found::Running(Arc::clone(task))
            } else {
                Found::Nothing
            }
        });
        match found {
            Found::Waiting(task) => {
                self.reject(
                    &task,
                    TaskError::Cancelled {
                        lane: Arc::clone(&lane.name),
                    },
                );
                Cancelled::Removed
            }
            Found::Running(task) => {
                task.cancel();
                self.notifier.notice(&task, SlotNotice::CancelRequested);
                Cancelled::Requested
            }
            Found::Nothing => Cancelled::TooLate,
        }
    }

    /// Answers the caller of a task that will never run.
    pub(crate) fn reject(&self, task: &TaskRef, error: TaskError) {
        task.cancel();
        self.notifier
            .notice(task, SlotNotice::Rejected(error.clone()));
        task.reject(error);
    }

    // ---- closing -------------------------------------------------------------------------------

    pub(crate) fn closed(&self) -> Option<Close> {
        match self.closed.load(Ordering::SeqCst) {
            OPEN => None,
            DRAINING => Some(Close::Drain),
            _ => Some(Close::Now),
        }
    }

    /// Refuses new work from now on.
    pub(crate) fn close(self: &Arc<Self>, how: Close) {
        let level = match how {
            Close::Drain => DRAINING,
            Close::Now => STOPPED,
        };
        self.closed.fetch_max(level, Ordering::SeqCst);
        for lane in self.lanes.all() {
            lane.fence();
            // Even with nothing to do this is a fence: whoever saw the queue open has left the lane by now.
            let (waiting, running) = self.visit(&lane, |state, _| match how {
                Close::Drain => (Vec::new(), Vec::new()),
                Close::Now => {
                    let running = state
                        .core
                        .unsettled()
                        .map(|(_, task)| Arc::clone(task))
                        .collect();
                    (state.core.clear(), running)
                }
            });
            for task in waiting {
                self.reject(&task, TaskError::Closed { reason: how });
            }
            for task in running {
                task.cancel();
                self.notifier.notice(&task, SlotNotice::CancelRequested);
            }
        }
    }

    // ---- waiting for lanes to change -----------------------------------------------------------

    /// Wakes whoever waits for lanes to change.
    ///
    /// A waiter registers before it looks at a lane. A change that it does not see is made under that lane's
    /// lock after the look, and so after the registration: it finds the waiter here.
    pub(crate) fn ring(&self) {
        if self.watchers.load(Ordering::SeqCst) == 0 {
            return;
        }
        *self.changes.lock() += 1;
        self.changed.notify_all();
    }

    /// Waits until `done` says so, which is asked again after each change. Returns whether it did.
    pub(crate) fn wait_for(&self, deadline: Instant, mut done: impl FnMut() -> bool) -> bool {
        self.watchers.fetch_add(1, Ordering::SeqCst);
        let answer = loop {
            let seen = *self.changes.lock();
            if done() {
                break true;
            }
            let mut changes = self.changes.lock();
            if *changes == seen && self.changed.wait_until(&mut changes, deadline).timed_out() {
                drop(changes);
                break done();
            }
            drop(changes);
            if clock::now() >= deadline {
                break done();
            }
        };
        self.watchers.fetch_sub(1, Ordering::SeqCst);
        answer
    }
}
