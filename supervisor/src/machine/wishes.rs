//! What people and programs want.

use super::Machine;
use crate::Moment;
use crate::account::first_at_cap;
use crate::event::{Account, Action, Notice, StartReason, Step, UnparkedBy};
use crate::state::{AfterStop, State, StopReason};

impl Machine {
    pub(super) fn start(&mut self, now: Moment, step: &mut Step) {
        match &mut self.state {
            State::Idle { .. } | State::Stopped { .. } => {
                self.spawn(StartReason::Asked, now, step);
            }
            State::Stopping { then, .. } => *then = AfterStop::Start,
            State::Starting { .. } => self.run.ask_again = true,
            // All of these come up by themselves, or say what they wait for.
            State::Running { .. }
            | State::Ending { .. }
            | State::Backoff { .. }
            | State::Degraded { .. }
            | State::Held { .. }
            | State::Contended { .. }
            | State::Parked { .. } => {}
        }
    }

    pub(super) fn stop(&mut self, now: Moment, after: AfterStop, step: &mut Step) {
        self.books.epoch.0 += 1;
        match &mut self.state {
            State::Running {
                pid, generation, ..
            } => {
                let (pid, generation) = (*pid, *generation);
                self.state = State::Stopping {
                    since: now,
                    pid,
                    generation,
                    then: after,
                };
                step.action = Some(Action::Terminate { generation });
                let restart = after == AfterStop::Start;
                step.notices.push(Notice::Stopping {
                    generation,
                    pid,
                    restart,
                });
            }
            State::Ending {
                pid, generation, ..
            } => {
                // The process is gone already; only what follows changes.
                let (pid, generation) = (*pid, *generation);
                self.state = State::Stopping {
                    since: now,
                    pid,
                    generation,
                    then: after,
                };
            }
            State::Stopping { then, .. } => *then = after,
            State::Stopped { .. } => {}
            State::Idle { .. }
            | State::Starting { .. }
            | State::Backoff { .. }
            | State::Degraded { .. }
            | State::Held { .. }
            | State::Contended { .. }
            | State::Parked { .. } => self.stopped(StopReason::Asked, now, step),
        }
    }

    pub(super) fn kill(&mut self, now: Moment, step: &mut Step) {
        let process = self.state.process();
        self.stop(now, AfterStop::StayDown, step);
        if let Some((_, generation)) = process {
            step.action = Some(Action::Kill { generation });
        }
    }

    pub(super) fn restart(&mut self, now: Moment, step: &mut Step) {
        match &self.state {
            State::Running { .. } | State::Ending { .. } | State::Stopping { .. } => {
                self.stop(now, AfterStop::Start, step);
            }
            State::Idle { .. } | State::Stopped { .. } => self.start(now, step),
            State::Starting { .. } => self.run.ask_again = true,
            State::Backoff { .. }
            | State::Degraded { .. }
            | State::Held { .. }
            | State::Contended { .. }
            | State::Parked { .. } => {}
        }
    }

    pub(super) fn resume(&mut self, now: Moment, step: &mut Step) {
        match &mut self.state {
            State::Parked { .. } => {
                self.unpark(UnparkedBy::Resume, step);
                self.spawn(StartReason::Resumed, now, step);
            }
            // A rate that stays booked would pace it again at the next crash.
            State::Degraded { .. } => {
                self.forgive_crashes();
                self.spawn(StartReason::Resumed, now, step);
            }
            // For a holder that is watched this is a look, no more: the host is
            // asked before anything is started.
            State::Idle { .. }
            | State::Backoff { .. }
            | State::Held { .. }
            | State::Contended { .. }
            | State::Stopped { .. } => self.spawn(StartReason::Resumed, now, step),
            State::Stopping { then, .. } => *then = AfterStop::Start,
            State::Starting { .. } => self.run.ask_again = true,
            State::Running { .. } | State::Ending { .. } => {}
        }
    }

    pub(super) fn wake(&mut self, now: Moment, step: &mut Step) {
        match &self.state {
            State::Idle { .. } => self.spawn(StartReason::Woken, now, step),
            State::Starting { .. } => self.run.ask_again = true,
            State::Backoff {
                account, number, ..
            } => {
                let (account, number) = (*account, *number);
                if self.may_cut_short(account, number) {
                    step.notices.push(Notice::WokenEarly { account, number });
                    self.spawn(StartReason::WokenEarly, now, step);
                }
            }
            // After every ending the host is asked before the unit settles, so
            // work that arrives while there is a process is not forgotten.
            State::Running { .. }
            | State::Ending { .. }
            | State::Stopping { .. }
            | State::Degraded { .. }
            | State::Held { .. }
            | State::Contended { .. }
            | State::Parked { .. }
            | State::Stopped { .. } => {}
        }
    }

    /// Once per number and account. All numbers of a dependency whose pause is the
    /// cap are one here, so a stream of messages cannot turn a long pause into none.
    pub(super) fn may_cut_short(&mut self, account: Account, number: u32) -> bool {
        let (used, number) = match account {
            Account::Crash => (&mut self.books.early_crash, number),
            Account::Dependency => {
                let policy = &self.policy;
                let longest = first_at_cap(policy.dependency_first, policy.dependency_cap);
                (&mut self.books.early_dependency, number.min(longest))
            }
            Account::Clean
            | Account::Memory
            | Account::Contention
            | Account::Release
            | Account::NotNow => return false,
        };
        if *used == number {
            return false;
        }
        *used = number;
        true
    }

    pub(super) fn config_changed(&mut self, now: Moment, step: &mut Step) {
        match &self.state {
            State::Parked { .. } => {
                self.unpark(UnparkedBy::ConfigChanged, step);
                self.spawn(StartReason::ConfigChanged, now, step);
            }
            State::Backoff { .. }
            | State::Degraded { .. }
            | State::Held { .. }
            | State::Contended { .. } => {
                self.spawn(StartReason::ConfigChanged, now, step);
            }
            State::Starting { .. } => {
                self.run.ask_again = true;
                self.run.reconfigured = true;
            }
            State::Running { .. } | State::Ending { .. } => self.run.reconfigured = true,
            State::Idle { .. } | State::Stopping { .. } | State::Stopped { .. } => {}
        }
    }

    pub(super) fn unpark(&mut self, by: UnparkedBy, step: &mut Step) {
        step.notices.push(Notice::Unparked { by });
        self.books.contention.clear();
        match by {
            UnparkedBy::Resume | UnparkedBy::ConfigChanged => {
                self.forgive_crashes();
                self.forgive_dependency();
            }
            UnparkedBy::HolderGone | UnparkedBy::Adopted => {}
        }
    }

    fn forgive_crashes(&mut self) {
        self.books.crash.clear();
        self.books.early_crash = 0;
    }
}
