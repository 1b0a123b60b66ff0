//! The graph belongs to other tools too: it is read again when its file changed, and before each start.
//!
//! A graph that cannot be read pauses the starts and says so once; what was known of the chats stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use super::host::unit_of;
use super::{Daemon, boot};
use crate::chat::Wish;
use crate::failure::with_causes;
use crate::store::StoreError;
use crate::store::graph::{ChatId, ChatTask, Graph, Loaded};

/// What was last seen of the graph's file.
#[derive(Debug, Default)]
pub(super) struct GraphSeen {
    stamp: Option<Stamp>,
    /// Why it could not be read the last time.
    trouble: Option<String>,
    /// How many of its lines could not be read.
    bad_lines: usize,
}

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    length: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            written: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What the graph says of a chat that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum InGraph {
    /// There is a task of it.
    #[default]
    There,
    /// There is none, and some line cannot be read: it may be its own.
    Unclear,
    /// There is none.
    Gone,
}

/// What another tool's change of the graph leads to.
#[derive(Debug, Default)]
struct Consequences {
    /// Retired, with a handler that is to end.
    ended: Vec<ChatId>,
    /// Served again.
    back: Vec<ChatId>,
    /// Without a task from now on.
    gone: Vec<ChatId>,
    /// Not known before.
    new: Vec<ChatTask>,
}

impl Consequences {
    fn is_empty(&self) -> bool {
        self.ended.is_empty() && self.back.is_empty() && self.gone.is_empty() && self.new.is_empty()
    }
}

/// What is wrong with a graph of which so many lines were skipped.
pub(super) fn damage(skipped: usize) -> String {
    format!(
        "{skipped} line(s) were skipped, and a chat whose line that is does not start (wg doctor)"
    )
}

impl Daemon {
    /// Archives chats in the graph, and takes into account what it says then.
    pub(super) fn archive_in_graph(
        &self,
        chats: &[ChatId],
        actor: &str,
        why: &str,
    ) -> Result<(), StoreError> {
        Graph::edit(&self.workspace, |graph| {
            for chat in chats {
                graph.archive(*chat, actor, why)?;
            }
            Ok(())
        })?;
        for task in Graph::load(&self.workspace)?.graph.chats() {
            self.admit(task);
        }
        Ok(())
    }

    /// Takes what the graph says now into account, where its file changed since it was last read.
    ///
    /// # Errors
    ///
    /// It cannot be read; then everything stays as it was known.
    pub(super) fn heed_graph(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut seen = self.graph_seen.lock();
        let path = self.workspace.graph_path();
        // Before it is read: what is written meanwhile is read the next time.
        let stamp = path.symlink_metadata().ok().map(|found| Stamp::of(&found));
        if stamp.is_some() && stamp == seen.stamp && seen.trouble.is_none() {
            return Ok(());
        }
        // Before it is read, too: a chat that is made meanwhile is no chat that is gone.
        let known: BTreeSet<ChatId> = self.chats.lock().keys().copied().collect();
        let loaded = match Graph::load(&self.workspace) {
            Ok(loaded) => loaded,
            Err(error) => {
                let trouble = with_causes(&error);
                if seen.trouble.as_ref() != Some(&trouble) {
                    log::warn!("no handler is started until the graph can be read: {trouble}");
                }
                seen.trouble = Some(trouble);
                return Err(error);
            }
        };
        if seen.trouble.take().is_some() {
            log::info!("the graph can be read again");
        }
        seen.stamp = stamp;
        seen.bad_lines = loaded.warnings.len();
        let found = self.compare(&known, &loaded);
        drop(seen);
        if !found.is_empty() {
            // Out of the way of the driver's thread, which asks before each start.
            let daemon = Arc::clone(self);
            self.in_lane("heed", "heed the graph", move || daemon.follow(found));
        }
        Ok(())
    }

    fn compare(&self, known: &BTreeSet<ChatId>, loaded: &Loaded) -> Consequences {
        let mut found = Consequences::default();
        let mut tasks: BTreeMap<ChatId, ChatTask> = loaded
            .graph
            .chats()
            .into_iter()
            .map(|task| (task.id, task))
            .collect();
        for (chat, entry) in self.chats.lock().iter_mut() {
            let before = entry.core.wish();
            match tasks.remove(chat) {
                Some(task) => entry.heed(task),
                None if !known.contains(chat) => {}
                // A line that cannot be read is not a chat that is gone.
                None if !loaded.warnings.is_empty() => entry.in_graph = InGraph::Unclear,
                None => {
                    if entry.in_graph != InGraph::Gone && before == Wish::Run {
                        found.gone.push(*chat);
                    }
                    entry.in_graph = InGraph::Gone;
                    entry.core.set_retired(true);
                    continue;
                }
            }
            match (before, entry.core.wish()) {
                (Wish::Run, Wish::Archived) if entry.handler.is_some() => found.ended.push(*chat),
                (Wish::Archived, Wish::Run) => found.back.push(*chat),
                _ => {}
            }
        }
        found.new = tasks.into_values().filter(|task| task.live).collect();
        found
    }

    fn follow(&self, found: Consequences) {
        for chat in found.gone {
            // Its state file is archived by the next start of the service, which reads the graph afresh; a handler that it has goes
            // on until it is idle, because a file that somebody else is writing may be short for a moment.
            boot::say_that_it_is_an_orphan(chat);
        }
        for chat in found.ended {
            log::info!(
                "Coordinator-{}: its task is over in the graph; its handler is asked to leave",
                chat.0
            );
            drop(self.driver().stop(unit_of(chat)));
        }
        let mut served = found.back;
        let new: BTreeSet<ChatId> = found.new.iter().map(|task| task.id).collect();
        for task in found.new {
            self.admit(task);
        }
        // A graph that was cut short when this daemon began hid them, and they may have handlers of the former one.
        boot::adopt_late(self, &new);
        served.extend(new);
        for chat in served {
            self.ensure_unit(chat);
            self.driver().start(unit_of(chat));
            self.inbox_changed(chat);
        }
    }

    /// Why the graph cannot be read, and what that holds up, in one sentence; `None` where it was read the last time.
    pub(super) fn graph_trouble(&self) -> Option<String> {
        let seen = self.graph_seen.lock();
        let trouble = seen.trouble.as_ref()?;
        Some(format!(
            "it cannot be read, so no handler is started: {trouble}"
        ))
    }

    /// As [`Daemon::graph_trouble`], or how much of it was skipped.
    pub(super) fn graph_trouble_or_damage(&self) -> Option<String> {
        self.graph_trouble().or_else(|| {
            let skipped = self.graph_seen.lock().bad_lines;
            (skipped > 0).then(|| damage(skipped))
        })
    }

    /// What the graph that was last read says of this chat.
    pub(super) fn in_graph(&self, chat: ChatId) -> InGraph {
        let chats = self.chats.lock();
        chats
            .get(&chat)
            .map_or(InGraph::Gone, |entry| entry.in_graph)
    }
}
