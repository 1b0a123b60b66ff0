//! The handler of a chat: takes the session, answers its messages one after the other, and leaves.
//!
//! The driver of [`super::core`]: it looks, asks, does, and decides nothing itself.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use session_lock::{Kind, SessionLock, Standing};

use crate::agent::AgentSpec;
use crate::clock::{self, Timestamp};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::presence;
use crate::store::chat_state::ChatRecord;
use crate::store::config::Config;
use crate::store::graph::{ChatId, ChatTask, Graph};
use crate::store::messages::{self, Message, NewMessage, Role, Side, TurnInfo};
use crate::store::watch::{DirWatch, Woke};
use crate::store::{Workspace, resolve};

use super::attempt::{self, Attempt, STREAMING};
use super::claim::{self, Wanted, WhenHeld};
use super::core::{
    Answer, Core, EndTurn, Event, IdleInterrupt, NoReply, Patience, Pending, Rules, Sight, Step,
    Wish,
};
use super::ears::{Ears, Heard};
use super::exit_note::ExitNote;
use super::mark::{self, Mark};
use super::output::{BoundedLog, StreamFile};
use super::turn::{self, Listener, Report, Turn};
use super::wording::{self, Trouble};
use super::{evaluation, exempt, process, settings, tree, verdict};

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
    note.close(&outcome, ledger.agent_ending);
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
struct Ledger {
    /// How the last agent ended.
    agent_ending: Option<String>,
    /// The message whose reply is printed (`--eval-mode`).
    evaluating: Option<u64>,
    /// The line to print.
    evaluated: Option<String>,
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
    let graph = Graph::load(workspace)?.graph;
    let task = graph.chat(call.chat);
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
    let config = Config::load(workspace)?;
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
    let patience = if call.autonomous {
        Patience::UntilDrained
    } else {
        Patience::Idle(config.service.idle_timeout)
    };
    let at_prompt = call.at_terminal && !mark::is_under_daemon();
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
        watch: DirWatch::new(&session)?,
        errors_max: config.service.log_max_size,
        grace: config.service.stop_grace,
        memory_cap: settings::memory_cap(config.service.memory_cap),
        cwd: settings::working_directory(workspace, &agent),
        session,
        lock,
        ears,
        agent,
        variables: variables(workspace, chat, mark),
        core: Core::new(rules, clock::steady()),
        over_memory_cap: false,
        ledger,
    }
    .run()
}

