//! Facts about a chat, and the words for them: the same for a list, for `wg why`, with the daemon up or down.

use std::path::Path;

use supervisor::State;
use supervisor::tree::{self, Process};

use super::{Daemon, QUERY, holder, reap};
use crate::agent::AgentSpec;
use crate::clock::{self, Timestamp};
use crate::names::ChatState;
use crate::notices::{account_name, park_text, pause, wall};
use crate::ops::{ChatRow, HolderDto};
use crate::store::chat_state::ChatRecord;
use crate::store::config::Config;
use crate::store::graph::{ChatId, ChatTask};
use crate::store::messages;
use crate::store::resolve::{self, Make};
use crate::store::workspace::Workspace;
use crate::why::{Cure, Explanation, Fact, LastVerdict};

/// Everything that the words are made of.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) chat: ChatId,
    pub(super) task: ChatTask,
    pub(super) agent: String,
    pub(super) state: ChatState,
    pub(super) waits_for: Option<String>,
    pub(super) machine: Option<supervisor::Explanation>,
    pub(super) reason: Option<String>,
    pub(super) last: Option<LastVerdict>,
    pub(super) record: ChatRecord,
    pub(super) unread: usize,
    pub(super) consumers: usize,
    pub(super) holder: Option<HolderDto>,
    pub(super) pid: Option<u32>,
    /// What an agent with `leave_children` has running below the handler.
    pub(super) children: Vec<Process>,
    pub(super) paused: bool,
    /// Why the last attempt to start could not be made.
    pub(super) not_now: Option<String>,
}

