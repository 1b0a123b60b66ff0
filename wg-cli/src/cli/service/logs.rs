//! `wg service logs` and `wg service events`.

use std::path::Path;

use serde_json::Value;

use crate::cli::args::service::{Events, Logs};
use crate::cli::context::Context;
use crate::cli::follow::Follower;
use crate::cli::input;
use crate::clock::{self, Timestamp};
use crate::exit_code::ExitCode;
use crate::failure::Outcome;
use crate::store::watch::DirWatch;

/// How many lines are shown where nobody said how many.
const DEFAULT_LINES: usize = 50;

pub(super) fn log(cx: &Context<'_>, args: &Logs) -> Outcome {
    let workspace = cx.workspace()?;
    let path = workspace.daemon_log_path();
    watch(
        &path,
        args.follow,
        args.last,
        |_| true,
        |line| {
            if cx.report.is_json() {
                cx.report.json_line(&line)
            } else {
                cx.report.speech(&format!("{line}\n"))
            }
        },
        cx,
    )
}

pub(super) fn events(cx: &Context<'_>, args: &Events) -> Outcome {
    let workspace = cx.workspace()?;
    let chat = args
        .chat
        .as_deref()
        .map(|reference| cx.chat(&workspace, reference))
        .transpose()?;
    let wanted = |line: &str| match (chat, serde_json::from_str::<Value>(line)) {
        (None, _) => true,
        (Some(chat), Ok(event)) => {
            event.get("chat_id").and_then(Value::as_u64) == Some(u64::from(chat.0))
        }
        (Some(_), Err(_)) => false,
    };
    watch(
        &workspace.events_path(),
        args.follow,
        args.last,
        wanted,
        |line| print_event(cx, line),
        cx,
    )
}

/// Prints the last lines of a file, then what comes.
fn watch(
    path: &Path,
    follow: bool,
    last: Option<usize>,
    wanted: impl Fn(&str) -> bool,
    mut print: impl FnMut(&str) -> Outcome<()>,
    cx: &Context<'_>,
) -> Outcome {
    // Watched before it is read: what is written in between wakes the wait.
    let dir = path.parent().unwrap_or(path);
    let mut changes = if follow {
        Some(DirWatch::new(dir)?)
    } else {
        None
    };
    let mut follower = Follower::new(path);
    let lines: Vec<String> = follower
        .lines()?
        .into_iter()
        .filter(|line| wanted(line))
        .collect();
    let from = lines.len().saturating_sub(last.unwrap_or(DEFAULT_LINES));
    for line in &lines[from..] {
        print(line)?;
    }
    if lines.is_empty() && !follow {
        cx.report.note("nothing was written yet");
    }
    while let Some(changes) = &mut changes {
        if cx.report.reader_is_gone() {
            break;
        }
        changes.wait(None, &[]).map_err(input::broken_wait)?;
        for line in follower.lines()?.iter().filter(|line| wanted(line)) {
            print(line)?;
        }
    }
    Ok(ExitCode::Ok)
}

fn print_event(cx: &Context<'_>, line: &str) -> Outcome<()> {
    let event: Value = match serde_json::from_str(line) {
        Ok(event) => event,
        Err(error) => {
            cx.report.note(&format!(
                "warning: a line of events.jsonl is not JSON: {error}"
            ));
            return Ok(());
        }
    };
    if cx.report.is_json() {
        return cx.report.json_line(&event);
    }
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    let ago = Timestamp::parse(text("ts"))
        .map(|at| at.ago(clock::now()))
        .unwrap_or_default();
    let chat = event
        .get("chat_id")
        .and_then(Value::as_u64)
        .map(|chat| format!("chat-{chat}"))
        .unwrap_or_default();
    cx.report.speech(&format!(
        "{ago:>7} ago  {chat:<8}  {:<16}  {}\n",
        text("event"),
        crate::report::one_line(text("text"))
    ))
}
