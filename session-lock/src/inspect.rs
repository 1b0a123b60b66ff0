//! Looks at a lock without taking it.
#![expect(
    clippy::disallowed_methods,
    reason = "this driver tells how old an incomplete record is"
)]

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::OFlag;

use crate::claim::{GuardText, State};
use crate::error::{HeldReason, InspectError, Node};
use crate::files::{self, FileId, GUARD, Guard, Opened, RECORD};
use crate::filesystem::{self, FileSystem};
use crate::holder::Holder;
use crate::inherit;
use crate::judge::Liveness;
use crate::probe::SystemProbe;
use crate::record::{self, Content};

/// Who holds a directory, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// The holder, where anybody is named.
    pub holder: Option<Holder>,
    /// Whether it is alive; `None` where nobody is named.
    pub liveness: Option<Liveness>,
    /// Why it counts as held.
    pub reason: HeldReason,
}

/// What a look at a lock found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inspection {
    /// Nobody holds it and nothing is left behind.
    Free,
    /// Somebody holds it.
    Held(Held),
    /// Its holder is gone; the next acquisition takes it over.
    Stale {
        /// Who held it.
        holder: Holder,
        /// How it is known that it no longer does.
        liveness: Liveness,
    },
    /// The record is none; the next acquisition replaces it, or refuses what is not even a file.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What stands there, if it is not a regular file.
        node: Option<Node>,
    },
}

impl Inspection {
    /// Returns whether somebody holds it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Held(_))
    }

    /// Returns who holds it, or held it last.
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        match self {
            Self::Held(held) => held.holder.as_ref(),
            Self::Stale { holder, .. } => Some(holder),
            Self::Free | Self::Corrupt { .. } => None,
        }
    }

    /// Returns whether the holder is a live process of this host and namespace, whose end can be
    /// [watched](crate::watch) for.
    #[must_use]
    pub fn is_watchable(&self) -> bool {
        matches!(
            self,
            Self::Held(Held {
                holder: Some(_),
                liveness: Some(Liveness::Alive),
                ..
            })
        )
    }
}

/// Looks at the lock of `dir` without taking it. The lock itself is touched only where the one who claims it is gone or
/// cannot be asked.
///
/// # Errors
///
/// Returns an error where the directory or its files cannot be read. A directory that does not exist is one.
pub fn inspect(dir: &Path) -> Result<Inspection, InspectError> {
    let failed = |doing, path: PathBuf| {
        move |source| InspectError {
            doing,
            path,
            source,
        }
    };
    let fd = files::open_directory(dir).map_err(failed("open the directory", dir.to_owned()))?;
    let probe = SystemProbe::on(filesystem::of(&fd) != FileSystem::Local);
    let guard_path = files::path_of(dir, GUARD);
    let (guard, text) = match files::open_regular(fd.as_fd(), GUARD, OFlag::O_RDONLY) {
        Ok(Opened::Regular(file, id, _)) => {
            let bytes = files::read_small(&file).map_err(failed("read", guard_path))?;
            (Some((file, id)), GuardText::parse(&bytes))
        }
        Ok(Opened::Absent) => (None, GuardText::default()),
        Ok(Opened::Other(node)) => {
            return Ok(Inspection::Corrupt {
                path: guard_path,
                node: Some(node),
            });
        }
        // The guard is its owner's alone; the record is for everybody.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            (None, GuardText::default())
        }
        Err(error) => return Err(failed("open", guard_path)(error)),
    };
    let record_path = files::path_of(dir, RECORD);
    let mut is_young = false;
    let opened = files::open_regular(fd.as_fd(), RECORD, OFlag::O_RDONLY);
    let content = match opened.map_err(failed("open", record_path.clone()))? {
        Opened::Absent => None,
        Opened::Regular(file, _, stat) => {
            let bytes = files::read_small(&file).map_err(failed("read", record_path.clone()))?;
            // Nothing is written to ask the file system for the time, so the host's clock has to do.
            let now = crate::time::nanoseconds(SystemTime::now());
            is_young = files::is_in_the_making(files::modified_at(&stat), now);
            Some(record::parse(&bytes))
        }
        Opened::Other(node) => {
            return Ok(Inspection::Corrupt {
                path: record_path,
                node: Some(node),
            });
        }
    };
    let holder = match &content {
        Some(Content::InFlight | Content::Unterminated(_)) if is_young => {
            return Ok(Inspection::Held(Held {
                holder: None,
                liveness: None,
                reason: HeldReason::Initialising,
            }));
        }
        Some(Content::Complete(record) | Content::Unterminated(record)) => {
            Some(Holder::from_record(record, text.claim_of(record)))
        }
        // Somebody has just locked the guard, or its record was deleted.
        None => claimed_by(&text),
        // The record is lost; the guard may still prove who is there.
        Some(Content::InFlight | Content::Corrupt) => {
            let Some(holder) = claimed_by(&text).filter(|holder| lives(holder, probe)) else {
                return Ok(Inspection::Corrupt {
                    path: record_path,
                    node: None,
                });
            };
            Some(holder)
        }
    };
    let Some(holder) = holder else {
        return Ok(Inspection::Free);
    };
    let liveness = probe.ask(&holder.claimant());
    let reason = match liveness {
        Liveness::Alive if holder.identity().is_some() => HeldReason::Guarded,
        Liveness::Alive => HeldReason::Foreign,
        Liveness::OtherHost => HeldReason::OtherHost,
        Liveness::Unknown => HeldReason::Unknown,
        Liveness::OtherNamespace => match guard.map(|(file, id)| is_locked(file, id)) {
            Some(true) => HeldReason::OtherNamespace,
            Some(false) | None => return Ok(stale(content.is_some(), holder, liveness)),
        },
        Liveness::Dead
        | Liveness::Zombie
        | Liveness::Reused
        | Liveness::Rebooted
        | Liveness::Left => {
            // The search goes through all processes, and mostly there is nothing to search for.
            let taken = guard.filter(|(file, _)| Guard::is_taken(file).unwrap_or(true));
            let pids = taken.map(|(_file, id)| inheritors(id)).unwrap_or_default();
            if pids.is_empty() {
                return Ok(stale(content.is_some(), holder, liveness));
            }
            HeldReason::Inherited { pids }
        }
    };
    Ok(Inspection::Held(Held {
        holder: Some(holder),
        liveness: Some(liveness),
        reason,
    }))
}

/// Returns who holds the directory by what stands in its guard.
fn claimed_by(text: &GuardText) -> Option<Holder> {
    let held = text.latest().filter(|claim| claim.state == State::Held);
    held.map(Holder::from_claim)
}

/// Whether it is proven that this very process runs.
fn lives(holder: &Holder, probe: SystemProbe) -> bool {
    holder.identity().is_some() && probe.ask(&holder.claimant()) == Liveness::Alive
}

fn stale(recorded: bool, holder: Holder, liveness: Liveness) -> Inspection {
    if recorded {
        Inspection::Stale { holder, liveness }
    } else {
        Inspection::Free
    }
}

fn inheritors(guard: FileId) -> Vec<u32> {
    inherit::inheritors(guard)
        .into_iter()
        .map(|inheritor| inheritor.pid)
        .collect()
}

/// Returns whether somebody has the guard, by trying to.
///
/// Only where no process can be asked: the holder lives in another pid namespace. Whoever wants the lock in this very moment finds it busy, finds nobody who claims it, and tries again.
fn is_locked(file: std::fs::File, id: FileId) -> bool {
    !Guard::new(file, id).try_lock().unwrap_or(false)
}
