//! The command line: every verb, every flag, and an example for each.

pub mod chat;
pub mod lock;
pub mod service;
pub mod session;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::report::{Colour, Voice};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "wg",
    version,
    max_term_width = 80,
    about = "Keeps AI chat agents alive without crash loops, stuck locks or lost messages",
    help_template = "\
Start here:  wg up \"hello\"

{about}

{usage-heading} {usage}

Talk
  up           whatever is missing is made, then: a message, or a conversation
  chat         new, list, show, send, read, attach, stop, resume, interrupt,
               retry, archive, restore, delete; `wg chat MESSAGE` waits

See what is going on
  why          the state of a chat, what led to it, what comes next, what helps
  top          all chats, live
  list, show   the tasks of the graph, chats included
  which        which workspace this is, and why

Keep it running
  service      start, stop, restart, status, reload, pause, resume, logs,
               events, install; purge-chats ends every agent
  session      list, status, release, takeover, check, new, alias, rm:
               who holds a chat, and how to get it

One command, any program
  run          again after each failure, under the same supervisor
  lock         run, list, status, hold, release: one writer per directory

Upkeep
  init         make a workspace here
  doctor       what is wrong, and the fix
  migrate      chat-rename: bring an earlier workspace up to date
  completions, man
               for your shell and your manual

What the service itself runs
  nex          serve a chat in this process, or a private one
  spawn-task   become the handler of a chat's task

Options:
{options}

`wg help VERB`, or --help after any verb, has examples.{after-help}",
    after_help = "\
Examples:
  wg up \"hello\"                 answer one message, whatever it takes to set up
  wg chat new --agent claude    a chat with an agent of your choice
  wg chat send chat-1 \"go on\"   leave a message and do something else
  wg why                        what is not simply running, and what helps
  wg service purge-chats        end every agent; histories stay

REF is a chat in any form: 3, chat-3, .chat-3, its name, or a session's uuid.
--json prints one document on stdout; what goes wrong is a document on stderr:
{\"error\":…,\"code\":…}. Verbs that stream print a document a line.

Exit codes: 0 ok, 1 failed, 2 usage, 3 not running (status --check), 69
unavailable, 70 bug, 71 system, 75 held by another, 77 not permitted, 78
configuration, 124 timed out. A handler leaves with 90 at its memory cap, 91
when idle, 92 when asked to."
)]
pub struct Cli {
    /// Options that every verb takes.
    #[command(flatten)]
    pub globals: Globals,
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every verb takes.
#[derive(Debug, Clone, Args)]
pub struct Globals {
    /// The workspace, or a folder that holds one [default: the nearest `.wg` upwards]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Everywhere")]
    pub dir: Option<PathBuf>,
    /// Print one JSON document instead of text; errors too, on stderr
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub json: bool,
    /// Print what was asked for and nothing else; the exit code says the rest
    #[arg(short, long, global = true, help_heading = "Everywhere")]
    pub quiet: bool,
    /// Say more on stderr (twice: debug log)
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Everywhere")]
    pub verbose: u8,
    /// Colour the output: auto, always or never
    #[arg(long, global = true, value_enum, default_value_t = When::Auto, hide_default_value = true,
          hide_possible_values = true, value_name = "WHEN", help_heading = "Everywhere")]
    pub color: When,
}

