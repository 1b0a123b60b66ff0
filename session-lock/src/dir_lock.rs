//! Locks on any directory, for any program: the same protocol, kept beside the directory instead of in it.

mod entry;
mod error;
mod sweep;
mod turn;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

pub use self::entry::{Note, UnusableNote};
pub use self::error::DirLockError;

use self::entry::Entry;
use self::turn::Turn;
use crate::error::{AcquireError, HeldReason, InspectError, ReleaseError};
use crate::holder::Holder;
use crate::inherit;
use crate::inspect::{Inspection, inspect};
use crate::kind::Kind;
use crate::lock::{Released, SessionLock};
use crate::occupants::{Occupant, occupants};
use crate::options::{LockOptions, Wait};
use crate::sys;
use crate::wait;

/// Whether a lock on a directory above or below is a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// It is: whoever writes to a directory may write to everything below it.
    Refuse,
    /// Only a lock on the very same directory is.
    Allow,
}

/// A lock on a directory that keeps nothing in the directory itself.
///
/// The locks live in a *registry*, a folder that the programs which are to exclude each other agree upon. Each
/// locked directory has an entry of its own there, a folder with the files of a [`SessionLock`]; there is no central
/// file that could be lost.
#[derive(Debug)]
#[must_use = "the lock is released when this value is dropped"]
pub struct DirLock {
    lock: SessionLock,
    entry: Entry,
}

/// How to lock a directory; see [`DirLock::options`].
#[derive(Debug, Clone)]
#[must_use = "options do nothing until `acquire` is called"]
pub struct DirLockOptions {
    registry: PathBuf,
    kind: Kind,
    wait: Wait,
    overlap: Overlap,
    note: Option<Note>,
}

/// What a registry says about one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirStatus {
    /// The directory, in canonical form.
    pub directory: PathBuf,
    /// Its lock.
    pub inspection: Inspection,
    /// What the holder said about it.
    pub note: Option<Note>,
    /// The hold that a person put on it, which no process needs to live for.
    pub hold: Option<Note>,
    /// The folder of its entry, for [`wait_free`](crate::wait_free), [`request_release`](crate::request_release)
    /// and [`takeover`](crate::takeover).
    pub entry: PathBuf,
}

impl DirStatus {
    /// Returns whether a process or a person holds the directory.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.hold.is_some() || self.inspection.is_held()
    }
}

/// What a registry holds.
#[derive(Debug)]
#[non_exhaustive]
pub struct Listing {
    /// The directories that are held, in the order of their paths.
    pub held: Vec<DirStatus>,
    /// The entries that say nothing sensible, or cannot be read. Each blocks the directory that it is for.
    pub unreadable: Vec<Unreadable>,
}

/// An entry of a registry that cannot be understood.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unreadable {
    /// The folder of the entry.
    pub entry: PathBuf,
    /// The directory that it is for, where at least that can be read.
    pub directory: Option<PathBuf>,
    /// Why not.
    pub because: DirLockError,
}

/// What a process in a locked directory has to do with the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Relation {
    /// It holds the lock.
    Holder,
    /// It has the lock through an inherited descriptor, or descends from a process that has it.
    Follower,
    /// It has nothing to do with the lock.
    Stranger,
}

impl DirStatus {
    /// Lists who is in the directory, whatever the lock says, and what each has to do with it.
    ///
    /// # Errors
    ///
    /// Those of [`occupants`].
    pub fn occupants(&self) -> io::Result<Vec<(Occupant, Relation)>> {
        let holder = match &self.inspection {
            Inspection::Held(held) => held.holder.as_ref().map(|holder| holder.pid),
            Inspection::Free | Inspection::Stale { .. } | Inspection::Corrupt { .. } => None,
        };
        let mut followed: Vec<u32> = inherit::inheritors_in(&self.entry);
        followed.extend(holder);
        let relation = |occupant: &Occupant| {
            let mut pid = Some(occupant.pid);
            while let Some(it) = pid.filter(|pid| *pid > 1 && !followed.contains(pid)) {
                pid = sys::parent(it);
            }
            match pid {
                _ if Some(occupant.pid) == holder => Relation::Holder,
                Some(pid) if followed.contains(&pid) => Relation::Follower,
                Some(_) | None => Relation::Stranger,
            }
        };
        let mut related = Vec::new();
        for occupant in occupants(&self.directory)? {
            let relation = relation(&occupant);
            related.push((occupant, relation));
        }
        Ok(related)
    }
}

