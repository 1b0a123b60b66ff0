//! Questions whose number does not rise, as only another tool writes them: one that does not take the lock, or that counts in its own way.
//!
//! Whoever answers goes by the numbers and would pass such a question over. So its line is appended once more, under the number after the
//! highest, with `renumbered_from`; the line that is there stays as it is, because another tool may be appending at this very moment. Who
//! reads the inbox takes the second line for the first one.
//!
//! A long history is not read for a message: [`Numbers`] reads what was appended since it last looked, and leaves a mark beside an inbox
//! whose numbers do not rise. Only such a one is read in full.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::cursor::{Cursor, read_cursor};
use super::fields::Fields;
use super::files::{self, Durability};
use super::jsonl::{Appender, LineFile};
use super::message_log::{self, HIGHEST_PLACE, Read, highest_place, id_of};
use super::messages::{Message, Side};
use super::{StoreError, json, rotation};

/// The number that a question had before it got one that rises.
pub const RENUMBERED_FROM: &str = "renumbered_from";

/// Which questions get a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those behind the one up to which everything is done. What another tool has passed over before stays passed over.
    Arrived,
    /// Every one that has no reply.
    All,
}

/// The numbers of an inbox as far as it has been read.
#[derive(Debug, Default)]
pub struct Numbers {
    file: (u64, u64),
    read: u64,
    /// The last bytes that were read: others there now are another file's.
    last: Vec<u8>,
    highest: u64,
}

impl Numbers {
    /// Reads what was appended since the last look, and returns whether a number there did not rise. The inbox is marked then.
    ///
    /// # Errors
    /// [`StoreError`]; the next look reads the same again.
    pub fn look(&mut self, dir: &Path) -> Result<bool, StoreError> {
        let path = Side::Inbox.path(dir);
        let Some(file) = files::open_to_read(&path)? else {
            *self = Self::default();
            return Ok(false);
        };
        let failed = StoreError::io("read", &path);
        let rise = self.read_on(file).map_err(failed)?;
        let (next, rises) = rise;
        if !rises {
            // Before it is known: a look that follows an error finds it again.
            mark(dir)?;
        }
        *self = next;
        Ok(!rises)
    }

    /// Returns what is known after the lines that follow, and whether all their numbers rise.
    fn read_on(&self, file: File) -> std::io::Result<(Self, bool)> {
        const KEPT: usize = 32;
        let metadata = file.metadata()?;
        let place = (metadata.dev(), metadata.ino());
        let goes_on = self.file == place && metadata.len() >= self.read && {
            let mut there = vec![0; self.last.len()];
            file.read_exact_at(&mut there, self.read - self.last.len() as u64)?;
            there == self.last
        };
        let mut next = Self {
            file: place,
            ..Self::default()
        };
        if goes_on {
            next.read = self.read;
            next.last.clone_from(&self.last);
            next.highest = self.highest;
        }
        let mut rises = true;
        let mut lines = BufReader::with_capacity(64 << 10, file);
        lines.seek(SeekFrom::Start(next.read))?;
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            next.read += line.len() as u64;
            next.last.clear();
            next.last
                .extend_from_slice(&line[line.len().saturating_sub(KEPT)..]);
            if let Some(id) = quick_id(&line).filter(|id| *id <= HIGHEST_PLACE) {
                rises &= id > next.highest;
                next.highest = next.highest.max(id);
            }
            line.clear();
        }
        Ok((next, rises))
    }
}

/// Returns the number of a line; for one as both tools write them without reading it all.
fn quick_id(line: &[u8]) -> Option<u64> {
    let digits = line.strip_prefix(br#"{"id":"#);
    let digits = digits.and_then(|rest| rest.split(|byte| *byte == b',').next());
    let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    number.or_else(|| id_of(line))
}

fn mark_path(dir: &Path) -> PathBuf {
    files::with_suffix(&Side::Inbox.path(dir), ".out-of-order")
}

/// Whether the inbox is known to have numbers that do not rise.
pub(super) fn is_marked(dir: &Path) -> bool {
    fs::symlink_metadata(mark_path(dir)).is_ok()
}

fn mark(dir: &Path) -> Result<(), StoreError> {
    match files::create_exclusively(&mark_path(dir), b"") {
        Err(StoreError::AlreadyExists { .. }) => Ok(()),
        made => made,
    }
}

/// Removes the mark: all numbers rise now. The lock of the inbox is the caller's.
pub(super) fn unmark(dir: &Path) {
    if is_marked(dir)
        && let Err(error) = fs::remove_file(mark_path(dir))
    {
        log::debug!("an inbox is read in full although its numbers rise: {error}");
    }
}

/// A line of an inbox that has a number.
struct Line<'a> {
    id: u64,
    begin: usize,
    bytes: &'a [u8],
    rises: bool,
}

