//! The rules on a manual clock: no thread, no lock, no wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use command_queue::{
    BlockedBy, Capacity, Claim, Close, Decision, IdleLimit, LaneConfig, Limit, Outcome, Overrun,
    Priority, Queue, SubmitError, SubmitOptions, TaskError, Timeout,
};

use crate::common::now;

const SECOND: Duration = Duration::from_secs(1);
const CEILING: Duration = Duration::from_secs(600);
/// When a task is suspected.
const SUSPICION: Duration = Duration::from_secs(480);
const GRACE: Duration = Duration::from_secs(5);

/// A queue of numbers and the time it is.
struct World {
    queue: Queue<u32>,
    now: Instant,
    next: u32,
}

impl World {
    fn new(config: LaneConfig) -> Self {
        Self {
            queue: Queue::new(config, 16),
            now: now(),
            next: 0,
        }
    }

    fn serial() -> Self {
        Self::new(LaneConfig::serial())
    }

    /// Submits the next number.
    fn submit(&mut self, lane: &str, options: &SubmitOptions) -> u32 {
        let number = self.next;
        self.next += 1;
        self.queue
            .submit(lane, options, number, self.now)
            .expect("the lane takes it");
        number
    }

    fn normal(&mut self, lane: &str) -> u32 {
        self.submit(lane, &SubmitOptions::normal())
    }

    fn claim(&mut self) -> Option<Claim<u32>> {
        self.queue.claim(self.now)
    }

    #[track_caller]
    fn start(&mut self) -> Claim<u32> {
        self.claim().expect("a task can start")
    }

    /// Starts everything that can start and says what, ending each at once.
    fn drain(&mut self) -> Vec<u32> {
        std::iter::from_fn(|| {
            let claim = self.claim()?;
            let number = *claim.item;
            self.queue
                .finish(claim.lease, Outcome::Finished, self.now)
                .expect("its lease is good");
            Some(number)
        })
        .collect()
    }

    fn pass(&mut self, span: Duration) -> Vec<Decision<u32>> {
        self.now += span;
        self.queue.reclaim(self.now)
    }

    fn lane(&self, name: &str) -> command_queue::LaneSnapshot {
        let lane = self
            .queue
            .snapshot(self.now)
            .into_iter()
            .find(|lane| &*lane.lane == name);
        lane.expect("the lane was named")
    }
}

/// Says briefly what was decided.
fn brief(decisions: &[Decision<u32>]) -> Vec<String> {
    decisions
        .iter()
        .map(|decision| match decision {
            Decision::Suspect { .. } => "suspect".to_owned(),
            Decision::Stop { item, error, .. } => format!("stop {item}: {}", kind(error)),
            Decision::Freed { .. } => "freed".to_owned(),
            Decision::Kept { .. } => "kept".to_owned(),
            Decision::Expired { item, .. } => format!("expired {item}"),
            Decision::Blocked { suppressed, .. } => format!("blocked, {suppressed} suppressed"),
            Decision::RecoveryIneffective { .. } => "ineffective".to_owned(),
        })
        .collect()
}

fn kind(error: &TaskError) -> &'static str {
    if let TaskError::TimedOut { kind, .. } = error {
        return if *kind == Timeout::Budget {
            "budget"
        } else {
            "idle"
        };
    }
    if matches!(error, TaskError::Stalled { .. }) {
        "stalled"
    } else {
        "reset"
    }
}

