//! Taking a directory from a live holder: ask, then insist, then kill.
#![expect(
    clippy::disallowed_methods,
    reason = "this driver bounds each stage of a takeover"
)]

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::error::{HeldReason, InspectError, RequestError, write_held};
use crate::holder::Holder;
use crate::identity::ProcessIdentity;
use crate::inherit;
use crate::inspect::{Inspection, inspect};
use crate::marker::request_release;
use crate::wait::{Changes, Freed, WaitError, wait_free};
use crate::watch::PidWatch;

/// How far a takeover may go, and how long each stage may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeoverPolicy {
    /// How long the holder has to obey the request to release; zero sends none, and a holder that is gone gets none.
    pub request_grace: Duration,
    /// How long it has to end after SIGTERM.
    pub term_grace: Duration,
    /// How long the kernel has to end it after SIGKILL.
    pub kill_grace: Duration,
    /// Whether a process that only a three-line record of another tool names may be signalled. Its number may have
    /// been given to an innocent process since.
    pub unproven: Unproven,
}

/// What to do with a holder whose identity cannot be proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproven {
    /// Refuse to signal it.
    Refuse,
    /// Signal it all the same.
    Allow,
}

/// How a takeover ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TakenOver {
    /// Nobody held the directory.
    WasFree,
    /// The holder released it, or ended by itself.
    Released {
        /// Who it was.
        from: Holder,
    },
    /// The holder, or those who inherited the lock from it, had to be signalled.
    Ended {
        /// Who it was.
        from: Holder,
        /// Whether SIGTERM was not enough.
        killed: bool,
    },
}

/// Why a directory was not taken over.
#[derive(Debug)]
#[non_exhaustive]
pub enum TakeoverError {
    /// Signalling this holder could hit the wrong process, or nobody.
    Refused {
        /// The directory.
        path: PathBuf,
        /// The holder.
        holder: Option<Holder>,
        /// Why not.
        because: RefusedBecause,
    },
    /// Another took the directory while it was being taken over.
    Taken {
        /// Who has it now.
        by: Holder,
    },
    /// It is still held after every stage.
    StillHeld {
        /// The directory.
        path: PathBuf,
        /// Who holds it.
        holder: Option<Holder>,
        /// How that is known.
        reason: HeldReason,
    },
    /// The directory could not be looked at.
    Inspect(InspectError),
    /// The request could not be left.
    Request(RequestError),
    /// The holder could not be signalled.
    Signal {
        /// The holder's process.
        pid: u32,
        /// The system's answer.
        source: io::Error,
    },
}

/// Why a holder is not signalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusedBecause {
    /// It is this very process, or this process has the lock through it.
    ThisProcess,
    /// It is the first process of the system.
    Init,
    /// It runs on another host.
    OtherHost,
    /// It runs in another pid namespace.
    OtherNamespace,
    /// Nothing proves that the process is the one that took the lock.
    Unproven,
    /// Nobody is named.
    Unnamed,
}

impl fmt::Display for RefusedBecause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ThisProcess => "this very process has it",
            Self::Init => "it is the first process of the system",
            Self::OtherHost => "it runs on another host",
            Self::OtherNamespace => "it runs in another pid namespace",
            Self::Unproven => "nothing proves that this process is the one that took the lock",
            Self::Unnamed => "nobody is named as its holder",
        })
    }
}

impl fmt::Display for TakeoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused {
                path,
                holder: Some(holder),
                because,
            } => {
                write!(
                    f,
                    "refused to take `{}` from {holder}: {because}",
                    path.display()
                )
            }
            Self::Refused {
                path,
                holder: None,
                because,
            } => {
                write!(f, "refused to take over `{}`: {because}", path.display())
            }
            Self::Taken { by } => write!(f, "the directory was taken by {by} in the meantime"),
            Self::StillHeld {
                path,
                holder,
                reason,
            } => {
                f.write_str("failed to take over: ")?;
                write_held(f, path, holder.as_ref(), reason)
            }
            Self::Inspect(_) => f.write_str("failed to take over"),
            Self::Request(_) => f.write_str("failed to ask the holder to release"),
            Self::Signal { pid, .. } => write!(f, "failed to signal process {pid}"),
        }
    }
}

impl Error for TakeoverError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Inspect(error) => Some(error),
            Self::Request(error) => Some(error),
            Self::Signal { source, .. } => Some(source),
            Self::Refused { .. } | Self::Taken { .. } | Self::StillHeld { .. } => None,
        }
    }
}