/// The lines of an inbox that have a number. One that leaves no room after it is no measure for those behind it.
struct Lines<'a> {
    lines: Vec<Line<'a>>,
    highest: u64,
}

impl<'a> Lines<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let (mut lines, mut highest, mut begin) = (Vec::new(), 0, 0);
        for whole in bytes.split_inclusive(|byte| *byte == b'\n') {
            let line = whole.strip_suffix(b"\n");
            if let Some(bytes) = line
                && let Some(id) = id_of(bytes)
            {
                lines.push(Line {
                    id,
                    begin,
                    bytes,
                    rises: id > highest,
                });
                if id <= HIGHEST_PLACE {
                    highest = highest.max(id);
                }
            }
            begin += whole.len();
        }
        Self { lines, highest }
    }

    fn rising(&self) -> impl DoubleEndedIterator<Item = &Line<'a>> {
        self.lines.iter().filter(|line| line.rises)
    }

    /// Returns the place of the handler in this file; 0 if it is that of another.
    fn cursor(&self, dir: &Path) -> Result<u64, StoreError> {
        let cursor = read_cursor(dir, Cursor::Nex)?;
        Ok(if cursor > self.highest { 0 } else { cursor })
    }
}

fn parse(line: &[u8]) -> Option<Message> {
    Message::parse(line, Side::Inbox)
}

/// Returns the highest number of a marked inbox, 0 if it has none.
pub(super) fn highest(dir: &Path) -> Result<u64, StoreError> {
    let bytes = files::read(&Side::Inbox.path(dir))?.unwrap_or_default();
    Ok(Lines::of(&bytes).highest)
}

/// Returns the message of a marked inbox that whoever goes by the numbers finds under this one.
pub(super) fn in_file(dir: &Path, id: u64) -> Result<Option<Message>, StoreError> {
    let bytes = files::read(&Side::Inbox.path(dir))?.unwrap_or_default();
    let lines = Lines::of(&bytes);
    let line = lines.rising().find(|line| line.id == id);
    Ok(line.and_then(|line| parse(line.bytes)))
}

/// Returns the questions of a marked inbox that have no reply, each under the number under which it is or will be asked.
pub(super) fn unanswered(dir: &Path) -> Result<Vec<Message>, StoreError> {
    let bytes = files::read(&Side::Inbox.path(dir))?.unwrap_or_default();
    let lines = Lines::of(&bytes);
    let cursor = lines.cursor(dir)?;
    let later = lines.rising().rev().filter(|line| line.id > cursor);
    let mut read = Read {
        messages: later.filter_map(|line| parse(line.bytes)).collect(),
        bad_lines: 0,
    };
    let waits = |message: &Message, _| message.id > cursor;
    message_log::collect_archived(dir, Side::Inbox, cursor + 1, &mut read, &waits)?;
    let mut waiting = read.messages;
    waiting.sort_by_key(|message| message.id);
    message_log::without_answered(dir, cursor, &mut waiting)?;
    let renumbered = to_renumber(dir, &lines, Which::Arrived)?;
    waiting.extend(renumbered.into_iter().map(|question| question.message));
    Ok(waiting)
}

/// A question that has no reply, and whose number does not rise.
struct Question<'a> {
    line: &'a [u8],
    from: u64,
    /// As it will be asked.
    message: Message,
}

/// Returns the numbers of the questions that wait although theirs do not rise.
///
/// # Errors
/// [`StoreError`].
pub fn passed_over(dir: &Path) -> Result<Vec<u64>, StoreError> {
    let bytes = files::read(&Side::Inbox.path(dir))?.unwrap_or_default();
    let waiting = to_renumber(dir, &Lines::of(&bytes), Which::All)?;
    Ok(waiting.iter().map(|question| question.from).collect())
}