impl DirLockOptions {
    /// Sets the label that others see; `unnamed` if it is not set.
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Sets what to do when another holds the directory; [`Wait::Never`] if it is not set.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Sets whether locks above and below are conflicts; [`Overlap::Refuse`] if it is not set.
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }

    /// Says who wants the lock, and what for.
    pub fn note(mut self, note: Note) -> Self {
        self.note = Some(note);
        self
    }

    /// Locks the directory `dir`, which must exist; links in its path are resolved.
    ///
    /// # Errors
    ///
    /// [`DirLockError::Held`] if another has it, or one above or below, for as long as was to be waited.
    pub fn acquire(self, dir: &Path) -> Result<DirLock, DirLockError> {
        let entry = Entry::of(&self.registry, dir)?;
        let mut lost = 0;
        loop {
            entry.create(&self.registry)?;
            let error = match self.try_acquire(&entry) {
                Err(error) if was_swept(&error) && lost < MOST_LOST => {
                    lost += 1;
                    continue;
                }
                Err(error) => error,
                locked => return locked,
            };
            let (DirLockError::Held { entry: of, .. }, Wait::Until(deadline)) = (&error, self.wait)
            else {
                return Err(error);
            };
            if !wait_for(of, deadline) {
                return Err(error);
            }
        }
    }

    fn try_acquire(&self, entry: &Entry) -> Result<DirLock, DirLockError> {
        let _turn = match self.overlap {
            Overlap::Refuse => Turn::take(&self.registry),
            Overlap::Allow => None,
        };
        entry.refuse_corrupt()?;
        let options = LockOptions::new().kind(self.kind.clone());
        let lock = options
            .acquire(entry.path())
            .map_err(|error| entry.held_or(error))?;
        // Whoever removes an entry has its lock while it does. So one that is in place now stays until ours is released.
        if !lock.is_in_place() {
            return Err(DirLockError::Io {
                doing: "lock",
                path: entry.path().to_owned(),
                source: io::ErrorKind::NotFound.into(),
            });
        }
        entry.write_note(self.note.as_ref())?;
        // From here on others see our lock. Two that overlap and come at once, one of them without its turn, both look
        // after both can be seen, so at least one gives way; it may be both.
        entry.refuse_hold()?;
        if self.overlap == Overlap::Refuse {
            entry.refuse_overlap(&self.registry)?;
        }
        Ok(DirLock {
            lock,
            entry: entry.clone(),
        })
    }
}

/// How often an entry that was removed while it was being locked is made again.
const MOST_LOST: u32 = 16;

/// Returns whether an acquisition failed because its entry is gone: its directory did not exist a moment ago, and
/// somebody swept the registry.
fn was_swept(error: &DirLockError) -> bool {
    let source = match error {
        DirLockError::Io { source, .. }
        | DirLockError::Acquire(AcquireError::Io { source, .. })
        | DirLockError::Inspect(InspectError { source, .. }) => source,
        DirLockError::Held { .. } | DirLockError::Corrupt { .. } | DirLockError::Acquire(_) => {
            return false;
        }
    };
    source.kind() == io::ErrorKind::NotFound
}

