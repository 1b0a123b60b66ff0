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

/// Returns the end of the tick of the kernel's clock that is passing: never before now, and later by less than two ticks
/// (of 1 to 10 ms each, as the kernel was built). What is dated by it looks younger than it is, so that nothing that is
/// counted from it comes too early. Costs a quarter of [`now`].
pub(crate) fn tick() -> Instant {
    #[cfg(target_os = "linux")]
    return ticking::end_of_tick();
    #[cfg(not(target_os = "linux"))]
    return now();
}

#[cfg(target_os = "linux")]
mod ticking {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

    /// The tick in which this thread last looked at the precise clock, and the end of it.
    #[derive(Clone, Copy)]
    struct Seen {
        tick: Timespec,
        end: Instant,
    }

    thread_local! {
        static SEEN: Cell<Option<Seen>> = const { Cell::new(None) };
    }

    pub(super) fn end_of_tick() -> Instant {
        let tick = clock_gettime(ClockId::MonotonicCoarse);
        match SEEN.get() {
            Some(seen) if seen.tick == tick => seen.end,
            _ => look(tick),
        }
    }

    #[cold]
    fn look(tick: Timespec) -> Instant {
        let length = Duration::try_from(clock_getres(ClockId::MonotonicCoarse));
        let now = super::now();
        let end = length
            .ok()
            .and_then(|length| now.checked_add(length))
            .unwrap_or(now);
        SEEN.set(Some(Seen { tick, end }));
        end
    }
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
