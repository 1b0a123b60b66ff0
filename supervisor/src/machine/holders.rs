//! Somebody else holds the place.

use super::Machine;
use crate::Moment;
use crate::account::same_process;
use crate::event::{Action, Holder, Notice, ParkReason, StartReason, Step, UnparkedBy};
use crate::state::State;

impl Machine {
    pub(super) fn holder_gone(&mut self, now: Moment, step: &mut Step) {
        let holder = match &self.state {
            State::Held { holder, .. } | State::Contended { holder, .. } => holder.clone(),
            State::Parked {
                reason: ParkReason::Contended { holder, .. },
                ..
            } => {
                let holder = holder.clone();
                self.unpark(UnparkedBy::HolderGone, step);
                holder
            }
            State::Idle { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Ending { .. }
            | State::Backoff { .. }
            | State::Degraded { .. }
            | State::Parked { .. }
            | State::Stopping { .. }
            | State::Stopped { .. } => return,
        };
        step.notices.push(Notice::HolderGone {
            holder: holder.clone(),
        });
        self.books.last_gone = Some(holder);
        self.spawn(StartReason::HolderGone, now, step);
    }

    pub(super) fn holder_unwatchable(&mut self, now: Moment, step: &mut Step) {
        if let State::Held { holder, .. } = &self.state {
            let holder = holder.clone();
            self.refused(&holder, now, step);
        }
    }

    /// Somebody holds the place. One who can be watched is waited for; one who
    /// cannot, or who was reported gone and is here again, is probed.
    pub(super) fn contended(
        &mut self,
        holder: Holder,
        watchable: bool,
        now: Moment,
        step: &mut Step,
    ) {
        let ghost = self
            .books
            .last_gone
            .as_ref()
            .is_some_and(|gone| same_process(gone, &holder));
        if !watchable || ghost || holder.pid == 0 {
            self.refused(&holder, now, step);
            return;
        }
        if self.run.reason == Some(StartReason::HolderGone) {
            // Holders that come and go as fast as they are waited for would
            // otherwise make a loop without any pause.
            let taken =
                self.books
                    .takeovers
                    .push(now, self.policy.clean_window, self.policy.clean_budget);
            if taken > self.policy.clean_budget {
                self.refused(&holder, now, step);
                return;
            }
        }
        self.leave_park(step);
        step.action = Some(Action::Watch {
            holder: holder.clone(),
        });
        step.notices.push(Notice::Held {
            holder: holder.clone(),
        });
        self.state = State::Held { holder, since: now };
    }

    pub(super) fn refused(&mut self, holder: &Holder, now: Moment, step: &mut Step) {
        if let Some((ParkReason::Contended { holder: known, .. }, _)) = &self.run.probe_of
            && same_process(known, holder)
        {
            self.stay_parked(now);
            return;
        }
        self.leave_park(step);
        let (refusals, since) = self.books.contention.refuse(holder, now);
        let pauses = &self.policy.contention_pauses;
        let Some(pause) = pauses.get(refusals as usize - 1).copied() else {
            self.park(
                ParkReason::Contended {
                    holder: holder.clone(),
                    since,
                    refusals,
                },
                now,
                step,
            );
            return;
        };
        let until = now + pause;
        step.notices.push(Notice::Contended {
            holder: holder.clone(),
            refusals,
            until,
        });
        self.state = State::Contended {
            until,
            holder: holder.clone(),
            refusals,
            since,
        };
    }

    /// A probe from the park met what it was parked for: nothing new to tell.
    pub(super) fn stay_parked(&mut self, now: Moment) {
        if let Some((reason, since)) = self.run.probe_of.take() {
            self.rest_parked(reason, since, now);
        }
    }

    /// A probe from the park met something else: the park is over.
    pub(super) fn leave_park(&mut self, step: &mut Step) {
        if self.run.probe_of.take().is_some() {
            self.unpark(UnparkedBy::HolderGone, step);
        }
    }
}
