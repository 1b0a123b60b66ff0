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
    /// Somebody asked for the turn to be ended; the chat goes on.
    Interrupted,
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
    /// Nothing: the message stays unread and the turn is remembered as an attempt.
    TakeAgain,
    /// Nothing: the message stays unread as if it had never been taken.
    Unread,
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
        let (answer, then) = match end {
            TurnEnd::Replied => (Answer::Reply, leaving),
            TurnEnd::Failed => (Answer::SystemError(NoReply::Failed), leaving),
            TurnEnd::Interrupted => (Answer::SystemError(NoReply::Interrupted), leaving),
            TurnEnd::FailedForGood => (
                Answer::SystemError(NoReply::FailedForGood),
                Then::Leave(ExitCode::Config),
            ),
            TurnEnd::Unavailable => (Answer::Unread, Then::Leave(ExitCode::Unavailable)),
            TurnEnd::NoResources => (Answer::Unread, Then::Leave(ExitCode::System)),
            TurnEnd::CutShort { shown_output } => {
                let answer = if self.may_take_again(attempt, shown_output) {
                    Answer::TakeAgain
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
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(300);

    fn rules() -> Rules {
        Rules {
            patience: Patience::Idle(IDLE),
            on_interrupted: OnInterrupted::Auto,
            idle_interrupt: IdleInterrupt::Ignored,
        }
    }

    fn empty() -> Sight {
        Sight {
            wish: None,
            next: None,
            consumer_present: false,
            over_memory_cap: false,
            lock_lost: false,
        }
    }

    fn with_message(message: u64) -> Sight {
        pending(message, 0, false)
    }

    fn pending(message: u64, attempts: u32, shown_output: bool) -> Sight {
        Sight {
            next: Some(Pending {
                message,
                attempts,
                shown_output,
            }),
            ..empty()
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "an arbitrary origin; every test adds its own spans to it"
    )]
    fn origin() -> Instant {
        Instant::now()
    }

    fn core(rules: Rules) -> (Core, Instant) {
        let now = origin();
        (Core::new(rules, now), now)
    }

    fn turning(rules: Rules) -> (Core, Instant) {
        let (mut core, now) = core(rules);
        assert_eq!(
            core.handle(Event::Looked(with_message(1)), now),
            Step::Begin {
                message: 1,
                attempt: 1
            }
        );
        (core, now)
    }

    #[test]
    fn the_oldest_unanswered_message_begins_a_turn() {
        let (mut core, now) = core(rules());
        assert_eq!(
            core.handle(Event::Looked(with_message(7)), now),
            Step::Begin {
                message: 7,
                attempt: 1
            }
        );
        assert_eq!(core.turning(), Some(7));
    }

    #[test]
    fn a_reply_is_written_and_the_session_looked_at_again() {
        let (mut core, now) = turning(rules());
        let step = core.handle(Event::TurnEnded(TurnEnd::Replied), now);
        assert_eq!(
            step,
            Step::Settle {
                message: 1,
                answer: Answer::Reply,
                then: Then::Look
            }
        );
        assert_eq!(core.turning(), None);
    }

    #[test]
    fn a_failed_agent_is_answered_once_and_the_handler_stays() {
        let (mut core, now) = turning(rules());
        let step = core.handle(Event::TurnEnded(TurnEnd::Failed), now);
        assert_eq!(
            step,
            Step::Settle {
                message: 1,
                answer: Answer::SystemError(NoReply::Failed),
                then: Then::Look
            }
        );
    }

    #[test]
    fn endings_that_say_no_turn_can_run_leave_with_their_own_code() {
        for (end, answer, code) in [
            (
                TurnEnd::FailedForGood,
                Answer::SystemError(NoReply::FailedForGood),
                ExitCode::Config,
            ),
            (TurnEnd::Unavailable, Answer::Unread, ExitCode::Unavailable),
            (TurnEnd::NoResources, Answer::Unread, ExitCode::System),
        ] {
            let (mut core, now) = turning(rules());
            let step = core.handle(Event::TurnEnded(end), now);
            assert_eq!(
                step,
                Step::Settle {
                    message: 1,
                    answer,
                    then: Then::Leave(code)
                },
                "{end:?}"
            );
        }
    }

    #[test]
    fn a_message_whose_turn_died_silently_is_taken_again_once() {
        let (mut core, now) = core(rules());
        assert_eq!(
            core.handle(Event::Looked(pending(3, 1, false)), now),
            Step::Begin {
                message: 3,
                attempt: 2
            }
        );
    }

    #[test]
    fn a_message_whose_agent_had_spoken_is_answered_instead_of_taken_again() {
        let (mut core, now) = core(rules());
        let answer = Answer::SystemError(NoReply::HandlerDied { attempts: 1 });
        let step = core.handle(Event::Looked(pending(3, 1, true)), now);
        assert_eq!(
            step,
            Step::Settle {
                message: 3,
                answer,
                then: Then::Look
            }
        );
    }

    #[test]
    fn two_attempts_are_all_that_a_message_gets_under_every_rule() {
        for on_interrupted in [
            OnInterrupted::Auto,
            OnInterrupted::Retry,
            OnInterrupted::Fail,
        ] {
            let (mut core, now) = core(Rules {
                on_interrupted,
                ..rules()
            });
            let answer = Answer::SystemError(NoReply::HandlerDied {
                attempts: MAX_ATTEMPTS,
            });
            let step = core.handle(Event::Looked(pending(3, MAX_ATTEMPTS, false)), now);
            assert_eq!(
                step,
                Step::Settle {
                    message: 3,
                    answer,
                    then: Then::Look
                },
                "{on_interrupted:?}"
            );
        }
    }

    #[test]
    fn retry_takes_a_message_again_whatever_its_agent_had_said_and_fail_never_does() {
        let (mut core, now) = core(Rules {
            on_interrupted: OnInterrupted::Retry,
            ..rules()
        });
        assert_eq!(
            core.handle(Event::Looked(pending(3, 1, true)), now),
            Step::Begin {
                message: 3,
                attempt: 2
            }
        );

        let (mut core, now) = self::core(Rules {
            on_interrupted: OnInterrupted::Fail,
            ..rules()
        });
        let answer = Answer::SystemError(NoReply::HandlerDied { attempts: 1 });
        let step = core.handle(Event::Looked(pending(3, 1, false)), now);
        assert_eq!(
            step,
            Step::Settle {
                message: 3,
                answer,
                then: Then::Look
            }
        );
    }

    #[test]
    fn a_handler_leaves_when_nobody_needed_it_for_the_idle_time() {
        let (mut core, now) = core(rules());
        assert_eq!(core.handle(Event::Looked(empty()), now), Step::Wait);
        assert_eq!(core.deadline(), Some(now + IDLE));
        let just_before = now + IDLE.checked_sub(Duration::from_nanos(1)).unwrap();
        assert_eq!(core.handle(Event::Looked(empty()), just_before), Step::Wait);
        assert_eq!(
            core.handle(Event::Looked(empty()), now + IDLE),
            Step::Leave(ExitCode::IdleLeft)
        );
    }

    #[test]
    fn the_idle_time_counts_from_the_end_of_the_last_turn() {
        let (mut core, now) = turning(rules());
        let later = now + Duration::from_secs(1_000);
        assert!(matches!(
            core.handle(Event::TurnEnded(TurnEnd::Replied), later),
            Step::Settle { .. }
        ));
        assert_eq!(core.handle(Event::Looked(empty()), later), Step::Wait);
        assert_eq!(core.deadline(), Some(later + IDLE));
    }

    #[test]
    fn a_consumer_keeps_the_handler_and_restarts_the_idle_time() {
        let (mut core, now) = core(rules());
        let present = Sight {
            consumer_present: true,
            ..empty()
        };
        let late = now + IDLE;
        assert_eq!(core.handle(Event::Looked(present), late), Step::Wait);
        assert_eq!(core.deadline(), Some(late + IDLE));
        assert_eq!(
            core.handle(Event::Looked(empty()), late + IDLE),
            Step::Leave(ExitCode::IdleLeft)
        );
    }

    #[test]
    fn an_idle_time_beyond_the_clock_never_ends() {
        let (mut core, now) = core(Rules {
            patience: Patience::Idle(Duration::MAX),
            ..rules()
        });
        assert_eq!(core.handle(Event::Looked(empty()), now), Step::Wait);
        assert_eq!(core.deadline(), None);
    }

    #[test]
    fn an_autonomous_handler_leaves_when_the_inbox_is_empty() {
        let (mut core, now) = core(Rules {
            patience: Patience::UntilDrained,
            ..rules()
        });
        assert_eq!(
            core.handle(Event::Looked(with_message(1)), now),
            Step::Begin {
                message: 1,
                attempt: 1
            }
        );
        assert!(matches!(
            core.handle(Event::TurnEnded(TurnEnd::Replied), now),
            Step::Settle { .. }
        ));
        assert_eq!(
            core.handle(Event::Looked(empty()), now),
            Step::Leave(ExitCode::Ok)
        );
    }

    #[test]
    fn a_release_lets_the_turn_finish_and_then_leaves() {
        let (mut core, now) = turning(rules());
        assert_eq!(core.handle(Event::ReleaseAsked, now), Step::Wait);
        let step = core.handle(Event::TurnEnded(TurnEnd::Replied), now);
        let then = Then::Leave(ExitCode::Released);
        assert_eq!(
            step,
            Step::Settle {
                message: 1,
                answer: Answer::Reply,
                then
            }
        );
    }

    #[test]
    fn a_release_between_turns_leaves_even_with_messages_waiting() {
        let (mut core, now) = core(rules());
        assert_eq!(
            core.handle(Event::ReleaseAsked, now),
            Step::Leave(ExitCode::Released)
        );
    }

    #[test]
    fn a_stop_ends_the_turn_and_a_second_one_hurries() {
        let (mut core, now) = turning(rules());
        assert_eq!(
            core.handle(Event::StopAsked, now),
            Step::EndTurn(EndTurn::Stop)
        );
        assert_eq!(
            core.handle(Event::StopAsked, now),
            Step::EndTurn(EndTurn::Hurry)
        );
        let step = core.handle(
            Event::TurnEnded(TurnEnd::CutShort {
                shown_output: false,
            }),
            now,
        );
        let then = Then::Leave(ExitCode::Released);
        assert_eq!(
            step,
            Step::Settle {
                message: 1,
                answer: Answer::TakeAgain,
                then
            }
        );
    }

    #[test]
    fn a_stopped_turn_that_had_spoken_is_answered_with_what_there_is() {
        let (mut core, now) = turning(rules());
        assert_eq!(
            core.handle(Event::StopAsked, now),
            Step::EndTurn(EndTurn::Stop)
        );
        let step = core.handle(
            Event::TurnEnded(TurnEnd::CutShort { shown_output: true }),
            now,
        );
        let answer = Answer::SystemError(NoReply::CutShort);
        assert_eq!(
            step,
            Step::Settle {
                message: 1,
                answer,
                then: Then::Leave(ExitCode::Released)
            }
        );
    }

    #[test]
    fn an_interrupt_ends_the_turn_and_not_the_chat() {
        let (mut core, now) = turning(rules());
        assert_eq!(
            core.handle(Event::InterruptAsked, now),
            Step::EndTurn(EndTurn::Interrupt)
        );
        let step = core.handle(Event::TurnEnded(TurnEnd::Interrupted), now);
        let answer = Answer::SystemError(NoReply::Interrupted);
        assert_eq!(
            step,
            Step::Settle {
                message: 1,
                answer,
                then: Then::Look
            }
        );
    }

    #[test]
    fn an_interrupt_between_turns_is_ignored_under_a_daemon_and_leaves_at_a_terminal() {
        let (mut core, now) = core(rules());
        assert_eq!(core.handle(Event::InterruptAsked, now), Step::Look);
        let (mut core, now) = self::core(Rules {
            idle_interrupt: IdleInterrupt::Leaves,
            ..rules()
        });
        assert_eq!(
            core.handle(Event::InterruptAsked, now),
            Step::Leave(ExitCode::Released)
        );
    }

    #[test]
    fn a_standing_wish_beats_a_waiting_message() {
        for wish in [Wish::Stopped, Wish::Archived, Wish::Purged] {
            let (mut core, now) = core(rules());
            let sight = Sight {
                wish: Some(wish),
                ..with_message(1)
            };
            assert_eq!(
                core.handle(Event::Looked(sight), now),
                Step::Leave(ExitCode::Released),
                "{wish:?}"
            );
        }
    }

    #[test]
    fn memory_over_the_cap_drains_before_the_next_message() {
        let (mut core, now) = core(rules());
        let sight = Sight {
            over_memory_cap: true,
            ..with_message(1)
        };
        assert_eq!(
            core.handle(Event::Looked(sight), now),
            Step::Leave(ExitCode::MemoryDrain)
        );
    }

    #[test]
    fn a_lost_lock_is_left_before_anything_is_written() {
        let (mut core, now) = core(rules());
        let sight = Sight {
            lock_lost: true,
            ..with_message(1)
        };
        assert_eq!(
            core.handle(Event::Looked(sight), now),
            Step::Leave(ExitCode::Held)
        );
    }

    #[test]
    fn every_turn_that_begins_is_settled_exactly_once_in_every_order_of_events() {
        // All sequences of five events: a settle never comes without a begin before it, and never twice for one.
        let sights = [empty(), with_message(1), pending(1, 1, true)];
        let mut events: Vec<Event> = sights.into_iter().map(Event::Looked).collect();
        events.extend([Event::StopAsked, Event::InterruptAsked, Event::ReleaseAsked]);
        events.extend([
            Event::TurnEnded(TurnEnd::Replied),
            Event::TurnEnded(TurnEnd::Unavailable),
            Event::TurnEnded(TurnEnd::CutShort {
                shown_output: false,
            }),
        ]);
        let now = origin();
        for code in 0..events.len().pow(5) {
            let mut core = Core::new(rules(), now);
            let mut open = false;
            let mut rest = code;
            for _ in 0..5 {
                let event = events[rest % events.len()];
                rest /= events.len();
                match core.handle(event, now) {
                    Step::Begin { .. } => {
                        assert!(!open, "two turns at once");
                        open = true;
                    }
                    Step::Settle {
                        answer: Answer::SystemError(NoReply::HandlerDied { .. }),
                        ..
                    } => assert!(!open),
                    Step::Settle { .. } => {
                        assert!(open, "an answer without a turn");
                        open = false;
                    }
                    Step::Leave(_) => {
                        assert!(!open, "left in the middle of a turn");
                        break;
                    }
                    Step::EndTurn(_) => assert!(open, "ended a turn that does not run"),
                    Step::Look | Step::Wait => {}
                }
            }
            assert_eq!(open, core.turning().is_some());
        }
    }
}
