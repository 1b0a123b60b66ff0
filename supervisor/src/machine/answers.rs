//! What came of an attempt to start.

use std::time::Duration;

use super::{Machine, Run};
use crate::Moment;
use crate::event::{
    Account, Action, Generation, Notice, ParkReason, SpawnFailure, StartReason, Step, UnparkedBy,
};
use crate::state::{AfterStop, State};

impl Machine {
    pub(super) fn is_starting(&self, of: Generation) -> bool {
        matches!(self.state, State::Starting { generation, .. } if generation == of)
    }

    pub(super) fn not_needed(&mut self, now: Moment, step: &mut Step) {
        if self.run.ask_again {
            // The answer may have been made before the work arrived.
            self.spawn(StartReason::Woken, now, step);
            return;
        }
        self.leave_park(step);
        self.forgive_contention();
        self.state = State::Idle { since: now };
        step.notices.push(Notice::Idle);
    }

    pub(super) fn not_now(
        &mut self,
        reason: String,
        after: Duration,
        now: Moment,
        step: &mut Step,
    ) {
        let until = now + after.max(LEAST_REPEAT);
        if self.run.probe_of.is_some() {
            self.stay_parked(now);
            return;
        }
        step.notices.push(Notice::NotNow { reason, until });
        self.state = State::Backoff {
            since: now,
            until,
            account: Account::NotNow,
            number: 1,
        };
    }

    pub(super) fn spawn_failed(
        &mut self,
        generation: Generation,
        failure: SpawnFailure,
        now: Moment,
        step: &mut Step,
    ) {
        self.leave_park(step);
        step.notices.push(Notice::SpawnFailed {
            generation,
            failure: failure.clone(),
        });
        self.forgive_contention();
        match failure {
            SpawnFailure::Permanent { .. } if self.run.reconfigured => {
                self.spawn(StartReason::ConfigChanged, now, step);
            }
            SpawnFailure::Permanent { reason } => {
                self.books.last_failure = Some(reason.clone());
                self.park(ParkReason::Permanent { reason }, now, step);
            }
            SpawnFailure::Transient { reason } => self.crashed(false, reason, now, step),
        }
    }

    pub(super) fn spawned(
        &mut self,
        generation: Generation,
        pid: u32,
        now: Moment,
        step: &mut Step,
    ) {
        let State::Starting {
            generation: expected,
            reason,
            ..
        } = &self.state
        else {
            // A driver that obeys the epoch never gets here. One that does not
            // has a process that nobody wants: it is ended, not forgotten.
            if self.state.process().is_none() && generation == self.books.generation {
                self.state = State::Stopping {
                    since: now,
                    pid,
                    generation,
                    then: AfterStop::StayDown,
                };
            }
            step.action = Some(Action::Terminate { generation });
            return;
        };
        if *expected != generation {
            step.action = Some(Action::Terminate { generation });
            return;
        }
        // The books of contention stay open: a process that leaves because it
        // finds its place taken goes on with the ladder where the probes were.
        let reason = *reason;
        self.leave_park(step);
        self.run = Run {
            reason: Some(reason),
            since: now,
            reconfigured: self.run.reconfigured,
            ..Run::default()
        };
        self.state = State::Running {
            since: now,
            pid,
            generation,
            adopted: false,
        };
        step.notices.push(Notice::Spawned {
            generation,
            pid,
            reason,
        });
    }

    pub(super) fn adopted(&mut self, pid: u32, since: Moment, now: Moment, step: &mut Step) {
        if self.state.process().is_some() {
            return;
        }
        if let State::Parked { .. } = self.state {
            self.unpark(UnparkedBy::Adopted, step);
        }
        self.books.epoch.0 += 1;
        self.books.generation.0 += 1;
        self.books.contention.clear();
        let generation = self.books.generation;
        let since = since.min(now);
        self.run = Run {
            since,
            ..Run::default()
        };
        self.state = State::Running {
            since,
            pid,
            generation,
            adopted: true,
        };
        step.notices.push(Notice::Adopted { generation, pid });
    }
}

/// A host that answers "ask again at once" must not make the driver spin.
const LEAST_REPEAT: Duration = Duration::from_millis(100);
