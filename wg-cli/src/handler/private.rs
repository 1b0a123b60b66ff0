//! A handler that serves no chat: a person's private session, one message on the command line, or `--eval-mode`.
//!
//! There is no inbox here. A message comes from the command line or from stdin, and the reply goes to stdout as it grows.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use session_lock::{Kind, SessionLock};

use crate::agent::AgentSpec;
use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, with_causes};
use crate::store::Workspace;
use crate::store::config::Config;
use crate::store::messages::{self, Durability, NewMessage, Role, Side};

use super::claim::{self, Wanted, WhenHeld};
use super::core::{EndTurn, NoReply, TurnEnd};
use super::ears::{Ears, Heard};
use super::lines::{self, Lines};
use super::mark::{self, Mark};
use super::turn::{self, Listener, Report, Turn};
use super::wording::{self, Trouble};
use super::{evaluation, exempt, process, settings, tree, verdict};

/// What a handler without a chat was asked to do.
pub(crate) struct Call {
    pub(crate) workspace: Workspace,
    /// What it writes into its lock; without one it takes none.
    pub(crate) kind: Option<Kind>,
    pub(crate) eval_mode: bool,
    pub(crate) message: Option<String>,
    pub(crate) agent: Option<String>,
    pub(crate) at_terminal: bool,
}

/// Answers what it is asked and returns the code to exit with.
pub(crate) fn run(call: Call) -> Result<ExitCode, Failure> {
    let config = Config::load(&call.workspace)?;
    let agent = match call.agent {
        Some(name) => AgentSpec::named(&config, &name)?,
        None => AgentSpec::of_workspace(&config)?,
    };
    let name = format!("session-{}-{}", clock::now().millis(), std::process::id());
    let mark = Mark::of_this_process(&call.workspace, &name);
    // The person's Ctrl-C must reach a process that reads from a terminal, so it stays in the terminal's session.
    process::become_handler(call.at_terminal);
    let mut ears = Ears::open().map_err(|error| {
        Failure::new(ExitCode::System, "failed to listen for signals").caused_by(error)
    })?;
    let session = match &call.kind {
        Some(kind) => Some(Session::open(
            &call.workspace,
            &name,
            kind,
            &mark,
            &mut ears,
        )?),
        None => None,
    };
    let mut conversation = Conversation {
        agent,
        variables: vec![
            ("WG_DIR", call.workspace.root().as_os_str().to_owned()),
            (mark::VARIABLE, OsString::from(mark.value())),
        ],
        workspace: call.workspace,
        grace: config.service.stop_grace,
        memory_cap: settings::memory_cap(config.service.memory_cap),
        ears,
        session,
    };
    let outcome = match (call.message, call.eval_mode) {
        (message, true) => conversation.evaluate(message),
        (Some(message), false) => conversation.say(&message).map(code),
        (None, false) => conversation.lines(call.at_terminal),
    };
    if let Some(session) = conversation.session {
        session.close();
    }
    outcome
}

/// The directory of a private session, under its lock.
struct Session {
    path: PathBuf,
    lock: SessionLock,
    spoke: bool,
}

impl Session {
    fn open(
        workspace: &Workspace,
        name: &str,
        kind: &Kind,
        mark: &Mark,
        ears: &mut Ears,
    ) -> Result<Self, Failure> {
        let path = workspace.chat_root().join(name);
        std::fs::create_dir_all(&path).map_err(|error| {
            Failure::new(
                ExitCode::System,
                format!("failed to make {}", path.display()),
            )
            .caused_by(error)
        })?;
        let wanted = Wanted {
            session: &path,
            chat: name,
            marker: &mark.prefix,
            kind,
            exempt: &|| exempt::holders(workspace, &path),
        };
        let lock = claim::claim(&wanted, WhenHeld::Leave, ears)?;
        Ok(Self {
            path,
            lock,
            spoke: false,
        })
    }

    fn record(&mut self, side: Side, message: NewMessage) -> Option<u64> {
        self.spoke = true;
        match messages::append(&self.path, side, message, Durability::NoSync) {
            Ok(id) => Some(id),
            Err(error) => {
                log::warn!(
                    "the history of this session has a gap: {}",
                    with_causes(&error)
                );
                None
            }
        }
    }

    /// Frees the session; one in which nothing was said leaves no trace.
    fn close(self) {
        if let Err(error) = self.lock.release() {
            log::warn!("the session lock was not released in order: {error}");
        }
        if !self.spoke
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            log::debug!("an empty session stays behind: {error}");
        }
    }
}