/// When output is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Globals {
    /// How the verb's report is to speak.
    #[must_use]
    pub fn voice(&self) -> Voice {
        let colour = match self.color {
            When::Auto => Colour::Auto,
            When::Always => Colour::Always,
            When::Never => Colour::Never,
        };
        Voice {
            json: self.json,
            quiet: self.quiet,
            verbose: self.verbose,
            colour,
        }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The front door: set up what is missing, then talk to a chat
    #[command(after_help = "\
Makes the workspace if there is none, starts the service if it is not running,
makes a chat if there is none, then:
  MESSAGE         print the reply
  piped stdin     one message a line, replies printed in order
  a terminal      attach to the chat

Examples:
  wg up \"hello\"
  wg up --agent claude \"what does this repository do?\"
  printf 'one\\ntwo\\n' | wg up")]
    Up(Up),
    /// Make a workspace here
    #[command(after_help = "\
Examples:
  wg init
  wg --dir ~/project init")]
    Init(Init),
    /// Print the workspace in use and why it was chosen
    #[command(after_help = "\
Examples:
  wg which
  wg which --json")]
    Which,
    /// List the tasks of the graph, chats included
    #[command(after_help = "\
Examples:
  wg list
  wg list --status in-progress --tag chat-loop
  wg list --all --json")]
    List(List),
    /// Show one task of the graph
    #[command(after_help = "\
Examples:
  wg show .chat-0
  wg show .chat-0 --json")]
    Show(Show),
    /// Chats: make, list, talk, stop, retire; `wg chat MESSAGE` sends and waits
    Chat(Box<chat::Chat>),
    /// The session locks: who holds a chat, and how to get it
    #[command(after_help = "\
Examples:
  wg session list
  wg session release chat-3")]
    Session(session::Session),
    /// The service that keeps the chats alive
    #[command(after_help = "\
Examples:
  wg service start
  wg service status")]
    Service(Box<service::Service>),
    /// Say why a chat is in its state, what comes next and what you can do
    #[command(after_help = "\
Without REF: every chat that is not simply running or idle, worst first.

Examples:
  wg why
  wg why chat-3
  wg why chat-3 --json")]
    Why(Why),
    /// Serve a chat in this process (what the service runs), or a private one
    #[command(after_help = "\
Examples:
  wg nex                     a private chat, line by line
  wg nex --chat chat-1       take a chat over at this terminal
  wg nex --eval-mode \"hi\"    one message, one JSON line, no lock")]
    Nex(Nex),
    /// Become the handler of a chat's task (what the service execs)
    #[command(after_help = "\
Examples:
  wg spawn-task .chat-1 --dry-run")]
    SpawnTask(SpawnTask),
    /// Bring an earlier workspace up to date
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  wg migrate chat-rename --dry-run"
    )]
    Migrate(Migrate),
    /// Check the workspace and explain each finding
    #[command(after_help = "\
Examples:
  wg doctor
  wg doctor --fix
  wg doctor --json")]
    Doctor(Doctor),
    /// Print a completion script for a shell
    #[command(after_help = "\
Examples:
  wg completions bash > ~/.local/share/bash-completion/completions/wg
  wg completions zsh > ~/.zfunc/_wg
  wg completions fish > ~/.config/fish/completions/wg.fish")]
    Completions(Completions),
    /// Watch all chats on a live screen, and act on one with a key
    #[command(after_help = "\
Keys: j and k or the arrows choose a chat; a attach, w why, i interrupt,
s stop, r release, c resume, p purge (asks first), q leave.

Examples:
  wg top
  wg top --all                retired chats too
  wg chat list --json         the same for a program")]
    Top(Top),
    /// Run one command in the foreground under the same supervisor
    #[command(after_help = "\
Examples:
  wg run -- ./worker --queue mail           again after each failure
  wg run --restart always --max-crashes 5 -- ./server
  wg run --policy wg.toml --events -- CMD   events as JSON lines on stderr

A failure is followed by a pause of 1 s, doubled to 60 s. A policy sets others;
more than two starts a second for long need its unsafe_no_backoff.

Signals are passed on. TERM, INT and QUIT are also the end: 10 s later comes
TERM, and 5 s after that everything is killed; a second one kills at once. The
end of the terminal is the end too. Any other HUP is the command's own, to read
its settings again for instance, and so are USR1 and the others. But CONT, TSTP,
TTIN, TTOU, PIPE, CHLD, URG, XFSZ, 32, 33 and faults are not passed on, and what
the caller ignores, as nohup does, the command ignores, too.

