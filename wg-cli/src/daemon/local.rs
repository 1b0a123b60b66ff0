//! The verbs without a daemon: on the files alone, or, where a process may have to be ended, by a daemon without
//! doors that lives for the length of one verb and so shares every rule with the real one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Map, Value};

use super::down::Down;
use super::explain;
use super::groups::{self, Groups, Left};
use super::holder::{self, Seen};
use super::purge::AllEnded;
use super::run::{Ending, lock_service};
use super::words::{Known, Service, words};
use super::{Daemon, boot, events, graph_seen, purge as purging, reap, wishes};
use crate::agent::AgentSpec;
use crate::chat::{Happened, Wish};
use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::ConnectError;
use crate::ipc::client::CALL_PATIENCE;
use crate::ipc::protocol::NewChatRequest;
use crate::names::ChatState;
use crate::ops::{
    Caller, ChatChange, ChatRow, CreatedChat, Ended, PurgeOptions, PurgeReport, SendOptions, Sent,
};
use crate::presence;
use crate::process_signal::{self, Signal};
use crate::standstill;
use crate::store::StoreError;
use crate::store::chat_state::ChatRecord;
use crate::store::config::Config;
use crate::store::events::EventLog;
use crate::store::graph::{ChatId, ChatTask, Graph, HIGHEST_ID, NewChat};
use crate::store::messages::{self, NewMessage, Role, Side};
use crate::store::resolve::{self, Make};
use crate::store::workspace::Workspace;
use crate::why::Explanation;

/// Makes a chat in the graph, with its session directory.
///
/// # Errors
///
/// The number is taken, the agent is unknown, or a file cannot be written.
pub fn create_chat(
    workspace: &Workspace,
    wanted: &NewChatRequest,
    service_running: bool,
) -> Result<CreatedChat, Failure> {
    if wanted.command.is_some()
        && (wanted.executor.is_some() || wanted.model.is_some() || wanted.endpoint.is_some())
    {
        return Err(Failure::new(
            ExitCode::Usage,
            "--command cannot be combined with an agent, a model or an endpoint",
        ));
    }
    if wanted
        .command
        .as_ref()
        .is_some_and(|command| command.trim().is_empty())
    {
        return Err(Failure::new(ExitCode::Usage, "the command is empty")
            .with_cure("leave --command out for the default agent"));
    }
    if let Some(name) = &wanted.name {
        resolve::check_name(name)?;
    }
    let config = Config::load(workspace)?;
    if let Some(agent) = &wanted.executor {
        AgentSpec::named(&config, agent)?;
    }
    if wanted.id.is_some_and(|id| id > HIGHEST_ID) {
        return Err(Failure::new(
            ExitCode::Usage,
            format!("a chat's number is at most {HIGHEST_ID}, so that others can follow it"),
        )
        .with_cure("--id chat-99, or leave it out for the next free one"));
    }
    let id = wanted.id.map(ChatId);
    let new = NewChat {
        id,
        name: wanted.name.clone(),
        argv: wanted
            .command
            .as_ref()
            .map(|line| vec!["bash".to_owned(), "-lc".to_owned(), line.clone()]),
        preset: wanted.executor.clone(),
        cwd: wanted.cwd.as_ref().map(Into::into),
        model: wanted.model.clone(),
        endpoint: wanted.endpoint.clone(),
        user: wanted.user.clone().unwrap_or_else(messages::user),
    };
    let chat = Graph::edit(workspace, |graph| graph.add_chat(workspace, new))?;
    resolve::session_dir(workspace, chat, Make::Yes)?;
    Ok(CreatedChat {
        chat_id: chat.0,
        coordinator_id: chat.0,
        task_id: chat.task_id(),
        name: wanted.name.clone(),
        service_running,
        state: if service_running {
            ChatState::Idle
        } else {
            ChatState::Dormant
        },
    })
}

/// Appends a message on the files.
///
/// # Errors
///
/// The message could not be written.
pub fn send(
    workspace: &Workspace,
    chat: ChatId,
    text: &str,
    options: &SendOptions,
    running: bool,
) -> Result<Sent, Failure> {
    let mut sent = append(workspace, chat, text, Vec::new(), options, running)?;
    let task = task_of(workspace, chat)?;
    let wish = wishes::of(&ChatRecord::load(workspace, chat)?, Some(&task));
    sent.state = match wish {
        _ if !running => state_of(workspace, chat)?,
        Wish::Run => ChatState::Idle,
        Wish::Stopped | Wish::Archived | Wish::Purged => crate::chat::state(wish, None),
    };
    sent.note = note(chat, sent.state);
    Ok(sent)
}

