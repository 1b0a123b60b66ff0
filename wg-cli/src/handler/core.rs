//! What a handler does next: a state machine without I/O.
//!
//! The driver (`nex`) tells it what it saw ([`Sight`]), what was asked (a signal, a release request) and how a turn
//! ended ([`TurnEnd`]); it answers with one [`Step`]. Every *whether* of a handler is decided here, so that the rules
//! of a turn boundary can be tested without a process, a file or a clock.

use std::time::{Duration, Instant};

use crate::exit_code::ExitCode;
use crate::store::config::OnInterrupted;

/// How often one message may be given to an agent before it is answered with a system error.
///
/// A message whose turn dies together with its handler would otherwise end every later handler of the chat too.
pub const MAX_ATTEMPTS: u32 = 2;

/// What a handler does when nobody needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Waits this long for a message or a consumer, then leaves with [`ExitCode::IdleLeft`].
    Idle(Duration),
    /// Leaves with [`ExitCode::Ok`] as soon as the inbox is empty (`--autonomous`).
    UntilDrained,
}

/// What an interrupt (SIGINT) means while no turn is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleInterrupt {
    /// Under a daemon an interrupt is meant for a turn; without one there is nothing to end.
    Ignored,
    /// At a terminal the person wants the prompt back.
    Leaves,
}

/// The rules of one handler, fixed at its start.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// When a handler that nobody needs leaves.
    pub patience: Patience,
    /// What becomes of a message whose turn was cut short.
    pub on_interrupted: OnInterrupted,
    /// What an interrupt means between turns.
    pub idle_interrupt: IdleInterrupt,
}

/// A durable wish of a person that no handler may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The chat was stopped.
    Stopped,
    /// The chat was archived.
    Archived,
    /// The chat was purged.
    Purged,
}

/// The oldest unanswered message, and what is known of earlier turns for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// The message's id in the inbox.
    pub message: u64,
    /// Turns that were begun for it and never ended.
    pub attempts: u32,
    /// Whether the last of those turns had shown any output.
    pub shown_output: bool,
}

/// What the driver sees at a turn boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// A wish that stands against this handler.
    pub wish: Option<Wish>,
    /// The message that is next.
    pub next: Option<Pending>,
    /// Whether somebody is connected and waiting to read.
    pub consumer_present: bool,
    /// Whether the handler's tree was seen over its memory cap.
    pub over_memory_cap: bool,
    /// Whether another process has taken the session lock.
    pub lock_lost: bool,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnEnd {
    /// The agent answered.
    Replied,
    /// The agent ended with another code than 0, died of a signal or stalled.
    Failed,
    /// The agent cannot be started, and trying again cannot help.
    FailedForGood,
    /// The agent or its endpoint is down for now.
    Unavailable,
    /// The machine had no process, memory or descriptor to spare.
    NoResources,
    /// Its processes had more memory than the cap, and were ended for it.
    OverMemoryCap,
    /// Somebody asked for the turn to be ended; the chat goes on.
    Interrupted,
    /// The handler was told to leave before the agent was started.
    NotBegun,
    /// The handler was told to stop while the turn ran.
    CutShort {
        /// Whether the agent had shown any output.
        shown_output: bool,
    },
}

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The driver looked at the session.
    Looked(Sight),
    /// The turn that was begun has ended, and its agent is gone.
    TurnEnded(TurnEnd),
    /// A stop signal arrived (SIGTERM, SIGHUP).
    StopAsked,
    /// An interrupt arrived (SIGINT).
    InterruptAsked,
    /// Somebody asked for the session lock.
    ReleaseAsked,
}

/// How a running turn is brought to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndTurn {
    /// As Ctrl-C would: the turn ends, the chat stays.
    Interrupt,
    /// By the agent's own stop signals, then by force.
    Stop,
    /// By force, now.
    Hurry,
}