#[test]
fn a_task_is_suspected_at_four_fifths_of_the_ceiling_and_stopped_at_the_ceiling() {
    let mut world = World::serial();
    world.normal("a");
    let claim = world.start();
    assert!(
        world
            .queue
            .deadline()
            .is_some_and(|at| at <= world.now + SUSPICION),
        "never too late"
    );
    assert_eq!(brief(&world.pass(479 * SECOND)), [""; 0]);
    assert_eq!(brief(&world.pass(SECOND)), ["suspect"]);
    assert_eq!(
        brief(&world.pass(Duration::from_nanos(119_999_999_999))),
        [""; 0]
    );
    // The ceiling is reached, not exceeded.
    assert_eq!(
        brief(&world.pass(Duration::from_nanos(1))),
        ["stop 0: stalled"]
    );
    assert_eq!(brief(&world.pass(GRACE)), ["freed"]);
    assert!(
        world
            .queue
            .finish(claim.lease, Outcome::Finished, world.now)
            .is_err(),
        "too late to count"
    );
    let totals = world.queue.totals();
    assert_eq!(
        (
            totals.stalled,
            totals.finished,
            totals.late,
            totals.reclaimed
        ),
        (1, 0, 1, 1)
    );
}

#[test]
fn progress_keeps_a_task_alive_past_ten_ceilings_and_its_end_counts() {
    let mut world = World::serial();
    world.normal("a");
    let claim = world.start();
    for _ in 0..20 {
        assert_eq!(brief(&world.pass(CEILING / 2)), [""; 0]);
        world.queue.renew(claim.lease.ticket(), world.now).unwrap();
    }
    // It stops making progress: the clock counts from the last one.
    assert_eq!(brief(&world.pass(SUSPICION)), ["suspect"]);
    world.queue.renew(claim.lease.ticket(), world.now).unwrap();
    assert_eq!(
        brief(&world.pass(SUSPICION)),
        ["suspect"],
        "a new silence is a new suspicion"
    );
    world
        .queue
        .finish(claim.lease, Outcome::Finished, world.now)
        .unwrap();
    assert_eq!(world.queue.totals().finished, 1);
}

#[test]
fn a_task_that_ends_in_its_grace_frees_its_slot_itself_and_is_no_phantom() {
    let mut world = World::serial();
    world.normal("a");
    world.normal("a");
    let claim = world.start();
    world.pass(CEILING);
    assert!(
        world.claim().is_none(),
        "the slot is the first one's until the grace is over"
    );
    assert!(
        world
            .queue
            .finish(claim.lease, Outcome::Finished, world.now)
            .is_err()
    );
    assert_eq!(*world.start().item, 1);
    let lane = world.lane("a");
    assert_eq!(
        (lane.abandoned, lane.totals.reclaimed, lane.totals.stalled),
        (0, 0, 1)
    );
}

#[test]
fn reclaiming_one_task_of_three_leaves_the_others_their_slots() {
    let mut world = World::new(LaneConfig {
        width: 3,
        ..LaneConfig::serial()
    });
    for _ in 0..4 {
        world.normal("a");
    }
    let claims = [world.start(), world.start(), world.start()];
    world.now += CEILING / 2;
    world
        .queue
        .renew(claims[0].lease.ticket(), world.now)
        .unwrap();
    world
        .queue
        .renew(claims[2].lease.ticket(), world.now)
        .unwrap();
    world.pass(CEILING / 2);
    assert!(brief(&world.pass(GRACE)).contains(&"freed".to_owned()));
    assert_eq!(*world.start().item, 3, "the freed slot is used");
    let [first, second, third] = claims;
    assert!(
        world
            .queue
            .finish(second.lease, Outcome::Finished, world.now)
            .is_err()
    );
    world.normal("a");
    world.normal("a");
    assert!(
        world.claim().is_none(),
        "the phantom's return freed nothing"
    );
    world
        .queue
        .finish(first.lease, Outcome::Finished, world.now)
        .unwrap();
    world
        .queue
        .finish(third.lease, Outcome::Finished, world.now)
        .unwrap();
    assert_eq!(
        (*world.start().item, *world.start().item),
        (4, 5),
        "each sibling's end dispatches one"
    );
}