/// Returns what stands against a handler of this chat.
fn wish_against(record: &ChatRecord, task: Option<&ChatTask>) -> Option<Wish> {
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

/// A handler that has its session and knows its agent.
struct Handler<'a> {
    workspace: &'a Workspace,
    id: ChatId,
    chat: &'a str,
    session: PathBuf,
    watch: DirWatch,
    lock: &'a mut SessionLock,
    ears: Ears,
    agent: AgentSpec,
    variables: Vec<(&'static str, OsString)>,
    errors_max: u64,
    grace: std::time::Duration,
    memory_cap: Option<u64>,
    cwd: PathBuf,
    core: Core,
    over_memory_cap: bool,
    ledger: &'a mut Ledger,
}

impl Handler<'_> {
    fn run(&mut self) -> Result<ExitCode, Failure> {
        let mut step = Step::Look;
        loop {
            step = match step {
                Step::Look => self.look()?,
                Step::Wait => {
                    self.wait()?;
                    Step::Look
                }
                Step::Begin { message, attempt } => self.turn(message, attempt)?,
                Step::Settle {
                    message,
                    answer,
                    then,
                } => {
                    // Only a message whose turn an earlier handler began is settled without a turn of ours.
                    let question = self.find(message)?;
                    self.settle(&question, answer, None)?;
                    then.into()
                }
                Step::Leave(code) => return Ok(code),
                // Only a turn hears this, and it has ended when this loop runs.
                Step::EndTurn(_) => Step::Look,
            };
        }
    }

    /// Takes in what was asked, looks at the session, and lets the core decide.
    fn look(&mut self) -> Result<Step, Failure> {
        for heard in self.ears.listen() {
            let event = match heard {
                Heard::Stop => Event::StopAsked,
                Heard::Interrupt => Event::InterruptAsked,
                Heard::Child => {
                    tree::reap_strays(None);
                    continue;
                }
            };
            if let step @ Step::Leave(_) = self.core.handle(event, clock::steady()) {
                return Ok(step);
            }
        }
        if self.lock.is_release_requested() {
            return Ok(self.core.handle(Event::ReleaseAsked, clock::steady()));
        }
        let sight = self.sight()?;
        Ok(self.core.handle(Event::Looked(sight), clock::steady()))
    }

    fn sight(&mut self) -> Result<Sight, Failure> {
        let next = match messages::unanswered(&self.session)?.first() {
            Some(message) => {
                let earlier =
                    attempt::read(&self.session).filter(|attempt| attempt.message == message.id);
                Some(Pending {
                    message: message.id,
                    attempts: earlier.as_ref().map_or(0, |attempt| attempt.attempt),
                    shown_output: earlier.is_some() && attempt::had_shown_output(&self.session),
                })
            }
            None => None,
        };
        Ok(Sight {
            wish: wish_against(&ChatRecord::load(self.workspace, self.id)?, None),
            next,
            consumer_present: presence::count(&self.session) > 0,
            over_memory_cap: self.over_memory_cap,
            lock_lost: self.is_lock_lost(),
        })
    }

    fn is_lock_lost(&mut self) -> bool {
        match self.lock.verify() {
            Ok(Standing::Lost { by }) => {
                log::error!("the session lock is lost to {by:?}");
                true
            }
            Ok(_) => false,
            Err(error) => {
                // Nothing proves that it is lost, and the kernel still holds the guard for us.
                log::warn!("the session lock could not be verified: {error}");
                false
            }
        }
    }

    fn wait(&mut self) -> Result<(), Failure> {
        let fds: Vec<BorrowedFd<'_>> = self.ears.fds().collect();
        let failed =
            |error| Failure::new(ExitCode::System, "failed to wait for a message").caused_by(error);
        match self
            .watch
            .wait(self.core.deadline(), &fds)
            .map_err(failed)?
        {
            Woke::Changed | Woke::Ready(_) | Woke::Deadline => Ok(()),
        }
    }

    fn find(&self, id: u64) -> Result<Message, Failure> {
        let found = messages::unanswered(&self.session)?
            .into_iter()
            .find(|message| message.id == id);
        found.ok_or_else(|| {
            Failure::new(
                ExitCode::System,
                format!("message {id} of {} disappeared from the inbox", self.chat),
            )
        })
    }

    /// Runs one turn and settles it.
    fn turn(&mut self, id: u64, attempt: u32) -> Result<Step, Failure> {
        let question = self.find(id)?;
        let streaming = self.session.join(STREAMING);
        let failed =
            |error| Failure::new(ExitCode::System, "failed to begin the reply").caused_by(error);
        // Emptied before the attempt is written down: what is in the file later belongs to this attempt.
        let mut stream = StreamFile::begin(&streaming).map_err(failed)?;
        let started_at = clock::now();
        attempt::write(
            &self.session,
            &Attempt {
                message: id,
                attempt,
                started_at,
                pid: std::process::id(),
            },
        )?;

        let mut variables = self.variables.clone();
        variables.push(("WG_REQUEST_ID", OsString::from(&question.request_id)));
        let lock = &*self.lock;
        let leave_children = self.agent.leave_children;
        let turn = Turn {
            agent: &self.agent,
            cwd: &self.cwd,
            message: &question.content,
            variables: &variables,
            grace: self.grace,
            errors: Some(BoundedLog::new(
                self.session.join("agent-stderr.log"),
                self.errors_max,
            )),
            exempt: &|| exempt::holders(self.workspace, &self.session),
            // A child that may outlive its turn must not keep the session with it.
            spawn: &mut |command| {
                if leave_children {
                    command.spawn()
                } else {
                    lock.spawn_lent(command)
                }
            },
        };
        let mut listener = ChatListener {
            ears: &mut self.ears,
            core: &mut self.core,
        };
        let report = turn::run(turn, &mut listener, &mut |bytes| stream.push(bytes));

        let (end, verdict) = verdict::judge(&report, verdict::is_wrapper(&self.agent.program));
        log::info!(
            "turn for message {id}, attempt {attempt}: {} ({})",
            verdict.cause,
            report.ending
        );
        self.ledger.agent_ending = Some(report.ending.to_string());
        self.note_memory(&report);
        if !report.survivors.is_empty() {
            log::error!(
                "processes of the agent could not be ended: {:?}",
                report.survivors
            );
        }
        let step = self.core.handle(Event::TurnEnded(end), clock::steady());
        let Step::Settle { answer, then, .. } = step else {
            return Ok(step);
        };
        self.settle(
            &question,
            answer,
            Some(&Ran {
                report: &report,
                started_at,
                attempt,
            }),
        )?;
        Ok(then.into())
    }

    fn note_memory(&mut self, report: &Report) {
        if let (Some(peak), Some(cap)) = (report.peak_memory, self.memory_cap)
            && peak > cap
        {
            log::warn!(
                "the agent used {peak} bytes, over the cap of {cap}; leaving at this turn boundary"
            );
            self.over_memory_cap = true;
        }
    }

    /// Writes what came of a message; only then do the cursors move.
    fn settle(
        &mut self,
        question: &Message,
        answer: Answer,
        ran: Option<&Ran<'_>>,
    ) -> Result<(), Failure> {
        let (role, content) = match (answer, ran) {
            (Answer::TakeAgain, _) => return Ok(()),
            (Answer::Unread, _) => {
                attempt::clear(&self.session);
                self.clear_streaming();
                return Ok(());
            }
            (Answer::Reply, Some(ran)) => (Role::Coordinator, ran.report.text.clone()),
            (Answer::Reply, None) => (Role::Coordinator, String::new()),
            (Answer::SystemError(reason), ran) => {
                (Role::SystemError, self.trouble(question, reason, ran))
            }
        };
        let line = self.ledger.evaluating.filter(|id| *id == question.id);
        let line = line.map(|_| {
            evaluation::line(
                role == Role::Coordinator,
                &content,
                ran.map(|ran| ran.report),
            )
        });
        messages::append(
            &self.session,
            Side::Outbox,
            NewMessage {
                role,
                content,
                request_id: Some(question.request_id.clone()),
                user: None,
                in_reply_to: Some(question.id),
                retry_of: None,
                turn: Some(self.turn_info(ran)),
                extra: serde_json::Map::new(),
            },
            messages::Durability::Sync,
        )?;
        messages::advance_handler_cursors(&self.session, question.id)?;
        attempt::clear(&self.session);
        self.clear_streaming();
        if line.is_some() {
            self.ledger.evaluated = line;
        }
        Ok(())
    }

    fn trouble(&self, question: &Message, reason: NoReply, ran: Option<&Ran<'_>>) -> String {
        let partial = match ran {
            Some(ran) => ran.report.text.clone(),
            None => std::fs::read(self.session.join(STREAMING))
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or_default(),
        };
        let retry = format!("wg chat retry {} {}", self.chat, question.id);
        wording::system_error(&Trouble {
            agent: &self.agent.name,
            retry: Some(&retry),
            reason,
            report: ran.map(|ran| ran.report),
            partial: &partial,
        })
    }

    fn turn_info(&self, ran: Option<&Ran<'_>>) -> TurnInfo {
        let now = clock::now();
        if let Some(ran) = ran {
            return TurnInfo {
                started_at: ran.started_at,
                ended_at: now,
                exit: Some(ran.report.ending.to_string()),
                attempt: ran.attempt,
                ended_children: Some(ran.report.ended_children).filter(|count| *count > 0),
            };
        }
        let earlier = attempt::read(&self.session);
        TurnInfo {
            started_at: earlier.as_ref().map_or(now, |attempt| attempt.started_at),
            ended_at: now,
            exit: None,
            attempt: earlier.map_or(0, |attempt| attempt.attempt),
            ended_children: None,
        }
    }

    fn clear_streaming(&self) {
        if let Err(error) = std::fs::remove_file(self.session.join(STREAMING))
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!("the growing reply of an ended turn stays behind: {error}");
        }
    }
}

/// A turn of this handler that has ended.
struct Ran<'a> {
    report: &'a Report,
    started_at: Timestamp,
    attempt: u32,
}

/// Hears on behalf of a turn, and lets the core say what it means.
struct ChatListener<'a> {
    ears: &'a mut Ears,
    core: &'a mut Core,
}

impl Listener for ChatListener<'_> {
    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.ears.fds().collect()
    }

    fn heard(&mut self) -> Vec<EndTurn> {
        let mut ends = Vec::new();
        for heard in self.ears.listen() {
            let event = match heard {
                Heard::Stop => Event::StopAsked,
                Heard::Interrupt => Event::InterruptAsked,
                // The turn itself sees what has ended.
                Heard::Child => continue,
            };
            if let Step::EndTurn(end) = self.core.handle(event, clock::steady()) {
                ends.push(end);
            }
        }
        ends
    }
}
