//! What is true of a chat while no daemon looks after it: a handler that goes on alone, who else has the session, and where its
//! machine stood when the last daemon wrote it down.

use std::path::Path;

use supervisor::tree::{self, Process};
use supervisor::{State, ValidPolicy};

use super::groups::Left;
use super::holder::{self, Right, Seen};
use super::{books, reap, wishes};
use crate::chat::{Server, state_without_a_daemon};
use crate::clock::Timestamp;
use crate::names::ChatState;
use crate::notices::wall;
use crate::store::chat_state::{ChatRecord, SpawnRecord};
use crate::store::graph::{ChatId, ChatTask};
use crate::store::workspace::Workspace;

/// A chat without a daemon.
#[derive(Debug)]
pub(super) struct Down {
    /// What it is doing.
    pub(super) state: ChatState,
    /// Since when, where that is known.
    pub(super) since: Option<Timestamp>,
    /// The handler that goes on alone.
    pub(super) handler: Option<u32>,
    /// Who else has the session.
    pub(super) holder: Option<Seen>,
    /// Who is in the control group of a handler that is gone, and has not its lock.
    pub(super) left_over: Vec<Process>,
    /// Where its machine stood, as the next daemon will find it.
    pub(super) machine: Option<supervisor::Explanation>,
}

impl Down {
    /// Looks at the chat whose session is in `dir`.
    pub(super) fn look(
        workspace: &Workspace,
        policy: &ValidPolicy,
        task: &ChatTask,
        record: &ChatRecord,
        dir: Option<&Path>,
    ) -> Self {
        let chat: ChatId = task.id;
        let seen = dir.and_then(holder::seen);
        let named = seen.as_ref().map(|seen| &seen.holder);
        let named = named.map(|holder| holder.left_by.unwrap_or(holder.pid));
        let handler = record.spawn.as_ref().and_then(|spawn| {
            let all = reap::handlers_of(workspace, chat, named, spawn);
            all.first().map(|(pid, _)| *pid)
        });
        let is_it = |seen: &Seen| Some(seen.holder.pid) == handler && seen.holds_itself();
        let serves = seen.as_ref().is_some_and(is_it);
        let since = seen
            .as_ref()
            .and_then(|seen| Timestamp::parse(&seen.holder.since));
        let holder = seen.filter(|_| !serves);
        let who = match (&holder, handler) {
            (_, Some(_)) => Server::Handler { serves },
            (Some(seen), None) if !matches!(seen.right, Right::LeftBehind(_)) => Server::Another,
            (_, None) => Server::Nobody,
        };
        let left_over = match (&record.spawn, handler) {
            (Some(spawn), None) => left_in_group(workspace, spawn, holder.as_ref()),
            _ => Vec::new(),
        };
        let machine = match books::saved(record, policy) {
            Some(Ok(machine)) => Some(machine.explain(supervisor::clock::now())),
            Some(Err(_)) | None => None,
        };
        let parked = machine.as_ref().and_then(|machine| match &machine.state {
            State::Parked { since, .. } => Some(wall(*since)),
            State::Idle { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Ending { .. }
            | State::Backoff { .. }
            | State::Degraded { .. }
            | State::Held { .. }
            | State::Contended { .. }
            | State::Stopping { .. }
            | State::Stopped { .. } => None,
        });
        let wish = wishes::of(record, Some(task));
        let state = state_without_a_daemon(wish, who, parked.is_some());
        let since = match state {
            ChatState::Running | ChatState::Held => since,
            ChatState::Parked => parked,
            ChatState::Stopped => record.stopped_at,
            ChatState::Archived => record.archived_at,
            ChatState::Purged => record.purged_at,
            // When the service went nobody wrote down.
            ChatState::Adopted
            | ChatState::Starting
            | ChatState::Queued
            | ChatState::Idle
            | ChatState::Backoff
            | ChatState::Degraded
            | ChatState::Stopping
            | ChatState::Dormant => None,
        };
        Self {
            state,
            since,
            handler,
            holder,
            left_over,
            machine,
        }
    }
}

fn left_in_group(
    workspace: &Workspace,
    spawn: &SpawnRecord,
    holder: Option<&Seen>,
) -> Vec<Process> {
    let members = Left::of(spawn, None).map(|left| left.members(workspace));
    let has_the_lock = |pid: &u32| holder.is_some_and(|seen| seen.is_among(*pid));
    members
        .into_iter()
        .flatten()
        .filter(|pid| !has_the_lock(pid))
        .filter_map(tree::process)
        .collect()
}
