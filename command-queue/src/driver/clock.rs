//! The one place where the driver reads the clock.
#![expect(
    clippy::disallowed_methods,
    reason = "the driver is where the clock is read"
)]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Instants that have to fit into an atomic are nanoseconds since this one.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Returns an instant as a number that is never 0, so that 0 can mean none.
pub(crate) fn to_nanos(at: Instant) -> u64 {
    let nanos = at.saturating_duration_since(*EPOCH).as_nanos();
    u64::try_from(nanos).unwrap_or(u64::MAX).max(1)
}

/// Returns the instant of a number, or nothing for 0 and for what no instant can be.
pub(crate) fn from_nanos(nanos: u64) -> Option<Instant> {
    if nanos == 0 {
        return None;
    }
    EPOCH.checked_add(Duration::from_nanos(nanos))
}
