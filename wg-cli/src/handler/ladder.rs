//! When a running turn is ended, and by which signal next: the stall ceiling and the stop ladder, without I/O.
//!
//! An agent makes progress when it writes, or when its process tree uses CPU time: a silent agent may think for a
//! quarter of an hour. Any CPU time at all counts, because ending a working agent is worse than ending a stuck one late.
//! The ladder is: an interrupt to the group where the turn alone is to end, then the agent's own stop signals to its
//! leader in their order, then force. Real agents differ in the signal that makes them clean up, so the order is theirs.
//!
//! A turn whose processes have more memory than the cap in two looks in a row is ended as well, with less patience: what
//! grows may not stop growing for a signal.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::core::EndTurn;

/// The longest time between two looks at the agent's processes.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(10);

/// The longest time between two looks where there is a memory cap.
pub const MEMORY_EVERY: Duration = Duration::from_secs(1);

/// The same once more than half of the cap is used.
pub const MEMORY_CLOSELY: Duration = Duration::from_millis(250);

/// The longest grace of an agent that is over its memory cap.
pub const MEMORY_GRACE: Duration = Duration::from_secs(2);

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
    /// Its processes had more memory than the cap.
    Memory,
}

/// Something that happened while a turn ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// The agent wrote to one of its outputs.
    Output,
    /// The agent's processes were looked at.
    Sampled {
        /// User and system time of the whole tree, in clock ticks.
        cpu_ticks: u64,
        /// What the whole tree has in memory, in bytes.
        memory: u64,
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
    memory_cap: Option<u64>,
    grace: Duration,
    stop_signals: Vec<Signal>,
    phase: Phase,
    ended_for: Option<EndedFor>,
    progress_at: Instant,
    cpu_ticks: Option<u64>,
    /// What the last look found.
    memory: u64,
}

