//! One agent at a time in a working directory, for agents that ask for it (`exclusive = "dir"`).

use std::path::{Path, PathBuf};

use session_lock::{DirLock, DirLockError, Kind, Note, Wait};

use crate::clock;
use crate::dir_registry;
use crate::store::Workspace;

/// How long one attempt waits before signals are listened to again.
const SLICE: std::time::Duration = std::time::Duration::from_secs(1);

/// Returns where the locks of directories are kept.
///
/// All workspaces of a user must agree about it, because chats of two of them can work in the same directory; it lies beside
/// the service's files only where the user has no place for state.
#[must_use]
pub fn registry(workspace: &Workspace) -> PathBuf {
    dir_registry::of_this_user().unwrap_or_else(|| workspace.service_dir().join("locks"))
}

/// What came of one attempt.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// The directory is ours.
    Yes(Box<DirLock>),
    /// Somebody else has it, or one above or below.
    HeldBy {
        /// Who, in words.
        who: String,
        /// The directory that is held.
        directory: PathBuf,
    },
    /// It cannot be locked at all.
    Failed(DirLockError),
}

/// Tries to lock the directory for a chat's turn, waiting for a moment where another has it.
pub(crate) fn claim(registry: &Path, directory: &Path, chat: &str) -> Claimed {
    if let Err(error) = std::fs::create_dir_all(registry) {
        // Locking it says the same again, with the path.
        log::debug!("no registry of locks: {error}");
    }
    let mut options = DirLock::options(registry)
        .kind(Kind::Adapter)
        .wait(Wait::Until(clock::steady() + SLICE));
    if let Ok(note) = Note::new(chat, "a turn of its agent") {
        options = options.note(note);
    }
    match options.acquire(directory) {
        Ok(lock) => Claimed::Yes(Box::new(lock)),
        Err(DirLockError::Held {
            holder, note, held, ..
        }) => {
            let who = match (note, holder) {
                (Some(note), _) => note.by,
                (None, Some(holder)) => format!("pid {}", holder.pid),
                (None, None) => "another process".to_owned(),
            };
            Claimed::HeldBy {
                who,
                directory: held,
            }
        }
        Err(error) => Claimed::Failed(error),
    }
}