/// Waits until the entry may have become free; returns whether there is any time left.
fn wait_for(entry: &Path, deadline: Instant) -> bool {
    let mut changes = wait::Changes::of(entry);
    let (holder, reason) = match inspect(entry) {
        Ok(Inspection::Held(held)) => (held.holder, held.reason),
        // A person's hold, or a lock that is gone already. The first is looked for once a second.
        Ok(Inspection::Free | Inspection::Stale { .. } | Inspection::Corrupt { .. }) | Err(_) => {
            (None, HeldReason::Unknown)
        }
    };
    changes.next(holder.as_ref(), &reason, deadline)
}

impl DirLock {
    /// Returns the options of a lock that is yet to be taken, in the registry at `registry`.
    ///
    /// The registry is created where it is missing. It must lie on a local file system.
    pub fn options(registry: &Path) -> DirLockOptions {
        DirLockOptions {
            registry: registry.to_owned(),
            kind: Kind::Other("unnamed".to_owned()),
            wait: Wait::Never,
            overlap: Overlap::Refuse,
            note: None,
        }
    }

    /// Returns the locked directory, in canonical form.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.entry.directory()
    }

    /// Returns what others see: this process.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        self.lock.holder()
    }

    /// Returns the lock itself, to lend it, to verify it, or to watch for requests.
    pub fn session(&mut self) -> &mut SessionLock {
        &mut self.lock
    }

    /// Starts `command` with the lock lent to it; see [`SessionLock::spawn_lent`].
    ///
    /// # Errors
    ///
    /// Those of [`SessionLock::spawn_lent`].
    pub fn spawn_lent(&self, command: &mut Command) -> io::Result<Child> {
        self.lock.spawn_lent(command)
    }

    /// Releases the lock.
    ///
    /// # Errors
    ///
    /// Those of [`SessionLock::release`].
    pub fn release(self) -> Result<Released, ReleaseError> {
        self.lock.release()
    }

    /// Returns what the registry says about `dir`, which may be locked or not.
    ///
    /// # Errors
    ///
    /// [`DirLockError::Corrupt`] where the entry says nothing sensible.
    pub fn status(registry: &Path, dir: &Path) -> Result<DirStatus, DirLockError> {
        Entry::of(registry, dir)?.status()
    }

    /// Lists every directory of the registry that is held, and every entry that cannot be understood.
    ///
    /// # Errors
    ///
    /// Returns an error where the registry cannot be read. One that does not exist is empty.
    pub fn list(registry: &Path) -> Result<Listing, DirLockError> {
        let (mut held, mut unreadable) = (Vec::new(), Vec::new());
        for path in Entry::paths(registry)? {
            let (directory, status) = match Entry::load(path.clone()) {
                Ok(Some(entry)) => (Some(entry.directory().to_owned()), entry.status()),
                Ok(None) => continue,
                Err(error) => (None, Err(error)),
            };
            match status {
                Ok(status) if status.is_held() => held.push(status),
                Ok(_free) => {}
                Err(because) => unreadable.push(Unreadable {
                    entry: path,
                    directory,
                    because,
                }),
            }
        }
        held.sort_by(|one, other| one.directory.cmp(&other.directory));
        unreadable.sort_by(|one, other| one.entry.cmp(&other.entry));
        Ok(Listing { held, unreadable })
    }

    /// Puts a hold on `dir` that lasts until [`end_hold`](Self::end_hold), whatever processes come and go.
    ///
    /// # Errors
    ///
    /// [`DirLockError::Held`] if somebody has it, or one above or below.
    pub fn hold(registry: &Path, dir: &Path, note: &Note) -> Result<(), DirLockError> {
        // Taken for a moment, so that a hold and a lock cannot be given at once.
        let lock = Self::options(registry)
            .kind(Kind::from("hold"))
            .acquire(dir)?;
        lock.entry.write_hold(note)
    }

    /// Ends the hold on `dir`; returns it, or `None` if there was none.
    ///
    /// # Errors
    ///
    /// Returns an error where the hold cannot be read or removed. One that is corrupt is removed all the same.
    pub fn end_hold(registry: &Path, dir: &Path) -> Result<Option<Note>, DirLockError> {
        Entry::of(registry, dir)?.end_hold()
    }
}
