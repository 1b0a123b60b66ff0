//! How many messages of a chat wait, for lists that are asked for again and again: the files are read when they are others than they
//! were, and not otherwise.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;

use super::Daemon;
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::graph::ChatId;
use crate::store::messages::{self, Numbers};

/// A file that was changed this short a time ago may change again without looking any different: the clock of a file system may tick
/// as slowly as every two seconds.
const FRESH: Duration = Duration::from_secs(3);

/// What tells one state of a file from another: a change of the content moves at least one of these, and nobody can set the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None` if there is no such file.
    fn of(path: &Path) -> Option<Self> {
        let file = fs::symlink_metadata(path).ok()?;
        Some(Self {
            place: (file.dev(), file.ino()),
            length: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }

    /// Whether any later change will show.
    fn is_settled(&self, now: Timestamp) -> bool {
        let changed = self.changed.0.max(self.modified.0);
        now.since(Timestamp::from_millis(changed.saturating_mul(1000))) > FRESH
    }
}

/// A count, and the files that it was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    files: [Option<Stamp>; 3],
    unread: usize,
}

/// How many messages of the session in `dir` wait at `now`; `last` is what was counted before.
pub(super) fn count(
    dir: &Path,
    last: &mut Option<Counted>,
    now: Timestamp,
) -> Result<usize, StoreError> {
    // Before the reading: what changes meanwhile is another state than this.
    let files = messages::decides_what_waits(dir).map(|path| Stamp::of(&path));
    if let Some(last) = last.filter(|last| last.files == files) {
        return Ok(last.unread);
    }
    let unread = messages::unanswered(dir)?.len();
    let settled = files.iter().flatten().all(|file| file.is_settled(now));
    *last = settled.then_some(Counted { files, unread });
    Ok(unread)
}

/// The numbers in the inbox of each chat, as far as they were read.
pub(super) type Inboxes = Mutex<BTreeMap<ChatId, Numbers>>;

impl Daemon {
    /// Whether a message of the chat has no reply yet, one with a number that does not rise too.
    pub(super) fn is_waited_for(&self, chat: ChatId, dir: &Path) -> Result<bool, StoreError> {
        // Taken out meanwhile: nobody waits for the reading of another chat's inbox.
        let mut numbers = self.numbers.lock().remove(&chat).unwrap_or_default();
        let looked = numbers.look(dir);
        self.numbers.lock().insert(chat, numbers);
        looked?;
        Ok(messages::next_unanswered(dir)?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::store::messages::{Durability, NewMessage, Role, Side};

    fn ask(dir: &Path) {
        let message = NewMessage::new(Role::User, "hello");
        messages::append(dir, Side::Inbox, message, Durability::NoSync).unwrap();
    }

    /// As if the files had rested for a while.
    fn later() -> Timestamp {
        clock::now().plus(Duration::from_secs(60))
    }

    fn bytes_read() -> u64 {
        let text = fs::read_to_string("/proc/thread-self/io").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("rchar: "));
        line.unwrap().parse().unwrap()
    }

    #[test]
    fn what_did_not_change_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..200 {
            ask(dir.path());
        }
        let mut last = None;
        assert_eq!(count(dir.path(), &mut last, later()).unwrap(), 200);
        let before = bytes_read();
        for _ in 0..100 {
            assert_eq!(count(dir.path(), &mut last, later()).unwrap(), 200);
        }
        let read = bytes_read() - before;
        assert!(read < 10_000, "{read} bytes were read");
    }

    #[test]
    fn a_count_is_never_older_than_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let mut last = None;
        let mut counted = |now| count(dir, &mut last, now).unwrap();
        assert_eq!(counted(later()), 0);
        for number in 1..=20 {
            ask(dir);
            // Whether the clock has moved on since or not.
            for now in [clock::now(), later()] {
                assert_eq!(counted(now), number);
            }
        }
        let reply = NewMessage {
            in_reply_to: Some(1),
            ..NewMessage::new(Role::Coordinator, "hello")
        };
        messages::append(dir, Side::Outbox, reply, Durability::NoSync).unwrap();
        assert_eq!(counted(later()), 19);
        messages::advance_handler_cursors(dir, 10).unwrap();
        assert_eq!(counted(later()), 10);
        fs::remove_file(Side::Inbox.path(dir)).unwrap();
        assert_eq!(counted(later()), 0);
    }

    #[test]
    fn files_that_changed_a_moment_ago_are_read_again() {
        let dir = tempfile::tempdir().unwrap();
        ask(dir.path());
        let mut last = None;
        assert_eq!(count(dir.path(), &mut last, clock::now()).unwrap(), 1);
        assert_eq!(last, None, "the next change might not show");
        assert_eq!(count(dir.path(), &mut last, later()).unwrap(), 1);
        assert!(last.is_some());
    }
}