/// Makes whoever holds `dir` let go of it: a request, SIGTERM, SIGKILL, each with its grace.
///
/// Takes nothing: the caller acquires the directory afterwards, and may find that another was faster. Signals go
/// through a process descriptor that was opened before the holder's identity was read again, so that a recycled
/// number is never hit.
///
/// # Errors
///
/// [`TakeoverError::Refused`], at once, where a signal could hit the wrong process; the other variants say what went wrong.
pub fn takeover(dir: &Path, policy: &TakeoverPolicy) -> Result<TakenOver, TakeoverError> {
    // Known now, so nobody waits for a grace to hear of it. Whoever only wants to ask has `request_release`.
    let Some((holder, reason)) = whom(dir, policy)? else {
        return Ok(TakenOver::WasFree);
    };
    // The holder's descriptor is opened before anything is waited for: whoever has its number later is not meant.
    let mut targets = Targets::default();
    targets.add(dir, &holder, &reason)?;
    // Who has the lock from a holder that is gone does not read what is asked of that one.
    let hears = !matches!(reason, HeldReason::Inherited { .. });
    if hears && !policy.request_grace.is_zero() {
        request_release(dir).map_err(TakeoverError::Request)?;
        if freed(dir, policy.request_grace, &holder)? {
            return Ok(TakenOver::Released { from: holder });
        }
    }
    for (signal, grace) in [
        (Signal::SIGTERM, policy.term_grace),
        (Signal::SIGKILL, policy.kill_grace),
    ] {
        if insist(dir, &holder, policy, &mut targets, signal, grace)? {
            return Ok(TakenOver::Ended {
                from: holder,
                killed: signal == Signal::SIGKILL,
            });
        }
    }
    match inspect(dir).map_err(TakeoverError::Inspect)? {
        Inspection::Held(held) => Err(TakeoverError::StillHeld {
            path: dir.to_owned(),
            holder: held.holder,
            reason: held.reason,
        }),
        Inspection::Free | Inspection::Stale { .. } | Inspection::Corrupt { .. } => {
            Ok(TakenOver::Ended {
                from: holder,
                killed: true,
            })
        }
    }
}

/// Says whether a [`takeover`] would be refused now; asks nobody, and signals nobody.
///
/// # Errors
///
/// What the takeover would say before it does anything: [`TakeoverError::Refused`], or that the directory could not be looked at.
pub fn check_takeover(dir: &Path, policy: &TakeoverPolicy) -> Result<(), TakeoverError> {
    whom(dir, policy).map(drop)
}

/// From whom the directory is to be taken, if anybody has it, who may be signalled.
fn whom(
    dir: &Path,
    policy: &TakeoverPolicy,
) -> Result<Option<(Holder, HeldReason)>, TakeoverError> {
    let held = match inspect(dir).map_err(TakeoverError::Inspect)? {
        Inspection::Held(held) => held,
        Inspection::Free | Inspection::Stale { .. } | Inspection::Corrupt { .. } => {
            return Ok(None);
        }
    };
    let refused = |holder: Option<&Holder>, because| TakeoverError::Refused {
        path: dir.to_owned(),
        holder: holder.cloned(),
        because,
    };
    let Some(holder) = held.holder else {
        return Err(refused(None, RefusedBecause::Unnamed));
    };
    may_signal(dir, &holder, &held.reason, policy)
        .map_err(|because| refused(Some(&holder), because))?;
    Ok(Some((holder, held.reason)))
}

/// Signals everybody who has the lock, and whoever turns out to have it when they are gone, until it is free or the
/// grace is over; returns whether it is free.
fn insist(
    dir: &Path,
    from: &Holder,
    policy: &TakeoverPolicy,
    targets: &mut Targets,
    signal: Signal,
    grace: Duration,
) -> Result<bool, TakeoverError> {
    let end = |now: Instant| now.checked_add(grace).unwrap_or(now);
    let mut deadline = end(Instant::now());
    // The watch comes first: what changes after the look is in it.
    let mut changes = Changes::of(dir);
    let mut are_borrowers = false;
    targets.nobody_was_signalled();
    loop {
        let held = match inspect(dir).map_err(TakeoverError::Inspect)? {
            Inspection::Held(held) => held,
            Inspection::Free | Inspection::Stale { .. } | Inspection::Corrupt { .. } => {
                return Ok(true);
            }
        };
        if let Some(holder) = &held.holder {
            if !holder.is_same_acquisition(from) {
                return Err(TakeoverError::Taken { by: holder.clone() });
            }
            may_signal(dir, holder, &held.reason, policy).map_err(|because| {
                TakeoverError::Refused {
                    path: dir.to_owned(),
                    holder: Some(holder.clone()),
                    because,
                }
            })?;
            targets.add(dir, holder, &held.reason)?;
            targets.signal(dir, signal)?;
            // Who has the lock from a holder that is gone hears of it only now, and has the same time to heed it.
            if matches!(held.reason, HeldReason::Inherited { .. }) && !are_borrowers {
                are_borrowers = true;
                deadline = end(Instant::now());
            }
        }
        if !changes.next(held.holder.as_ref(), &held.reason, deadline) && Instant::now() >= deadline
        {
            return Ok(!inspect(dir).map_err(TakeoverError::Inspect)?.is_held());
        }
    }
}

