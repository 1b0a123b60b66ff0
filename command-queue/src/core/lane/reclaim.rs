//! What time does to a lane: tasks are suspected, stopped and given up, slots are taken back or kept, waits end.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Lane, Phantom, WaitedLong};
use crate::config::Overrun;
use crate::core::active::{Cause, Held, Judgement, Look, Stage, earlier};
use crate::core::phantom::PhantomBudget;
use crate::core::step::{Blocked, Step};
use crate::snapshot::ResetReport;

/// How long the owner of a task may take to say when it last made progress.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

impl<T: Clone> Lane<T> {
    /// Frees slots that were kept only because there were too many phantoms.
    pub(crate) fn release_kept(
        &mut self,
        now: Instant,
        budget: &PhantomBudget,
        steps: &mut Vec<Step<T>>,
    ) {
        for index in 0..self.active.places() {
            let kept = self
                .active
                .get_mut(index)
                .is_some_and(|active| active.stage == Stage::Abandoned(Held::ByPhantoms));
            if kept && !self.release(index, now, budget, steps) {
                break;
            }
        }
    }

    /// Stops everything that runs and keeps everything that waits.
    pub(crate) fn reset(
        &mut self,
        now: Instant,
        budget: &PhantomBudget,
        steps: &mut Vec<Step<T>>,
    ) -> ResetReport {
        let mut report = ResetReport {
            cancelled: 0,
            freed: 0,
            kept: 0,
            queued: self.waiting.len(),
        };
        for index in 0..self.active.places() {
            let Some(active) = self.active.get_mut(index) else {
                continue;
            };
            match active.stage {
                Stage::Live | Stage::Asked { .. } => {
                    self.stop(index, Cause::Reset, now, steps);
                    report.cancelled += 1;
                }
                Stage::Cancelling { .. } | Stage::Abandoned(_) => {}
            }
            if self.release(index, now, budget, steps) {
                report.freed += 1;
            } else {
                report.kept += 1;
            }
        }
        if report.kept > 0 && report.freed == 0 {
            let blocked = self.describe(now, 0);
            steps.push(Step::Ineffective(blocked));
        }
        self.rearm();
        report
    }

