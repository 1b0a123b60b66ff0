//! How many threads may be lost to tasks that do not end.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A budget that all lanes of a queue share.
#[derive(Debug)]
pub(crate) struct PhantomBudget {
    used: AtomicUsize,
    max: usize,
    /// Somebody was refused; when a unit comes back, the lanes have to be asked again.
    starved: AtomicBool,
}

impl PhantomBudget {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            max,
            starved: AtomicBool::new(false),
        }
    }

    pub(crate) fn try_take(&self) -> bool {
        let taken = self
            .used
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| {
                (used < self.max).then_some(used + 1)
            })
            .is_ok();
        if !taken {
            self.starved.store(true, Ordering::SeqCst);
        }
        taken
    }

    pub(crate) fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    /// Returns whether somebody was refused since the last call.
    pub(crate) fn take_starved(&self) -> bool {
        self.starved.swap(false, Ordering::SeqCst)
    }
}