/// Appends the questions that wait although their numbers do not rise once more, under numbers that do, and returns how many these were.
///
/// # Errors
/// [`StoreError`]; those that were appended until then are not appended again.
pub fn renumber(dir: &Path, which: Which) -> Result<usize, StoreError> {
    let path = Side::Inbox.path(dir);
    let mut inbox = Appender::open(&path, |line| parse(line).is_some())?;
    let bytes = files::read(&path)?.unwrap_or_default();
    let questions = to_renumber(dir, &Lines::of(&bytes), which)?;
    if !questions.is_empty() {
        mark(dir)?;
    }
    for question in &questions {
        let unreadable = |error| StoreError::io("read", &path)(std::io::Error::other(error));
        let mut fields: Fields = serde_json::from_slice(question.line).map_err(unreadable)?;
        fields.set("id", &question.message.id);
        fields.set(RENUMBERED_FROM, &question.from);
        inbox.append(&json::line(&fields), Durability::Sync)?;
        log::info!(
            "message {} of `{}` came behind one with the same or a higher number; it is asked as {}",
            question.from,
            path.display(),
            question.message.id
        );
    }
    Ok(questions.len())
}

/// Whether a question among these lines waits for a number that rises.
pub(super) fn waits(dir: &Path, bytes: &[u8]) -> Result<bool, StoreError> {
    Ok(!to_renumber(dir, &Lines::of(bytes), Which::Arrived)?.is_empty())
}

/// Whether all numbers of these lines rise.
pub(super) fn rise(bytes: &[u8]) -> bool {
    Lines::of(bytes).lines.iter().all(|line| line.rises)
}

fn to_renumber<'a>(
    dir: &Path,
    lines: &Lines<'a>,
    which: Which,
) -> Result<Vec<Question<'a>>, StoreError> {
    let from = match which {
        Which::All => 0,
        Which::Arrived => {
            let cursor = lines.cursor(dir)?;
            let stands = lines.rising().find(|line| line.id == cursor);
            stands.map_or(0, |line| line.begin)
        }
    };
    let mut strays: Vec<(&Line<'_>, Message)> = (lines.lines.iter())
        .filter(|line| !line.rises)
        .filter_map(|line| Some((line, parse(line.bytes)?)))
        .collect();
    if strays.is_empty() {
        return Ok(Vec::new());
    }
    // Each line that has come again stands for one that was there, of several alike for the first.
    let mut again = counted(lines.lines.iter().filter_map(|line| again_of(line.bytes)));
    strays.retain(|(_, message)| !take(&mut again, &key(message.id, message)));
    strays.retain(|(line, _)| line.begin >= from);
    if strays.is_empty() {
        return Ok(Vec::new());
    }
    let done = answered(dir, lines, &strays)?;
    strays.retain(|(line, _)| !done.contains(&line.begin));
    let archived = rotation::last_archived_id(dir, Side::Inbox)?;
    let highest = lines
        .highest
        .max(highest_place(dir, Side::Inbox))
        .max(archived);
    let numbered = strays.into_iter().zip(highest + 1..);
    let question = |((line, message), id): ((&Line<'a>, Message), u64)| {
        let mut message = Message { id, ..message };
        let from = serde_json::Value::from(line.id);
        message.extra.insert(RENUMBERED_FROM.to_owned(), from);
        Question {
            line: line.bytes,
            from: line.id,
            message,
        }
    };
    Ok(numbered.map(question).collect())
}

/// What tells a question from the others; nobody writes two of them in the same nanosecond.
type Key = (u64, String, String, String);

fn key(id: u64, message: &Message) -> Key {
    let time = message.timestamp.format();
    let (name, content) = (message.request_id.clone(), message.content.clone());
    (id, time, name, content)
}

/// Returns the key of the question that this line repeats, if it repeats one.
fn again_of(line: &[u8]) -> Option<Key> {
    let message = parse(line)?;
    Some(key(renumbered_from(&message)?, &message))
}

/// Returns the number that a question had before.
pub(super) fn renumbered_from(message: &Message) -> Option<u64> {
    message.extra.get(RENUMBERED_FROM)?.as_u64()
}

fn counted(keys: impl Iterator<Item = Key>) -> HashMap<Key, usize> {
    let mut counted = HashMap::new();
    for key in keys {
        *counted.entry(key).or_default() += 1;
    }
    counted
}

fn take(counted: &mut HashMap<Key, usize>, key: &Key) -> bool {
    match counted.get_mut(key) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        Some(_) | None => false,
    }
}

