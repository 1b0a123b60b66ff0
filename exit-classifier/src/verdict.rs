//! What an ending means: the verdict and its closed lists of words.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::Ending;
use crate::ending::write_signal;
use crate::label::labels;

labels! {
    /// How serious an ending is, for a person who scans a list.
    ///
    /// A class follows from [`Counts`] alone ([`Counts::class`]), so that a list and a counter cannot disagree.
    #[non_exhaustive]
    pub enum Class {
        /// It did what it was there for.
        Success = "success",
        /// It left because it was asked to, or by its own plan.
        Planned = "planned",
        /// A signal ended it that asks for the end.
        Stopped = "stopped",
        /// Something outside keeps it from running now; waiting helps.
        Blocked = "blocked",
        /// Running it again unchanged cannot help.
        Permanent = "permanent",
        /// A turn failed; whoever runs the turns goes on.
        TurnFailed = "turn_failed",
        /// It failed. Everything unknown is here.
        Crash = "crash",
    }
}

labels! {
    /// Why it ended: the label that is recorded and shown.
    #[non_exhaustive]
    pub enum Cause {
        /// It left with code 0.
        CleanExit = "clean_exit",
        /// It ended after we had asked for that.
        Requested = "requested",
        /// It left at a turn boundary because somebody wanted its session.
        Released = "released",
        /// It left because nobody needed it.
        Idle = "idle",
        /// It left because its memory cap was reached.
        MemoryDrain = "memory_drain",
        /// Another process had the session.
        LockHeld = "lock_held",
        /// Its configuration is at fault: starting it again unchanged gives the same ending.
        Config = "config",
        /// The program or the endpoint it depends on is down.
        Unavailable = "unavailable",
        /// It was never started.
        NotStarted = "not_started",
        /// The kernel ended it to get memory back.
        OutOfMemory = "out_of_memory",
        /// A signal ended it that is sent to end processes; who sent it is not known, and it may have been itself.
        Killed = "killed",
        /// It died of the signal of a fault: abort, bad memory access, bad instruction.
        Aborted = "aborted",
        /// It was ended because it showed no progress for too long.
        Stalled = "stalled",
        /// It failed in a way that has no better name.
        RuntimeError = "runtime_error",
        /// Its status cannot be known.
        Lost = "lost",
    }
}

impl Cause {
    /// Returns whether an ending of this cause may be charged to `account`.
    ///
    /// This is the table that keeps label and counter together: a [`Rule`](crate::Rule) that contradicts it cannot be made.
    #[must_use]
    pub const fn may_count_as(self, account: Counts) -> bool {
        match self {
            Self::CleanExit => matches!(account, Counts::CleanRestart | Counts::TurnDone),
            Self::Requested | Self::Released => matches!(account, Counts::Nothing),
            Self::Idle => matches!(account, Counts::NothingNoRespawn),
            Self::MemoryDrain => matches!(account, Counts::Memory),
            Self::LockHeld => matches!(account, Counts::Contention),
            Self::Config => matches!(account, Counts::Permanent),
            Self::Unavailable => matches!(account, Counts::Dependency),
            Self::NotStarted => matches!(account, Counts::Permanent | Counts::Crash),
            Self::Killed => {
                matches!(
                    account,
                    Counts::Crash | Counts::ExternalStop | Counts::TurnFailed
                )
            }
            Self::OutOfMemory | Self::Aborted | Self::Stalled | Self::RuntimeError | Self::Lost => {
                matches!(account, Counts::Crash | Counts::TurnFailed)
            }
        }
    }

    /// Returns the phrase with which a sentence explains this cause, such as "the session lock was held".
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::CleanExit => "it finished cleanly",
            Self::Requested => "it was asked to end",
            Self::Released => "it gave its session up at a turn boundary",
            Self::Idle => "nobody needed it",
            Self::MemoryDrain => "its memory cap was reached",
            Self::LockHeld => "the session lock was held",
            Self::Config => "its configuration is at fault",
            Self::Unavailable => "what it depends on is unavailable",
            Self::NotStarted => "the start failed",
            Self::OutOfMemory => "the kernel ended it for lack of memory",
            Self::Killed => "a signal ended it",
            Self::Aborted => "it died of the signal of a fault",
            Self::Stalled => "it showed no progress for too long",
            Self::RuntimeError => "it failed",
            Self::Lost => "how it ended cannot be known",
        }
    }
}

labels! {
    /// Which account an ending is charged to: what decides about the next start.
    ///
    /// Deliberately not `#[non_exhaustive]`: whoever restarts processes must have an answer for every account, and should
    /// not compile without one when an account is added.
    pub enum Counts {
        /// A clean restart: start again, within a budget of clean restarts.
        CleanRestart = "clean_restart",
        /// Nothing: it was wanted.
        Nothing = "nothing",
        /// Nothing, and it is not started again until it is needed.
        NothingNoRespawn = "nothing_no_respawn",
        /// The budget of starts after a full memory.
        Memory = "memory",
        /// Waiting for the holder of a lock.
        Contention = "contention",
        /// No further start until the configuration changes.
        Permanent = "permanent",
        /// Waiting for a program or an endpoint to come back.
        Dependency = "dependency",
        /// It was told to end by a signal that asks, by whomever; no failure of its own.
        ExternalStop = "external_stop",
        /// A crash.
        Crash = "crash",
        /// Nothing: an agent finished its turn.
        TurnDone = "turn_done",
        /// Nothing: an agent failed in its turn, which gets an error reply and no second attempt.
        TurnFailed = "turn_failed",
    }
}

