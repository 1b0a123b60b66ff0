//! `wg session …`

use std::time::Duration;

use clap::{Args, Subcommand};

use super::parse_span;

/// Arguments of `wg session`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct Session {
    /// The verb.
    #[command(subcommand)]
    pub command: SessionCommand,
}

/// The verbs of `wg session`.
#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// List the sessions and who holds them
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  wg session list
  wg session list --json"
    )]
    List,
    /// Say who holds a session and whether that process is alive
    #[command(after_help = "\
Examples:
  wg session status chat-1")]
    Status(One),
    /// Ask the holder to leave at its turn boundary
    #[command(after_help = "\
Works for every handler. Exit code 75: still held after the wait.

Examples:
  wg session release chat-1
  wg session release chat-1 --wait 60
  wg session release chat-1 --wait 0     ask and return")]
    Release(Release),
    /// Ask the holder to leave, then end it if it does not
    #[command(after_help = "\
Examples:
  wg session takeover chat-1
  wg session takeover chat-1 --force     no grace")]
    Takeover(Takeover),
    /// Look for sessions without a chat, chats without a session, dead locks
    #[command(after_help = "\
Examples:
  wg session check
  wg session check --fix")]
    Check(Check),
    /// Make a session that belongs to no chat
    #[command(after_help = "\
Examples:
  wg session new scratch")]
    New(New),
    /// Give a session another name, or take one away
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  wg session alias add scratch notes
  wg session alias rm notes"
    )]
    Alias(Alias),
    /// Remove a session that nobody holds and no chat needs, with its history
    #[command(after_help = "\
Refused for the session of a chat, unless the chat was deleted.

Examples:
  wg session rm scratch --yes")]
    Rm(Rm),
}

/// One session.
#[derive(Debug, Args)]
pub struct One {
    /// The session: 3, chat-3, .chat-3, a name, an alias or a uuid
    #[arg(value_name = "REF")]
    pub session: String,
}

/// Arguments of `wg session release`.
#[derive(Debug, Args)]
pub struct Release {
    /// The session: 3, chat-3, .chat-3, a name, an alias or a uuid
    #[arg(value_name = "REF")]
    pub session: String,
    /// How long to wait until it is free, such as 10, 2m
    #[arg(long, value_name = "TIME", default_value = "10", value_parser = parse_span, allow_negative_numbers = true)]
    pub wait: Duration,
}

/// Arguments of `wg session takeover`.
#[derive(Debug, Args)]
pub struct Takeover {
    /// The session: 3, chat-3, .chat-3, a name, an alias or a uuid
    #[arg(value_name = "REF")]
    pub session: String,
    /// Skip the graces
    #[arg(long)]
    pub force: bool,
    /// Also end a holder whose identity cannot be proven
    #[arg(long)]
    pub allow_unproven: bool,
    /// How long the holder has to leave by itself
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = parse_span, allow_negative_numbers = true)]
    pub grace: Duration,
}

/// Arguments of `wg session check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Make the fixes that are explained
    #[arg(long)]
    pub fix: bool,
}

/// Arguments of `wg session new`.
#[derive(Debug, Args)]
pub struct New {
    /// The alias
    #[arg(value_name = "ALIAS")]
    pub alias: String,
}

/// Arguments of `wg session rm`.
#[derive(Debug, Args)]
pub struct Rm {
    /// The session: a name, an alias or a uuid
    #[arg(value_name = "REF")]
    pub session: String,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// Arguments of `wg session alias`.
#[derive(Debug, Args)]
pub struct Alias {
    /// The verb.
    #[command(subcommand)]
    pub command: AliasCommand,
}

/// The verbs of `wg session alias`.
#[derive(Debug, Subcommand)]
pub enum AliasCommand {
    /// Give a session another name
    #[command(after_help = "\
Examples:
  wg session alias add chat-1 docs")]
    Add {
        /// The session
        #[arg(value_name = "REF")]
        session: String,
        /// The new alias
        #[arg(value_name = "ALIAS")]
        alias: String,
    },
    /// Take a name away
    #[command(after_help = "\
Examples:
  wg session alias rm docs")]
    Rm {
        /// The alias
        #[arg(value_name = "ALIAS")]
        alias: String,
    },
}