fn may_signal(
    dir: &Path,
    holder: &Holder,
    reason: &HeldReason,
    policy: &TakeoverPolicy,
) -> Result<(), RefusedBecause> {
    let own = std::process::id();
    // To end everybody who has the guard would be to end this process too.
    if holder.pid != own && inherit::has_guard_of(own, dir) {
        return Err(RefusedBecause::ThisProcess);
    }
    match Reach::of(reason) {
        Reach::Elsewhere(because) => return Err(because),
        // They have the guard open: that is proof enough, and the holder itself is gone.
        Reach::Borrowers(_) => return Ok(()),
        Reach::Holder => {}
    }
    match holder.pid {
        pid if pid == own => Err(RefusedBecause::ThisProcess),
        0 | 1 => Err(RefusedBecause::Init),
        _ => {
            let proven = holder
                .identity()
                .is_some_and(|identity| identity.start_ticks.is_some());
            if proven || policy.unproven == Unproven::Allow {
                Ok(())
            } else {
                Err(RefusedBecause::Unproven)
            }
        }
    }
}

/// Whom a signal can reach.
#[derive(Debug)]
enum Reach<'a> {
    /// Nobody: the numbers of its processes mean others here.
    Elsewhere(RefusedBecause),
    /// Those who have the guard open since the holder has gone.
    Borrowers(&'a [u32]),
    /// The holder.
    Holder,
}

impl<'a> Reach<'a> {
    fn of(reason: &'a HeldReason) -> Self {
        match reason {
            HeldReason::OtherHost => Self::Elsewhere(RefusedBecause::OtherHost),
            HeldReason::OtherNamespace => Self::Elsewhere(RefusedBecause::OtherNamespace),
            HeldReason::Inherited { pids } => Self::Borrowers(pids),
            HeldReason::Guarded
            | HeldReason::Unguarded
            | HeldReason::Foreign
            | HeldReason::Initialising
            | HeldReason::ThisProcess
            | HeldReason::Unknown
            | HeldReason::Unsettled => Self::Holder,
        }
    }
}

/// The processes that have the lock, each with whether this stage has signalled it.
#[derive(Debug, Default)]
struct Targets {
    processes: Vec<(PidWatch, bool)>,
}

impl Targets {
    /// Opens those that are not open yet.
    fn add(
        &mut self,
        dir: &Path,
        holder: &Holder,
        reason: &HeldReason,
    ) -> Result<(), TakeoverError> {
        match Reach::of(reason) {
            Reach::Borrowers(pids) => {
                for pid in pids {
                    self.open(&ProcessIdentity {
                        pid: *pid,
                        start_ticks: None,
                        boot_id: None,
                    })?;
                }
                // A number may have been given to another process before it was opened. Who has the guard now, after
                // that, is meant.
                let now = inherit::inheritors_in(dir);
                self.processes
                    .retain(|(process, _)| now.contains(&process.identity().pid));
            }
            Reach::Elsewhere(_) => {}
            Reach::Holder => self.open(&holder.claimant().process)?,
        }
        Ok(())
    }

    fn open(&mut self, identity: &ProcessIdentity) -> Result<(), TakeoverError> {
        let is_open = |(process, _): &(PidWatch, bool)| process.identity().pid == identity.pid;
        if self.processes.iter().any(is_open) {
            return Ok(());
        }
        match PidWatch::of(identity) {
            Ok(process) => {
                self.processes
                    .extend(process.map(|process| (process, false)));
                Ok(())
            }
            Err(source) => Err(TakeoverError::Signal {
                pid: identity.pid,
                source,
            }),
        }
    }

    fn nobody_was_signalled(&mut self) {
        for (_process, signalled) in &mut self.processes {
            *signalled = false;
        }
    }

    /// Signals those that were not yet.
    fn signal(&mut self, dir: &Path, signal: Signal) -> Result<(), TakeoverError> {
        for (process, signalled) in &mut self.processes {
            if std::mem::replace(signalled, true) {
                continue;
            }
            let pid = process.identity().pid;
            let dir = dir.display();
            log::warn!("sending {signal} to process {pid} to take over `{dir}`");
            // One that stands still hears no signal but the last until it goes on.
            let sent = process
                .signal(signal)
                .and_then(|()| process.signal(Signal::SIGCONT));
            match sent {
                Ok(()) => {}
                // It has ended by itself.
                Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => {}
                Err(source) => return Err(TakeoverError::Signal { pid, source }),
            }
        }
        Ok(())
    }
}

/// Returns whether the holder let go within `grace`.
fn freed(dir: &Path, grace: Duration, from: &Holder) -> Result<bool, TakeoverError> {
    let now = Instant::now();
    match wait_free(dir, now.checked_add(grace).unwrap_or(now)) {
        Ok(Freed::Free) => Ok(true),
        Ok(Freed::Taken { by }) => Err(TakeoverError::Taken { by }),
        Err(WaitError::TimedOut {
            holder: Some(by), ..
        }) if !by.is_same_acquisition(from) => Err(TakeoverError::Taken { by }),
        Err(WaitError::TimedOut { .. }) => Ok(false),
        Err(WaitError::Inspect(error)) => Err(TakeoverError::Inspect(error)),
    }
}
