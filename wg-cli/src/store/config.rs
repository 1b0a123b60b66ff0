//! `config.toml`: the settings of a workspace.
//!
//! The sections `[service]`, `[supervisor]` and `[agents.NAME]` are ours: an unknown key or a bad value in them is an error. Every other
//! section belongs to somebody else and is not looked at; nothing here ever writes the file.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use supervisor::Policy;
use toml::de::DeValue;

use super::messages::Keep;
use super::setting::{self, A_SIZE, A_SPAN};
use super::toml_section::{Section, Source};
use super::{Workspace, files};
use crate::agent::BUILT_IN;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::names::Protocol;
use crate::spelling;

/// What a command looks like, for complaints.
const A_COMMAND: &str = "a list of texts, the program first";

/// The sections that are ours.
pub(super) const SECTIONS: [&str; 3] = ["agents", "service", "supervisor"];

/// No file of settings has more bytes.
pub(super) const LARGEST: u64 = 1 << 20;

/// The variable by which a daemon tells its handlers where the settings in force are.
pub const IN_FORCE: &str = "WG_CONFIG";

/// The settings of a workspace.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[service]`.
    pub service: ServiceConfig,
    /// `[supervisor]`: the restart policy.
    pub supervisor: Policy,
    /// `[agents.NAME]`.
    pub agents: BTreeMap<String, AgentConfig>,
}

/// `[service]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// The agent of chats that name none; the first known one on PATH if `None`.
    pub agent: Option<String>,
    /// The command line that answers chats that name no agent, if `agent` was given as a list.
    pub agent_command: Option<Vec<String>>,
    /// How many turns run at a time.
    pub max_turns: MaxTurns,
    /// How long a handler stays with nobody there and nothing to do.
    pub idle_timeout: Duration,
    /// How long a turn may go without a sign of progress.
    pub stall_ceiling: Duration,
    /// How long a process has between a polite signal and SIGKILL.
    pub stop_grace: Duration,
    /// How many handlers start at a time.
    pub max_starts: NonZeroU32,
    /// How much memory a handler and what is below it may use.
    pub memory_cap: MemoryCap,
    /// What becomes of a message whose handler was killed during its turn.
    pub on_interrupted: OnInterrupted,
    /// At how many bytes a log is rotated.
    pub log_max_size: u64,
    /// How many rotated logs stay.
    pub log_keep: u32,
    /// At how many bytes of either file the messages of a chat that are done with move to its archive.
    pub history_max_size: u64,
    /// How many archived files of messages stay.
    pub history_keep: Keep,
}

/// How many turns run at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxTurns {
    /// As many as there are processors.
    Auto,
    /// This many.
    Count(NonZeroU32),
}

/// How much memory a handler and what is below it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryCap {
    /// A share of what the machine has.
    Auto,
    /// No limit.
    Off,
    /// This many bytes.
    Bytes(u64),
}

/// What becomes of a message whose handler was killed during its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInterrupted {
    /// It is taken again if the agent had shown no output yet, else it fails.
    Auto,
    /// It is taken again.
    Retry,
    /// It fails, with the partial output in the reply.
    Fail,
}

/// Whether an agent shares its working directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exclusive {
    /// One turn at a time in a directory.
    Dir,
    /// Any number.
    None,
}

