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

/// How often a worker looks for more before it leaves a lane that has nothing left: a few microseconds.
const LINGER: u32 = 100;

/// What the end of a task changed.
pub(crate) struct Finished {
    /// The outcome counts, so the caller gets it.
    pub(crate) counted: bool,
    /// This worker had been given up and replaced.
    replaced: bool,
    /// The lane's next task, which was started at once.
    next: Option<Claimed<TaskRef>>,
    /// The worker has the lane's token in its hands, in case that more comes in a moment.
    lingers: bool,
}

impl Finished {
    /// The outcome counts, and the lane's next task was started in the same breath.
    fn followed_by(next: Claimed<TaskRef>) -> Self {
        Self {
            counted: true,
            replaced: false,
            next: Some(next),
            lingers: false,
        }
    }
}

enum Turn {
    Again(Claimed<TaskRef>),
    /// The lane has nothing left, and this worker has its token.
    Linger,
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
        let mut turn_ends = now.checked_add(shared.config.turn).unwrap_or(now);
        set_current_lane(Some(lane.number));
        while let Some(task) = claimed {
            let (same, turn) = run(shared, lane, task, turn_ends, &mut now);
            lane = same;
            claimed = match turn {
                Turn::Again(next) => Some(next),
                Turn::Linger => {
                    shared.linger(&lane);
                    now = clock::now();
                    turn_ends = now.checked_add(shared.config.turn).unwrap_or(now);
                    shared.start(&lane, now)
                }
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
        let finished = shared.finish_turn(&context.lane, (seq, index), outcome, now, turn_ends);
        turn = match finished.next {
            _ if finished.replaced => Turn::Leave,
            Some(next) => Turn::Again(next),
            None if finished.lingers => Turn::Linger,
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
        lane.absorb_if_empty(&mut state);
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

    /// Stays with a lane that has nothing left for about as long as it takes to put its token into the channel and to be woken
    /// by it, or until another lane needs a worker. The caller has the lane's token and uses it afterwards.
    fn linger(&self, lane: &LaneCell) {
        for _ in 0..LINGER {
            if lane.has_mail() || !self.pool.is_quiet() {
                return;
            }
            std::hint::spin_loop();
        }
    }

    /// Returns whether a worker may go on with the same lane. Nobody else may.
    fn may_stay(&self, stay_until: Option<Instant>, now: Instant) -> bool {
        stay_until.is_some_and(|until| now < until || self.pool.is_quiet())
    }

    /// Ends a task that a worker ran. While no other lane waits for a worker, nobody needs to know how long this one has been
    /// there, and the end of the clock's tick is good enough to date the next task.
    fn finish_turn(
        self: &Arc<Self>,
        lane: &Arc<LaneCell>,
        place: (u64, u32),
        outcome: Outcome,
        now: &mut Instant,
        turn_ends: Instant,
    ) -> Finished {
        if outcome == Outcome::Finished && self.pool.is_quiet() {
            let mut state = lane.lock_unread();
            if let Some(next) = lane.succeed(&mut state, place, clock::tick()) {
                drop(state);
                self.ring();
                return Finished::followed_by(next);
            }
        }
        *now = clock::now();
        self.finish(lane, place, outcome, *now, Some(turn_ends))
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
            return Finished::followed_by(next);
        }
        let mut steps = Vec::new();
        let ended = state
            .core
            .finish(seq, index, outcome, now, &self.phantoms, &mut steps);
        let permit = state.take_permit(seq);
        // Under the lane's lock, so that whoever sees the lane idle sees the place given back, too.
        let handed_to = permit.as_ref().and_then(|group| group.give_back());
        lane.absorb_if_empty(&mut state);
        let alone =
            ended == Ended::Counted && state.token == Token::None && state.group().is_none();
        let stay = alone && state.core.is_dispatchable() && self.may_stay(stay_until, now);
        let next = if stay { state.core.claim(now) } else { None };
        let lingers = alone
            && next.is_none()
            && stay_until.is_some()
            && state.core.queued() == 0
            && !state.core.is_paused()
            && self.pool.is_quiet();
        if lingers {
            state.token = Token::Ready;
        }
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
                lingers,
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
                    lingers,
                }
            }
            Ended::Unknown => Finished {
                counted: false,
                replaced: false,
                next,
                lingers,
            },
        }
    }
}