/// Leaves out the lines that have come again under another number.
pub(super) fn without_repeated(messages: &mut Vec<Message>) {
    let again = messages
        .iter()
        .filter_map(|message| Some(key(renumbered_from(message)?, message)));
    let mut again = counted(again);
    if !again.is_empty() {
        messages.retain(|message| !take(&mut again, &key(message.id, message)));
    }
}

/// Returns the places of those lines that have a reply. Many lines may have one number, so each reply is given to one of them: to the one
/// that bears its name, else to the first that may be meant.
fn answered(
    dir: &Path,
    lines: &Lines<'_>,
    strays: &[(&Line<'_>, Message)],
) -> Result<BTreeSet<usize>, StoreError> {
    struct Asked {
        id: u64,
        name: String,
        begin: Option<usize>,
        has_reply: bool,
    }
    let ids: BTreeSet<u64> = strays.iter().map(|(line, _)| line.id).collect();
    let asked = |message: Message, begin| Asked {
        id: message.id,
        name: message.request_id,
        begin,
        has_reply: false,
    };
    // What a crash left in the archive and in the file is one line.
    let here: BTreeSet<&[u8]> = lines.lines.iter().map(|line| line.bytes).collect();
    let mut all: Vec<Asked> = Vec::new();
    for path in rotation::archived(dir, Side::Inbox)? {
        each_line(&path, |line| {
            let message = parse(line).filter(|message| ids.contains(&message.id));
            all.extend(
                message
                    .filter(|_| !here.contains(line))
                    .map(|message| asked(message, None)),
            );
        })?;
    }
    // A file is read from its end.
    all.reverse();
    let in_file = lines.lines.iter().filter(|line| ids.contains(&line.id));
    all.extend(in_file.filter_map(|line| Some(asked(parse(line.bytes)?, Some(line.begin)))));

    let mut vague = Vec::new();
    let mut replies = rotation::archived(dir, Side::Outbox)?;
    replies.push(Side::Outbox.path(dir));
    for path in replies {
        each_line(&path, |line| {
            let Some(reply) = Message::parse(line, Side::Outbox) else {
                return;
            };
            let named = |asked: &&mut Asked| {
                !asked.name.is_empty() && asked.name == reply.request_id && !asked.has_reply
            };
            let Some(id) = reply.in_reply_to else {
                // The earlier tool goes by the name alone.
                for asked in all.iter_mut().filter(named) {
                    asked.has_reply = true;
                }
                return;
            };
            match all.iter_mut().filter(named).find(|asked| asked.id == id) {
                Some(asked) => asked.has_reply = true,
                None if ids.contains(&id) => vague.push((id, reply.request_id)),
                None => {}
            }
        })?;
    }
    for (id, name) in vague {
        let may_be = |asked: &Asked| asked.id == id && !asked.has_reply;
        // Rather one that has no name, even where the reply has none.
        let nameless = |asked: &Asked| may_be(asked) && asked.name.is_empty();
        let found = match all.iter().position(nameless) {
            None if name.is_empty() => all.iter().position(may_be),
            found => found,
        };
        if let Some(asked) = found.and_then(|at| all.get_mut(at)) {
            asked.has_reply = true;
        }
    }
    let done = all.iter().filter(|asked| asked.has_reply);
    Ok(done.filter_map(|asked| asked.begin).collect())
}

fn each_line(path: &Path, mut look: impl FnMut(&[u8])) -> Result<(), StoreError> {
    let Some(file) = LineFile::open(path)? else {
        return Ok(());
    };
    file.find_backwards(|line| {
        look(line);
        None::<()>
    })?;
    Ok(())
}
