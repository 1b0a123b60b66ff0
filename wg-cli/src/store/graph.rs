//! `graph.jsonl`: one task a line.
//!
//! A change rewrites the lines that it touches and keeps every other byte: other kinds, comments, blank lines, lines that nobody can read.

use std::collections::HashMap;

use serde_json::json;

pub use super::chat_id::ChatId;
use super::chat_task::chat_of;
pub use super::chat_task::{ARCHIVED_TAG, ChatTask, LEGACY_LOOP_TAG, LOOP_TAG};
use super::files;
use super::task::{Parsed, Task};
use super::{StoreError, Workspace, resolve};
use crate::clock;

/// A line as it was read.
#[derive(Debug, Clone)]
struct Line {
    // With its line feed, if it has one.
    bytes: Vec<u8>,
    task: Option<Task>,
}

/// The graph.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    lines: Vec<Line>,
    // Where each task is: the last line of an id counts.
    index: HashMap<String, usize>,
    // The chats whose session was made for a line that is not written yet.
    made: Vec<ChatId>,
}

/// A graph and what was wrong with its file.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The graph without what could not be read.
    pub graph: Graph,
    /// One sentence for each line that was skipped.
    pub warnings: Vec<String>,
}

impl Loaded {
    /// The warnings as they are told: the first few whole, the rest as a number. A file that is no graph at all has thousands.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        const TOLD: usize = 5;
        let mut told: Vec<String> = self.warnings.iter().take(TOLD).cloned().collect();
        if let Some(more) = self
            .warnings
            .len()
            .checked_sub(TOLD)
            .filter(|more| *more > 0)
        {
            told.push(format!("{more} more line(s) like these were skipped"));
        }
        told
    }
}

/// The highest number that a chat can be given by whoever makes it: the next one is one more than the highest there is. One that another
/// tool gave and that is higher still is left out of account, so that it does not end the numbering.
pub const HIGHEST_ID: u32 = 999_999_999;

/// What a new chat is to be.
#[derive(Debug, Clone, Default)]
pub struct NewChat {
    /// Its number; the next free one if `None`.
    pub id: Option<ChatId>,
    /// Its name.
    pub name: Option<String>,
    /// The command that answers.
    pub argv: Option<Vec<String>>,
    /// The agent that answers.
    pub preset: Option<String>,
    /// Where its agent works.
    pub cwd: Option<std::path::PathBuf>,
    /// The model.
    pub model: Option<String>,
    /// The endpoint.
    pub endpoint: Option<String>,
    /// Who asked for it.
    pub user: String,
}

impl Graph {
    /// Reads the graph of a workspace; it waits for no lock, since a rewrite is one rename.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no graph: that is never read as "no chats"; [`StoreError::NotARegularFile`],
    /// [`StoreError::Io`].
    pub fn load(workspace: &Workspace) -> Result<Loaded, StoreError> {
        let path = workspace.graph_path();
        match files::read(&path)? {
            Some(bytes) => Ok(Self::parse(&bytes, &path.display().to_string())),
            None => Err(StoreError::NotFound {
                what: format!("the graph `{}`", path.display()),
            }),
        }
    }

    /// Reads one chat of the graph, and no line that does not speak of it: what a start of a handler costs does not grow with the graph.
    ///
    /// # Errors
    /// As [`Graph::load`].
    pub fn load_chat(workspace: &Workspace, id: ChatId) -> Result<Option<ChatTask>, StoreError> {
        let path = workspace.graph_path();
        let Some(bytes) = files::read(&path)? else {
            return Self::load(workspace).map(|loaded| loaded.graph.chat(id));
        };
        // Every form of its id ends so, but for the oldest, and is written so by everybody who does not escape letters.
        let number = format!("-{}\"", id.0);
        let speaks_of_it = |line: &&[u8]| {
            let holds = |text: &[u8]| line.windows(text.len()).any(|part| part == text);
            holds(number.as_bytes()) || (id.0 == 0 && holds(b".coordinator\""))
        };
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let few: Vec<u8> = lines.filter(speaks_of_it).flatten().copied().collect();
        let name = path.display().to_string();
        let found = Self::parse(&few, &name).graph.chat(id);
        Ok(found.or_else(|| Self::parse(&bytes, &name).graph.chat(id)))
    }

