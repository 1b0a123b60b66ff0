//! Appending to the messages of a session and reading them, in time that does not depend on how long the history is.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::cursor::{Cursor, read_cursor};
use super::files::Durability;
use super::jsonl::{Appender, LineFile, LinesBackwards};
use super::messages::{Message, NewMessage, Side, user};
use super::numbering::FORMERLY_IN_REPLY_TO;
use super::{StoreError, attempt, lock, out_of_order, registry, rotation};
use crate::clock;

/// Cursors beyond this are damage, not places: ids stay exact in every reader of JSON.
pub(super) const HIGHEST_PLACE: u64 = 1 << 53;

/// Only the id of a line.
#[derive(Deserialize)]
struct IdOnly {
    id: u64,
}

/// Returns the id of a line, if it has one.
pub(super) fn id_of(line: &[u8]) -> Option<u64> {
    serde_json::from_slice::<IdOnly>(line)
        .ok()
        .map(|record| record.id)
}

/// How far back a name that a sender gave is looked for, in bytes. More would make a message the dearer the longer its history.
const NAMES_IN: usize = 256 << 10;

/// Appends a message and returns its id. With [`Durability::Sync`] it is on disk then.
///
/// Several processes may append at once: ids are dense and rising. A torn last line is moved aside first. A question whose
/// `request_id` stands in the last 256 KiB of the inbox already is the same question, sent again by somebody who did not hear
/// that it was accepted: the id that it has is returned, and nothing is appended. A retry is a new question on purpose.
///
/// # Errors
/// [`StoreError`]; nothing was appended then. [`StoreError::OtherQuestion`] if that question says something else.
pub fn append(
    dir: &Path,
    side: Side,
    message: NewMessage,
    durability: Durability,
) -> Result<u64, StoreError> {
    append_within(dir, side, message, durability, lock::PATIENCE)
}

/// As [`append`], with the time given to wait for the file's lock.
///
/// # Errors
/// As [`append`]; [`StoreError::Busy`] when the time is over.
pub fn append_within(
    dir: &Path,
    side: Side,
    message: NewMessage,
    durability: Durability,
    patience: Duration,
) -> Result<u64, StoreError> {
    let path = side.path(dir);
    let is_whole = |line: &[u8]| Message::parse(line, side).is_some();
    let mut file = Appender::open_within(&path, patience, is_whole)?;
    let in_file = file
        .lines_backwards()
        .find(id_of)
        .map_err(StoreError::io("read", &path))?;
    let last = match in_file {
        Some(id) => id,
        None => rotation::last_archived_id(dir, side)?,
    };
    let mut last = last.max(highest_place(dir, side));
    if side == Side::Inbox {
        let name = message.request_id.as_deref();
        let name = name.filter(|_| message.retry_of.is_none());
        let recent = recent(file.lines_backwards(), name).map_err(StoreError::io("read", &path))?;
        if let Some((id, content)) = recent.named {
            if content != message.content {
                let name = name.unwrap_or_default().to_owned();
                return Err(StoreError::OtherQuestion { name, id });
            }
            return Ok(id);
        }
        last = last.max(recent.highest);
    }
    let id = last.checked_add(1).ok_or_else(|| StoreError::Corrupt {
        path: path.clone(),
        line: 0,
        reason: "its last message has the highest number there can be, and none can follow"
            .to_owned(),
    })?;
    let timestamp = clock::now();
    let request_id = match message.request_id {
        Some(request_id) => request_id,
        // A made-up one would tell the reply and its message apart.
        None if message.in_reply_to.is_some() => String::new(),
        None => format!("chat-{}-{}", timestamp.millis(), registry::nonce()?),
    };
    let line = Message {
        id,
        timestamp,
        role: message.role,
        content: message.content,
        request_id,
        user: message.user.unwrap_or_else(user),
        in_reply_to: message.in_reply_to,
        retry_of: message.retry_of,
        turn: message.turn,
        extra: message.extra,
    };
    file.append(&line.format(), durability)?;
    Ok(id)
}

/// What the last questions say about the next one.
#[derive(Default)]
struct Recent {
    /// The highest number among them: another tool's line behind it may have a lower one.
    highest: u64,
    /// The latest with the name that was looked for: its number, and what it says.
    named: Option<(u64, String)>,
}

