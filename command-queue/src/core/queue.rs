//! Many lanes and their groups as one value: the whole rule book, for a caller with threads of its own.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::active::{Cause, Limits, Look, earlier};
use super::lane::{Ended, Lane, Outcome};
use super::phantom::PhantomBudget;
use super::step::Step;
use crate::config::{LaneConfig, SubmitOptions};
use crate::error::{Close, ConfigError, LeaseLost, Refused, SubmitError, TaskError};
use crate::id::{Lease, TaskId, Ticket};
use crate::snapshot::{BlockedBy, LaneSnapshot, ResetReport, TaskSnapshot, Totals};

/// A task that may run now.
#[derive(Debug)]
#[must_use = "a claim that is dropped leaves its slot taken until the stall ceiling passes"]
pub struct Claim<T> {
    /// The right to end it.
    pub lease: Lease,
    /// The lane's name.
    pub lane: Arc<str>,
    /// What was submitted.
    pub item: Arc<T>,
}

/// What [`Queue::reclaim`] decided. The caller has to do it.
#[derive(Debug)]
pub enum Decision<T> {
    /// Four fifths of the ceiling passed without progress.
    Suspect {
        /// The task.
        id: TaskId,
        /// Time since its last progress.
        idle_for: Duration,
    },
    /// Tell the task to stop and answer its caller. It has the lane's grace to end.
    Stop {
        /// The task.
        id: TaskId,
        /// What was submitted.
        item: Arc<T>,
        /// What its caller is told.
        error: TaskError,
    },
    /// The slot of a task that did not stop was freed.
    Freed {
        /// The task.
        id: TaskId,
    },
    /// A task that did not stop keeps its slot.
    Kept {
        /// The task.
        id: TaskId,
    },
    /// A waiting task gave up. Answer its caller.
    Expired {
        /// The task.
        id: TaskId,
        /// What was submitted.
        item: Arc<T>,
        /// What its caller is told.
        error: TaskError,
    },
    /// Work waits in this lane and nothing was dispatched for a while.
    Blocked {
        /// The lane's name.
        lane: Arc<str>,
        /// Reports left out since the last one.
        suppressed: u64,
    },
    /// Tasks were given up or reset, and not one slot came free by it.
    RecoveryIneffective {
        /// The lane's name.
        lane: Arc<str>,
    },
}

#[derive(Debug)]
struct Entry<T> {
    name: Arc<str>,
    lane: Lane<Arc<T>>,
    next_seq: u64,
    group: Option<usize>,
    /// The lane is in the ready list, or parked with its group.
    token: bool,
    /// A slot of this group was handed to the lane and not used yet.
    granted: Option<usize>,
}

#[derive(Debug)]
struct Group {
    width: usize,
    occupied: usize,
    parked: VecDeque<usize>,
}

/// Lanes, widths, leases and limits, without lock, clock or thread: time is an argument.
///
/// This is what [`CommandQueue`](crate::CommandQueue) runs on, one lane at a time; as one value it serves callers
/// that have an event loop of their own. Times passed in must not run backwards.
#[derive(Debug)]
pub struct Queue<T> {
    defaults: Arc<LaneConfig>,
    names: HashMap<Arc<str>, usize>,
    lanes: Vec<Entry<T>>,
    group_names: HashMap<String, usize>,
    groups: Vec<Group>,
    ready: VecDeque<usize>,
    /// Which group's slot a running task holds.
    permits: HashMap<TaskId, usize>,
    phantoms: PhantomBudget,
    closed: Option<Close>,
    pending: Vec<Decision<T>>,
    pending_since: Option<Instant>,
}

impl<T> Queue<T> {
    /// Creates a queue whose lanes are configured like this unless they are configured otherwise.
    /// `max_phantoms` bounds, over all lanes, the tasks that run on without a slot.
    #[must_use]
    pub fn new(lane_defaults: LaneConfig, max_phantoms: usize) -> Self {
        Self {
            defaults: Arc::new(lane_defaults),
            names: HashMap::new(),
            lanes: Vec::new(),
            group_names: HashMap::new(),
            groups: Vec::new(),
            ready: VecDeque::new(),
            permits: HashMap::new(),
            phantoms: PhantomBudget::new(max_phantoms),
            closed: None,
            pending: Vec::new(),
            pending_since: None,
        }
    }

    fn index(&mut self, lane: &str) -> usize {
        if let Some(index) = self.names.get(lane) {
            return *index;
        }
        let name: Arc<str> = lane.into();
        let index = self.lanes.len();
        self.names.insert(Arc::clone(&name), index);
        self.lanes.push(Entry {
            name,
            lane: Lane::new(Arc::clone(&self.defaults)),
            next_seq: 0,
            group: None,
            token: false,
            granted: None,
        });
        index
    }

