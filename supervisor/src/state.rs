use std::time::Duration;

use crate::{Account, Generation, Holder, Moment, ParkReason, StartReason};

/// Where a unit stands. None of these is a dead end: each says what would move
/// it on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum State {
    /// Nobody needs it; work, a start or a resume wakes it.
    Idle {
        /// Since when.
        since: Moment,
    },
    /// The driver was told to start it and has not answered yet.
    Starting {
        /// Since when.
        since: Moment,
        /// Why.
        reason: StartReason,
        /// Of the process to be.
        generation: Generation,
    },
    /// It runs.
    Running {
        /// Since when.
        since: Moment,
        /// Its process id.
        pid: u32,
        /// Of the process.
        generation: Generation,
        /// Whether somebody else had started it.
        adopted: bool,
    },
    /// Its process is gone; what that left behind is being ended.
    Ending {
        /// Since when the process is gone.
        since: Moment,
        /// Its process id.
        pid: u32,
        /// Of the process.
        generation: Generation,
    },
    /// It waits out a pause.
    Backoff {
        /// Since when.
        #[cfg_attr(feature = "serde", serde(default))]
        since: Moment,
        /// Until when.
        until: Moment,
        /// The account that the pause is booked to.
        account: Account,
        /// The how-manieth in that account, as in [`Notice::Backoff`](crate::Notice::Backoff).
        number: u32,
    },
    /// It crashes too often; attempts are paced.
    Degraded {
        /// Since when it waits for that attempt.
        #[cfg_attr(feature = "serde", serde(default))]
        since: Moment,
        /// When the next attempt is due.
        until: Moment,
        /// The crash number.
        number: u32,
    },
    /// Somebody holds its place and is watched.
    Held {
        /// Who.
        holder: Holder,
        /// Since when.
        since: Moment,
    },
    /// Somebody holds its place who cannot be watched; the lock is probed.
    Contended {
        /// When the next probe is due.
        until: Moment,
        /// Who.
        holder: Holder,
        /// How often this holder refused.
        refusals: u32,
        /// Since when this holder is known.
        since: Moment,
    },
    /// No further attempt by itself.
    Parked {
        /// Why.
        reason: ParkReason,
        /// Since when.
        since: Moment,
    },
    /// It is being stopped.
    Stopping {
        /// Since when.
        since: Moment,
        /// Its process id.
        pid: u32,
        /// Of the process.
        generation: Generation,
        /// What follows when it is down.
        then: AfterStop,
    },
    /// It is down because somebody wants that; a start or a resume lifts it.
    Stopped {
        /// Since when.
        since: Moment,
        /// Why.
        why: StopReason,
    },
}

impl State {
    /// Returns the process that belongs to this state, if there is one.
    #[must_use]
    pub fn process(&self) -> Option<(u32, Generation)> {
        match self {
            Self::Running {
                pid, generation, ..
            }
            | Self::Ending {
                pid, generation, ..
            }
            | Self::Stopping {
                pid, generation, ..
            } => Some((*pid, *generation)),
            Self::Idle { .. }
            | Self::Starting { .. }
            | Self::Backoff { .. }
            | Self::Degraded { .. }
            | Self::Held { .. }
            | Self::Contended { .. }
            | Self::Parked { .. }
            | Self::Stopped { .. } => None,
        }
    }

    /// Returns the name of the state in one lower-case word, for logs and tables.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle { .. } => "idle",
            Self::Starting { .. } => "starting",
            Self::Running { .. } => "running",
            Self::Ending { .. } => "ending",
            Self::Backoff { .. } => "backoff",
            Self::Degraded { .. } => "degraded",
            Self::Held { .. } => "held",
            Self::Contended { .. } => "contended",
            Self::Parked { .. } => "parked",
            Self::Stopping { .. } => "stopping",
            Self::Stopped { .. } => "stopped",
        }
    }
}

/// What follows a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum AfterStop {
    /// It stays down.
    StayDown,
    /// It is started again.
    Start,
}

/// Why a unit is down and stays so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum StopReason {
    /// A stop was asked for.
    Asked,
    /// Its work is done.
    Finished,
}

/// Everything that decides what happens next, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Explanation {
    /// Where the unit stands.
    pub state: State,
    /// When something happens by itself, if it does.
    pub next_at: Option<Moment>,
    /// What else would move it on.
    pub moved_by: Vec<Mover>,
    /// The crash account.
    pub crash: CrashFacts,
    /// The clean account.
    pub clean: WindowFacts,
    /// The memory account.
    pub memory: WindowFacts,
    /// The most memory seen at an ending on the memory cap, in bytes.
    pub memory_peak: Option<u64>,
    /// Consecutive failures of something it depends on.
    pub dependency: u32,
    /// The holder that refused last, how often, and of how many before the park.
    pub contention: Option<ContentionFacts>,
    /// The last ending that was no success, in its own words.
    pub last_failure: Option<String>,
}

/// What would move a unit on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Mover {
    /// A message or somebody who waits.
    Wake,
    /// [`Event::Start`](crate::Event::Start).
    Start,
    /// A person's [`Event::Resume`](crate::Event::Resume).
    Resume,
    /// A change of its configuration.
    ConfigChange,
    /// The end of the holder.
    HolderGone,
}

/// The crash account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CrashFacts {
    /// The number of the last crash, less what health has taken off.
    pub number: u32,
    /// Crashes within the window.
    pub in_window: u32,
    /// More than this many in the window degrade.
    pub soft: u32,
    /// The window.
    pub window: Duration,
    /// The number that parks; 0 means never.
    pub hard: u32,
    /// How much health is still needed to take one step off the number.
    pub next_decay_in: Option<Duration>,
}

/// An account that counts in a window.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct WindowFacts {
    /// Endings within the window, counted up to one more than what is free.
    pub count: u32,
    /// What is free.
    pub budget: u32,
    /// The window.
    pub window: Duration,
}

/// The contention account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ContentionFacts {
    /// Who refused.
    pub holder: Holder,
    /// How often in a row.
    pub refusals: u32,
    /// How many refusals are waited out before the unit is parked.
    pub allowed: u32,
    /// Since when this holder is known.
    pub since: Moment,
}