/// Explains a chat that the daemon knows.
pub(super) fn explain(daemon: &Daemon, chat: ChatId) -> Explanation {
    let machine = daemon
        .driver()
        .explain(super::host::unit_of(chat), QUERY)
        .ok()
        .flatten();
    let machine = machine.map(|report| report.explanation);
    let record = ChatRecord::load(&daemon.workspace, chat).unwrap_or_default();
    let state = daemon.chat_state(chat);
    let (task, last, reason, consumers, not_now) = {
        let chats = daemon.chats.lock();
        let entry = chats.get(&chat);
        (
            entry.map_or_else(|| nameless(chat), |entry| entry.task.clone()),
            entry.and_then(|entry| entry.last.clone()),
            entry
                .and_then(|entry| entry.reason)
                .map(|reason| reason.to_string()),
            entry.map_or(0, |entry| entry.core.consumers()),
            entry.and_then(|entry| entry.not_now.clone()),
        )
    };
    let pid = machine
        .as_ref()
        .and_then(|machine| machine.state.process())
        .map(|(pid, _)| pid);
    let dir = resolve::session_dir(&daemon.workspace, chat, Make::No).ok();
    let known = Known {
        chat,
        agent: agent_name(&daemon.config(), &task),
        children: children(&daemon.config(), &task, pid),
        task,
        state,
        waits_for: daemon.turns.waits_for(chat),
        machine,
        reason,
        last,
        record,
        unread: dir.as_ref().map_or(0, |dir| daemon.unread(chat, dir)),
        consumers,
        holder: dir.as_deref().and_then(|dir| holder_in(dir, pid)),
        pid,
        paused: daemon.paused.load(std::sync::atomic::Ordering::SeqCst),
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
    let (task, consumers) = {
        let chats = daemon.chats.lock();
        let entry = chats.get(&chat)?;
        (entry.task.clone(), entry.core.consumers())
    };
    let state = daemon.state_with(chat, machine);
    let pid = machine.and_then(State::process).map(|(pid, _)| pid);
    Some(ChatRow {
        chat_id: chat.0,
        task_id: task.task_id.clone(),
        title: task.title.clone(),
        name: task.name.clone(),
        state,
        waits_for: daemon.turns.waits_for(chat),
        since: machine.map(since),
        pid,
        unread: dir.map_or(0, |dir| daemon.unread(chat, dir)),
        consumers,
        holder: dir.and_then(|dir| holder_in(dir, pid)),
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

/// Who holds the session, if it is not the handler itself.
pub(super) fn holder(workspace: &Workspace, chat: ChatId, own: Option<u32>) -> Option<HolderDto> {
    let dir = resolve::session_dir(workspace, chat, Make::No).ok()?;
    holder_in(&dir, own)
}

/// As [`holder`], where the session is.
fn holder_in(dir: &Path, own: Option<u32>) -> Option<HolderDto> {
    let screen = || {
        holder::screen(dir).map(|screen| HolderDto {
            pid: screen.pid,
            kind: holder::SCREEN.to_owned(),
            since: screen.since,
        })
    };
    live_holder(dir)
        .or_else(screen)
        .filter(|holder| Some(holder.pid) != own)
}

/// Who holds the session of this directory and lives.
pub(super) fn live_holder(dir: &Path) -> Option<HolderDto> {
    let found = session_lock::inspect(dir)
        .ok()
        .filter(session_lock::Inspection::is_held)?;
    let holder = found.holder()?;
    Some(HolderDto {
        pid: holder.pid,
        kind: holder.kind.to_string(),
        since: holder.since.clone(),
    })
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

/// Puts what is known into words.
#[expect(
    clippy::too_many_lines,
    reason = "one arm for each state, side by side"
)]
pub(super) fn words(known: &Known) -> Explanation {
    let chat = known.chat;
    let machine = known.machine.as_ref();
    let mut facts = Vec::new();
    let mut fact = |label: &str, text: String| {
        facts.push(Fact {
            label: label.to_owned(),
            text,
        });
    };
    let mut you_can = Vec::new();
    let mut can = |command: String, text: &str| {
        you_can.push(Cure {
            command,
            text: text.to_owned(),
        });
    };
    let next_at = machine.and_then(|machine| machine.next_at).map(wall);
    let at = |moment: Option<Timestamp>| {
        moment.map_or_else(
            || "later".to_owned(),
            |moment| pause(moment.since(clock::now())),
        )
    };
    let mut since = machine.map(|machine| since(&machine.state));
    if let Some(holder) = &known.holder {
        let cwd = std::fs::read_link(format!("/proc/{}/cwd", holder.pid));
        let place = cwd
            .map(|cwd| format!("  cwd {}", cwd.display()))
            .unwrap_or_default();
        // Relative, as everything that a person reads; what the holder wrote where that is no time.
        let since = Timestamp::parse(&holder.since)
            .map_or_else(|| holder.since.clone(), |at| at.ago_in_words(clock::now()));
        fact(
            "holder",
            format!("pid {}  {}  since {since}{place}", holder.pid, holder.kind),
        );
    }
    let serving = known.pid.or(known.holder.as_ref().map(|holder| holder.pid));
    if let Some(pid) = serving.filter(|pid| reap::is_stopped(*pid)) {
        fact(
            "stopped",
            format!("pid {pid} was stopped by a signal and does nothing"),
        );
        can(format!("kill -CONT {pid}"), "let it go on");
    }
    if let Some(pid) = known.pid {
        let reason = known
            .reason
            .as_deref()
            .map(|reason| format!(", started for: {reason}"))
            .unwrap_or_default();
        let adopted = if known.state == ChatState::Adopted {
            ", started by an earlier daemon and taken over"
        } else {
            ""
        };
        fact("handler", format!("pid {pid}{reason}{adopted}"));
    }
    fact("agent", known.agent.clone());
    if !known.children.is_empty() {
        let named = known
            .children
            .iter()
            .map(|child| format!("{} (pid {})", child.name, child.pid));
        fact(
            "below it",
            format!(
                "{}; what its agent leaves stays (leave_children)",
                named.collect::<Vec<_>>().join(", ")
            ),
        );
    }
    if let Some(reason) = &known.not_now {
        fact("because", reason.clone());
    }
    if known.unread > 0 || known.consumers > 0 {
        fact(
            "waiting",
            format!("{} unanswered, {} connected", known.unread, known.consumers),
        );
    }
    if let Some(machine) = machine
        && machine.crash.number > 0
    {
        fact(
            "crashes",
            format!(
                "number {}, {} within {} (more than {} degrade)",
                machine.crash.number,
                machine.crash.in_window,
                clock::span(machine.crash.window),
                machine.crash.soft
            ),
        );
    }
    let said = known
        .last
        .as_ref()
        .and_then(|last| last.evidence.get("stderr"));
    if let Some(said) = said.and_then(serde_json::Value::as_str)
        && known
            .last
            .as_ref()
            .is_some_and(|last| last.class != "planned")
        && let Some(line) = said.lines().rev().find(|line| !line.trim().is_empty())
    {
        fact("said", line.trim().to_owned());
    }
    // A handler that leaves because of its agent says no more than that; what the agent did is the cause.
    let failed = known
        .last
        .as_ref()
        .filter(|last| matches!(last.counts.as_str(), "permanent" | "dependency" | "crash"));
    if let Some(agent) = failed.and_then(|last| last.evidence.get("agent"))
        && let Some(agent) = agent.as_str()
    {
        fact("because", format!("its agent: {agent}"));
    }
    let decided = |what: &str, at: Option<Timestamp>| {
        let by = known.record.wish_actor.as_deref().unwrap_or("somebody");
        let when = at
            .map(|at| format!(" {}", at.ago_in_words(clock::now())))
            .unwrap_or_default();
        format!("{what} by {by}{when}")
    };
    let queued: String;
    let (headline, next) = match known.state {
        ChatState::Running | ChatState::Adopted => {
            can(format!("wg chat attach {chat}"), "talk to it");
            can(format!("wg chat stop {chat}"), "end its handler");
            let head = if known.unread > 0 {
                "answering"
            } else {
                "running"
            };
            (
                head,
                "its handler leaves when nobody is connected and nothing is unanswered for a while"
                    .to_owned(),
            )
        }
        ChatState::Starting => {
            can(format!("wg chat stop {chat}"), "leave it down");
            (
                "starting",
                "its handler takes the session, then it answers".to_owned(),
            )
        }
        ChatState::Queued => {
            can(format!("wg chat interrupt {chat}"), "give the turn up");
            match &known.waits_for {
                Some(what) => {
                    queued = format!("queued: {what}");
                    (
                        queued.as_str(),
                        "its turn begins when that is over".to_owned(),
                    )
                }
                None => (
                    "queued: its turn waits for a slot",
                    "its turn begins when another one ends".to_owned(),
                ),
            }
        }
        ChatState::Idle => {
            can(format!("wg chat send {chat} TEXT"), "give it work");
            (
                "idle: nobody needs it",
                "a message or a consumer wakes it".to_owned(),
            )
        }
        ChatState::Held => {
            can(
                format!("wg session release {chat}"),
                "ask it to leave at its turn boundary",
            );
            can(
                format!("wg session takeover {chat}"),
                "end it after 30 s if it does not",
            );
            let next = match (&known.holder, machine.map(|machine| &machine.state)) {
                (_, Some(State::Contended { refusals, .. })) => {
                    format!(
                        "the lock is looked at again {} (refusal {refusals}); nothing is started meanwhile",
                        at(next_at)
                    )
                }
                (Some(holder), _) => format!(
                    "nothing is tried while {} lives; {chat} starts when it ends",
                    holder.pid
                ),
                (None, _) => format!("nothing is tried while it lives; {chat} starts when it ends"),
            };
            ("held by another process", next)
        }
        ChatState::Backoff => {
            can(format!("wg chat resume {chat}"), "try at once");
            can(format!("wg chat stop {chat}"), "leave it down");
            let account = match machine.map(|machine| &machine.state) {
                Some(State::Backoff {
                    account, number, ..
                }) => format!(" ({} {number})", account_name(*account)),
                _ => String::new(),
            };
            (
                "waiting before the next start",
                format!("starts again {}{account}", at(next_at)),
            )
        }
        ChatState::Degraded => {
            can(
                format!("wg chat resume {chat}"),
                "try at once, and forget the crashes",
            );
            can(format!("wg chat stop {chat}"), "leave it down");
            (
                "degraded: it crashes too often",
                format!("one more attempt {}", at(next_at)),
            )
        }
        ChatState::Parked => {
            can(
                format!("wg chat resume {chat}"),
                "try again once the cause is mended",
            );
            can(
                "wg service reload".to_owned(),
                "after a change of config.toml",
            );
            if let Some(State::Parked { reason, .. }) = machine.map(|machine| &machine.state) {
                fact("parked", park_text(reason));
            }
            (
                "parked: it is not started again by itself",
                "nothing, until it is resumed or its configuration changes".to_owned(),
            )
        }
        ChatState::Stopping => (
            "stopping",
            "its handler and all below it are being ended".to_owned(),
        ),
        ChatState::Stopped => {
            can(format!("wg chat resume {chat}"), "let it run again");
            since = known.record.stopped_at.or(since);
            fact("stopped", decided("stopped", known.record.stopped_at));
            (
                "stopped",
                "nothing, until it is resumed; messages wait".to_owned(),
            )
        }
        ChatState::Archived => {
            can(format!("wg chat restore {chat}"), "bring it back");
            since = known.record.archived_at;
            fact("archived", decided("archived", known.record.archived_at));
            ("archived", "nothing, until it is restored".to_owned())
        }
        ChatState::Purged => {
            can(format!("wg chat restore {chat}"), "bring it back");
            since = known.record.purged_at;
            fact("purged", decided("purged", known.record.purged_at));
            ("purged", "nothing, until it is restored".to_owned())
        }
        ChatState::Dormant => {
            can("wg service start".to_owned(), "start the service");
            (
                "dormant: the service is not running",
                "nothing, until the service runs".to_owned(),
            )
        }
    };
    let next = if known.paused {
        format!("{next} (the service is paused: wg service resume)")
    } else {
        next
    };
    Explanation {
        chat_id: chat.0,
        task_id: known.task.task_id.clone(),
        state: known.state,
        since,
        headline: headline.to_owned(),
        facts,
        last: known.last.clone(),
        next,
        next_at,
        you_can,
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
