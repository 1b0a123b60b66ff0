//! The rules on a manual clock: no thread, no lock, no wait.

use std::time::Duration;

use command_queue::{
    Decision, IdleLimit, LaneConfig, Limit, Outcome, Overrun, Queue, SubmitOptions, TaskError,
    Timeout,
};

use crate::world::{CEILING, GRACE, SECOND, SUSPICION, World, brief};

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
