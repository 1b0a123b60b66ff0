//! `wg chat read`: the conversation, and what is added to it.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::args::chat::Read;
use crate::cli::context::Context;
use crate::cli::{conversation, input};
use crate::clock::{self, Timestamp};
use crate::exit_code::ExitCode;
use crate::failure::Outcome;
use crate::report::{Paint, one_line};
use crate::store::graph::ChatId;
use crate::store::messages::{self, Cursor, Message, Role, Side};
use crate::store::resolve::{self, Make};
use crate::store::watch::DirWatch;

/// A message with the side that it stands on, for `--json`.
#[derive(Debug, Serialize)]
struct Line {
    side: &'static str,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

impl Line {
    fn of(side: Side, message: &Message) -> Outcome<Self> {
        Ok(Self {
            side: side.as_str(),
            fields: conversation::fields(message)?,
        })
    }
}

#[derive(Debug, Serialize)]
struct Conversation {
    chat_id: u32,
    task_id: String,
    messages: Vec<Line>,
    /// Lines of the files that could not be read as messages.
    bad_lines: usize,
}

pub(super) fn run(cx: &Context<'_>, args: &Read) -> Outcome {
    let (workspace, chat) = cx.workspace_and_chat(&args.chat)?;
    let make = if args.follow { Make::Yes } else { Make::No };
    let dir = resolve::session_dir(&workspace, chat, make)?;
    // Watched before it is read: what is written in between wakes the wait.
    let mut changes = if args.follow {
        Some(DirWatch::new(&dir)?)
    } else {
        None
    };
    let read = |side| match args.last {
        // The last so many of both together are among the last so many of each.
        Some(count) => messages::read_last(&dir, side, count),
        None => messages::read_after(&dir, side, 0),
    };
    let inbox = read(Side::Inbox)?;
    let outbox = read(Side::Outbox)?;
    let bad_lines = inbox.bad_lines + outbox.bad_lines;
    if bad_lines > 0 {
        cx.report.note(&format!(
            "warning: {bad_lines} line(s) of {chat} could not be read as messages (wg doctor)"
        ));
    }
    let mut seen = (last_of(&inbox.messages), last_of(&outbox.messages));
    let all = merge(inbox.messages, outbox.messages);
    let shown = &all[all.len().saturating_sub(args.last.unwrap_or(all.len()))..];
    if cx.report.is_json() && !args.follow {
        let messages = shown
            .iter()
            .map(|(side, message)| Line::of(*side, message))
            .collect::<Outcome<_>>()?;
        let conversation = Conversation {
            chat_id: chat.0,
            task_id: chat.task_id(),
            messages,
            bad_lines,
        };
        cx.report.answer(&conversation, String::new)?;
    } else {
        if all.is_empty() && !args.follow {
            cx.report.note(&format!("nothing was said in {chat} yet"));
        }
        print_all(cx, chat, shown)?;
    }
    mark_as_read(cx, &dir, seen.1);
    while let Some(changes) = &mut changes {
        if cx.report.reader_is_gone() {
            break;
        }
        changes.wait(None, &[]).map_err(input::broken_wait)?;
        let inbox = messages::read_after(&dir, Side::Inbox, seen.0)?.messages;
        let outbox = messages::read_after(&dir, Side::Outbox, seen.1)?.messages;
        seen = (seen.0.max(last_of(&inbox)), seen.1.max(last_of(&outbox)));
        print_all(cx, chat, &merge(inbox, outbox))?;
        mark_as_read(cx, &dir, seen.1);
    }
    Ok(ExitCode::Ok)
}

fn last_of(messages: &[Message]) -> u64 {
    messages.last().map_or(0, |message| message.id)
}

/// Both sides by time, each side in its own order whatever its clocks said; a reply never stands before what it answers.
pub(in crate::cli) fn merge(inbox: Vec<Message>, outbox: Vec<Message>) -> Vec<(Side, Message)> {
    let mut merged = Vec::with_capacity(inbox.len() + outbox.len());
    let mut said = inbox.into_iter().peekable();
    for reply in outbox {
        while let Some(message) = said.next_if(|message| {
            reply
                .in_reply_to
                .is_some_and(|answered| message.id <= answered)
                || message.timestamp <= reply.timestamp
        }) {
            merged.push((Side::Inbox, message));
        }
        merged.push((Side::Outbox, reply));
    }
    merged.extend(said.map(|message| (Side::Inbox, message)));
    merged
}

fn print_all(cx: &Context<'_>, chat: ChatId, messages: &[(Side, Message)]) -> Outcome<()> {
    let now = clock::now();
    for (side, message) in messages {
        if cx.report.is_json() {
            cx.report.json_line(&Line::of(*side, message)?)?;
        } else {
            print_one(cx, chat, message, now)?;
        }
    }
    Ok(())
}

/// A heading with speaker and age, then the words as they were said.
pub(in crate::cli) fn print_one(
    cx: &Context<'_>,
    chat: ChatId,
    message: &Message,
    now: Timestamp,
) -> Outcome<()> {
    let speaker = match message.role {
        // What is written where neither WG_USER nor USER is set.
        Role::User if matches!(message.user.as_str(), "" | "unknown") => "user".to_owned(),
        Role::User => one_line(&message.user),
        Role::Coordinator => chat.to_string(),
        Role::SystemError => format!("{chat} failed"),
    };
    let paint = match message.role {
        Role::User => Paint::Strong,
        Role::Coordinator => Paint::Good,
        Role::SystemError => Paint::Bad,
    };
    let age = cx
        .report
        .paint(Paint::Faint, &message.timestamp.ago_in_words(now));
    cx.report
        .line(&format!("{} {age}", cx.report.paint(paint, &speaker)))?;
    cx.report
        .speech(&format!("{}\n\n", message.content.trim_end()))
}

/// Remembers how far a person has read; a workspace that cannot be written to can still be read.
pub(in crate::cli) fn mark_as_read(cx: &Context<'_>, dir: &Path, last: u64) {
    if last == 0 || cx.report.reader_is_gone() {
        return;
    }
    if let Err(error) = messages::advance_cursor(dir, Cursor::Consumer, last) {
        cx.report
            .detail(&format!("how far was read could not be noted: {error}"));
    }
}
