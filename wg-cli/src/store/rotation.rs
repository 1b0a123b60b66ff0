//! Moving old messages to `archive/`, so that the files that are read stay short. Ids go on rising, and readers go on into the archive.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::cursor::{Cursor, read_cursor};
use super::jsonl::{Appender, LineFile};
use super::message_log::{highest_recent_id_of, id_of};
use super::messages::{Message, Side};
use super::{StoreError, files, out_of_order};
use crate::clock;

/// How many archived files of each side stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Every one, for ever.
    All,
    /// The newest so many.
    Files(u32),
}

/// Moves what is done with to the archive where a side has more than `over` bytes, then removes what is archived beyond `keep`; returns
/// whether anything was moved.
///
/// The other side moves along, so that what is removed later takes a message and its reply together. What has no reply yet is never moved
/// (see [`rotate`]), and what was not moved is never removed. A side of which more is left than would be moved stays for now: what is left
/// is written again, and behind a long backlog that would be all of it for each message.
///
/// # Errors
/// [`StoreError`]; whatever was moved until then can still be read.
pub fn rotate_history(dir: &Path, over: u64, keep: Keep) -> Result<bool, StoreError> {
    let sides = [Side::Inbox, Side::Outbox];
    let is_long =
        |side: &Side| fs::symlink_metadata(side.path(dir)).is_ok_and(|file| file.len() > over);
    if !sides.iter().any(is_long) {
        return Ok(false);
    }
    let cursor = read_cursor(dir, Cursor::Nex)?;
    let mut ripe = Vec::new();
    for side in sides {
        if is_ripe(dir, side, cursor)? {
            ripe.push(side);
        }
    }
    if !ripe.iter().any(is_long) {
        return Ok(false);
    }
    let mut moved = false;
    for side in ripe {
        moved |= rotate(dir, side, 0)?.is_some();
    }
    match keep {
        Keep::All => {}
        Keep::Files(_) if !moved => {}
        Keep::Files(count) => remove_beyond(dir, count)?,
    }
    Ok(moved)
}

/// Whether at least as much of a side is done with as is not, looked for without reading it all.
fn is_ripe(dir: &Path, side: Side, cursor: u64) -> Result<bool, StoreError> {
    #[derive(Deserialize)]
    struct Answering {
        in_reply_to: u64,
    }
    let about = |line: &[u8]| match side {
        Side::Inbox => id_of(line),
        Side::Outbox => serde_json::from_slice::<Answering>(line)
            .ok()
            .map(|reply| reply.in_reply_to),
    };
    let path = side.path(dir);
    let Some(file) = LineFile::open(&path)? else {
        return Ok(false);
    };
    let stays = file.first_rising(|line| Some(about(line)?.cmp(&cursor.saturating_add(1))))?;
    let done_with = stays.map_or(file.length(), |(begin, _)| begin);
    Ok(done_with >= file.length() - done_with)
}

/// Removes the oldest archived files beyond `count` of each side.
fn remove_beyond(dir: &Path, count: u32) -> Result<(), StoreError> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let oldest = |side: Side| -> Result<Vec<PathBuf>, StoreError> {
        let mut all = archives(dir, side)?;
        all.sort();
        let beyond = all.len().saturating_sub(count);
        Ok(all.into_iter().take(beyond).map(|(_, path)| path).collect())
    };
    for path in oldest(Side::Inbox)? {
        remove(&path)?;
    }
    // A reply stays for as long as its message does: without it a lost cursor would have the message answered again.
    let first = first_id_left(dir)?;
    for path in oldest(Side::Outbox)? {
        if last_answered(&path)?.is_some_and(|answered| first.is_none_or(|first| answered < first))
        {
            remove(&path)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), StoreError> {
    log::info!("`{}` is older than what is kept", path.display());
    fs::remove_file(path).map_err(StoreError::io("remove", path))
}

/// Returns the id of the first inbox message that is still there.
fn first_id_left(dir: &Path) -> Result<Option<u64>, StoreError> {
    let mut files: Vec<PathBuf> = archives(dir, Side::Inbox)?
        .into_iter()
        .map(|(_, path)| path)
        .collect();
    files.push(Side::Inbox.path(dir));
    let mut first = None;
    for path in files {
        let Some(file) = files::open_to_read(&path)? else {
            continue;
        };
        let id = first_line(file, id_of).map_err(StoreError::io("read", &path))?;
        first = first.into_iter().chain(id).min();
    }
    Ok(first)
}

/// Returns what the first line that is understood says.
fn first_line<T>(file: File, say: impl Fn(&[u8]) -> Option<T>) -> std::io::Result<Option<T>> {
    for line in BufReader::new(file).split(b'\n') {
        if let Some(said) = say(&line?) {
            return Ok(Some(said));
        }
    }
    Ok(None)
}

/// Returns the highest message that a file of replies answers, as its last reply names it.
fn last_answered(path: &Path) -> Result<Option<u64>, StoreError> {
    match LineFile::open(path)? {
        Some(file) => file.find_backwards(|line| Message::parse(line, Side::Outbox)?.in_reply_to),
        None => Ok(None),
    }
}

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
    // What came under a number that does not rise is told by the lines before it, until it has one that does.
    if at == 0 || side == Side::Inbox && out_of_order::waits(dir, &bytes)? {
        return Ok(None);
    }
    let (old, kept) = bytes.split_at(at);
    let archive = write_archive(dir, side, old)?;
    files::replace_atomically(&path, kept)?;
    if side == Side::Inbox && out_of_order::rise(kept) {
        out_of_order::unmark(dir);
    }
    drop(lock);
    Ok(Some(archive))
}

/// Returns the offset of the first line that stays.
fn split_at(bytes: &[u8], side: Side, cursor: u64) -> usize {
    let mut offset = 0;
    let (mut highest, mut last_with_id) = (0, 0);
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
        if let Some(id) = id_of(line).filter(|id| *id >= highest) {
            (highest, last_with_id) = (id, offset);
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
            && let Some(last) = highest_recent_id_of(&path)?
        {
            found.push((last, path));
        }
    }
    Ok(found)
}

/// Returns every archived file of one side.
pub(super) fn archived(dir: &Path, side: Side) -> Result<Vec<PathBuf>, StoreError> {
    let found = archives(dir, side)?.into_iter();
    Ok(found.map(|(_, path)| path).collect())
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
