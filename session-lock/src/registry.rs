//! Which directories this process holds.
//!
//! The guard keeps threads apart as it keeps processes apart. This list is for the case that somebody deleted the
//! guard: a record with our own process number is then either ours, or left by a process of the same number in a
//! container that is gone.

use std::sync::{Mutex, PoisonError};

use crate::files::FileId;

#[derive(Debug)]
struct Entry {
    pid: u32,
    directory: FileId,
    number: u64,
}

#[derive(Debug)]
struct Entries {
    list: Vec<Entry>,
    last_number: u64,
}

static ENTRIES: Mutex<Entries> = Mutex::new(Entries {
    list: Vec::new(),
    last_number: 0,
});

fn with_entries<T>(work: impl FnOnce(&mut Entries) -> T) -> T {
    work(&mut ENTRIES.lock().unwrap_or_else(PoisonError::into_inner))
}

/// One line of the list; dropping it strikes the line out.
#[derive(Debug)]
pub(crate) struct Registration {
    number: u64,
    pid: u32,
}

impl Registration {
    /// Notes that this process holds `directory`, or is about to.
    pub(crate) fn new(directory: FileId) -> Self {
        let pid = std::process::id();
        with_entries(|entries| {
            entries.last_number += 1;
            let number = entries.last_number;
            entries.list.push(Entry {
                pid,
                directory,
                number,
            });
            Self { number, pid }
        })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // A forked child keeps its parent's lines: they carry the parent's number and mean nothing here. It must
        // not wait for a mutex that another thread of its parent may have held.
        if self.pid == std::process::id() {
            with_entries(|entries| entries.list.retain(|entry| entry.number != self.number));
        }
    }
}

/// Returns whether this process holds `directory` through anything but `own`.
pub(crate) fn holds(directory: FileId, own: Option<&Registration>) -> bool {
    let pid = std::process::id();
    with_entries(|entries| {
        entries.list.iter().any(|entry| {
            entry.pid == pid
                && entry.directory == directory
                && own.is_none_or(|own| own.number != entry.number)
        })
    })
}
