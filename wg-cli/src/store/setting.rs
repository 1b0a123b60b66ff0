//! The values that settings take: spans of time, sizes, signals.

use std::time::Duration;

use nix::sys::signal::Signal;
use toml::de::DeValue;

/// What a span of time looks like, for complaints.
pub const A_SPAN: &str = "a time such as \"300s\", \"10m\", \"1.5h\" or a number of seconds";
/// What a size looks like, for complaints.
pub const A_SIZE: &str = "a size such as \"10MiB\", \"2GiB\" or a number of bytes";

/// Reads a span of time: `250ms`, `300s`, `10m`, `1.5h`, `2d`; a bare number is seconds.
#[must_use]
pub fn parse_span(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" | "sec" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

/// Reads a size in bytes: `10MiB`, `10MB`, `512KiB`, `2G`; decimal and binary units are what they say, a single letter is binary.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    const BINARY: f64 = 1024.0;
    const DECIMAL: f64 = 1000.0;
    let (number, unit) = split(text)?;
    let factor = match unit {
        "" | "B" => 1.0,
        "K" | "KiB" => BINARY,
        "M" | "MiB" => BINARY.powi(2),
        "G" | "GiB" => BINARY.powi(3),
        "T" | "TiB" => BINARY.powi(4),
        "kB" | "KB" => DECIMAL,
        "MB" => DECIMAL.powi(2),
        "GB" => DECIMAL.powi(3),
        "TB" => DECIMAL.powi(4),
        _ => return None,
    };
    let bytes = number * factor;
    // 2^53: beyond it a number with a fraction is no longer exact, and no machine has so much.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked against both ends"
    )]
    if (0.0..=9_007_199_254_740_992.0).contains(&bytes) {
        Some(bytes as u64)
    } else {
        None
    }
}

/// Splits `1.5h` into its number and its unit.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if !number.starts_with(|letter: char| letter.is_ascii_digit()) {
        return None;
    }
    Some((number.parse().ok()?, unit.trim_start()))
}

/// Reads the name of a signal, with or without `SIG`.
#[must_use]
pub fn parse_signal(text: &str) -> Option<Signal> {
    let name = text.strip_prefix("SIG").unwrap_or(text);
    ["HUP", "INT", "QUIT", "TERM", "KILL", "USR1", "USR2"]
        .contains(&name)
        .then(|| format!("SIG{name}").parse().ok())?
}

pub(super) fn text(value: &DeValue<'_>) -> Option<String> {
    value.as_str().map(str::to_owned)
}

pub(super) fn texts(value: &DeValue<'_>) -> Option<Vec<String>> {
    value
        .as_array()?
        .iter()
        .map(|item| text(item.get_ref()))
        .collect()
}

pub(super) fn flag(value: &DeValue<'_>) -> Option<bool> {
    value.as_bool()
}

pub(super) fn whole(value: &DeValue<'_>) -> Option<u32> {
    let integer = value.as_integer()?;
    u32::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok()
}

pub(super) fn fraction(value: &DeValue<'_>) -> Option<f64> {
    match value.as_float() {
        Some(float) => float.as_str().replace('_', "").parse().ok(),
        None => whole(value).map(f64::from),
    }
}

pub(super) fn span(value: &DeValue<'_>) -> Option<Duration> {
    match value.as_str() {
        Some(text) => parse_span(text),
        None => fraction(value).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
    }
}

pub(super) fn spans(value: &DeValue<'_>) -> Option<Vec<Duration>> {
    value
        .as_array()?
        .iter()
        .map(|item| span(item.get_ref()))
        .collect()
}

pub(super) fn size(value: &DeValue<'_>) -> Option<u64> {
    match value.as_str() {
        Some(text) => parse_size(text),
        None => whole(value).map(u64::from),
    }
}

#[cfg(test)]
mod tests {
    use super::{parse_signal, parse_size, parse_span};
    use std::time::Duration;

    #[test]
    fn spans_are_read_with_their_unit() {
        for (text, millis) in [
            ("300s", 300_000),
            ("250ms", 250),
            ("10m", 600_000),
            ("10 min", 600_000),
            ("1.5h", 5_400_000),
            ("2d", 172_800_000),
            ("7", 7_000),
            ("0", 0),
        ] {
            assert_eq!(
                parse_span(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "-1s",
            "1y",
            "1 s s",
            "1.2.3s",
            ".5s",
            "inf",
            "nan",
            "1e400s",
            "99999999999999999999999d",
        ] {
            assert_eq!(parse_span(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_unit() {
        for (text, bytes) in [
            ("10MiB", 10 << 20),
            ("10M", 10 << 20),
            ("1.5KiB", 1536),
            ("2GB", 2_000_000_000),
            ("4096", 4096),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "10XB", "99999999999TiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn signals_are_read_with_and_without_their_prefix() {
        assert_eq!(parse_signal("TERM"), parse_signal("SIGTERM"));
        assert!(parse_signal("TERM").is_some());
        for text in ["", "SIG", "STOP", "term", "SEGV", "SIGSIGTERM"] {
            assert_eq!(parse_signal(text), None, "{text}");
        }
    }
}