    /// Looks at everything that is due.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        budget: &PhantomBudget,
        look: &mut dyn FnMut(&T) -> Look,
        steps: &mut Vec<Step<T>>,
    ) {
        if self.next_check.is_none_or(|at| at > now) {
            return;
        }
        let (mut freed, mut kept) = (0_usize, 0_usize);
        for index in 0..self.active.places() {
            let Some(active) = self.active.get_mut(index) else {
                continue;
            };
            match active.stage {
                Stage::Live | Stage::Asked { .. } => self.judge(index, now, look, steps),
                Stage::Cancelling { .. } | Stage::Abandoned(_) => {}
            }
            let Some(active) = self.active.get_mut(index) else {
                continue;
            };
            if let Stage::Cancelling { until } = active.stage
                && until <= now
            {
                if self.release(index, now, budget, steps) {
                    freed += 1;
                } else {
                    kept += 1;
                }
            }
        }
        self.expire(now, steps);
        // The lane is looked at again: a recovery that recovered nothing is said to be one.
        if kept > 0 && freed == 0 {
            let blocked = self.describe(now, 0);
            steps.push(Step::Ineffective(blocked));
        }
        self.warn_blocked(now, steps);
        self.rearm();
    }

    /// Somebody submits to a full lane: it looks for stalls now instead of when the timer comes, and says that
    /// it is blocked, at most once per span.
    pub(crate) fn asked_while_full(
        &mut self,
        now: Instant,
        budget: &PhantomBudget,
        look: &mut dyn FnMut(&T) -> Look,
        steps: &mut Vec<Step<T>>,
    ) {
        if self.next_check.is_some_and(|at| at <= now) {
            self.tick(now, budget, look, steps);
        } else if self.rare.is_some() {
            // Something was reported before, so there may be a report to suppress and count.
            self.warn_blocked(now, steps);
        }
    }

    pub(super) fn warn_blocked(&mut self, now: Instant, steps: &mut Vec<Step<T>>) {
        if self.is_paused() || self.stands_still_since().is_none_or(|since| since > now) {
            return;
        }
        let every = self.config.warn_every;
        if let Some(suppressed) = self.rare().blocked.admit(now, every) {
            let blocked = self.describe(now, suppressed);
            steps.push(Step::Blocked(blocked));
        }
    }

    fn judge(
        &mut self,
        index: u32,
        now: Instant,
        look: &mut dyn FnMut(&T) -> Look,
        steps: &mut Vec<Step<T>>,
    ) {
        let config = Arc::clone(&self.config);
        let Some(active) = self.active.get_mut(index) else {
            return;
        };
        if matches!(active.judge(&config, now), Judgement::Fine) {
            return;
        }
        match look(&active.item) {
            Look::Known(progress) => {
                active.stage = Stage::Live;
                if let Some(at) = progress.filter(|at| *at <= now) {
                    active.renew(at);
                }
            }
            Look::Ask => match active.stage {
                Stage::Asked { until } if now < until => return,
                Stage::Asked { .. } => {
                    active.stage = Stage::Live;
                    steps.push(Step::ProbeSilent {
                        seq: active.seq,
                        item: active.item.clone(),
                    });
                }
                Stage::Live | Stage::Cancelling { .. } | Stage::Abandoned(_) => {
                    let until = now.checked_add(PROBE_PATIENCE).unwrap_or(now);
                    active.stage = Stage::Asked { until };
                    steps.push(Step::AskProbe {
                        seq: active.seq,
                        item: active.item.clone(),
                    });
                    return;
                }
            },
        }
        let idle_for = now.saturating_duration_since(active.progress);
        let ran_for = now.saturating_duration_since(active.started);
        match active.judge(&config, now) {
            Judgement::Fine => {}
            Judgement::Suspect => {
                active.suspected = true;
                steps.push(Step::Suspect {
                    seq: active.seq,
                    item: active.item.clone(),
                    idle_for,
                    ran_for,
                });
            }
            Judgement::Stop(cause) => self.stop(index, cause, now, steps),
        }
    }

    /// Settles a running task with an error and gives it the grace to end.
    pub(super) fn stop(
        &mut self,
        index: u32,
        cause: Cause,
        now: Instant,
        steps: &mut Vec<Step<T>>,
    ) {
        let until = now.checked_add(self.config.cancel_grace).unwrap_or(now);
        let Some(active) = self.active.get_mut(index) else {
            return;
        };
        active.stage = Stage::Cancelling { until };
        self.live -= 1;
        self.cancelling += 1;
        steps.push(Step::Stop {
            seq: active.seq,
            item: active.item.clone(),
            cause,
            idle_for: now.saturating_duration_since(active.progress),
            ran_for: now.saturating_duration_since(active.started),
        });
        let totals = &mut self.rare().totals;
        match cause {
            Cause::Stalled => totals.stalled += 1,
            Cause::TimedOut { .. } => totals.timed_out += 1,
            Cause::Reset => totals.cancelled += 1,
        }
    }

    /// Gives a stopped task up. Returns whether its slot came free.
    pub(super) fn release(
        &mut self,
        index: u32,
        now: Instant,
        budget: &PhantomBudget,
        steps: &mut Vec<Step<T>>,
    ) -> bool {
        let (overrun, max_phantoms) = (self.config.overrun, self.config.max_phantoms);
        let phantoms = self.phantoms();
        let Some(active) = self.active.get_mut(index) else {
            return false;
        };
        let first = matches!(active.stage, Stage::Cancelling { .. });
        if overrun == Overrun::Free && phantoms < max_phantoms {
            // A unit may have been spent on the thread when the task was first given up.
            let paid = active.threadless || active.thread_lost || budget.try_take();
            if paid && let Some(active) = self.active.remove(index) {
                self.cancelling -= u32::from(first);
                self.rare().totals.reclaimed += 1;
                let ran_for = now.saturating_duration_since(active.started);
                let thread_lost = !active.threadless;
                let replace = thread_lost && !active.thread_lost;
                self.rare().phantoms.push(Phantom {
                    seq: active.seq,
                    thread_lost,
                });
                steps.push(Step::Freed {
                    seq: active.seq,
                    replace,
                    ran_for,
                });
                return true;
            }
        }
        let Some(active) = self.active.get_mut(index) else {
            return false;
        };
        if first {
            let held = if overrun == Overrun::Hold {
                Held::ByLane
            } else {
                Held::ByPhantoms
            };
            active.stage = Stage::Abandoned(held);
            // The slot stays, but the pool need not do without the thread, if the budget allows.
            active.thread_lost = !active.threadless && phantoms < max_phantoms && budget.try_take();
            self.cancelling -= 1;
            steps.push(Step::Kept {
                seq: active.seq,
                replace: active.thread_lost,
                ran_for: now.saturating_duration_since(active.started),
            });
        }
        false
    }

    fn expire(&mut self, now: Instant, steps: &mut Vec<Step<T>>) {
        let behind = self
            .active
            .iter()
            .map(|active| (active.started, active.seq))
            .min()
            .map(|(_, seq)| seq);
        let Some(rare) = &mut self.rare else { return };
        while let Some(Reverse((at, seq))) = rare.expiries.peek().copied() {
            if at > now {
                break;
            }
            rare.expiries.pop();
            if let Some((since, item)) = self.waiting.remove(seq) {
                rare.totals.timed_out += 1;
                let waited = now.saturating_duration_since(since);
                steps.push(Step::Expired {
                    seq,
                    item,
                    waited,
                    behind,
                });
            }
        }
    }

    /// Returns from when on the lane counts as standing still, if anything waits.
    pub(super) fn stands_still_since(&self) -> Option<Instant> {
        let oldest = self.waiting.oldest()?;
        let since = self.last_dispatch.map_or(oldest, |last| last.max(oldest));
        since.checked_add(self.config.warn_after)
    }

    pub(super) fn blocked_due(&self) -> Option<Instant> {
        let still = self.stands_still_since()?;
        let opens = self
            .rare
            .as_ref()
            .and_then(|rare| rare.blocked.opens_at(self.config.warn_every));
        Some(opens.map_or(still, |opens| opens.max(still)))
    }

    pub(super) fn waited_long(
        &mut self,
        now: Instant,
        waited: Duration,
        ahead: u32,
    ) -> Option<WaitedLong> {
        let every = self.config.warn_every;
        let suppressed = self.rare().waited.admit(now, every)?;
        Some(WaitedLong {
            waited,
            ahead: ahead as usize,
            active: self.active.len(),
            behind: self.waiting.len(),
            suppressed,
        })
    }

    pub(super) fn describe(&self, now: Instant, suppressed: u64) -> Blocked {
        let age = |since: Option<Instant>| {
            since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
        };
        Blocked {
            active: self.active.len(),
            width: self.width(),
            queued: self.waiting.len(),
            oldest_active: age(self.oldest_active()),
            oldest_queued: age(self.waiting.oldest()),
            abandoned: self.abandoned(),
            wedged: self.is_wedged(),
            full: self.is_full(),
            suppressed,
        }
    }

    /// Recomputes the deadline from what is there.
    pub(super) fn rearm(&mut self) {
        let config = &self.config;
        let mut next = None;
        for active in self.active.iter() {
            next = earlier(next, active.due(config));
        }
        if let Some(rare) = &self.rare {
            next = earlier(next, rare.expiries.peek().map(|Reverse((at, _))| *at));
        }
        if !self.is_paused() {
            next = earlier(next, self.blocked_due());
        }
        self.next_check = next;
        self.moved = true;
    }
}
