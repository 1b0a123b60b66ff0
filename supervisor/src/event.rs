use std::fmt;
use std::time::Duration;

use crate::Moment;

/// Counts the attempts to start a unit; each process has its own.
///
/// Everything that is said about a process carries its generation, so that a
/// late word about a predecessor never touches its successor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the wishes about a unit. A driver compares it right before a spawn:
/// if a stop came in between, the numbers differ and nothing is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Epoch(pub u64);

/// Who holds what a unit needs exclusively, usually the lock of its session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Holder {
    /// Its process id; 0 where nobody knows.
    pub pid: u32,
    /// When that process started, in clock ticks since boot (field 22 of
    /// `/proc/<pid>/stat`). Without it a recycled pid cannot be told apart.
    pub start: Option<u64>,
    /// What the holder says it is, for people.
    pub label: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pid == 0 {
            f.write_str("an unknown process")?;
        } else {
            write!(f, "pid {}", self.pid)?;
        }
        if self.label.is_empty() {
            Ok(())
        } else {
            write!(f, " ({})", self.label)
        }
    }
}

/// What an ending counts as. Whoever judges endings decides this; the machine
/// decides what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Disposition {
    /// It left in good order and may be started again: the clean account.
    Clean,
    /// It ended because somebody asked for that: nothing is counted.
    Requested,
    /// It gave way to somebody who asked for its place: nothing is counted, and
    /// it stays away for `release_pause`.
    Released,
    /// It left because nobody needs it: nothing is counted, and it is started
    /// again only if the host says that somebody does after all.
    IdleLeft,
    /// Its work is done for good: it is not started again by itself.
    Finished,
    /// Somebody else ended it with a signal that asks (not SIGKILL): no crash,
    /// paced like a clean restart.
    ExternalStop {
        /// Which signal.
        reason: String,
    },
    /// It left because its memory cap was reached: the memory account.
    Memory {
        /// The most memory it was seen to use, in bytes.
        peak: Option<u64>,
    },
    /// Somebody else holds what it needs: contention.
    Contention {
        /// Who.
        holder: Holder,
        /// Whether that process can be watched from here. If so there is no
        /// further attempt until it has ended.
        watchable: bool,
    },
    /// It cannot work until something is changed: parked at once.
    Permanent {
        /// What is wrong.
        reason: String,
    },
    /// Something that it depends on is down: the dependency account.
    Dependency {
        /// What is down.
        reason: String,
    },
    /// Anything else: the crash account.
    Crash {
        /// What was seen.
        reason: String,
    },
}

/// Why a start is attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum StartReason {
    /// It was asked for with [`Event::Start`].
    Asked,
    /// There is work or somebody waiting ([`Event::Wake`]).
    Woken,
    /// There is work, and it cut a waiting pause short.
    WokenEarly,
    /// A person resumed it.
    Resumed,
    /// A restart was asked for, and the former process is down.
    Restarted,
    /// The configuration changed.
    ConfigChanged,
    /// Whoever held its place has ended.
    HolderGone,
    /// A pause is over, or none was due.
    Retry(Account),
}

/// The accounts that endings are booked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Account {
    /// Crashes.
    Crash,
    /// Clean restarts, and everything else that restarts without a pause.
    Clean,
    /// Restarts on the memory cap.
    Memory,
    /// Probes of a lock that somebody holds who cannot be watched.
    Contention,
    /// Failures of something that the unit depends on.
    Dependency,
    /// The pause after a release.
    Release,
    /// The host could not decide just now.
    NotNow,
}

/// Why a start failed before there was a process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum SpawnFailure {
    /// It will fail again until something is changed, such as a missing program.
    Permanent {
        /// What is wrong, with the path.
        reason: String,
    },
    /// It may work later, such as a process table that is full.
    Transient {
        /// What is wrong.
        reason: String,
    },
}

/// What happened. Every event about a process carries its generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The unit should be up. Lifts [`State::Stopped`](crate::State::Stopped);
    /// does not cut a pause short.
    Start,
    /// The unit should be down, whatever it was about to do.
    Stop,
    /// The unit should be down now: no patience.
    Kill,
    /// The process that runs now should be replaced. A unit that is down is started;
    /// one that waits for something goes on waiting.
    Restart,
    /// A person wants another try: un-parks, cuts any pause short, and forgives what had been parked or paced.
    Resume,
    /// There is work, or somebody is waiting.
    Wake,
    /// The configuration of this unit changed.
    ConfigChanged,
    /// The holder that was reported is gone.
    HolderGone,
    /// The holder that was reported turned out not to be watchable.
    HolderUnwatchable,
    /// Answer to [`Action::Spawn`]: nobody needs the unit now.
    NotNeeded {
        /// Of the action.
        generation: Generation,
    },
    /// Answer to [`Action::Spawn`]: somebody holds its place.
    Held {
        /// Of the action.
        generation: Generation,
        /// Who.
        holder: Holder,
        /// Whether that process can be watched from here.
        watchable: bool,
    },
    /// Answer to [`Action::Spawn`]: it cannot be decided just now.
    NotNow {
        /// Of the action.
        generation: Generation,
        /// Why.
        reason: String,
        /// When to ask again; at least a tenth of a second is waited.
        after: Duration,
    },
    /// Answer to [`Action::Spawn`]: there was no process.
    SpawnFailed {
        /// Of the action.
        generation: Generation,
        /// Why.
        failure: SpawnFailure,
    },
    /// Answer to [`Action::Spawn`]: there is a process.
    Spawned {
        /// Of the action.
        generation: Generation,
        /// Its process id.
        pid: u32,
    },
    /// A process that was started by somebody earlier is this unit's.
    Adopted {
        /// Its process id.
        pid: u32,
        /// When it started.
        since: Moment,
    },
    /// The process finished a piece of work, which forgives.
    Progress,
    /// The process is gone; what it left behind is being ended.
    LeaderExited {
        /// Of the process.
        generation: Generation,
    },
    /// The process and all that it left behind are gone.
    Exited {
        /// Of the process.
        generation: Generation,
        /// What that counts as.
        disposition: Disposition,
    },
    /// The moment of [`Machine::deadline`](crate::Machine::deadline) has come.
    DeadlineReached,
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the host and start a process, if [`Machine::epoch`](crate::Machine::epoch)
    /// still is `epoch`; answer with one of the events that carry `generation`.
    Spawn {
        /// Of the process to be.
        generation: Generation,
        /// The wish that this follows from.
        epoch: Epoch,
        /// Why.
        reason: StartReason,
    },
    /// End this process and everything below it, with patience.
    Terminate {
        /// Of the process.
        generation: Generation,
    },
    /// End this process and everything below it at once.
    Kill {
        /// Of the process.
        generation: Generation,
    },
    /// Report [`Event::HolderGone`] when this process has ended, or
    /// [`Event::HolderUnwatchable`]. The watch ends when the unit is no longer
    /// [`State::Held`](crate::State::Held).
    Watch {
        /// Whom.
        holder: Holder,
    },
}

