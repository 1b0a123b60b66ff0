//! The only reader of the wall clock in `wg-cli`.
#![expect(
    clippy::disallowed_methods,
    reason = "this module is where the clocks are read; everything else is told the time"
)]

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment of the wall clock, written as RFC 3339 in UTC with nanoseconds: `2026-11-20T20:26:12.906424761Z`.
///
/// The fixed width makes texts sort as the moments do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(jiff::Timestamp);

/// Returns the present moment of the wall clock.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::of_clock(SystemTime::now())
}

/// Returns the present moment of the steady clock, for deadlines.
#[must_use]
pub fn steady() -> Instant {
    Instant::now()
}

/// Returns the kernel's name for this boot, where it has one (Linux).
pub fn boot_id() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(text.trim().to_owned())
    })
    .as_deref()
}

impl Timestamp {
    /// The start of 1970, for records that bear no time.
    pub const EPOCH: Self = Self(jiff::Timestamp::UNIX_EPOCH);

    /// Returns the moment that a clock shows, clamped to what can be written: a clock can be set to anything.
    fn of_clock(clock: SystemTime) -> Self {
        let end = if clock < UNIX_EPOCH {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        };
        Self(jiff::Timestamp::try_from(clock).unwrap_or(end))
    }

    /// Reads an RFC 3339 text, with any offset.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.trim().parse().ok().map(Self)
    }

    /// Writes the moment with nanoseconds and `Z`.
    #[must_use]
    pub fn format(self) -> String {
        format!("{:.9}", self.0)
    }

    /// Writes the moment with milliseconds and `Z`, as logs do.
    #[must_use]
    pub fn format_millis(self) -> String {
        format!("{:.3}", self.0)
    }

    /// Returns the milliseconds since 1970.
    #[must_use]
    pub fn millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// Returns the moment this many milliseconds after 1970, clamped to what can be written.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        let end = if millis < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        };
        Self(jiff::Timestamp::from_millisecond(millis).unwrap_or(end))
    }

    /// Returns the time from `earlier` to this moment, zero if the clock went backwards.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::try_from(self.0.duration_since(earlier.0)).unwrap_or(Duration::ZERO)
    }

    /// Returns the moment `span` later, clamped to what can be written.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.checked_add(span).unwrap_or(jiff::Timestamp::MAX))
    }

    /// Returns how long before `now` this was, for people: `12 min`.
    #[must_use]
    pub fn ago(self, now: Self) -> String {
        span(now.since(self))
    }

    /// Returns how long ago this was, in words: `a moment ago`, `12 s ago`.
    #[must_use]
    pub fn ago_in_words(self, now: Self) -> String {
        if now.since(self) < Duration::from_secs(1) {
            "a moment ago".to_owned()
        } else {
            format!("{} ago", self.ago(now))
        }
    }
}

/// Returns a time span for people, in its largest whole unit: `0 s`, `12 min`, `2 h`, `3 d`.
#[must_use]
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        172_800.. => format!("{} d", seconds / 86_400),
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.format())
    }
}

impl FromStr for Timestamp {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        Self::parse(text).ok_or(NotATime)
    }
}

/// A text was not an RFC 3339 time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotATime;

impl fmt::Display for NotATime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a time such as `2026-11-20T20:26:12Z`")
    }
}

impl std::error::Error for NotATime {}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.format())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(NotATime))
    }
}

#[cfg(test)]
mod tests {
    use super::{Timestamp, span};
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_time_is_written_with_nanoseconds_and_z_whatever_offset_it_was_read_with() {
        for (read, written) in [
            (
                "2026-11-20T20:26:12.906424761+00:00",
                "2026-11-20T20:26:12.906424761Z",
            ),
            (
                "2026-11-20T21:26:12+01:00",
                "2026-11-20T20:26:12.000000000Z",
            ),
            ("2026-11-20T20:26:12Z\n", "2026-11-20T20:26:12.000000000Z"),
        ] {
            assert_eq!(
                Timestamp::parse(read).map(Timestamp::format).as_deref(),
                Some(written)
            );
        }
        assert_eq!(Timestamp::parse("yesterday"), None);
        assert_eq!(Timestamp::parse(""), None);
    }

    #[test]
    fn a_clock_that_is_set_to_what_no_calendar_has_is_clamped_and_no_panic() {
        let beyond = Duration::from_secs(1 << 40);
        let late = Timestamp::of_clock(UNIX_EPOCH + beyond);
        let early = Timestamp::of_clock(UNIX_EPOCH - beyond);
        assert!(late.format().starts_with("9999-12-"), "{late}");
        assert!(early < Timestamp::EPOCH && Timestamp::EPOCH < late);
        assert_eq!(Timestamp::of_clock(UNIX_EPOCH), Timestamp::EPOCH);
    }

    #[test]
    fn spans_are_told_in_their_largest_whole_unit() {
        for (seconds, told) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (7200, "2 h"),
            (86_400, "24 h"),
            (259_200, "3 d"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), told);
        }
    }

    #[test]
    fn what_was_just_now_is_not_told_in_no_seconds() {
        let at = Timestamp::from_millis(1_000_000);
        let after = |millis: i64| at.ago_in_words(Timestamp::from_millis(1_000_000 + millis));
        assert_eq!(after(-5_000), "a moment ago");
        assert_eq!(after(999), "a moment ago");
        assert_eq!(after(1_000), "1 s ago");
        assert_eq!(after(7_200_000), "2 h ago");
    }

    #[test]
    fn a_clock_that_went_backwards_gives_zero_and_no_panic() {
        let early = Timestamp::from_millis(1_000);
        let late = Timestamp::from_millis(5_000);
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(late.since(early), Duration::from_secs(4));
        assert_eq!(
            Timestamp::from_millis(i64::MAX).plus(Duration::MAX),
            Timestamp::from_millis(i64::MAX).plus(Duration::MAX)
        );
    }
}
