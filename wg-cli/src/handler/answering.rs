//! One message, from the admission of its turn to its line in the outbox.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::clock::{self, Timestamp};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, with_causes};
use crate::store::StoreError;
use crate::store::attempt::{self, Attempt, STREAMING};
use crate::store::exit_record::MemoryEnd;
use crate::store::files;
use crate::store::messages::{self, Message, NewMessage, Role, Side, TurnInfo};

use super::admission::Admission;
use super::core::{Answer, Core, EndTurn, Event, NoReply, Step, TurnEnd};
use super::drive::Handler;
use super::ears::{Ears, Heard};
use super::gate::{Gate, Word};
use super::output::{BoundedLog, StreamFile};
use super::tree;
use super::turn::{self, Listener, Report, Turn};
use super::wording::{self, Trouble};
use super::{evaluation, exempt, verdict};

/// How often somebody who waits for the file of the replies looks whether it was told to stop.
const LOOKS_UP: Duration = Duration::from_secs(2);

/// A turn of this handler that has ended.
pub(super) struct Ran<'a> {
    report: &'a Report,
    started_at: Timestamp,
    attempt: u32,
}

impl Handler<'_> {
    /// Runs one turn and settles it.
    pub(super) fn turn(&mut self, id: u64, attempt: u32) -> Result<Step, Failure> {
        let question = self.find(id)?;
        // Held to the end of this function: the turn is over when its answer is on disk.
        let _directory = match self.admit(id)? {
            Admission::Admitted(directory) => directory,
            Admission::Instead(end) => return self.ended(&question, end, None),
        };
        let failed =
            |error| Failure::new(ExitCode::System, "failed to begin the reply").caused_by(error);
        // Emptied before the attempt is written down: what is in the file later belongs to this attempt.
        let mut stream = StreamFile::begin(&self.session.join(STREAMING)).map_err(failed)?;
        let started_at = clock::now();
        attempt::write(
            &self.session,
            &Attempt {
                message: id,
                formerly: None,
                attempt,
                started_at,
                pid: std::process::id(),
            },
        )?;

        let report = self.ask_agent(&question, started_at, &mut stream);
        let (end, verdict) = verdict::judge(&report, verdict::is_wrapper(&self.agent.program));
        log::info!(
            "turn for message {id}, attempt {attempt}: {} ({})",
            verdict.cause,
            report.ending
        );
        if end == TurnEnd::NoResources {
            // The last words of this handler, which leaves over it: `wg why` shows them.
            let why = report
                .not_started
                .as_deref()
                .unwrap_or("no reason is known");
            log::error!(
                "the agent `{}` could not be started: {why}",
                self.agent.name
            );
        }
        self.ledger.agent_ending = Some(match &report.not_started {
            Some(why) => why.clone(),
            None => report.ending.to_string(),
        });
        self.note_memory(&report);
        if !report.survivors.is_empty() {
            log::error!(
                "processes of the agent could not be ended: {:?}",
                report.survivors
            );
        }
        let step = self.ended(
            &question,
            end,
            Some(&Ran {
                report: &report,
                started_at,
                attempt,
            }),
        );
        self.gate.end(id);
        step
    }

    /// Tells the core how the turn ended, and does what it says.
    fn ended(
        &mut self,
        question: &Message,
        end: TurnEnd,
        ran: Option<&Ran<'_>>,
    ) -> Result<Step, Failure> {
        match self.core.handle(Event::TurnEnded(end), clock::steady()) {
            Step::Settle { answer, then, .. } => {
                self.settle(question, answer, ran)?;
                Ok(then.into())
            }
            step @ (Step::Look
            | Step::Begin { .. }
            | Step::EndTurn(_)
            | Step::Wait
            | Step::Leave(_)) => Ok(step),
        }
    }

    fn ask_agent(
        &mut self,
        question: &Message,
        started_at: Timestamp,
        stream: &mut StreamFile,
    ) -> Report {
        let mut variables = self.variables.clone();
        variables.push(("WG_REQUEST_ID", OsString::from(&question.request_id)));
        let lock = &*self.lock;
        let leave_children = self.agent.leave_children;
        let turn = Turn {
            agent: &self.agent,
            cwd: &self.cwd,
            message: &question.content,
            variables: &variables,
            memory_cap: self.memory_cap,
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
        self.gate.look_out(clock::steady());
        let mut listener = ChatListener {
            ears: &mut self.ears,
            core: &mut self.core,
            gate: &mut self.gate,
            message: question.id,
            started_at,
        };
        turn::run(turn, &mut listener, &mut |bytes| stream.push(bytes))
    }

    fn note_memory(&mut self, report: &Report) {
        if let (Some(peak), Some(cap)) = (report.peak_memory, self.memory_cap)
            && peak > cap
        {
            log::warn!(
                "the agent had {}, over the cap of {}; leaving at this turn boundary",
                wording::mebibytes(peak),
                wording::mebibytes(cap)
            );
            self.over_memory_cap = true;
            self.ledger.memory = Some(MemoryEnd { peak, cap });
        }
    }

    /// Writes what came of a message; only then do the cursors move.
    pub(super) fn settle(
        &mut self,
        question: &Message,
        answer: Answer,
        ran: Option<&Ran<'_>>,
    ) -> Result<(), Failure> {
        let (role, content) = match (answer, ran) {
            (Answer::Stay, _) => return Ok(()),
            (Answer::Unread { attempts }, _) => return self.put_back(question, attempts),
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
        let shown = self.prompt.is_some().then(|| content.clone());
        self.append(&NewMessage {
            role,
            content,
            request_id: Some(question.request_id.clone()),
            user: None,
            in_reply_to: Some(question.id),
            retry_of: None,
            turn: Some(self.turn_info(ran)),
            extra: serde_json::Map::new(),
        })?;
        match messages::advance_past(&self.session, question) {
            // They only spare the readers the beginning of the file, and the next reply moves them on.
            Err(busy @ StoreError::Busy { .. }) => log::warn!("the cursors stay behind: {busy}"),
            moved => moved?,
        }
        attempt::clear(&self.session);
        attempt::clear_streaming(&self.session);
        self.rotate_history();
        if let (Some(prompt), Some(content)) = (&self.prompt, shown) {
            prompt.show(&content);
        }
        if line.is_some() {
            self.ledger.evaluated = line;
        }
        Ok(())
    }

    /// Appends a reply, however long another process has the file: what an agent did must not be done again. Only a stop ends the wait.
    fn append(&mut self, reply: &NewMessage) -> Result<(), Failure> {
        let mut told = false;
        loop {
            let written = messages::append_within(
                &self.session,
                Side::Outbox,
                reply.clone(),
                messages::Durability::Sync,
                LOOKS_UP,
            );
            let busy = match written {
                Err(busy @ StoreError::Busy { .. }) => busy,
                written => return Ok(written.map(drop)?),
            };
            if !std::mem::replace(&mut told, true) {
                log::warn!("the reply waits to be written: {busy}");
            }
            for heard in self.ears.listen() {
                match heard {
                    Heard::Stop => return Err(busy.into()),
                    Heard::Child => tree::reap_strays(None),
                    // The turn is over.
                    Heard::Interrupt => {}
                }
            }
        }
    }

    /// Makes the message look as if this turn had not been begun.
    fn put_back(&self, question: &Message, attempts: u32) -> Result<(), Failure> {
        attempt::clear_streaming(&self.session);
        match attempt::read(&self.session) {
            Some(earlier) if attempts > 0 && earlier.is_of(question.id) => attempt::write(
                &self.session,
                &Attempt {
                    attempt: attempts,
                    ..earlier
                },
            )?,
            Some(_) | None => attempt::clear(&self.session),
        }
        Ok(())
    }

    fn trouble(&self, question: &Message, reason: NoReply, ran: Option<&Ran<'_>>) -> String {
        let partial = match ran {
            Some(ran) => ran.report.text.clone(),
            None => files::read(&self.session.join(STREAMING))
                .ok()
                .flatten()
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

    /// Keeps the files that are read short. Only the handler does this, because only it knows what is done with.
    fn rotate_history(&self) {
        let (max, keep) = self.history;
        match messages::rotate_history(&self.session, max, keep) {
            Ok(false) => {}
            Ok(true) => log::info!("earlier messages of {} moved to its archive", self.chat),
            // The message is answered all the same, and the next one tries again.
            Err(error) => log::warn!(
                "earlier messages stay where they are: {}",
                with_causes(&error)
            ),
        }
    }
}

/// Hears on behalf of a turn, and lets the core say what it means.
struct ChatListener<'a> {
    ears: &'a mut Ears,
    core: &'a mut Core,
    gate: &'a mut Gate,
    message: u64,
    started_at: Timestamp,
}

impl Listener for ChatListener<'_> {
    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.ears.fds().chain(self.gate.fd()).collect()
    }

    fn heard(&mut self) -> Vec<EndTurn> {
        let mut events: Vec<Event> = Vec::new();
        events.extend(
            self.ears
                .listen()
                .into_iter()
                .filter_map(|heard| match heard {
                    Heard::Stop => Some(Event::StopAsked),
                    Heard::Interrupt => Some(Event::InterruptAsked),
                    // The turn itself sees what has ended.
                    Heard::Child => None,
                }),
        );
        events.extend(self.gate.hear().into_iter().filter_map(|word| match word {
            Word::Cancelled(message) if message == self.message => Some(Event::InterruptAsked),
            Word::Cancelled(_)
            | Word::Queued { .. }
            | Word::Refused(_)
            | Word::Granted(_)
            | Word::Listening
            | Word::NotListening
            | Word::Wake
            | Word::Gone => None,
        }));
        let now = clock::steady();
        let steps = events.into_iter().map(|event| self.core.handle(event, now));
        steps
            .filter_map(|step| match step {
                Step::EndTurn(end) => Some(end),
                Step::Look
                | Step::Begin { .. }
                | Step::Settle { .. }
                | Step::Wait
                | Step::Leave(_) => None,
            })
            .collect()
    }

    fn progressed(&mut self, now: Instant) {
        self.gate.progress(self.message, now);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.gate.retry_at()
    }

    fn tick(&mut self, now: Instant) {
        self.gate.resume(self.message, self.started_at, now);
    }
}
