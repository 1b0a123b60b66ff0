//! What a turn waits for before its agent is started: its directory, and its place among all turns of the machine.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use session_lock::DirLock;

use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::store::config::Exclusive;

use super::core::{EndTurn, Event, Step, TurnEnd};
use super::directory::{self, Claimed};
use super::drive::Handler;
use super::ears::Heard;
use super::gate::Word;
use super::tree;
use super::waking::Waked;

/// How long a daemon that took the connection may take to say that the turn is queued.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Whether a turn may run.
#[derive(Debug)]
pub(super) enum Admission {
    /// It may; where its agent shares its directory with nobody, this keeps the others out.
    Admitted(Option<Box<DirLock>>),
    /// It is over before it began.
    Instead(TurnEnd),
}

impl Handler<'_> {
    /// Waits until the turn of this message may run.
    ///
    /// The directory comes first: a place among the turns that is held while a directory is waited for would be held by
    /// nobody who works.
    pub(super) fn admit(&mut self, message: u64) -> Result<Admission, Failure> {
        let directory = match self.agent.exclusive {
            Exclusive::None => None,
            Exclusive::Dir => match self.claim_directory(message)? {
                Ok(lock) => lock,
                Err(end) => {
                    self.gate.end(message);
                    return Ok(Admission::Instead(end));
                }
            },
        };
        Ok(match self.take_turn(message)? {
            Some(end) => Admission::Instead(end),
            None => Admission::Admitted(directory),
        })
    }

    fn claim_directory(
        &mut self,
        message: u64,
    ) -> Result<Result<Option<Box<DirLock>>, TurnEnd>, Failure> {
        let registry = directory::registry(self.workspace);
        let mut told = String::new();
        loop {
            match directory::claim(&registry, &self.cwd, self.chat) {
                Claimed::Yes(lock) => return Ok(Ok(Some(lock))),
                // A directory that does not exist cannot be started in either, and that is said better there.
                Claimed::Failed(_) if !self.cwd.is_dir() => return Ok(Ok(None)),
                Claimed::Failed(error) => {
                    let message = format!("failed to lock the directory `{}`", self.cwd.display());
                    return Err(Failure::new(ExitCode::System, message).caused_by(error));
                }
                Claimed::HeldBy { who, directory } => {
                    let words = format!("directory held by {who}");
                    if words != told {
                        log::info!("queued: {words}: `{}`", directory.display());
                        told = words;
                    }
                    // Said each time: the daemon may be another one by now.
                    self.gate.wait_for(message, &told, clock::steady());
                }
            }
            if let Some(end) = self.withdrawn() {
                return Ok(Err(end));
            }
        }
    }

    /// Asks the daemon for the turn and waits for it; returns how the turn ended if it did before it began.
    fn take_turn(&mut self, message: u64) -> Result<Option<TurnEnd>, Failure> {
        if !self.gate.ask(message) {
            return Ok(None);
        }
        let mut answer_by: Option<Instant> = Some(clock::steady() + ANSWER_WITHIN);
        loop {
            for word in self.gate.hear() {
                match word {
                    Word::Granted(granted) if granted == message => return Ok(None),
                    Word::Queued { ahead } => {
                        log::debug!("the turn for message {message} is queued, {ahead} come first");
                        answer_by = None;
                    }
                    Word::Refused(why) => {
                        log::warn!(
                            "no turn is given for message {message}, so it runs without one: {why}"
                        );
                        return Ok(None);
                    }
                    Word::Gone => return Ok(None),
                    // Of a turn that is over, or a change that is looked at below.
                    Word::Granted(_)
                    | Word::Cancelled(_)
                    | Word::Listening
                    | Word::NotListening
                    | Word::Wake => {}
                }
            }
            if let Some(end) = self.withdrawn() {
                self.gate.end(message);
                return Ok(Some(end));
            }
            if answer_by.is_some_and(|at| clock::steady() >= at) {
                log::warn!(
                    "the daemon does not answer; the turn for message {message} runs without it"
                );
                self.gate.leave();
                return Ok(None);
            }
            let fds: Vec<BorrowedFd<'_>> = self.ears.fds().chain(self.gate.fd()).collect();
            let woke = self
                .waking
                .wait(self.gate.listening(), answer_by, &fds)
                .map_err(|error| {
                    Failure::new(ExitCode::System, "failed to wait for a turn").caused_by(error)
                })?;
            if woke == Waked::Unanswered {
                self.gate.listen_no_more();
            }
        }
    }

    /// Returns how the turn ends if it was taken back while it waited.
    fn withdrawn(&mut self) -> Option<TurnEnd> {
        let mut end = None;
        for heard in self.ears.listen() {
            let event = match heard {
                Heard::Stop => Event::StopAsked,
                Heard::Interrupt => Event::InterruptAsked,
                Heard::Child => {
                    tree::reap_strays(None);
                    continue;
                }
            };
            end = match self.core.handle(event, clock::steady()) {
                Step::EndTurn(EndTurn::Stop | EndTurn::Hurry) => Some(TurnEnd::NotBegun),
                Step::EndTurn(EndTurn::Interrupt) => end.or(Some(TurnEnd::Interrupted)),
                Step::Look
                | Step::Begin { .. }
                | Step::Settle { .. }
                | Step::Wait
                | Step::Leave(_) => end,
            };
        }
        if end.is_none() && self.lock.is_release_requested() {
            // The core remembers it and lets the handler leave as soon as this turn is settled.
            if let Step::Wait = self.core.handle(Event::ReleaseAsked, clock::steady()) {
                end = Some(TurnEnd::NotBegun);
            }
        }
        end
    }
}
