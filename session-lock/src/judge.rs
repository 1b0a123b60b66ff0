//! Whether the process behind a record is provably alive: facts in, verdict out.

use crate::claim::{Claim, State};
use crate::identity::ProcessIdentity;
use crate::process_facts::ProcessFacts;

/// Where the judge stands: a process number means something only inside one namespace of one boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// The boot of this machine; `None` where the system does not tell.
    pub boot_id: Option<String>,
    /// The inode of this process's pid namespace; `None` where the system does not tell.
    pub pid_namespace: Option<u64>,
    /// The host's name.
    pub host: String,
    /// Whether other hosts may use the same file system at the same time.
    pub shared_file_system: bool,
}

/// What is known about a process number, and where it was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The process.
    pub process: ProcessFacts,
    /// The place.
    pub here: Surroundings,
}

/// Supplies the facts that [`judge`] weighs. Tests supply their own.
pub trait Probe {
    /// Returns what can be found out about `pid`, which is at least 1.
    fn look_up(&self, pid: u32) -> ProcessFacts;
    /// Returns where this probe looks.
    fn here(&self) -> Surroundings;
}

/// Whether a holder is alive, and how that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Liveness {
    /// It runs, or nothing proves that it does not.
    Alive,
    /// No process has its number.
    Dead,
    /// It has ended; only its parent has not noticed yet.
    Zombie,
    /// Its number belongs to a process that started at another time.
    Reused,
    /// The machine was started anew since.
    Rebooted,
    /// It let go, and only a child that borrowed the lock may still have it.
    Left,
    /// It lives in another pid namespace, where its number means nothing to us.
    OtherNamespace,
    /// It lives on another host that uses the same file system.
    OtherHost,
    /// The system did not say.
    Unknown,
}

impl Liveness {
    /// Returns whether it is proven that the holder no longer holds.
    #[must_use]
    pub fn is_gone(self) -> bool {
        match self {
            Self::Dead | Self::Zombie | Self::Reused | Self::Rebooted | Self::Left => true,
            Self::Alive | Self::OtherNamespace | Self::OtherHost | Self::Unknown => false,
        }
    }
}

/// Who is said to hold the directory, in so far as the judge needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// The process; a record of another tool gives its number alone.
    pub process: ProcessIdentity,
    /// The inode of its pid namespace, where it told.
    pub pid_namespace: Option<u64>,
    /// The name of its host, where it told.
    pub host: Option<String>,
    /// Whether it said that it let go.
    pub left: bool,
}

impl Claimant {
    /// Returns the claimant behind a three-line record of another tool.
    #[must_use]
    pub fn unproven(pid: u32) -> Self {
        let process = ProcessIdentity {
            pid,
            start_ticks: None,
            boot_id: None,
        };
        Self {
            process,
            pid_namespace: None,
            host: None,
            left: false,
        }
    }
}

impl From<&Claim> for Claimant {
    fn from(claim: &Claim) -> Self {
        Self {
            process: claim.process.clone(),
            pid_namespace: claim.pid_namespace,
            host: Some(claim.host.clone()),
            left: claim.state != State::Held,
        }
    }
}

/// Returns whether the claimant is alive.
///
/// Whatever is not proven dead is alive: a start time that cannot be read, a process of another user, a stopped
/// one. Clocks are not consulted: "it started after the record was written" would rob a live holder whenever the
/// clock was set back.
#[must_use]
pub fn judge(claimant: &Claimant, facts: &Facts) -> Liveness {
    fn differ<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
        one.zip(other).is_some_and(|(one, other)| one != other)
    }
    let here = &facts.here;
    if claimant.left {
        return Liveness::Left;
    }
    if differ(claimant.process.boot_id.as_ref(), here.boot_id.as_ref()) {
        // On a file system of this machine alone, another boot can only be an earlier one.
        let elsewhere = here.shared_file_system && differ(claimant.host.as_ref(), Some(&here.host));
        return if elsewhere {
            Liveness::OtherHost
        } else {
            Liveness::Rebooted
        };
    }
    if differ(claimant.pid_namespace.as_ref(), here.pid_namespace.as_ref()) {
        return Liveness::OtherNamespace;
    }
    match &facts.process {
        ProcessFacts::Absent => Liveness::Dead,
        ProcessFacts::Ended => Liveness::Zombie,
        ProcessFacts::Unknown => Liveness::Unknown,
        ProcessFacts::Running { start_ticks } => {
            if differ(claimant.process.start_ticks.as_ref(), start_ticks.as_ref()) {
                Liveness::Reused
            } else {
                Liveness::Alive
            }
        }
    }
}
