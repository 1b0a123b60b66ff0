//! The three-line record, `.handler.pid`: its grammar, read and written without any I/O.
//!
//! ```text
//! <pid>\n<RFC 3339>\n<kind>\n
//! ```
//!
//! Other tools plant and read this file, so the grammar is theirs as much as ours and may not grow.

use crate::kind::Kind;

/// The largest record that is read, in bytes. A longer file is no record.
pub const LARGEST: usize = 4096;

/// One complete record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The process that claims the directory: 1 to `i32::MAX`.
    pub pid: u32,
    /// Line two, verbatim.
    pub since: String,
    /// Line three.
    pub kind: Kind,
}

impl Record {
    /// Returns the bytes of the file.
    #[must_use]
    pub fn format(&self) -> String {
        format!("{}\n{}\n{}\n", self.pid, self.since, self.kind)
    }
}

/// What the bytes of a record file mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Three complete lines. Lines after the third are ignored, as the earliest readers did.
    Complete(Record),
    /// All three lines are there but the last has no line feed: either the writer is in the middle of it or
    /// its author never writes one. Once it is old enough it counts as complete.
    Unterminated(Record),
    /// A strict prefix of the grammar: whoever created the file may still be writing it.
    InFlight,
    /// Nothing that a writer of records can have written, even half-way.
    Corrupt,
}

/// Returns what `bytes` mean.
///
/// A process number counts only once its line feed is there: a torn `123` of `12345\n` names somebody else.
#[must_use]
pub fn parse(bytes: &[u8]) -> Content {
    if bytes.len() > LARGEST {
        return Content::Corrupt;
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Content::Corrupt;
    };
    let Some((pid, rest)) = text.split_once('\n') else {
        return if is_pid_prefix(text) {
            Content::InFlight
        } else {
            Content::Corrupt
        };
    };
    let Some(pid) = parse_pid(pid) else {
        return Content::Corrupt;
    };
    let Some((since, rest)) = rest.split_once('\n') else {
        return if is_time_prefix(rest) {
            Content::InFlight
        } else {
            Content::Corrupt
        };
    };
    if !is_time(since) {
        return Content::Corrupt;
    }
    let (kind, terminated) = match rest.split_once('\n') {
        Some((kind, _further)) => (kind, true),
        None => (rest, false),
    };
    if kind.contains(['\r', '\0']) {
        return Content::Corrupt;
    }
    let record = Record {
        pid,
        since: since.to_owned(),
        kind: Kind::from(kind),
    };
    match (kind.is_empty(), terminated) {
        (true, true) => Content::Corrupt,
        (true, false) => Content::InFlight,
        (false, true) => Content::Complete(record),
        (false, false) => Content::Unterminated(record),
    }
}

/// Returns the process number that `text` names, if a process may have it.
///
/// Zero and negative numbers are refused because `kill` reads them as groups; signs, spaces and digits of
/// other scripts because no writer of records makes them.
#[must_use]
pub fn parse_pid(text: &str) -> Option<u32> {
    if !is_pid_prefix(text) || text.is_empty() {
        return None;
    }
    let pid = text.parse::<i32>().ok()?;
    u32::try_from(pid).ok().filter(|pid| *pid > 0)
}

/// Returns whether more digits, or a line feed, could make a process number of `text`.
fn is_pid_prefix(text: &str) -> bool {
    text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The fixed part of an RFC 3339 time: `0` stands for a digit.
const TIME_SHAPE: &[u8] = b"0000-00-00T00:00:00";

/// Returns whether `text` is a complete RFC 3339 time.
#[must_use]
pub(crate) fn is_time(text: &str) -> bool {
    let Some(tail) = time_tail(text) else {
        return false;
    };
    match tail.as_bytes() {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            [h1, h2, m1, m2].iter().all(|byte| byte.is_ascii_digit())
        }
        _ => false,
    }
}

/// Returns whether more bytes could make an RFC 3339 time of `text`.
fn is_time_prefix(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() <= TIME_SHAPE.len() {
        return matches_shape(bytes);
    }
    let Some(tail) = time_tail(text) else {
        return false;
    };
    match tail.as_bytes() {
        [] | [b'Z' | b'z' | b'+' | b'-'] => true,
        [b'+' | b'-', offset @ ..] if offset.len() <= 5 => {
            offset.iter().enumerate().all(|(at, byte)| {
                if at == 2 {
                    *byte == b':'
                } else {
                    byte.is_ascii_digit()
                }
            })
        }
        _ => false,
    }
}

/// Returns what follows the seconds and their fraction, or `None` where the fixed part does not fit.
fn time_tail(text: &str) -> Option<&str> {
    let (fixed, tail) = text.split_at_checked(TIME_SHAPE.len())?;
    if !matches_shape(fixed.as_bytes()) {
        return None;
    }
    Some(match tail.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => tail,
    })
}

fn matches_shape(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .zip(TIME_SHAPE)
        .all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            b'T' => matches!(byte, b'T' | b't' | b' '),
            other => byte == other,
        })
}
