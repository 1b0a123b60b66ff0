//! One lane with its lock, and what the driver adds to the rules: the token, the alarm, the group.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::clock;
use super::group::Group;
use super::mailbox::Mailbox;
use super::shared::{Accepted, Shared};
use super::slot::Cancelled;
use super::sync::{AtomicU64, Mutex, MutexGuard};
use super::task::{Task, TaskRef};
use crate::config::LaneConfig;
use crate::core::fifo::Waiting;
use crate::core::lane::{Claimed, Lane};

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

/// What became of a task that was to be left in the mailbox.
pub(crate) enum Posted<C> {
    /// Somebody will take it.
    Left(Accepted),
    /// It is in the mailbox, and the caller has to see to the lane.
    Unattended(Accepted),
    /// The mailbox is not for it; here it is.
    Not(Arc<C>),
}

/// The order of the fields is theirs in memory: what submitters write and what workers write for every task is apart by more
/// than a cache line, with what both only read between them.
#[repr(C)]
pub(crate) struct LaneCell {
    mailbox: Mailbox<Waiting<TaskRef>>,
    /// The queue. Handles hold their lane only, so that submitting does not touch a counter that every thread touches.
    home: Weak<Shared>,
    pub(crate) number: u64,
    /// The hash of the name, which the directory finds this lane by.
    pub(crate) hash: u64,
    pub(crate) name: Arc<str>,
    /// The alarm that counts, 0 for none; others that the watchdog has for this lane were overtaken. Written
    /// under the lane's lock, read without it.
    pub(crate) armed: AtomicU64,
    /// How many tasks neither wait nor hold a slot any more.
    gone: AtomicU64,
    state: Mutex<LaneState>,
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
            mailbox: Mailbox::new(),
            home,
            number,
            hash,
            name,
            armed: AtomicU64::new(0),
            gone: AtomicU64::new(0),
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

    /// Locks the lane as it is, with every task that was left for it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, LaneState> {
        let mut state = self.state.lock();
        self.absorb(&mut state);
        state
    }

    /// Locks the lane without what was left for it, for a worker that has enough to do.
    pub(crate) fn lock_unread(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock()
    }

    /// Ends a task that did what it was to do and starts the lane's next one, if that changes nothing else: the lane has
    /// no token, no group, and somebody looks at its mailbox before and after.
    pub(crate) fn succeed(
        &self,
        state: &mut LaneState,
        (seq, index): (u64, u32),
        now: Instant,
    ) -> Option<Claimed<TaskRef>> {
        if state.token != Token::None || state.grouped.is_some() || !self.mailbox.is_attended() {
            return None;
        }
        self.absorb_if_empty(state);
        let next = state.core.succeed(seq, index, now)?;
        self.gone.store(state.core.gone(), Relaxed);
        Some(next)
    }

    /// Takes in what was left in the mailbox, if nothing else waits.
    pub(crate) fn absorb_if_empty(&self, state: &mut LaneState) {
        if state.core.queued() == 0 {
            self.absorb(state);
        }
    }

    /// Takes in what was left in the mailbox. Nearly always this exchanges two buffers.
    fn absorb(&self, state: &mut LaneState) {
        self.mailbox
            .empty_into(|mail| state.core.submit_batch(mail));
    }

    /// Returns whether something was left in the mailbox.
    pub(crate) fn has_mail(&self) -> bool {
        self.mailbox.has_mail()
    }

    /// Returns whether somebody will look at the mailbox.
    pub(crate) fn is_attended(&self) -> bool {
        self.mailbox.is_attended()
    }

    /// Leaves a task in the mailbox, if the queue still takes work.
    pub(crate) fn post<C: Task + 'static>(
        &self,
        since: Instant,
        task: Arc<C>,
        is_open: impl FnOnce() -> bool,
    ) -> Posted<C> {
        let Some(slit) = self.mailbox.open(is_open) else {
            return Posted::Not(task);
        };
        let seq = slit.number();
        let ahead = self.ahead_of(seq);
        let ahead_short = u32::try_from(ahead).unwrap_or(u32::MAX);
        let attended = slit.leave(Waiting::new(seq, since, ahead_short, None, task));
        let accepted = Accepted { seq, ahead };
        if attended {
            Posted::Left(accepted)
        } else {
            Posted::Unattended(accepted)
        }
    }

    /// Waits until everybody who is leaving a task has left it.
    pub(crate) fn fence(&self) {
        self.mailbox.fence();
    }

    /// Returns the next number, for a task that goes into the lane itself. What was left before is taken in first, so
    /// that the waiting tasks stay sorted by number.
    pub(crate) fn next_seq(&self, state: &mut LaneState) -> u64 {
        self.mailbox
            .next_number(|mail| state.core.submit_batch(mail))
    }

    /// Returns how many tasks with a smaller number wait or hold a slot.
    fn ahead_of(&self, seq: u64) -> usize {
        usize::try_from(seq.saturating_sub(self.gone.load(Relaxed))).unwrap_or(usize::MAX)
    }

    /// Gives memory back that only a busier lane needed.
    pub(crate) fn shrink(&self, state: &mut LaneState) {
        state.core.shrink();
        self.mailbox.shrink();
    }

    /// Says what follows from the state as it is now. Called at the end of every critical section that may
    /// have made the lane dispatchable or moved its deadline.
    pub(crate) fn after(&self, state: &mut LaneState, now: Instant) -> After {
        let mut send = false;
        loop {
            if state.token == Token::None && state.core.is_dispatchable() {
                state.token = Token::Ready;
                send = true;
            }
            let coming = state.token != Token::None || state.core.is_full();
            let attended = coming && state.core.needs_no_notice(now);
            if !self.mailbox.set_attended(attended) {
                break;
            }
            self.absorb(state);
        }
        self.gone.store(state.core.gone(), Relaxed);
        After {
            send,
            alarm: self.alarm(state),
        }
    }

    /// Returns the alarm that has to be set, if the one that is set comes too late.
    fn alarm(&self, state: &mut LaneState) -> Option<Instant> {
        let due = state.core.moved_deadline()?;
        let nanos = clock::to_nanos(due);
        let armed = self.armed.load(Relaxed);
        if armed != 0 && armed <= nanos {
            return None;
        }
        self.armed.store(nanos, Relaxed);
        Some(due)
    }

    /// Returns whether an alarm is the one that counts.
    pub(crate) fn is_armed_for(&self, at: u64) -> bool {
        self.armed.load(Relaxed) == at
    }

    /// Returns whether an alarm counts and there is something to look at. Takes the lane's lock.
    pub(crate) fn needs_alarm(&self, at: u64) -> bool {
        self.is_armed_for(at) && !self.lock().core.is_idle()
    }
}
