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
use super::out_of_order::RENUMBERED_FROM;
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

/// What a reply says of its question's number before that got another.
pub(super) const FORMERLY_IN_REPLY_TO: &str = "formerly_in_reply_to";

/// Gives such messages of both sides the numbers that follow those before them, and everything that names them as well: replies, retries,
/// the turn that was begun. Their lines as they were are copied to `SIDE.jsonl.corrupt`. Nobody may serve the session meanwhile.
///
/// # Errors
/// [`StoreError`]; what was written until then can be gone on from, by this and by whoever answers.
pub fn mend(dir: &Path) -> Result<(), StoreError> {
    let is_whole = |side| move |line: &[u8]| Message::parse(line, side).is_some();
    let inbox = Appender::open(&Side::Inbox.path(dir), is_whole(Side::Inbox))?;
    let outbox = Appender::open(&Side::Outbox.path(dir), is_whole(Side::Outbox))?;
    let plan = Plan::new(dir)?;
    for step in STEPS {
        plan.take(step, dir)?;
    }
    drop((inbox, outbox));
    Ok(())
}

/// One write of a mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Keeps the lines as they were.
    Keep,
    /// What was behind a cursor may be before it later: it is looked at again, and what has a reply is done.
    Lower,
    /// The turn that was begun says both numbers of its message.
    Attempt,
    /// So do the replies: a question that a reply names is not asked again, whichever of the two it bears.
    Replies,
    Questions,
    /// The former number may be another message's now.
    Forget,
}

/// The questions after all that speaks of them: until then that says both numbers, so that a crash in between has nothing asked twice.
const STEPS: [Step; 6] = [
    Step::Keep,
    Step::Lower,
    Step::Attempt,
    Step::Replies,
    Step::Questions,
    Step::Forget,
];

/// What a mend is going to write.
struct Plan {
    questions: Lines,
    replies: Lines,
}

impl Plan {
    fn new(dir: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            questions: Lines::read(dir, Side::Inbox)?,
            replies: Lines::read(dir, Side::Outbox)?,
        })
    }

    fn take(&self, step: Step, dir: &Path) -> Result<(), StoreError> {
        let sides = [
            (&self.questions, Side::Inbox),
            (&self.replies, Side::Outbox),
        ];
        let renewed = |lines: &Lines| lines.renewed(&self.questions.moved);
        match step {
            Step::Keep => {
                for (lines, side) in sides {
                    let (_, former) = renewed(lines);
                    if !former.is_empty() {
                        keep(&files::with_suffix(&side.path(dir), ".corrupt"), &former)?;
                    }
                }
            }
            Step::Lower => {
                for (lines, side) in sides {
                    if !lines.moved.is_empty() {
                        cursor::lower(dir, side, lines.before)?;
                    }
                }
            }
            Step::Attempt => {
                // One that says both has the new one already.
                let begun = attempt::read(dir).filter(|begun| begun.formerly.is_none());
                if let Some(begun) = begun
                    && let Some(moved) =
                        (self.questions.moved.iter()).find(|moved| moved.from == begun.message)
                {
                    attempt::write(
                        dir,
                        &attempt::Attempt {
                            message: moved.to,
                            formerly: Some(moved.from),
                            ..begun
                        },
                    )?;
                }
            }
            Step::Replies => replace(dir, Side::Outbox, renewed(&self.replies))?,
            Step::Questions => replace(dir, Side::Inbox, renewed(&self.questions))?,
            Step::Forget => {
                if let Some(begun) = attempt::read(dir).filter(|begun| begun.formerly.is_some()) {
                    let formerly = None;
                    attempt::write(dir, &attempt::Attempt { formerly, ..begun })?;
                }
            }
        }
        Ok(())
    }
}

