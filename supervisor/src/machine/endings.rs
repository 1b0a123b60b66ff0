//! The run and its end: which account it is booked to.

use std::time::Duration;

use super::Machine;
use crate::Moment;
use crate::account::doubled;
use crate::event::{Account, Disposition, Generation, Notice, ParkReason, StartReason, Step};
use crate::state::{AfterStop, State, StopReason};

impl Machine {
    pub(super) fn progress(&mut self) {
        if let State::Running { .. } = self.state {
            self.run.progressed = true;
            self.forgive_contention();
            self.forgive_dependency();
        }
    }

    pub(super) fn leader_exited(&mut self, of: Generation, now: Moment) {
        match &self.state {
            State::Running {
                pid, generation, ..
            } if *generation == of => {
                self.run.ended = Some(now);
                self.state = State::Ending {
                    since: now,
                    pid: *pid,
                    generation: of,
                };
            }
            State::Stopping { generation, .. } if *generation == of => {
                self.run.ended = Some(now);
            }
            // Anything else is a late word about a former process.
            State::Idle { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Ending { .. }
            | State::Backoff { .. }
            | State::Degraded { .. }
            | State::Held { .. }
            | State::Contended { .. }
            | State::Parked { .. }
            | State::Stopping { .. }
            | State::Stopped { .. } => {}
        }
    }

    pub(super) fn exited(
        &mut self,
        of: Generation,
        disposition: Disposition,
        now: Moment,
        step: &mut Step,
    ) {
        let Some((pid, generation)) = self.state.process() else {
            return;
        };
        if generation != of {
            return;
        }
        let ran_for = self.run.ended.unwrap_or(now).since(self.run.since);
        let stopping = match &self.state {
            State::Stopping { then, .. } => Some(*then),
            State::Idle { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Ending { .. }
            | State::Backoff { .. }
            | State::Degraded { .. }
            | State::Held { .. }
            | State::Contended { .. }
            | State::Parked { .. }
            | State::Stopped { .. } => None,
        };
        step.notices.push(Notice::Exited {
            generation,
            pid,
            ran_for,
            requested: stopping.is_some(),
            disposition: disposition.clone(),
        });
        self.books.crash.live(ran_for, self.policy.decay_every);
        self.books.early_crash = self.books.early_crash.min(self.books.crash.number);
        if ran_for > self.policy.stable_after {
            self.forgive_dependency();
        }
        match stopping {
            Some(AfterStop::StayDown) => self.stopped(StopReason::Asked, now, step),
            Some(AfterStop::Start) => self.spawn(StartReason::Restarted, now, step),
            None => self.dispose(disposition, ran_for, now, step),
        }
    }

    pub(super) fn dispose(
        &mut self,
        disposition: Disposition,
        ran_for: Duration,
        now: Moment,
        step: &mut Step,
    ) {
        if !matches!(disposition, Disposition::Contention { .. }) {
            self.forgive_contention();
        }
        match disposition {
            Disposition::Clean | Disposition::IdleLeft => {
                self.forgive_dependency();
                self.restart_promptly(now, step);
            }
            Disposition::Requested | Disposition::ExternalStop { .. } => {
                self.restart_promptly(now, step);
            }
            Disposition::Released => {
                let pause = self.policy.release_pause;
                self.wait(Account::Release, 1, pause, now, step);
            }
            Disposition::Finished => {
                self.forgive_dependency();
                step.notices.push(Notice::Finished);
                self.state = State::Stopped {
                    since: now,
                    why: StopReason::Finished,
                };
            }
            Disposition::Memory { peak } => self.memory_capped(peak, now, step),
            Disposition::Contention { holder, watchable } => {
                self.contended(holder, watchable, now, step);
            }
            // What it found wrong was true of a configuration that is no more.
            Disposition::Permanent { .. } if self.run.reconfigured => {
                self.spawn(StartReason::ConfigChanged, now, step);
            }
            Disposition::Permanent { reason } => {
                self.books.last_failure = Some(reason.clone());
                self.park(ParkReason::Permanent { reason }, now, step);
            }
            Disposition::Dependency { reason } => self.dependency_failed(reason, now, step),
            Disposition::Crash { reason } => {
                let forgiven = ran_for > self.policy.stable_after || self.run.progressed;
                self.crashed(forgiven, reason, now, step);
            }
        }
    }

    pub(super) fn forgive_contention(&mut self) {
        self.books.contention.clear();
        self.books.last_gone = None;
    }

    pub(super) fn forgive_dependency(&mut self) {
        self.books.dependency = 0;
        self.books.early_dependency = 0;
    }

    /// Restarts at once within the clean budget, with a pause each beyond it.
    pub(super) fn restart_promptly(&mut self, now: Moment, step: &mut Step) {
        let policy = &self.policy;
        let count = self
            .books
            .clean
            .push(now, policy.clean_window, policy.clean_budget);
        let over = count > policy.clean_budget;
        if self.books.clean.announce(over) {
            step.notices.push(Notice::BudgetWarning {
                account: Account::Clean,
                count,
                budget: policy.clean_budget,
                window: policy.clean_window,
                peak: None,
            });
        }
        let pause = if over {
            policy.clean_pause
        } else {
            Duration::ZERO
        };
        let number = self.books.clean.in_a_row;
        self.wait(Account::Clean, number, pause, now, step);
    }

    pub(super) fn memory_capped(&mut self, peak: Option<u64>, now: Moment, step: &mut Step) {
        let policy = &self.policy;
        self.books.memory_peak = self.books.memory_peak.max(peak);
        let count = self
            .books
            .memory
            .push(now, policy.memory_window, policy.memory_budget);
        if self.books.memory.announce(count > policy.memory_budget) {
            step.notices.push(Notice::BudgetWarning {
                account: Account::Memory,
                count,
                budget: policy.memory_budget,
                window: policy.memory_window,
                peak: self.books.memory_peak,
            });
        }
        let pause = policy.memory_pause;
        let number = self.books.memory.in_a_row;
        self.wait(Account::Memory, number, pause, now, step);
    }

    pub(super) fn dependency_failed(&mut self, reason: String, now: Moment, step: &mut Step) {
        self.books.last_failure = Some(reason);
        let policy = &self.policy;
        let (first, cap) = (policy.dependency_first, policy.dependency_cap);
        self.books.dependency = self.books.dependency.saturating_add(1);
        let number = self.books.dependency;
        let pause = self
            .books
            .dice
            .vary(doubled(first, number, cap), policy.jitter);
        self.wait(Account::Dependency, number, pause, now, step);
    }

    pub(super) fn crashed(&mut self, forgiven: bool, reason: String, now: Moment, step: &mut Step) {
        self.books.last_failure = Some(reason.clone());
        if forgiven {
            self.books.early_crash = 0;
        }
        let policy = self.policy.clone();
        let in_window = self.books.crash.crash(forgiven, now, &policy);
        let number = self.books.crash.number;
        if policy.crash_hard > 0 && number >= policy.crash_hard {
            self.park(
                ParkReason::CrashLimit {
                    crashes: number,
                    last: reason,
                },
                now,
                step,
            );
            return;
        }
        let over = in_window > policy.crash_soft;
        if self.books.crash.window.announce(over) {
            step.notices.push(Notice::Degraded {
                number,
                in_window,
                window: policy.crash_window,
                pace: policy.backoff_cap,
            });
        }
        if over {
            let pause = self.books.dice.vary(policy.backoff_cap, policy.jitter);
            self.wait_degraded(number, pause, now, step);
        } else {
            let pause = doubled(policy.backoff_first, number, policy.backoff_cap);
            let pause = self.books.dice.vary(pause, policy.jitter);
            self.wait(Account::Crash, number, pause, now, step);
        }
    }
}
