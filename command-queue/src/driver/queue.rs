//! The public handle.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock;
use super::context::TaskContext;
use super::directory::Census;
use super::group::Group;
use super::handle::{TaskHandle, submit_detached};
use super::lane::{LaneCell, LaneState, Token};
use super::shared::Shared;
use super::slot::{Cancelled, Grant, Reservation, Slot, SlotNotice, SlotTask};
use super::task::{TaskRef, part};
use super::watchdog::Watchdog;
use crate::config::{LaneConfig, QueueConfig, SubmitOptions};
use crate::error::{Close, ConfigError, Refused, SubmitError, TaskError};
use crate::event::Event;
use crate::id::TaskId;
use crate::snapshot::{
    BlockedBy, GroupSnapshot, LaneSnapshot, QueueSnapshot, ResetReport, TaskSnapshot,
};

/// Named lanes over one elastic pool of threads. A clone is another handle to the same queue.
///
/// When the last handle goes, the queue closes as by [`Close::Now`]: waiting tasks are handed back, running
/// ones are told to stop. Nothing is joined, since nobody can make a thread end.
#[derive(Clone)]
pub struct CommandQueue {
    owner: Arc<Owner>,
}

/// Workers hold `Shared`, too; only handles hold this.
struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.close(Close::Now);
        self.shared.pool.stop();
        self.shared.watchdog.stop();
    }
}

impl fmt::Debug for CommandQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandQueue")
            .field("threads", &self.owner.shared.pool.threads())
            .finish_non_exhaustive()
    }
}

/// The queue could not be started.
#[derive(Debug)]
pub struct StartError {
    source: io::Error,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed to start the watchdog thread")
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// Everything that was waited for is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Tasks that were given up and still run. Their callers have errors; nobody waits for them.
    pub abandoned: usize,
}

/// A deadline passed before everything was over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotDrained {
    /// Measured time of this wait.
    pub waited: Duration,
    /// Lanes that still have waiting or running tasks, with their numbers.
    pub busy: Vec<(Arc<str>, usize)>,
    /// Tasks that were given up and still run.
    pub abandoned: usize,
}

impl fmt::Display for NotDrained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waited {:.1?} for", self.waited)?;
        for (index, (lane, tasks)) in self.busy.iter().enumerate() {
            write!(
                f,
                "{} {tasks} in lane `{lane}`",
                if index == 0 { "" } else { "," }
            )?;
        }
        Ok(())
    }
}

impl Error for NotDrained {}

impl CommandQueue {
    /// Starts a queue: one thread that sleeps until something is due. Workers come with the work.
    ///
    /// # Errors
    ///
    /// Returns [`StartError`] if that thread could not be started.
    pub fn start(config: QueueConfig) -> Result<Self, StartError> {
        let name = config.thread_name.clone();
        let shared = Shared::new(config);
        Watchdog::start(&shared, &name).map_err(|source| StartError { source })?;
        Ok(Self {
            owner: Arc::new(Owner { shared }),
        })
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }

    /// Sets how a lane works. Running tasks go on; a lane made narrower finishes what it has.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError::UnknownGroup`] if the lane names a group that was not configured.
    pub fn configure_lane(&self, lane: &str, config: LaneConfig) -> Result<(), ConfigError> {
        let shared = self.shared();
        let group = match &config.group {
            None => None,
            Some(name) => {
                let found = shared.groups.lock().get(name.as_str()).cloned();
                Some(found.ok_or_else(|| ConfigError::UnknownGroup {
                    lane: lane.to_owned(),
                    group: name.clone(),
                })?)
            }
        };
        let config = shared.lanes.share(config);
        let cell = shared.lanes.find_or_make(lane);
        let unparked = shared.visit(&cell, |state, _| {
            state.configured = true;
            state.core.configure(config);
            let before = state.set_group(group);
            let parked_there = match (&before, state.group()) {
                (Some(before), Some(now)) if Arc::ptr_eq(before, now) => false,
                (Some(before), _) => before.unpark(&cell),
                (None, _) => false,
            };
            if parked_there {
                state.token = Token::Ready;
            }
            parked_there
        });
        if unparked {
            shared.send(cell);
        }
        Ok(())
    }

    /// Sets how many tasks the lanes of a group may run together.
    pub fn configure_group(&self, group: &str, width: usize) {
        let shared = self.shared();
        let group = {
            let mut groups = shared.groups.lock();
            let name: Arc<str> = group.into();
            Arc::clone(
                groups
                    .entry(Arc::clone(&name))
                    .or_insert_with(|| Arc::new(Group::new(name, width))),
            )
        };
        for lane in group.set_width(width) {
            shared.hand_over(&group, lane);
        }
    }