/// The append itself; state and note are the caller's.
pub(super) fn append(
    workspace: &Workspace,
    chat: ChatId,
    text: &str,
    attachments: Vec<Value>,
    options: &SendOptions,
    service_running: bool,
) -> Result<Sent, Failure> {
    let patience = options.patience.begun();
    let dir = resolve::session_dir_within(workspace, chat, patience.at_most(CALL_PATIENCE))?;
    let request_id = match &options.request_id {
        Some(request_id) => request_id.clone(),
        None => format!(
            "wg-chat-send-{}-{}",
            clock::now().millis(),
            crate::store::registry::nonce()?
        ),
    };
    let mut extra = Map::new();
    if !attachments.is_empty() {
        extra.insert("attachments".to_owned(), Value::Array(attachments));
    }
    let message = NewMessage {
        request_id: Some(request_id.clone()),
        user: options.user.clone(),
        extra,
        ..NewMessage::new(Role::User, text)
    };
    let inbox_id = messages::append_within(
        &dir,
        Side::Inbox,
        message,
        options.durability,
        patience.at_most(CALL_PATIENCE),
    )?;
    Ok(Sent {
        chat_id: chat.0,
        task_id: chat.task_id(),
        inbox_id,
        request_id,
        service_running,
        state: ChatState::Dormant,
        note: None,
    })
}

/// Why a message is not answered now, with the cure.
pub(super) fn note(chat: ChatId, state: ChatState) -> Option<String> {
    match state {
        ChatState::Stopped => Some(format!(
            "{chat} is stopped; the message waits (wg chat resume {chat})"
        )),
        ChatState::Parked => Some(format!(
            "{chat} is parked; the message waits (wg why {chat})"
        )),
        ChatState::Held => Some(format!(
            "another process has {chat}; the message waits (wg why {chat})"
        )),
        ChatState::Degraded => Some(format!(
            "{chat} crashes too often and is paced (wg why {chat})"
        )),
        ChatState::Archived | ChatState::Purged => Some(format!(
            "{chat} is retired; the message waits (wg chat restore {chat})"
        )),
        ChatState::Dormant => {
            Some("the service is not running; the message waits (wg service start)".to_owned())
        }
        ChatState::Running
        | ChatState::Adopted
        | ChatState::Starting
        | ChatState::Queued
        | ChatState::Idle
        | ChatState::Backoff
        | ChatState::Stopping => None,
    }
}

/// Stops a chat: the wish, then the handler, if one lives on without its daemon.
///
/// # Errors
///
/// The wish could not be written, or something could not be ended.
pub fn stop(workspace: &Workspace, chat: ChatId, actor: &str) -> Result<ChatChange, Failure> {
    embedded(workspace, |daemon| {
        daemon.forbid(chat, Happened::Stop, actor, "stopped by a person")
    })
}

/// Archives a chat: as [`stop`], and the task is done.
///
/// # Errors
///
/// As [`stop`].
pub fn archive(workspace: &Workspace, chat: ChatId, actor: &str) -> Result<ChatChange, Failure> {
    embedded(workspace, |daemon| {
        daemon.forbid(chat, Happened::Archive, actor, "archived by a person")
    })
}

/// Deletes a chat: as [`archive`], and the task is abandoned.
///
/// # Errors
///
/// As [`stop`].
pub fn delete(workspace: &Workspace, chat: ChatId, actor: &str) -> Result<ChatChange, Failure> {
    let change = archive(workspace, chat, actor)?;
    Graph::edit(workspace, |graph| {
        graph.delete(chat, actor, "deleted by a person")
    })?;
    Ok(ChatChange {
        text: format!("deleted {chat}; its history stays where it is"),
        ..change
    })
}

