//! What a person can do to chats, with the daemon up (over the socket) or down (on the files): the same result
//! and the same shape either way.
//!
//! The verbs of `cli` parse, call one function here, and print what it returns.

mod ended;
mod interrupt;
mod lanes;
mod send;
mod status;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::{self, Timestamp};
use crate::daemon::local;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::client::CALL_PATIENCE;
use crate::ipc::protocol::{NewChatRequest, OneChat};
use crate::ipc::{CallError, Client, ConnectError, Request};
use crate::names::ChatState;
use crate::patience::Patience;
use crate::standstill::Standstill;
use crate::store::files::Durability;
use crate::store::graph::ChatId;
use crate::store::workspace::Workspace;
pub use ended::Ended;
pub use interrupt::{ask_to_interrupt, interrupt};
pub use lanes::{GroupRow, LaneRow, LaneTask, Lanes};
pub use send::send;
pub use status::service_status;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// For the record of a decision: the user, or the outer agent that runs `wg`.
    pub actor: String,
    /// For messages: `WG_USER`, else `USER`, else `unknown`.
    pub user: String,
    /// The chat that the caller runs in (`WG_CHAT_REF`), if it runs in one.
    pub chat: Option<String>,
}

/// Variables by which an outer agent can be told, with the name that goes into the record.
pub const AGENT_MARKERS: [(&str, &str); 6] = [
    ("CLAUDECODE", "claude"),
    ("CODEX_THREAD_ID", "codex"),
    ("OPENCODE_PID", "opencode"),
    ("GEMINI_CLI", "gemini"),
    ("PI_CODING_AGENT", "pi"),
    ("CLAUDE_CODE_SESSION_ID", "claude"),
];

impl Caller {
    /// The caller as the environment tells.
    #[must_use]
    pub fn from_env() -> Self {
        let variable = |name: &str| {
            std::env::var(name)
                .ok()
                .filter(|value| !value.trim().is_empty())
        };
        let named = variable("WG_USER").or_else(|| variable("USER"));
        // A record of who decided is worth more than a variable that a service manager or a container leaves out.
        let who = named.clone().or_else(account);
        let user = named.unwrap_or_else(|| "unknown".to_owned());
        let who = who.unwrap_or_else(|| user.clone());
        let chat = variable("WG_CHAT_REF").or_else(|| variable("WG_CHAT_ID"));
        let agent = AGENT_MARKERS
            .iter()
            .find(|(name, _)| variable(name).is_some())
            .map(|(_, agent)| *agent);
        let actor = match (&chat, agent) {
            (Some(chat), _) => format!("{who} (from {chat})"),
            (None, Some(agent)) => format!("{who} (from {agent})"),
            (None, None) => who,
        };
        Self { actor, user, chat }
    }
}

/// The name of this process's user.
fn account() -> Option<String> {
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok()??;
    Some(me.name)
}

/// A chat that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedChat {
    /// Its number.
    pub chat_id: u32,
    /// The same, under the earlier name.
    pub coordinator_id: u32,
    /// Its task in the graph.
    pub task_id: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Whether a daemon looks after it already.
    pub service_running: bool,
    /// What it is doing.
    pub state: ChatState,
}

/// A message that was accepted: it is on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The chat.
    pub chat_id: u32,
    /// Its task in the graph.
    pub task_id: String,
    /// The message's number in the inbox.
    pub inbox_id: u64,
    /// The sender's name for it.
    pub request_id: String,
    /// Whether a daemon will answer it now.
    pub service_running: bool,
    /// What the chat is doing.
    pub state: ChatState,
    /// Why it is not answered now, where it is not, with the cure.
    pub note: Option<String>,
}

/// A change of one chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatChange {
    /// The chat.
    pub chat_id: u32,
    /// Its task in the graph.
    pub task_id: String,
    /// Whether anything is different from before.
    pub changed: bool,
    /// What the chat is doing now.
    pub state: ChatState,
    /// Who was ended.
    #[serde(flatten)]
    pub ended: Ended,
    /// One sentence for people.
    pub text: String,
}

/// What a purge may do.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one flag of the verb"
)]
pub struct PurgeOptions {
    /// Also chats in a turn or with a consumer.
    pub include_active: bool,
    /// Also the chat that the caller runs in.
    pub include_self: bool,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Signal holders that are not proven ours, too.
    pub force_unproven: bool,
    /// Who asks.
    pub caller: Caller,
}

/// A chat in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatName {
    /// The chat.
    pub chat_id: u32,
    /// Its task in the graph.
    pub task_id: String,
}

/// A chat that a purge left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The chat.
    pub chat_id: u32,
    /// Why.
    pub reason: String,
}

