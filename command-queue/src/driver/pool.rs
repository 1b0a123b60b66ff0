//! The workers: as many as there is work that waits for one, up to a maximum. Idle ones leave.
//!
//! A token in the channel must not wait behind a worker that is busy for long. Three parties see to that, and
//! each looks after it made its own change visible: the sender of a token looks whether more tokens wait than
//! workers are idle; a worker that took a token looks again, because the sender may have counted it as idle;
//! a worker that leaves looks at the channel once more, because the sender may have relied on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, unbounded};

use super::clock;
use super::context::{Entered, TaskContext};
use super::lane::{LaneCell, Token};
use super::shared::Shared;
use super::slot::Grant;
use crate::config::QueueConfig;
use crate::core::Outcome;

/// How long a token may wait while all core workers are busy before more workers are started.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1);
/// How long to wait before a thread that could not be started is tried again.
pub(crate) const RETRY: Duration = Duration::from_millis(50);

pub(crate) enum Ready {
    Lane(Arc<LaneCell>),
    /// Every worker that reads this leaves, and passes it on.
    Stop,
}

pub(crate) struct Pool {
    sender: Sender<Ready>,
    receiver: Receiver<Ready>,
    core: usize,
    max: usize,
    idle_leave: Duration,
    name: String,
    /// Workers that were not given up.
    threads: AtomicUsize,
    idle: AtomicUsize,
    /// Tokens taken so far; what the watchdog compares to see whether the workers get on.
    taken: AtomicUsize,
}

impl Pool {
    pub(crate) fn new(config: &QueueConfig) -> Self {
        let (sender, receiver) = unbounded();
        let max = config.max_threads.max(1);
        Self {
            sender,
            receiver,
            core: config.core_threads.clamp(1, max),
            max,
            idle_leave: config.idle_leave,
            name: format!("{}-worker", config.thread_name),
            threads: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
        }
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads.load(Ordering::SeqCst)
    }