impl Ladder {
    /// Returns the clock of a turn that begins now.
    ///
    /// `grace` is the time that the stop signals have together before force is used; `memory_cap` is in bytes, `None` for a turn
    /// that may have all there is.
    #[must_use]
    pub fn new(
        ceiling: Ceiling,
        memory_cap: Option<u64>,
        grace: Duration,
        stop_signals: Vec<Signal>,
        now: Instant,
    ) -> Self {
        let mut ladder = Self {
            ceiling,
            memory_cap,
            grace,
            stop_signals,
            phase: Phase::Killed,
            ended_for: None,
            progress_at: now,
            cpu_ticks: None,
            memory: 0,
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
            Happening::Sampled { cpu_ticks, memory } => self.sampled(cpu_ticks, memory, now),
            Happening::End(EndTurn::Interrupt) => match self.phase {
                Phase::Running { .. } => self.interrupt(EndedFor::Interrupt, now),
                // Whoever asks twice is already being served.
                Phase::Climbing { .. } | Phase::Killed => Rung::Nothing,
            },
            Happening::End(EndTurn::Stop) => match self.phase {
                Phase::Running { .. } | Phase::Climbing { .. } => {
                    self.ended_for = Some(EndedFor::Stop);
                    self.climb(0, self.grace, now)
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
                Phase::Climbing { next, at } if now >= at => self.climb(next, self.patience(), now),
                Phase::Running { .. } | Phase::Climbing { .. } | Phase::Killed => Rung::Nothing,
            },
        }
    }

    fn sampled(&mut self, cpu_ticks: u64, memory: u64, now: Instant) -> Rung {
        let before = std::mem::replace(&mut self.memory, memory);
        // A fork shares its pages for a moment and is counted twice: one look over the cap proves nothing.
        let is_over = |bytes: u64| self.memory_cap.is_some_and(|cap| bytes > cap);
        if is_over(before) && is_over(memory) && matches!(self.phase, Phase::Running { .. }) {
            self.ended_for = Some(EndedFor::Memory);
            return self.climb(0, self.patience(), now);
        }
        if let Phase::Running { sample_at } = &mut self.phase
            && is_close(memory, self.memory_cap)
        {
            *sample_at = (*sample_at).min(later(now, MEMORY_CLOSELY));
        }
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

    /// Returns how long the stop signals have together.
    fn patience(&self) -> Duration {
        if self.ended_for == Some(EndedFor::Memory) {
            self.grace.min(MEMORY_GRACE)
        } else {
            self.grace
        }
    }

    fn climb(&mut self, next: usize, grace: Duration, now: Instant) -> Rung {
        let Some(signal) = self.stop_signals.get(next).copied() else {
            return self.kill();
        };
        let rungs = u32::try_from(self.stop_signals.len()).unwrap_or(u32::MAX);
        self.phase = Phase::Climbing {
            next: next + 1,
            at: later(now, grace / rungs),
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
        let every = match self.memory_cap {
            Some(_) => every.min(MEMORY_EVERY),
            None => every,
        };
        later(now, every)
    }
}

/// Whether more than half of the cap is used.
fn is_close(memory: u64, cap: Option<u64>) -> bool {
    cap.is_some_and(|cap| memory > cap / 2)
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
            Ladder::new(Ceiling::After(CEILING), None, GRACE, signals.to_vec(), now),
            now,
        )
    }

    /// Lets the time pass as a driver would, sampling the same CPU time, until something else than a sample is due.
    fn idle_until_rung(ladder: &mut Ladder, cpu_ticks: u64) -> (Rung, Instant) {
        for _ in 0..100 {
            let now = ladder.deadline().expect("a running turn has a deadline");
            let mut rung = ladder.handle(Happening::DeadlineReached, now);
            if rung == Rung::Sample {
                rung = ladder.handle(
                    Happening::Sampled {
                        cpu_ticks,
                        memory: 0,
                    },
                    now,
                );
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
                ladder.handle(
                    Happening::Sampled {
                        cpu_ticks,
                        memory: 0
                    },
                    now
                ),
                Rung::Nothing
            );
        }
        assert_eq!(ladder.ended_for(), None);
    }

    #[test]
    fn without_a_ceiling_the_tree_is_looked_at_and_nothing_is_ever_ended() {
        let (_, now) = ladder(&[]);
        let mut ladder = Ladder::new(Ceiling::None, None, GRACE, vec![Signal::SIGTERM], now);
        for _ in 0..1_000 {
            let now = ladder.deadline().unwrap();
            assert_eq!(ladder.handle(Happening::DeadlineReached, now), Rung::Sample);
            assert_eq!(
                ladder.handle(
                    Happening::Sampled {
                        cpu_ticks: 1,
                        memory: 0
                    },
                    now
                ),
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

    /// Looks at a turn with a cap of 100 bytes, and returns the first rung and how long after the start it is due.
    fn looks(ladder: &mut Ladder, start: Instant, memory: &[u64]) -> (Rung, Duration) {
        for (cpu_ticks, memory) in (0_u64..).zip(memory) {
            let now = ladder.deadline().unwrap();
            assert_eq!(ladder.handle(Happening::DeadlineReached, now), Rung::Sample);
            let sampled = Happening::Sampled {
                cpu_ticks,
                memory: *memory,
            };
            let rung = ladder.handle(sampled, now);
            if rung != Rung::Nothing {
                return (rung, now.duration_since(start));
            }
        }
        (Rung::Nothing, Duration::ZERO)
    }

    fn capped() -> (Ladder, Instant) {
        let (_, now) = ladder(&[]);
        let signals = vec![Signal::SIGTERM];
        (
            Ladder::new(Ceiling::None, Some(100), GRACE, signals, now),
            now,
        )
    }

    #[test]
    fn memory_over_the_cap_in_two_looks_ends_the_turn_within_two_seconds() {
        let (mut ladder, start) = capped();
        assert_eq!(
            looks(&mut ladder, start, &[10, 60, 101, 102]),
            (
                Rung::SignalLeader(Signal::SIGTERM),
                2 * MEMORY_EVERY + 2 * MEMORY_CLOSELY
            ),
            "looked at more often from half of the cap on"
        );
        assert_eq!(ladder.ended_for(), Some(EndedFor::Memory));
        let at = ladder.deadline().unwrap();
        assert_eq!(ladder.handle(Happening::DeadlineReached, at), Rung::Kill);
        assert_eq!(
            at.duration_since(start),
            2 * MEMORY_EVERY + 2 * MEMORY_CLOSELY + MEMORY_GRACE
        );
    }

    #[test]
    fn memory_at_the_cap_or_over_it_for_one_look_ends_nothing() {
        let (mut ladder, start) = capped();
        let looked = [100, 100, 101, 100, 500, 99, 101, 40, 101];
        assert_eq!(looks(&mut ladder, start, &looked).0, Rung::Nothing);
        assert_eq!(ladder.ended_for(), None);
    }

    #[test]
    fn without_a_cap_no_amount_of_memory_ends_a_turn() {
        let (_, now) = ladder(&[]);
        let mut ladder = Ladder::new(Ceiling::None, None, GRACE, Vec::new(), now);
        assert_eq!(looks(&mut ladder, now, &[u64::MAX; 5]).0, Rung::Nothing);
    }
}