/// A chat that was purged while its holder could not be ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeError {
    /// The chat.
    pub chat_id: u32,
    /// The process that is still there.
    pub pid: Option<u32>,
    /// Why, with the cure.
    pub error: String,
    /// The code of the table that tells what kind of error it is; a service from before it was told means 75.
    #[serde(default = "held")]
    pub code: u8,
}

const fn held() -> u8 {
    ExitCode::Held.code()
}

impl PurgeError {
    /// Whether a process has the chat, and trying again may help.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.code == held()
    }
}

/// What a purge did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeReport {
    /// Chats that are retired now and were not before.
    pub purged: Vec<ChatName>,
    /// Chats that were left as they are.
    pub skipped: Vec<Skipped>,
    /// Chats that are retired although something is left.
    pub errors: Vec<PurgeError>,
    /// Who was ended.
    #[serde(flatten)]
    pub ended: Ended,
}

impl PurgeReport {
    /// 0, or 75 where a holder is left; the code of what a retry does not mend goes before that.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        let worst = self.errors.iter().find(|error| !error.is_held());
        match worst.or_else(|| self.errors.first()) {
            None => ExitCode::Ok,
            Some(error) => ExitCode::from_code(error.code.into()).unwrap_or(ExitCode::System),
        }
    }
}

/// The process that holds a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderDto {
    /// Its process id.
    pub pid: u32,
    /// What it says it is.
    pub kind: String,
    /// Since when, as it wrote it.
    pub since: String,
    /// The handler that has left it behind: it is gone, and this process has its lock.
    #[serde(default)]
    pub left_by: Option<u32>,
}

/// One line of a list of chats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatRow {
    /// The chat.
    pub chat_id: u32,
    /// Its task in the graph.
    pub task_id: String,
    /// The task's title.
    pub title: String,
    /// The chat's name, if it has one.
    pub name: Option<String>,
    /// What it is doing.
    pub state: ChatState,
    /// What its turn waits for, where it is queued for something else than a slot.
    #[serde(default)]
    pub waits_for: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Its handler.
    pub pid: Option<u32>,
    /// Messages that wait for an answer.
    pub unread: usize,
    /// Consumers that are connected.
    pub consumers: usize,
    /// Who holds its session, where that is not its handler.
    pub holder: Option<HolderDto>,
    /// Who serves it and stands still, or has something below that does.
    #[serde(default)]
    pub stands_still: Vec<Standstill>,
    /// Whether its handler is in a control group of its own.
    #[serde(default)]
    pub control_group: bool,
    /// Its agent.
    pub agent: String,
    /// The task's status in the graph.
    pub task_status: String,
}

/// How the service is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// `running` or `not_running`.
    pub status: String,
    /// The daemon.
    pub pid: Option<u32>,
    /// Where it listens.
    pub socket: Option<String>,
    /// Since when it runs.
    pub started_at: Option<Timestamp>,
    /// For how many seconds it has been running.
    pub uptime_secs: Option<u64>,
    /// Its version.
    pub version: Option<String>,
    /// Whether starts are paused.
    pub paused: bool,
    /// What is wrong with the graph, and what that holds up.
    #[serde(default)]
    pub graph_trouble: Option<String>,
    /// Its log.
    pub log: String,
    /// The chats.
    pub chats: Vec<ChatRow>,
    /// Whether each handler gets a control group, with which it is ended; not where the last one could not be made.
    #[serde(default)]
    pub control_groups: bool,
    /// The queue's lanes that are in use: what runs, what waits, and for what.
    #[serde(default)]
    pub lanes: Lanes,
}

/// How a message is sent.
#[derive(Debug, Clone)]
pub struct SendOptions {
    /// The sender's name for the message; one is made where it is absent.
    pub request_id: Option<String>,
    /// Whether "accepted" means "on the disk".
    pub durability: Durability,
    /// Who sends.
    pub user: Option<String>,
    /// How long the service may take to accept it; it never has more than its own limit.
    pub patience: Patience,
}

/// Makes a chat.
///
/// # Errors
///
/// A chat of that number exists, the command line or agent makes no sense, or the files cannot be written.
pub fn create_chat(
    workspace: &Workspace,
    wanted: NewChatRequest,
    patience: Patience,
) -> Result<CreatedChat, Failure> {
    match running(Client::connect_within(workspace, patience))? {
        Some(mut client) => {
            let within = patience.at_most(CALL_PATIENCE);
            typed(client.call_within(&Request::CreateChat(wanted), within)?)
        }
        None => local::create_chat(workspace, &wanted, false),
    }
}