/// `[agents.NAME]`. What is `None` is as in the built-in agent of that name, or as in `[service]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgentConfig {
    /// Program and arguments.
    pub command: Option<Vec<String>>,
    /// How a message reaches it.
    pub protocol: Option<Protocol>,
    /// Variables that are added to its environment.
    pub env: BTreeMap<String, String>,
    /// Where it works; relative to the directory of the workspace.
    pub cwd: Option<PathBuf>,
    /// What its leader is sent to end it, in this order, before SIGKILL.
    pub stop_signals: Option<Vec<Signal>>,
    /// How long a turn may go without a sign of progress.
    pub stall_ceiling: Option<Duration>,
    /// Whether it shares its working directory.
    pub exclusive: Option<Exclusive>,
    /// Whether what it leaves running is left alone.
    pub leave_children: Option<bool>,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            agent: None,
            agent_command: None,
            max_turns: MaxTurns::Auto,
            idle_timeout: Duration::from_secs(300),
            stall_ceiling: Duration::from_secs(600),
            stop_grace: Duration::from_secs(10),
            max_starts: const { NonZeroU32::new(4).expect("because 4 is not 0") },
            memory_cap: MemoryCap::Auto,
            on_interrupted: OnInterrupted::Auto,
            log_max_size: 10 * 1024 * 1024,
            log_keep: 5,
            history_max_size: 10 * 1024 * 1024,
            history_keep: Keep::All,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            service: ServiceConfig::default(),
            supervisor: Policy::standard(),
            agents: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Reads the settings of a workspace; the defaults if it has no file.
    ///
    /// # Errors
    /// Code 78, naming file, line, key and what is allowed; 71 or 77 if the file cannot be read.
    pub fn load(workspace: &Workspace) -> Result<Self, Failure> {
        Self::read(&workspace.config_path())
    }

    /// Reads the settings that the daemon of a workspace has in force, which are the last ones that were good; those of the file
    /// where no daemon has said so.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn in_force(workspace: &Workspace) -> Result<Self, Failure> {
        match std::env::var_os(IN_FORCE).map(PathBuf::from) {
            Some(path) if path.starts_with(workspace.service_dir()) && path.is_file() => {
                Self::read(&path)
            }
            Some(_) | None => Self::load(workspace),
        }
    }

    /// Reads the settings of a workspace and keeps a copy of them, if they are good, for the handlers that are started under them.
    ///
    /// # Errors
    /// As [`Config::load`]; the copy is as it was then.
    pub fn put_in_force(workspace: &Workspace) -> Result<Self, Failure> {
        Self::put_in_force_and_compare(workspace).map(|(config, _)| config)
    }

    /// As [`Config::put_in_force`], and says whether others were in force before.
    ///
    /// # Errors
    /// As [`Config::put_in_force`].
    pub fn put_in_force_and_compare(workspace: &Workspace) -> Result<(Self, bool), Failure> {
        let path = workspace.config_path();
        let bytes = bytes_of(&path)?.unwrap_or_default();
        let config = Self::of_bytes(&bytes, &path)?;
        let in_force = workspace.config_in_force_path();
        let before = files::read_following(&in_force, LARGEST)?;
        let is_there = before.as_ref() == Some(&bytes);
        if !is_there {
            files::replace_atomically(&in_force, &bytes)?;
        }
        Ok((config, before.is_some() && !is_there))
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        match bytes_of(path)? {
            Some(bytes) => Self::of_bytes(&bytes, path),
            None => Ok(Self::default()),
        }
    }

    fn of_bytes(bytes: &[u8], path: &Path) -> Result<Self, Failure> {
        Self::parse(text_of(bytes, path)?, path)
    }

    /// Reads settings; `path` is what complaints name.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, Failure> {
        let source = Source { path, text };
        let root = source.root()?;
        let root = root.get_ref();
        let mut config = Self::default();
        for (name, section) in Section::of_each(source, root, "agents")? {
            let agent = read_agent(&name, section)?;
            config.agents.insert(name, agent);
        }
        if let Some(section) = Section::of(source, root, "service")? {
            config.read_service(section)?;
        }
        if let Some(section) = Section::of(source, root, "supervisor")? {
            config.supervisor = read_policy(section)?;
        }
        Ok(config)
    }

    /// Returns the names that `agent = …` may take.
    #[must_use]
    pub fn agent_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .agents
            .keys()
            .map(String::as_str)
            .chain(BUILT_IN)
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn read_service(&mut self, mut section: Section<'_>) -> Result<(), Failure> {
        let allowed = format!(
            "one of {}, or a command as a list of texts",
            self.agent_names().join(", ")
        );
        let agent = section.get("agent", &allowed, |value| match value.as_str() {
            Some(name) => self
                .agent_names()
                .contains(&name)
                .then(|| Ok(name.to_owned())),
            None => command_line(value).map(Err),
        })?;
        let service = &mut self.service;
        match agent {
            Some(Ok(name)) => service.agent = Some(name),
            Some(Err(command)) => service.agent_command = Some(command),
            None => {}
        }
        section.set(
            &mut service.max_turns,
            "max_turns",
            "\"auto\" or a number from 1 on",
            |value| match value.as_str() {
                Some("auto") => Some(MaxTurns::Auto),
                Some(_) => None,
                None => count(value).map(MaxTurns::Count),
            },
        )?;
        section.set(
            &mut service.idle_timeout,
            "idle_timeout",
            A_SPAN,
            setting::span,
        )?;
        section.set(
            &mut service.stall_ceiling,
            "stall_ceiling",
            A_SPAN,
            setting::span,
        )?;
        section.set(&mut service.stop_grace, "stop_grace", A_SPAN, setting::span)?;
        section.set(
            &mut service.max_starts,
            "max_starts",
            "a number from 1 on",
            count,
        )?;
        section.set(
            &mut service.memory_cap,
            "memory_cap",
            &format!(
                "\"auto\", \"off\" or {A_SIZE}, from 1MiB on; a number without a unit is bytes"
            ),
            |value| match value.as_str() {
                Some("auto") => Some(MemoryCap::Auto),
                Some("off") => Some(MemoryCap::Off),
                // No process fits into less, so every turn would be ended.
                Some(_) | None => setting::size(value)
                    .filter(|bytes| *bytes >= 1 << 20)
                    .map(MemoryCap::Bytes),
            },
        )?;
        section.set(
            &mut service.on_interrupted,
            "on_interrupted",
            "\"auto\", \"retry\" or \"fail\"",
            |value| match value.as_str()? {
                "auto" => Some(OnInterrupted::Auto),
                "retry" => Some(OnInterrupted::Retry),
                "fail" => Some(OnInterrupted::Fail),
                _ => None,
            },
        )?;
        section.set(
            &mut service.log_max_size,
            "log_max_size",
            &format!("{A_SIZE}, from 4KiB on"),
            |value| setting::size(value).filter(|bytes| *bytes >= 4096),
        )?;
        section.set(
            &mut service.log_keep,
            "log_keep",
            "a number from 0 to 1000",
            |value| setting::whole(value).filter(|keep| *keep <= 1000),
        )?;
        section.set(
            &mut service.history_max_size,
            "history_max_size",
            &format!("{A_SIZE}, from 4KiB on"),
            |value| setting::size(value).filter(|bytes| *bytes >= 4096),
        )?;
        section.set(
            &mut service.history_keep,
            "history_keep",
            "\"all\" or a number of files",
            |value| match value.as_str() {
                Some("all") => Some(Keep::All),
                Some(_) => None,
                None => setting::whole(value).map(Keep::Files),
            },
        )?;
        section.finish()
    }
}

