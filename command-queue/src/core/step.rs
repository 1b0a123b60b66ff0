//! What a lane decided and somebody else has to do or say.

use std::time::Duration;

use super::active::Cause;

#[derive(Debug)]
pub(crate) enum Step<T> {
    /// Four fifths of the ceiling passed without progress.
    Suspect {
        seq: u64,
        item: T,
        idle_for: Duration,
        ran_for: Duration,
    },
    /// The owner has to be asked for the time of the last progress.
    AskProbe { seq: u64, item: T },
    /// The owner did not answer; it is not asked again.
    ProbeSilent { seq: u64, item: T },
    /// The task is told to stop and its caller gets the error.
    Stop {
        seq: u64,
        item: T,
        cause: Cause,
        idle_for: Duration,
        ran_for: Duration,
    },
    /// The slot of an abandoned task was freed; its thread is lost until it returns.
    Freed {
        seq: u64,
        replace: bool,
        ran_for: Duration,
    },
    /// An abandoned task keeps its slot. `replace` says whether the pool may replace the thread.
    Kept {
        seq: u64,
        replace: bool,
        ran_for: Duration,
    },
    /// A waiting task gave up. It never ran.
    Expired {
        seq: u64,
        item: T,
        waited: Duration,
        behind: Option<u64>,
    },
    /// Work waits, and nothing was dispatched for a while.
    Blocked(Blocked),
    /// Something was abandoned or reset, and no slot came free by it.
    Ineffective(Blocked),
}

/// The state of a lane that does not dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocked {
    pub(crate) active: usize,
    pub(crate) width: usize,
    pub(crate) queued: usize,
    pub(crate) oldest_active: Duration,
    pub(crate) oldest_queued: Duration,
    pub(crate) abandoned: usize,
    pub(crate) wedged: bool,
    pub(crate) full: bool,
    pub(crate) suppressed: u64,
}
