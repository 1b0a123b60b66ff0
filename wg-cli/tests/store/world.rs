//! A workspace of its own for each test.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use wg_cli::store::Workspace;
use wg_cli::store::graph::{ChatId, Graph, NewChat};
use wg_cli::store::messages::{self, Durability, NewMessage, Role, Side};

/// A workspace that is removed with this value.
pub(crate) struct World {
    pub(crate) workspace: Workspace,
    _dir: TempDir,
}

impl World {
    /// Returns a new, empty workspace.
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let workspace = Workspace::init(dir.path()).unwrap();
        Self {
            workspace,
            _dir: dir,
        }
    }

    /// Returns a copy of the workspace that the earlier tool made.
    pub(crate) fn earlier() -> Self {
        let dir = TempDir::new().unwrap();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/earlier");
        copy(&fixture, &dir.path().join(".wg"));
        let workspace = Workspace::open(&dir.path().join(".wg")).unwrap();
        Self {
            workspace,
            _dir: dir,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.workspace.root().join(name)
    }

    pub(crate) fn graph(&self) -> Graph {
        Graph::load(&self.workspace).unwrap().graph
    }

    pub(crate) fn write_graph(&self, text: &str) {
        fs::write(self.workspace.graph_path(), text).unwrap();
    }

    pub(crate) fn add_chat(&self, new: NewChat) -> ChatId {
        Graph::edit(&self.workspace, |graph| {
            graph.add_chat(&self.workspace, new)
        })
        .unwrap()
    }

    /// Returns a session directory that belongs to no chat.
    pub(crate) fn session(&self) -> PathBuf {
        let dir = self.workspace.chat_root().join("session");
        fs::create_dir_all(&dir).unwrap();
        dir
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Appends a question and returns its id.
pub(crate) fn ask(dir: &Path, content: &str) -> u64 {
    messages::append(
        dir,
        Side::Inbox,
        NewMessage::new(Role::User, content),
        Durability::NoSync,
    )
    .unwrap()
}

/// Appends the reply to a question and returns its id.
pub(crate) fn reply(dir: &Path, to: u64) -> u64 {
    let reply = NewMessage {
        in_reply_to: Some(to),
        ..NewMessage::new(Role::Coordinator, format!("re {to}"))
    };
    messages::append(dir, Side::Outbox, reply, Durability::NoSync).unwrap()
}

/// Returns the ids of the messages after `after`.
pub(crate) fn ids(dir: &Path, side: Side, after: u64) -> Vec<u64> {
    messages::read_after(dir, side, after)
        .unwrap()
        .messages
        .iter()
        .map(|message| message.id)
        .collect()
}

/// Returns the ids of the questions without a reply.
pub(crate) fn unanswered(dir: &Path) -> Vec<u64> {
    let waiting = messages::unanswered(dir).unwrap();
    // Whatever the files look like: the short way to the next one leads to the same.
    let next = messages::next_unanswered(dir).unwrap();
    assert_eq!(next.as_ref(), waiting.first());
    for message in &waiting {
        let found = messages::find_unanswered(dir, message.id).unwrap();
        assert_eq!(found.as_ref(), Some(message));
    }
    waiting.iter().map(|message| message.id).collect()
}

/// Returns how many bytes this thread has read so far.
pub(crate) fn bytes_read() -> u64 {
    transferred("rchar: ")
}

/// Returns how many bytes this thread has written so far.
pub(crate) fn bytes_written() -> u64 {
    transferred("wchar: ")
}

fn transferred(which: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/io").unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix(which))
        .unwrap()
        .parse()
        .unwrap()
}
