//! Who goes first, who may wait, and who is handed back: the rules on a manual clock.

use std::sync::Arc;

use command_queue::{
    BlockedBy, Capacity, Close, LaneConfig, Outcome, Priority, Queue, SubmitError, SubmitOptions,
};

use crate::common::now;
use crate::world::{CEILING, GRACE, SECOND, World, brief};

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