/// Looks at the last questions, for one with this name.
fn recent(mut lines: LinesBackwards<'_>, name: Option<&str>) -> std::io::Result<Recent> {
    #[derive(Deserialize)]
    struct Named<'a> {
        id: u64,
        #[serde(borrow, default)]
        request_id: Cow<'a, str>,
        #[serde(borrow, default)]
        content: Cow<'a, str>,
    }
    let mut recent = Recent::default();
    let mut looked_at = 0;
    while looked_at < NAMES_IN
        && let Some(line) = lines.next_line()?
    {
        looked_at += line.len();
        let id = match serde_json::from_slice::<Named<'_>>(&line) {
            Ok(found) if name == Some(&found.request_id) => {
                recent.named = Some((found.id, found.content.into_owned()));
                break;
            }
            Ok(found) => Some(found.id),
            Err(_) => id_of(&line),
        };
        let usable = id.filter(|id| *id <= HIGHEST_PLACE);
        recent.highest = recent.highest.max(usable.unwrap_or(0));
    }
    Ok(recent)
}

/// Returns the highest id that a reader has seen or is about to answer: a file that was emptied behind our back must not start again
/// below it.
pub(super) fn highest_place(dir: &Path, side: Side) -> u64 {
    let cursors: &[Cursor] = match side {
        Side::Inbox => &[Cursor::Nex, Cursor::Coordinator],
        Side::Outbox => &[Cursor::Consumer],
    };
    let places = cursors
        .iter()
        .filter_map(|cursor| read_cursor(dir, *cursor).ok());
    let in_turn = match side {
        Side::Inbox => attempt::read(dir).map(|attempt| attempt.message),
        Side::Outbox => None,
    };
    places
        .chain(in_turn)
        .filter(|place| *place <= HIGHEST_PLACE)
        .max()
        .unwrap_or(0)
}

/// Returns the highest id of the last lines of a file: another tool's may not rise.
pub(super) fn highest_recent_id_of(path: &Path) -> Result<Option<u64>, StoreError> {
    const LINES: u32 = 50;
    let Some(file) = LineFile::open(path)? else {
        return Ok(None);
    };
    let (mut highest, mut looked_at) = (None, 0);
    file.find_backwards(|line| {
        highest = highest.max(id_of(line));
        looked_at += 1;
        (looked_at == LINES).then_some(())
    })?;
    Ok(highest)
}

/// Returns the id of the last line of a file that has one.
pub(super) fn last_id_of(path: &Path) -> Result<Option<u64>, StoreError> {
    match LineFile::open(path)? {
        Some(file) => file.find_backwards(id_of),
        None => Ok(None),
    }
}

/// Returns the id of the last message, 0 if there is none.
///
/// # Errors
/// [`StoreError`].
pub fn last_id(dir: &Path, side: Side) -> Result<u64, StoreError> {
    if is_out_of_order(dir, side) {
        return out_of_order::highest(dir);
    }
    match last_id_of(&side.path(dir))? {
        // A cursor beyond it may be that of another file, or another tool's line came last under a number that does not rise.
        Some(id) if side == Side::Inbox && id < read_cursor(dir, Cursor::Nex)? => {
            Ok(out_of_order::highest(dir)?.max(id))
        }
        Some(id) => Ok(id),
        None => rotation::last_archived_id(dir, side),
    }
}

/// Whether the numbers of this side are known not to rise, so that nothing can be found by them.
fn is_out_of_order(dir: &Path, side: Side) -> bool {
    side == Side::Inbox && out_of_order::is_marked(dir)
}

/// Messages, and how many lines were none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Read {
    /// The messages in the order of their ids.
    pub messages: Vec<Message>,
    /// How many complete lines could not be read as messages.
    pub bad_lines: usize,
}

/// Reads the messages with ids over `after`, over rotated files too; what lies before them is not read.
///
/// # Errors
/// [`StoreError`]; a line that is no message is counted, never an error.
pub fn read_after(dir: &Path, side: Side, after: u64) -> Result<Read, StoreError> {
    collect(dir, side, after.saturating_add(1), |message, _| {
        message.id > after
    })
}

/// Reads the last `count` messages, over rotated files too.
///
/// # Errors
/// As [`read_after`].
pub fn read_last(dir: &Path, side: Side, count: usize) -> Result<Read, StoreError> {
    collect(dir, side, 1, |_, already| already < count)
}

