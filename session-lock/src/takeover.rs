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

use nix::sys::signal::Signal;

use crate::error::{HeldReason, InspectError, RequestError, write_held};
use crate::holder::Holder;
use crate::identity::ProcessIdentity;
use crate::inspect::{Inspection, inspect};
use crate::marker::request_release;
use crate::wait::{Freed, WaitError, wait_free};
use crate::watch::PidWatch;

/// How far a takeover may go, and how long each stage may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeoverPolicy {
    /// How long the holder has to obey the request to release; zero sends none.
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
    /// It is this very process.
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
            Self::ThisProcess => "it is this very process",
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
/// [`TakeoverError::Refused`] where a signal could hit the wrong process; the other variants say what went wrong.
pub fn takeover(dir: &Path, policy: &TakeoverPolicy) -> Result<TakenOver, TakeoverError> {
    let held = match inspect(dir).map_err(TakeoverError::Inspect)? {
        Inspection::Held(held) => held,
        Inspection::Free | Inspection::Stale { .. } | Inspection::Corrupt { .. } => {
            return Ok(TakenOver::WasFree);
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
    let may_signal = may_signal(&holder, &held.reason, policy);
    if let Err(because @ (RefusedBecause::ThisProcess | RefusedBecause::Init)) = may_signal {
        return Err(refused(Some(&holder), because));
    }
    // The descriptors are opened before anything is waited for: whoever has a number later is not meant.
    let targets = targets(&holder, &held.reason)?;
    if !policy.request_grace.is_zero() {
        request_release(dir).map_err(TakeoverError::Request)?;
        if freed(dir, policy.request_grace, &holder)? {
            return Ok(TakenOver::Released { from: holder });
        }
    }
    if let Err(because) = may_signal {
        return Err(refused(Some(&holder), because));
    }
    for (signal, grace, killed) in [
        (Signal::SIGTERM, policy.term_grace, false),
        (Signal::SIGKILL, policy.kill_grace, true),
    ] {
        for target in &targets {
            log::warn!(
                "sending {signal} to process {} to take over `{}`",
                target.identity().pid,
                dir.display()
            );
            match target.signal(signal) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32) => {}
                Err(source) => {
                    return Err(TakeoverError::Signal {
                        pid: target.identity().pid,
                        source,
                    });
                }
            }
        }
        if freed(dir, grace, &holder)? {
            return Ok(TakenOver::Ended {
                from: holder,
                killed,
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

fn may_signal(
    holder: &Holder,
    reason: &HeldReason,
    policy: &TakeoverPolicy,
) -> Result<(), RefusedBecause> {
    let own = std::process::id();
    match reason {
        HeldReason::OtherHost => return Err(RefusedBecause::OtherHost),
        HeldReason::OtherNamespace => return Err(RefusedBecause::OtherNamespace),
        HeldReason::Inherited { pids } if pids.contains(&own) => {
            return Err(RefusedBecause::ThisProcess);
        }
        // They have the guard open: that is proof enough, and the holder itself is gone.
        HeldReason::Inherited { .. } => return Ok(()),
        HeldReason::Guarded
        | HeldReason::Unguarded
        | HeldReason::Foreign
        | HeldReason::Initialising
        | HeldReason::ThisProcess
        | HeldReason::Unknown
        | HeldReason::Unsettled => {}
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

/// Opens the processes that have the lock.
fn targets(holder: &Holder, reason: &HeldReason) -> Result<Vec<PidWatch>, TakeoverError> {
    let identities: Vec<ProcessIdentity> = match reason {
        HeldReason::Inherited { pids } => pids
            .iter()
            .map(|pid| ProcessIdentity {
                pid: *pid,
                start_ticks: None,
                boot_id: None,
            })
            .collect(),
        HeldReason::OtherHost | HeldReason::OtherNamespace => Vec::new(),
        HeldReason::Guarded
        | HeldReason::Unguarded
        | HeldReason::Foreign
        | HeldReason::Initialising
        | HeldReason::ThisProcess
        | HeldReason::Unknown
        | HeldReason::Unsettled => vec![holder.claimant().process],
    };
    let open = |identity: &ProcessIdentity| {
        PidWatch::of(identity)
            .map_err(|source| TakeoverError::Signal {
                pid: identity.pid,
                source,
            })
            .transpose()
    };
    identities.iter().filter_map(open).collect()
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