    /// Queues work in a lane, which is created if need be.
    ///
    /// # Errors
    ///
    /// Returns the reason and the work itself if the lane is full or the queue closed.
    pub fn submit<R, F>(
        &self,
        lane: &str,
        options: SubmitOptions,
        work: F,
    ) -> Result<TaskHandle<R>, Refused<F>>
    where
        F: FnOnce(&TaskContext) -> R + Send + 'static,
        R: Send + 'static,
    {
        TaskHandle::submit(
            self.shared(),
            self.shared().lanes.find_or_make(lane),
            options,
            work,
        )
    }

    /// Queues work whose result nobody will ask for.
    ///
    /// # Errors
    ///
    /// Returns the reason and the work itself if the lane is full or the queue closed.
    pub fn submit_detached<R, F>(
        &self,
        lane: &str,
        options: SubmitOptions,
        work: F,
    ) -> Result<TaskId, Refused<F>>
    where
        F: FnOnce(&TaskContext) -> R + Send + 'static,
        R: Send + 'static,
    {
        submit_detached(
            self.shared(),
            &self.shared().lanes.find_or_make(lane),
            options,
            work,
        )
    }

    /// Returns a lane, made if need be, for callers that submit to it often.
    #[must_use]
    pub fn lane(&self, lane: &str) -> LaneHandle {
        LaneHandle {
            shared: Arc::clone(self.shared()),
            lane: self.shared().lanes.find_or_make(lane),
        }
    }

    /// Queues for a place in a lane that work elsewhere will hold. No thread waits for that work.
    ///
    /// `on_grant` is called on a worker when it is this task's turn, and should return soon; the slot is
    /// held until it is finished or dropped. `on_notice` is called on the queue's notice thread.
    ///
    /// # Errors
    ///
    /// Returns the reason and `on_grant` if the lane is full or the queue closed.
    pub fn reserve<G, N>(
        &self,
        lane: &str,
        options: SubmitOptions,
        on_grant: G,
        on_notice: N,
    ) -> Result<Reservation, Refused<G>>
    where
        G: FnOnce(Slot) + Send + 'static,
        N: Fn(SlotNotice) + Send + Sync + 'static,
    {
        let shared = self.shared();
        Reservation::submit(
            shared,
            shared.lanes.find_or_make(lane),
            options,
            on_grant,
            on_notice,
        )
    }

    /// Takes a place for work that was running before this queue was, at once and whatever the widths of the
    /// lane and its group say. No new work starts until the lane is within its width again.
    ///
    /// # Errors
    ///
    /// Returns `Closed` if the queue takes no more work.
    pub fn adopt_slot_over_width<N>(
        &self,
        lane: &str,
        options: SubmitOptions,
        on_notice: N,
    ) -> Result<Slot, SubmitError>
    where
        N: Fn(SlotNotice) + Send + Sync + 'static,
    {
        let shared = self.shared();
        let (_, limits, header) = part(options, true);
        let cell = shared.lanes.find_or_make(lane);
        let task: TaskRef = Arc::new(SlotTask::adopted(header, on_notice));
        let (seq, index) = shared.adopt(&cell, limits, Arc::clone(&task))?;
        Ok(Slot::adopted(Grant {
            lane: cell,
            task,
            seq,
            index,
        }))
    }

    /// Removes a waiting task, or tells a running one to stop.
    #[expect(clippy::must_use_candidate, reason = "it is called for its effect")]
    pub fn cancel(&self, lane: &str, id: TaskId) -> Cancelled {
        match self.shared().lanes.find(lane) {
            Some(cell) if cell.number == id.lane => self.shared().cancel(&cell, id.seq),
            Some(_) | None => Cancelled::TooLate,
        }
    }

    fn change<V>(&self, lane: &str, change: impl FnOnce(&mut LaneState) -> V) -> V {
        let cell = self.shared().lanes.find_or_make(lane);
        self.shared().visit(&cell, |state, _| change(state))
    }

    /// Sets how many tasks of a lane may run at once; 0 pauses it. Running tasks go on.
    pub fn set_width(&self, lane: &str, width: usize) {
        self.change(lane, |state| {
            state.configured = true;
            state.core.set_width(width);
        });
    }

    /// Starts no more tasks of this lane until it is resumed. Running tasks go on.
    pub fn pause(&self, lane: &str) {
        self.change(lane, |state| state.core.set_paused(true));
    }

    /// Undoes [`pause`](Self::pause).
    pub fn resume(&self, lane: &str) {
        self.change(lane, |state| state.core.set_paused(false));
    }

