//! The handler of a chat, from its lock to its exit note.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use session_lock::{Kind, SessionLock};

use crate::agent::AgentSpec;
use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::store::attempt;
use crate::store::chat_state::ChatRecord;
use crate::store::config::Config;
use crate::store::exit_record::MemoryEnd;
use crate::store::graph::{ChatId, ChatTask, Graph};
use crate::store::messages::{self, NewMessage, Role, Side};
use crate::store::{Workspace, resolve};

use super::claim::{self, Wanted, WhenHeld};
use super::core::{Core, IdleInterrupt, Patience, Rules, Wish};
use super::drive::Handler;
use super::ears::Ears;
use super::exit_note::ExitNote;
use super::gate::Gate;
use super::mark::{self, Mark};
use super::prompt::Prompt;
use super::waking::Waking;
use super::{exempt, process, settings};

/// What the handler of a chat was asked to do.
pub(crate) struct Call {
    pub(crate) workspace: Workspace,
    pub(crate) chat: ChatId,
    pub(crate) kind: Kind,
    pub(crate) autonomous: bool,
    pub(crate) eval_mode: bool,
    pub(crate) message: Option<String>,
    pub(crate) agent: Option<String>,
    pub(crate) at_terminal: bool,
}

/// Serves the chat until there is a reason to leave.
pub(crate) fn run(call: Call) -> Result<ExitCode, Failure> {
    let chat = call.chat.to_string();
    let session = resolve::session_dir(&call.workspace, call.chat, resolve::Make::Yes)?;
    let mark = Mark::of_this_process(&call.workspace, &chat);
    process::become_handler(call.at_terminal);
    let mut ears = Ears::open().map_err(|error| {
        Failure::new(ExitCode::System, "failed to listen for signals").caused_by(error)
    })?;
    let when_held = if call.at_terminal {
        WhenHeld::Ask
    } else {
        WhenHeld::Leave
    };
    let wanted = Wanted {
        session: &session,
        chat: &chat,
        marker: &mark.prefix,
        kind: &call.kind,
        exempt: &|| exempt::holders(&call.workspace, &session),
    };
    let mut lock = claim::claim(&wanted, when_held, &mut ears)?;

    // From here on every way out, a panic too, leaves a note before the lock is free.
    let note = ExitNote::open(session.clone(), &lock, mark.nonce.clone());
    let mut ledger = Ledger::default();
    let outcome = serve(call, &chat, session, &mut lock, ears, &mark, &mut ledger);
    note.close(&outcome, ledger.agent_ending, ledger.memory);
    match lock.release() {
        Ok(released) => log::debug!("session lock: {released:?}"),
        Err(error) => log::warn!("the session lock was not released in order: {error}"),
    }
    if let Some(line) = ledger.evaluated {
        writeln!(io::stdout(), "{line}").map_err(|error| {
            Failure::new(ExitCode::System, "failed to write the reply").caused_by(error)
        })?;
    }
    outcome
}

/// What is known of the handler's work when it ends, however it ends.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// How the last agent ended.
    pub(super) agent_ending: Option<String>,
    /// The memory for which it leaves.
    pub(super) memory: Option<MemoryEnd>,
    /// The message whose reply is printed (`--eval-mode`).
    pub(super) evaluating: Option<u64>,
    /// The line to print.
    pub(super) evaluated: Option<String>,
}

fn serve(
    call: Call,
    chat: &str,
    session: PathBuf,
    lock: &mut SessionLock,
    ears: Ears,
    mark: &Mark,
    ledger: &mut Ledger,
) -> Result<ExitCode, Failure> {
    let workspace = &call.workspace;
    let task = Graph::load_chat(workspace, call.chat)
        .map_err(|error| super::no_fault_of_the_settings(error.into()))?;
    // Read again now that the lock is ours: a purge that ran while we started has seen nobody to end.
    if let Some(wish) = wish_against(&ChatRecord::load(workspace, call.chat)?, task.as_ref()) {
        log::warn!("{chat} is {wish:?}; leaving");
        return Ok(ExitCode::Released);
    }
    let Some(task) = task else {
        return Err(
            Failure::new(ExitCode::Failed, format!("{chat} does not exist"))
                .with_cure("wg chat list"),
        );
    };
    let config = Config::in_force(workspace)?;
    let agent = match call.agent {
        Some(name) => AgentSpec::named(&config, &name)?,
        None => AgentSpec::for_chat(&config, &task)?,
    };
    if let Some(content) = call.message {
        let id = messages::append(
            &session,
            Side::Inbox,
            NewMessage::new(Role::User, content),
            messages::Durability::Sync,
        )?;
        ledger.evaluating = call.eval_mode.then_some(id);
    }
    attempt::forget_the_answered(&session)?;
    let patience = if call.autonomous {
        Patience::UntilDrained
    } else {
        Patience::Idle(config.service.idle_timeout)
    };
    let at_prompt = call.at_terminal && !call.autonomous && !mark::is_under_daemon();
    let rules = Rules {
        patience,
        on_interrupted: config.service.on_interrupted,
        idle_interrupt: if at_prompt {
            IdleInterrupt::Leaves
        } else {
            IdleInterrupt::Ignored
        },
    };
    Handler {
        workspace,
        id: call.chat,
        chat,
        waking: Waking::new(session.clone()),
        numbers: messages::Numbers::default(),
        errors_max: config.service.log_max_size,
        history: (config.service.history_max_size, config.service.history_keep),
        grace: config.service.stop_grace,
        memory_cap: settings::memory_cap(config.service.memory_cap),
        cwd: settings::working_directory(workspace, &agent),
        session,
        lock,
        ears,
        agent,
        variables: variables(workspace, chat, mark),
        prompt: at_prompt.then(|| Prompt::open(chat)),
        gate: Gate::new(workspace, call.chat),
        core: Core::new(rules, clock::steady()),
        over_memory_cap: false,
        ledger,
    }
    .run()
}

/// Returns what stands against a handler of this chat.
pub(super) fn wish_against(record: &ChatRecord, task: Option<&ChatTask>) -> Option<Wish> {
    if record.purged_at.is_some() {
        Some(Wish::Purged)
    } else if record.archived_at.is_some() || task.is_some_and(|task| !task.live) {
        Some(Wish::Archived)
    } else if record.stopped_at.is_some() {
        Some(Wish::Stopped)
    } else {
        None
    }
}

fn variables(workspace: &Workspace, chat: &str, mark: &Mark) -> Vec<(&'static str, OsString)> {
    vec![
        ("WG_CHAT_REF", OsString::from(chat)),
        ("WG_DIR", workspace.root().as_os_str().to_owned()),
        (mark::VARIABLE, OsString::from(mark.value())),
    ]
}
