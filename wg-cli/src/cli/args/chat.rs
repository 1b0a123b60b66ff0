//! `wg chat …`

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::parse_span;

/// Arguments of `wg chat`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  wg chat new --name docs --agent claude
  wg chat list
  wg chat send docs \"write the introduction\"
  wg chat read docs --follow
  wg chat \"hello\"                  send to chat 0 and wait for the reply
  wg chat \"hello\" --coordinator 3  the same for chat 3"
)]
pub struct Chat {
    /// A verb, where it is not the flat form.
    #[command(subcommand)]
    pub command: Option<ChatCommand>,
    /// A message to send and wait for, without a verb.
    #[command(flatten)]
    pub flat: Flat,
}

/// The earlier flat form: send and wait.
#[derive(Debug, Args)]
pub struct Flat {
    /// Send this and wait for the reply; `-` reads it from stdin
    #[arg(value_name = "MESSAGE", required = true)]
    pub message: Option<String>,
    /// The chat to send to
    #[arg(long, visible_alias = "chat", value_name = "REF", default_value = "0")]
    pub coordinator: String,
    /// Give up waiting after this time, such as 30, 2m
    #[arg(long, value_name = "TIME", default_value = "120", value_parser = parse_span, allow_negative_numbers = true)]
    pub timeout: Duration,
    /// Exit 0 also where no reply came in time or the chat failed
    #[arg(long)]
    pub exit_zero: bool,
}

/// The verbs of `wg chat`.
#[derive(Debug, Subcommand)]
pub enum ChatCommand {
    /// Make a chat
    #[command(
        visible_alias = "create",
        after_help = "\
Works with the service up or down. No process runs until there is a message.

Examples:
  wg chat new
  wg chat new --name docs --agent claude --cwd ~/src/docs
  wg chat new --id chat-99 --command 'tr a-z A-Z'"
    )]
    New(New),
    /// List the chats and their true states
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  wg chat list
  wg chat list --all --json"
    )]
    List(List),
    /// Show one chat: settings, state, holder, paths
    #[command(after_help = "\
Examples:
  wg chat show chat-1")]
    Show(One),
    /// Leave a message and return at once
    #[command(after_help = "\
Accepted means durable: the message is on disk when this returns.

Examples:
  wg chat send chat-1 \"run the tests\"
  git diff | wg chat send chat-1 -")]
    Send(Send),
    /// Print the conversation
    #[command(after_help = "\
Examples:
  wg chat read chat-1
  wg chat read chat-1 -n 5
  wg chat read chat-1 --follow")]
    Read(Read),
    /// Talk to a chat line by line; Ctrl-C interrupts a turn, Ctrl-D leaves
    #[command(after_help = "\
Examples:
  wg chat attach chat-1
  printf 'one\\ntwo\\n' | wg chat attach chat-1")]
    Attach(One),
    /// End a chat's handler and keep it down until `resume`
    #[command(after_help = "\
Examples:
  wg chat stop chat-1")]
    Stop(One),
    /// Lift a stop or a park; the chat runs when it has a reason to
    #[command(after_help = "\
Examples:
  wg chat resume chat-1")]
    Resume(One),
    /// End the turn in flight; the chat goes on
    #[command(after_help = "\
Examples:
  wg chat interrupt chat-1")]
    Interrupt(One),
    /// Send a message again, marked as a retry
    #[command(after_help = "\
Without ID: the last message that has no reply or a failed one.

Examples:
  wg chat retry chat-1
  wg chat retry chat-1 7")]
    Retry(Retry),
    /// Retire a chat: end its handler, mark its task done; the history stays
    #[command(after_help = "\
Examples:
  wg chat archive chat-1
  wg chat restore chat-1     brings it back")]
    Archive(One),
    /// Bring an archived or purged chat back
    #[command(after_help = "\
Examples:
  wg chat restore chat-1")]
    Restore(One),
    /// Retire a chat for good: end its handler, abandon its task; files stay
    #[command(after_help = "\
Examples:
  wg chat delete chat-1 --yes")]
    Delete(Delete),
}

/// One chat.
#[derive(Debug, Args)]
pub struct One {
    /// The chat: 3, chat-3, .chat-3, its name, or a session's uuid
    #[arg(value_name = "REF")]
    pub chat: String,
}

/// Arguments of `wg chat new`.
#[derive(Debug, Args)]
pub struct New {
    /// A certain number, such as chat-99 [default: the next free one]
    #[arg(long, value_name = "chat-N")]
    pub id: Option<String>,
    /// A name for people
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The agent: a known program or an [agents.NAME] of config.toml
    #[arg(long, visible_alias = "exec", alias = "executor", value_name = "NAME")]
    pub agent: Option<String>,
    /// A shell command line as the agent: message on stdin, reply on stdout
    #[arg(long, value_name = "CMD", conflicts_with = "agent")]
    pub command: Option<String>,
    /// The agent's working directory [default: the workspace's parent]
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// The model, for agents that take one
    #[arg(short, long, value_name = "MODEL", conflicts_with = "command")]
    pub model: Option<String>,
    /// The endpoint, for agents that take one
    #[arg(short, long, value_name = "URL", conflicts_with = "command")]
    pub endpoint: Option<String>,
}

/// Arguments of `wg chat list`.
#[derive(Debug, Args)]
pub struct List {
    /// Archived, purged and deleted chats too
    #[arg(long, short)]
    pub all: bool,
}

/// Arguments of `wg chat send`.
#[derive(Debug, Args)]
pub struct Send {
    /// The chat
    #[arg(value_name = "REF")]
    pub chat: String,
    /// The message; `-` reads it from stdin
    #[arg(value_name = "MESSAGE")]
    pub message: String,
    /// Your own name for the message: sent again under it, it is not asked twice
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
    /// Do not wait for the disk
    #[arg(long)]
    pub no_sync: bool,
}

/// Arguments of `wg chat read`.
#[derive(Debug, Args)]
pub struct Read {
    /// The chat
    #[arg(value_name = "REF")]
    pub chat: String,
    /// Only the last N messages
    #[arg(short = 'n', long = "last", value_name = "N")]
    pub last: Option<usize>,
    /// Go on printing what comes, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
}

/// Arguments of `wg chat retry`.
#[derive(Debug, Args)]
pub struct Retry {
    /// The chat
    #[arg(value_name = "REF")]
    pub chat: String,
    /// The message's number in the inbox
    #[arg(value_name = "ID")]
    pub message_id: Option<u64>,
}

/// Arguments of `wg chat delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// The chat
    #[arg(value_name = "REF")]
    pub chat: String,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}