    /// Sets how a lane works.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError::UnknownGroup`] if the lane names a group that was not configured.
    pub fn configure_lane(&mut self, lane: &str, config: LaneConfig) -> Result<(), ConfigError> {
        let group = match &config.group {
            None => None,
            Some(group) => {
                Some(
                    *self
                        .group_names
                        .get(group)
                        .ok_or_else(|| ConfigError::UnknownGroup {
                            lane: lane.to_owned(),
                            group: group.clone(),
                        })?,
                )
            }
        };
        let index = self.index(lane);
        let entry = &mut self.lanes[index];
        entry.lane.configure(Arc::new(config));
        let before = std::mem::replace(&mut entry.group, group);
        if before != group
            && let Some(before) = before
        {
            let parked = &mut self.groups[before].parked;
            let waiting = parked.len();
            parked.retain(|lane| *lane != index);
            if parked.len() < waiting {
                self.ready.push_back(index);
            }
        }
        self.pump(index);
        Ok(())
    }

    /// Sets how many tasks the lanes of a group may run together.
    pub fn configure_group(&mut self, group: &str, width: usize) {
        let index = *self.group_names.entry(group.to_owned()).or_insert_with(|| {
            self.groups.push(Group {
                width,
                occupied: 0,
                parked: VecDeque::new(),
            });
            self.groups.len() - 1
        });
        let group = &mut self.groups[index];
        group.width = width;
        while group.occupied < group.width
            && let Some(lane) = group.parked.pop_front()
        {
            group.occupied += 1;
            self.lanes[lane].granted = Some(index);
            self.ready.push_back(lane);
        }
    }

    /// Queues an item. The label and the probe of the options mean nothing here.
    ///
    /// # Errors
    ///
    /// Returns the reason and the item if the lane is full or the queue closed.
    pub fn submit(
        &mut self,
        lane: &str,
        options: &SubmitOptions,
        item: T,
        now: Instant,
    ) -> Result<TaskId, Refused<T>> {
        let index = self.index(lane);
        let entry = &mut self.lanes[index];
        let refusal = match (self.closed, entry.lane.room()) {
            (Some(reason), _) => Some(SubmitError::Closed { reason }),
            (None, Err(capacity)) => Some(SubmitError::Full {
                lane: Arc::clone(&entry.name),
                capacity,
            }),
            (None, Ok(())) => None,
        };
        if let Some(reason) = refusal {
            entry.lane.refuse();
            return Err(Refused { reason, task: item });
        }
        let limits = Limits::boxed(options.budget, options.idle, options.queue_limit, false);
        let seq = entry.next_seq;
        entry.next_seq += 1;
        entry
            .lane
            .submit(now, seq, options.priority, limits, Arc::new(item));
        self.pump(index);
        Ok(TaskId {
            lane: index as u64,
            seq,
        })
    }

    /// Starts the next task, lanes taking turns. Returns nothing if no lane can start one.
    pub fn claim(&mut self, now: Instant) -> Option<Claim<T>> {
        while let Some(index) = self.ready.pop_front() {
            let entry = &mut self.lanes[index];
            let mut permit = entry.granted.take();
            if entry.lane.is_dispatchable()
                && permit.is_none()
                && let Some(number) = entry.group
            {
                let group = &mut self.groups[number];
                if group.occupied >= group.width {
                    group.parked.push_back(index);
                    continue;
                }
                group.occupied += 1;
                permit = Some(number);
            }
            entry.token = false;
            let claimed = entry.lane.claim(now);
            let name = Arc::clone(&entry.name);
            self.pump(index);
            match (claimed, permit) {
                (Some(claimed), permit) => {
                    let id = TaskId {
                        lane: index as u64,
                        seq: claimed.seq,
                    };
                    if let Some(group) = permit {
                        self.permits.insert(id, group);
                    }
                    return Some(Claim {
                        lease: Lease {
                            id,
                            index: claimed.index,
                        },
                        lane: name,
                        item: claimed.item,
                    });
                }
                (None, Some(group)) => self.give_back(group),
                (None, None) => {}
            }
        }
        None
    }

    /// Reports progress.
    ///
    /// # Errors
    ///
    /// Returns [`LeaseLost`] if the task is over or was given up.
    pub fn renew(&mut self, ticket: Ticket, now: Instant) -> Result<(), LeaseLost> {
        let id = ticket.id;
        let renewed = self
            .entry_of(id)
            .is_some_and(|entry| entry.lane.renew(id.seq, ticket.index, now));
        if renewed {
            Ok(())
        } else {
            Err(LeaseLost { id })
        }
    }

