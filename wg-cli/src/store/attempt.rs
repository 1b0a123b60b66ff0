//! The turn that is running, written down before it starts.
//!
//! A handler that dies in a turn says nothing; the next one finds this record and knows that the message was taken, how
//! often, and (by the reply that was growing beside it) whether its agent had shown anything yet.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{StoreError, files, messages};
use crate::clock::Timestamp;

/// Name of the record in the session directory.
pub const FILE: &str = ".turn.json";
/// Name of the file in which a reply grows.
pub const STREAMING: &str = ".streaming";

const VERSION: u64 = 1;

/// A turn that was begun and, as long as the record stands, has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The message's id in the inbox.
    pub message: u64,
    /// The id that it had before it was renumbered, if it was.
    pub formerly: Option<u64>,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// When it was begun.
    pub started_at: Timestamp,
    /// The handler's process id.
    pub pid: u32,
}

impl Attempt {
    /// Whether the message with this id was taken.
    #[must_use]
    pub fn is_of(&self, message: u64) -> bool {
        self.message == message || self.formerly == Some(message)
    }
}

fn path(session: &Path) -> PathBuf {
    session.join(FILE)
}

/// Reads the record of a turn that has not ended.
///
/// A record that cannot be read is worth one attempt of an unknown message at most, and is taken for none.
#[must_use]
pub fn read(session: &Path) -> Option<Attempt> {
    let bytes = files::read(&path(session)).ok().flatten()?;
    let record: Map<String, Value> = serde_json::from_slice(&bytes).ok()?;
    let number = |name: &str| record.get(name).and_then(Value::as_u64);
    if number("version") != Some(VERSION) {
        return None;
    }
    Some(Attempt {
        message: number("message_id")?,
        formerly: number("formerly_message_id"),
        attempt: u32::try_from(number("attempt")?).ok()?,
        started_at: Timestamp::parse(record.get("started_at")?.as_str()?)?,
        pid: u32::try_from(number("pid")?).ok()?,
    })
}

/// Returns whether the reply that was growing when the last turn ended had anything in it.
#[must_use]
pub fn had_shown_output(session: &Path) -> bool {
    std::fs::metadata(session.join(STREAMING)).is_ok_and(|metadata| metadata.len() > 0)
}

/// Writes the record, durably.
///
/// # Errors
///
/// Fails where the file cannot be written; the turn must not begin then.
pub fn write(session: &Path, attempt: &Attempt) -> Result<(), StoreError> {
    let mut record = json!({
        "version": VERSION,
        "message_id": attempt.message,
        "attempt": attempt.attempt,
        "started_at": attempt.started_at.format(),
        "pid": attempt.pid,
    });
    if let Some(formerly) = attempt.formerly {
        record["formerly_message_id"] = formerly.into();
    }
    files::replace_atomically(&path(session), format!("{record}\n").as_bytes())
}

/// Puts away what a handler left that was killed after its reply was written: a record, and a reply in the making, that are of no message
/// which is still to be answered.
///
/// # Errors
///
/// The messages cannot be read.
pub fn forget_the_answered(session: &Path) -> Result<(), StoreError> {
    if let Some(begun) = read(session)
        && messages::find_unanswered(session, begun.message)?.is_some()
    {
        return Ok(());
    }
    clear(session);
    clear_streaming(session);
    Ok(())
}

/// Removes the reply in the making: its turn has ended.
pub fn clear_streaming(session: &Path) {
    if let Err(error) = std::fs::remove_file(session.join(STREAMING))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        log::warn!("the growing reply of an ended turn stays behind: {error}");
    }
}

/// Removes the record: the turn has ended and is accounted for.
pub fn clear(session: &Path) {
    match std::fs::remove_file(path(session)) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        // The record names a message that is answered by now, so it says nothing about any other.
        Err(error) => log::warn!("failed to remove the record of an ended turn: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_it_was_written_and_is_gone_when_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let started_at = Timestamp::parse("2026-11-20T20:26:12.906424761Z").unwrap();
        let attempt = Attempt {
            message: 7,
            formerly: Some(6),
            attempt: 2,
            started_at,
            pid: 4711,
        };
        write(dir.path(), &attempt).unwrap();
        assert_eq!(read(dir.path()), Some(attempt));
        clear(dir.path());
        assert_eq!(read(dir.path()), None);
        clear(dir.path());
    }

    #[test]
    fn a_record_that_cannot_be_understood_is_none() {
        let dir = tempfile::tempdir().unwrap();
        for text in [
            "",
            "{",
            "[]",
            r#"{"version":2,"message_id":1,"attempt":1}"#,
            r#"{"version":1,"message_id":-1}"#,
        ] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            assert_eq!(read(dir.path()), None, "{text}");
        }
    }

    #[test]
    fn output_was_shown_when_the_growing_reply_is_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!had_shown_output(dir.path()));
        std::fs::write(dir.path().join(STREAMING), "").unwrap();
        assert!(!had_shown_output(dir.path()));
        std::fs::write(dir.path().join(STREAMING), "x").unwrap();
        assert!(had_shown_output(dir.path()));
    }
}
