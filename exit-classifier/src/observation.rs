//! What was known when a process ended.

use std::time::Duration;

use crate::Ending;
use crate::label::labels;

labels! {
    /// What had been asked of the process before it ended.
    #[non_exhaustive]
    pub enum Asked {
        /// To end, and not to come back.
        Stop = "stop",
        /// To end, so that a new one can take its place.
        Restart = "restart",
        /// To leave at the next turn boundary and give its session up.
        Release = "release",
        /// To end the turn it is in.
        Interrupt = "interrupt",
        /// To end, because it showed no progress for too long.
        Stall = "stall",
    }
}

/// Who had the session at the moment of the ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockHolder {
    /// The holder's process id.
    pub pid: u32,
    /// Whether that process is alive.
    pub alive: bool,
    /// Whether it belongs to us: the process that ended, something it left behind, or another child of the same owner.
    ///
    /// A lock that only our own leftovers held is never contention.
    pub own_child: bool,
}

impl LockHolder {
    /// Returns whether this is a live process of somebody else, the one thing worth waiting for.
    #[must_use]
    pub const fn is_live_stranger(self) -> bool {
        self.alive && !self.own_child
    }
}

/// Everything a verdict is made from.
///
/// Start from [`Observation::new`], which assumes that nothing special happened, and set what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Observation<'a> {
    /// How it ended.
    pub ending: Ending,
    /// How long it ran, from its start to its death on a monotonic clock.
    pub ran_for: Duration,
    /// What had been asked of it, if anything; the strongest where there were several.
    pub asked: Option<Asked>,
    /// Who had the session at that moment, if anybody.
    pub lock_holder: Option<LockHolder>,
    /// Whether a memory watchdog had told it to drain.
    pub memory_drained: bool,
    /// How many out-of-memory kills the kernel counted in its control group since it started.
    pub oom_kills: u64,
    /// Whether the child is a known shell wrapper, whose codes 126, 127 and 129–159 speak of the command inside it.
    pub wrapper: bool,
    /// The last bytes it wrote to its standard error, in any encoding.
    pub stderr_tail: &'a [u8],
}

impl Observation<'_> {
    /// Returns the observation of an ending about which nothing else is known.
    #[must_use]
    pub const fn new(ending: Ending, ran_for: Duration) -> Self {
        Self {
            ending,
            ran_for,
            asked: None,
            lock_holder: None,
            memory_drained: false,
            oom_kills: 0,
            wrapper: false,
            stderr_tail: &[],
        }
    }

    /// Returns the signal it died of, or that a known shell wrapper reported with its code.
    #[must_use]
    pub const fn signal(&self) -> Option<i32> {
        match self.ending {
            Ending::Signal { number, .. } => Some(number),
            Ending::Code(_) if self.wrapper => self.ending.signal_told_by_shell(),
            Ending::Code(_) | Ending::Lost | Ending::NeverStarted { .. } => None,
        }
    }
}
