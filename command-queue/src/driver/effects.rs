//! Doing and saying what a lane decided. Nothing here runs under a lock.

use std::sync::Arc;

use super::clock;
use super::lane::LaneCell;
use super::shared::Shared;
use super::slot::SlotNotice;
use super::task::TaskRef;
use crate::core::lane::WaitedLong;
use crate::core::step::{Blocked, Step};
use crate::error::TaskError;
use crate::id::TaskId;

impl Shared {
    /// Answers callers, fires cancel tokens, replaces threads, logs.
    pub(crate) fn carry_out(self: &Arc<Self>, lane: &Arc<LaneCell>, steps: Vec<Step<TaskRef>>) {
        let mut freed = 0_usize;
        for step in steps {
            self.notifier.event_of(lane, &step);
            match step {
                Step::Suspect {
                    seq,
                    item,
                    idle_for,
                    ran_for,
                } => {
                    log::warn!(
                        "lane task suspected: lane={} task={}.{seq} idleMs={} ranMs={}",
                        lane.name,
                        lane.number,
                        idle_for.as_millis(),
                        ran_for.as_millis()
                    );
                    self.notifier.notice(&item, SlotNotice::Suspected);
                }
                Step::AskProbe { seq, item } => self.ask(
                    lane,
                    TaskId {
                        lane: lane.number,
                        seq,
                    },
                    item,
                ),
                Step::ProbeSilent { seq, item } => {
                    item.header().silence_probe();
                    log::warn!(
                        "progress probe did not answer: lane={} task={}.{seq}",
                        lane.name,
                        lane.number
                    );
                }
                Step::Stop {
                    item,
                    cause,
                    idle_for,
                    ran_for,
                    ..
                } => {
                    let error = cause.error(Arc::clone(&lane.name), idle_for, ran_for);
                    item.cancel();
                    self.notifier.notice(&item, SlotNotice::Stop(error.clone()));
                    item.reject(error);
                }
                Step::Freed { seq, replace, .. } => {
                    freed += 1;
                    if replace {
                        self.pool.lose_thread(self);
                    }
                    let permit = lane.lock().take_permit(seq);
                    if let Some(group) = permit {
                        self.give_back(&group);
                    }
                }
                Step::Kept { replace, .. } => {
                    if replace {
                        self.pool.lose_thread(self);
                    }
                }
                Step::Expired {
                    item,
                    waited,
                    behind,
                    ..
                } => {
                    let behind = behind.map(|seq| TaskId {
                        lane: lane.number,
                        seq,
                    });
                    self.reject(
                        &item,
                        TaskError::QueuedTooLong {
                            lane: Arc::clone(&lane.name),
                            waited,
                            behind,
                        },
                    );
                }
                Step::Blocked(blocked) => say_blocked(lane, blocked),
                Step::Ineffective(blocked) => say_ineffective(lane, blocked),
            }
        }
        if freed > 0 {
            say_reclaimed(lane, freed);
        }
    }

    pub(crate) fn say_waited(&self, lane: &LaneCell, seq: u64, report: WaitedLong) {
        self.notifier.waited(lane, seq, report);
        log::warn!(
            "lane wait exceeded: lane={} task={}.{seq} waitedMs={} queueAhead={} activeNow={} queueBehind={} suppressed={}",
            lane.name,
            lane.number,
            report.waited.as_millis(),
            report.ahead,
            report.active,
            report.behind,
            report.suppressed
        );
    }

    pub(crate) fn say_late(&self, lane: &LaneCell, seq: u64) {
        log::debug!(
            "task {}.{seq} in lane `{}` ended after it had been given up; its result is dropped",
            lane.number,
            lane.name
        );
        self.notifier.returned_late(lane, seq);
    }

    /// Asks the owner of a task for progress, on a thread of its own: the owner may block.
    fn ask(self: &Arc<Self>, lane: &Arc<LaneCell>, id: TaskId, task: TaskRef) {
        let shared = Arc::clone(self);
        let asked = Arc::clone(lane);
        let silent = Arc::clone(&task);
        let name = format!("{}-probe", self.config.thread_name);
        let spawned = std::thread::Builder::new().name(name).spawn(move || {
            if !task.header().ask_probe() {
                log::warn!("progress probe failed: lane={} task={id}", asked.name);
            }
            shared.look_now(&asked);
        });
        if spawned.is_err() {
            silent.header().silence_probe();
            self.look_now(lane);
        }
    }

    /// Looks at a lane as if its alarm had rung.
    fn look_now(self: &Arc<Self>, lane: &Arc<LaneCell>) {
        let now = clock::now();
        self.visit(lane, |state, steps| {
            state.core.look_at(now);
            state.core.tick(
                now,
                &self.phantoms,
                &mut |task| task.header().look(now),
                steps,
            );
        });
    }
}

fn say_blocked(lane: &LaneCell, blocked: Blocked) {
    log::warn!(
        "lane dispatch blocked: lane={} active={} maxConcurrent={} queued={} oldestActiveAgeMs={} full={} abandoned={} wedged={} suppressed={}",
        lane.name,
        blocked.active,
        blocked.width,
        blocked.queued,
        blocked.oldest_active.as_millis(),
        blocked.full,
        blocked.abandoned,
        blocked.wedged,
        blocked.suppressed
    );
}

fn say_ineffective(lane: &LaneCell, blocked: Blocked) {
    log::warn!(
        "recovery ineffective: lane={} active={} maxConcurrent={} queued={} abandoned={} wedged={}",
        lane.name,
        blocked.active,
        blocked.width,
        blocked.queued,
        blocked.abandoned,
        blocked.wedged
    );
}

fn say_reclaimed(lane: &LaneCell, reclaimed: usize) {
    let (active, queued, ceiling) = {
        let state = lane.lock();
        (
            state.core.occupied(),
            state.core.queued(),
            state.core.config().stall_ceiling.span(),
        )
    };
    log::warn!(
        "lane slot reclaimed: lane={} reclaimed={reclaimed} ceilingMs={} active={active} queued={queued}",
        lane.name,
        ceiling.map_or(0, |span| span.as_millis()),
    );
}
