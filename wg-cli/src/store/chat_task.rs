//! A chat, as its task in the graph says it.

use std::path::PathBuf;

use super::chat_id::ChatId;
use super::task::Task;
use crate::clock::Timestamp;

/// The tag of a chat that is to be served.
pub const LOOP_TAG: &str = "chat-loop";
/// The same, in the words of earlier versions.
pub const LEGACY_LOOP_TAG: &str = "coordinator-loop";
/// The tag of a chat that was retired.
pub const ARCHIVED_TAG: &str = "archived";

/// A chat, as its task says it.
#[derive(Debug, Clone)]
pub struct ChatTask {
    /// Its number.
    pub id: ChatId,
    /// The id that the task has in the graph now.
    pub task_id: String,
    /// The title of the task, such as `Chat: alpha`.
    pub title: String,
    /// The name that a person gave it, which is its title without `Chat: `.
    pub name: Option<String>,
    /// The status of the task.
    pub status: String,
    /// Whether it is to be served: the loop tag, not archived, not done and not abandoned.
    pub live: bool,
    /// Whether it was retired.
    pub archived: bool,
    /// Whether its task has the form of an earlier version.
    pub legacy: bool,
    /// The command that answers, if one was given.
    pub argv: Option<Vec<String>>,
    /// The agent that answers, if one was named.
    pub preset: Option<String>,
    /// Where its agent works.
    pub cwd: Option<PathBuf>,
    /// The model, for agents that have a choice.
    pub model: Option<String>,
    /// The endpoint, for agents that have a choice.
    pub endpoint: Option<String>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
}

/// Reads a task as a chat, if its id is that of one.
pub(super) fn chat_of(task: &Task) -> Option<ChatTask> {
    let id = ChatId::from_task_id(task.id())?;
    let tags = task.tags();
    let tagged = |tag: &str| tags.iter().any(|there| there == tag);
    let status = task.status();
    let archived = tagged(ARCHIVED_TAG);
    let ended = ["done", "abandoned"].contains(&status.as_str());
    let title = task.title();
    let name = ["Chat: ", "Coordinator: "]
        .iter()
        .find_map(|prefix| title.strip_prefix(prefix))
        .map(str::to_owned);
    Some(ChatTask {
        id,
        task_id: task.id().to_owned(),
        name,
        live: (tagged(LOOP_TAG) || tagged(LEGACY_LOOP_TAG)) && !archived && !ended,
        archived,
        legacy: task.id() != id.task_id(),
        argv: Some(task.texts("command_argv")).filter(|argv| !argv.is_empty()),
        preset: task.text("executor_preset_name"),
        cwd: task.text("working_dir").map(Into::into),
        model: task.text("model"),
        endpoint: task.text("endpoint"),
        created_at: task.time("created_at"),
        title,
        status,
    })
}
