//! `wg up`: the front door.

use std::io::BufRead;

use super::args::Up;
use super::context::Context;
use super::conversation::Exchanges;
use super::{attach, conversation, input, workspace};
use crate::agent::AgentSpec;
use crate::daemon::start::{self, StartOptions};
use crate::exit_code::ExitCode;
use crate::failure::Outcome;
use crate::ipc::client::CALL_PATIENCE;
use crate::ipc::protocol::NewChatRequest;
use crate::ipc::{Client, ConnectError};
use crate::names::ChatState;
use crate::ops::{self, ChatRow};
use crate::patience::Patience;
use crate::store::config::Config;
use crate::store::files::SideLock;
use crate::store::graph::ChatId;
use crate::store::workspace::{Surroundings, Workspace};

pub(super) fn run(cx: &Context<'_>, up: &Up) -> Outcome {
    // A message that cannot be sent must not leave a service behind.
    let message = up.message.as_deref().map(input::message).transpose()?;
    let patience = up.timeout.map_or(Patience::Forever, Patience::For);
    let begun = patience.begun();
    let workspace = find_or_make(cx)?;
    let chat = start_if_needed(cx, &workspace, up.agent.as_deref(), begun)
        .and_then(|()| choose_or_make(cx, &workspace, up.agent.as_deref(), begun))
        .map_err(|failure| conversation::too_late("the service", begun, failure))?;
    match message {
        Some(message) => conversation::ask(cx, &workspace, chat, &message, begun, Exchanges::One),
        None if input::is_terminal() => attach::run(cx, &workspace, chat),
        None => answer_lines(cx, &workspace, chat, patience),
    }
}

/// A service that answers is not asked to start, whatever its settings look like by now.
fn start_if_needed(
    cx: &Context<'_>,
    workspace: &Workspace,
    agent: Option<&str>,
    patience: Patience,
) -> Outcome<()> {
    match Client::connect_within(workspace, patience) {
        Ok(_) => return Ok(()),
        Err(ConnectError::NotRunning) => {}
        Err(error) => return Err(error.into()),
    }
    // An agent that nobody knows must not leave a service behind either.
    if let Some(agent) = agent {
        AgentSpec::named(&Config::load(workspace)?, agent)?;
    }
    let started = start::start(workspace, &StartOptions { max_agents: None }, patience)?;
    if !started.already {
        cx.report
            .note(&format!("started the service (pid {})", started.pid));
    }
    Ok(())
}

/// One message a line; a failed turn is told and the rest goes on, the last failure is the exit code.
pub(super) fn answer_lines(
    cx: &Context<'_>,
    workspace: &Workspace,
    chat: ChatId,
    patience: Patience,
) -> Outcome {
    let mut code = ExitCode::Ok;
    let mut lines = std::io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines
            .read_until(b'\n', &mut line)
            .map_err(input::unreadable)?
            == 0
            || cx.report.reader_is_gone()
        {
            return Ok(code);
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        if text.trim().is_empty() {
            continue;
        }
        if let Err(failure) =
            conversation::ask(cx, workspace, chat, text, patience, Exchanges::Lines)
        {
            code = failure.code;
            cx.report.failure(&failure);
        }
    }
}

/// The workspace upwards from here, else a new one here; one in the home directory is for the other verbs.
fn find_or_make(cx: &Context<'_>) -> Outcome<Workspace> {
    let around = Surroundings {
        home: None,
        ..Surroundings::of_this_process()
    };
    let half_made = match Workspace::discover_from(cx.dir(), &around) {
        Ok(found) if found.workspace.is_complete() => return Ok(found.workspace),
        // Found by its own name: another `wg up` is just making it, or died over it. What it lacks is made here, where it stands.
        Ok(found) => found
            .workspace
            .is_named_like_one()
            .then_some(found.workspace),
        Err(failure) if failure.code == ExitCode::Failed => {
            cx.report.detail(failure.message());
            None
        }
        Err(failure) => return Err(failure),
    };
    let made = match half_made {
        Some(workspace) => Workspace::init(workspace.root()),
        None => workspace::make(cx),
    };
    match made {
        Ok(made) => {
            cx.report
                .note(&format!("made a workspace at {}", made.root().display()));
            Ok(made)
        }
        // Another `wg up` may have been faster.
        Err(failure) => match Workspace::discover_from(cx.dir(), &around) {
            Ok(found) if found.workspace.is_complete() => Ok(found.workspace),
            Ok(_) | Err(_) => Err(failure),
        },
    }
}

/// The newest chat that would answer (with the agent asked for), else a new one.
fn choose_or_make(
    cx: &Context<'_>,
    workspace: &Workspace,
    agent: Option<&str>,
    patience: Patience,
) -> Outcome<ChatId> {
    if let Some(chat) = newest_that_fits(workspace, agent, patience)? {
        return Ok(chat);
    }
    // Of several `wg up` that found none, one makes it and the others find it at their second look.
    let side_file = workspace.ensure_service_dir()?.join("up.lock");
    let turn = SideLock::acquire_within(&side_file, patience.at_most(CALL_PATIENCE))?;
    if let Some(chat) = newest_that_fits(workspace, agent, patience)? {
        return Ok(chat);
    }
    let request = NewChatRequest {
        executor: agent.map(str::to_owned),
        ..NewChatRequest::default()
    };
    let made = ops::create_chat(workspace, request, patience)?;
    drop(turn);
    cx.report.note(&format!("made chat-{}", made.chat_id));
    Ok(ChatId(made.chat_id))
}

fn newest_that_fits(
    workspace: &Workspace,
    agent: Option<&str>,
    patience: Patience,
) -> Outcome<Option<ChatId>> {
    let rows = ops::list_all_chats_within(workspace, patience.at_most(CALL_PATIENCE))?;
    let fits =
        |row: &&ChatRow| would_answer(row.state) && agent.is_none_or(|agent| row.agent == agent);
    let newest = rows.iter().filter(fits).max_by_key(|row| row.chat_id);
    Ok(newest.map(|row| ChatId(row.chat_id)))
}

/// Whether a message to a chat in this state is answered without a person's verb.
fn would_answer(state: ChatState) -> bool {
    match state {
        ChatState::Running
        | ChatState::Adopted
        | ChatState::Starting
        | ChatState::Queued
        | ChatState::Idle
        | ChatState::Held
        | ChatState::Backoff
        | ChatState::Degraded
        | ChatState::Parked
        | ChatState::Dormant => true,
        ChatState::Stopping | ChatState::Stopped | ChatState::Archived | ChatState::Purged => false,
    }
}
