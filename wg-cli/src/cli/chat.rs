//! `wg chat …`: one function a verb.

pub(super) mod read;
mod retry;
pub(super) mod set_executor;
mod show;

use std::ffi::OsString;
use std::path::Path;

use serde::Serialize;

use super::args::chat::{Chat, ChatCommand, Delete, Flat, List, New, One, Send};
use super::context::{Context, confirm};
use super::table::Table;
use super::{attach, conversation, input, up};
use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::ipc::protocol::NewChatRequest;
use crate::names::ChatState;
use crate::ops::{self, Caller, ChatChange, ChatRow, SendOptions};
use crate::patience::Patience;
use crate::report::{Paint, Report};
use crate::spelling;
use crate::store::graph::ChatId;
use crate::store::messages::Durability;
use crate::store::workspace::Workspace;

pub(super) fn run(cx: &Context<'_>, chat: Chat, args: &[OsString]) -> Outcome {
    let Some(command) = chat.command else {
        return flat(cx, &chat.flat, args);
    };
    match command {
        ChatCommand::New(new) => create(cx, new),
        ChatCommand::List(args) => list(cx, &args),
        ChatCommand::Show(one) => show::run(cx, &one),
        ChatCommand::Send(args) => send(cx, &args),
        ChatCommand::Read(args) => read::run(cx, &args),
        ChatCommand::Attach(one) => attach_to(cx, &one),
        ChatCommand::Stop(one) => change(cx, &one, ops::stop),
        ChatCommand::Resume(one) => change(cx, &one, ops::resume),
        ChatCommand::Interrupt(one) => change(cx, &one, ops::interrupt),
        ChatCommand::Retry(args) => retry::run(cx, &args),
        ChatCommand::Archive(one) => change(cx, &one, ops::archive),
        ChatCommand::Restore(one) => change(cx, &one, ops::restore),
        ChatCommand::Delete(args) => delete(cx, &args),
    }
}

/// Does something to one chat and tells what changed.
pub(super) fn change(
    cx: &Context<'_>,
    one: &One,
    verb: fn(&Workspace, ChatId, &Caller) -> Outcome<ChatChange>,
) -> Outcome {
    let (workspace, chat) = cx.own_workspace_and_chat(&one.chat)?;
    let change = verb(&workspace, chat, &Caller::from_env())?;
    cx.report.done(&change, || change.text.clone())?;
    Ok(ExitCode::Ok)
}

pub(super) fn create(cx: &Context<'_>, new: New) -> Outcome {
    let workspace = cx.own_workspace()?;
    let request = NewChatRequest {
        id: new.id.as_deref().map(wanted_number).transpose()?,
        name: new.name,
        model: new.model,
        executor: new.agent,
        endpoint: new.endpoint,
        command: new.command,
        cwd: new.cwd.as_deref().map(working_directory).transpose()?,
        user: Some(Caller::from_env().user),
    };
    let made = ops::create_chat(&workspace, request, Patience::Forever)?;
    cx.report.answer(&made, || {
        if cx.report.is_quiet() {
            return ChatId(made.chat_id).to_string();
        }
        let created = format!("Created chat {} (task {}).", made.chat_id, made.task_id);
        if made.service_running {
            created
        } else {
            format!("{created}\nThe service is not running; the chat is dormant until `wg service start`.")
        }
    })?;
    Ok(ExitCode::Ok)
}

/// The number of `--id`, in any of the forms that name a chat.
fn wanted_number(id: &str) -> Outcome<u32> {
    let digits = [".chat-", "chat-", ".coordinator-", "coordinator-"]
        .iter()
        .find_map(|prefix| id.strip_prefix(prefix))
        .unwrap_or(id);
    let plain = !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    digits.parse().ok().filter(|_| plain).ok_or_else(|| {
        Failure::new(ExitCode::Usage, format!("`{id}` is not a chat's number"))
            .with_cure("--id chat-99, or leave it out for the next free one")
    })
}

