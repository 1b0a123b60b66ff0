//! Moving old messages to `archive/`, so that the files that are read stay short. Ids go on rising, and readers go on into the archive.

use std::fs;
use std::path::{Path, PathBuf};

use super::cursor::{Cursor, read_cursor};
use super::jsonl::Appender;
use super::message_log::{id_of, last_id_of};
use super::messages::{Message, Side};
use super::{StoreError, files};
use crate::clock;

/// Moves what is done with to `archive/SIDE-DATE-TIME.jsonl` if the file has more than `over` bytes, and returns where it is now.
///
/// What stays: every inbox message after the handler's cursor, every reply to one of those, and always the last line, which bears the id
/// that the next one follows.
///
/// # Errors
/// [`StoreError`]; a crash half-way leaves the messages in both files, and readers take each once.
pub fn rotate(dir: &Path, side: Side, over: u64) -> Result<Option<PathBuf>, StoreError> {
    let path = side.path(dir);
    if fs::symlink_metadata(&path).map_or(0, |metadata| metadata.len()) <= over {
        return Ok(None);
    }
    // Its lock keeps writers out until the end of this function.
    let lock = Appender::open(&path, |line| Message::parse(line, side).is_some())?;
    let bytes = files::read(&path)?.unwrap_or_default();
    let at = split_at(&bytes, side, read_cursor(dir, Cursor::Nex)?);
    if at == 0 {
        return Ok(None);
    }
    let (old, kept) = bytes.split_at(at);
    let archive = write_archive(dir, side, old)?;
    files::replace_atomically(&path, kept)?;
    drop(lock);
    Ok(Some(archive))
}

/// Returns the offset of the first line that stays.
fn split_at(bytes: &[u8], side: Side, cursor: u64) -> usize {
    let mut offset = 0;
    let mut last_with_id = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if let Some(message) = Message::parse(line, side) {
            let stays = match side {
                Side::Inbox => message.id > cursor,
                Side::Outbox => message.in_reply_to.is_some_and(|id| id > cursor),
            };
            if stays {
                return offset;
            }
        }
        if id_of(line).is_some() {
            last_with_id = offset;
        }
        offset += line.len();
    }
    last_with_id
}

/// Writes a new file in the archive.
fn write_archive(dir: &Path, side: Side, bytes: &[u8]) -> Result<PathBuf, StoreError> {
    let archive = dir.join("archive");
    files::create_directories(&archive)?;
    // 2026-11-20T20:26:12 becomes 20261120-202612, as the earlier tool writes it.
    let moment = clock::now().format_millis();
    let digits = |part: &str| {
        part.chars()
            .filter(char::is_ascii_digit)
            .collect::<String>()
    };
    let (date, time) = moment.split_once('T').unwrap_or((&moment, ""));
    let stem = format!(
        "{}-{}-{}",
        side.as_str(),
        digits(date),
        digits(time.split('.').next().unwrap_or(time))
    );
    let mut attempt = 0_u32;
    loop {
        let name = if attempt == 0 {
            format!("{stem}.jsonl")
        } else {
            format!("{stem}-{attempt}.jsonl")
        };
        let path = archive.join(name);
        match files::create_exclusively(&path, bytes) {
            Ok(()) => return Ok(path),
            Err(StoreError::AlreadyExists { .. }) => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Returns the archived files of one side with their last ids.
fn archives(dir: &Path, side: Side) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let archive = dir.join("archive");
    let prefix = format!("{}-", side.as_str());
    let mut found = Vec::new();
    for name in files::names_in(&archive)? {
        if let Some(path) = name.starts_with(&prefix).then(|| archive.join(&name))
            && path
                .extension()
                .is_some_and(|extension| extension == "jsonl")
            && let Some(last) = last_id_of(&path)?
        {
            found.push((last, path));
        }
    }
    Ok(found)
}

/// Returns the archived file that holds the messages just before `id`.
pub(super) fn archive_before(
    dir: &Path,
    side: Side,
    id: u64,
) -> Result<Option<PathBuf>, StoreError> {
    let before = archives(dir, side)?
        .into_iter()
        .filter(|(last, _)| *last < id);
    Ok(before.max_by_key(|(last, _)| *last).map(|(_, path)| path))
}

/// Returns the highest archived id, 0 if there is none.
pub(super) fn last_archived_id(dir: &Path, side: Side) -> Result<u64, StoreError> {
    Ok(archives(dir, side)?
        .into_iter()
        .map(|(last, _)| last)
        .max()
        .unwrap_or(0))
}
