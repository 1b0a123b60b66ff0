use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::tree::{Group, Marker, Report};
use crate::{Disposition, Generation, Holder, Notice, SpawnFailure, StartReason};

/// Names a unit; the host chooses the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitId(pub u64);

impl fmt::Display for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a driver asks and tells the program that it works for.
///
/// All methods are called on the driver's one thread and must not wait: while one
/// of them runs, nothing else is started, stopped or noticed. A panic in one of them
/// ends the driver and leaves its processes running.
pub trait Host {
    /// Decides about a start: called before every attempt, also before those that
    /// only probe a lock. Before it returns [`Prepared::Go`] a host writes down why.
    fn prepare(&mut self, unit: UnitId, generation: Generation, reason: StartReason) -> Prepared;

    /// Says what an ending counts as. Called when the process and all that it
    /// left behind are gone.
    fn judge(&mut self, unit: UnitId, ended: &Ended) -> Disposition;

    /// Takes note of a process that was started, by its identity.
    fn spawned(&mut self, unit: UnitId, generation: Generation, pid: u32, start_ticks: u64) {
        let _ = (unit, generation, pid, start_ticks);
    }

    /// Says what a failure to start means. The standard answer is that a missing
    /// or unsuitable program is permanent and everything else is transient.
    fn spawn_error(&mut self, unit: UnitId, program: &OsStr, error: &io::Error) -> SpawnFailure {
        let _ = unit;
        SpawnFailure::of(program, error)
    }

    /// Returns the wait status of an adopted process that has ended, if the host
    /// has a record of it. Asked when the kernel does not tell.
    fn lost_status(&mut self, unit: UnitId, pid: u32, start_ticks: u64) -> Option<ExitStatus> {
        let _ = (unit, pid, start_ticks);
        None
    }

    /// Takes note of what a unit's machine has to tell.
    fn notice(&mut self, unit: UnitId, notice: &Notice) {
        let _ = (unit, notice);
    }

    /// Returns the environment variable that everything below this unit carries.
    /// Without one, what makes a session of its own and loses its parent before a
    /// stop began is not found.
    fn marker(&mut self, unit: UnitId) -> Option<Marker> {
        let _ = unit;
        None
    }

    /// Returns the control group that this unit's process enters by itself before it
    /// starts anything ([`Group::enter`]): made by the host in [`prepare`](Self::prepare) for this
    /// start alone, and removed by it in [`judge`](Self::judge). Asked right after a start and
    /// at an adoption. With one, all that the process starts is ended with one write and
    /// proven gone by one look, whatever it did to its parents, session and
    /// environment; without, or while the process was not seen in it, by what can be seen in `/proc`.
    ///
    /// Make one only where control groups are delegated to this program.
    fn group(&mut self, unit: UnitId) -> Option<Group> {
        let _ = unit;
        None
    }

    /// Asks the process to leave in a way that only the host knows. Returns
    /// whether that step exists; if not, the ladder goes on without waiting.
    fn cooperate(&mut self, unit: UnitId, step: Cooperation) -> bool {
        let _ = (unit, step);
        false
    }

    /// Returns how a unit is stopped.
    fn ladder(&mut self, unit: UnitId) -> Ladder {
        let _ = unit;
        Ladder::standard()
    }

    /// Says whether every process that the kernel hands to the calling program, because
    /// its parent ended, is a unit's: for a program that is a child subreaper and starts
    /// nothing but units. It finds what left its parent, its session *and* its
    /// environment. With several units an orphan is ended with the first of them that
    /// is ended after it came. What was a child before is to be exempt.
    fn owns_orphans(&mut self, unit: UnitId) -> bool {
        let _ = unit;
        false
    }

    /// Returns true for a process that no sweep may touch, nor anything below it.
    fn is_exempt(&mut self, pid: u32) -> bool {
        let _ = pid;
        false
    }
}

/// A host's answer to [`Host::prepare`].
#[derive(Debug)]
pub enum Prepared {
    /// Start this. It must have no `pre_exec` hook: with one, the whole memory map
    /// is copied for each start. Its output goes where the host says; a pipe that
    /// the host reads ties the process to the host's life.
    Go(Box<Command>),
    /// Somebody holds the place.
    Held {
        /// Who.
        holder: Holder,
        /// Whether that process can be watched from here.
        watchable: bool,
    },
    /// Nobody needs the unit now.
    NotNeeded,
    /// It cannot work until something is changed.
    Refused {
        /// What is wrong.
        reason: String,
    },
    /// It cannot be decided just now.
    NotNow {
        /// Why.
        reason: String,
        /// When to ask again.
        after: Duration,
    },
}

/// A step of a stop that only the host can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cooperation {
    /// Ask the process to leave, in whatever protocol it has.
    Release,
    /// Close its standard input.
    CloseStdin,
}

/// How a unit is stopped: each step waits for the process to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder {
    /// How long it may take to leave after [`Cooperation::Release`].
    pub release_grace: Duration,
    /// How long it may take to leave after [`Cooperation::CloseStdin`].
    pub stdin_grace: Duration,
    /// The signals to the process itself, in order.
    pub signals: Vec<Rung>,
    /// How long the dead may take to be gone before they are reported as
    /// survivors.
    pub final_grace: Duration,
}

/// A signal, and how long the process may take to leave after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// The number of the signal.
    pub signal: i32,
    /// How long to wait before the next step.
    pub grace: Duration,
}

impl Ladder {
    /// Returns SIGTERM with ten seconds of grace, then SIGKILL for all.
    #[must_use]
    pub fn standard() -> Self {
        Self {
            release_grace: Duration::from_secs(10),
            stdin_grace: Duration::from_secs(1),
            signals: vec![Rung {
                signal: 15,
                grace: Duration::from_secs(10),
            }],
            final_grace: Duration::from_secs(5),
        }
    }
}

/// How a process ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ended {
    /// Its process id.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
    /// Of the process.
    pub generation: Generation,
    /// Its exit status; `None` if nobody can know it.
    pub status: Option<ExitStatus>,
    /// How long it ran.
    pub ran_for: Duration,
    /// Whether a stop or restart had been asked for before it ended.
    pub stop_asked: bool,
    /// Whether it had been started by somebody else.
    pub adopted: bool,
    /// What it left behind, and what came of that.
    pub leftovers: Report,
}

impl SpawnFailure {
    /// Says what a failure to start `program` means, by its error number: see
    /// execve(2). A program that is missing, is no program or may not be executed
    /// stays so until somebody changes it; a lack of memory, processes or
    /// descriptors passes.
    #[must_use]
    pub fn of(program: &OsStr, error: &io::Error) -> Self {
        use nix::errno::Errno;
        let reason = format!("failed to start `{}`: {error}", program.display());
        let permanent = error
            .raw_os_error()
            .map(Errno::from_raw)
            .is_some_and(|errno| {
                matches!(
                    errno,
                    Errno::ENOENT
                        | Errno::EACCES
                        | Errno::ENOEXEC
                        | Errno::ENOTDIR
                        | Errno::EISDIR
                        | Errno::ELOOP
                        | Errno::EPERM
                        | Errno::E2BIG
                        | Errno::ENAMETOOLONG
                        | Errno::EINVAL
                )
            })
            || error.kind() == io::ErrorKind::InvalidInput;
        if permanent {
            Self::Permanent { reason }
        } else {
            Self::Transient { reason }
        }
    }
}