/// The answer of a machine to an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "the action must be executed and the notices told"]
pub struct Step {
    /// What to do, if anything.
    pub action: Option<Action>,
    /// What to tell, in order.
    pub notices: Vec<Notice>,
}

/// Why a unit is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ParkReason {
    /// It cannot work until something is changed.
    Permanent {
        /// What is wrong.
        reason: String,
    },
    /// It crashed too often.
    CrashLimit {
        /// The crash number that was reached.
        crashes: u32,
        /// What was seen last.
        last: String,
    },
    /// Somebody who cannot be watched kept its place through the whole ladder.
    Contended {
        /// Who.
        holder: Holder,
        /// Since when this holder is known.
        since: Moment,
        /// How often it refused.
        refusals: u32,
    },
}

/// What ended a park.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum UnparkedBy {
    /// A person.
    Resume,
    /// A change of the configuration.
    ConfigChanged,
    /// The holder is gone.
    HolderGone,
    /// A process of this unit was found alive.
    Adopted,
}

/// What a machine has to tell: everything that an audit needs, as data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Notice {
    /// There is a process.
    Spawned {
        /// Of the process.
        generation: Generation,
        /// Its process id.
        pid: u32,
        /// Why it was started.
        reason: StartReason,
    },
    /// A process that was found alive is supervised from now on.
    Adopted {
        /// Of the process.
        generation: Generation,
        /// Its process id.
        pid: u32,
    },
    /// There is no process.
    SpawnFailed {
        /// Of the process that was to be.
        generation: Generation,
        /// Why.
        failure: SpawnFailure,
    },
    /// The process and all that it left behind are gone.
    Exited {
        /// Of the process.
        generation: Generation,
        /// Its process id.
        pid: u32,
        /// How long it ran.
        ran_for: Duration,
        /// Whether it ended because it was asked to.
        requested: bool,
        /// What the ending counts as.
        disposition: Disposition,
    },
    /// A pause before the next attempt; told for a pause of zero as well.
    Backoff {
        /// The account that the pause is booked to.
        account: Account,
        /// The how-manieth in that account: of crashes the crash number, of clean
        /// restarts and restarts on the memory cap the how-manieth since the window
        /// was last empty, of a dependency's failures the how-manieth in a row.
        number: u32,
        /// The length of the pause.
        delay: Duration,
        /// When it ends.
        until: Moment,
    },
    /// Too many crashes in the window; told once per episode.
    Degraded {
        /// The crash number.
        number: u32,
        /// Crashes within the window.
        in_window: u32,
        /// The window.
        window: Duration,
        /// The pace of the attempts from now on.
        pace: Duration,
    },
    /// A budget is used up; told once per episode.
    BudgetWarning {
        /// Which.
        account: Account,
        /// Endings within the window.
        count: u32,
        /// What would have been free.
        budget: u32,
        /// The window.
        window: Duration,
        /// The most memory seen, in bytes, for the memory account.
        peak: Option<u64>,
    },
    /// Somebody holds its place and is watched: no attempt while it lives.
    Held {
        /// Who.
        holder: Holder,
    },
    /// Somebody holds its place who cannot be watched.
    Contended {
        /// Who.
        holder: Holder,
        /// How often this holder refused so far.
        refusals: u32,
        /// When the lock is probed again.
        until: Moment,
    },
    /// The holder is gone.
    HolderGone {
        /// Who it was.
        holder: Holder,
    },
    /// No further attempt by itself.
    Parked {
        /// Why.
        reason: ParkReason,
    },
    /// A park is over.
    Unparked {
        /// Who or what ended it.
        by: UnparkedBy,
    },
    /// Nobody needs it.
    Idle,
    /// Work cut a pause short.
    WokenEarly {
        /// The account of the pause.
        account: Account,
        /// The number in that account which cannot be cut short again.
        number: u32,
    },
    /// The host cannot decide just now.
    NotNow {
        /// Why.
        reason: String,
        /// When it is asked again.
        until: Moment,
    },
    /// It is being stopped.
    Stopping {
        /// Of the process.
        generation: Generation,
        /// Its process id.
        pid: u32,
        /// Whether a start follows.
        restart: bool,
    },
    /// It is down and stays so until it is started.
    Stopped,
    /// Its work is done for good.
    Finished,
}
