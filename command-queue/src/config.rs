//! What a caller may choose: settings of a lane, of one task, and of the whole queue.
//!
//! The structs have public fields and no `Default`: each has one constructor with a name that says
//! what it gives, and the rest is struct update syntax.

use std::fmt;
use std::time::{Duration, Instant};

/// No progress for this long is a stall, unless a lane says otherwise.
pub const DEFAULT_STALL_CEILING: Duration = Duration::from_secs(600);
/// The longest that a nested wait stands behind work of other people, unless the caller says otherwise.
pub const DEFAULT_HOLDER_WAIT: Duration = Duration::from_secs(300);

/// A span that may be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// There is no limit.
    Never,
    /// The limit is reached once this much time has passed (`>=`).
    After(Duration),
}

impl Limit {
    pub(crate) fn span(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::After(span) => Some(span),
        }
    }
}

/// How long a task may go without progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleLimit {
    /// The lane's stall ceiling applies; the error is `Stalled`.
    LaneCeiling,
    /// This span applies instead of the lane's ceiling; the error is `TimedOut` with kind `Idle`.
    After(Duration),
    /// Silence is never held against this task.
    Never,
}

/// What happens to the slot of a task that overran its limit and does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overrun {
    /// The slot is freed after the grace and the next task starts, although the old one still runs.
    Free,
    /// The slot stays taken until the work really ends: for lanes with a single writer. The caller
    /// gets the error all the same.
    Hold,
}

/// How many tasks may wait in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// As many as memory holds.
    Unbounded,
    /// At most this many; one more is refused and handed back.
    Bounded(usize),
}

/// Which of the waiting tasks goes first. Within a priority the order is first in, first out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Housekeeping.
    Background,
    /// The usual case.
    Normal,
    /// A person is waiting.
    Foreground,
}

/// Settings of one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneConfig {
    /// How many tasks may run at once; 0 means paused.
    pub width: usize,
    /// No progress for this long is a stall.
    pub stall_ceiling: Limit,
    /// How long a task that was told to stop may take to do so before it counts as abandoned.
    pub cancel_grace: Duration,
    /// What happens to the slot of a task that does not stop.
    pub overrun: Overrun,
    /// How many freed-but-still-running tasks the lane tolerates before it frees no more slots.
    pub max_phantoms: usize,
    /// How many tasks may wait.
    pub capacity: Capacity,
    /// The capacity group that this lane shares with others; it must have been configured.
    pub group: Option<String>,
    /// A task that waited this long is reported, and so is a lane that did not dispatch for as long.
    pub warn_after: Duration,
    /// At most one warning of each kind per lane in this span; the others are counted.
    pub warn_every: Duration,
    /// A waiting task gains one priority tier each time this span passes, never above foreground.
    pub ageing: Duration,
}

impl LaneConfig {
    /// Returns a lane that runs one task at a time and gives the slot of a stalled task away:
    /// ceiling 600 s, grace 5 s, one phantom, unbounded, warnings after 2 s and every 30 s, one tier per 30 s.
    #[must_use]
    pub fn serial() -> Self {
        Self {
            width: 1,
            stall_ceiling: Limit::After(DEFAULT_STALL_CEILING),
            cancel_grace: Duration::from_secs(5),
            overrun: Overrun::Free,
            max_phantoms: 1,
            capacity: Capacity::Unbounded,
            group: None,
            warn_after: Duration::from_secs(2),
            warn_every: Duration::from_secs(30),
            ageing: Duration::from_secs(30),
        }
    }

    /// Returns a lane for a single writer: like [`serial`](Self::serial), but a stalled task keeps its
    /// slot until it really ends.
    #[must_use]
    pub fn single_writer() -> Self {
        Self {
            overrun: Overrun::Hold,
            ..Self::serial()
        }
    }
}

/// A question to the owner of a task: when did it last make progress?
///
/// It is asked on a thread of its own, only when the task is about to be suspected or stopped, and
/// never under a lock. An answer that lies in the future, a panic, or no answer within a second
/// counts as "no progress since the start", is reported once, and the probe is not asked again.
pub struct Probe(pub(crate) Box<dyn Fn() -> Instant + Send + Sync>);

impl Probe {
    /// Wraps a closure that returns the time of the last progress.
    pub fn new(last_progress: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self(Box::new(last_progress))
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Probe")
    }
}

/// Settings of one task.
#[derive(Debug)]
pub struct SubmitOptions {
    /// Which waiting task goes first.
    pub priority: Priority,
    /// How long the task may run in all, whatever progress it makes.
    pub budget: Limit,
    /// How long the task may go without progress.
    pub idle: IdleLimit,
    /// How long the task may wait for its turn.
    pub queue_limit: Limit,
    /// What diagnostics call this task.
    pub label: Option<Box<str>>,
    /// Asked for progress in addition to what the task reports itself.
    pub probe: Option<Probe>,
}

impl SubmitOptions {
    /// Returns the usual options: normal priority, the lane's stall ceiling and no other limit.
    #[must_use]
    pub fn normal() -> Self {
        Self {
            priority: Priority::Normal,
            budget: Limit::Never,
            idle: IdleLimit::LaneCeiling,
            queue_limit: Limit::Never,
            label: None,
            probe: None,
        }
    }

    /// Returns [`normal`](Self::normal) with foreground priority.
    #[must_use]
    pub fn foreground() -> Self {
        Self {
            priority: Priority::Foreground,
            ..Self::normal()
        }
    }

    /// Returns [`normal`](Self::normal) with background priority.
    #[must_use]
    pub fn background() -> Self {
        Self {
            priority: Priority::Background,
            ..Self::normal()
        }
    }

    /// Returns these options with a name for diagnostics.
    #[must_use]
    pub fn labelled(mut self, label: impl Into<Box<str>>) -> Self {
        self.label = Some(label.into());
        self
    }
}

/// Settings of a whole queue.
#[derive(Clone, Debug)]
pub struct QueueConfig {
    /// What a lane gets that nobody configured.
    pub lane_defaults: LaneConfig,
    /// Workers that are started as soon as there is work for them.
    pub core_threads: usize,
    /// The most workers at once; workers held by abandoned tasks do not count.
    pub max_threads: usize,
    /// How long a worker may stay with one lane whose tasks are short while other lanes wait for it. Zero is one
    /// task at a time, strictly in turn; a task that takes longer than this is always the last of its turn.
    pub turn: Duration,
    /// A worker that had nothing to do for this long leaves.
    pub idle_leave: Duration,
    /// How many workers may be lost to abandoned tasks at once, over all lanes.
    pub max_phantoms: usize,
    /// A lane that nobody configured is forgotten once it was idle for this long.
    pub lane_retention: Duration,
    /// Threads are called this, a dash, and what they do.
    pub thread_name: String,
}

impl QueueConfig {
    /// Returns settings for a machine shared with other programs: serial lanes, as many core workers as
    /// the machine has processors, 64 workers at most, turns of 10 µs, idle workers leave after 10 s, 16 phantoms.
    #[must_use]
    pub fn recommended() -> Self {
        Self {
            lane_defaults: LaneConfig::serial(),
            core_threads: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            max_threads: 64,
            turn: Duration::from_micros(10),
            idle_leave: Duration::from_secs(10),
            max_phantoms: 16,
            lane_retention: Duration::from_secs(10),
            thread_name: "lane".into(),
        }
    }
}
