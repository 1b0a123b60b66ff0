//! The one table of exit codes, used by every verb of `wg` and by its handlers.
//!
//! The values from 64 on follow `sysexits(3)`; 90 to 92 are ours and tell the daemon why a handler left of its own accord; 124 is what
//! `timeout(1)` returns.

use std::fmt;

/// How a `wg` process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ExitCode {
    /// Everything asked for was done.
    Ok = 0,
    /// It was not done, for a reason that is told; an unknown chat too.
    Failed = 1,
    /// The command line was not understood.
    Usage = 2,
    /// The service is not running (only where that was the question: `status --check`).
    NotRunning = 3,
    /// An agent, an endpoint or the service cannot be reached.
    Unavailable = 69,
    /// A bug in `wg` itself.
    Bug = 70,
    /// The operating system refused something that should work.
    System = 71,
    /// Held by another process: try later.
    Held = 75,
    /// Not permitted to this user.
    NotPermitted = 77,
    /// The configuration or a state file is wrong.
    Config = 78,
    /// A handler left because it reached its memory cap.
    MemoryDrain = 90,
    /// A handler left because nobody was there and nothing was queued.
    IdleLeft = 91,
    /// A handler left because it was asked to.
    Released = 92,
    /// The time that the caller gave was over.
    TimedOut = 124,
}

impl ExitCode {
    /// Every code, in rising order.
    pub const ALL: [Self; 14] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::NotRunning,
        Self::Unavailable,
        Self::Bug,
        Self::System,
        Self::Held,
        Self::NotPermitted,
        Self::Config,
        Self::MemoryDrain,
        Self::IdleLeft,
        Self::Released,
        Self::TimedOut,
    ];

    /// Returns the number that the process exits with.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Returns the code with this number, if it is one of ours.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|known| i32::from(known.code()) == code)
    }

    /// Returns what the code means, in the words of the manual.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed (an unknown chat too)",
            Self::Usage => "usage",
            Self::NotRunning => "the service is not running",
            Self::Unavailable => "agent, endpoint or service unavailable",
            Self::Bug => "a bug in wg",
            Self::System => "the system refused",
            Self::Held => "held by another, try later",
            Self::NotPermitted => "not permitted",
            Self::Config => "configuration",
            Self::MemoryDrain => "left on its memory cap",
            Self::IdleLeft => "left idle",
            Self::Released => "left on request",
            Self::TimedOut => "timed out",
        }
    }
}

impl fmt::Display for ExitCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.code(), self.meaning())
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.code())
    }
}

#[cfg(test)]
mod tests {
    use super::ExitCode;

    #[test]
    fn every_code_is_found_again_by_its_number() {
        for code in ExitCode::ALL {
            assert_eq!(ExitCode::from_code(i32::from(code.code())), Some(code));
        }
        assert_eq!(ExitCode::from_code(5), None);
        assert_eq!(ExitCode::from_code(-1), None);
    }

    #[test]
    fn the_table_is_in_rising_order_and_says_something_about_each() {
        assert!(ExitCode::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(ExitCode::ALL.iter().all(|code| !code.meaning().is_empty()));
    }
}