/// The directory of `--cwd`, absolute, so that it means the same to the service.
fn working_directory(dir: &Path) -> Outcome<String> {
    let absolute = std::fs::canonicalize(dir).map_err(|error| {
        Failure::new(
            ExitCode::Usage,
            format!("`{}` cannot be a working directory", dir.display()),
        )
        .caused_by(error)
        .with_cure("--cwd takes a directory that exists")
    })?;
    if !absolute.is_dir() {
        return Err(Failure::new(
            ExitCode::Usage,
            format!("`{}` is not a directory", dir.display()),
        ));
    }
    absolute.into_os_string().into_string().map_err(|_| {
        Failure::new(
            ExitCode::Usage,
            format!(
                "`{}` is not UTF-8, and the graph can hold no other text",
                dir.display()
            ),
        )
    })
}

#[derive(Debug, Serialize)]
struct Chats<'a> {
    chats: &'a [ChatRow],
}

fn list(cx: &Context<'_>, args: &List) -> Outcome {
    let workspace = cx.workspace()?;
    // The rows of a service stay as they were when it read the graph: a line that it can no longer read is told of here.
    drop(cx.graph(&workspace)?);
    let rows = ops::list_chats(&workspace, args.all)?;
    cx.report
        .answer(&Chats { chats: &rows }, || table(cx.report, &rows))?;
    Ok(ExitCode::Ok)
}

/// The chats as a table for people.
pub(super) fn table(report: &Report, rows: &[ChatRow]) -> String {
    if rows.is_empty() {
        return "No chats. Make one with `wg chat new`, or let `wg up \"hello\"` do it.".to_owned();
    }
    let now = clock::now();
    let mut table = Table::new(&["CHAT", "STATE", "FOR", "PID", "UNREAD", "AGENT", "TITLE"]);
    for row in rows {
        table.row(&[
            ChatId(row.chat_id).to_string(),
            match &row.waits_for {
                Some(what) => format!("{}: {what}", row.state),
                None => row.state.to_string(),
            },
            row.since.map(|since| since.ago(now)).unwrap_or_default(),
            row.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            row.unread.to_string(),
            row.agent.clone(),
            row.title.clone(),
        ]);
    }
    let word = |cell: &str| ChatState::parse(cell.split_once(':').map_or(cell, |(word, _)| word));
    let mut text = table.to_text(|column, cell| match (column, word(cell)) {
        (1, Some(state)) => report.paint(mood(state), cell),
        _ => cell.to_owned(),
    });
    // Below, where nothing of it is cut.
    for row in rows {
        for one in &row.stands_still {
            let line = format!("{}: {}\n", ChatId(row.chat_id), one.to_line());
            text.push_str(&report.paint(Paint::Bad, &line));
        }
    }
    text
}

/// How well a chat in this state is.
fn mood(state: ChatState) -> Paint {
    match state {
        ChatState::Running | ChatState::Adopted => Paint::Good,
        ChatState::Starting
        | ChatState::Queued
        | ChatState::Held
        | ChatState::Backoff
        | ChatState::Stopping => Paint::Waiting,
        ChatState::Degraded | ChatState::Parked => Paint::Bad,
        ChatState::Idle
        | ChatState::Stopped
        | ChatState::Archived
        | ChatState::Purged
        | ChatState::Dormant => Paint::Faint,
    }
}

fn send(cx: &Context<'_>, args: &Send) -> Outcome {
    let (workspace, chat) = cx.own_workspace_and_chat(&args.chat)?;
    let text = input::message(&args.message)?;
    let durability = if args.no_sync {
        Durability::NoSync
    } else {
        Durability::Sync
    };
    let sent = ops::send(
        &workspace,
        chat,
        &text,
        SendOptions {
            request_id: args.request_id.clone(),
            durability,
            user: None,
            patience: Patience::Forever,
        },
    )?;
    cx.report.done(&sent, || {
        let appended = format!("Appended message {} to the inbox of {chat}.", sent.inbox_id);
        match &sent.note {
            Some(note) => format!("{appended}\n{note}"),
            None => appended,
        }
    })?;
    Ok(ExitCode::Ok)
}

