//! A consumer's presence: an open connection to the daemon, and a file in `consumers/` whose lock is held.
//!
//! The connection tells the daemon at once when a screen comes or crashes; the file tells a handler without a
//! daemon, and the next daemon at its boot. Both end with the process, whatever ends it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::ipc::client::CALL_PATIENCE;
use crate::ipc::{Attachment, Client, ConnectError};
use crate::patience::Patience;
use crate::store::graph::ChatId;
use crate::store::resolve;
use crate::store::workspace::Workspace;
use crate::store::{StoreError, files, registry};

/// Somebody reads this chat for as long as this lives.
#[derive(Debug)]
#[must_use = "the presence ends when this is dropped"]
pub struct Presence {
    file: PathBuf,
    /// Its lock is what counts; the name may stay behind.
    _lock: File,
    attachment: Option<Attachment>,
}

impl Presence {
    /// Announces a consumer, to the daemon too where there is one.
    ///
    /// # Errors
    ///
    /// The file cannot be made, or the daemon is there and refuses.
    pub fn announce(
        workspace: &Workspace,
        chat: ChatId,
        name: &str,
        patience: Patience,
    ) -> Result<Self, Failure> {
        let session =
            resolve::session_dir_within(workspace, chat, patience.at_most(CALL_PATIENCE))?;
        let dir = session.join("consumers");
        fs::create_dir_all(&dir).map_err(StoreError::io("create", &dir))?;
        let file = dir.join(registry::nonce()?);
        let lock = File::create_new(&file).map_err(StoreError::io("create", &file))?;
        lock.lock().map_err(StoreError::io("lock", &file))?;
        let attachment = match Client::connect_within(workspace, patience) {
            Ok(client) => Some(client.attach(chat.0, name, patience)?),
            Err(ConnectError::NotRunning) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            file,
            _lock: lock,
            attachment,
        })
    }

    /// Whether a daemon knows of this consumer.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.attachment.is_some()
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.file) {
            log::debug!("`{}` stays behind: {error}", self.file.display());
        }
    }
}

/// Counts the consumers of a session directory, and removes the files of those that are gone.
#[must_use]
pub fn count(session: &Path) -> usize {
    let Ok(entries) = fs::read_dir(session.join("consumers")) else {
        return 0;
    };
    let mut present = 0;
    for entry in entries.flatten() {
        let path = entry.path();
        // What is no file is nobody's sign.
        let Ok(Some(file)) = files::open_to_read(&path) else {
            continue;
        };
        match file.try_lock() {
            // A consumer creates its file and locks it in two steps: only one that is old enough is surely dead.
            Ok(()) if is_old(&file) => {
                if let Err(error) = fs::remove_file(&path) {
                    log::debug!("`{}` stays behind: {error}", path.display());
                }
            }
            Ok(()) | Err(fs::TryLockError::WouldBlock) => present += 1,
            Err(fs::TryLockError::Error(error)) => {
                // Not knowing is read as present: an idle handler costs memory, a missing one an answer.
                log::debug!("`{}`: {error}", path.display());
                present += 1;
            }
        }
    }
    present
}

fn is_old(file: &File) -> bool {
    let age = file
        .metadata()
        .ok()
        .and_then(|metadata| metadata.modified().ok())
        .and_then(|at| at.elapsed().ok());
    age.is_none_or(|age| age.as_secs() >= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_file_is_a_consumer_and_an_old_one_that_nobody_holds_is_swept() {
        let session = tempfile::tempdir().unwrap();
        assert_eq!(count(session.path()), 0);
        let dir = session.path().join("consumers");
        fs::create_dir(&dir).unwrap();
        let held = File::create_new(dir.join("a")).unwrap();
        held.lock().unwrap();
        let dead = File::create_new(dir.join("b")).unwrap();
        let old = std::time::SystemTime::UNIX_EPOCH;
        dead.set_modified(old).unwrap();
        drop(dead);
        assert_eq!(count(session.path()), 1);
        assert!(!dir.join("b").exists());
        held.set_modified(old).unwrap();
        assert_eq!(count(session.path()), 1);
        drop(held);
        assert_eq!(count(session.path()), 0);
        assert!(!dir.join("a").exists());
    }
}
