//! `wg list` and `wg show`: the tasks of the graph, chats included.

use serde::Serialize;
use serde_json::{Map, Value};

use super::args::{List, Show};
use super::context::Context;
use crate::columns::{available, clip};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::report::{Paint, one_line};
use crate::store::graph::{ARCHIVED_TAG, ChatId};
use crate::store::resolve;
use crate::store::task::Task;

/// Every status that a task may have, and its mark in the list.
const STATUSES: [(&str, char); 11] = [
    ("open", ' '),
    ("in-progress", '~'),
    ("waiting", 'W'),
    ("done", 'x'),
    ("blocked", '!'),
    ("failed", 'F'),
    ("abandoned", 'A'),
    ("pending-validation", 'W'),
    ("pending-eval", 'E'),
    ("failed-pending-eval", 'e'),
    ("incomplete", 'I'),
];

/// One task of the list, under the names that the earlier tool gave them.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    title: String,
    status: String,
    priority: Option<Value>,
    assigned: Option<Value>,
    after: Vec<String>,
    tags: Vec<String>,
    chat_id: Option<u32>,
}

impl Row {
    fn of(task: &Task) -> Self {
        Self {
            id: task.id().to_owned(),
            title: task.title(),
            status: task.status(),
            priority: task.get("priority"),
            assigned: task.get("assigned").filter(|value| !value.is_null()),
            after: task.texts("after"),
            tags: task.tags(),
            chat_id: ChatId::from_task_id(task.id()).map(|chat| chat.0),
        }
    }

    fn to_line(&self) -> String {
        let mark = STATUSES
            .iter()
            .find(|(status, _)| *status == self.status)
            .map_or('?', |(_, mark)| *mark);
        let tags = if self.tags.is_empty() {
            String::new()
        } else {
            format!(" [{}]", self.tags.join(", "))
        };
        clip(
            &one_line(&format!("[{mark}] {} - {}{tags}", self.id, self.title)),
            available(),
        )
    }
}

pub(super) fn list(cx: &Context<'_>, args: &List) -> Outcome {
    if let Some(status) = args.status.as_deref()
        && STATUSES.iter().all(|(known, _)| *known != status)
    {
        let known: Vec<&str> = STATUSES.iter().map(|(known, _)| *known).collect();
        return Err(Failure::new(
            ExitCode::Usage,
            format!("`{}` is no status", one_line(status)),
        )
        .with_cure(format!("one of: {}", known.join(", "))));
    }
    let graph = cx.graph(&cx.workspace()?)?;
    let rows: Vec<Row> = graph
        .tasks()
        .filter(|task| is_shown(task, args))
        .map(Row::of)
        .collect();
    cx.report.answer(&rows, || {
        if rows.is_empty() {
            return "No tasks found".to_owned();
        }
        rows.iter().map(|row| row.to_line() + "\n").collect()
    })?;
    Ok(ExitCode::Ok)
}

/// Chats are shown although their ids begin with a dot; other such tasks are the tools' own business.
fn is_shown(task: &Task, args: &List) -> bool {
    let status = task.status();
    let named = args.status.as_deref();
    let hidden = task.id().starts_with('.') && ChatId::from_task_id(task.id()).is_none();
    let retired = task.has_tag(ARCHIVED_TAG) || status == "abandoned";
    (args.all || (!hidden && (!retired || named.is_some())))
        && named.is_none_or(|wanted| wanted == status)
        && args.tag.iter().all(|tag| task.has_tag(tag))
}

pub(super) fn show(cx: &Context<'_>, args: &Show) -> Outcome {
    let workspace = cx.workspace()?;
    resolve::check_reference(&args.id)?;
    let graph = cx.graph(&workspace)?;
    // A chat's task is meant by any form of the chat's name, too.
    let id = if graph.task(&args.id).is_some() {
        args.id.clone()
    } else {
        let chat = resolve::chat(&workspace, &graph, &args.id)?;
        graph
            .chat(chat)
            .map_or_else(|| chat.task_id(), |chat| chat.task_id)
    };
    let task = graph.task(&id).ok_or_else(|| {
        Failure::new(ExitCode::Failed, format!("task {id} does not exist"))
            .with_cure("wg list --all")
    })?;
    let fields = task.to_json();
    cx.report.answer(&fields, || to_text(cx, &fields))?;
    Ok(ExitCode::Ok)
}

/// The fields as `name: value`, the log below them, one entry a line.
fn to_text(cx: &Context<'_>, fields: &Map<String, Value>) -> String {
    let mut lines = Vec::new();
    for (name, value) in fields
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "kind" | "log"))
    {
        let name = cx.report.paint(Paint::Faint, &format!("{name}:"));
        lines.push(format!("{name} {}", in_words(value)));
    }
    if let Some(Value::Array(log)) = fields.get("log") {
        lines.push(cx.report.paint(Paint::Faint, "log:"));
        for entry in log {
            let field = |name: &str| {
                entry
                    .get(name)
                    .and_then(Value::as_str)
                    .map(one_line)
                    .unwrap_or_default()
            };
            lines.push(format!(
                "  {}  {}  {}",
                field("timestamp"),
                field("actor"),
                field("message")
            ));
        }
    }
    lines.join("\n")
}

/// Texts without their quotes, lists of texts with commas, anything else as JSON.
fn in_words(value: &Value) -> String {
    if let Some(text) = value.as_str() {
        return one_line(text);
    }
    let texts: Option<Vec<String>> = value.as_array().and_then(|items| {
        items
            .iter()
            .map(|item| item.as_str().map(one_line))
            .collect()
    });
    texts.map_or_else(|| one_line(&value.to_string()), |texts| texts.join(", "))
}