/// Collects messages from the last to the first for as long as `wanted` says so, over rotated files as far back as the id `first`,
/// and returns them in order.
fn collect(
    dir: &Path,
    side: Side,
    first: u64,
    wanted: impl Fn(&Message, usize) -> bool,
) -> Result<Read, StoreError> {
    let mut read = Read::default();
    // Behind one that is not wanted there may be others that are.
    let goes_on = is_out_of_order(dir, side);
    if collect_file(&side.path(dir), side, &mut read, goes_on, &wanted)? {
        collect_archived(dir, side, first, &mut read, &wanted)?;
    }
    read.messages.reverse();
    read.messages.sort_by_key(|message| message.id);
    out_of_order::without_repeated(&mut read.messages);
    Ok(read)
}

/// Goes on into rotated files, as far back as the id `first`.
pub(super) fn collect_archived(
    dir: &Path,
    side: Side,
    first: u64,
    read: &mut Read,
    wanted: &impl Fn(&Message, usize) -> bool,
) -> Result<(), StoreError> {
    let mut more = true;
    // What was read last is the earliest so far.
    let earliest = |read: &Read| read.messages.last().map_or(u64::MAX, |message| message.id);
    while more && earliest(read) > first {
        let before = earliest(read);
        more = match rotation::archive_before(dir, side, before)? {
            // Further back each time: numbers that do not rise are no way round in a circle.
            Some(archive) => {
                collect_file(&archive, side, read, false, wanted)? && earliest(read) < before
            }
            None => false,
        };
    }
    Ok(())
}

/// Collects messages of one file, the last first; `false` once `wanted` said no, unless it `goes_on` then.
fn collect_file(
    path: &Path,
    side: Side,
    read: &mut Read,
    goes_on: bool,
    wanted: &impl Fn(&Message, usize) -> bool,
) -> Result<bool, StoreError> {
    let Some(file) = LineFile::open(path)? else {
        return Ok(true);
    };
    let enough = file.find_backwards(|line| {
        match Message::parse(line, side) {
            Some(message) if wanted(&message, read.messages.len()) => read.messages.push(message),
            Some(_) if goes_on => {}
            Some(_) => return Some(()),
            None if line.trim_ascii().is_empty() => {}
            None => read.bad_lines += 1,
        }
        None
    })?;
    Ok(enough.is_none())
}

/// A reader that returns each message once, as it is appended.
#[derive(Debug)]
pub struct Tail {
    dir: PathBuf,
    side: Side,
    last_id: u64,
}

impl Tail {
    /// Starts after the message `after`; 0 for all of them.
    #[must_use]
    pub fn new(dir: &Path, side: Side, after: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            side,
            last_id: after,
        }
    }

    /// Returns what was appended since the last call. Only that is read.
    ///
    /// # Errors
    /// As [`read_after`].
    pub fn read_new(&mut self) -> Result<Vec<Message>, StoreError> {
        if last_id(&self.dir, self.side)? < self.last_id {
            // The earlier tool's rotation starts again at 1: everything in that file is new.
            self.last_id = 0;
        }
        let messages = read_after(&self.dir, self.side, self.last_id)?.messages;
        if let Some(last) = messages.last() {
            self.last_id = last.id;
        }
        Ok(messages)
    }
}

/// Returns the inbox messages that have no reply yet, in order.
///
/// Only what is after the handler's cursor is read. A message is answered if a line of the outbox names it in `in_reply_to` or, where the
/// earlier tool wrote it, bears its request id.
///
/// # Errors
/// [`StoreError`].
pub fn unanswered(dir: &Path) -> Result<Vec<Message>, StoreError> {
    if out_of_order::is_marked(dir) {
        return out_of_order::unanswered(dir);
    }
    let mut cursor = read_cursor(dir, Cursor::Nex)?;
    if cursor > last_id(dir, Side::Inbox)? {
        // The earlier tool's rotation starts again at 1 and leaves the cursor where it was: it says nothing about this file.
        cursor = 0;
    }
    let mut waiting = read_after(dir, Side::Inbox, cursor)?.messages;
    without_answered(dir, cursor, &mut waiting)?;
    Ok(waiting)
}

