//! What a system says about a process number.

/// What was found out about a process number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessFacts {
    /// No process has the number.
    Absent,
    /// A process has it, but it has ended and waits for its parent.
    Ended,
    /// A process has it and runs, stopped or not.
    Running {
        /// When it started, in ticks after the boot; `None` where the system does not tell.
        start_ticks: Option<u64>,
    },
    /// The system did not say.
    Unknown,
}