struct Conversation {
    workspace: Workspace,
    agent: AgentSpec,
    variables: Vec<(&'static str, OsString)>,
    grace: Duration,
    memory_cap: Option<u64>,
    ears: Ears,
    session: Option<Session>,
}

impl Conversation {
    /// Runs one turn, showing the reply as it comes.
    fn turn(&mut self, message: &str, on_output: &mut dyn FnMut(&[u8])) -> (TurnEnd, Report) {
        let mut variables = self.variables.clone();
        variables.push(("WG_REQUEST_ID", OsString::from(mark::random_nonce())));
        let own = self
            .session
            .as_ref()
            .map_or(Path::new(""), |session| &session.path);
        let lock = self.session.as_ref().map(|session| &session.lock);
        let lend = lock.filter(|_| !self.agent.leave_children);
        let turn = Turn {
            agent: &self.agent,
            cwd: &settings::working_directory(&self.workspace, &self.agent),
            message,
            variables: &variables,
            memory_cap: self.memory_cap,
            grace: self.grace,
            errors: None,
            exempt: &|| exempt::holders(&self.workspace, own),
            spawn: &mut |command| match lend {
                Some(lock) => lock.spawn_lent(command),
                None => command.spawn(),
            },
        };
        let mut listener = PrivateListener {
            ears: &mut self.ears,
            stopped: false,
        };
        let report = turn::run(turn, &mut listener, on_output);
        let (end, _) = verdict::judge(&report, verdict::is_wrapper(&self.agent.program));
        (end, report)
    }

    /// Answers one message on stdout.
    fn say(&mut self, message: &str) -> Result<TurnEnd, Failure> {
        let asked = self.record(Side::Inbox, Role::User, message, None);
        let mut written = Ok(());
        let mut last = None;
        let (end, report) = self.turn(message, &mut |bytes| {
            last = bytes.last().copied().or(last);
            if written.is_ok() {
                written = io::stdout()
                    .write_all(bytes)
                    .and_then(|()| io::stdout().flush());
            }
        });
        if written.is_ok() && last.is_some_and(|byte| byte != b'\n') {
            written = writeln!(io::stdout());
        }
        if end == TurnEnd::Replied {
            self.record(Side::Outbox, Role::Coordinator, &report.text, asked);
        } else {
            let text = self.trouble(end, &report);
            self.record(Side::Outbox, Role::SystemError, &text, asked);
            if let Err(error) = writeln!(io::stderr(), "{text}") {
                log::debug!("nobody reads stderr: {error}");
            }
        }
        match written {
            // Whoever read the replies has gone; there is nobody left to answer.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Ok(TurnEnd::CutShort { shown_output: true })
            }
            Err(error) => {
                Err(Failure::new(ExitCode::System, "failed to write the reply").caused_by(error))
            }
            Ok(()) => Ok(end),
        }
    }

    fn record(
        &mut self,
        side: Side,
        role: Role,
        text: &str,
        in_reply_to: Option<u64>,
    ) -> Option<u64> {
        let mut message = NewMessage::new(role, text);
        message.in_reply_to = in_reply_to;
        self.session
            .as_mut()
            .and_then(|session| session.record(side, message))
    }

    fn trouble(&self, end: TurnEnd, report: &Report) -> String {
        let reason = match end {
            TurnEnd::FailedForGood => NoReply::FailedForGood,
            TurnEnd::Interrupted => NoReply::Interrupted,
            TurnEnd::OverMemoryCap => NoReply::OverMemoryCap,
            TurnEnd::NotBegun | TurnEnd::CutShort { .. } => NoReply::CutShort,
            TurnEnd::Failed | TurnEnd::Unavailable | TurnEnd::NoResources | TurnEnd::Replied => {
                NoReply::Failed
            }
        };
        // What it had said is on stdout already.
        wording::system_error(&Trouble {
            agent: &self.agent.name,
            retry: None,
            reason,
            report: Some(report),
            partial: "",
        })
    }

