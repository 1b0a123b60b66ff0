//! One at a time looks for locks above and below, so that of two that overlap and come at once one gets its lock.

use std::fs::File;
use std::path::Path;

use crate::files;
use crate::readable;

/// How many moments a turn is waited for. Whoever has it gives it back in less than one, unless it was stopped.
const TRIES: u32 = 100;

/// A registry's turn, given back when it is dropped.
///
/// It is a lock on the folder itself, so there is no file that could be lost. No right hangs on it: without it two
/// overlapping locks still never stand side by side, but both may be refused.
#[derive(Debug)]
pub(super) struct Turn(File);

impl Turn {
    /// Waits for the turn; `None` where it cannot be had.
    pub(super) fn take(registry: &Path) -> Option<Self> {
        let folder = File::from(files::open_directory(registry).ok()?);
        for _ in 0..TRIES {
            if folder.try_lock().is_ok() {
                return Some(Self(folder));
            }
            readable::moment();
        }
        log::debug!("no turn in `{}`", registry.display());
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Said aloud, because a child of another thread may have a copy of the descriptor between its fork and its exec.
        if let Err(error) = self.0.unlock() {
            log::debug!("failed to give back a turn: {error}");
        }
    }
}
