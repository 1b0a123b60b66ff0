//! The simulated processes: handlers, their agents, and strangers who hold a session.

use exit_classifier::Ending;

use crate::handler::core::{Core, Then};

/// A process id; each is used once.
pub(super) type Pid = u32;

/// What a process is.
#[derive(Debug)]
pub(super) enum Kind {
    /// A handler that a daemon started.
    Handler(Handler),
    /// What a handler started for a turn, and what that started in turn. It shares the lock of its handler.
    Agent {
        /// The handler below which it was started.
        of: Pid,
    },
    /// Somebody else who has the session.
    Stranger {
        /// Whether a daemon can see its end.
        watchable: bool,
        /// Whether it is proven to be a handler of this workspace, as a person's own `wg nex` is.
        proven: bool,
    },
}

/// How far a handler is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It runs and has not tried to take its lock.
    Fresh,
    /// It has its lock and stands at a turn boundary.
    Boundary,
    /// It answers a message.
    Turn {
        /// Which.
        message: u64,
    },
    /// The reply is written; the cursor is not moved yet.
    Replied {
        /// To which message.
        message: u64,
        /// What it does afterwards.
        then: Then,
    },
}

/// How all handlers of a chat are for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// They fall over now and then.
    Well,
    /// They crash as soon as they have their lock.
    Crashes,
    /// They leave with 0 as soon as they have their lock.
    LeavesCleanly,
    /// They reach their memory cap as soon as they have their lock.
    Drains,
    /// What their agent depends on is down.
    AgentDown,
}

/// How a turn that runs is brought to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Nobody asked for that.
    No,
    /// It was interrupted.
    Interrupt,
    /// The handler was told to stop.
    Stop,
}

/// A handler's own facts; what it does about them is decided by its shipped core.
#[derive(Debug)]
pub(super) struct Handler {
    pub(super) phase: Phase,
    pub(super) core: Core,
    /// It was asked to leave at its turn boundary.
    pub(super) release_asked: bool,
    /// A SIGTERM came that it has not taken in.
    pub(super) told_to_stop: bool,
    pub(super) cut: Cut,
    /// When its next step is due, in milliseconds; a step of another time means nothing.
    pub(super) step_at: u64,
}

/// A live process.
#[derive(Debug)]
pub(super) struct Process {
    /// The chat whose session it serves or holds.
    pub(super) chat: usize,
    /// The nonce in its environment.
    pub(super) nonce: Option<String>,
    /// When it started, in clock ticks, unlike that of any other process.
    pub(super) start_ticks: u64,
    /// It does not end at SIGTERM.
    pub(super) stubborn: bool,
    /// Nobody will know how it ended.
    pub(super) status_is_lost: bool,
    /// When it is killed it has just started another.
    pub(super) forks_when_killed: bool,
    pub(super) kind: Kind,
}

/// A process that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dead {
    pub(super) ending: Ending,
    pub(super) status_is_lost: bool,
}

impl Process {
    pub(super) fn handler(&self) -> Option<&Handler> {
        match &self.kind {
            Kind::Handler(handler) => Some(handler),
            Kind::Agent { .. } | Kind::Stranger { .. } => None,
        }
    }

    pub(super) fn handler_mut(&mut self) -> Option<&mut Handler> {
        match &mut self.kind {
            Kind::Handler(handler) => Some(handler),
            Kind::Agent { .. } | Kind::Stranger { .. } => None,
        }
    }

    /// Whether it carries the marker of its chat.
    pub(super) fn is_marked(&self) -> bool {
        match self.kind {
            Kind::Handler(_) | Kind::Agent { .. } => true,
            Kind::Stranger { .. } => false,
        }
    }
}
