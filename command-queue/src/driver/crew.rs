//! How many workers there are, how many of them sleep, and how one is woken without fail.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::sync::{AtomicUsize, Condvar, Mutex};

pub(crate) struct Crew {
    max: usize,
    /// Workers that were not given up, asleep or not.
    threads: AtomicUsize,
    asleep: AtomicUsize,
    bed: Mutex<Bed>,
    wake: Condvar,
}

/// Sleepers that were called and have not got up yet need not be called again.
struct Bed {
    sleepers: usize,
    called: usize,
}

pub(crate) enum Call {
    /// A sleeper was called.
    Called,
    /// All sleepers had been called already and are about to get up.
    Coming,
    /// Nobody sleeps.
    Nobody,
}

impl Crew {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            threads: AtomicUsize::new(0),
            asleep: AtomicUsize::new(0),
            bed: Mutex::new(Bed {
                sleepers: 0,
                called: 0,
            }),
            wake: Condvar::new(),
        }
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads.load(SeqCst)
    }

    pub(crate) fn asleep(&self) -> usize {
        self.asleep.load(SeqCst)
    }

    pub(crate) fn awake(&self) -> usize {
        self.threads().saturating_sub(self.asleep())
    }

    /// Counts one worker more, unless there are as many as there may be.
    pub(crate) fn join(&self) -> bool {
        let room = |threads| (threads < self.max).then_some(threads + 1);
        self.threads.fetch_update(SeqCst, SeqCst, room).is_ok()
    }

    /// Counts one worker less. Whoever calls this looks for tokens afterwards: somebody may have counted on it.
    pub(crate) fn leave(&self) {
        self.threads.fetch_sub(1, SeqCst);
    }

    /// Counts a worker again that left and found a token after all.
    pub(crate) fn rejoin(&self) {
        self.threads.fetch_add(1, SeqCst);
    }

    /// Wakes a sleeper, if there is one that was not called yet.
    pub(crate) fn call(&self) -> Call {
        if self.asleep() == 0 {
            return Call::Nobody;
        }
        let mut bed = self.bed.lock();
        if bed.called < bed.sleepers {
            bed.called += 1;
            self.wake.notify_one();
            Call::Called
        } else if bed.called > 0 {
            Call::Coming
        } else {
            Call::Nobody
        }
    }

    pub(crate) fn call_all(&self) {
        let mut bed = self.bed.lock();
        bed.called = bed.sleepers;
        self.wake.notify_all();
    }

    /// Sleeps until called, or until there is something to do. Returns false if neither came for this long.
    ///
    /// The sleeper counts itself as asleep and then looks whether there is something to do; who has something
    /// makes it visible and then counts those awake.
    pub(crate) fn sleep(&self, nothing_to_do: impl Fn() -> bool, at_most: Duration) -> bool {
        let mut bed = self.bed.lock();
        bed.sleepers += 1;
        self.asleep.fetch_add(1, SeqCst);
        let mut in_time = true;
        while nothing_to_do() && bed.called == 0 && in_time {
            in_time = !self.wake.wait_for(&mut bed, at_most).timed_out();
        }
        in_time |= bed.called > 0;
        self.asleep.fetch_sub(1, SeqCst);
        bed.sleepers -= 1;
        // Whoever gets up answers one call, if there was one; it need not be the one that was meant.
        bed.called = bed.called.saturating_sub(1).min(bed.sleepers);
        in_time
    }
}