/// Returns what a file of settings says.
pub(super) fn text_of<'b>(bytes: &'b [u8], path: &Path) -> Result<&'b str, Failure> {
    std::str::from_utf8(bytes).map_err(|error| {
        let text = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let source = Source { path, text: &text };
        source.failure(text.len(), "this is not UTF-8")
    })
}

/// A section that is nobody's, and very like one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slip {
    /// Where it stands, from 1.
    pub line: usize,
    /// What it is called.
    pub name: String,
    /// What was probably meant.
    pub meant: &'static str,
}

/// Reads a file of settings; `None` if there is none. A link to nothing is not none: it was meant to lead to some.
fn bytes_of(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let bytes = files::read_following(path, LARGEST)?;
    if bytes.is_none() && files::node_at(path).is_some() {
        let what = format!("`{}` is a link to nothing", path.display());
        return Err(Failure::new(ExitCode::Config, what)
            .with_cure("put the settings in its place, or remove it for the defaults"));
    }
    Ok(bytes)
}

/// Looks for sections that were probably meant to be ours.
///
/// # Errors
/// As [`Config::load`].
pub fn misspelt_sections(path: &Path) -> Result<Vec<Slip>, Failure> {
    /// Sections that the earlier tool has.
    const EARLIER: [&str; 1] = ["agent"];
    let bytes = bytes_of(path)?.unwrap_or_default();
    let source = Source {
        path,
        text: text_of(&bytes, path)?,
    };
    let root = source.root()?;
    let names = root.get_ref().iter().map(|(key, _)| key);
    let slips = names.filter_map(|key| {
        let name = key.get_ref().as_ref();
        let meant = SECTIONS
            .into_iter()
            .find(|ours| spelling::is_one_slip_from(name, ours))?;
        (!EARLIER.contains(&name)).then(|| Slip {
            line: source.line(key.span().start),
            name: name.to_owned(),
            meant,
        })
    });
    Ok(slips.collect())
}

fn count(value: &DeValue<'_>) -> Option<NonZeroU32> {
    setting::whole(value).and_then(NonZeroU32::new)
}

