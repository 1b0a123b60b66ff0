use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// A point on the monotonic clock: nanoseconds since the machine booted.
///
/// The pure parts of this crate never read a clock; they are told the time. The
/// driver takes it from `CLOCK_MONOTONIC`, whose zero is the same for every
/// process of one boot, so that a moment written down by one process means the
/// same to the next. Moments before boot are negative; they come up when a state
/// that was saved before a reboot is restored.
///
/// Arithmetic saturates: a sum that does not fit is the end of time, and no
/// caller can make it panic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Moment(i64);

impl Moment {
    /// The moment of boot, and a convenient start for a simulated clock.
    pub const ZERO: Self = Self(0);

    /// Returns the moment `nanos` nanoseconds after boot.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Returns the moment `seconds` seconds after boot.
    #[must_use]
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// Returns the nanoseconds since boot.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Returns how long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let nanos = self.0.saturating_sub(earlier.0);
        u64::try_from(nanos).map_or(Duration::ZERO, Duration::from_nanos)
    }

    /// Returns the moment that lies `span` before this one.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos_of(span)))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos_of(span)))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        write!(
            f,
            "{sign}{}.{:03}s",
            nanos / 1_000_000_000,
            nanos / 1_000_000 % 1_000
        )
    }
}

fn nanos_of(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_saturate_instead_of_wrapping() {
        let end = Moment::ZERO + Duration::MAX;
        assert_eq!(end + Duration::from_secs(1), end);
        assert_eq!(Moment::ZERO.since(end), Duration::ZERO);
        assert!(Moment::from_nanos(i64::MIN).before(Duration::MAX) < Moment::ZERO);
    }

    #[test]
    fn a_moment_before_boot_keeps_its_distance() {
        let before = Moment::ZERO.before(Duration::from_secs(70));
        assert_eq!(
            Moment::from_secs(30).since(before),
            Duration::from_secs(100)
        );
        assert_eq!(before.to_string(), "-70.000s");
    }
}
