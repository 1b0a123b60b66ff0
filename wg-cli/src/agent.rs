//! Which program answers a chat, and how it is to be run.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::names::Protocol;
use crate::store::config::{AgentConfig, Config, Exclusive};
use crate::store::graph::ChatTask;

/// The agents that need no settings.
pub const BUILT_IN: [&str; 3] = ["claude", "codex", "echo"];

/// Those of them that are programs, in the order in which they are looked for.
const KNOWN: [&str; 2] = ["claude", "codex"];

/// Where the message goes in an argument, under [`Protocol::Arg`].
pub const PLACE: &str = "{message}";

/// The executor names of the earlier tool that meant its own, built-in handler: it named no program that could answer.
const EARLIER_HANDLERS: [&str; 3] = ["nex", "native", "shell"];

/// What answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// The message itself is the reply: needs nothing installed.
    BuiltInEcho,
    /// A program with its arguments.
    Argv(Vec<OsString>),
}

/// An agent, ready to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSpec {
    /// What it is called in settings and to people.
    pub name: String,
    /// What answers.
    pub program: Program,
    /// How a message reaches it.
    pub protocol: Protocol,
    /// Variables that are added to its environment.
    pub env: BTreeMap<OsString, OsString>,
    /// Where it works; a relative path is meant from the directory that holds the workspace, and `None` is that directory.
    pub cwd: Option<PathBuf>,
    /// What its leader is sent to end it, in this order, before SIGKILL.
    pub stop_signals: Vec<Signal>,
    /// How long a turn may go without a sign of progress.
    pub stall_ceiling: Duration,
    /// Whether it shares its working directory.
    pub exclusive: Exclusive,
    /// Whether what it leaves running is left alone.
    pub leave_children: bool,
}

impl AgentSpec {
    /// Returns the agent of a chat: the one that it names, else its command line, else the workspace's, else the first known one on PATH,
    /// else the built-in echo.
    ///
    /// # Errors
    /// [`ExitCode::Config`] for a name that means nothing here, listing those that do.
    pub fn for_chat(config: &Config, chat: &ChatTask) -> Result<Self, Failure> {
        let path = env::var_os("PATH").unwrap_or_default();
        Self::for_chat_on(config, chat, &path)
    }

    /// As [`AgentSpec::for_chat`], with the value of PATH given.
    ///
    /// # Errors
    /// As [`AgentSpec::for_chat`].
    pub fn for_chat_on(config: &Config, chat: &ChatTask, path: &OsStr) -> Result<Self, Failure> {
        let argv = chat.argv.as_deref().filter(|argv| !is_a_handler(argv));
        let known = chat
            .preset
            .as_deref()
            .filter(|name| config.agent_names().contains(name));
        let mut spec = match (known, argv, chat.preset.as_deref()) {
            (Some(name), _, _) => Self::named(config, name)?,
            (None, Some(argv), _) => Self::of_command(config, argv),
            (None, None, Some(unknown)) if !EARLIER_HANDLERS.contains(&unknown) => {
                Self::named(config, unknown)?
            }
            (None, None, _) => Self::of_workspace_on(config, path)?,
        };
        if let Some(cwd) = &chat.cwd {
            spec.cwd = Some(cwd.clone());
        }
        spec.choose_model(chat);
        Ok(spec)
    }

    /// Returns the agent of chats that name none.
    ///
    /// # Errors
    /// As [`AgentSpec::named`].
    pub fn of_workspace(config: &Config) -> Result<Self, Failure> {
        Self::of_workspace_on(config, &env::var_os("PATH").unwrap_or_default())
    }

    fn of_workspace_on(config: &Config, path: &OsStr) -> Result<Self, Failure> {
        if let Some(command) = &config.service.agent_command {
            return Ok(Self::of_command(config, command));
        }
        let found = || KNOWN.into_iter().find(|name| on_path(name, path).is_some());
        let name = config
            .service
            .agent
            .as_deref()
            .or_else(found)
            .unwrap_or("echo");
        Self::named(config, name)
    }

