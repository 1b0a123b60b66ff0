//! `wg chat retry`: a message that failed is asked again.

use serde::Serialize;

use crate::cli::args::chat::Retry;
use crate::cli::context::Context;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::names::ChatState;
use crate::ops;
use crate::store::graph::ChatId;
use crate::store::messages::{self, Durability, Message, NewMessage, RENUMBERED_FROM, Role, Side};
use crate::store::resolve::{self, Make};

#[derive(Debug, Serialize)]
struct Retried {
    chat_id: u32,
    task_id: String,
    inbox_id: u64,
    retry_of: u64,
    state: ChatState,
    note: Option<String>,
}

pub(super) fn run(cx: &Context<'_>, args: &Retry) -> Outcome {
    let (workspace, chat) = cx.own_workspace_and_chat(&args.chat)?;
    let dir = resolve::session_dir(&workspace, chat, Make::No)?;
    let inbox = messages::read_after(&dir, Side::Inbox, 0)?.messages;
    let outbox = messages::read_after(&dir, Side::Outbox, 0)?.messages;
    let original = match args.message_id {
        Some(id) => inbox
            .iter()
            .find(|message| message.id == id)
            .ok_or_else(|| {
                Failure::new(ExitCode::Failed, format!("{chat} has no message {id}"))
                    .with_cure(format!("wg chat read {chat} --json"))
            })?,
        None => last_without_a_reply(&inbox, &outbox).ok_or_else(|| {
            Failure::new(ExitCode::Failed, format!("no message of {chat} has failed"))
                .with_cure("name one: wg chat retry REF ID")
        })?,
    };
    if !outbox
        .iter()
        .any(|reply| reply.in_reply_to == Some(original.id))
    {
        return Err(Failure::new(
            ExitCode::Failed,
            format!(
                "message {} of {chat} is not answered yet; a retry would ask it twice",
                original.id
            ),
        )
        .with_cure(format!("wg why {chat}")));
    }
    let mut again = NewMessage::new(Role::User, original.content.clone());
    again.retry_of = Some(original.id);
    again.extra.clone_from(&original.extra);
    again.extra.remove(RENUMBERED_FROM);
    // The service notices what others append to an inbox.
    let inbox_id = messages::append(&dir, Side::Inbox, again, Durability::Sync)?;
    let state = state_of(cx, &workspace, chat)?;
    let retried = Retried {
        chat_id: chat.0,
        task_id: chat.task_id(),
        inbox_id,
        retry_of: original.id,
        state,
        note: why_it_waits(chat, state),
    };
    cx.report.done(&retried, || {
        let note = retried
            .note
            .as_deref()
            .map(|note| format!(" {note}"))
            .unwrap_or_default();
        format!(
            "Message {} of {chat} is asked again as message {inbox_id}.{note}",
            retried.retry_of
        )
    })?;
    Ok(ExitCode::Ok)
}

/// The newest message whose turn failed or that has no reply, unless it was asked again since.
fn last_without_a_reply<'a>(inbox: &'a [Message], outbox: &[Message]) -> Option<&'a Message> {
    let asked_again = |id: u64| inbox.iter().any(|message| message.retry_of == Some(id));
    inbox
        .iter()
        .rev()
        .filter(|message| !asked_again(message.id))
        .find(|message| {
            let mut replies = outbox
                .iter()
                .filter(|reply| reply.in_reply_to == Some(message.id));
            replies
                .next_back()
                .is_none_or(|reply| reply.role == Role::SystemError)
        })
}

fn state_of(
    cx: &Context<'_>,
    workspace: &crate::store::workspace::Workspace,
    chat: ChatId,
) -> Outcome<ChatState> {
    let rows = ops::list_chats(workspace, true)?;
    let row = rows.iter().find(|row| row.chat_id == chat.0);
    if row.is_none() {
        cx.report
            .detail(&format!("{chat} is not in the list of chats"));
    }
    Ok(row.map_or(ChatState::Dormant, |row| row.state))
}

fn why_it_waits(chat: ChatId, state: ChatState) -> Option<String> {
    match state {
        ChatState::Dormant => Some("The service is not running: wg service start.".to_owned()),
        ChatState::Stopped => Some(format!("The chat is stopped: wg chat resume {chat}.")),
        ChatState::Parked => Some(format!("The chat is parked: wg why {chat}.")),
        ChatState::Archived | ChatState::Purged => {
            Some(format!("The chat is retired: wg chat restore {chat}."))
        }
        ChatState::Running
        | ChatState::Adopted
        | ChatState::Starting
        | ChatState::Queued
        | ChatState::Idle
        | ChatState::Held
        | ChatState::Backoff
        | ChatState::Degraded
        | ChatState::Stopping => None,
    }
}
