//! When a running turn is ended, and by which signal next: the stall ceiling and the stop ladder, without I/O.
//!
//! An agent makes progress when it writes, or when its process tree uses CPU time: a silent agent may think for a
//! quarter of an hour. Any CPU time at all counts, because ending a working agent is worse than ending a stuck one late.
//! The ladder is: an interrupt to the group where the turn alone is to end, then the agent's own stop signals to its
//! leader in their order, then force. Real agents differ in the signal that makes them clean up, so the order is theirs.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::core::EndTurn;

/// The longest time between two looks at the agent's processes.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(10);

/// How long an agent may be silent and idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ceiling {
    /// For ever.
    None,
    /// This long, give or take a quarter of it.
    After(Duration),
}

/// Why a turn is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedFor {
    /// Somebody asked for the turn to end.
    Interrupt,
    /// The agent made no progress for its ceiling.
    Stall,
    /// The handler was told to stop.
    Stop,
}

/// Something that happened while a turn ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// The agent wrote to one of its outputs.
    Output,
    /// The agent's processes were looked at; their CPU time in clock ticks.
    Sampled {
        /// User and system time of the whole tree, in clock ticks.
        cpu_ticks: u64,
    },
    /// The turn is to be brought to its end.
    End(EndTurn),
    /// [`Ladder::deadline`] has passed.
    DeadlineReached,
}

/// What the driver does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a rung that is not climbed leaves the agent running"]
pub enum Rung {
    /// Nothing.
    Nothing,
    /// Look at the agent's processes and report [`Happening::Sampled`].
    Sample,
    /// Send this signal to the agent's process group.
    SignalGroup(Signal),
    /// Send this signal to the agent itself.
    SignalLeader(Signal),
    /// End the agent's group and everything below the handler by force.
    Kill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running {
        sample_at: Instant,
    },
    /// Signals before `next` were sent; the one at `next` is due at `at`, and force after the last.
    Climbing {
        next: usize,
        at: Instant,
    },
    Killed,
}

/// The clock of one turn.
#[derive(Debug)]
pub struct Ladder {
    ceiling: Ceiling,
    grace: Duration,
    stop_signals: Vec<Signal>,
    phase: Phase,
    ended_for: Option<EndedFor>,
    progress_at: Instant,
    cpu_ticks: Option<u64>,
}

impl Ladder {
    /// Returns the clock of a turn that begins now.
    ///
    /// `grace` is the time that the stop signals have together before force is used.
    #[must_use]
    pub fn new(ceiling: Ceiling, grace: Duration, stop_signals: Vec<Signal>, now: Instant) -> Self {
        let mut ladder = Self {
            ceiling,
            grace,
            stop_signals,
            phase: Phase::Killed,
            ended_for: None,
            progress_at: now,
            cpu_ticks: None,
        };
        ladder.phase = Phase::Running {
            sample_at: ladder.next_sample(now),
        };
        ladder
    }

    /// Returns why the turn is being ended, if it is.
    #[must_use]
    pub fn ended_for(&self) -> Option<EndedFor> {
        self.ended_for
    }

    /// Returns when the agent last showed a sign of life.
    #[must_use]
    pub fn progress_at(&self) -> Instant {
        self.progress_at
    }