    /// Ends a task and frees its slot.
    ///
    /// # Errors
    ///
    /// Returns [`LeaseLost`] if it had been given up: the outcome counts for nothing. A slot that was kept for
    /// it is freed all the same.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a lease ends once, so it is used up"
    )]
    pub fn finish(
        &mut self,
        lease: Lease,
        outcome: Outcome,
        now: Instant,
    ) -> Result<(), LeaseLost> {
        let Lease { id, index: place } = lease;
        let mut steps = Vec::new();
        let Some(index) = self.known(id) else {
            return Err(LeaseLost { id });
        };
        let ended =
            self.lanes[index]
                .lane
                .finish(id.seq, place, outcome, now, &self.phantoms, &mut steps);
        self.free_permit(id);
        self.decide(index, steps, now);
        if matches!(ended, Ended::SlotOnly { .. } | Ended::Phantom { .. })
            && self.phantoms.take_starved()
        {
            for index in 0..self.lanes.len() {
                let mut steps = Vec::new();
                self.lanes[index]
                    .lane
                    .release_kept(now, &self.phantoms, &mut steps);
                self.decide(index, steps, now);
            }
        }
        if ended == Ended::Counted {
            Ok(())
        } else {
            Err(LeaseLost { id })
        }
    }

    /// Looks at everything that is due and says what the caller has to do.
    pub fn reclaim(&mut self, now: Instant) -> Vec<Decision<T>> {
        for index in 0..self.lanes.len() {
            let mut steps = Vec::new();
            self.lanes[index].lane.tick(
                now,
                &self.phantoms,
                &mut |_| Look::Known(None),
                &mut steps,
            );
            self.decide(index, steps, now);
        }
        self.pending_since = None;
        std::mem::take(&mut self.pending)
    }

    /// Removes a waiting task and returns its item. A running task is its worker's.
    pub fn cancel(&mut self, id: TaskId) -> Option<Arc<T>> {
        self.entry_of(id)?.lane.cancel(id.seq)
    }

    /// Sets how many tasks of a lane may run at once; 0 pauses it.
    pub fn set_width(&mut self, lane: &str, width: usize) {
        let index = self.index(lane);
        self.lanes[index].lane.set_width(width);
        self.pump(index);
    }

    /// Starts no more tasks of this lane until it is resumed.
    pub fn pause(&mut self, lane: &str) {
        let index = self.index(lane);
        self.lanes[index].lane.set_paused(true);
    }

    /// Undoes [`pause`](Self::pause).
    pub fn resume(&mut self, lane: &str) {
        let index = self.index(lane);
        self.lanes[index].lane.set_paused(false);
        self.pump(index);
    }

    /// Gives up everything that runs in a lane and keeps what waits. What callers have to be told comes from
    /// the next [`reclaim`](Self::reclaim), which is due at once.
    pub fn reset_lane(&mut self, lane: &str, now: Instant) -> ResetReport {
        let index = self.index(lane);
        let mut steps = Vec::new();
        let report = self.lanes[index]
            .lane
            .reset(now, &self.phantoms, &mut steps);
        self.decide(index, steps, now);
        report
    }

    /// Rejects everything that waits in a lane and returns the items in the order of submission.
    pub fn clear(&mut self, lane: &str) -> Vec<Arc<T>> {
        let index = self.index(lane);
        self.lanes[index].lane.clear()
    }

    /// Refuses new work from now on. With [`Close::Now`] what waits is returned, lane by lane in their order
    /// of creation.
    pub fn close(&mut self, how: Close) -> Vec<Arc<T>> {
        if self.closed != Some(Close::Now) {
            self.closed = Some(how);
        }
        match how {
            Close::Drain => Vec::new(),
            Close::Now => self
                .lanes
                .iter_mut()
                .flat_map(|entry| entry.lane.clear())
                .collect(),
        }
    }

    /// Returns when [`reclaim`](Self::reclaim) has to be called, at the latest.
    ///
    /// Moved by every method except `renew`, `cancel`, `snapshot`: renewals are only looked at when the time comes.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.lanes.iter().fold(self.pending_since, |next, entry| {
            earlier(next, entry.lane.deadline())
        })
    }

    /// Returns the state of every lane that was ever named, in their order of creation.
    #[must_use]
    pub fn snapshot(&self, now: Instant) -> Vec<LaneSnapshot> {
        (0..self.lanes.len())
            .map(|index| self.describe(index, now))
            .collect()
    }

    /// Returns the sums of all lanes' counters.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for entry in &self.lanes {
            totals.add(&entry.lane.totals());
        }
        totals
    }

    fn describe(&self, index: usize, now: Instant) -> LaneSnapshot {
        let entry = &self.lanes[index];
        let full = entry
            .group
            .is_some_and(|group| self.groups[group].occupied >= self.groups[group].width);
        let own = entry.lane.blocked_by();
        let blocked_by = if own == BlockedBy::Nothing && full {
            BlockedBy::Group
        } else {
            own
        };
        let tasks = entry.lane.holders().map(|holder| TaskSnapshot {
            id: TaskId {
                lane: index as u64,
                seq: holder.seq,
            },
            label: None,
            ran_for: now.saturating_duration_since(holder.started),
            idle_for: now.saturating_duration_since(holder.progress),
            given_up: holder.given_up,
        });
        entry
            .lane
            .snapshot(&entry.name, now, blocked_by, tasks.collect())
    }

    fn known(&self, id: TaskId) -> Option<usize> {
        usize::try_from(id.lane)
            .ok()
            .filter(|index| *index < self.lanes.len())
    }

    fn entry_of(&mut self, id: TaskId) -> Option<&mut Entry<T>> {
        let index = self.known(id)?;
        self.lanes.get_mut(index)
    }

    /// Puts the lane's token into the ready list if it can start something and the token is nowhere.
    fn pump(&mut self, index: usize) {
        let entry = &mut self.lanes[index];
        if !entry.token && entry.lane.is_dispatchable() {
            entry.token = true;
            self.ready.push_back(index);
        }
    }

    fn free_permit(&mut self, id: TaskId) {
        if let Some(group) = self.permits.remove(&id) {
            self.give_back(group);
        }
    }

    /// Frees a slot of a group; the lane that parked first gets it.
    fn give_back(&mut self, number: usize) {
        let group = &mut self.groups[number];
        if group.occupied <= group.width
            && let Some(lane) = group.parked.pop_front()
        {
            self.lanes[lane].granted = Some(number);
            self.ready.push_back(lane);
            return;
        }
        group.occupied -= 1;
    }

    fn decide(&mut self, index: usize, steps: Vec<Step<Arc<T>>>, now: Instant) {
        if !steps.is_empty() {
            self.pending_since = earlier(self.pending_since, Some(now));
        }
        let lane = Arc::clone(&self.lanes[index].name);
        let id = |seq: u64| TaskId {
            lane: index as u64,
            seq,
        };
        for step in steps {
            let lane = Arc::clone(&lane);
            let decision = match step {
                Step::Suspect { seq, idle_for, .. } => Decision::Suspect {
                    id: id(seq),
                    idle_for,
                },
                Step::Stop {
                    seq,
                    item,
                    cause,
                    idle_for,
                    ran_for,
                } => {
                    let error = cause.error(lane, idle_for, ran_for);
                    Decision::Stop {
                        id: id(seq),
                        item,
                        error,
                    }
                }
                Step::Freed { seq, .. } => {
                    self.free_permit(id(seq));
                    Decision::Freed { id: id(seq) }
                }
                Step::Kept { seq, .. } => Decision::Kept { id: id(seq) },
                Step::Expired {
                    seq,
                    item,
                    waited,
                    behind,
                } => {
                    let error = TaskError::QueuedTooLong {
                        lane,
                        waited,
                        behind: behind.map(id),
                    };
                    Decision::Expired {
                        id: id(seq),
                        item,
                        error,
                    }
                }
                Step::Blocked(blocked) => Decision::Blocked {
                    lane,
                    suppressed: blocked.suppressed,
                },
                Step::Ineffective(_) => Decision::RecoveryIneffective { lane },
                // There are no probes here: nobody asks for one.
                Step::AskProbe { .. } | Step::ProbeSilent { .. } => continue,
            };
            self.pending.push(decision);
        }
        self.pump(index);
    }
}

impl Cause {
    /// Returns what the caller of a stopped task is told.
    pub(crate) fn error(self, lane: Arc<str>, idle_for: Duration, ran_for: Duration) -> TaskError {
        match self {
            Self::Stalled => TaskError::Stalled {
                lane,
                idle_for,
                ran_for,
            },
            Self::TimedOut { kind, limit } => TaskError::TimedOut {
                lane,
                kind,
                limit,
                idle_for,
                ran_for,
            },
            Self::Reset => TaskError::Reset { lane },
        }
    }
}
