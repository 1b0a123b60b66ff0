//! `service/state.json`: which process is the daemon, and where it listens.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{StoreError, Workspace, files, json};
use crate::clock::{self, Timestamp};

/// Who the daemon is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Its process.
    pub pid: u32,
    /// Where it listens.
    pub socket_path: PathBuf,
    /// Since when it runs.
    pub started_at: Timestamp,
    /// When its process started, in clock ticks since boot; the earlier tool does not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
    /// Of which boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
}

/// Whether the daemon of a state file lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alive {
    /// That very process runs.
    Yes,
    /// It is gone; another process may have its number.
    No,
    /// The file does not say enough (the earlier tool's): believe it only if its socket answers.
    Unproven,
}

impl ServiceState {
    /// Returns the state of this process.
    #[must_use]
    pub fn of_this_process(socket_path: PathBuf) -> Self {
        Self::of_running(std::process::id(), socket_path, clock::now())
    }

    /// Writes the state of a workspace's daemon.
    ///
    /// # Errors
    /// As [`files::replace_atomically`].
    pub fn write(&self, workspace: &Workspace) -> Result<(), StoreError> {
        files::replace_atomically(&workspace.state_path(), &json::pretty(self))
    }

    /// Reads the state of a workspace's daemon; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it cannot be read.
    pub fn read(workspace: &Workspace) -> Result<Option<Self>, StoreError> {
        json::read(&workspace.state_path())
    }

    /// Removes the state, if it is still this one and not a successor's.
    ///
    /// # Errors
    /// As [`ServiceState::read`], and [`StoreError::Io`].
    pub fn remove(&self, workspace: &Workspace) -> Result<(), StoreError> {
        let path = workspace.state_path();
        let there = Self::read(workspace)?;
        if !there.is_some_and(|there| there.is_of_the_same_process(self)) {
            return Ok(());
        }
        match fs::remove_file(&path) {
            Err(source) if !files::absent(&source) => Err(StoreError::Io {
                doing: "remove",
                path,
                source,
            }),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Whether both are of one process; what else they say, such as since when it serves, may have been put together anew.
    fn is_of_the_same_process(&self, other: &Self) -> bool {
        (self.pid, self.start, &self.boot) == (other.pid, other.start, &other.boot)
    }

    /// Returns the state of a daemon that runs, out of what is known of it: where its own words cannot be read.
    #[must_use]
    pub fn of_running(pid: u32, socket_path: PathBuf, started_at: Timestamp) -> Self {
        Self {
            pid,
            socket_path,
            started_at,
            start: start_ticks(pid),
            boot: clock::boot_id().map(str::to_owned),
        }
    }

    /// Whether that very process runs: only a matching start time is believed.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.alive() == Alive::Yes
    }

    /// As [`ServiceState::is_alive`], and tells an old file from a dead process.
    #[must_use]
    pub fn alive(&self) -> Alive {
        let now = start_ticks(self.pid);
        match (self.start, now) {
            (None, Some(_)) => Alive::Unproven,
            (Some(then), Some(now)) if then == now && self.boot.as_deref() == clock::boot_id() => {
                Alive::Yes
            }
            (Some(_), Some(_)) | (_, None) => Alive::No,
        }
    }
}

/// Returns when a live process started, in clock ticks since boot (field 22 of `proc_pid_stat(5)`); `None` if it is gone or a zombie.
#[must_use]
pub fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses too: fields are counted from the last one.
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let text = std::str::from_utf8(stat.get(after_name..)?).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let state = fields.next()?;
    let threads: u64 = fields.nth(16)?.parse().ok()?;
    let started = fields.nth(1)?.parse().ok()?;
    // A process whose main thread has ended shows Z as well; with threads left it lives.
    if ["Z", "X"].contains(&state) && threads <= 1 {
        None
    } else {
        Some(started)
    }
}