    /// Rejects everything that waits in a lane with [`TaskError::Cleared`]. Returns how many.
    #[expect(clippy::must_use_candidate, reason = "it is called for its effect")]
    pub fn clear(&self, lane: &str) -> usize {
        let Some(cell) = self.shared().lanes.find(lane) else {
            return 0;
        };
        let waiting = self.shared().visit(&cell, |state, _| state.core.clear());
        let count = waiting.len();
        for task in waiting {
            self.shared().reject(
                &task,
                TaskError::Cleared {
                    lane: Arc::clone(&cell.name),
                },
            );
        }
        count
    }

    /// Gives up everything that runs in a lane, keeps what waits, and dispatches at once.
    #[expect(clippy::must_use_candidate, reason = "it is called for its effect")]
    pub fn reset_lane(&self, lane: &str) -> ResetReport {
        let Some(cell) = self.shared().lanes.find(lane) else {
            return ResetReport {
                cancelled: 0,
                freed: 0,
                kept: 0,
                queued: 0,
            };
        };
        let now = clock::now();
        let shared = self.shared();
        shared.visit(&cell, |state, steps| {
            state.core.reset(now, &shared.phantoms, steps)
        })
    }

    /// Refuses new work from now on. `Drain` finishes what was accepted; `Now` hands waiting work back and tells
    /// running work to stop. Returns at once; [`wait_idle`](Self::wait_idle) waits.
    pub fn close(&self, how: Close) {
        self.shared().close(how);
    }

    /// Waits until nothing waits and nothing runs, except tasks that were given up.
    ///
    /// # Errors
    ///
    /// Returns [`NotDrained`] with what was waited for if the deadline passed first.
    pub fn wait_idle(&self, deadline: Instant) -> Result<Drained, NotDrained> {
        let since = clock::now();
        let shared = self.shared();
        // Lanes are looked at one after the other; if none was busy and none was given work between two rounds,
        // there was an instant between them at which nothing ran at all.
        let mut last = None;
        let idle = shared.wait_for(deadline, || {
            loop {
                let Some(submitted) = self.submitted_if_idle() else {
                    last = None;
                    return false;
                };
                if last == Some(submitted) {
                    return true;
                }
                last = Some(submitted);
            }
        });
        let abandoned = shared
            .lanes
            .all()
            .iter()
            .map(|lane| lane.lock().core.abandoned())
            .sum();
        if idle {
            return Ok(Drained { abandoned });
        }
        let busy = shared.lanes.all().iter().filter_map(busy).collect();
        Err(NotDrained {
            waited: clock::now().saturating_duration_since(since),
            busy,
            abandoned,
        })
    }

    fn submitted_if_idle(&self) -> Option<u64> {
        let Census { lanes, forgotten } = self.shared().lanes.census();
        let mut submitted = forgotten.submitted;
        for lane in lanes {
            let state = lane.lock();
            if !state.core.is_idle() {
                return None;
            }
            submitted += state.core.totals().submitted;
        }
        Some(submitted)
    }

    /// Waits until the tasks that run now are over or given up. Tasks that start later do not matter.
    ///
    /// # Errors
    ///
    /// Returns [`NotDrained`] with what was waited for if the deadline passed first.
    pub fn wait_active(&self, deadline: Instant) -> Result<Drained, NotDrained> {
        let since = clock::now();
        let shared = self.shared();
        let captured: Vec<(Arc<LaneCell>, Vec<u64>)> = shared
            .lanes
            .all()
            .into_iter()
            .map(|lane| {
                let running = lane.lock().core.unsettled().map(|(seq, _)| seq).collect();
                (lane, running)
            })
            .collect();
        let mut left = captured.clone();
        let over = shared.wait_for(deadline, || {
            left.retain_mut(|(lane, seqs)| {
                let state = lane.lock();
                seqs.retain(|seq| state.core.unsettled().any(|(running, _)| running == *seq));
                !seqs.is_empty()
            });
            left.is_empty()
        });
        let abandoned = captured
            .iter()
            .map(|(lane, seqs)| {
                let state = lane.lock();
                seqs.iter()
                    .filter(|seq| state.core.is_abandoned(**seq))
                    .count()
            })
            .sum();
        if over {
            return Ok(Drained { abandoned });
        }
        let busy = left
            .iter()
            .map(|(lane, seqs)| (Arc::clone(&lane.name), seqs.len()))
            .collect();
        Err(NotDrained {
            waited: clock::now().saturating_duration_since(since),
            busy,
            abandoned,
        })
    }

