//! Facts about a chat, for a list and for `wg why`.

use std::path::Path;

use supervisor::State;
use supervisor::tree::{self, Process};

use super::graph_seen::InGraph;
use super::holder::{self, Seen};
use super::words::{Known, Service, words};
use super::{Daemon, QUERY};
use crate::agent::AgentSpec;
use crate::chat::Need;
use crate::clock::{self, Timestamp};
use crate::names::ChatState;
use crate::notices::wall;
use crate::ops::ChatRow;
use crate::standstill::{self, Standstill};
use crate::store::chat_state::ChatRecord;
use crate::store::config::Config;
use crate::store::graph::{ChatId, ChatTask};
use crate::store::messages;
use crate::store::resolve::{self, Make};
use crate::store::workspace::Workspace;
use crate::why::Explanation;

/// Explains a chat that the daemon knows.
pub(super) fn explain(daemon: &Daemon, chat: ChatId) -> Explanation {
    let machine = daemon
        .driver()
        .explain(super::host::unit_of(chat), QUERY)
        .ok()
        .flatten();
    let machine = machine.map(|report| report.explanation);
    let record = ChatRecord::load(&daemon.workspace, chat).unwrap_or_default();
    // Of the same look at the machine as everything else that is said.
    let state = daemon.state_with(chat, machine.as_ref().map(|machine| &machine.state));
    let (task, last, reason, not_now, wanted) = {
        let chats = daemon.chats.lock();
        let entry = chats.get(&chat);
        let need = entry.map(|entry| entry.core.need(clock::steady()));
        (
            entry.map_or_else(|| nameless(chat), |entry| entry.task.clone()),
            entry.and_then(|entry| entry.last.clone()),
            entry
                .and_then(|entry| entry.reason)
                .map(|reason| reason.to_string()),
            entry.and_then(|entry| entry.not_now.clone()),
            matches!(need, Some(Need::Because(_))),
        )
    };
    let pid = machine
        .as_ref()
        .and_then(|machine| machine.state.process())
        .map(|(pid, _)| pid);
    let dir = resolve::session_dir(&daemon.workspace, chat, Make::No).ok();
    let unread = dir.as_ref().map_or(0, |dir| daemon.unread(chat, dir));
    let consumers = daemon.consumers(chat, dir.as_deref());
    let since = machine.as_ref().map(|machine| since(&machine.state));
    let holder = dir.as_deref().and_then(|dir| other_holder(dir, pid));
    let known = Known {
        now: clock::now(),
        chat,
        since: wished_at(state, || Some(record.clone())).or(since),
        service: if daemon.paused.load(std::sync::atomic::Ordering::SeqCst) {
            Service::Paused
        } else {
            Service::Runs
        },
        agent: agent_name(&daemon.config(), &task),
        children: children(&daemon.config(), &task, pid),
        task,
        state,
        waits_for: daemon.turns.waits_for(chat),
        next_at: next_at(machine.as_ref()),
        machine,
        reason,
        last,
        record,
        unread,
        consumers,
        is_needed: wanted || unread > 0 || consumers > 0,
        holder_cwd: holder.as_ref().and_then(Seen::cwd),
        stand_still: stand_still(pid, holder.as_ref(), unread),
        holder,
        pid,
        // The service ends it, or does not know of it.
        left_over: Vec::new(),
        graph_trouble: graph_trouble(daemon, chat),
        not_now,
    };
    words(&known)
}

/// A line of the list, for a chat that the daemon knows and whose session is in `dir`, if that can be told.
pub(super) fn row(
    daemon: &Daemon,
    chat: ChatId,
    machine: Option<&State>,
    dir: Option<&Path>,
) -> Option<ChatRow> {
    let task = daemon.chats.lock().get(&chat)?.task.clone();
    let state = daemon.state_with(chat, machine);
    let pid = machine.and_then(State::process).map(|(pid, _)| pid);
    let holder = dir.and_then(|dir| other_holder(dir, pid));
    let unread = dir.map_or(0, |dir| daemon.unread(chat, dir));
    Some(ChatRow {
        chat_id: chat.0,
        task_id: task.task_id.clone(),
        title: task.title.clone(),
        name: task.name.clone(),
        state,
        waits_for: daemon.turns.waits_for(chat),
        since: wished_at(state, || ChatRecord::load(&daemon.workspace, chat).ok())
            .or(machine.map(since)),
        pid,
        unread,
        consumers: daemon.consumers(chat, dir),
        stands_still: stand_still(pid, holder.as_ref(), unread),
        holder: holder.map(|seen| seen.holder),
        control_group: pid.is_some_and(|pid| daemon.groups.have(pid)),
        agent: agent_name(&daemon.config(), &task),
        task_status: task.status,
    })
}

