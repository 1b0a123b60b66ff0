//! The move from `.coordinator-S` to `.chat-S`.

use serde::Serialize;
use serde_json::{Value, json};

use super::StoreError;
use super::graph::{Graph, LEGACY_LOOP_TAG, LOOP_TAG};
use super::task::Task;
use crate::clock;

/// What the move did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RenameReport {
    /// Old and new ids.
    pub renamed_ids: Vec<(String, String)>,
    /// How many `after` edges lead to a new id now.
    pub rewritten_edges: usize,
    /// How many tags were replaced.
    pub renamed_tags: usize,
    /// How many titles were replaced.
    pub renamed_titles: usize,
    /// Old ids that stay, because their new id is taken by another task.
    pub kept: Vec<String>,
    /// Whether nothing was written.
    pub dry_run: bool,
}

impl RenameReport {
    /// Whether there was nothing to move.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.renamed_ids.is_empty()
            && self.rewritten_edges == 0
            && self.renamed_tags == 0
            && self.renamed_titles == 0
    }
}

/// Whether a move writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dry {
    /// It only counts.
    Yes,
    /// It writes.
    No,
}

impl Graph {
    /// Moves every task of an earlier version to the present form; a second time it finds nothing.
    ///
    /// # Errors
    /// None of its own; the signature fits [`Graph::edit`].
    pub fn rename_legacy(&mut self, dry: Dry) -> Result<RenameReport, StoreError> {
        match dry {
            Dry::Yes => Ok(RenameReport {
                dry_run: true,
                ..self.clone().rename_all()
            }),
            Dry::No => Ok(self.rename_all()),
        }
    }

    fn rename_all(&mut self) -> RenameReport {
        let mut report = RenameReport::default();
        let at = clock::now();
        let old_ids: Vec<String> = self
            .tasks()
            .map(|task| task.id().to_owned())
            .filter(|id| new_id(id).is_some())
            .collect();
        for old in old_ids {
            let Some(new) = new_id(&old) else { continue };
            if self.task(&new).is_some() {
                report.kept.push(old);
                continue;
            }
            self.rename_task(&old, &new);
            if let Some(task) = self.task_mut(&new) {
                task.push_log(
                    at,
                    "migration",
                    &super::messages::user(),
                    &format!("renamed from {old}"),
                );
            }
            report.renamed_ids.push((old, new));
        }
        for task in self.tasks_mut() {
            if report.kept.iter().any(|kept| kept == task.id()) {
                continue;
            }
            report.renamed_tags += usize::from(rename_tag(task));
            report.renamed_titles += usize::from(rename_title(task));
            report.rewritten_edges += rename_edges(task, &report.renamed_ids);
        }
        report
    }
}

/// Returns the present form of an earlier id.
fn new_id(old: &str) -> Option<String> {
    match old.strip_prefix(".coordinator")? {
        "" => Some(".chat-0".to_owned()),
        suffix => suffix
            .strip_prefix('-')
            .filter(|rest| !rest.is_empty())
            .map(|rest| format!(".chat-{rest}")),
    }
}

fn rename_tag(task: &mut Task) -> bool {
    let mut tags = task.tags();
    let Some(at) = tags.iter().position(|tag| tag == LEGACY_LOOP_TAG) else {
        return false;
    };
    if tags.iter().any(|tag| tag == LOOP_TAG) {
        tags.remove(at);
    } else {
        LOOP_TAG.clone_into(&mut tags[at]);
    }
    task.set("tags", json!(tags));
    true
}

/// `Coordinator: X` becomes `Chat: X`, `Coordinator 12` becomes `Chat 12`; only for chats.
fn rename_title(task: &mut Task) -> bool {
    if !task.id().starts_with(".chat-") {
        return false;
    }
    let title = task.title();
    let Some(rest) = title.strip_prefix("Coordinator") else {
        return false;
    };
    let numbered = rest.strip_prefix(' ').is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    if !numbered && !rest.starts_with(": ") {
        return false;
    }
    task.set("title", json!(format!("Chat{rest}")));
    true
}

fn rename_edges(task: &mut Task, renamed: &[(String, String)]) -> usize {
    let Some(Value::Array(mut after)) = task.get("after") else {
        return 0;
    };
    let mut count = 0;
    for edge in &mut after {
        if let Some((_, new)) = renamed.iter().find(|(old, _)| edge.as_str() == Some(old)) {
            *edge = json!(new);
            count += 1;
        }
    }
    if count > 0 {
        task.set("after", Value::Array(after));
    }
    count
}
