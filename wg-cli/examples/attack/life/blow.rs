//! What is done to a workspace, and when.

use std::path::PathBuf;

/// One blow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Blow {
    /// The daemon is killed.
    KillDaemon,
    /// Every handler is killed.
    KillHandler,
    /// Every agent is killed.
    KillAgent,
    /// A file is removed, by its path below the workspace.
    Remove(PathBuf),
}

impl Blow {
    /// Those that need no file.
    pub(super) const KILLS: [&'static Self; 3] =
        [&Self::KillDaemon, &Self::KillHandler, &Self::KillAgent];
}

/// When it falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Moment {
    /// An agent works at the first message, two wait.
    InATurn,
    /// Everything is answered.
    AtRest,
}

impl Moment {
    pub(super) const ALL: [Self; 2] = [Self::InATurn, Self::AtRest];
}
