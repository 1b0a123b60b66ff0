//! What the machine knows, for people.

use super::Machine;
use crate::Moment;
use crate::event::ParkReason;
use crate::state::{ContentionFacts, CrashFacts, Explanation, Mover, State, WindowFacts};

impl Machine {
    /// Returns everything that decides what happens next, as of `now`.
    #[must_use]
    pub fn explain(&self, now: Moment) -> Explanation {
        let policy = &self.policy;
        let mut crash = self.books.crash.clone();
        if self.state.process().is_some() {
            let until = self.run.ended.unwrap_or(now);
            crash.live(until.since(self.run.since), policy.decay_every);
        }
        let allowed = u32::try_from(policy.contention_pauses.len()).unwrap_or(u32::MAX);
        Explanation {
            state: self.state.clone(),
            next_at: self.deadline(),
            moved_by: self.movers(),
            crash: CrashFacts {
                number: crash.number,
                in_window: crash.window.count(now, policy.crash_window),
                soft: policy.crash_soft,
                window: policy.crash_window,
                hard: policy.crash_hard,
                next_decay_in: (crash.number > 0)
                    .then(|| policy.decay_every.saturating_sub(crash.health)),
            },
            clean: WindowFacts {
                count: self.books.clean.count(now, policy.clean_window),
                budget: policy.clean_budget,
                window: policy.clean_window,
            },
            memory: WindowFacts {
                count: self.books.memory.count(now, policy.memory_window),
                budget: policy.memory_budget,
                window: policy.memory_window,
            },
            memory_peak: self.books.memory_peak,
            dependency: self.books.dependency,
            contention: self
                .books
                .contention
                .by
                .clone()
                .map(|(holder, since)| ContentionFacts {
                    holder,
                    refusals: self.books.contention.refusals,
                    allowed,
                    since,
                }),
            last_failure: self.books.last_failure.clone(),
        }
    }

    fn movers(&self) -> Vec<Mover> {
        match &self.state {
            State::Idle { .. } => vec![Mover::Wake, Mover::Start, Mover::Resume],
            State::Stopped { .. } => vec![Mover::Start, Mover::Resume],
            State::Held { .. } => vec![Mover::HolderGone, Mover::Resume, Mover::ConfigChange],
            State::Contended { .. }
            | State::Parked {
                reason: ParkReason::Contended { .. },
                ..
            } => {
                vec![Mover::HolderGone, Mover::Resume, Mover::ConfigChange]
            }
            State::Parked { .. } | State::Degraded { .. } => {
                vec![Mover::Resume, Mover::ConfigChange]
            }
            State::Backoff {
                account, number, ..
            } => {
                let mut movers = vec![Mover::Resume, Mover::ConfigChange];
                if self.clone().may_cut_short(*account, *number) {
                    movers.insert(0, Mover::Wake);
                }
                movers
            }
            State::Starting { .. }
            | State::Running { .. }
            | State::Ending { .. }
            | State::Stopping { .. } => Vec::new(),
        }
    }
}