/// Why a message is answered without its agent's reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoReply {
    /// The agent failed.
    Failed,
    /// The agent cannot be started until somebody changes something.
    FailedForGood,
    /// The agent had more memory than the cap.
    OverMemoryCap,
    /// The turn was interrupted on request.
    Interrupted,
    /// The handler was stopped in the turn.
    CutShort,
    /// An earlier handler died in the turn, and the message is not to be taken again.
    HandlerDied {
        /// Turns that were begun for it.
        attempts: u32,
    },
}

/// What is written for a message when its turn is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The agent's reply.
    Reply,
    /// One `system-error` message.
    SystemError(NoReply),
    /// Nothing: the message stays unread, and what is remembered of it stays as it is.
    Stay,
    /// Nothing: the message stays unread as if this turn had not been begun.
    Unread {
        /// Turns that are remembered.
        attempts: u32,
    },
}

/// What the driver does after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Look at the session again.
    Look,
    /// Leave with this code.
    Leave(ExitCode),
}

impl From<Then> for Step {
    fn from(then: Then) -> Self {
        match then {
            Then::Look => Self::Look,
            Then::Leave(code) => Self::Leave(code),
        }
    }
}

/// What the driver does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a step that is not carried out leaves the machine and the world apart"]
pub enum Step {
    /// Look at the session and report what is there.
    Look,
    /// Remember the attempt on disk, then begin the turn.
    Begin {
        /// The message's id.
        message: u64,
        /// Number of this attempt, from 1.
        attempt: u32,
    },
    /// Bring the running turn to its end.
    EndTurn(EndTurn),
    /// Write this answer, then go on.
    Settle {
        /// The message's id.
        message: u64,
        /// What is written.
        answer: Answer,
        /// What follows.
        then: Then,
    },
    /// Wait for something to happen, at the longest until [`Core::deadline`].
    Wait,
    /// Leave with this code.
    Leave(ExitCode),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Boundary,
    Turning { message: u64, attempt: u32 },
}

/// The state of one handler between its lock and its exit.
#[derive(Debug)]
pub struct Core {
    rules: Rules,
    state: State,
    stops: u32,
    release_asked: bool,
    /// The last instant at which somebody needed this handler.
    needed_at: Instant,
    deadline: Option<Instant>,
}

impl Core {
    /// Returns a handler that stands at a turn boundary and has just been needed.
    #[must_use]
    pub fn new(rules: Rules, now: Instant) -> Self {
        Self {
            rules,
            state: State::Boundary,
            stops: 0,
            release_asked: false,
            needed_at: now,
            deadline: None,
        }
    }

    /// Returns when the driver must look again although nothing happened.
    ///
    /// Only [`Core::handle`] changes it, and only a [`Step::Wait`] between turns sets it.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns the message whose turn is running.
    #[must_use]
    pub fn turning(&self) -> Option<u64> {
        match self.state {
            State::Turning { message, .. } => Some(message),
            State::Boundary => None,
        }
    }

    /// Takes in one event and returns what to do about it.
    pub fn handle(&mut self, event: Event, now: Instant) -> Step {
        self.deadline = None;
        match (self.state, event) {
            (State::Boundary, Event::Looked(sight)) => self.look(sight, now),
            (State::Turning { message, attempt }, Event::TurnEnded(end)) => {
                self.state = State::Boundary;
                self.needed_at = now;
                self.settle(message, attempt, end)
            }
            (State::Boundary, Event::StopAsked | Event::ReleaseAsked) => {
                Step::Leave(ExitCode::Released)
            }
            (State::Turning { .. }, Event::StopAsked) => {
                self.stops += 1;
                Step::EndTurn(if self.stops == 1 {
                    EndTurn::Stop
                } else {
                    EndTurn::Hurry
                })
            }
            (State::Turning { .. }, Event::InterruptAsked) => Step::EndTurn(EndTurn::Interrupt),
            (State::Boundary, Event::InterruptAsked) => match self.rules.idle_interrupt {
                IdleInterrupt::Ignored => Step::Look,
                IdleInterrupt::Leaves => Step::Leave(ExitCode::Released),
            },
            (State::Turning { .. }, Event::ReleaseAsked) => {
                self.release_asked = true;
                Step::Wait
            }
            // A driver that looks while a turn runs has nothing to decide; one that reports the end of a turn twice
            // is told to look, which is harmless.
            (State::Turning { .. }, Event::Looked(_)) => Step::Wait,
            (State::Boundary, Event::TurnEnded(_)) => Step::Look,
        }
    }