/// Reads the restart policy; its own rules are the supervisor's to check.
fn read_policy(mut section: Section<'_>) -> Result<Policy, Failure> {
    let mut policy = Policy::standard();
    for (place, key) in [
        (&mut policy.backoff_first, "backoff_first"),
        (&mut policy.backoff_cap, "backoff_cap"),
        (&mut policy.stable_after, "stable_after"),
        (&mut policy.crash_window, "crash_window"),
        (&mut policy.decay_every, "decay_every"),
        (&mut policy.clean_window, "clean_window"),
        (&mut policy.clean_pause, "clean_pause"),
        (&mut policy.memory_window, "memory_window"),
        (&mut policy.memory_pause, "memory_pause"),
        (&mut policy.contention_probe, "contention_probe"),
        (&mut policy.dependency_first, "dependency_first"),
        (&mut policy.dependency_cap, "dependency_cap"),
        (&mut policy.release_pause, "release_pause"),
    ] {
        section.set(place, key, A_SPAN, setting::span)?;
    }
    for (place, key) in [
        (&mut policy.crash_soft, "crash_soft"),
        (&mut policy.crash_hard, "crash_hard"),
        (&mut policy.clean_budget, "clean_budget"),
        (&mut policy.memory_budget, "memory_budget"),
    ] {
        section.set(place, key, "a number from 0 on", setting::whole)?;
    }
    section.set(
        &mut policy.jitter,
        "jitter",
        "a number from 0.0 to 0.5",
        setting::fraction,
    )?;
    section.set(
        &mut policy.contention_pauses,
        "contention_pauses",
        "a list of seconds, such as [10, 20, 40]",
        setting::spans,
    )?;
    section.set(
        &mut policy.unsafe_no_backoff,
        "unsafe_no_backoff",
        "true or false",
        setting::flag,
    )?;
    match policy.clone().validate() {
        Ok(_) => {}
        Err(error) => return Err(section.refuse_value(error.field, &error.value, error.allowed)),
    }
    section.finish()?;
    Ok(policy)
}

fn read_agent(name: &str, mut section: Section<'_>) -> Result<AgentConfig, Failure> {
    let command = section.get("command", A_COMMAND, command_line)?;
    if command.is_none() && !BUILT_IN.contains(&name) {
        return Err(section.refuse("command", A_COMMAND));
    }
    let protocol = section.get("protocol", "\"stdin\" or \"arg\"", |value| {
        Protocol::parse(value.as_str()?)
    })?;
    if protocol == Some(Protocol::Arg)
        && let Some(argv) = &command
        && !argv
            .iter()
            .any(|argument| argument.contains(crate::agent::PLACE))
    {
        return Err(section.refuse(
            "command",
            "under protocol \"arg\" a list with `{message}` in one of the arguments",
        ));
    }
    let env = section.get(
        "env",
        "a table of texts, such as { KEY = \"value\" }",
        |value| {
            let table = value.as_table()?;
            table
                .iter()
                .map(|(key, value)| {
                    let key = key.get_ref().to_string();
                    let value = setting::text(value.get_ref())?;
                    let writable =
                        !key.is_empty() && !key.contains(['=', '\0']) && !value.contains('\0');
                    writable.then_some((key, value))
                })
                .collect::<Option<BTreeMap<_, _>>>()
        },
    )?;
    let agent = AgentConfig {
        command,
        protocol,
        env: env.unwrap_or_default(),
        cwd: section.get("cwd", "a path", |value| {
            setting::text(value)
                .filter(|path| !path.is_empty() && !path.contains('\0'))
                .map(PathBuf::from)
        })?,
        stop_signals: section.get(
            "stop_signals",
            "a list of: HUP, INT, QUIT, TERM, KILL, USR1, USR2",
            |value| {
                value
                    .as_array()?
                    .iter()
                    .map(|item| setting::parse_signal(item.get_ref().as_str()?))
                    .collect()
            },
        )?,
        stall_ceiling: section.get("stall_ceiling", A_SPAN, setting::span)?,
        exclusive: section.get("exclusive", "\"dir\" or \"none\"", |value| {
            match value.as_str()? {
                "dir" => Some(Exclusive::Dir),
                "none" => Some(Exclusive::None),
                _ => None,
            }
        })?,
        leave_children: section.get("leave_children", "true or false", setting::flag)?,
    };
    section.finish()?;
    Ok(agent)
}

/// Reads a program and its arguments.
fn command_line(value: &DeValue<'_>) -> Option<Vec<String>> {
    let argv = setting::texts(value)?;
    let runnable =
        !argv.first()?.is_empty() && argv.iter().all(|argument| !argument.contains('\0'));
    runnable.then_some(argv)
}