    /// Returns when [`Happening::DeadlineReached`] is due. Every call of [`Ladder::handle`] may change it.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running { sample_at } => Some(sample_at),
            Phase::Climbing { at, .. } => Some(at),
            Phase::Killed => None,
        }
    }

    /// Takes in one happening and returns what to do about it.
    pub fn handle(&mut self, happening: Happening, now: Instant) -> Rung {
        match happening {
            Happening::Output => {
                self.progress_at = now;
                Rung::Nothing
            }
            Happening::Sampled { cpu_ticks } => self.sampled(cpu_ticks, now),
            Happening::End(EndTurn::Interrupt) => match self.phase {
                Phase::Running { .. } => self.interrupt(EndedFor::Interrupt, now),
                // Whoever asks twice is already being served.
                Phase::Climbing { .. } | Phase::Killed => Rung::Nothing,
            },
            Happening::End(EndTurn::Stop) => match self.phase {
                Phase::Running { .. } | Phase::Climbing { .. } => {
                    self.ended_for = Some(EndedFor::Stop);
                    self.climb(0, now)
                }
                Phase::Killed => Rung::Nothing,
            },
            Happening::End(EndTurn::Hurry) => {
                self.ended_for = Some(EndedFor::Stop);
                self.kill()
            }
            Happening::DeadlineReached => match self.phase {
                Phase::Running { sample_at } if now >= sample_at => {
                    self.phase = Phase::Running {
                        sample_at: self.next_sample(now),
                    };
                    Rung::Sample
                }
                Phase::Climbing { next, at } if now >= at => self.climb(next, now),
                Phase::Running { .. } | Phase::Climbing { .. } | Phase::Killed => Rung::Nothing,
            },
        }
    }

    fn sampled(&mut self, cpu_ticks: u64, now: Instant) -> Rung {
        // A tree whose members come and go can also lose ticks; any change is a sign of life.
        if self
            .cpu_ticks
            .replace(cpu_ticks)
            .is_some_and(|before| before != cpu_ticks)
        {
            self.progress_at = now;
        }
        match (self.phase, self.ceiling) {
            (Phase::Running { .. }, Ceiling::After(ceiling))
                if now.saturating_duration_since(self.progress_at) >= ceiling =>
            {
                self.interrupt(EndedFor::Stall, now)
            }
            (
                Phase::Running { .. } | Phase::Climbing { .. } | Phase::Killed,
                Ceiling::None | Ceiling::After(_),
            ) => Rung::Nothing,
        }
    }

    fn interrupt(&mut self, why: EndedFor, now: Instant) -> Rung {
        self.ended_for = Some(why);
        self.phase = Phase::Climbing {
            next: 0,
            at: later(now, self.grace),
        };
        Rung::SignalGroup(Signal::SIGINT)
    }

    fn climb(&mut self, next: usize, now: Instant) -> Rung {
        let Some(signal) = self.stop_signals.get(next).copied() else {
            return self.kill();
        };
        let rungs = u32::try_from(self.stop_signals.len()).unwrap_or(u32::MAX);
        self.phase = Phase::Climbing {
            next: next + 1,
            at: later(now, self.grace / rungs),
        };
        Rung::SignalLeader(signal)
    }

    fn kill(&mut self) -> Rung {
        self.phase = Phase::Killed;
        Rung::Kill
    }

    fn next_sample(&self, now: Instant) -> Instant {
        let every = match self.ceiling {
            Ceiling::None => SAMPLE_EVERY,
            Ceiling::After(ceiling) => SAMPLE_EVERY.min(ceiling / 4),
        };
        later(now, every)
    }
}

