//! The one place where clocks are read.
#![expect(clippy::disallowed_methods, reason = "this is where clocks are read")]

use std::fs;
use std::io;
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use crate::{Moment, Stamp};

/// Returns the present moment on `CLOCK_MONOTONIC`, which does not advance while
/// the computer is suspended and is not touched by corrections of the wall clock.
///
/// # Panics
///
/// Never on Linux, where this clock cannot fail.
#[must_use]
pub fn now() -> Moment {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("because the clock always exists");
    #[expect(
        clippy::useless_conversion,
        reason = "the fields are 32 bits wide on some platforms"
    )]
    let nanos = i64::from(time.tv_sec()).saturating_mul(1_000_000_000) + i64::from(time.tv_nsec());
    Moment::from_nanos(nanos)
}

/// Returns the present on both clocks, and the name of this boot, for saving and
/// restoring a machine.
///
/// # Errors
///
/// Returns an error if `/proc/sys/kernel/random/boot_id` cannot be read.
pub fn stamp() -> io::Result<Stamp> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Ok(Stamp {
        boot: boot.trim().to_owned(),
        at: now(),
        wall: wall.unwrap_or_default(),
    })
}

/// Returns the moment at which a process started whose start time is `ticks` clock
/// ticks since boot. The kernel counts those on the clock that goes on while the
/// computer is suspended, so that the distance to the present is what is kept.
pub(crate) fn moment_of_ticks(ticks: u64) -> Moment {
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("because the clock always exists");
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let started = Duration::from_nanos(ticks.saturating_mul(1_000_000_000 / per_second));
    let age = Duration::from(boot).saturating_sub(started);
    now().before(age)
}
