//! `wg lock …`

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::parse_span;

/// Arguments of `wg lock`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct Lock {
    /// The verb.
    #[command(subcommand)]
    pub command: LockCommand,
}

/// The verbs of `wg lock`.
#[derive(Debug, Subcommand)]
pub enum LockCommand {
    /// Run a command while nobody else has the directory
    #[command(after_help = "\
The lock lasts until the command and all it leaves in its process group have
ended. It is kept beside the directory, not in it. A lock on a directory above
or below is a conflict. Signals are passed on as by `wg run`: TERM, INT, QUIT and
HUP to all of it in the group, the others to the command alone.

Examples:
  wg lock run -- make release                   this directory
  wg lock run --dir ~/app --wait 60 -- ./deploy
  wg lock run --note \"nightly\" -- ./build.sh

Leaves with the command's code; 128 + n for a signal, 126 and 127 for what
cannot be started, 75 if another has the directory, 124 if it still has after
the wait.")]
    Run(Run),
    /// List the directories that are locked
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  wg lock list
  wg lock list --json"
    )]
    List,
    /// Say who has a directory, and who works in it all the same
    #[command(after_help = "\
Examples:
  wg lock status .
  wg lock status ~/app --json")]
    Status(One),
    /// Lock a directory for a person, until it is released
    #[command(after_help = "\
Examples:
  wg lock hold . --reason \"I am in the middle of a rebase\"")]
    Hold(Hold),
    /// Ask whoever has a directory to let go; end a person's hold
    #[command(after_help = "\
A command under `wg lock run` is told and goes on until it has ended by itself.
Exit code 75: still held after the wait.

Examples:
  wg lock release .
  wg lock release . --wait 0            ask and return
  wg lock release . --wait 0 --force    SIGTERM, then SIGKILL")]
    Release(Release),
}

/// Arguments of `wg lock run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The directory to lock [default: the current one]
    #[arg(long, value_name = "D")]
    pub dir: Option<PathBuf>,
    /// How long to wait for the directory, such as 10, 2m [default: not at all]
    #[arg(long, value_name = "TIME", value_parser = parse_span, allow_negative_numbers = true)]
    pub wait: Option<Duration>,
    /// What others are told about the lock
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Do not mind locks on directories above and below
    #[arg(long)]
    pub allow_overlap: bool,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// One directory.
#[derive(Debug, Args)]
pub struct One {
    /// The directory
    #[arg(value_name = "D")]
    pub directory: PathBuf,
}

/// Arguments of `wg lock hold`.
#[derive(Debug, Args)]
pub struct Hold {
    /// The directory
    #[arg(value_name = "D")]
    pub directory: PathBuf,
    /// Who holds it [default: your user's name]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// What for
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub reason: String,
}

/// Arguments of `wg lock release`.
#[derive(Debug, Args)]
pub struct Release {
    /// The directory
    #[arg(value_name = "D")]
    pub directory: PathBuf,
    /// How long to wait until it is free, such as 10, 2m
    #[arg(long, value_name = "TIME", default_value = "10", value_parser = parse_span, allow_negative_numbers = true)]
    pub wait: Duration,
    /// After the wait: end the holder; also end another's hold
    #[arg(long)]
    pub force: bool,
    /// Also end a holder whose identity cannot be proven
    #[arg(long, requires = "force")]
    pub allow_unproven: bool,
}