    /// Answers one message with one JSON line.
    fn evaluate(&mut self, message: Option<String>) -> Result<ExitCode, Failure> {
        let message = message.map_or_else(all_of_stdin, Ok)?;
        let (end, report) = self.turn(&message, &mut |_| {});
        let replied = end == TurnEnd::Replied;
        let content = if replied {
            report.text.clone()
        } else {
            self.trouble(end, &report)
        };
        writeln!(
            io::stdout(),
            "{}",
            evaluation::line(replied, &content, Some(&report))
        )
        .map_err(|error| {
            Failure::new(ExitCode::System, "failed to write the reply").caused_by(error)
        })?;
        Ok(code(end))
    }

    /// Answers each line of stdin until its end.
    fn lines(&mut self, at_terminal: bool) -> Result<ExitCode, Failure> {
        let mut lines = Lines::default();
        let mut worst = ExitCode::Ok;
        loop {
            if at_terminal && let Err(error) = write!(io::stderr(), "> ") {
                log::debug!("nobody reads stderr: {error}");
            }
            let Some(line) = next_line(&mut lines, &mut self.ears)? else {
                return Ok(worst);
            };
            if line.trim().is_empty() {
                continue;
            }
            match self.say(&line)? {
                TurnEnd::CutShort { .. } => return Ok(ExitCode::Released),
                TurnEnd::Replied | TurnEnd::Interrupted | TurnEnd::NotBegun => {}
                end @ (TurnEnd::Failed
                | TurnEnd::OverMemoryCap
                | TurnEnd::FailedForGood
                | TurnEnd::Unavailable
                | TurnEnd::NoResources) => {
                    // A person has read it and tries something else; a script is told at the end.
                    worst = if at_terminal { ExitCode::Ok } else { code(end) };
                }
            }
        }
    }
}

fn all_of_stdin() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).map_err(|error| {
        Failure::new(ExitCode::System, "failed to read the message").caused_by(error)
    })?;
    Ok(lines::text(bytes))
}

/// Returns the code that tells a caller what became of its one message.
fn code(end: TurnEnd) -> ExitCode {
    match end {
        TurnEnd::Replied => ExitCode::Ok,
        TurnEnd::Failed | TurnEnd::Interrupted => ExitCode::Failed,
        TurnEnd::OverMemoryCap => ExitCode::MemoryDrain,
        TurnEnd::FailedForGood => ExitCode::Config,
        TurnEnd::Unavailable => ExitCode::Unavailable,
        TurnEnd::NoResources => ExitCode::System,
        TurnEnd::NotBegun | TurnEnd::CutShort { .. } => ExitCode::Released,
    }
}

/// Returns the next line of stdin, or `None` at the end of input and when this process is to leave.
fn next_line(lines: &mut Lines, ears: &mut Ears) -> Result<Option<String>, Failure> {
    loop {
        if let Some(line) = lines.take() {
            return Ok(Some(line));
        }
        if lines.is_at_end() {
            return Ok(None);
        }
        let failed = |errno: Errno| {
            Failure::new(ExitCode::System, "failed to wait for input")
                .caused_by(io::Error::from(errno))
        };
        if wait_for_input(ears).map_err(failed)? {
            lines.read()?;
        }
        for heard in ears.listen() {
            match heard {
                Heard::Stop | Heard::Interrupt => return Ok(None),
                Heard::Child => tree::reap_strays(None),
            }
        }
    }
}

/// Waits for input or a signal; returns whether there is input.
fn wait_for_input(ears: &Ears) -> Result<bool, Errno> {
    let stdin = io::stdin();
    let mut fds = vec![PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
    fds.extend(
        ears.fds()
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
    );
    match poll(&mut fds, None) {
        Ok(_) => Ok(fds.first().is_some_and(|fd| !fd.revents().is_empty())),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// In a private session Ctrl-C ends the turn and a stop ends everything.
struct PrivateListener<'a> {
    ears: &'a mut Ears,
    stopped: bool,
}

impl Listener for PrivateListener<'_> {
    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.ears.fds().collect()
    }

    fn heard(&mut self) -> Vec<EndTurn> {
        let mut ends = Vec::new();
        for heard in self.ears.listen() {
            match heard {
                Heard::Interrupt => ends.push(EndTurn::Interrupt),
                Heard::Stop if self.stopped => ends.push(EndTurn::Hurry),
                Heard::Stop => {
                    self.stopped = true;
                    ends.push(EndTurn::Stop);
                }
                Heard::Child => {}
            }
        }
        ends
    }

    fn progressed(&mut self, _now: Instant) {}

    fn wake_at(&self) -> Option<Instant> {
        None
    }

    fn tick(&mut self, _now: Instant) {}
}
