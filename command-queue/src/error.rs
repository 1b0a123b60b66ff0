//! Errors, one type per operation. Spans are measured, never the limit printed as if it had elapsed.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::id::TaskId;

/// Why a queue takes no more work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Work that was accepted is finished.
    Drain,
    /// Waiting work is handed back and running work is told to stop.
    Now,
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drain => "draining",
            Self::Now => "shutting down",
        })
    }
}

/// Why a task was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubmitError {
    /// The lane already holds as many waiting tasks as it may.
    Full {
        /// The lane's name.
        lane: Arc<str>,
        /// How many may wait.
        capacity: usize,
    },
    /// The queue takes no more work.
    Closed {
        /// How it was closed.
        reason: Close,
    },
    /// The caller runs in the only slot of the lane that it wants to wait for.
    WouldDeadlock {
        /// The lane's name.
        lane: Arc<str>,
    },
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { lane, capacity } => {
                write!(f, "lane `{lane}` is full: {capacity} tasks wait already")
            }
            Self::Closed { reason } => write!(f, "queue takes no more work: {reason}"),
            Self::WouldDeadlock { lane } => {
                write!(
                    f,
                    "waiting for lane `{lane}` from inside its only slot would never end"
                )
            }
        }
    }
}

impl Error for SubmitError {}

/// A refused task: the reason, and the task itself.
pub struct Refused<F> {
    /// Why it was refused.
    pub reason: SubmitError,
    /// What was to be run.
    pub task: F,
}

impl<F> fmt::Debug for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

impl<F> fmt::Display for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<F> Error for Refused<F> {}

impl<F> From<Refused<F>> for SubmitError {
    fn from(refused: Refused<F>) -> Self {
        refused.reason
    }
}

/// Which of a task's own limits passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timeout {
    /// The total running time.
    Budget,
    /// The time without progress.
    Idle,
}

/// Why a task that was accepted has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskError {
    /// It made no progress for as long as the lane allows. It may still be running.
    Stalled {
        /// The lane's name.
        lane: Arc<str>,
        /// Measured time since its last progress.
        idle_for: Duration,
        /// Measured time since its start.
        ran_for: Duration,
    },
    /// It overran a limit of its own. It may still be running.
    TimedOut {
        /// The lane's name.
        lane: Arc<str>,
        /// Which limit.
        kind: Timeout,
        /// What the limit was set to.
        limit: Duration,
        /// Measured time since its last progress.
        idle_for: Duration,
        /// Measured time since its start.
        ran_for: Duration,
    },
    /// It waited longer for its turn than it was willing to. It never ran.
    QueuedTooLong {
        /// The lane's name.
        lane: Arc<str>,
        /// Measured time in the queue.
        waited: Duration,
        /// The task that has held a slot of the lane longest, if any has.
        behind: Option<TaskId>,
    },
    /// It panicked; the lane went on.
    Panicked {
        /// The lane's name.
        lane: Arc<str>,
        /// What the panic said.
        message: String,
    },
    /// It was cancelled. If it was running then, it may still be.
    Cancelled {
        /// The lane's name.
        lane: Arc<str>,
    },
    /// It was waiting when its lane was cleared. It never ran.
    Cleared {
        /// The lane's name.
        lane: Arc<str>,
    },
    /// It was running when its lane was reset. It may still be running.
    Reset {
        /// The lane's name.
        lane: Arc<str>,
    },
    /// It was waiting when the queue closed. It never ran.
    Closed {
        /// How it was closed.
        reason: Close,
    },
    /// The caller runs in the only slot of the lane that it wants to wait for. The task is still queued.
    WouldDeadlock {
        /// The lane's name.
        lane: Arc<str>,
    },
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stalled {
                lane,
                idle_for,
                ran_for,
            } => {
                write!(
                    f,
                    "task in lane `{lane}` stalled: no progress for {idle_for:.1?} of {ran_for:.1?}"
                )
            }
            Self::TimedOut {
                lane,
                kind: Timeout::Budget,
                limit,
                ran_for,
                ..
            } => {
                write!(
                    f,
                    "task in lane `{lane}` ran for {ran_for:.1?}, its budget was {limit:.1?}"
                )
            }
            Self::TimedOut {
                lane,
                kind: Timeout::Idle,
                limit,
                idle_for,
                ran_for,
            } => write!(
                f,
                "task in lane `{lane}` made no progress for {idle_for:.1?} of {ran_for:.1?}, its idle limit was {limit:.1?}"
            ),
            Self::QueuedTooLong {
                lane,
                waited,
                behind: Some(holder),
            } => {
                write!(
                    f,
                    "task waited {waited:.1?} in lane `{lane}` behind task {holder}"
                )
            }
            Self::QueuedTooLong {
                lane,
                waited,
                behind: None,
            } => {
                write!(
                    f,
                    "task waited {waited:.1?} in lane `{lane}`, whose slots nobody held"
                )
            }
            Self::Panicked { lane, message } => {
                write!(f, "task in lane `{lane}` panicked: {message}")
            }
            Self::Cancelled { lane } => write!(f, "task in lane `{lane}` was cancelled"),
            Self::Cleared { lane } => write!(f, "task was waiting when lane `{lane}` was cleared"),
            Self::Reset { lane } => write!(f, "task was running when lane `{lane}` was reset"),
            Self::Closed { reason } => {
                write!(f, "task was waiting when the queue closed: {reason}")
            }
            Self::WouldDeadlock { lane } => {
                write!(
                    f,
                    "waiting for lane `{lane}` from inside its only slot would never end"
                )
            }
        }
    }
}

impl Error for TaskError {}

/// A lease or ticket of a task that is over, or was reclaimed. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseLost {
    /// The task's name.
    pub id: TaskId,
}

impl fmt::Display for LeaseLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} no longer holds its slot", self.id)
    }
}

impl Error for LeaseLost {}

/// A lane cannot be configured like this.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The lane names a capacity group that was not configured.
    UnknownGroup {
        /// The lane's name.
        lane: String,
        /// The group's name.
        group: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownGroup { lane, group } => write!(
                f,
                "lane `{lane}` names group `{group}`, which is not configured"
            ),
        }
    }
}

impl Error for ConfigError {}