/// Adds a span that the clock may not be able to hold; a century is as good as for ever.
fn later(now: Instant, span: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);
    now.checked_add(span.min(CENTURY)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CEILING: Duration = Duration::from_secs(40);
    const GRACE: Duration = Duration::from_secs(10);

    #[expect(
        clippy::disallowed_methods,
        reason = "an arbitrary origin; every test adds its own spans to it"
    )]
    fn ladder(signals: &[Signal]) -> (Ladder, Instant) {
        let now = Instant::now();
        (
            Ladder::new(Ceiling::After(CEILING), GRACE, signals.to_vec(), now),
            now,
        )
    }

    /// Lets the time pass as a driver would, sampling the same CPU time, until something else than a sample is due.
    fn idle_until_rung(ladder: &mut Ladder, cpu_ticks: u64) -> (Rung, Instant) {
        for _ in 0..100 {
            let now = ladder.deadline().expect("a running turn has a deadline");
            let mut rung = ladder.handle(Happening::DeadlineReached, now);
            if rung == Rung::Sample {
                rung = ladder.handle(Happening::Sampled { cpu_ticks }, now);
            }
            if rung != Rung::Nothing {
                return (rung, now);
            }
        }
        panic!("nothing happened in a hundred samples");
    }

    #[test]
    fn a_silent_and_idle_agent_is_interrupted_then_signalled_then_killed() {
        let (mut ladder, start) = ladder(&[Signal::SIGTERM]);
        let (rung, at) = idle_until_rung(&mut ladder, 5);
        assert_eq!(
            (rung, at),
            (Rung::SignalGroup(Signal::SIGINT), start + CEILING)
        );
        assert_eq!(ladder.ended_for(), Some(EndedFor::Stall));
        assert_eq!(
            idle_until_rung(&mut ladder, 5),
            (Rung::SignalLeader(Signal::SIGTERM), at + GRACE)
        );
        assert_eq!(
            idle_until_rung(&mut ladder, 5),
            (Rung::Kill, at + 2 * GRACE)
        );
        assert_eq!(ladder.deadline(), None);
    }

    #[test]
    fn output_puts_the_stall_off() {
        let (mut ladder, start) = ladder(&[Signal::SIGTERM]);
        assert_eq!(
            ladder.handle(Happening::Output, start + Duration::from_secs(35)),
            Rung::Nothing
        );
        let (rung, at) = idle_until_rung(&mut ladder, 5);
        assert_eq!(
            (rung, at),
            (
                Rung::SignalGroup(Signal::SIGINT),
                start + Duration::from_secs(80)
            )
        );
    }

    #[test]
    fn cpu_time_puts_the_stall_off_for_as_long_as_it_grows() {
        let (mut ladder, _) = ladder(&[Signal::SIGTERM]);
        for cpu_ticks in 0..1_000 {
            let now = ladder.deadline().unwrap();
            assert_eq!(ladder.handle(Happening::DeadlineReached, now), Rung::Sample);
            assert_eq!(
                ladder.handle(Happening::Sampled { cpu_ticks }, now),
                Rung::Nothing
            );
        }
        assert_eq!(ladder.ended_for(), None);
    }

    #[test]
    fn without_a_ceiling_the_tree_is_looked_at_and_nothing_is_ever_ended() {
        let (_, now) = ladder(&[]);
        let mut ladder = Ladder::new(Ceiling::None, GRACE, vec![Signal::SIGTERM], now);
        for _ in 0..1_000 {
            let now = ladder.deadline().unwrap();
            assert_eq!(ladder.handle(Happening::DeadlineReached, now), Rung::Sample);
            assert_eq!(
                ladder.handle(Happening::Sampled { cpu_ticks: 1 }, now),
                Rung::Nothing
            );
        }
    }

    #[test]
    fn a_stop_climbs_the_agents_own_signals_in_their_order_within_one_grace() {
        let (mut ladder, start) = ladder(&[Signal::SIGINT, Signal::SIGTERM]);
        assert_eq!(
            ladder.handle(Happening::End(EndTurn::Stop), start),
            Rung::SignalLeader(Signal::SIGINT)
        );
        assert_eq!(
            idle_until_rung(&mut ladder, 0),
            (Rung::SignalLeader(Signal::SIGTERM), start + GRACE / 2)
        );
        assert_eq!(idle_until_rung(&mut ladder, 0), (Rung::Kill, start + GRACE));
    }

    #[test]
    fn a_stop_takes_over_from_an_interrupt() {
        let (mut ladder, start) = ladder(&[Signal::SIGTERM]);
        assert_eq!(
            ladder.handle(Happening::End(EndTurn::Interrupt), start),
            Rung::SignalGroup(Signal::SIGINT)
        );
        assert_eq!(
            ladder.handle(Happening::End(EndTurn::Interrupt), start),
            Rung::Nothing
        );
        assert_eq!(
            ladder.handle(Happening::End(EndTurn::Stop), start),
            Rung::SignalLeader(Signal::SIGTERM)
        );
        assert_eq!(ladder.ended_for(), Some(EndedFor::Stop));
    }

    #[test]
    fn a_hurried_stop_kills_at_once() {
        let (mut ladder, start) = ladder(&[Signal::SIGTERM]);
        assert_eq!(
            ladder.handle(Happening::End(EndTurn::Stop), start),
            Rung::SignalLeader(Signal::SIGTERM)
        );
        assert_eq!(
            ladder.handle(Happening::End(EndTurn::Hurry), start),
            Rung::Kill
        );
    }

    #[test]
    fn an_agent_without_stop_signals_is_killed_at_once() {
        let (mut ladder, start) = ladder(&[]);
        assert_eq!(
            ladder.handle(Happening::End(EndTurn::Stop), start),
            Rung::Kill
        );
    }

    #[test]
    fn an_early_wake_up_changes_nothing() {
        let (mut ladder, start) = ladder(&[Signal::SIGTERM]);
        assert_eq!(
            ladder.handle(Happening::DeadlineReached, start),
            Rung::Nothing
        );
    }
}