/// Ends the chat's handler; it stays down until it is resumed.
///
/// # Errors
///
/// The wish could not be written, or something could not be ended.
pub fn stop(workspace: &Workspace, chat: ChatId, caller: &Caller) -> Result<ChatChange, Failure> {
    change(workspace, chat, caller, Request::StopChat, local::stop)
}

/// Lifts a stop or a park.
///
/// # Errors
///
/// The chat is archived, or the wish could not be written.
pub fn resume(workspace: &Workspace, chat: ChatId, caller: &Caller) -> Result<ChatChange, Failure> {
    change(workspace, chat, caller, Request::ResumeChat, local::resume)
}

/// Ends the chat's handler and retires the chat; its history stays where it is.
///
/// # Errors
///
/// As [`stop`].
pub fn archive(
    workspace: &Workspace,
    chat: ChatId,
    caller: &Caller,
) -> Result<ChatChange, Failure> {
    change(
        workspace,
        chat,
        caller,
        Request::ArchiveChat,
        local::archive,
    )
}

/// Brings an archived or purged chat back.
///
/// # Errors
///
/// The wish could not be written.
pub fn restore(
    workspace: &Workspace,
    chat: ChatId,
    caller: &Caller,
) -> Result<ChatChange, Failure> {
    change(
        workspace,
        chat,
        caller,
        Request::RestoreChat,
        local::restore,
    )
}

/// Ends the chat's handler and abandons its task; the history stays where it is.
///
/// # Errors
///
/// As [`stop`].
pub fn delete(workspace: &Workspace, chat: ChatId, caller: &Caller) -> Result<ChatChange, Failure> {
    change(workspace, chat, caller, Request::DeleteChat, local::delete)
}

/// Changes the agent or the model of a chat; a daemon that runs hears of it, without one the graph is all there is.
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
    match daemon(workspace)? {
        Some(mut client) => typed(client.call(&Request::SetChatExecutor {
            chat_id: chat.0,
            executor: agent.map(str::to_owned),
            model: model.map(str::to_owned),
        })?),
        None => local::set_executor(workspace, chat, agent, model),
    }
}

/// Tells the daemon that a chat was released to a person, so that it holds off. Nothing to do without a daemon.
///
/// # Errors
///
/// The daemon is there and does not answer within the patience.
pub fn hold_off(
    workspace: &Workspace,
    chat: ChatId,
    caller: &Caller,
    patience: Patience,
) -> Result<(), Failure> {
    if let Some(mut client) = running(Client::connect_within(workspace, patience))? {
        let request = Request::ReleaseChat(OneChat {
            chat_id: chat.0,
            actor: Some(caller.actor.clone()),
        });
        client.call_within(&request, patience.at_most(CALL_PATIENCE))?;
    }
    Ok(())
}

/// How long a purge may take before the daemon counts as stuck.
const PURGE_PATIENCE: Duration = Duration::from_secs(600);

