//! `wg service …`

use std::time::Duration;

use clap::{Args, Subcommand};

use super::chat;
use super::{NotBuilt, parse_span};

/// Arguments of `wg service`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct Service {
    /// The verb.
    #[command(subcommand)]
    pub command: ServiceCommand,
}

/// The verbs of `wg service`.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Start the service
    #[command(after_help = "\
A second start says `Service already running` and exits 0.

Examples:
  wg service start
  wg service start --foreground      under a supervisor of your own")]
    Start(Start),
    /// Stop the service and every handler that it keeps
    #[command(after_help = "\
Examples:
  wg service stop
  wg service stop --keep-handlers    a later start adopts them
  wg service stop --force            no grace for turns in flight")]
    Stop(Stop),
    /// Replace the service; turns in flight go on
    #[command(after_help = "\
Examples:
  wg service restart")]
    Restart(Start),
    /// Say whether the service runs and how its chats are
    #[command(after_help = "\
Examples:
  wg service status
  wg service status --check          exit code 3 where it is not running")]
    Status(Status),
    /// Read config.toml again; a bad file leaves the old one in force
    #[command(after_help = "\
Examples:
  wg service reload")]
    Reload,
    /// Start no further handler until `resume`
    #[command(after_help = "\
Examples:
  wg service pause")]
    Pause,
    /// Lift a pause
    #[command(after_help = "\
Examples:
  wg service resume")]
    Resume,
    /// Print the service's log
    #[command(after_help = "\
Examples:
  wg service logs -n 50
  wg service logs -f

With --json each line is a JSON text of its own.")]
    Logs(Logs),
    /// Print what happened to the chats, one event a line
    #[command(after_help = "\
Examples:
  wg service events -n 20
  wg service events -f --json

With --json each line is a JSON document of its own.")]
    Events(Events),
    /// Make a chat (the earlier name of `wg chat new`)
    #[command(
        visible_alias = "create-coordinator",
        after_help = "\
Examples:
  wg service create-chat --name docs"
    )]
    CreateChat(chat::New),
    /// Retire one chat (the earlier name of `wg chat archive`)
    #[command(
        alias = "archive-coordinator",
        after_help = "\
Examples:
  wg service archive-chat 3"
    )]
    ArchiveChat(chat::One),
    /// End every handler and retire every chat; histories stay
    #[command(after_help = "\
The same verb as `wg service purge-chats`.

Examples:
  wg service archive-all-chats --dry-run")]
    ArchiveAllChats(Purge),
    /// Stop one chat (the earlier name of `wg chat stop`)
    #[command(
        alias = "stop-coordinator",
        after_help = "\
Examples:
  wg service stop-chat 3"
    )]
    StopChat(chat::One),
    /// End the turn in flight (the earlier name of `wg chat interrupt`)
    #[command(
        alias = "interrupt-coordinator",
        after_help = "\
Examples:
  wg service interrupt-chat 3"
    )]
    InterruptChat(chat::One),
    /// Retire one chat for good (the earlier name of `wg chat delete`)
    #[command(
        alias = "delete-coordinator",
        after_help = "\
Examples:
  wg service delete-chat 3"
    )]
    DeleteChat(chat::Delete),
    /// Change the agent or the model of a chat
    #[command(
        visible_alias = "switch",
        after_help = "\
Examples:
  wg service set-executor 3 --executor codex"
    )]
    SetExecutor(SetExecutor),
    /// End every handler and retire every chat; histories stay
    #[command(after_help = "\
Ends every live handler and every process below it, whoever started it, with
the service up or down; marks every chat's task done. Nothing comes back by
itself: `wg chat restore REF` or a new chat does. A second run changes nothing.
Exit code 75: a holder that could not be proven ours is still alive.

Examples:
  wg service purge-chats --dry-run
  wg service purge-chats
  wg service purge-chats --keep-active")]
    PurgeChats(Purge),
    /// The service itself, in the foreground.
    #[command(hide = true)]
    Daemon(Start),
    /// Let systemd keep the service of this workspace
    #[command(after_help = "\
