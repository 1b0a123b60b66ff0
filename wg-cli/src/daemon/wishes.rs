//! What a person decided for a chat, on the disk: the state file and the graph tell it alike.
//!
//! The state file is written first, because it is what every handler re-reads after it took its lock; the graph
//! is what people and the earlier tool read.

use std::time::Duration;

use crate::chat::Wish;
use crate::clock::{self, Timestamp};
use crate::failure::with_causes;
use crate::store::StoreError;
use crate::store::chat_state::ChatRecord;
use crate::store::graph::{ChatId, ChatTask, Graph};
use crate::store::resolve;
use crate::store::workspace::Workspace;

/// The wish that is in force: the strongest that either file tells.
#[must_use]
pub(crate) fn of(record: &ChatRecord, task: Option<&ChatTask>) -> Wish {
    if record.purged_at.is_some() {
        Wish::Purged
    } else if record.archived_at.is_some() || task.is_some_and(|task| task.archived || !task.live) {
        Wish::Archived
    } else if record.stopped_at.is_some() {
        Wish::Stopped
    } else {
        Wish::Run
    }
}

/// Writes a wish to the state file only, whose lock is waited for no longer than `patience`; see [`persist`].
///
/// # Errors
///
/// The file cannot be written.
pub(super) fn record_within(
    workspace: &Workspace,
    chat: ChatId,
    wish: Wish,
    actor: &str,
    why: &str,
    patience: Duration,
) -> Result<ChatRecord, StoreError> {
    let now = clock::now();
    ChatRecord::update_within(workspace, chat, patience, |record| {
        record.wish_actor = Some(actor.to_owned());
        record.wish_reason = Some(why.to_owned());
        write(record, wish, now);
    })
}

/// Sets a wish in a record that is about to be written.
pub(crate) fn write(record: &mut ChatRecord, wish: Wish, now: Timestamp) {
    match wish {
        Wish::Run => {
            record.stopped_at = None;
            record.archived_at = None;
            record.purged_at = None;
        }
        Wish::Stopped => record.stopped_at = Some(now),
        Wish::Archived => record.archived_at = Some(now),
        Wish::Purged => record.purged_at = Some(now),
    }
}

/// Writes a wish to the state file, then to the graph.
///
/// # Errors
///
/// One of the files cannot be written; then the former wish stands in both. The state file is written first, and taken back where
/// the graph fails.
pub(super) fn persist(
    workspace: &Workspace,
    chat: ChatId,
    wish: Wish,
    actor: &str,
    why: &str,
) -> Result<(), StoreError> {
    let mut former = None;
    let now = clock::now();
    ChatRecord::update(workspace, chat, |record| {
        former = Some(record.clone());
        record.wish_actor = Some(actor.to_owned());
        record.wish_reason = Some(why.to_owned());
        write(record, wish, now);
    })?;
    let told = tell_graph(workspace, chat, wish, actor, why);
    if let (Err(_), Some(former)) = (&told, former)
        && let Err(error) = take_back(workspace, chat, former)
    {
        log::error!(
            "{chat}: its state file tells a wish that its task does not: {}",
            with_causes(&error)
        );
    }
    told
}

/// Puts the wish back that stood before. What else was written to the record meanwhile stays.
fn take_back(workspace: &Workspace, chat: ChatId, former: ChatRecord) -> Result<(), StoreError> {
    ChatRecord::update(workspace, chat, |record| {
        record.stopped_at = former.stopped_at;
        record.archived_at = former.archived_at;
        record.purged_at = former.purged_at;
        record.wish_actor = former.wish_actor;
        record.wish_reason = former.wish_reason;
    })
    .map(drop)
}

fn tell_graph(
    workspace: &Workspace,
    chat: ChatId,
    wish: Wish,
    actor: &str,
    why: &str,
) -> Result<(), StoreError> {
    match wish {
        Wish::Stopped => Ok(()),
        Wish::Archived | Wish::Purged => {
            Graph::edit(workspace, |graph| graph.archive(chat, actor, why)).map(drop)
        }
        Wish::Run => {
            Graph::edit(workspace, |graph| graph.restore(chat, actor, why))?;
            // The earlier tool moves a session away when it archives; without this it would begin a second history.
            resolve::unarchive_session(workspace, chat).map(drop)
        }
    }
}
