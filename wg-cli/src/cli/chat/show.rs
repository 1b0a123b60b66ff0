//! `wg chat show`: one chat, with its settings and where its files are.

use std::path::PathBuf;

use serde::Serialize;

use crate::cli::args::chat::One;
use crate::cli::context::Context;
use crate::clock::{self, Timestamp};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::ops::{self, ChatRow};
use crate::report::one_line;
use crate::store::messages::{self, Side};
use crate::store::resolve::{self, Make};

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    row: ChatRow,
    command: Option<Vec<String>>,
    model: Option<String>,
    endpoint: Option<String>,
    cwd: Option<PathBuf>,
    created_at: Option<Timestamp>,
    session_dir: PathBuf,
    /// How many messages there are on each side.
    inbox: u64,
    outbox: u64,
}

pub(super) fn run(cx: &Context<'_>, one: &One) -> Outcome {
    let (workspace, chat) = cx.workspace_and_chat(&one.chat)?;
    let row = ops::list_chats(&workspace, true)?
        .into_iter()
        .find(|row| row.chat_id == chat.0)
        .ok_or_else(|| {
            Failure::new(
                ExitCode::Failed,
                format!("{chat} is not known to the service"),
            )
            .with_cure("wg chat list --all")
        })?;
    let task = cx.graph(&workspace)?.chat(chat);
    let session_dir = resolve::session_dir(&workspace, chat, Make::No)?;
    let shown = Shown {
        inbox: messages::last_id(&session_dir, Side::Inbox)?,
        outbox: messages::last_id(&session_dir, Side::Outbox)?,
        command: task.as_ref().and_then(|task| task.argv.clone()),
        model: task.as_ref().and_then(|task| task.model.clone()),
        endpoint: task.as_ref().and_then(|task| task.endpoint.clone()),
        cwd: task.as_ref().and_then(|task| task.cwd.clone()),
        created_at: task.as_ref().and_then(|task| task.created_at),
        session_dir,
        row,
    };
    let now = clock::now();
    cx.report.answer(&shown, || shown.to_text(now))?;
    Ok(ExitCode::Ok)
}

impl Shown {
    fn to_text(&self, now: Timestamp) -> String {
        let mut lines = vec![format!("chat-{}", self.row.chat_id)];
        let mut fact = |label: &str, value: Option<String>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                lines.push(format!("  {label:<9} {}", one_line(&value)));
            }
        };
        let since = self
            .row
            .since
            .map(|since| format!(" for {}", since.ago(now)))
            .unwrap_or_default();
        fact(
            "task",
            Some(format!("{} ({})", self.row.task_id, self.row.task_status)),
        );
        fact("title", Some(self.row.title.clone()));
        fact("state", Some(format!("{}{since}", self.row.state)));
        fact("handler", self.row.pid.map(|pid| format!("pid {pid}")));
        fact(
            "holder",
            self.row.holder.as_ref().map(|holder| {
                let left = holder
                    .left_by
                    .map(|by| format!(", left behind by handler {by}"))
                    .unwrap_or_default();
                format!("pid {} ({}){left}", holder.pid, holder.kind)
            }),
        );
        for one in &self.row.stands_still {
            fact("stopped", Some(one.to_line()));
        }
        fact("agent", Some(self.row.agent.clone()));
        fact("command", self.command.as_ref().map(|argv| argv.join(" ")));
        fact("model", self.model.clone());
        fact("endpoint", self.endpoint.clone());
        fact(
            "cwd",
            self.cwd.as_ref().map(|cwd| cwd.display().to_string()),
        );
        fact("created", self.created_at.map(|at| at.ago_in_words(now)));
        fact(
            "messages",
            Some(format!(
                "{} sent, {} replies, {} unread",
                self.inbox, self.outbox, self.row.unread
            )),
        );
        fact("session", Some(self.session_dir.display().to_string()));
        lines.join("\n")
    }
}
