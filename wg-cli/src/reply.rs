//! Waiting for the reply to a message, and showing it while it comes.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::store::graph::ChatId;
use crate::store::messages::{Message, Side, Tail};
use crate::store::resolve::{self, Make};
use crate::store::watch::DirWatch;
use crate::store::workspace::Workspace;

/// How long somebody waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Until the reply comes.
    Forever,
    /// This long.
    For(Duration),
}

impl Patience {
    fn deadline(self) -> Option<Instant> {
        match self {
            Self::Forever => None,
            Self::For(span) => clock::steady().checked_add(span),
        }
    }
}

/// Waits for the reply to a message of a chat; `stream` gets the pieces of it as they come.
///
/// Nothing is polled: the session directory is watched. Where the kernel gives no watch, it is looked at once a second.
///
/// # Errors
///
/// [`ExitCode::TimedOut`] when the patience is over; the message stays accepted and is answered all the same.
pub fn await_reply(
    workspace: &Workspace,
    chat: ChatId,
    inbox_id: u64,
    patience: Patience,
    stream: &mut dyn FnMut(&str),
) -> Result<Message, Failure> {
    let dir = resolve::session_dir(workspace, chat, Make::Yes)?;
    let mut watch = DirWatch::new(&dir)?;
    let deadline = patience.deadline();
    // Replies may have come before the watch: read first, then wait.
    let mut tail = Tail::new(&dir, Side::Outbox, 0);
    let mut shown = String::new();
    loop {
        for reply in tail.read_new()? {
            if reply.in_reply_to == Some(inbox_id) {
                return Ok(reply);
            }
        }
        show(&dir, &mut shown, stream);
        if deadline.is_some_and(|at| clock::steady() >= at) {
            return Err(Failure::new(
                ExitCode::TimedOut,
                format!("{chat} has not answered in time; the message stays accepted"),
            )
            .with_cure(format!("wg why {chat}, or wg chat read {chat}")));
        }
        watch.wait(deadline, &[]).map_err(|e| {
            Failure::new(ExitCode::System, "failed to wait for the reply").caused_by(e)
        })?;
    }
}

/// Passes on what was added to the reply that is being written.
fn show(dir: &Path, shown: &mut String, stream: &mut dyn FnMut(&str)) {
    let Ok(bytes) = std::fs::read(dir.join(".streaming")) else {
        return;
    };
    let text = String::from_utf8_lossy(&bytes);
    match text.strip_prefix(shown.as_str()) {
        Some("") => {}
        Some(more) => {
            stream(more);
            shown.push_str(more);
        }
        // Another turn's text: it is not this reply, or this reply began anew.
        None => shown.clear(),
    }
}