    /// Returns the agent of this name: settings over what is built in.
    ///
    /// # Errors
    /// [`ExitCode::Config`] for a name that means nothing here, listing those that do.
    pub fn named(config: &Config, name: &str) -> Result<Self, Failure> {
        let settings = config.agents.get(name);
        let (command, protocol, stop_signals) = match name {
            "echo" => (None, Protocol::Stdin, vec![Signal::SIGTERM]),
            // Both end the tools they run on SIGINT, and leave them behind on SIGTERM.
            "claude" => (
                Some(words(&["claude", "-p"])),
                Protocol::Stdin,
                vec![Signal::SIGINT, Signal::SIGTERM],
            ),
            "codex" => (
                Some(words(&["codex", "exec", "--skip-git-repo-check", "-"])),
                Protocol::Stdin,
                vec![Signal::SIGINT, Signal::SIGTERM],
            ),
            _ if settings.is_some() => (None, Protocol::Stdin, vec![Signal::SIGTERM]),
            _ => {
                let shown: String = name.chars().take(40).collect();
                let known = config.agent_names().join(", ");
                return Err(Failure::new(
                    ExitCode::Config,
                    format!("there is no agent `{}`", shown.escape_debug()),
                )
                .with_cure(format!(
                    "known here: {known}; others are made in config.toml under [agents.NAME]"
                )));
            }
        };
        let defaults = AgentConfig::default();
        let settings = settings.unwrap_or(&defaults);
        let program = match settings
            .command
            .as_ref()
            .map(|argv| argv.iter().map(OsString::from).collect())
            .or(command)
        {
            Some(argv) => Program::Argv(argv),
            None => Program::BuiltInEcho,
        };
        Ok(Self {
            name: name.to_owned(),
            protocol: settings.protocol.unwrap_or(protocol),
            program,
            env: settings
                .env
                .iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
            cwd: settings.cwd.clone(),
            stop_signals: settings.stop_signals.clone().unwrap_or(stop_signals),
            stall_ceiling: settings
                .stall_ceiling
                .unwrap_or(config.service.stall_ceiling),
            exclusive: settings.exclusive.unwrap_or(Exclusive::None),
            leave_children: settings.leave_children.unwrap_or(false),
        })
    }

    /// Returns the agent that is a command line: the message goes where `{message}` stands, else to its standard input.
    #[must_use]
    pub fn of_command(config: &Config, argv: &[String]) -> Self {
        let placed = argv.iter().any(|argument| argument.contains(PLACE));
        let name = argv
            .first()
            .map(Path::new)
            .and_then(Path::file_name)
            .unwrap_or_default();
        Self {
            name: name.to_string_lossy().into_owned(),
            program: Program::Argv(argv.iter().map(OsString::from).collect()),
            protocol: if placed {
                Protocol::Arg
            } else {
                Protocol::Stdin
            },
            env: BTreeMap::new(),
            cwd: None,
            stop_signals: vec![Signal::SIGTERM],
            stall_ceiling: config.service.stall_ceiling,
            exclusive: Exclusive::None,
            leave_children: false,
        }
    }

    /// Hands the chat's model and endpoint on: as an argument where we know the agent's, and in the environment always.
    fn choose_model(&mut self, chat: &ChatTask) {
        if let Some(endpoint) = &chat.endpoint {
            self.env.insert("WG_ENDPOINT".into(), endpoint.into());
        }
        let Some(model) = &chat.model else { return };
        self.env.insert("WG_MODEL".into(), model.into());
        // The earlier tool writes `claude:opus`.
        let bare = match model.split_once(':') {
            Some((provider, rest)) if provider == self.name => rest,
            _ => model.as_str(),
        };
        if let Program::Argv(argv) = &mut self.program
            && KNOWN.contains(&self.name.as_str())
            && argv
                .first()
                .is_some_and(|program| program == self.name.as_str())
            && !argv.iter().any(|argument| argument == "--model")
        {
            let at = if self.name == "codex" {
                2.min(argv.len())
            } else {
                1
            };
            argv.splice(at..at, ["--model".into(), bare.into()]);
        }
    }
}

fn words(argv: &[&str]) -> Vec<OsString> {
    argv.iter().map(OsString::from).collect()
}

/// Whether a command line starts a handler of this or the earlier tool, which must not be the agent of another handler.
fn is_a_handler(argv: &[String]) -> bool {
    let program = argv.first().map(Path::new).and_then(Path::file_name);
    let is_wg = program.is_some_and(|name| name == "wg");
    is_wg
        && argv.iter().skip(1).any(|argument| {
            ["nex", "spawn-task", "claude-handler", "codex-handler"].contains(&argument.as_str())
        })
}

/// Returns where an executable of this name is on a PATH.
#[must_use]
pub fn on_path(name: &str, path: &OsStr) -> Option<PathBuf> {
    env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| {
            fs::metadata(file).is_ok_and(|metadata| {
                metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
            })
        })
}