Leaves with the code of the command's last run; 128 + n where signal n ended
that run, or the wait for the next one; 127 or 126 for a program that is not
there or cannot be run; 78 for a policy that is wrong. Nothing of the command is
left when this ends. Only kill -9 of wg itself, or a fault in it, cannot be
passed on: the command then goes on, with nobody to start it again.")]
    Run(Run),
    /// One writer per directory, for any program
    #[command(after_help = "\
Examples:
  wg lock run -- make
  wg lock list")]
    Lock(lock::Lock),
    /// Print the manual page of a verb, or write all of them
    #[command(after_help = "\
Examples:
  wg man | man -l -                        the page of wg
  wg man chat send | man -l -
  wg man --to ~/.local/share/man/man1      a file for each verb")]
    Man(Man),
}

/// Arguments of `wg run`.
#[derive(Debug, Args)]
pub struct Run {
    /// When the command is started again
    #[arg(long, value_enum, value_name = "WHEN", default_value = "on-failure")]
    pub restart: RestartWhen,
    /// Give up at this crash number; 0 = never [default: 100]
    #[arg(long, value_name = "N")]
    pub max_crashes: Option<u32>,
    /// A file or pipe of at most 1 MiB whose `[supervisor]` section is the restart policy
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Tell every event as a JSON line on stderr
    #[arg(long)]
    pub events: bool,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "CMD")]
    pub command: Vec<std::ffi::OsString>,
}

/// When a command is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RestartWhen {
    /// Unless it leaves with 0
    OnFailure,
    /// However it ends
    Always,
    /// Never
    Never,
}

/// What follows a verb that is refused by name.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct NotBuilt {
    /// Anything.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub rest: Vec<std::ffi::OsString>,
}

/// Arguments of `wg up`.
#[derive(Debug, Args)]
pub struct Up {
    /// The agent of the chat, where one is made
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Give up waiting for a reply after this time, such as 30, 2m [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_span, allow_negative_numbers = true)]
    pub timeout: Option<Duration>,
    /// The message; `-` reads it from stdin
    #[arg(value_name = "MESSAGE")]
    pub message: Option<String>,
}

/// Arguments of `wg init`; the hidden ones are the earlier tool's.
#[derive(Debug, Args)]
pub struct Init {
    /// Accepted from scripts of the earlier tool.
    #[arg(long, hide = true)]
    pub no_agency: bool,
}

/// Arguments of `wg top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Retired chats too
    #[arg(long, short)]
    pub all: bool,
}

/// Arguments of `wg man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Write a page for every verb into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "verb")]
    pub to: Option<PathBuf>,
    /// The verb, such as `chat send`
    #[arg(value_name = "VERB")]
    pub verb: Vec<String>,
}

/// Arguments of `wg list`.
#[derive(Debug, Args)]
pub struct List {
    /// Archived and abandoned tasks too
    #[arg(long, short)]
    pub all: bool,
    /// Only tasks with this status
    #[arg(long, value_name = "STATUS")]
    pub status: Option<String>,
    /// Only tasks with this tag (repeatable: all of them)
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
}