    /// Reads the bytes of a graph; `name` is what the warnings call it.
    #[must_use]
    pub fn parse(bytes: &[u8], name: &str) -> Loaded {
        let mut graph = Self::default();
        let mut warnings = Vec::new();
        for (number, bytes) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let content = bytes.trim_ascii();
            let task = if content.is_empty() || content.starts_with(b"#") {
                None
            } else {
                match Task::parse(content) {
                    Ok(Parsed::Task(task)) => Some(task),
                    Ok(Parsed::Other) => None,
                    Err(reason) => {
                        warnings.push(format!(
                            "line {} of `{name}` was skipped: {reason}",
                            number + 1
                        ));
                        None
                    }
                }
            };
            if let Some(task) = &task
                && let Some(earlier) = graph.index.insert(task.id().to_owned(), number)
            {
                warnings.push(format!(
                    "`{}` stands twice in `{name}`, in lines {} and {}; the last one counts",
                    task.id().escape_debug(),
                    earlier + 1,
                    number + 1
                ));
            }
            graph.lines.push(Line {
                bytes: bytes.to_vec(),
                task,
            });
        }
        Loaded { graph, warnings }
    }

    /// Returns the bytes of the graph: unchanged lines as they were read.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in &self.lines {
            match &line.task {
                Some(task) if task.is_changed() => {
                    // A line that was added after one without a line feed must not be glued to it.
                    if bytes.last().is_some_and(|last| *last != b'\n') {
                        bytes.push(b'\n');
                    }
                    bytes.extend_from_slice(&task.to_line());
                    bytes.extend_from_slice(line_end(&line.bytes));
                }
                Some(_) | None => bytes.extend_from_slice(&line.bytes),
            }
        }
        bytes
    }

    /// Changes the graph under its lock. Nothing is written if nothing was changed or if `change` fails; the sessions of chats that
    /// were added and could not be written are taken away again.
    ///
    /// Lock order: the graph's lock is taken before the registry's and before that of any session.
    ///
    /// # Errors
    /// As [`Graph::load`], and whatever `change` returns.
    pub fn edit<R>(
        workspace: &Workspace,
        change: impl FnOnce(&mut Self) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        files::locked(&workspace.graph_lock_path(), || {
            let Loaded {
                mut graph,
                warnings,
            } = Self::load(workspace)?;
            for warning in warnings {
                // Those who show the graph tell it; every change would only repeat it.
                log::debug!("{warning}");
            }
            let done = change(&mut graph).and_then(|result| {
                if graph.is_changed() {
                    files::replace_atomically(&workspace.graph_path(), &graph.to_bytes())?;
                }
                Ok(result)
            });
            if done.is_err() {
                for chat in &graph.made {
                    if let Err(error) = resolve::unmake_session(workspace, *chat) {
                        log::warn!("the session of {chat}, which was not made, stays: {error}");
                    }
                }
            }
            done
        })
    }

    fn is_changed(&self) -> bool {
        self.lines
            .iter()
            .any(|line| line.task.as_ref().is_some_and(Task::is_changed))
    }

    /// Returns every task, in the order of the file.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.lines.iter().enumerate().filter_map(|(number, line)| {
            let task = line.task.as_ref()?;
            (self.index.get(task.id()) == Some(&number)).then_some(task)
        })
    }

    /// Returns the task of this id.
    #[must_use]
    pub fn task(&self, id: &str) -> Option<&Task> {
        self.index
            .get(id)
            .and_then(|number| self.lines.get(*number))
            .and_then(|line| line.task.as_ref())
    }

    /// Returns the task of this id, to change it.
    pub fn task_mut(&mut self, id: &str) -> Option<&mut Task> {
        self.index
            .get(id)
            .and_then(|number| self.lines.get_mut(*number))
            .and_then(|line| line.task.as_mut())
    }

    /// Adds a task at the end.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`].
    pub fn add_task(&mut self, task: Task) -> Result<(), StoreError> {
        if self.index.contains_key(task.id()) {
            return Err(StoreError::AlreadyExists {
                what: format!("task `{}`", task.id().escape_debug()),
            });
        }
        self.index.insert(task.id().to_owned(), self.lines.len());
        self.lines.push(Line {
            bytes: b"\n".to_vec(),
            task: Some(task),
        });
        Ok(())
    }

    /// Returns every chat by its number, archived ones too. Where a chat has a task of either form the present form wins.
    #[must_use]
    pub fn chats(&self) -> Vec<ChatTask> {
        let mut chats: Vec<ChatTask> = self.tasks().filter_map(chat_of).collect();
        chats.sort_by_key(|chat| (chat.id, chat.legacy));
        chats.dedup_by_key(|chat| chat.id);
        chats
    }

    /// Returns one chat.
    #[must_use]
    pub fn chat(&self, id: ChatId) -> Option<ChatTask> {
        self.forms_of(id)
            .into_iter()
            .find_map(|form| self.task(&form))
            .and_then(chat_of)
    }

    /// Returns the ids of the tasks that this chat has, the one that counts first.
    fn forms_of(&self, id: ChatId) -> Vec<String> {
        let mut forms = vec![id.task_id(), id.legacy_task_id()];
        if id.0 == 0 {
            forms.push(".coordinator".to_owned());
        }
        forms.retain(|form| self.index.contains_key(form));
        forms
    }

    /// Returns a number that no chat of this workspace ever had: one more than the highest in the graph, among the session directories,
    /// the archived ones, the registry and the state files.
    ///
    /// # Errors
    /// As [`resolve::used_ids`]; [`StoreError::AlreadyExists`] if the highest number is taken.
    pub fn next_chat_id(&self, workspace: &Workspace) -> Result<ChatId, StoreError> {
        let in_graph = self
            .tasks()
            .filter_map(|task| ChatId::from_task_id(task.id()));
        let used = in_graph.chain(resolve::used_ids(workspace)?);
        match used.filter(|id| id.0 <= HIGHEST_ID).max() {
            None => Ok(ChatId(0)),
            Some(highest) => {
                highest
                    .0
                    .checked_add(1)
                    .map(ChatId)
                    .ok_or_else(|| StoreError::AlreadyExists {
                        what: format!("the chat with the highest number there can be ({highest})"),
                    })
            }
        }
    }

    /// A name must mean one chat: that of a chat which is served is not given again, whatever its letters' case. A retired one frees it.
    fn name_is_free(&self, name: &str) -> Result<(), StoreError> {
        let folded = name.to_lowercase();
        let taken = self.chats().into_iter().find(|chat| {
            chat.live
                && chat
                    .name
                    .as_ref()
                    .is_some_and(|name| name.to_lowercase() == folded)
        });
        taken.map_or(Ok(()), |chat| {
            Err(StoreError::NameTaken {
                name: name.to_owned(),
                by: chat.id.to_string(),
            })
        })
    }

    /// Adds a chat and makes its session directory.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] if the number was asked for and is taken; [`StoreError::NameTaken`]; [`StoreError::Io`].
    pub fn add_chat(&mut self, workspace: &Workspace, new: NewChat) -> Result<ChatId, StoreError> {
        if let Some(name) = &new.name {
            self.name_is_free(name)?;
        }
        let id = match new.id {
            Some(id) if !self.forms_of(id).is_empty() => {
                return Err(StoreError::AlreadyExists {
                    what: id.to_string(),
                });
            }
            Some(id) => id,
            None => self.next_chat_id(workspace)?,
        };
        let at = clock::now();
        let mut task = Task::new(&id.task_id());
        task.set(
            "title",
            json!(
                new.name
                    .map_or_else(|| format!("Chat {}", id.0), |name| format!("Chat: {name}"))
            ),
        );
        task.set(
            "description",
            json!(format!("Chat {} — persistent chat agent.", id.0)),
        );
        task.set("status", json!("in-progress"));
        task.set("priority", json!(50));
        task.set("tags", json!([LOOP_TAG]));
        for field in ["created_at", "started_at", "last_interaction_at"] {
            task.set(field, json!(at));
        }
        task.push_log(at, "wg", &new.user, &format!("Chat {} created", id.0));
        let optional = [
            ("model", new.model.map(|model| json!(model))),
            ("endpoint", new.endpoint.map(|endpoint| json!(endpoint))),
            ("command_argv", new.argv.map(|argv| json!(argv))),
            (
                "working_dir",
                new.cwd.map(|cwd| json!(cwd.to_string_lossy())),
            ),
            (
                "executor_preset_name",
                new.preset.map(|preset| json!(preset)),
            ),
        ];
        for (field, value) in optional {
            if let Some(value) = value {
                task.set(field, value);
            }
        }
        task.set(
            "cycle_config",
            json!({ "max_iterations": 0, "no_converge": true }),
        );
        // The directory first: the number is then taken even if we are killed before the line is written.
        if !resolve::session_dir(workspace, id, resolve::Make::No)?.is_dir() {
            self.made.push(id);
        }
        resolve::session_dir(workspace, id, resolve::Make::Yes)?;
        self.add_task(task)?;
        Ok(id)
    }

    /// Retires a chat: status `done`, loop tag away, `archived` on, one line in its log. Returns whether that changed anything.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn archive(&mut self, id: ChatId, actor: &str, message: &str) -> Result<bool, StoreError> {
        self.change_chat(id, actor, message, |task| {
            task.set("status", json!("done"));
            task.retag(&[LOOP_TAG, LEGACY_LOOP_TAG], ARCHIVED_TAG);
        })
    }

    /// Takes a retired chat back. Returns whether that changed anything.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn restore(&mut self, id: ChatId, actor: &str, message: &str) -> Result<bool, StoreError> {
        self.change_chat(id, actor, message, |task| {
            task.set("status", json!("in-progress"));
            task.retag(&[ARCHIVED_TAG, LEGACY_LOOP_TAG], LOOP_TAG);
        })
    }

    /// Abandons a chat; its task and its history stay. Returns whether that changed anything.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn delete(&mut self, id: ChatId, actor: &str, message: &str) -> Result<bool, StoreError> {
        self.change_chat(id, actor, message, |task| {
            task.set("status", json!("abandoned"));
        })
    }

    /// Changes the chat's task, both of them where it has one of either form, and logs it if that changed anything.
    fn change_chat(
        &mut self,
        id: ChatId,
        actor: &str,
        message: &str,
        change: impl Fn(&mut Task),
    ) -> Result<bool, StoreError> {
        let forms = self.forms_of(id);
        if forms.is_empty() {
            return Err(StoreError::NotFound {
                what: id.to_string(),
            });
        }
        let at = clock::now();
        let mut changed_any = false;
        for form in forms {
            let Some(task) = self.task_mut(&form) else {
                continue;
            };
            let mut changed = task.clone();
            change(&mut changed);
            if changed.to_line() != task.to_line() {
                changed.push_log(at, actor, &crate::store::messages::user(), message);
                *task = changed;
                changed_any = true;
            }
        }
        Ok(changed_any)
    }

    /// Gives a task another id, in the index too.
    pub(super) fn rename_task(&mut self, from: &str, to: &str) {
        if let Some(number) = self.index.remove(from) {
            self.index.insert(to.to_owned(), number);
            if let Some(task) = self
                .lines
                .get_mut(number)
                .and_then(|line| line.task.as_mut())
            {
                task.set("id", json!(to));
            }
        }
    }

    /// Returns every task that counts, to change it.
    pub(super) fn tasks_mut(&mut self) -> impl Iterator<Item = &mut Task> {
        let index = &self.index;
        self.lines
            .iter_mut()
            .enumerate()
            .filter_map(|(number, line)| {
                let task = line.task.as_mut()?;
                (index.get(task.id()) == Some(&number)).then_some(task)
            })
    }
}

/// Returns the line end of a line; one line feed if it has none.
fn line_end(line: &[u8]) -> &'static [u8] {
    if line.ends_with(b"\r\n") {
        b"\r\n"
    } else {
        b"\n"
    }
}
