//! How much memory a process may have before it should drain.

use std::fs;
use std::path::Path;

use super::MemoryError;
use super::cgroup::MemoryGroup;

const GIB: u64 = 1 << 30;
/// No default is above this: a single agent that needs more is leaking.
const MOST: u64 = 16 * GIB;
/// No default is below this where there is as much: less, and healthy agents drain all day.
const LEAST: u64 = 4 * GIB;

/// What a default is a share of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Basis {
    /// The memory that is there to be had, in bytes.
    pub bytes: u64,
    /// What limits it.
    pub limited_by: LimitedBy,
}

crate::label::labels! {
    /// What limits the memory that is there to be had.
    #[non_exhaustive]
    pub enum LimitedBy {
        /// The machine's own memory.
        Host = "host",
        /// A limit of the control group or of one above it.
        ControlGroup = "control_group",
    }
}

/// Returns the default cap in bytes for a process on `basis` bytes of memory: half of it, at most 16 GiB, and at least 4 GiB where
/// that is below the basis.
///
/// The cap is always below a basis that is not zero. `basis` 0 gives 0, which means "no cap".
#[must_use]
pub const fn default_cap(basis: u64) -> u64 {
    let half = basis / 2;
    if half > MOST {
        MOST
    } else if half < LEAST && LEAST < basis {
        LEAST
    } else {
        half
    }
}

/// Returns the cap in bytes that holds: the configured one, else the default; `None` where it is turned off by a 0.
#[must_use]
pub const fn cap(configured: Option<u64>, basis: u64) -> Option<u64> {
    let bytes = match configured {
        Some(bytes) => bytes,
        None => default_cap(basis),
    };
    if bytes == 0 { None } else { Some(bytes) }
}

/// Returns how much memory there is for process `pid`: the machine's, or its control group's where that is less.
///
/// A control group that cannot be found or read is no limit.
///
/// # Errors
///
/// As [`host_memory`].
pub fn basis(pid: u32) -> Result<Basis, MemoryError> {
    let host = host_memory()?;
    let group = MemoryGroup::of(pid)
        .ok()
        .flatten()
        .and_then(|group| group.limit().ok().flatten());
    Ok(smaller(host, group))
}

/// A group that may have as much as the machine has, or more, limits nothing.
fn smaller(host: u64, group: Option<u64>) -> Basis {
    match group {
        Some(bytes) if bytes < host => Basis {
            bytes,
            limited_by: LimitedBy::ControlGroup,
        },
        Some(_) | None => Basis {
            bytes: host,
            limited_by: LimitedBy::Host,
        },
    }
}

/// Returns the machine's memory in bytes, `MemTotal` of `/proc/meminfo`.
///
/// # Errors
///
/// [`MemoryError::Read`] where there is no such file (on other systems than Linux), [`MemoryError::Format`] where it lacks the field.
pub fn host_memory() -> Result<u64, MemoryError> {
    let path = Path::new("/proc/meminfo");
    let text = fs::read_to_string(path).map_err(|source| MemoryError::read(path, source))?;
    mem_total(&text).ok_or_else(|| MemoryError::format(path, "`MemTotal`"))
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let value = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_half_of_the_basis_between_four_and_sixteen_gib() {
        for (basis, cap) in [
            (0, 0),
            (1, 0),
            (GIB, GIB / 2),
            (2 * GIB, GIB),
            (4 * GIB, 2 * GIB),
            (4 * GIB + 2, 4 * GIB),
            (6 * GIB, 4 * GIB),
            (8 * GIB, 4 * GIB),
            (10 * GIB, 5 * GIB),
            (16 * GIB, 8 * GIB),
            (32 * GIB, 16 * GIB),
            (33 * GIB, 16 * GIB),
            (126 * GIB, 16 * GIB),
            (u64::MAX, 16 * GIB),
        ] {
            assert_eq!(default_cap(basis), cap, "basis {basis}");
        }
    }

    #[test]
    fn a_configured_cap_always_wins_and_zero_turns_it_off() {
        assert_eq!(cap(None, 8 * GIB), Some(4 * GIB));
        assert_eq!(cap(Some(123), 8 * GIB), Some(123));
        assert_eq!(cap(Some(99 * GIB), 8 * GIB), Some(99 * GIB));
        assert_eq!(cap(Some(0), 8 * GIB), None);
        assert_eq!(cap(None, 0), None);
    }

    #[test]
    fn a_group_larger_than_the_machine_reads_as_the_machine() {
        for (host, group, bytes, limited_by) in [
            (8, None, 8, LimitedBy::Host),
            (8, Some(4), 4, LimitedBy::ControlGroup),
            (8, Some(8), 8, LimitedBy::Host),
            (8, Some(9), 8, LimitedBy::Host),
        ] {
            assert_eq!(smaller(host, group), Basis { bytes, limited_by });
        }
    }

    #[test]
    fn the_total_is_read_from_its_own_line() {
        assert_eq!(
            mem_total("MemTotal:       24684096 kB\nMemFree:  1 kB\n"),
            Some(24_684_096 * 1024)
        );
        for bad in [
            "",
            "MemFree: 1 kB\n",
            "MemTotal: much kB\n",
            "MemTotal: 5\n",
        ] {
            assert_eq!(mem_total(bad), None, "{bad}");
        }
    }
}
