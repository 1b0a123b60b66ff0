//! The workers: as many as there is work that waits for one, up to a maximum. Idle ones sleep, then leave.
//!
//! Waking a worker costs more than a small task does, so a token is left to the workers that are awake as long
//! as they get on. That they do is checked twice: by whoever sends a token (somebody took or ended something a
//! moment ago) and by the watchdog a millisecond later (tokens are taken faster than they pile up). A worker
//! in a long task is thus passed over at once or after a millisecond.
//!
//! No token is ever left with nobody awake. The sender puts the token in and then counts those awake; a worker
//! counts itself out, because it sleeps, leaves, or was given up, and then looks for tokens. Both orders are
//! sequentially consistent, so one of the two sees the other.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::clock;
use super::crew::{Call, Crew};
use super::lane::LaneCell;
use super::shared::Shared;
use super::worker::work;
use crate::config::QueueConfig;

/// How long a token may wait before the watchdog looks whether the workers get on.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1);
/// How long to wait before a thread that could not be started is tried again.
pub(crate) const RETRY: Duration = Duration::from_millis(50);
/// Workers that took or ended something this recently (nanoseconds) get on.
const RECENT: u64 = 50_000;
/// Tokens per awake worker that are worth waking another for, if a processor may be free for it.
const BACKLOG: usize = 8;

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
    crew: Crew,
    progress: Progress,
}

/// What workers write all the time, so on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Progress {
    /// When a worker last took or ended something.
    turnover: AtomicU64,
    /// Tokens taken so far; what the watchdog compares to see whether the workers get on.
    taken: AtomicUsize,
}

/// A token that a worker took.
pub(crate) struct Taken {
    pub(crate) lane: Arc<LaneCell>,
    /// Some time passed since the worker last looked at the clock.
    pub(crate) rested: bool,
}

impl Pool {
    pub(crate) fn new(config: &QueueConfig) -> Self {
        let (sender, receiver) = unbounded();
        let max = config.max_threads.max(1);
        Self {
            sender,
            receiver,
            core: config.core_threads.clamp(1, max),
            idle_leave: config.idle_leave,
            name: format!("{}-worker", config.thread_name),
            max,
            crew: Crew::new(max),
            progress: Progress::default(),
        }
    }

    pub(crate) fn threads(&self) -> usize {
        self.crew.threads()
    }

    pub(crate) fn asleep(&self) -> usize {
        self.crew.asleep()
    }

    pub(crate) fn taken(&self) -> usize {
        self.progress.taken.load(Ordering::Relaxed)
    }

    /// Returns whether no token waits for a worker.
    pub(crate) fn is_quiet(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Returns how many tokens wait for a worker.
    pub(crate) fn waiting(&self) -> usize {
        self.receiver.len()
    }

    pub(crate) fn send(&self, shared: &Arc<Shared>, lane: Arc<LaneCell>, now: Instant) {
        // The receiver lives as long as the sender, so this cannot fail.
        if self.sender.send(Ready::Lane(lane)).is_ok() {
            self.attend(shared, now);
        }
    }

    /// Sees to it that somebody takes the tokens that wait.
    fn attend(&self, shared: &Arc<Shared>, now: Instant) {
        let awake = self.crew.awake();
        if awake == 0 {
            return self.rouse(shared, now);
        }
        if awake < self.core {
            let stuck = clock::to_nanos(now)
                .saturating_sub(self.progress.turnover.load(Ordering::Relaxed))
                > RECENT;
            // One processor is the sender's.
            let spare = awake + 1 < self.core && self.receiver.len() > awake * BACKLOG;
            if stuck || spare {
                self.rouse(shared, now);
            }
        }
        shared.watchdog.watch_pool(now);
    }

    /// Wakes a worker, or starts one.
    fn rouse(&self, shared: &Arc<Shared>, now: Instant) {
        // It will take something at once; until then nobody needs to wake another.
        self.turned_over(now);
        match self.crew.call() {
            Call::Called | Call::Coming => {}
            Call::Nobody => drop(self.add_worker(shared)),
        }
    }

    /// Wakes or starts up to `count` workers.
    ///
    /// # Errors
    ///
    /// Returns why the system would not start another thread.
    pub(crate) fn rouse_many(&self, shared: &Arc<Shared>, count: usize) -> io::Result<()> {
        for _ in 0..count.min(self.max) {
            match self.crew.call() {
                Call::Called => {}
                Call::Coming | Call::Nobody => self.add_worker(shared)?,
            }
        }
        Ok(())
    }

    /// Starts one worker, unless there are as many as there may be.
    fn add_worker(&self, shared: &Arc<Shared>) -> io::Result<()> {
        if !self.crew.join() {
            return Ok(());
        }
        let worker = Arc::clone(shared);
        let spawned = thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || work(&worker));
        if let Err(error) = spawned {
            self.crew.leave();
            log::warn!(
                "failed to start a worker, {} remain: {error}",
                self.threads()
            );
            // The tokens stay in the channel; the watchdog tries again.
            shared.watchdog.watch_pool(clock::now());
            return Err(error);
        }
        Ok(())
    }

    /// A worker was given up; another may take its place.
    pub(crate) fn lose_thread(&self, shared: &Arc<Shared>) {
        self.crew.leave();
        if !self.receiver.is_empty() {
            self.attend(shared, clock::now());
        }
    }

    /// Lets all workers leave once the channel is empty.
    pub(crate) fn stop(&self) {
        drop(self.sender.send(Ready::Stop));
        self.crew.call_all();
    }

    /// Waits for a token. Returns nothing if this worker has to leave; it was taken off the count then.
    pub(crate) fn next(&self, shared: &Arc<Shared>) -> Option<Taken> {
        let mut rested = false;
        loop {
            match self.receiver.try_recv() {
                Ok(Ready::Lane(lane)) => {
                    self.progress.taken.store(
                        self.progress.taken.load(Ordering::Relaxed).wrapping_add(1),
                        Ordering::Relaxed,
                    );
                    return Some(Taken { lane, rested });
                }
                Ok(Ready::Stop) => {
                    self.crew.leave();
                    drop(self.sender.send(Ready::Stop));
                    shared.watchdog.stop();
                    return None;
                }
                // Empty; the sender lives as long as the receiver.
                Err(_) => {}
            }
            rested = true;
            if !self.sleep() {
                self.crew.leave();
                if self.receiver.is_empty() {
                    return None;
                }
                self.crew.rejoin();
            }
        }
    }

    /// Sleeps until there may be a token. Returns whether there may; else it has been quiet for too long.
    fn sleep(&self) -> bool {
        // On a busy machine the sender may be about to run again; that is cheaper than to be woken by it.
        for _ in 0..3 {
            thread::yield_now();
            if !self.receiver.is_empty() {
                return true;
            }
        }
        self.crew
            .sleep(|| self.receiver.is_empty(), self.idle_leave)
    }

    /// A worker took or ended something.
    pub(crate) fn turned_over(&self, now: Instant) {
        self.progress
            .turnover
            .store(clock::to_nanos(now), Ordering::Relaxed);
    }
}
