//! What stands in the place of a file or a directory of ours and is none: a pipe, a link, a directory, whatever somebody put there.

use std::path::{Path, PathBuf};

use crate::cli::finding::{Finding, Fix, Weight};
use crate::store::files;
use crate::store::graph::Loaded;
use crate::store::resolve::{self, Make};
use crate::store::workspace::Workspace;

/// Files of the workspace. The settings may be a link, and the sessions' registry and the graph are looked at by themselves.
const IN_ROOT: [&str; 2] = ["graph.lock", "chat/sessions.json.lock"];

/// Files of the service. The states of chats are looked at by themselves.
const OF_SERVICE: [&str; 9] = [
    "config.toml",
    "daemon.log",
    "events.jsonl",
    "events.jsonl.lock",
    "up.lock",
    ".handler.pid",
    ".handler.guard",
    ".handler.release-requested",
    "state.json",
];

/// Files of a session.
const OF_SESSION: [&str; 17] = [
    ".handler.pid",
    ".handler.guard",
    "inbox.jsonl",
    "inbox.jsonl.lock",
    "outbox.jsonl",
    "outbox.jsonl.lock",
    ".cursor",
    ".nex-cursor",
    ".coordinator-cursor",
    ".streaming",
    ".turn.json",
    "exit.json",
    "handler.log",
    "agent-stdout.log",
    "agent-stderr.log",
    ".handler.release-requested",
    ".tui-driven",
];

/// Directories of a session.
const IN_SESSION: [&str; 2] = ["consumers", "archive"];

/// What is found, and the sentence of each, which others need not tell again.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) findings: Vec<Finding>,
    sentences: Vec<String>,
}

impl Taken {
    /// Whether this tells the same once more.
    pub(super) fn tells(&self, finding: &Finding) -> bool {
        self.sentences
            .iter()
            .any(|sentence| finding.text().contains(sentence))
    }

    fn tell(&mut self, path: &Path, what: &str, advice: Option<&str>, fix: Fix) {
        let sentence = format!("`{}` {what}", path.display());
        let finding = Finding::new("file", Weight::Error, sentence.clone());
        self.findings.push(match advice {
            Some(advice) => finding.with_advice(advice),
            None => finding.fixed_by(
                "move it aside to `*.corrupt`; what belongs there is made when it is needed",
                fix,
                || Ok(files::set_aside(path).map(drop)?),
            ),
        });
        self.sentences.push(sentence);
    }

    fn file(&mut self, path: &Path, fix: Fix) {
        let Some(node) = files::node_at(path) else {
            return;
        };
        // What it leads to is somebody's, and may be the very file that is missed here.
        let leads_somewhere = path.is_symlink() && path.exists();
        let advice = leads_somewhere.then_some("put the file itself in its place");
        self.tell(
            path,
            &format!("is a {node}, not a regular file"),
            advice,
            fix,
        );
    }

    fn directory(&mut self, path: &Path, fix: Fix) {
        let is_there = path.symlink_metadata().is_ok();
        if is_there && !path.is_dir() {
            self.tell(path, "is not a directory", None, fix);
        }
    }
}

/// Looks at every place. Without a graph that can be read, only at those that belong to no chat.
pub(super) fn taken(workspace: &Workspace, graph: Option<&Loaded>, fix: Fix) -> Taken {
    let mut taken = Taken::default();
    let service = workspace.service_dir();
    for dir in [workspace.chat_root(), service.clone()] {
        taken.directory(&dir, fix);
    }
    let in_root = IN_ROOT.iter().map(|name| workspace.root().join(name));
    let of_service = OF_SERVICE.iter().map(|name| service.join(name));
    for path in in_root.chain(of_service) {
        taken.file(&path, fix);
    }
    let names = files::names_in(&service).unwrap_or_default();
    let locks = names.iter().filter(|name| {
        name.starts_with("coordinator-state-") && name.strip_suffix(".lock").is_some()
    });
    for name in locks {
        taken.file(&service.join(name), fix);
    }
    for dir in sessions(workspace, graph) {
        taken.directory(&dir, fix);
        for name in IN_SESSION {
            taken.directory(&dir.join(name), fix);
        }
        for name in OF_SESSION {
            taken.file(&dir.join(name), fix);
        }
    }
    taken
}

fn sessions(workspace: &Workspace, graph: Option<&Loaded>) -> Vec<PathBuf> {
    let chats = graph.map(|loaded| loaded.graph.chats()).unwrap_or_default();
    // A registry that cannot be read is a finding of its own.
    chats
        .iter()
        .filter_map(|chat| resolve::session_dir(workspace, chat.id, Make::No).ok())
        .collect()
}
