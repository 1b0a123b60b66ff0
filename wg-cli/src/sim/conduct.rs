//! The seam at which a test puts a flaw into the simulated daemon. The product has no such seam.

use std::fmt;
use std::time::Instant;

use supervisor::{Disposition, Event};

use super::disk::Disk;
use crate::chat::{Chat, Decision, Findings};

/// How the simulated daemon behaves where a flaw can be put in. What the methods do by themselves is what the real daemon
/// does.
pub trait Conduct: fmt::Debug {
    /// Decides about a start.
    fn decide(&self, chat: &mut Chat, found: Findings, retry: bool, now: Instant) -> Decision {
        chat.decide(found, retry, now)
    }

    /// Whether the decision is written down before the process is started.
    fn records_before_spawn(&self) -> bool {
        true
    }

    /// Whether what a handler left behind is ended when the handler was stopped.
    fn sweeps_after_stop(&self) -> bool {
        true
    }

    /// Whether a new daemon finds a handler that has not taken its lock yet.
    fn finds_unlocked_handlers(&self) -> bool {
        true
    }

    /// Whether a chat of which nothing is needed is left alone while the service is paused.
    fn rests_while_paused(&self) -> bool {
        true
    }

    /// Whether a change of an inbox is looked at.
    fn heeds_inbox(&self) -> bool {
        true
    }

    /// Whether a wish against running ends what runs.
    fn ends_what_runs(&self) -> bool {
        true
    }

    /// Whether a wish that could not be written down is refused.
    fn refuses_unwritten_wish(&self) -> bool {
        true
    }

    /// Whether a new daemon lifts a stop that was nothing but the end of the former one.
    fn starts_what_only_its_daemon_stopped(&self) -> bool {
        true
    }

    /// What the machine is told right after an ending, besides the ending.
    fn after_exit(&self, _disposition: &Disposition) -> Option<Event> {
        None
    }

    /// The message that a handler takes next.
    fn next_message(&self, disk: &Disk) -> Option<u64> {
        disk.unanswered()
    }
}

/// Does as the real daemon does.
#[derive(Debug, Clone, Copy)]
pub struct AsShipped;

impl Conduct for AsShipped {}
