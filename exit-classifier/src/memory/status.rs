//! The memory figures in `/proc/<pid>/status`.

use std::fs;
use std::path::Path;

use super::MemoryError;
use crate::label::labels;

labels! {
    /// Where a figure comes from.
    #[non_exhaustive]
    pub enum Source {
        /// `RssAnon` plus `RssShmem` (Linux 4.5 and later): what no file stands behind.
        AnonPlusShmem = "anon_plus_shmem",
        /// `VmRSS`, for want of the others: mapped files are in it, so it can be far too high.
        VmRssFallback = "vm_rss_fallback",
    }
}

/// The resident memory of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resident {
    /// The figure in bytes.
    pub bytes: u64,
    /// Where it comes from.
    pub source: Source,
}

/// Returns the figure that the text of a `/proc/<pid>/status` gives (`proc_pid_status(5)`).
///
/// Whether a field is there decides, never its value: two zeroes are a valid zero, and shared memory alone is a valid figure. A field that
/// is not a number counts as absent. Where both are absent it is `VmRSS`, and the result says so; where that is absent as well
/// (a zombie, a kernel thread) there is no figure.
#[must_use]
pub fn parse_status(status: &str) -> Option<Resident> {
    let (mut anon, mut shmem, mut rss) = (None, None, None);
    for line in status.lines() {
        let Some((field, value)) = line.split_once(':') else {
            continue;
        };
        match field {
            "RssAnon" => anon = bytes(value),
            "RssShmem" => shmem = bytes(value),
            "VmRSS" => rss = bytes(value),
            _ => {}
        }
    }
    match (anon, shmem) {
        (None, None) => rss.map(|bytes| Resident {
            bytes,
            source: Source::VmRssFallback,
        }),
        (anon, shmem) => Some(Resident {
            bytes: anon.unwrap_or(0).saturating_add(shmem.unwrap_or(0)),
            source: Source::AnonPlusShmem,
        }),
    }
}

/// Parses the value of a memory field, `   1234 kB`; the kernel's "kB" is 1,024 bytes.
fn bytes(value: &str) -> Option<u64> {
    let mut words = value.split_ascii_whitespace();
    let number = words.next()?;
    let digits_only = number.bytes().all(|byte| byte.is_ascii_digit());
    if !digits_only || words.next() != Some("kB") {
        return None;
    }
    Some(number.parse::<u64>().ok()?.saturating_mul(1024))
}

/// Returns the resident memory of a process, at the cost of one small read (about 20 µs).
///
/// # Errors
///
/// [`MemoryError::NoProcess`] where it does not exist, [`MemoryError::NoMemory`] for a zombie or a kernel thread, [`MemoryError::Read`] where
/// `/proc` cannot be read.
pub fn resident(pid: u32) -> Result<Resident, MemoryError> {
    resident_in(Path::new("/proc"), pid)
}

/// [`resident`] for a process table at another place.
pub(super) fn resident_in(proc: &Path, pid: u32) -> Result<Resident, MemoryError> {
    let path = proc.join(pid.to_string()).join("status");
    let status = fs::read(&path).map_err(|source| MemoryError::of_process(pid, &path, source))?;
    // The name of a process may be any bytes; the fields are ASCII.
    parse_status(&String::from_utf8_lossy(&status)).ok_or(MemoryError::NoMemory { pid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: &str, expected: Option<(u64, Source)>) {
        let expected = expected.map(|(bytes, source)| Resident { bytes, source });
        assert_eq!(parse_status(status), expected, "{status}");
    }

    #[test]
    fn the_presence_of_a_field_decides_and_not_its_value() {
        use Source::{AnonPlusShmem, VmRssFallback};
        let kib = 1024;
        // Both, with everything else around them.
        check(
            "Name:\tnode\nVmRSS:\t 900000 kB\nRssAnon:\t  100000 kB\nRssFile:\t  799000 kB\nRssShmem:\t    1000 kB\n",
            Some((101_000 * kib, AnonPlusShmem)),
        );
        // Files alone change nothing.
        check(
            "VmRSS:\t 7000000 kB\nRssAnon:\t 100 kB\nRssFile:\t 6999900 kB\nRssShmem:\t 0 kB\n",
            Some((100 * kib, AnonPlusShmem)),
        );
        check(
            "VmRSS:\t5 kB\nRssAnon:\t 7 kB\n",
            Some((7 * kib, AnonPlusShmem)),
        );
        check(
            "VmRSS:\t5 kB\nRssShmem:\t 7 kB\n",
            Some((7 * kib, AnonPlusShmem)),
        );
        check(
            "VmRSS:\t5 kB\nRssAnon:\t 0 kB\nRssShmem:\t 0 kB\n",
            Some((0, AnonPlusShmem)),
        );
        check("VmRSS:\t5 kB\nRssShmem:\t0 kB\n", Some((0, AnonPlusShmem)));
        // One malformed field is absent, the other one stands.
        check(
            "VmRSS:\t5 kB\nRssAnon:\tlots kB\nRssShmem:\t 3 kB\n",
            Some((3 * kib, AnonPlusShmem)),
        );
        check(
            "VmRSS:\t5 kB\nRssAnon:\t3 kB\nRssShmem:\t-1 kB\n",
            Some((3 * kib, AnonPlusShmem)),
        );
        // All malformed: the fall-back, and it is named.
        for bad in [
            "",
            " kB",
            "NaN kB",
            "12",
            "12 MB",
            "1.5 kB",
            "12x kB",
            "0x10 kB",
            "+3 kB",
            "99999999999999999999999 kB",
        ] {
            check(
                &format!("VmRSS:\t5 kB\nRssAnon:\t{bad}\nRssShmem:\t{bad}\n"),
                Some((5 * kib, VmRssFallback)),
            );
        }
        check("VmRSS:\t 5 kB\n", Some((5 * kib, VmRssFallback)));
        check("VmRSS:\t 0 kB\n", Some((0, VmRssFallback)));
        // Nothing at all: no figure, never a zero.
        check("VmRSS:\t many kB\n", None);
        check("Name:\tzombie\nState:\tZ (zombie)\n", None);
        check("", None);
    }

    #[test]
    fn a_field_is_known_only_at_the_start_of_its_line() {
        check(
            "Name:\tRssAnon: 9 kB\nVmRSS:\t5 kB\n",
            Some((5 * 1024, Source::VmRssFallback)),
        );
        check(" RssAnon:\t9 kB\nXRssShmem:\t9 kB\n", None);
    }

    #[test]
    fn a_figure_too_large_to_add_is_the_largest_there_is() {
        let most = u64::MAX / 1024;
        check(
            &format!("RssAnon:\t{most} kB\nRssShmem:\t{most} kB\n"),
            Some((u64::MAX, Source::AnonPlusShmem)),
        );
        check(
            &format!("RssAnon:\t{} kB\n", u64::MAX),
            Some((u64::MAX, Source::AnonPlusShmem)),
        );
    }
}
