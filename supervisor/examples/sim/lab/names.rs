//! Names of what happened, for counting.

use supervisor::{Event, Notice};

pub(crate) fn event(event: &Event) -> &'static str {
    match event {
        Event::Start => "start",
        Event::Stop => "stop",
        Event::Kill => "kill",
        Event::Restart => "restart",
        Event::Resume => "resume",
        Event::Wake => "wake",
        Event::ConfigChanged => "config_changed",
        Event::HolderGone => "holder_gone",
        Event::HolderUnwatchable => "holder_unwatchable",
        Event::NotNeeded { .. } => "not_needed",
        Event::Held { .. } => "held",
        Event::NotNow { .. } => "not_now",
        Event::SpawnFailed { .. } => "spawn_failed",
        Event::Spawned { .. } => "spawned",
        Event::Adopted { .. } => "adopted",
        Event::Progress => "progress",
        Event::LeaderExited { .. } => "leader_exited",
        Event::Exited { .. } => "exited",
        Event::DeadlineReached => "deadline_reached",
    }
}

pub(crate) fn notice(notice: &Notice) -> &'static str {
    match notice {
        Notice::Spawned { .. } => "spawned",
        Notice::Adopted { .. } => "adopted",
        Notice::SpawnFailed { .. } => "spawn_failed",
        Notice::Exited { .. } => "exited",
        Notice::Backoff { .. } => "backoff",
        Notice::Degraded { .. } => "degraded",
        Notice::BudgetWarning { .. } => "budget_warning",
        Notice::Held { .. } => "held",
        Notice::Contended { .. } => "contended",
        Notice::HolderGone { .. } => "holder_gone",
        Notice::Parked { .. } => "parked",
        Notice::Unparked { .. } => "unparked",
        Notice::Idle => "idle",
        Notice::WokenEarly { .. } => "woken_early",
        Notice::NotNow { .. } => "not_now",
        Notice::Stopping { .. } => "stopping",
        Notice::Stopped => "stopped",
        Notice::Finished => "finished",
    }
}

/// Every name above, and those of the states: a run that never met one of them has
/// proven nothing about it.
pub(crate) const EVENTS: [&str; 19] = [
    "start",
    "stop",
    "kill",
    "restart",
    "resume",
    "wake",
    "config_changed",
    "holder_gone",
    "holder_unwatchable",
    "not_needed",
    "held",
    "not_now",
    "spawn_failed",
    "spawned",
    "adopted",
    "progress",
    "leader_exited",
    "exited",
    "deadline_reached",
];
pub(crate) const NOTICES: [&str; 18] = [
    "spawned",
    "adopted",
    "spawn_failed",
    "exited",
    "backoff",
    "degraded",
    "budget_warning",
    "held",
    "contended",
    "holder_gone",
    "parked",
    "unparked",
    "idle",
    "woken_early",
    "not_now",
    "stopping",
    "stopped",
    "finished",
];
pub(crate) const STATES: [&str; 11] = [
    "idle",
    "starting",
    "running",
    "ending",
    "backoff",
    "degraded",
    "held",
    "contended",
    "parked",
    "stopping",
    "stopped",
];
