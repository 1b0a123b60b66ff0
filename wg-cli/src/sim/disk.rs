//! What of one chat is on the disk, and outlives every process and every daemon.

use exit_classifier::Ending;
use supervisor::Snapshot;

use super::process::Pid;
use crate::chat::Wish;
use crate::store::chat_state::ChatRecord;

/// The files of one chat.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// The state file, in its real form: wishes and the record of the last spawn.
    pub(super) record: ChatRecord,
    /// The books of the machine, which the real state file holds as JSON.
    pub(super) books: Option<Snapshot>,
    /// How many messages were accepted; their ids are 1 to this.
    pub(super) inbox: u64,
    /// The replies in their order, by the message that each answers.
    pub(super) outbox: Vec<u64>,
    /// Up to which message the handler is done.
    pub(super) cursor: u64,
    /// The turn that was begun and has not ended: its message, and the number of the attempt.
    pub(super) attempt: Option<(u64, u32)>,
    /// Whether a reply was growing in that turn.
    pub(super) shown: bool,
    /// How the last handler said that it would end.
    pub(super) exit: Option<(Pid, Ending)>,
    /// Whether the chat's agent makes sense.
    pub(super) agent_is_usable: bool,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self {
            agent_is_usable: true,
            ..Self::default()
        }
    }

    /// The oldest message without a reply. The cursor only spares the beginning.
    #[must_use]
    pub fn unanswered(&self) -> Option<u64> {
        (self.cursor + 1..=self.inbox).find(|id| !self.outbox.contains(id))
    }

    /// The message after the cursor, whether or not there is a reply.
    #[must_use]
    pub fn after_cursor(&self) -> Option<u64> {
        (self.cursor < self.inbox).then(|| self.cursor + 1)
    }

    /// The wish that stands on the disk.
    #[must_use]
    pub fn wish(&self) -> Wish {
        crate::daemon::wishes::of(&self.record, None)
    }
}