/// Arguments of `wg show`.
#[derive(Debug, Args)]
pub struct Show {
    /// A task's id, or any form of a chat
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Arguments of `wg why`.
#[derive(Debug, Args)]
pub struct Why {
    /// The chat
    #[arg(value_name = "REF")]
    pub chat: Option<String>,
}

/// Arguments of `wg nex`.
#[derive(Debug, Args)]
pub struct Nex {
    /// The chat to serve
    #[arg(long, value_name = "REF")]
    pub chat: Option<String>,
    /// Serve without a person: answer what is unread, leave when idle
    #[arg(long)]
    pub autonomous: bool,
    /// Answer MESSAGE with one JSON line on stdout
    #[arg(long)]
    pub eval_mode: bool,
    /// The agent to run
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Accepted from scripts of the earlier tool.
    #[arg(long, hide = true)]
    pub resume: bool,
    /// Accepted from scripts of the earlier tool.
    #[arg(long, hide = true, value_name = "ROLE")]
    pub role: Option<String>,
    /// The message; without it, stdin or the chat's inbox is read
    #[arg(value_name = "MESSAGE")]
    pub message: Option<String>,
}

/// Arguments of `wg spawn-task`.
#[derive(Debug, Args)]
pub struct SpawnTask {
    /// The task, such as .chat-1
    #[arg(value_name = "ID")]
    pub id: String,
    /// Print the command line instead
    #[arg(long)]
    pub dry_run: bool,
    /// Accepted from scripts of the earlier tool.
    #[arg(long, hide = true, value_name = "ROLE")]
    pub role: Option<String>,
}

/// Arguments of `wg migrate`.
#[derive(Debug, Args)]
pub struct Migrate {
    /// What to bring up to date.
    #[command(subcommand)]
    pub command: MigrateCommand,
}

/// What `wg migrate` can do.
#[derive(Debug, Subcommand)]
pub enum MigrateCommand {
    /// Rename `.coordinator-N` tasks to `.chat-N`
    #[command(after_help = "\
Examples:
  wg migrate chat-rename --dry-run
  wg migrate chat-rename")]
    ChatRename {
        /// Say what would be renamed
        #[arg(long)]
        dry_run: bool,
    },
}

/// Arguments of `wg doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Make the fixes that are explained
    #[arg(long)]
    pub fix: bool,
}

/// Arguments of `wg completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// Shells that completions are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
    /// elvish
    Elvish,
    /// `PowerShell`
    Powershell,
}

/// Reads a time span: seconds with an optional fraction, or a number with `ms`, `s`, `m` or `h`.
///
/// # Errors
///
/// A sentence that says which forms are accepted.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    const FORMS: &str =
        "a time is a number of seconds such as 10 or 0.5, or has a unit: 500ms, 30s, 2m, 1h";
    if text.starts_with('-') {
        return Err(format!("a time is not negative: {FORMS}"));
    }
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let seconds_per_unit = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(FORMS.to_owned()),
    };
    let number: f64 = digits.parse().map_err(|_| FORMS.to_owned())?;
    // A year is longer than anybody waits, and far below what a deadline can hold.
    let seconds = number * seconds_per_unit;
    if seconds > 366.0 * 86_400.0 {
        return Err("a wait is at most a year; leave the option out to wait for ever".to_owned());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| FORMS.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_span_is_seconds_or_has_a_unit() {
        assert_eq!(parse_span("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_span("0"), Ok(Duration::ZERO));
        assert_eq!(parse_span("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_span("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_span("2m"), Ok(Duration::from_secs(120)));
        for bad in [
            "",
            "-1",
            "x",
            "1.2.3",
            "10 s",
            "nan",
            "inf",
            "1e9",
            "99999999999999999999h",
            "9y",
        ] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }

    /// Walks every visible verb.
    fn visible(command: &clap::Command, path: &str, out: &mut Vec<(String, clap::Command)>) {
        for sub in command
            .get_subcommands()
            .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
        {
            let path = format!("{path} {}", sub.get_name());
            out.push((path.clone(), sub.clone()));
            visible(sub, &path, out);
        }
    }

    #[test]
    fn every_verb_explains_itself_with_an_example_that_names_it() {
        let mut verbs = Vec::new();
        visible(&Cli::command(), "wg", &mut verbs);
        assert!(verbs.len() > 30, "only {} verbs", verbs.len());
        for (path, command) in verbs {
            if command.has_subcommands() && command.get_after_help().is_none() {
                continue;
            }
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let last = path.rsplit(' ').next().unwrap();
            assert!(help.contains("Examples:"), "{path} has no examples");
            assert!(
                help.lines()
                    .any(|line| line.contains("wg") && line.contains(last)),
                "{path}: no example names it"
            );
            assert!(command.get_about().is_some(), "{path} has no summary");
        }
    }
}