/// Lifts a stop.
///
/// # Errors
///
/// The chat is archived, or the wish could not be written.
pub fn resume(workspace: &Workspace, chat: ChatId, actor: &str) -> Result<ChatChange, Failure> {
    let task = task_of(workspace, chat)?;
    let wish = wishes::of(&ChatRecord::load(workspace, chat)?, Some(&task));
    if matches!(wish, Wish::Archived | Wish::Purged) {
        return Err(
            Failure::new(ExitCode::Failed, format!("{chat} is archived"))
                .with_cure(format!("wg chat restore {chat}")),
        );
    }
    let was = state_of(workspace, chat)?;
    // Budgets and parks of an earlier daemon are forgiven with it: that is what a resume means.
    ChatRecord::update(workspace, chat, |record| record.machine = None)?;
    if wish == Wish::Stopped {
        wishes::persist(workspace, chat, Wish::Run, actor, "resumed by a person")?;
    }
    let text = format!("resumed {chat}; the service is not running (wg service start)");
    Ok(change(
        workspace,
        chat,
        wish == Wish::Stopped || was == ChatState::Parked,
        text,
    ))
}

/// Brings a retired chat back.
///
/// # Errors
///
/// The wish could not be written.
pub fn restore(workspace: &Workspace, chat: ChatId, actor: &str) -> Result<ChatChange, Failure> {
    let task = task_of(workspace, chat)?;
    let wish = wishes::of(&ChatRecord::load(workspace, chat)?, Some(&task));
    if wish == Wish::Run {
        let text = format!("{chat} was not retired");
        return Ok(change(workspace, chat, false, text));
    }
    wishes::persist(workspace, chat, Wish::Run, actor, "restored by a person")?;
    let text = format!("restored {chat}; the service is not running (wg service start)");
    Ok(change(workspace, chat, true, text))
}

/// Asks the handler, if it is provably ours, to end its turn: SIGINT, which ends the turn and not the handler.
///
/// # Errors
///
/// The session cannot be read, or the handler could not be signalled.
pub fn interrupt(workspace: &Workspace, chat: ChatId, _actor: &str) -> Result<ChatChange, Failure> {
    let dir = resolve::session_dir(workspace, chat, Make::No)?;
    let found = session_lock::inspect(&dir).map_err(|e| {
        Failure::new(ExitCode::System, "failed to read the session lock").caused_by(e)
    })?;
    // One that is gone, and whose lock others have, is nobody to ask.
    let handler = found
        .holder()
        .filter(|_| found.is_watchable())
        .and_then(|holder| holder.identity().cloned());
    let nothing = |why: String| {
        let text = format!("{why}, so nothing was interrupted");
        Ok(change(workspace, chat, false, text))
    };
    let Some(identity) = handler else {
        return nothing(format!("{chat} has no handler of ours"));
    };
    // At a person's terminal it would end the handler.
    if messages::next_unanswered(&dir)?.is_none() {
        return nothing(format!("{chat} answers nothing"));
    }
    let sent = process_signal::send(&identity, Signal::INT)
        .map_err(|e| Failure::new(ExitCode::System, "failed to signal the handler").caused_by(e))?;
    if !sent {
        return nothing(format!("the handler of {chat} has just ended"));
    }
    let text = format!("asked the handler of {chat} to end its turn");
    Ok(change(workspace, chat, true, text))
}

/// Changes the agent of a chat in the graph.
///
/// # Errors
///
/// The agent is unknown, nothing was named, or the graph cannot be written.
pub fn set_executor(
    workspace: &Workspace,
    chat: ChatId,
    agent: Option<&str>,
    model: Option<&str>,
) -> Result<ChatChange, Failure> {
    if agent.is_none() && model.is_none() {
        return Err(Failure::new(ExitCode::Usage, "nothing to change")
            .with_cure("name an agent or a model"));
    }
    if let Some(agent) = agent {
        AgentSpec::named(&Config::load(workspace)?, agent)?;
    }
    Graph::edit(workspace, |graph| {
        let id = graph
            .chat(chat)
            .map_or_else(|| chat.task_id(), |task| task.task_id);
        let task = graph.task_mut(&id).ok_or(StoreError::NotFound {
            what: chat.to_string(),
        })?;
        if let Some(agent) = agent {
            task.set("executor_preset_name", Value::from(agent));
            task.remove("command_argv");
        }
        if let Some(model) = model {
            task.set("model", Value::from(model));
        }
        Ok(())
    })?;
    let text = format!("{chat} uses it from its next start on");
    Ok(change(workspace, chat, true, text))
}