/// Leaves out those messages after the cursor that have a reply.
pub(super) fn without_answered(
    dir: &Path,
    cursor: u64,
    waiting: &mut Vec<Message>,
) -> Result<(), StoreError> {
    if !waiting.is_empty() {
        // The reply to one that leaves no room stands among those to lower numbers.
        let is_too_high = |message: &Message| message.id > HIGHEST_PLACE;
        let after = if waiting.iter().any(is_too_high) {
            0
        } else {
            cursor
        };
        let replies = replies_after(dir, after)?;
        waiting.retain(|message| !replies.iter().any(|reply| answers(reply, message)));
    }
    Ok(())
}

/// Returns the files that decide what has no reply: while they stay as they are, so does [`unanswered`].
///
/// The archive is not among them: what moves there, or is removed there, leaves a trace in one of these.
#[must_use]
pub fn decides_what_waits(dir: &Path) -> [PathBuf; 3] {
    [
        Side::Inbox.path(dir),
        Side::Outbox.path(dir),
        Cursor::Nex.path(dir),
    ]
}

/// Returns the replies to messages after the cursor.
fn replies_after(dir: &Path, cursor: u64) -> Result<Vec<Message>, StoreError> {
    // Replies come in the order of the messages: what is before the reply to one at or below the cursor answers none of these.
    let recent = |reply: &Message, _| reply.in_reply_to.is_none_or(|id| id > cursor);
    // One that is at or below it is almost always the last line; only a cursor that was lost leads into the archive.
    Ok(collect(dir, Side::Outbox, 1, recent)?.messages)
}

/// Returns the first inbox message that has no reply yet, at a cost that does not grow with how many wait behind it.
///
/// # Errors
/// As [`unanswered`].
pub fn next_unanswered(dir: &Path) -> Result<Option<Message>, StoreError> {
    let cursor = read_cursor(dir, Cursor::Nex)?;
    if !out_of_order::is_marked(dir) && cursor < last_id(dir, Side::Inbox)? {
        let next = in_file(dir, Side::Inbox, cursor + 1)?;
        if let Some(next) = next
            && !has_reply(dir, &next, cursor)?
        {
            return Ok(Some(next));
        }
    }
    // The cursor is behind, or says nothing, or nobody waits.
    Ok(unanswered(dir)?.into_iter().next())
}

/// Returns the inbox message with this number, if it has no reply yet.
///
/// # Errors
/// As [`unanswered`].
pub fn find_unanswered(dir: &Path, id: u64) -> Result<Option<Message>, StoreError> {
    let next = next_unanswered(dir)?;
    if next.as_ref().is_none_or(|message| message.id == id) {
        return Ok(next);
    }
    let waiting = unanswered(dir)?;
    Ok(waiting.into_iter().find(|message| message.id == id))
}

/// Returns the message with this number from the file that is written to, whose numbers rise.
pub(super) fn in_file(dir: &Path, side: Side, id: u64) -> Result<Option<Message>, StoreError> {
    if is_out_of_order(dir, side) {
        return out_of_order::in_file(dir, id);
    }
    let path = side.path(dir);
    let Some(file) = LineFile::open(&path)? else {
        return Ok(None);
    };
    let line = file.find_rising(|line| Some(id_of(line)?.cmp(&id)))?;
    Ok(line.and_then(|line| Message::parse(&line, side)))
}

/// Whether a line of the outbox answers this message.
fn has_reply(dir: &Path, message: &Message, cursor: u64) -> Result<bool, StoreError> {
    let replies = replies_after(dir, cursor)?;
    Ok(replies.iter().any(|reply| answers(reply, message)))
}

/// Whether a line of the outbox is the reply to a message.
fn answers(reply: &Message, message: &Message) -> bool {
    let named = !message.request_id.is_empty() && reply.request_id == message.request_id;
    let Some(id) = reply.in_reply_to else {
        return named;
    };
    // The number alone may be that of another message, from before the earlier tool started again at 1.
    let may_be = named || reply.request_id.is_empty() || message.request_id.is_empty();
    let formerly = reply
        .extra
        .get(FORMERLY_IN_REPLY_TO)
        .and_then(Value::as_u64);
    if formerly.is_none() || named {
        return may_be && (id == message.id || formerly == Some(message.id));
    }
    // Without a name, and renumbered: only those that left no room are known by their former number.
    let sure = message.id > HIGHEST_PLACE || out_of_order::renumbered_from(message) == formerly;
    may_be && sure && (id == message.id || formerly == Some(message.id))
}
