//! Messages whose number is so high that none can follow, as another tool may have written them: they get a usable one.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use super::cursor;
use super::fields::Fields;
use super::files;
use super::jsonl::{Appender, LineFile};
use super::message_log::{HIGHEST_PLACE, id_of};
use super::messages::{Message, Side};
use super::{StoreError, attempt, json, rotation};

/// A message that got another number.
struct Moved {
    from: u64,
    to: u64,
    request_id: String,
}

/// Returns the highest number of the messages of one side if it leaves no room: beyond it numbers are not exact in every reader of JSON.
///
/// # Errors
/// [`StoreError`].
pub fn too_high(dir: &Path, side: Side) -> Result<Option<u64>, StoreError> {
    let Some(file) = LineFile::open(&side.path(dir))? else {
        return Ok(None);
    };
    let mut highest = None;
    file.find_backwards(|line| {
        highest = highest.max(id_of(line).filter(|id| *id > HIGHEST_PLACE));
        None::<()>
    })?;
    Ok(highest)
}

/// Returns the numbers of the questions that stand behind one with the same or a higher number, as another tool may have written them.
/// Whoever answers goes by the numbers, and may have passed theirs.
///
/// # Errors
/// [`StoreError`].
pub fn not_rising(dir: &Path) -> Result<Vec<u64>, StoreError> {
    let bytes = files::read(&Side::Inbox.path(dir))?.unwrap_or_default();
    let mut highest = 0;
    let ids = bytes.split(|byte| *byte == b'\n').filter_map(id_of);
    Ok(ids
        .filter(|id| {
            let rises = *id > highest;
            highest = highest.max(*id);
            !rises
        })
        .collect())
}

/// Gives such messages of both sides the numbers that follow those before them, and everything that names them as well: replies, retries,
/// the turn that was begun. Their lines as they were are copied to `SIDE.jsonl.corrupt`. Nobody may serve the session meanwhile.
///
/// # Errors
/// [`StoreError`]; what was written until then can be gone on from.
pub fn mend(dir: &Path) -> Result<(), StoreError> {
    let is_whole = |side| move |line: &[u8]| Message::parse(line, side).is_some();
    let inbox = Appender::open(&Side::Inbox.path(dir), is_whole(Side::Inbox))?;
    let outbox = Appender::open(&Side::Outbox.path(dir), is_whole(Side::Outbox))?;
    let questions = Lines::read(dir, Side::Inbox)?;
    let replies = Lines::read(dir, Side::Outbox)?;
    // The replies first: a question that a reply names is not asked again.
    replies.replace(dir, Side::Outbox, &questions.moved)?;
    questions.replace(dir, Side::Inbox, &questions.moved)?;
    if let Some(begun) = attempt::read(dir)
        && let Some(moved) = (questions.moved.iter()).find(|moved| moved.from == begun.message)
    {
        let message = moved.to;
        attempt::write(dir, &attempt::Attempt { message, ..begun })?;
    }
    drop((inbox, outbox));
    Ok(())
}

/// The lines of one side, and which of them get another number.
struct Lines {
    bytes: Vec<u8>,
    moved: Vec<Moved>,
    /// The number before the first that moves.
    before: u64,
}

impl Lines {
    fn read(dir: &Path, side: Side) -> Result<Self, StoreError> {
        let bytes = files::read(&side.path(dir))?.unwrap_or_default();
        let mut last = rotation::last_archived_id(dir, side)?;
        let (mut moved, mut before) = (Vec::new(), last);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(id) = id_of(line) else { continue };
            let stays = id <= HIGHEST_PLACE && (moved.is_empty() || id > last);
            if stays {
                last = last.max(id);
            } else {
                if moved.is_empty() {
                    before = last;
                }
                last += 1;
                let request_id = Message::parse(line, side).map(|message| message.request_id);
                moved.push(Moved {
                    from: id,
                    to: last,
                    request_id: request_id.unwrap_or_default(),
                });
            }
        }
        Ok(Self {
            bytes,
            moved,
            before,
        })
    }

    /// Writes the lines with their new numbers, and with those of the questions that they name.
    fn replace(&self, dir: &Path, side: Side, questions: &[Moved]) -> Result<(), StoreError> {
        let path = side.path(dir);
        let mut own = self.moved.iter().peekable();
        let (mut new, mut former) = (Vec::with_capacity(self.bytes.len()), Vec::new());
        for line in self.bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(mut fields) = serde_json::from_slice::<Fields>(line)
                .ok()
                .filter(|_| id_of(line).is_some())
            else {
                new.extend_from_slice(line);
                continue;
            };
            let request_id = fields.get("request_id");
            let request_id = request_id.as_ref().and_then(|id| id.as_str());
            let mut changed = false;
            for name in ["in_reply_to", "retry_of"] {
                let named = fields.get(name).and_then(|id| id.as_u64());
                // A retry has a name of its own.
                let by = request_id.filter(|_| name == "in_reply_to").unwrap_or("");
                if let Some(to) = named.and_then(|id| new_number(questions, id, by)) {
                    changed |= fields.set(name, &to);
                }
            }
            let id = id_of(line);
            if let Some(moved) = own.next_if(|moved| Some(moved.from) == id) {
                changed |= fields.set("id", &moved.to);
            }
            if changed {
                former.extend_from_slice(line);
                new.extend_from_slice(&json::line(&fields));
                new.push(b'\n');
            } else {
                new.extend_from_slice(line);
            }
        }
        if former.is_empty() {
            return Ok(());
        }
        keep(&files::with_suffix(&path, ".corrupt"), &former)?;
        files::replace_atomically(&path, &new)?;
        if !self.moved.is_empty() {
            // What was behind a cursor may be before it now: it is looked at again, and what has a reply is done.
            cursor::lower(dir, side, self.before)?;
        }
        Ok(())
    }
}

/// The number that a question has now which had this one and this name.
fn new_number(questions: &[Moved], from: u64, request_id: &str) -> Option<u64> {
    let is_it = |moved: &&Moved| {
        let named = !request_id.is_empty() && !moved.request_id.is_empty();
        moved.from == from
            && if named {
                moved.request_id == request_id
            } else {
                from > HIGHEST_PLACE
            }
    };
    questions.iter().find(is_it).map(|moved| moved.to)
}

/// Adds lines to a file that keeps them for a person.
fn keep(path: &Path, lines: &[u8]) -> Result<(), StoreError> {
    let mut kept = files::open(path, OpenOptions::new().append(true).create(true))?;
    kept.write_all(lines)
        .and_then(|()| kept.sync_data())
        .map_err(StoreError::io("write", path))
}