fn attach_to(cx: &Context<'_>, one: &One) -> Outcome {
    let (workspace, chat) = cx.own_workspace_and_chat(&one.chat)?;
    if input::is_terminal() {
        attach::run(cx, &workspace, chat)
    } else {
        up::answer_lines(cx, &workspace, chat, Patience::Forever)
    }
}

fn delete(cx: &Context<'_>, args: &Delete) -> Outcome {
    let (workspace, chat) = cx.own_workspace_and_chat(&args.chat)?;
    if !args.yes {
        confirm(&format!("delete {chat}"), "--yes")?;
    }
    let change = ops::delete(&workspace, chat, &Caller::from_env())?;
    cx.report.done(&change, || change.text.clone())?;
    Ok(ExitCode::Ok)
}

/// `wg chat MESSAGE`: send and wait.
fn flat(cx: &Context<'_>, flat: &Flat, args: &[OsString]) -> Outcome {
    let given = flat.message.as_deref().unwrap_or_default();
    // After `--` a word is meant as it stands.
    if !args.iter().any(|arg| arg == "--")
        && let Some(verb) = misspelt_verb(given)
    {
        return Err(Failure::new(
            ExitCode::Usage,
            format!("`{given}` is no verb of `wg chat`"),
        )
        .with_cure(format!(
            "did you mean {verb}? To send the word: wg chat -- {given}"
        )));
    }
    let text = input::message(given)?;
    let (workspace, chat) = cx.own_workspace_and_chat(&flat.coordinator)?;
    match conversation::ask(
        cx,
        &workspace,
        chat,
        &text,
        Patience::For(flat.timeout),
        conversation::Exchanges::One,
    ) {
        Err(failure) if flat.exit_zero && failure.code != ExitCode::Usage => {
            cx.report.failure(&failure);
            Ok(ExitCode::Ok)
        }
        outcome => outcome,
    }
}

/// The verb that a single word was probably meant to be: one letter off, missing, too much, or two swapped.
fn misspelt_verb(word: &str) -> Option<&'static str> {
    const VERBS: [&str; 15] = [
        "new",
        "create",
        "list",
        "show",
        "send",
        "read",
        "attach",
        "stop",
        "resume",
        "interrupt",
        "retry",
        "archive",
        "restore",
        "delete",
        "help",
    ];
    VERBS
        .into_iter()
        .find(|verb| verb.len() > 3 && spelling::is_one_slip_from(word, verb))
}

#[cfg(test)]
mod tests {
    use super::{misspelt_verb, wanted_number};

    #[test]
    fn a_word_that_is_one_slip_from_a_verb_is_not_sent_to_an_agent() {
        for (word, verb) in [
            ("lsit", "list"),
            ("lst", "list"),
            ("stopp", "stop"),
            ("attech", "attach"),
            ("hlep", "help"),
        ] {
            assert_eq!(misspelt_verb(word), Some(verb), "{word}");
        }
        for word in [
            "hello",
            "hi",
            "now",
            "yes",
            "tests",
            "go",
            "",
            "fix the test",
            "größe",
            "continue",
        ] {
            assert_eq!(misspelt_verb(word), None, "{word}");
        }
    }

    #[test]
    fn the_number_of_a_new_chat_is_read_in_every_form_of_a_reference() {
        for form in [
            "99",
            "chat-99",
            ".chat-99",
            "coordinator-99",
            ".coordinator-99",
        ] {
            assert_eq!(wanted_number(form).unwrap(), 99, "{form}");
        }
        for bad in [
            "",
            "chat-",
            "-1",
            "+1",
            "007",
            "4294967296",
            "x",
            "chat-1/..",
            "chat--1",
            "1 ",
        ] {
            assert!(wanted_number(bad).is_err(), "{bad}");
        }
    }
}