/// Archives every chat and ends every handler, without a daemon.
///
/// # Errors
///
/// As [`crate::ops::purge`].
pub fn purge(
    workspace: &Workspace,
    options: &PurgeOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<PurgeReport, Failure> {
    let caller = caller_chat(workspace, &options.caller);
    embedded(workspace, |daemon| {
        purging::purge(daemon, options, caller, progress)
    })
}

/// The chat that the caller runs in, if it names one of this workspace.
#[must_use]
pub fn caller_chat(workspace: &Workspace, caller: &Caller) -> Option<ChatId> {
    let reference = caller.chat.as_deref()?;
    let graph = Graph::load(workspace).ok()?.graph;
    resolve::chat(workspace, &graph, reference).ok()
}

/// Every chat by its files.
///
/// # Errors
///
/// The graph cannot be read.
pub fn list_chats(workspace: &Workspace) -> Result<Vec<ChatRow>, Failure> {
    let loaded = Graph::load(workspace)?;
    let config = Config::load(workspace).unwrap_or_default();
    let policy = crate::wire::policy(&config);
    let groups = Groups::find(workspace);
    let mut rows = Vec::new();
    for task in loaded.graph.chats() {
        let chat = task.id;
        let record = ChatRecord::load(workspace, chat).unwrap_or_default();
        let dir = resolve::session_dir(workspace, chat, Make::No).ok();
        let down = Down::look(workspace, &policy, &task, &record, dir.as_deref());
        let unread = explain::unread(workspace, chat);
        rows.push(ChatRow {
            chat_id: chat.0,
            task_id: task.task_id.clone(),
            title: task.title.clone(),
            name: task.name.clone(),
            state: down.state,
            waits_for: None,
            since: down.since,
            pid: down.handler,
            unread,
            consumers: dir.as_deref().map_or(0, presence::count),
            stands_still: explain::stand_still(down.handler, down.holder.as_ref(), unread),
            holder: down.holder.map(|seen| seen.holder),
            control_group: down.handler.is_some_and(|pid| groups.have(pid)),
            agent: explain::agent_name(&config, &task),
            task_status: task.status,
        });
    }
    Ok(rows)
}

/// Explains a chat by its files and the events of earlier daemons.
///
/// # Errors
///
/// The chat does not exist, or the graph cannot be read.
pub fn explain(workspace: &Workspace, chat: ChatId) -> Result<Explanation, Failure> {
    let task = task_of(workspace, chat)?;
    let config = Config::load(workspace).unwrap_or_default();
    let record = ChatRecord::load(workspace, chat)?;
    let last = events::last_verdict(&EventLog::open(workspace, u64::MAX, 0), chat);
    let dir = resolve::session_dir(workspace, chat, Make::No).ok();
    let policy = crate::wire::policy(&config);
    let down = Down::look(workspace, &policy, &task, &record, dir.as_deref());
    let unread = explain::unread(workspace, chat);
    let consumers = dir.as_deref().map_or(0, presence::count);
    let reason = record.spawn.as_ref().map(|spawn| spawn.reason.to_string());
    Ok(words(&Known {
        now: clock::now(),
        chat,
        agent: explain::agent_name(&config, &task),
        children: explain::children(&config, &task, down.handler),
        state: down.state,
        since: down.since,
        service: Service::Down,
        waits_for: None,
        next_at: explain::next_at(down.machine.as_ref()),
        machine: down.machine,
        reason: reason.filter(|_| down.handler.is_some()),
        last,
        unread,
        consumers,
        is_needed: unread > 0 || consumers > 0,
        holder_cwd: down.holder.as_ref().and_then(Seen::cwd),
        stand_still: explain::stand_still(down.handler, down.holder.as_ref(), unread),
        holder: down.holder,
        pid: down.handler,
        left_over: down.left_over,
        graph_trouble: None,
        not_now: None,
        record,
        task,
    }))
}

/// What is wrong with a graph that can be read, for a service that will start by it.
///
/// # Errors
///
/// It cannot be read.
pub(crate) fn graph_damage(workspace: &Workspace) -> Result<Option<String>, Failure> {
    let skipped = Graph::load(workspace)?.warnings.len();
    Ok((skipped > 0).then(|| graph_seen::damage(skipped)))
}

/// What a chat is doing while no service runs.
fn state_of(workspace: &Workspace, chat: ChatId) -> Result<ChatState, Failure> {
    let task = task_of(workspace, chat)?;
    let record = ChatRecord::load(workspace, chat)?;
    let dir = resolve::session_dir(workspace, chat, Make::No).ok();
    let policy = crate::wire::policy(&Config::load(workspace).unwrap_or_default());
    Ok(Down::look(workspace, &policy, &task, &record, dir.as_deref()).state)
}

fn task_of(workspace: &Workspace, chat: ChatId) -> Result<ChatTask, Failure> {
    let graph = Graph::load(workspace)?.graph;
    match graph.chat(chat) {
        Some(task) => Ok(task),
        None => Err(unknown(workspace, &graph, chat)),
    }
}

/// The one sentence for a chat that is not there.
pub(super) fn unknown(workspace: &Workspace, graph: &Graph, chat: ChatId) -> Failure {
    match resolve::chat(workspace, graph, &chat.to_string()) {
        Err(failure) => failure,
        Ok(_) => Failure::new(ExitCode::Failed, format!("{chat} was added just now"))
            .with_cure("try again"),
    }
}

fn change(workspace: &Workspace, chat: ChatId, changed: bool, text: String) -> ChatChange {
    ChatChange {
        chat_id: chat.0,
        task_id: chat.task_id(),
        changed,
        // What was just written could be read; that it cannot be now is told by whoever looks.
        state: state_of(workspace, chat).unwrap_or(ChatState::Dormant),
        ended: Ended::default(),
        text,
    }
}

/// Runs `work` with a daemon that has no doors: it holds the service lock, knows every chat, has taken the live handlers of
/// earlier daemons over, and starts nothing.
fn embedded<T>(
    workspace: &Workspace,
    work: impl FnOnce(&Arc<Daemon>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    workspace.check_owner()?;
    let lock = match lock_service(workspace)? {
        Ok(lock) => lock,
        Err(pid) => {
            return Err(match standstill::of_service(&workspace.service_dir()) {
                Some(daemon) => ConnectError::StandsStill(daemon).into(),
                None => Failure::new(
                    ExitCode::Held,
                    format!("the service is starting or stopping (PID {pid})"),
                )
                .with_cure("try again"),
            });
        }
    };
    let (daemon, controls) = Daemon::assemble(workspace, Config::load(workspace)?)?;
    daemon.paused.store(true, Ordering::SeqCst);
    let done = boot::take_over(&daemon).and_then(|()| work(&daemon));
    // Nobody starts anything while the lock is ours.
    boot::sweep_groups(&daemon, &daemon.served());
    daemon.end(Ending::Keep, &controls);
    daemon.events.finish(events::LAST_WRITTEN);
    if let Err(e) = lock.release() {
        log::warn!("the service lock: {e}");
    }
    done
}

/// Ends every handler that an earlier daemon left, with everything below it; returns how many processes that were, and who outlived it.
/// The control groups of dead handlers that are empty go, too.
///
/// # Errors
///
/// The workspace cannot be read, or something could not be ended.
pub(super) fn end_handlers(workspace: &Workspace, ending: Ending) -> Result<AllEnded, Failure> {
    let (all, _) = supervisor::tree::carriers(&reap::marker(workspace, None)).map_err(|e| {
        Failure::new(ExitCode::System, "failed to look at the processes").caused_by(e)
    })?;
    let held = || -> bool {
        Graph::load(workspace).is_ok_and(|loaded| {
            loaded.graph.chats().iter().any(|task| {
                let dir = resolve::session_dir(workspace, task.id, Make::No);
                dir.is_ok_and(|dir| holder::seen(&dir).is_some())
            })
        })
    };
    let grouped = || -> bool {
        boot::recorded(workspace).is_ok_and(|recorded| {
            let mut spawns = recorded
                .iter()
                .filter_map(|(_, record)| record.spawn.as_ref());
            spawns.any(|spawn| Left::of(spawn, None).is_some())
        })
    };
    let left_groups = || !groups::strays(workspace).is_empty();
    if all.is_empty() && !held() && !grouped() && !left_groups() {
        return Ok(AllEnded::default());
    }
    embedded(workspace, |daemon| {
        daemon
            .hurried
            .store(ending == Ending::Force, Ordering::SeqCst);
        daemon.end_all()
    })
}