fn replace(dir: &Path, side: Side, (new, former): (Vec<u8>, Vec<u8>)) -> Result<(), StoreError> {
    if former.is_empty() {
        return Ok(());
    }
    files::replace_atomically(&side.path(dir), &new)
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
        let mut highest = last;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(id) = id_of(line) else { continue };
            if id <= highest {
                // Its number does not rise: whoever answers asks it under another one, or has done so.
                continue;
            }
            if id <= HIGHEST_PLACE {
                highest = id;
            }
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

    /// Returns the lines with their new numbers, and with those of the questions that they name, and the ones that change as they were.
    fn renewed(&self, questions: &[Moved]) -> (Vec<u8>, Vec<u8>) {
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
                // One that says both has the new one already.
                let named = named.filter(|_| fields.raw(FORMERLY_IN_REPLY_TO).is_none());
                // A retry has a name of its own.
                let by = request_id.filter(|_| name == "in_reply_to").unwrap_or("");
                if let Some(from) = named
                    && let Some(to) = new_number(questions, from, by)
                {
                    changed |= fields.set(name, &to);
                    if name == "in_reply_to" {
                        fields.set(FORMERLY_IN_REPLY_TO, &from);
                    }
                }
            }
            let id = id_of(line);
            if let Some(moved) = own.next_if(|moved| Some(moved.from) == id) {
                changed |= fields.set("id", &moved.to);
                // One that had another before goes on to say that one: by it, its first line is known.
                if moved.request_id.is_empty() && fields.raw(RENUMBERED_FROM).is_none() {
                    // By nothing else its reply can be told from that to a question which had this number until now.
                    fields.set(RENUMBERED_FROM, &moved.from);
                }
            }
            if changed {
                former.extend_from_slice(line);
                new.extend_from_slice(&json::line(&fields));
                new.push(b'\n');
            } else {
                new.extend_from_slice(line);
            }
        }
        (new, former)
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

#[cfg(test)]
mod tests {
    use super::super::messages::{self, Durability, NewMessage, Role};
    use super::*;
    use crate::clock;

    const NO_ROOM: u64 = u64::MAX;

    /// A session in which another tool left no room: one message before it is answered, what bears the highest number is answered or in
    /// its turn, and what came after it is not.
    fn session(answered: bool, name: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let line = |id: u64, name: &str, content: &str| {
            format!(
                "{{\"id\":{id},\"role\":\"user\",\"content\":\"{content}\",\"request_id\":\"{name}\"}}\n"
            )
        };
        let inbox = [
            line(1, "r1", "one"),
            line(NO_ROOM, name, "theirs"),
            line(2, "r2", "after"),
        ];
        std::fs::write(Side::Inbox.path(dir.path()), inbox.concat()).unwrap();
        let reply = |id: u64, name: &str| NewMessage {
            in_reply_to: Some(id),
            request_id: Some(name.to_owned()),
            ..NewMessage::new(Role::Coordinator, "!")
        };
        let answer = |reply| {
            messages::append(dir.path(), Side::Outbox, reply, Durability::NoSync).unwrap();
        };
        answer(reply(1, "r1"));
        if answered {
            answer(reply(NO_ROOM, name));
            messages::advance_handler_cursors(dir.path(), NO_ROOM).unwrap();
        } else {
            messages::advance_handler_cursors(dir.path(), 1).unwrap();
            let begun = attempt::Attempt {
                message: NO_ROOM,
                formerly: None,
                attempt: 1,
                started_at: clock::now(),
                pid: 1,
            };
            attempt::write(dir.path(), &begun).unwrap();
        }
        dir
    }

    #[test]
    fn a_mend_that_is_killed_between_any_two_writes_has_nothing_asked_twice_and_nothing_lost() {
        for (answered, name) in [(true, "t"), (true, ""), (false, "t"), (false, "")] {
            for killed_after in 0..=STEPS.len() {
                let session = session(answered, name);
                let dir = session.path();
                let case = format!("answered {answered}, name {name:?}, after {killed_after}");
                let waits = || -> Vec<String> {
                    let waiting = messages::unanswered(dir).unwrap();
                    waiting.into_iter().map(|message| message.content).collect()
                };
                let begun_is_known = || {
                    let waiting = messages::unanswered(dir).unwrap();
                    let theirs = waiting.iter().find(|message| message.content == "theirs");
                    let begun = attempt::read(dir);
                    theirs.is_none_or(|theirs| begun.is_some_and(|begun| begun.is_of(theirs.id)))
                };
                let plan = Plan::new(dir).unwrap();
                for step in &STEPS[..killed_after] {
                    plan.take(*step, dir).unwrap();
                }
                let mut expected = vec!["after".to_owned()];
                if !answered {
                    expected.push("theirs".to_owned());
                }
                let mut waiting = waits();
                waiting.sort();
                assert_eq!(waiting, expected, "{case}");
                assert!(begun_is_known(), "{case}");
                mend(dir).unwrap();
                let mut waiting = waits();
                waiting.sort();
                assert_eq!(waiting, expected, "{case}, mended");
                assert!(begun_is_known(), "{case}, mended");
                assert_eq!(too_high(dir, Side::Inbox).unwrap(), None, "{case}");
            }
        }
    }
}