    fn look(&mut self, sight: Sight, now: Instant) -> Step {
        if sight.lock_lost {
            return Step::Leave(ExitCode::Held);
        }
        if sight.wish.is_some() || self.release_asked || self.stops > 0 {
            return Step::Leave(ExitCode::Released);
        }
        if sight.over_memory_cap {
            return Step::Leave(ExitCode::MemoryDrain);
        }
        if let Some(pending) = sight.next {
            self.needed_at = now;
            return self.take(pending);
        }
        if sight.consumer_present {
            self.needed_at = now;
        }
        match self.rules.patience {
            Patience::UntilDrained => Step::Leave(ExitCode::Ok),
            Patience::Idle(patience) => {
                // A patience that the clock cannot hold is one that never ends.
                let Some(leave_at) = self.needed_at.checked_add(patience) else {
                    return Step::Wait;
                };
                if now >= leave_at && !sight.consumer_present {
                    return Step::Leave(ExitCode::IdleLeft);
                }
                self.deadline = Some(leave_at);
                Step::Wait
            }
        }
    }

    fn take(&mut self, pending: Pending) -> Step {
        let Pending {
            message,
            attempts,
            shown_output,
        } = pending;
        if attempts > 0 && !self.may_take_again(attempts, shown_output) {
            return Step::Settle {
                message,
                answer: Answer::SystemError(NoReply::HandlerDied { attempts }),
                then: Then::Look,
            };
        }
        let attempt = attempts + 1;
        self.state = State::Turning { message, attempt };
        Step::Begin { message, attempt }
    }

    fn may_take_again(&self, attempts: u32, shown_output: bool) -> bool {
        attempts < MAX_ATTEMPTS
            && match self.rules.on_interrupted {
                OnInterrupted::Auto => !shown_output,
                OnInterrupted::Retry => true,
                OnInterrupted::Fail => false,
            }
    }

    fn settle(&mut self, message: u64, attempt: u32, end: TurnEnd) -> Step {
        // A stop or a release that arrived in the turn is carried out at its end, whatever the turn came to; only a
        // code that says why no turn can be run is worth more than either.
        let leaving = if self.stops > 0 || self.release_asked {
            Then::Leave(ExitCode::Released)
        } else {
            Then::Look
        };
        let unread = Answer::Unread {
            attempts: attempt - 1,
        };
        let (answer, then) = match end {
            TurnEnd::Replied => (Answer::Reply, leaving),
            TurnEnd::Failed => (Answer::SystemError(NoReply::Failed), leaving),
            TurnEnd::OverMemoryCap => (
                Answer::SystemError(NoReply::OverMemoryCap),
                match leaving {
                    Then::Look => Then::Leave(ExitCode::MemoryDrain),
                    Then::Leave(code) => Then::Leave(code),
                },
            ),
            TurnEnd::Interrupted => (Answer::SystemError(NoReply::Interrupted), leaving),
            TurnEnd::FailedForGood => (
                Answer::SystemError(NoReply::FailedForGood),
                Then::Leave(ExitCode::Config),
            ),
            TurnEnd::NotBegun => (Answer::Stay, leaving),
            TurnEnd::Unavailable => (unread, Then::Leave(ExitCode::Unavailable)),
            TurnEnd::NoResources => (unread, Then::Leave(ExitCode::System)),
            TurnEnd::CutShort { shown_output } => {
                let answer = if self.may_take_again(attempt, shown_output) {
                    Answer::Stay
                } else {
                    Answer::SystemError(NoReply::CutShort)
                };
                (answer, Then::Leave(ExitCode::Released))
            }
        };
        Step::Settle {
            message,
            answer,
            then,
        }
    }
}

#[cfg(test)]
mod tests;