Writes a unit of your user's systemd: Type=notify with a watchdog. It touches
nothing but the daemon (KillMode=process), so agents go on over a restart. Each
agent gets a control group (Delegate=yes), so that nothing of it is ever left.

Examples:
  wg service install --print      only show the unit
  wg service install
  systemctl --user daemon-reload
  systemctl --user enable --now wg-PROJECT-0123abcd   (install says the name)")]
    Install(Install),
    /// Not built yet
    #[command(hide = true, aliases = ["thaw", "tick"])]
    Freeze(NotBuilt),
}

/// Arguments of `wg service start`; the hidden ones are the earlier tool's.
#[derive(Debug, Default, Args)]
pub struct Start {
    /// Stay in the foreground
    #[arg(long)]
    pub foreground: bool,
    /// Recorded for other tools; chats do not heed it
    #[arg(long, value_name = "N")]
    pub max_agents: Option<u32>,
    /// Replace a service that runs, as `restart` does.
    #[arg(long, hide = true)]
    pub force: bool,
    /// Accepted and ignored.
    #[arg(long, hide = true, value_name = "P")]
    pub port: Option<String>,
    /// Accepted and ignored: the socket's place follows from the workspace.
    #[arg(long, hide = true, value_name = "PATH")]
    pub socket: Option<String>,
    /// Accepted and ignored: agents belong to chats.
    #[arg(long, hide = true, value_name = "E")]
    pub executor: Option<String>,
    /// Accepted and ignored: nothing is polled.
    #[arg(long, hide = true, value_name = "S")]
    pub interval: Option<String>,
    /// Accepted and ignored: models belong to chats.
    #[arg(long, hide = true, value_name = "M")]
    pub model: Option<String>,
}

/// Arguments of `wg service stop`.
#[derive(Debug, Args)]
pub struct Stop {
    /// Skip the grace of turns in flight
    #[arg(long)]
    pub force: bool,
    /// Leave the handlers for the next service to adopt
    #[arg(long)]
    pub keep_handlers: bool,
    /// Accepted from the earlier tool: handlers are ended anyway.
    #[arg(long, hide = true, conflicts_with = "keep_handlers")]
    pub kill_agents: bool,
}

/// Arguments of `wg service install`.
#[derive(Debug, Args)]
pub struct Install {
    /// Print the unit and write nothing
    #[arg(long)]
    pub print: bool,
}

/// Arguments of `wg service status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Exit 3 where the service is not running
    #[arg(long)]
    pub check: bool,
}

/// Arguments of `wg service logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// Go on printing what comes, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last N lines
    #[arg(short = 'n', long = "last", value_name = "N")]
    pub last: Option<usize>,
}

/// Arguments of `wg service events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Go on printing what comes, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last N events
    #[arg(short = 'n', long = "last", value_name = "N")]
    pub last: Option<usize>,
    /// Only this chat's
    #[arg(long, value_name = "REF")]
    pub chat: Option<String>,
}

/// Arguments of `wg service set-executor`.
#[derive(Debug, Args)]
pub struct SetExecutor {
    /// The chat
    #[arg(value_name = "REF")]
    pub chat: String,
    /// The agent
    #[arg(
        long,
        visible_alias = "agent",
        value_name = "NAME",
        required_unless_present = "model"
    )]
    pub executor: Option<String>,
    /// The model
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
}

/// Arguments of `wg service purge-chats`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is one flag")]
pub struct Purge {
    /// Say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Leave chats with a turn running or somebody attached
    #[arg(long)]
    pub keep_active: bool,
    /// Accepted from the earlier tool: active chats are included anyway.
    #[arg(long, hide = true, aliases = ["force", "all"], conflicts_with = "keep_active")]
    pub include_active: bool,
    /// Also the chat that this command runs in
    #[arg(long)]
    pub include_self: bool,
    /// Also signal holders that cannot be proven ours
    #[arg(long)]
    pub force_unproven: bool,
    /// Leave after this time with code 124, such as 10, 2m [default: wait]
    #[arg(long, value_name = "TIME", value_parser = parse_span, allow_negative_numbers = true)]
    pub wait: Option<Duration>,
}