    pub(crate) fn idle(&self) -> usize {
        self.idle.load(Ordering::SeqCst)
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// Returns how many tokens wait although no idle worker is there for them.
    pub(crate) fn unserved(&self) -> usize {
        self.receiver.len().saturating_sub(self.idle())
    }

    pub(crate) fn send(&self, shared: &Arc<Shared>, lane: Arc<LaneCell>) {
        // The receiver lives as long as the sender, so this cannot fail.
        if self.sender.send(Ready::Lane(lane)).is_ok() {
            self.grow_if_unserved(shared);
        }
    }

    fn grow_if_unserved(&self, shared: &Arc<Shared>) {
        if self.unserved() == 0 {
            return;
        }
        if self.threads() < self.core {
            self.add_worker(shared);
        } else if self.threads() < self.max {
            shared.watchdog.watch_pool();
        }
    }

    /// Starts up to `count` workers, within the maximum. Returns whether a thread could not be started.
    pub(crate) fn add_workers(&self, shared: &Arc<Shared>, count: usize) -> bool {
        (0..count).any(|_| self.threads() < self.max && !self.add_worker(shared))
    }

    /// Starts one worker. Returns whether that worked, or nothing needed to be done.
    fn add_worker(&self, shared: &Arc<Shared>) -> bool {
        let claimed = self
            .threads
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |threads| {
                (threads < self.max).then_some(threads + 1)
            });
        if claimed.is_err() {
            return true;
        }
        let worker = Arc::clone(shared);
        let spawned = thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || work(&worker));
        if let Err(error) = spawned {
            self.threads.fetch_sub(1, Ordering::SeqCst);
            log::warn!(
                "failed to start a worker, {} remain: {error}",
                self.threads()
            );
            // The token stays in the channel; the watchdog tries again.
            shared.watchdog.watch_pool();
            return false;
        }
        true
    }

    /// A worker was given up; another may take its place.
    pub(crate) fn lose_thread(&self, shared: &Arc<Shared>) {
        self.threads.fetch_sub(1, Ordering::SeqCst);
        self.grow_if_unserved(shared);
    }

    /// Lets all workers leave once the channel is empty.
    pub(crate) fn stop(&self) {
        drop(self.sender.send(Ready::Stop));
    }

    /// Waits for a token. Returns nothing if this worker has to leave; it was taken off the count then.
    fn next(&self, shared: &Arc<Shared>) -> Option<Arc<LaneCell>> {
        match self.receiver.try_recv() {
            Ok(ready) => return self.took(shared, ready),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
        loop {
            self.idle.fetch_add(1, Ordering::SeqCst);
            let ready = self.receiver.recv_timeout(self.idle_leave);
            self.idle.fetch_sub(1, Ordering::SeqCst);
            match ready {
                Ok(ready) => return self.took(shared, ready),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    self.threads.fetch_sub(1, Ordering::SeqCst);
                    // A sender that counted on this worker put its token in before the counts went down, or it
                    // sees them now; so one of the two notices.
                    if self.receiver.is_empty() {
                        return None;
                    }
                    self.threads.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    }

    fn took(&self, shared: &Arc<Shared>, ready: Ready) -> Option<Arc<LaneCell>> {
        match ready {
            Ready::Lane(lane) => {
                self.taken.fetch_add(1, Ordering::Relaxed);
                if !self.receiver.is_empty() {
                    self.grow_if_unserved(shared);
                }
                Some(lane)
            }
            Ready::Stop => {
                self.threads.fetch_sub(1, Ordering::SeqCst);
                drop(self.sender.send(Ready::Stop));
                shared.watchdog.stop();
                None
            }
        }
    }
}

/// The life of one worker.
fn work(shared: &Arc<Shared>) {
    while let Some(lane) = shared.pool.next(shared) {
        if !serve(shared, &lane) {
            return;
        }
    }
}

/// Starts one task of a lane. Returns whether this worker goes on.
fn serve(shared: &Arc<Shared>, lane: &Arc<LaneCell>) -> bool {
    let now = clock::now();
    let (claimed, after, unused) = {
        let mut state = lane.state.lock();
        let mut permit = state.granted.take();
        if state.core.is_dispatchable()
            && permit.is_none()
            && let Some(group) = state.group.clone()
        {
            if !group.take_or_park(lane) {
                state.token = Token::Parked;
                return true;
            }
            permit = Some(group);
        }
        state.token = Token::None;
        let claimed = state.core.claim(now);
        match &claimed {
            Some(claimed) if permit.is_some() => {
                *claimed.item.header().permit.lock() = permit.take();
            }
            Some(_) | None => {}
        }
        let after = lane.after(&mut state);
        (claimed, after, permit)
    };
    shared.follow_up(lane, after, Vec::new());
    if let Some(group) = unused {
        shared.give_back(&group);
    }
    let Some(claimed) = claimed else { return true };
    if let Some(late) = claimed.late {
        shared.say_waited(lane, claimed.seq, late);
    }
    let grant = Grant {
        shared: Arc::clone(shared),
        lane: Arc::clone(lane),
        task: claimed.item,
        seq: claimed.seq,
        index: claimed.index,
    };
    let task = Arc::clone(&grant.task);
    let Some(grant) = task.accept(grant) else {
        return true;
    };
    let context = TaskContext {
        shared: grant.shared,
        lane: grant.lane,
        task: grant.task,
        seq: grant.seq,
    };
    let mut replaced = false;
    let entered = Entered::new(lane.number, Arc::clone(&context.task));
    let mut end = |outcome: Outcome| {
        let finished = shared.finish(
            lane,
            &context.task,
            claimed.seq,
            claimed.index,
            outcome,
            clock::now(),
        );
        replaced = finished.replaced;
        finished.counted
    };
    Arc::clone(&task).run(&context, &mut end);
    drop(entered);
    !replaced
}