#[test]
fn a_budget_counts_whatever_the_progress_and_the_error_has_measured_times() {
    let mut world = World::serial();
    let options = SubmitOptions {
        budget: Limit::After(100 * SECOND),
        ..SubmitOptions::normal()
    };
    world.submit("a", &options);
    let claim = world.start();
    world.now += 99 * SECOND;
    world.queue.renew(claim.lease.ticket(), world.now).unwrap();
    world.now += 8 * SECOND;
    let decisions = world.queue.reclaim(world.now);
    let [Decision::Stop { error, .. }] = decisions.as_slice() else {
        panic!("{:?}", brief(&decisions))
    };
    let TaskError::TimedOut {
        kind,
        limit,
        ran_for,
        idle_for,
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!((*kind, *limit), (Timeout::Budget, 100 * SECOND));
    assert_eq!((*ran_for, *idle_for), (107 * SECOND, 8 * SECOND));
}

#[test]
fn an_idle_limit_of_its_own_replaces_the_ceiling() {
    let mut world = World::serial();
    let short = SubmitOptions {
        idle: IdleLimit::After(10 * SECOND),
        ..SubmitOptions::normal()
    };
    world.submit("a", &short);
    let _claim = world.start();
    assert_eq!(brief(&world.pass(8 * SECOND)), ["suspect"]);
    assert_eq!(brief(&world.pass(2 * SECOND)), ["stop 0: idle"]);

    let mut world = World::serial();
    let never = SubmitOptions {
        idle: IdleLimit::Never,
        ..SubmitOptions::normal()
    };
    world.submit("a", &never);
    let _claim = world.start();
    assert_eq!(brief(&world.pass(100 * CEILING)), [""; 0]);
    assert_eq!(world.queue.deadline(), None, "nothing is left to look at");
}

#[test]
fn a_limit_that_no_clock_reaches_means_never() {
    let mut world = World::serial();
    let options = SubmitOptions {
        budget: Limit::After(Duration::MAX),
        idle: IdleLimit::After(Duration::MAX),
        queue_limit: Limit::After(Duration::MAX),
        ..SubmitOptions::normal()
    };
    world.submit("a", &options);
    let _claim = world.start();
    assert_eq!(brief(&world.pass(1000 * CEILING)), [""; 0]);
}

#[test]
fn order_is_by_priority_and_then_by_arrival() {
    let mut world = World::serial();
    world.queue.pause("a");
    for priority in [
        Priority::Background,
        Priority::Normal,
        Priority::Foreground,
        Priority::Normal,
        Priority::Foreground,
    ] {
        world.submit(
            "a",
            &SubmitOptions {
                priority,
                ..SubmitOptions::normal()
            },
        );
    }
    world.queue.resume("a");
    assert_eq!(world.drain(), [2, 4, 1, 3, 0]);
}

#[test]
fn a_waiting_task_gains_a_tier_every_thirty_seconds_and_is_never_starved() {
    let mut world = World::serial();
    let background = world.submit("a", &SubmitOptions::background());
    let mut started_after = None;
    // One foreground task is always there, and each takes a second.
    for second in 0..120 {
        world.submit("a", &SubmitOptions::foreground());
        let claim = world.start();
        if *claim.item == background {
            started_after = Some(second);
        }
        world.now += SECOND;
        world
            .queue
            .finish(claim.lease, Outcome::Finished, world.now)
            .unwrap();
    }
    assert_eq!(
        started_after,
        Some(60),
        "two tiers are two spans; as foreground it is the oldest"
    );
}

#[test]
fn ageing_never_lifts_a_task_above_foreground() {
    let mut world = World::serial();
    world.queue.pause("a");
    let old_foreground = world.submit("a", &SubmitOptions::foreground());
    let old_background = world.submit("a", &SubmitOptions::background());
    world.now += 1000 * SECOND;
    let fresh = world.submit("a", &SubmitOptions::foreground());
    world.queue.resume("a");
    assert_eq!(
        world.drain(),
        [old_foreground, old_background, fresh],
        "equals by arrival"
    );
}

#[test]
fn a_bounded_lane_hands_the_task_back() {
    let mut world = World::new(LaneConfig {
        capacity: Capacity::Bounded(1),
        ..LaneConfig::serial()
    });
    world.normal("a");
    let claim = world.start();
    world.normal("a");
    let refused = world
        .queue
        .submit("a", &SubmitOptions::normal(), 99, world.now)
        .unwrap_err();
    assert_eq!(refused.task, 99);
    assert!(matches!(&refused.reason, SubmitError::Full { lane, capacity: 1 } if &**lane == "a"));
    world
        .queue
        .finish(claim.lease, Outcome::Finished, world.now)
        .unwrap();
    let _second = world.start();
    world.normal("a");
    assert_eq!(world.queue.totals().refused, 1);
}

#[test]
fn a_lane_of_capacity_zero_still_runs_what_can_start_at_once() {
    let mut world = World::new(LaneConfig {
        capacity: Capacity::Bounded(0),
        ..LaneConfig::serial()
    });
    world.normal("a");
    assert!(
        world
            .queue
            .submit("a", &SubmitOptions::normal(), 99, world.now)
            .is_err()
    );
    let _claim = world.start();
    assert!(
        world
            .queue
            .submit("a", &SubmitOptions::normal(), 99, world.now)
            .is_err()
    );
}

#[test]
fn a_cancelled_task_leaves_the_order_of_the_others_alone() {
    let mut world = World::serial();
    let ids: Vec<_> = (0..200)
        .map(|n| {
            world
                .queue
                .submit("a", &SubmitOptions::normal(), n, world.now)
                .unwrap()
        })
        .collect();
    let cancelled: Vec<u32> = (0..200).filter(|n| n % 7 != 3).collect();
    for n in &cancelled {
        let item = world.queue.cancel(ids[*n as usize]).expect("it waits");
        assert_eq!(*item, *n);
        assert!(world.queue.cancel(ids[*n as usize]).is_none(), "once");
    }
    assert_eq!(
        world.drain(),
        (0..200).filter(|n| n % 7 == 3).collect::<Vec<_>>()
    );
    assert_eq!(world.queue.totals().cancelled, cancelled.len() as u64);
}

#[test]
fn pause_and_resize_never_touch_what_runs() {
    let mut world = World::new(LaneConfig {
        width: 3,
        ..LaneConfig::serial()
    });
    for _ in 0..6 {
        world.normal("a");
    }
    let claims = [world.start(), world.start(), world.start()];
    world.queue.set_width("a", 1);
    assert!(world.claim().is_none());
    let [first, second, third] = claims;
    world
        .queue
        .finish(first.lease, Outcome::Finished, world.now)
        .unwrap();
    world
        .queue
        .finish(second.lease, Outcome::Finished, world.now)
        .unwrap();
    assert!(world.claim().is_none(), "still one of one");
    world.queue.set_width("a", 0);
    world
        .queue
        .finish(third.lease, Outcome::Finished, world.now)
        .unwrap();
    assert!(world.claim().is_none());
    assert_eq!(world.lane("a").blocked_by, BlockedBy::Pause);
    // A paused lane does not complain, however long it is paused.
    assert_eq!(brief(&world.pass(CEILING)), [""; 0]);
    world.queue.set_width("a", 2);
    assert_eq!((*world.start().item, *world.start().item), (3, 4));
}

#[test]
fn time_in_a_paused_lane_counts_as_waiting_and_not_as_running() {
    let mut world = World::serial();
    let limited = SubmitOptions {
        queue_limit: Limit::After(10 * SECOND),
        ..SubmitOptions::normal()
    };
    let budgeted = SubmitOptions {
        budget: Limit::After(5 * SECOND),
        ..SubmitOptions::normal()
    };
    world.queue.pause("a");
    let gives_up = world.submit("a", &limited);
    world.submit("a", &budgeted);
    assert_eq!(
        brief(&world.pass(10 * SECOND)),
        [format!("expired {gives_up}")]
    );
    world.queue.resume("a");
    let _claim = world.start();
    assert_eq!(brief(&world.pass(4 * SECOND)), [""; 0]);
    assert_eq!(brief(&world.pass(SECOND)), ["stop 1: budget"]);
}

#[test]
fn clear_rejects_what_waits_in_order_and_nothing_else() {
    let mut world = World::serial();
    world.normal("a");
    let claim = world.start();
    world.submit("a", &SubmitOptions::background());
    world.submit("a", &SubmitOptions::foreground());
    world.normal("a");
    let cleared: Vec<u32> = world.queue.clear("a").iter().map(|item| **item).collect();
    assert_eq!(cleared, [1, 2, 3]);
    world
        .queue
        .finish(claim.lease, Outcome::Finished, world.now)
        .unwrap();
    assert!(world.claim().is_none());
    let totals = world.queue.totals();
    assert_eq!((totals.cleared, totals.finished), (3, 1));
}

#[test]
fn a_reset_gives_up_what_runs_keeps_what_waits_and_dispatches() {
    let mut world = World::serial();
    world.normal("a");
    world.normal("a");
    world.normal("b");
    let (a, b) = (world.start(), world.start());
    let report = world.queue.reset_lane("a", world.now);
    assert_eq!(
        (report.cancelled, report.freed, report.kept, report.queued),
        (1, 1, 0, 1)
    );
    assert_eq!(
        brief(&world.queue.reclaim(world.now)),
        ["stop 0: reset", "freed"]
    );
    assert_eq!(*world.start().item, 1);
    assert!(
        world
            .queue
            .finish(a.lease, Outcome::Finished, world.now)
            .is_err(),
        "a stale end changes nothing"
    );
    world
        .queue
        .finish(b.lease, Outcome::Finished, world.now)
        .unwrap();
    let lane = world.lane("a");
    assert_eq!(
        (lane.active, lane.abandoned, lane.totals.cancelled),
        (1, 0, 1)
    );
}

#[test]
fn a_lane_with_one_writer_keeps_the_slot_until_the_work_ends() {
    let mut world = World::new(LaneConfig {
        overrun: Overrun::Hold,
        ..LaneConfig::serial()
    });
    world.normal("a");
    world.normal("a");
    let claim = world.start();
    world.pass(CEILING);
    let decisions = brief(&world.pass(GRACE));
    assert!(
        decisions.contains(&"kept".to_owned()) && decisions.contains(&"ineffective".to_owned()),
        "{decisions:?}"
    );
    assert!(world.claim().is_none());
    assert!(world.lane("a").wedged);
    assert!(
        world
            .queue
            .finish(claim.lease, Outcome::Finished, world.now)
            .is_err()
    );
    assert_eq!(*world.start().item, 1);
    assert!(!world.lane("a").wedged);
}

#[test]
fn the_number_of_phantoms_is_bounded_over_all_lanes() {
    let mut world = World::serial();
    world.queue = Queue::new(LaneConfig::serial(), 1);
    for lane in ["a", "b"] {
        world.normal(lane);
        world.normal(lane);
    }
    let (a, b) = (world.start(), world.start());
    world.pass(CEILING);
    let decisions = brief(&world.pass(GRACE));
    assert_eq!(
        decisions
            .iter()
            .filter(|decision| *decision == "freed")
            .count(),
        1
    );
    assert_eq!(
        decisions
            .iter()
            .filter(|decision| *decision == "kept")
            .count(),
        1
    );
    assert_eq!(*world.start().item, 1, "lane a goes on");
    assert!(
        world.claim().is_none(),
        "lane b would need a second phantom"
    );
    assert!(world.lane("b").wedged);
    // The phantom of lane a returns, so lane b may have one.
    assert!(
        world
            .queue
            .finish(a.lease, Outcome::Finished, world.now)
            .is_err()
    );
    assert_eq!(*world.start().item, 3);
    assert!(
        world
            .queue
            .finish(b.lease, Outcome::Finished, world.now)
            .is_err()
    );
    assert_eq!(
        (world.lane("a").abandoned, world.lane("b").abandoned),
        (0, 0)
    );
}

#[test]
fn a_busy_lane_that_gets_on_is_silent_and_one_that_stands_still_is_throttled() {
    let mut world = World::serial();
    for _ in 0..100 {
        world.normal("a");
    }
    // Every wait is longer than the threshold, but something starts each second.
    for _ in 0..50 {
        let claim = world.start();
        assert_eq!(brief(&world.pass(SECOND)), [""; 0]);
        world
            .queue
            .finish(claim.lease, Outcome::Finished, world.now)
            .unwrap();
    }
    let _stuck = world.start();
    assert_eq!(brief(&world.pass(SECOND)), [""; 0]);
    assert_eq!(brief(&world.pass(SECOND)), ["blocked, 0 suppressed"]);
    assert_eq!(brief(&world.pass(29 * SECOND)), [""; 0]);
    assert_eq!(brief(&world.pass(SECOND)), ["blocked, 0 suppressed"]);
}

#[test]
fn a_group_caps_its_lanes_together_and_serves_them_in_turn() {
    let mut world = World::serial();
    world.queue.configure_group("turns", 2);
    for lane in ["a", "b", "c"] {
        let config = LaneConfig {
            group: Some("turns".into()),
            ..LaneConfig::serial()
        };
        world.queue.configure_lane(lane, config).unwrap();
        world.normal(lane);
        world.normal(lane);
    }
    let (a, b) = (world.start(), world.start());
    assert!(world.claim().is_none());
    assert_eq!(world.lane("c").blocked_by, BlockedBy::Group);
    world
        .queue
        .finish(a.lease, Outcome::Finished, world.now)
        .unwrap();
    let c = world.start();
    assert_eq!(
        &*c.lane, "c",
        "the lane that waited goes before the one that just had its turn"
    );
    assert!(world.claim().is_none());
    // A reclaim gives the group's slot back, too.
    world.pass(CEILING);
    world.pass(GRACE);
    let (next, other) = (world.start(), world.start());
    assert_eq!((&*next.lane, &*other.lane), ("a", "b"));
    // Both phantoms return: they had nothing left to give back.
    assert!(
        world
            .queue
            .finish(b.lease, Outcome::Finished, world.now)
            .is_err()
    );
    assert!(
        world
            .queue
            .finish(c.lease, Outcome::Finished, world.now)
            .is_err()
    );
    assert!(world.claim().is_none());
    world.queue.configure_group("turns", 3);
    assert_eq!(&*world.start().lane, "c");
}

#[test]
fn lanes_take_turns() {
    let mut world = World::serial();
    for lane in ["a", "a", "a", "b", "b", "c"] {
        world.normal(lane);
    }
    assert_eq!(world.drain(), [0, 3, 5, 1, 4, 2]);
}

#[test]
fn a_closed_queue_refuses_and_finishes_or_hands_back_what_it_has() {
    for (how, left) in [(Close::Drain, 0), (Close::Now, 2)] {
        let mut world = World::serial();
        for _ in 0..3 {
            world.normal("a");
        }
        let claim = world.start();
        assert_eq!(world.queue.close(how).len(), left);
        let refused = world
            .queue
            .submit("a", &SubmitOptions::normal(), 9, world.now)
            .unwrap_err();
        assert_eq!(refused.reason, SubmitError::Closed { reason: how });
        world
            .queue
            .finish(claim.lease, Outcome::Finished, world.now)
            .unwrap();
        assert_eq!(world.drain().len(), 2 - left);
        assert!(world.lane("a").is_conserved());
    }
}

#[test]
fn what_was_submitted_is_shared_and_not_copied() {
    let mut queue = Queue::new(LaneConfig::serial(), 0);
    let at = now();
    queue
        .submit("a", &SubmitOptions::normal(), Box::new(7), at)
        .unwrap();
    let claim = queue.claim(at).unwrap();
    assert_eq!(
        Arc::strong_count(&claim.item),
        2,
        "the queue keeps one for the case of a stall"
    );
    queue.finish(claim.lease, Outcome::Finished, at).unwrap();
    assert_eq!(Arc::strong_count(&claim.item), 1);
}
