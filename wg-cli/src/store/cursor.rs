//! How far the readers of a session have come.

use std::path::{Path, PathBuf};

use super::StoreError;
use super::files::{self, Durability};
use super::message_log::{in_file, last_id};
use super::messages::{Message, Side};

/// Whose place in which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cursor {
    /// A reader's place in the outbox.
    Consumer,
    /// The handler's place in the inbox.
    Nex,
    /// The same, where the earlier tool's daemon looks for it.
    Coordinator,
}

impl Cursor {
    pub(super) fn path(self, dir: &Path) -> PathBuf {
        dir.join(match self {
            Self::Consumer => ".cursor",
            Self::Nex => ".nex-cursor",
            Self::Coordinator => ".coordinator-cursor",
        })
    }

    /// Returns the side file under whose lock it moves: that of the messages it counts.
    fn lock_path(self, dir: &Path) -> PathBuf {
        files::with_suffix(&self.side().path(dir), ".lock")
    }

    /// Returns which messages it counts.
    const fn side(self) -> Side {
        match self {
            Self::Consumer => Side::Outbox,
            Self::Nex | Self::Coordinator => Side::Inbox,
        }
    }
}

/// Returns the id up to which everything is done; 0 if there is no cursor or none that can be read.
///
/// # Errors
/// [`StoreError::NotARegularFile`], [`StoreError::Io`].
pub fn read_cursor(dir: &Path, cursor: Cursor) -> Result<u64, StoreError> {
    let path = cursor.path(dir);
    let Some(bytes) = files::read(&path)? else {
        return Ok(0);
    };
    let parsed = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    if parsed.is_none() {
        log::warn!(
            "`{}` holds no number; everything is looked at again",
            path.display()
        );
    }
    Ok(parsed.unwrap_or(0))
}

/// Moves a cursor on to `id`. It never moves back, unless it is beyond the last message: then it was that of another file.
///
/// # Errors
/// [`StoreError`].
pub fn advance_cursor(dir: &Path, cursor: Cursor, id: u64) -> Result<(), StoreError> {
    files::locked(&cursor.lock_path(dir), || advance(dir, cursor, id))
}

/// Moves both cursors of the handler on to `id`.
///
/// # Errors
/// [`StoreError`].
pub fn advance_handler_cursors(dir: &Path, id: u64) -> Result<(), StoreError> {
    files::locked(&Cursor::Nex.lock_path(dir), || {
        advance(dir, Cursor::Nex, id)?;
        advance(dir, Cursor::Coordinator, id)
    })
}

/// Moves both cursors of the handler past a message that is answered.
///
/// Where somebody removed the inbox meanwhile and another message has that number now, they stay: that one is not answered.
///
/// # Errors
/// [`StoreError`].
pub fn advance_past(dir: &Path, answered: &Message) -> Result<(), StoreError> {
    files::locked(&Cursor::Nex.lock_path(dir), || {
        let there = in_file(dir, Side::Inbox, answered.id)?;
        if there.is_some_and(|there| there.request_id != answered.request_id) {
            log::warn!(
                "`{}` was replaced while message {} was answered",
                Side::Inbox.path(dir).display(),
                answered.id
            );
            return Ok(());
        }
        advance(dir, Cursor::Nex, answered.id)?;
        advance(dir, Cursor::Coordinator, answered.id)
    })
}

/// Moves the cursors of a side back to `id` where they are beyond it. The lock of that side is the caller's.
pub(super) fn lower(dir: &Path, side: Side, id: u64) -> Result<(), StoreError> {
    for cursor in [Cursor::Consumer, Cursor::Nex, Cursor::Coordinator] {
        if cursor.side() == side && read_cursor(dir, cursor)? > id {
            write(dir, cursor, id)?;
        }
    }
    Ok(())
}

fn advance(dir: &Path, cursor: Cursor, id: u64) -> Result<(), StoreError> {
    let there = read_cursor(dir, cursor)?;
    if there >= id && (there == id || there <= last_id(dir, cursor.side())?) {
        return Ok(());
    }
    write(dir, cursor, id)
}

fn write(dir: &Path, cursor: Cursor, id: u64) -> Result<(), StoreError> {
    let text = match cursor {
        Cursor::Consumer | Cursor::Coordinator => format!("{id}\n"),
        Cursor::Nex => id.to_string(),
    };
    // A cursor that a power cut takes back costs a look at the outbox, nothing else: no need to wait for the disk.
    files::replace(&cursor.path(dir), text.as_bytes(), Durability::NoSync)
}