    /// Calls a closure for each event, on the queue's notice thread, one after the other.
    ///
    /// A listener that is slow delays other listeners and notices, never the queue; of more than some thousand
    /// waiting events the rest are dropped, and [`Event::Lost`] says how many.
    pub fn on_event(&self, listener: impl Fn(&Event) + Send + Sync + 'static) {
        if !self.shared().notifier.listen(Arc::new(listener)) {
            log::warn!("events are kept until the notice thread can be started");
        }
    }

    /// Returns the state of one lane, if it exists now. A lane that nobody configured exists while it is used.
    #[must_use]
    pub fn lane_snapshot(&self, lane: &str) -> Option<LaneSnapshot> {
        let cell = self.shared().lanes.find(lane)?;
        Some(self.describe(&cell, clock::now()))
    }

    /// Returns the state of everything.
    #[must_use]
    pub fn snapshot(&self) -> QueueSnapshot {
        let shared = self.shared();
        let now = clock::now();
        let Census {
            lanes,
            forgotten: mut totals,
        } = shared.lanes.census();
        let mut lanes: Vec<_> = lanes.iter().map(|lane| self.describe(lane, now)).collect();
        lanes.sort_by(|a, b| a.lane.cmp(&b.lane));
        for lane in &lanes {
            totals.add(&lane.totals);
        }
        let mut groups: Vec<_> = shared
            .groups
            .lock()
            .values()
            .map(|group| {
                let (width, occupied, parked) = group.figures();
                GroupSnapshot {
                    group: Arc::clone(&group.name),
                    width,
                    occupied,
                    parked,
                }
            })
            .collect();
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        QueueSnapshot {
            lanes,
            groups,
            threads: shared.pool.threads(),
            idle_threads: shared.pool.asleep(),
            phantoms: shared.phantoms.used(),
            totals,
        }
    }

    fn describe(&self, cell: &Arc<LaneCell>, now: Instant) -> LaneSnapshot {
        let age = |since: Instant| now.saturating_duration_since(since);
        let state = cell.lock();
        let core = &state.core;
        let own = core.blocked_by();
        let blocked_by = if own != BlockedBy::Nothing {
            own
        } else if state.token == Token::Parked || group_full(&state) {
            BlockedBy::Group
        } else if core.queued() > 0 && self.shared().pool.asleep() == 0 {
            BlockedBy::Pool
        } else {
            BlockedBy::Nothing
        };
        let tasks = core.holders().map(|holder| {
            let header = holder.item.header();
            TaskSnapshot {
                id: TaskId {
                    lane: cell.number,
                    seq: holder.seq,
                },
                label: header.label().map(Into::into),
                ran_for: age(holder.started),
                idle_for: age(header
                    .last_progress()
                    .map_or(holder.progress, |at| at.max(holder.progress))),
                given_up: holder.given_up,
            }
        });
        core.snapshot(&cell.name, now, blocked_by, tasks.collect())
    }
}

/// One lane, found once. While this exists the lane is not forgotten; it does not keep the queue open.
#[derive(Clone)]
pub struct LaneHandle {
    shared: Arc<Shared>,
    lane: Arc<LaneCell>,
}

impl fmt::Debug for LaneHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneHandle")
            .field("lane", &self.lane.name)
            .finish_non_exhaustive()
    }
}

impl LaneHandle {
    /// Returns the lane's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.lane.name
    }

    /// As [`CommandQueue::submit`].
    ///
    /// # Errors
    ///
    /// Returns the reason and the work itself if the lane is full or the queue closed.
    pub fn submit<R, F>(&self, options: SubmitOptions, work: F) -> Result<TaskHandle<R>, Refused<F>>
    where
        F: FnOnce(&TaskContext) -> R + Send + 'static,
        R: Send + 'static,
    {
        TaskHandle::submit(&self.shared, Arc::clone(&self.lane), options, work)
    }

    /// As [`CommandQueue::submit_detached`].
    ///
    /// # Errors
    ///
    /// Returns the reason and the work itself if the lane is full or the queue closed.
    pub fn submit_detached<R, F>(
        &self,
        options: SubmitOptions,
        work: F,
    ) -> Result<TaskId, Refused<F>>
    where
        F: FnOnce(&TaskContext) -> R + Send + 'static,
        R: Send + 'static,
    {
        submit_detached(&self.shared, &self.lane, options, work)
    }
}

fn group_full(state: &LaneState) -> bool {
    state.group().is_some_and(|group| {
        let (width, occupied, _) = group.figures();
        occupied >= width
    })
}

fn busy(lane: &Arc<LaneCell>) -> Option<(Arc<str>, usize)> {
    let state = lane.lock();
    let tasks = state.core.queued() + state.core.unsettled().count();
    (tasks > 0).then(|| (Arc::clone(&lane.name), tasks))
}
