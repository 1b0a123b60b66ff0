//! RFC 3339 times with nanoseconds, without a calendar library.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the time in nanoseconds after 1970.
pub(crate) fn nanoseconds(time: SystemTime) -> i128 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}

/// Returns `time` in UTC, to the nanosecond: `2026-11-21T02:45:50.123456789Z`.
pub(crate) fn format(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z",
        since.subsec_nanos()
    )
}

/// Returns the date of a day counted from 1970-01-01.
///
/// Years are counted from the first of March, which puts the leap day last (Hinnant, "chrono-compatible low-level
/// date algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// Returns the instant that an RFC 3339 time names, as nanoseconds after 1970, or `None` where it names none.
pub(crate) fn parse(text: &str) -> Option<i128> {
    if !crate::record::is_time(text) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let tail = text.get(19..)?;
    let digits = tail.strip_prefix('.').map_or("", |fraction| {
        fraction
            .split_once(|c: char| !c.is_ascii_digit())
            .map_or(fraction, |(digits, _zone)| digits)
    });
    let nanos: i64 = format!("{digits:0<9}").get(..9)?.parse().ok()?;
    let zone = tail.strip_prefix('.').unwrap_or(tail).get(digits.len()..)?;
    let offset = match zone {
        "Z" | "z" => 0,
        _signed => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60)
        }
    };
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days =
        year.div_euclid(400) * 146_097 + year.rem_euclid(400) * 365 + year.rem_euclid(400) / 4
            - year.rem_euclid(400) / 100
            + day_of_year
            - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(i128::from(seconds) * 1_000_000_000 + i128::from(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[track_caller]
    fn check(nanos: u64, text: &str) {
        assert_eq!(format(UNIX_EPOCH + Duration::from_nanos(nanos)), text);
        assert_eq!(parse(text), Some(i128::from(nanos)));
    }

    #[test]
    fn known_instants_read_as_the_calendar_has_them() {
        check(0, "1970-01-01T00:00:00.000000000Z");
        check(951_782_399_000_000_001, "2000-02-28T23:59:59.000000001Z");
        check(951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z");
        check(1_709_251_199_999_999_999, "2024-02-29T23:59:59.999999999Z");
        check(4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000000Z");
    }

    #[test]
    fn offsets_and_fractions_name_the_same_instant() {
        let zulu = parse("2026-11-21T02:45:50Z");
        assert_eq!(parse("2026-11-21T03:45:50.0+01:00"), zulu);
        assert_eq!(parse("2026-11-20T21:15:50.000000-05:30"), zulu);
        assert_eq!(parse("2026-11-21"), None);
    }
}
