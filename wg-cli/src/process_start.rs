//! When a process started, by the calendar.

use crate::clock::Timestamp;

/// Ticks a second in what `/proc` tells; fixed for user space on every architecture.
const TICKS_PER_SECOND: u64 = 100;

/// Returns when the process with that number started; `None` where there is none, or the system does not tell.
///
/// The kernel counts from the start of the machine, and knows when that was only by the clock as it is set now. Good
/// enough to tell a person about; nothing is decided by it.
#[must_use]
pub fn of(pid: u32) -> Option<Timestamp> {
    let ticks = supervisor::tree::start_ticks(pid)?;
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    let boot: u64 = boot.trim().parse().ok()?;
    let millis = boot * 1000 + ticks * 1000 / TICKS_PER_SECOND;
    Some(Timestamp::from_millis(i64::try_from(millis).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_started_in_the_past_and_nobody_with_no_number() {
        let started = of(std::process::id()).unwrap();
        assert!(started.millis() <= crate::clock::now().millis() + 1000);
        assert!(started.millis() > 1_600_000_000_000);
        assert_eq!(of(0), None);
    }
}
