//! The first half of a purge: every chat is marked in its state file, then in the graph. One whose file another process has comes last,
//! so that it holds up no other.

use std::time::Duration;

use super::super::{Daemon, wishes};
use crate::chat::{Act, Happened, Wish};
use crate::clock;
use crate::failure::Failure;
use crate::ops::{PurgeError, PurgeReport};
use crate::store::StoreError;
use crate::store::chat_state::ChatRecord;
use crate::store::graph::ChatId;

/// How long other processes may have the files of all chats together before theirs come last.
const AT_ONCE: Duration = Duration::from_millis(100);

/// How long they may then have them.
const IN_OTHER_HANDS: Duration = Duration::from_secs(30);

/// Marks the chats; returns those that are marked, of which `marked` is told as soon as they are. One that cannot be marked stays as it was
/// and is an error of the report.
pub(super) fn retire(
    daemon: &Daemon,
    chosen: Vec<ChatId>,
    actor: &str,
    report: &mut PurgeReport,
    marked: &mut dyn FnMut(&[ChatId]),
) -> Vec<ChatId> {
    let mut all = Vec::with_capacity(chosen.len());
    let mut waiting = chosen;
    for patience in [AT_ONCE, IN_OTHER_HANDS] {
        let Marked { chats, refused } = mark(daemon, &waiting, actor, patience);
        archive(daemon, &chats, actor, report);
        marked(&chats);
        all.extend(chats);
        waiting.clear();
        for (chat, error) in refused {
            if patience == AT_ONCE && matches!(error, StoreError::Busy { .. }) {
                waiting.push(chat);
                continue;
            }
            report.purged.retain(|name| name.chat_id != chat.0);
            let pid = holder_in(&error);
            let failure = Failure::from(error);
            report.errors.push(PurgeError {
                chat_id: chat.0,
                pid,
                error: format!("it could not be marked as purged: {failure}"),
                code: failure.code.code(),
            });
        }
    }
    all
}

/// What came of marking chats.
struct Marked {
    /// Those that are marked.
    chats: Vec<ChatId>,
    /// Those that stay as they were, and why.
    refused: Vec<(ChatId, StoreError)>,
}

/// Marks each chat in its core and on the disk. Other processes may have the files of all of them together for so long.
fn mark(daemon: &Daemon, chosen: &[ChatId], actor: &str, patience: Duration) -> Marked {
    let until = clock::steady() + patience;
    let mut marked = Marked {
        chats: Vec::with_capacity(chosen.len()),
        refused: Vec::new(),
    };
    for chat in chosen.iter().copied() {
        let left = until.saturating_duration_since(clock::steady());
        match mark_one(daemon, chat, actor, left) {
            Ok(()) => marked.chats.push(chat),
            Err(error) => marked.refused.push((chat, error)),
        }
    }
    marked
}

fn mark_one(
    daemon: &Daemon,
    chat: ChatId,
    actor: &str,
    patience: Duration,
) -> Result<(), StoreError> {
    let until = clock::steady() + patience;
    let wishing = daemon.wishing(chat);
    let in_order = wishing
        .as_ref()
        .map(|wishing| wishing.try_lock_until(until));
    if let Some(None) = in_order {
        // Another verb waits for one of that chat's files.
        return Err(ChatRecord::busy(&daemon.workspace, chat, patience));
    }
    let was = daemon
        .chats
        .lock()
        .get(&chat)
        .map(|entry| entry.core.wish());
    // The graph is written for all chats at once, and the stop follows for all of them in parallel.
    for act in daemon.told(chat, Happened::Purge) {
        debug_assert!(matches!(act, Act::PersistWish(Wish::Purged) | Act::Stop));
    }
    let left = until.saturating_duration_since(clock::steady());
    let wish = Wish::Purged;
    let written = wishes::record_within(&daemon.workspace, chat, wish, actor, "purged", left);
    if written.is_err()
        && let Some(was) = was
    {
        daemon.act(chat, Happened::WishNotKept(was));
    }
    written.map(drop)
}

/// Archives the chats in the graph. Their marks hold even where it cannot be written: what they withdraw is ended all the same.
fn archive(daemon: &Daemon, marked: &[ChatId], actor: &str, report: &mut PurgeReport) {
    let Some(first) = marked.first() else { return };
    if let Err(e) = daemon.archive_in_graph(marked, actor, "purged") {
        let pid = holder_in(&e);
        let failure = Failure::from(e);
        report.errors.push(PurgeError {
            chat_id: first.0,
            pid,
            error: format!("purged, but not in the graph yet: {failure}"),
            code: failure.code.code(),
        });
    }
}

/// The process that has the file.
fn holder_in(error: &StoreError) -> Option<u32> {
    if let StoreError::Busy { holder, .. } = error {
        holder.as_ref().map(|holder| holder.pid)
    } else {
        None
    }
}
