//! At most one report per span, and how many were left out.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Throttle {
    last: Option<Instant>,
    suppressed: u64,
}

impl Throttle {
    /// Returns how many reports were suppressed since the last one, or nothing if this one is, too.
    pub(crate) fn admit(&mut self, now: Instant, every: Duration) -> Option<u64> {
        if self.closed_at(now, every) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }

    pub(crate) fn closed_at(&self, now: Instant, every: Duration) -> bool {
        self.last
            .is_some_and(|last| now.saturating_duration_since(last) < every)
    }

    /// Returns when the next report may be made, if one was made.
    pub(crate) fn opens_at(&self, every: Duration) -> Option<Instant> {
        self.last.and_then(|last| last.checked_add(every))
    }
}
