//! The loop of a handler: it looks, asks the core, does what it says, and decides nothing itself.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use session_lock::{SessionLock, Standing};

use crate::agent::AgentSpec;
use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::presence;
use crate::store::attempt;
use crate::store::chat_state::ChatRecord;
use crate::store::graph::ChatId;
use crate::store::messages::{self, Message, Numbers, Which};
use crate::store::{StoreError, Workspace};

use super::core::{Core, Event, Pending, Sight, Step};
use super::ears::{Ears, Heard};
use super::gate::Gate;
use super::prompt::Prompt;
use super::serve::{Ledger, wish_against};
use super::tree;
use super::waking::{Waked, Waking};

/// A handler that has its session and knows its agent.
pub(super) struct Handler<'a> {
    pub(super) workspace: &'a Workspace,
    pub(super) id: ChatId,
    pub(super) chat: &'a str,
    pub(super) session: PathBuf,
    pub(super) waking: Waking,
    pub(super) numbers: Numbers,
    pub(super) lock: &'a mut SessionLock,
    pub(super) ears: Ears,
    pub(super) agent: AgentSpec,
    pub(super) variables: Vec<(&'static str, OsString)>,
    pub(super) errors_max: u64,
    /// When messages move to the archive, and how many files of it stay.
    pub(super) history: (u64, messages::Keep),
    pub(super) grace: Duration,
    pub(super) memory_cap: Option<u64>,
    pub(super) cwd: PathBuf,
    pub(super) prompt: Option<Prompt>,
    pub(super) gate: Gate,
    pub(super) core: Core,
    pub(super) over_memory_cap: bool,
    pub(super) ledger: &'a mut Ledger,
}

impl Handler<'_> {
    /// Serves until there is a reason to leave.
    pub(super) fn run(&mut self) -> Result<ExitCode, Failure> {
        let mut step = Step::Look;
        loop {
            step = match step {
                Step::Look => self.look()?,
                Step::Wait => self.wait()?,
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
        let next = match self.next_unanswered()? {
            Some(message) => {
                let earlier =
                    attempt::read(&self.session).filter(|attempt| attempt.is_of(message.id));
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
            consumer_present: self.prompt.is_some() || presence::count(&self.session) > 0,
            over_memory_cap: self.over_memory_cap,
            lock_lost: self.is_lock_lost(),
        })
    }

    /// Returns the message to answer next. Those that another tool wrote under numbers that do not rise get ones that do first: after this
    /// message its own number is where everything before it is done.
    fn next_unanswered(&mut self) -> Result<Option<Message>, StoreError> {
        loop {
            let next = messages::next_unanswered(&self.session)?;
            // After the search, so that nothing before what it found is unseen.
            if !self.numbers.look(&self.session)? {
                return Ok(next);
            }
            messages::renumber(&self.session, Which::Arrived)?;
        }
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

    /// Waits for a reason to look; returns what follows from it at once, if anything does.
    fn wait(&mut self) -> Result<Step, Failure> {
        self.gate.look_for_daemon(clock::steady());
        let stdin = io::stdin();
        let mut fds: Vec<BorrowedFd<'_>> = self.ears.fds().chain(self.gate.fd()).collect();
        let typed = fds.len();
        fds.extend(self.prompt.as_ref().map(|_| stdin.as_fd()));
        let failed =
            |error| Failure::new(ExitCode::System, "failed to wait for a message").caused_by(error);
        let deadline = self.core.deadline().into_iter().chain(self.gate.retry_at());
        let woke = self
            .waking
            .wait(self.gate.listening(), deadline.min(), &fds)
            .map_err(failed)?;
        if woke == Waked::Unanswered {
            self.gate.listen_no_more();
        }
        // Whatever the daemon has to say, the answer is a look. Of a turn there is nothing to say between turns.
        self.gate.hear();
        if woke == Waked::Ready(typed)
            && let Some(prompt) = &mut self.prompt
            && !prompt.take_in(&self.session)?
        {
            // The person has left, and what was typed last is answered by whoever serves the chat next.
            return Ok(self.core.handle(Event::StopAsked, clock::steady()));
        }
        Ok(Step::Look)
    }

    /// Returns a message that has no answer yet.
    pub(super) fn find(&self, id: u64) -> Result<Message, Failure> {
        let found = messages::find_unanswered(&self.session, id)?;
        found.ok_or_else(|| {
            Failure::new(
                ExitCode::System,
                format!("message {id} of {} disappeared from the inbox", self.chat),
            )
        })
    }
}
