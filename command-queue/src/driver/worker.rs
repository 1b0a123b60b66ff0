//! The life of a worker: take a token, start one task of that lane, run it, give the slot back.
//!
//! Lanes take turns. A turn is one task, or several that together take no longer than ten microseconds; the next
//! task starts under the same lock that ended the last. A worker stays longer only while no other lane has a
//! token in the channel: there is nobody to be unfair to then.

use std::sync::Arc;
use std::time::Instant;

use super::clock;
use super::context::{TaskContext, set_current_lane};
use super::lane::{LaneCell, Token};
use super::pool::Taken;
use super::shared::Shared;
use super::slot::Grant;
use super::task::{TaskRef, discard};
use crate::core::Outcome;
use crate::core::lane::{Claimed, Ended};

/// What the end of a task changed.
pub(crate) struct Finished {
    /// The outcome counts, so the caller gets it.
    pub(crate) counted: bool,
    /// This worker had been given up and replaced.
    replaced: bool,
    /// The lane's next task, which was started at once.
    next: Option<Claimed<TaskRef>>,
}

enum Turn {
    Again(Claimed<TaskRef>),
    Over,
    /// This worker had been given up and replaced; there is one too many.
    Leave,
}

pub(crate) fn work(shared: &Arc<Shared>) {
    let mut now = clock::now();
    while let Some(Taken { mut lane, rested }) = shared.pool.next(shared) {
        if rested {
            now = clock::now();
        }
        let mut claimed = shared.start(&lane, now);
        let turn_ends = now.checked_add(shared.config.turn).unwrap_or(now);
        set_current_lane(Some(lane.number));
        while let Some(task) = claimed {
            let (same, turn) = run(shared, lane, task, turn_ends, &mut now);
            lane = same;
            claimed = match turn {
                Turn::Again(next) => Some(next),
                Turn::Over => None,
                Turn::Leave => return,
            };
        }
    }
}

fn run(
    shared: &Arc<Shared>,
    lane: Arc<LaneCell>,
    claimed: Claimed<TaskRef>,
    turn_ends: Instant,
    now: &mut Instant,
) -> (Arc<LaneCell>, Turn) {
    let Claimed {
        seq,
        index,
        item: task,
        late,
    } = claimed;
    if let Some(report) = late {
        shared.say_waited(&lane, seq, *report);
    }
    if task.is_slot() {
        let grant = Grant {
            lane: Arc::clone(&lane),
            task: Arc::clone(&task),
            seq,
            index,
        };
        task.accept(grant);
        *now = clock::now();
        return (lane, Turn::Over);
    }
    let mut turn = Turn::Over;
    let context = TaskContext { lane, task, seq };
    context.task.run(&context, &mut |outcome| {
        *now = clock::now();
        let finished = shared.finish(&context.lane, (seq, index), outcome, *now, Some(turn_ends));
        turn = match finished.next {
            _ if finished.replaced => Turn::Leave,
            Some(next) => Turn::Again(next),
            None => Turn::Over,
        };
        finished.counted
    });
    let TaskContext { lane, task, .. } = context;
    // This may be the last to know a result that nobody asked for, and whose Drop may panic.
    discard(task);
    (lane, turn)
}

impl Shared {
    /// Uses a lane's token: starts one task, if the lane and its group have a slot.
    fn start(self: &Arc<Self>, lane: &Arc<LaneCell>, now: Instant) -> Option<Claimed<TaskRef>> {
        let mut state = lane.lock_unread();
        let mut permit = state.take_granted();
        if permit.is_none()
            && state.core.is_dispatchable()
            && let Some(group) = state.group().cloned()
        {
            if !group.take_or_park(lane) {
                state.token = Token::Parked;
                return None;
            }
            permit = Some(group);
        }
        state.token = Token::None;
        let claimed = state.core.claim(now);
        if let Some(claimed) = &claimed
            && let Some(group) = permit.take()
        {
            state.keep_permit(claimed.seq, group);
        }
        let after = lane.after(&mut state, now);
        drop(state);
        self.follow_up(lane, now, after, Vec::new());
        if let Some(unused) = permit {
            self.give_back(&unused);
        }
        claimed
    }

    /// Returns whether a worker may go on with the same lane. Nobody else may.
    fn may_stay(&self, stay_until: Option<Instant>, now: Instant) -> bool {
        stay_until.is_some_and(|until| now < until || self.pool.is_quiet())
    }

    /// Ends a task that ran. A worker says until when it may stay: until then, or while no other lane
    /// waits for a worker, the lane's next task is started in the same breath.
    pub(crate) fn finish(
        self: &Arc<Self>,
        lane: &Arc<LaneCell>,
        (seq, index): (u64, u32),
        outcome: Outcome,
        now: Instant,
        stay_until: Option<Instant>,
    ) -> Finished {
        let mut state = lane.lock_unread();
        if outcome == Outcome::Finished
            && self.may_stay(stay_until, now)
            && let Some(next) = lane.succeed(&mut state, (seq, index), now)
        {
            drop(state);
            self.ring();
            return Finished {
                counted: true,
                replaced: false,
                next: Some(next),
            };
        }
        let mut steps = Vec::new();
        let ended = state
            .core
            .finish(seq, index, outcome, now, &self.phantoms, &mut steps);
        let permit = state.take_permit(seq);
        // Under the lane's lock, so that whoever sees the lane idle sees the place given back, too.
        let handed_to = permit.as_ref().and_then(|group| group.give_back());
        lane.absorb_if_empty(&mut state);
        let stay = ended == Ended::Counted
            && state.token == Token::None
            && state.group().is_none()
            && state.core.is_dispatchable()
            && self.may_stay(stay_until, now);
        let next = if stay { state.core.claim(now) } else { None };
        let after = lane.after(&mut state, now);
        drop(state);
        if !stay {
            self.pool.turned_over(now);
        }
        self.ring();
        self.follow_up(lane, now, after, steps);
        if let (Some(group), Some(next)) = (permit, handed_to) {
            self.hand_over(&group, next);
        }
        self.watchdog.sweep_later(self.config.lane_retention);
        match ended {
            Ended::Counted => Finished {
                counted: true,
                replaced: false,
                next,
            },
            Ended::SlotOnly { thread_lost } | Ended::Phantom { thread_lost } => {
                self.say_late(lane, seq);
                if thread_lost {
                    self.retry_kept();
                }
                Finished {
                    counted: false,
                    replaced: thread_lost,
                    next,
                }
            }
            Ended::Unknown => Finished {
                counted: false,
                replaced: false,
                next,
            },
        }
    }
}