/// The chat's agent by its name, or that it has none that can be used.
pub(super) fn agent_name(config: &Config, task: &ChatTask) -> String {
    AgentSpec::for_chat(config, task).map_or_else(|_| "unusable".to_owned(), |agent| agent.name)
}

/// What runs below a handler whose agent may leave something running; of any other agent nothing stays.
pub(super) fn children(config: &Config, task: &ChatTask, handler: Option<u32>) -> Vec<Process> {
    let may_leave = AgentSpec::for_chat(config, task).is_ok_and(|agent| agent.leave_children);
    handler
        .filter(|_| may_leave)
        .and_then(|pid| tree::descendants(pid).ok())
        .unwrap_or_default()
}

/// How many messages wait.
pub(super) fn unread(workspace: &Workspace, chat: ChatId) -> usize {
    resolve::session_dir(workspace, chat, Make::No)
        .ok()
        .and_then(|dir| messages::unanswered(&dir).ok())
        .map_or(0, |messages| messages.len())
}

/// Who has the session of this directory, if that is not the handler itself.
fn other_holder(dir: &Path, handler: Option<u32>) -> Option<Seen> {
    holder::seen(dir).filter(|seen| Some(seen.holder.pid) != handler)
}

/// When a machine does something by itself.
pub(super) fn next_at(machine: Option<&supervisor::Explanation>) -> Option<Timestamp> {
    machine.and_then(|machine| machine.next_at).map(wall)
}

/// Who stands still of those who serve a chat: its handler, somebody else here who has the session, and in a turn whatever is below the
/// handler.
pub(super) fn stand_still(
    handler: Option<u32>,
    holder: Option<&Seen>,
    unread: usize,
) -> Vec<Standstill> {
    let holder = holder.filter(|seen| seen.is_of_here());
    let holder = holder.and_then(|seen| Standstill::of(seen.holder.pid));
    let served = match handler {
        Some(handler) if unread > 0 => standstill::of_tree(handler),
        Some(handler) => Standstill::of(handler).into_iter().collect(),
        None => Vec::new(),
    };
    served.into_iter().chain(holder).collect()
}

/// Why the graph keeps this chat from being started, if it does.
fn graph_trouble(daemon: &Daemon, chat: ChatId) -> Option<String> {
    let unclear = || {
        (daemon.in_graph(chat) == InGraph::Unclear)
            .then(|| "its line cannot be read, so it is not started".to_owned())
    };
    daemon.graph_trouble().or_else(unclear)
}

/// When the wish was made that the chat is kept down by: it outlives the machine, and the service.
fn wished_at(state: ChatState, record: impl FnOnce() -> Option<ChatRecord>) -> Option<Timestamp> {
    match state {
        ChatState::Stopped => record()?.stopped_at,
        ChatState::Archived => record()?.archived_at,
        ChatState::Purged => record()?.purged_at,
        ChatState::Running
        | ChatState::Adopted
        | ChatState::Starting
        | ChatState::Queued
        | ChatState::Idle
        | ChatState::Held
        | ChatState::Backoff
        | ChatState::Degraded
        | ChatState::Parked
        | ChatState::Stopping
        | ChatState::Dormant => None,
    }
}

fn since(state: &State) -> Timestamp {
    match state {
        State::Idle { since }
        | State::Starting { since, .. }
        | State::Backoff { since, .. }
        | State::Degraded { since, .. }
        | State::Running { since, .. }
        | State::Ending { since, .. }
        | State::Held { since, .. }
        | State::Contended { since, .. }
        | State::Parked { since, .. }
        | State::Stopping { since, .. }
        | State::Stopped { since, .. } => wall(*since),
    }
}

/// A chat of which nothing is known but its number.
fn nameless(chat: ChatId) -> ChatTask {
    ChatTask {
        id: chat,
        task_id: chat.task_id(),
        title: format!("Chat {}", chat.0),
        name: None,
        status: "unknown".to_owned(),
        live: false,
        archived: false,
        legacy: false,
        argv: None,
        preset: None,
        cwd: None,
        model: None,
        endpoint: None,
        created_at: None,
    }
}