impl Counts {
    /// Returns the class of every ending that is charged here.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::CleanRestart | Self::TurnDone => Class::Success,
            Self::Nothing | Self::NothingNoRespawn | Self::Memory => Class::Planned,
            Self::ExternalStop => Class::Stopped,
            Self::Contention | Self::Dependency => Class::Blocked,
            Self::Permanent => Class::Permanent,
            Self::TurnFailed => Class::TurnFailed,
            Self::Crash => Class::Crash,
        }
    }
}

/// What an ending means.
///
/// Accounting, label, audit record and status line are all taken from this one value. `Display` gives one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a verdict that nobody reads is an ending that nobody counts"]
pub struct Verdict {
    /// How serious it is.
    pub class: Class,
    /// Why it ended.
    pub cause: Cause,
    /// Which account it is charged to.
    pub counts: Counts,
    /// The name of the rule that matched.
    pub rule: Cow<'static, str>,
    /// The matched rule's explanation, a phrase such as "the session lock was held".
    pub because: Cow<'static, str>,
    /// How it ended.
    pub ending: Ending,
    /// How long it ran.
    pub ran_for: Duration,
    /// The facts it was judged by, as key and value; keys are unique, and facts that say nothing are left out.
    ///
    /// Always there: `ending`, `ran_ms`. As known: `asked`, `holder_pid` with `holder` (`live_other`, `live_own`, `dead_other` or `dead_own`),
    /// `memory_drained`, `oom_kills`, `wrapper`, `decoded` (the signal that a wrapper's code stands for), `core_dumped`, `errno`, `stderr` (the last
    /// lines, made safe for a terminal).
    pub evidence: Vec<(&'static str, String)>,
}

impl Verdict {
    /// Returns one sentence for a person, such as `left with code 75 after 31 ms: the session lock was held (rule lock_held)`.
    #[must_use]
    pub fn sentence(&self) -> String {
        self.to_string()
    }

    /// Returns one fact of the evidence.
    #[must_use]
    pub fn fact(&self, key: &str) -> Option<&str> {
        self.evidence
            .iter()
            .find(|(known, _)| *known == key)
            .map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ending {
            Ending::Code(code) => {
                write!(f, "left with code {code}")?;
                if let Some(signal) = self.fact("decoded") {
                    write!(f, " (a shell's word for {signal})")?;
                }
            }
            Ending::Signal { number, core } => {
                f.write_str("died of ")?;
                write_signal(f, number)?;
                f.write_str(if core { " (core dumped)" } else { "" })?;
            }
            Ending::Lost => f.write_str("ended unseen")?,
            Ending::NeverStarted { .. } => write!(f, "{}", self.ending)?,
        }
        if !matches!(self.ending, Ending::NeverStarted { .. }) {
            write!(f, " after {}", Span(self.ran_for))?;
        }
        write!(f, ": {} (rule {})", self.because, self.rule)
    }
}

/// A duration in the words of a person: `31 ms`, `4.2 s`, `12 min`, `2 h 5 min`.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let secs = self.0.as_secs();
        match (millis, secs) {
            (..1_000, _) => write!(f, "{millis} ms"),
            (_, ..60) => write!(f, "{secs}.{} s", self.0.subsec_millis() / 100),
            (_, ..3_600) => write!(f, "{} min", secs / 60),
            (_, _) => write!(f, "{} h {} min", secs / 3_600, secs / 60 % 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_the_largest_unit_that_fits() {
        for (span, text) in [
            (Duration::ZERO, "0 ms"),
            (Duration::from_millis(31), "31 ms"),
            (Duration::from_millis(999), "999 ms"),
            (Duration::from_secs(1), "1.0 s"),
            (Duration::from_millis(59_999), "59.9 s"),
            (Duration::from_secs(60), "1 min"),
            (Duration::from_secs(3_599), "59 min"),
            (Duration::from_secs(7_500), "2 h 5 min"),
            (Duration::MAX, "5124095576030431 h 0 min"),
        ] {
            assert_eq!(Span(span).to_string(), text);
        }
    }

    #[test]
    fn every_cause_has_an_account_and_every_account_a_cause() {
        for cause in Cause::ALL {
            assert!(
                Counts::ALL.iter().any(|c| cause.may_count_as(*c)),
                "{cause} has no account"
            );
        }
        for counts in Counts::ALL {
            assert!(
                Cause::ALL.iter().any(|c| c.may_count_as(*counts)),
                "{counts} has no cause"
            );
        }
    }
}
