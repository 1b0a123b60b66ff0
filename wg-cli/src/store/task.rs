//! One task of the graph, as its line says it.
//!
//! Fields that nobody touches keep their very bytes: a value is only read when it is asked for and only written when it is set.

use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::json;
use crate::clock::Timestamp;

/// A task of the graph.
#[derive(Debug, Clone)]
pub struct Task {
    id: String,
    fields: Fields,
    changed: bool,
}

/// What a line of the graph is.
#[derive(Debug)]
pub(super) enum Parsed {
    /// A task.
    Task(Task),
    /// A record of another kind, kept as it is.
    Other,
}

impl Task {
    /// Returns a new task with only its kind and id.
    #[must_use]
    pub fn new(id: &str) -> Self {
        let mut task = Self {
            id: id.to_owned(),
            fields: Fields::default(),
            changed: true,
        };
        task.set("kind", json!("task"));
        task.set("id", json!(id));
        task
    }

    /// Reads a line.
    pub(super) fn parse(line: &[u8]) -> Result<Parsed, String> {
        let fields: Fields = serde_json::from_slice(line).map_err(|error| reason(&error))?;
        let mut task = Self {
            id: String::new(),
            fields,
            changed: false,
        };
        match task.text("kind").as_deref() {
            Some("task") => {}
            Some(_) => return Ok(Parsed::Other),
            None => return Err("it has no `kind`".to_owned()),
        }
        task.id = task
            .text("id")
            .filter(|id| !id.is_empty())
            .ok_or("it is a task without an `id`")?;
        Ok(Parsed::Task(task))
    }

    /// Returns the line for this task.
    pub(super) fn to_line(&self) -> Vec<u8> {
        json::line(&self.fields)
    }

    /// Whether the task is not as its line says.
    pub(super) fn is_changed(&self) -> bool {
        self.changed
    }

    /// Returns the id, such as `.chat-3`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns a field's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Value> {
        self.fields.get(name)
    }

    /// Returns a field's value if it is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        match self.get(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Returns the texts of a field that is a list of texts, empty if it is none.
    #[must_use]
    pub fn texts(&self, name: &str) -> Vec<String> {
        match self.get(name) {
            Some(Value::Array(values)) => values
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Returns a field's value if it is a time.
    #[must_use]
    pub fn time(&self, name: &str) -> Option<Timestamp> {
        self.text(name).and_then(|text| Timestamp::parse(&text))
    }

    /// Sets a field, in its place if it is there, else at the end.
    pub fn set(&mut self, name: &str, value: Value) {
        self.changed |= self.fields.set(name, &value);
        if name == "id"
            && let Value::String(id) = value
        {
            self.id = id;
        }
    }

    /// Removes a field.
    pub fn remove(&mut self, name: &str) {
        self.changed |= self.fields.remove(name);
    }

    /// Returns the title, empty if there is none.
    #[must_use]
    pub fn title(&self) -> String {
        self.text("title").unwrap_or_default()
    }

    /// Returns the status; `open` if there is none, `done` for the earlier `pending-review`.
    #[must_use]
    pub fn status(&self) -> String {
        match self.text("status") {
            Some(status) if status == "pending-review" => "done".to_owned(),
            Some(status) => status,
            None => "open".to_owned(),
        }
    }

    /// Returns the tags.
    #[must_use]
    pub fn tags(&self) -> Vec<String> {
        self.texts("tags")
    }

    /// Whether the task bears a tag.
    #[must_use]
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags().iter().any(|there| there == tag)
    }

    /// Removes some tags and adds one at the end if it is not there.
    pub fn retag(&mut self, remove: &[&str], add: &str) {
        let mut tags = self.tags();
        tags.retain(|tag| !remove.contains(&tag.as_str()));
        if !tags.iter().any(|tag| tag == add) {
            tags.push(add.to_owned());
        }
        self.set("tags", json!(tags));
    }

    /// Adds an entry to the task's log.
    pub fn push_log(&mut self, at: Timestamp, actor: &str, user: &str, message: &str) {
        let mut log = match self.get("log") {
            Some(Value::Array(entries)) => entries,
            _ => Vec::new(),
        };
        log.push(json!({ "timestamp": at, "actor": actor, "user": user, "message": message }));
        self.set("log", Value::Array(log));
    }

    /// Returns the whole task.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        self.fields.to_map()
    }
}

/// Says what is wrong with a line; its number in the file is told by others.
fn reason(error: &serde_json::Error) -> String {
    let told = error.to_string();
    match told.split_once(" at line ") {
        Some((what, _)) => format!("{what} at column {}", error.column()),
        None => told,
    }
}
