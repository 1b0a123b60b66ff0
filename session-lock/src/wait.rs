//! Waiting for a directory to become free, on events instead of on a clock.
#![expect(
    clippy::disallowed_methods,
    reason = "this driver waits, so it reads the clock"
)]

use std::error::Error;
use std::ffi::CStr;
use std::fmt;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::error::{HeldReason, InspectError, write_held};
use crate::files::{GUARD, RECORD};
use crate::holder::Holder;
use crate::identity::ProcessIdentity;
use crate::inspect::{Inspection, inspect};
use crate::notify::DirectoryEvents;
use crate::readable::{TICK, any_readable};
use crate::watch::PidWatch;

/// What may free a directory, as events.
#[derive(Debug)]
pub(crate) struct Changes {
    directory: Option<DirectoryEvents>,
}

impl Changes {
    pub(crate) fn of(dir: &Path) -> Self {
        let directory = DirectoryEvents::of(dir).inspect_err(|error| {
            log::debug!("looking at `{}` once a second: {error}", dir.display());
        });
        Self {
            directory: directory.ok(),
        }
    }

    /// Waits until the directory may have become free, or `deadline` has passed; returns whether there is any time
    /// left.
    ///
    /// May return early; the caller looks for itself.
    pub(crate) fn next(
        &mut self,
        holder: Option<&Holder>,
        reason: &HeldReason,
        deadline: Instant,
    ) -> bool {
        let (pids, events_suffice): (Vec<ProcessIdentity>, bool) = match (reason, holder) {
            (HeldReason::Guarded | HeldReason::Unguarded | HeldReason::Foreign, Some(holder)) => {
                (vec![holder.claimant().process], true)
            }
            (HeldReason::Inherited { pids }, _) => {
                let unknown = |pid: &u32| ProcessIdentity {
                    pid: *pid,
                    start_ticks: None,
                    boot_id: None,
                };
                (pids.iter().map(unknown).collect(), !pids.is_empty())
            }
            (HeldReason::ThisProcess, _) => (Vec::new(), true),
            _ => (Vec::new(), false),
        };
        // A release removes the record first and closes the guard last. Whoever woke at the first would find the guard
        // still locked, and might push aside the very process that is about to unlock it.
        let names: &[&CStr] = match reason {
            HeldReason::Guarded
            | HeldReason::Inherited { .. }
            | HeldReason::OtherNamespace
            | HeldReason::ThisProcess => &[GUARD],
            HeldReason::Unguarded
            | HeldReason::Foreign
            | HeldReason::Initialising
            | HeldReason::OtherHost
            | HeldReason::Unknown
            | HeldReason::Unsettled => &[RECORD, GUARD],
        };
        let mut watches = Vec::new();
        let mut watched_all = true;
        for pid in &pids {
            match PidWatch::of(pid) {
                Ok(Some(watch)) => watches.push(watch),
                // It is gone already: look again at once.
                Ok(None) => return true,
                Err(_unavailable) => watched_all = false,
            }
        }
        let until = if events_suffice && watched_all && self.directory.is_some() {
            deadline
        } else {
            deadline.min(Instant::now() + TICK)
        };
        loop {
            let mut fds: Vec<_> = watches.iter().map(AsFd::as_fd).collect();
            let process_count = fds.len();
            fds.extend(self.directory.as_ref().map(AsFd::as_fd));
            match any_readable(&fds, Some(until)) {
                Ok(Some(at)) if at == process_count => {
                    if self
                        .directory
                        .as_mut()
                        .is_some_and(|events| events.take_relevant(names))
                    {
                        return true;
                    }
                }
                Ok(_) => return Instant::now() < deadline,
                Err(error) => {
                    log::warn!("failed to wait for events: {error}");
                    self.directory = None;
                    return Instant::now() < deadline;
                }
            }
        }
    }
}

/// How a directory became free.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freed {
    /// Nobody holds it.
    Free,
    /// The holder is gone, but another has taken it.
    Taken {
        /// Who has it now.
        by: Holder,
    },
}

/// Why the wait ended without the directory becoming free.
#[derive(Debug)]
#[non_exhaustive]
pub enum WaitError {
    /// The deadline passed.
    TimedOut {
        /// The directory.
        path: PathBuf,
        /// Who still holds it.
        holder: Option<Holder>,
        /// How that is known.
        reason: HeldReason,
    },
    /// The directory could not be looked at.
    Inspect(InspectError),
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut {
                path,
                holder,
                reason,
            } => {
                f.write_str("gave up waiting: ")?;
                write_held(f, path, holder.as_ref(), reason)
            }
            Self::Inspect(_) => f.write_str("failed to wait for a release"),
        }
    }
}

impl Error for WaitError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Inspect(error) => Some(error),
            Self::TimedOut { .. } => None,
        }
    }
}

/// Waits until whoever holds `dir` now no longer does.
///
/// Woken by the holder's end and by its release, within a fraction of a millisecond; where the kernel gives no
/// event it looks once a second. Takes nothing: whoever wants the directory acquires it afterwards.
///
/// # Errors
///
/// [`WaitError::TimedOut`] once `deadline` has passed.
pub fn wait_free(dir: &Path, deadline: Instant) -> Result<Freed, WaitError> {
    // The watch comes first: what changes after the look is in it.
    let mut changes = Changes::of(dir);
    let mut first: Option<Holder> = None;
    loop {
        let (holder, reason) = match inspect(dir).map_err(WaitError::Inspect)? {
            Inspection::Held(held) => (held.holder, held.reason),
            Inspection::Free | Inspection::Stale { .. } | Inspection::Corrupt { .. } => {
                return Ok(Freed::Free);
            }
        };
        match (&first, &holder) {
            (Some(first), Some(now)) if !first.is_same_acquisition(now) => {
                return Ok(Freed::Taken { by: now.clone() });
            }
            (None, Some(now)) => first = Some(now.clone()),
            (Some(_) | None, _) => {}
        }
        if Instant::now() >= deadline {
            return Err(WaitError::TimedOut {
                path: dir.to_owned(),
                holder,
                reason,
            });
        }
        // Whether any time is left shows at the next turn, after one more look.
        let _in_time: bool = changes.next(holder.as_ref(), &reason, deadline);
    }
}
