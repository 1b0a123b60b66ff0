//! The end of a turn that a person asks for. It has come when the message has its answer, so that is what is waited for.

use std::time::Duration;

use super::{Caller, ChatChange, change};
use crate::clock;
use crate::daemon::local;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::Request;
use crate::lock_holders;
use crate::standstill::{LOOK_EVERY, Standstill};
use crate::store::graph::ChatId;
use crate::store::messages::{self, Role, Side};
use crate::store::resolve::{self, Make};
use crate::store::watch::DirWatch;
use crate::store::workspace::Workspace;

/// How long an agent may take to end after it was asked; then it is only said that it was.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ends the turn in flight, not the chat, and waits for its end.
///
/// # Errors
///
/// The handler could not be signalled or stands still, or the session cannot be read.
pub fn interrupt(
    workspace: &Workspace,
    chat: ChatId,
    caller: &Caller,
) -> Result<ChatChange, Failure> {
    let dir = resolve::session_dir(workspace, chat, Make::No)?;
    let asked_of = messages::next_unanswered(&dir)?.map(|message| message.id);
    let asked = ask_to_interrupt(workspace, chat, caller)?;
    let Some(message) = asked_of.filter(|_| asked.changed) else {
        return Ok(asked);
    };
    let unseen = |error| {
        Failure::new(ExitCode::System, "failed to wait for the end of the turn").caused_by(error)
    };
    let until = clock::steady() + PATIENCE;
    let mut watch = DirWatch::new(&dir)?;
    while messages::find_unanswered(&dir, message)?.is_some() {
        if let Some(handler) = lock_holders::of_here(&dir).and_then(Standstill::of) {
            return Err(cannot_hear(chat, &handler));
        }
        let now = clock::steady();
        if now >= until {
            return Ok(ChatChange {
                changed: false,
                text: format!("{}; it has not ended yet (wg why {chat})", asked.text),
                ..asked
            });
        }
        let look_at = until.min(now + LOOK_EVERY);
        watch.wait(Some(look_at), &[]).map_err(unseen)?;
    }
    let replies = messages::read_last(&dir, Side::Outbox, REPLIES)?.messages;
    let reply = replies
        .iter()
        .rev()
        .find(|reply| reply.in_reply_to == Some(message));
    let was_faster = reply.is_some_and(|reply| reply.role != Role::SystemError);
    let text = if was_faster {
        format!("the turn of {chat} had its reply before it could be interrupted")
    } else {
        format!("interrupted the turn of {chat}")
    };
    Ok(ChatChange {
        changed: !was_faster,
        text,
        ..asked
    })
}

/// A handler that stands still was asked, and hears of it when it goes on.
fn cannot_hear(chat: ChatId, handler: &Standstill) -> Failure {
    Failure::new(
        ExitCode::Unavailable,
        format!("the turn of {chat} was not interrupted: {}", handler.text),
    )
    .with_cure(format!("{}, and the turn ends then", handler.advice()))
}

/// How many replies may have come behind the one that is looked for.
const REPLIES: usize = 100;

/// As [`interrupt`], for somebody who sees the answer come.
///
/// # Errors
///
/// The handler could not be signalled.
pub fn ask_to_interrupt(
    workspace: &Workspace,
    chat: ChatId,
    caller: &Caller,
) -> Result<ChatChange, Failure> {
    change(
        workspace,
        chat,
        caller,
        Request::InterruptChat,
        local::interrupt,
    )
}