/// Archives every chat and ends every handler, with proof, whoever started it.
///
/// `progress` is called with how many are done of how many.
///
/// # Errors
///
/// The wishes could not be written. A holder that could not be ended is no error here but stands in the report.
pub fn purge(
    workspace: &Workspace,
    options: &PurgeOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<PurgeReport, Failure> {
    match daemon(workspace)? {
        Some(mut client) => {
            let request = Request::PurgeChats {
                include_active: options.include_active,
                include_self: options.include_self,
                dry_run: options.dry_run,
                force_unproven: options.force_unproven,
                caller_chat_id: local::caller_chat(workspace, &options.caller).map(|chat| chat.0),
                progress: true,
            };
            let mut told = |event: &Value| {
                let number = |name: &str| usize::try_from(event.get(name)?.as_u64()?).ok();
                if let (Some(done), Some(total)) = (number("done"), number("total")) {
                    progress(done, total);
                }
            };
            typed(client.call_telling(&request, PURGE_PATIENCE, &mut told)?)
        }
        None => local::purge(workspace, options, progress),
    }
}

/// The chats, with their true states; without `all`, those that are not retired.
///
/// # Errors
///
/// The graph cannot be read, or the daemon does not answer.
pub fn list_chats(workspace: &Workspace, all: bool) -> Result<Vec<ChatRow>, Failure> {
    let mut rows = list_all_chats_within(workspace, CALL_PATIENCE)?;
    if !all {
        rows.retain(|row| !matches!(row.state, ChatState::Archived | ChatState::Purged));
    }
    Ok(rows)
}

/// Every chat with its true state, as far as the daemon says it within this time.
///
/// # Errors
///
/// As [`list_chats`].
pub fn list_all_chats_within(
    workspace: &Workspace,
    patience: Duration,
) -> Result<Vec<ChatRow>, Failure> {
    match read_within(workspace, &Request::ListChats, patience)? {
        Some(mut reply) => from_value(reply.remove("chats").unwrap_or_default()),
        None => local::list_chats(workspace),
    }
}

/// Lets the daemon read its configuration again.
///
/// # Errors
///
/// No daemon, or a file that it refuses: then the old configuration stays in force.
pub fn reload(workspace: &Workspace) -> Result<Map<String, Value>, Failure> {
    Ok(Client::connect(workspace)?.call(&Request::Reload)?)
}

/// Lets the daemon start no further handler until [`unpause`].
///
/// # Errors
///
/// No daemon.
pub fn pause(workspace: &Workspace) -> Result<Map<String, Value>, Failure> {
    Ok(Client::connect(workspace)?.call(&Request::Pause)?)
}

/// Lifts a pause.
///
/// # Errors
///
/// No daemon.
pub fn unpause(workspace: &Workspace) -> Result<Map<String, Value>, Failure> {
    Ok(Client::connect(workspace)?.call(&Request::Resume)?)
}

/// How long a change of one chat may take: the stop ladder with its graces.
const CHANGE_PATIENCE: Duration = Duration::from_secs(180);

fn change(
    workspace: &Workspace,
    chat: ChatId,
    caller: &Caller,
    request: fn(OneChat) -> Request,
    here: fn(&Workspace, ChatId, &str) -> Result<ChatChange, Failure>,
) -> Result<ChatChange, Failure> {
    match daemon(workspace)? {
        Some(mut client) => {
            let one = OneChat {
                chat_id: chat.0,
                actor: Some(caller.actor.clone()),
            };
            typed(client.call_within(&request(one), CHANGE_PATIENCE)?)
        }
        None => here(workspace, chat, &caller.actor),
    }
}

/// Asks the daemon something that changes nothing; `None` without one.
///
/// A daemon that was killed a moment ago still has its socket for an instant, and a question to it breaks. It is asked
/// once more, which either finds its successor or nobody.
fn read(workspace: &Workspace, request: &Request) -> Result<Option<Map<String, Value>>, Failure> {
    read_within(workspace, request, CALL_PATIENCE)
}

/// As [`read`], for somebody whose time is short: the greeting and the answer have this long together.
fn read_within(
    workspace: &Workspace,
    request: &Request,
    patience: Duration,
) -> Result<Option<Map<String, Value>>, Failure> {
    let until = clock::steady() + patience;
    let left = || until.saturating_duration_since(clock::steady());
    let mut again = true;
    loop {
        let greeted = Client::connect_within(workspace, Patience::For(left()));
        let Some(mut client) = running(greeted)? else {
            return Ok(None);
        };
        match client.call_within(request, left()) {
            Ok(reply) => return Ok(Some(reply)),
            Err(CallError::Broken(error))
                if again && error.kind() != std::io::ErrorKind::TimedOut =>
            {
                again = false;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The daemon, if one runs.
fn daemon(workspace: &Workspace) -> Result<Option<Client>, Failure> {
    running(Client::connect(workspace))
}

fn running(connected: Result<Client, ConnectError>) -> Result<Option<Client>, Failure> {
    match connected {
        Ok(client) => Ok(Some(client)),
        Err(ConnectError::NotRunning) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn typed<T: serde::de::DeserializeOwned>(reply: Map<String, Value>) -> Result<T, Failure> {
    from_value(Value::Object(reply))
}

fn from_value<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|e| {
        Failure::new(
            ExitCode::Unavailable,
            "the service speaks another version of the protocol",
        )
        .caused_by(e)
        .with_cure("wg service restart")
    })
}

/// Explains one chat.
///
/// # Errors
///
/// The chat does not exist, the daemon does not answer, or the files cannot be read.
pub fn explain_one(
    workspace: &Workspace,
    chat: ChatId,
) -> Result<crate::why::Explanation, Failure> {
    match explain_by_service(workspace, chat)? {
        Some(explanation) => Ok(explanation),
        None => local::explain(workspace, chat),
    }
}

/// Explains one chat as the service knows it, which may know more than a graph that cannot be read; `None` without one.
///
/// # Errors
///
/// As [`explain_one`].
pub fn explain_by_service(
    workspace: &Workspace,
    chat: ChatId,
) -> Result<Option<crate::why::Explanation>, Failure> {
    let request = Request::Explain(OneChat {
        chat_id: chat.0,
        actor: None,
    });
    read(workspace, &request)?.map(typed).transpose()
}
