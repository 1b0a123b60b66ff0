//! A slot held by nobody, in every form it was seen in. Nothing here waits for anything but events.

use std::sync::mpsc;
use std::time::Duration;

use crate::common::{Stuck, far, hasty, journal, now, patient, queue};
use command_queue::{BlockedBy, LaneConfig, Limit, NestedError, Overrun, SubmitOptions, TaskError};

#[test]
fn a_phantom_is_reclaimed_by_the_timer_when_nobody_submits_again() {
    let journal = journal();
    let queue = queue();
    queue.configure_lane("timer", hasty()).unwrap();
    let mut stuck = Stuck::start(&queue, "timer");
    let next = queue.submit("timer", patient(), |_| "ran").unwrap();

    // From here on nothing is submitted. The next task runs, and the first caller has its error.
    assert_eq!(next.wait_until(far()).unwrap(), Ok("ran"));
    let error = stuck.take_handle().wait_until(far()).unwrap().unwrap_err();
    let TaskError::Stalled {
        lane,
        idle_for,
        ran_for,
    } = error
    else {
        panic!("not a stall: {error}")
    };
    assert_eq!(&*lane, "timer");
    assert!(
        idle_for >= Duration::from_millis(20),
        "measured, not the ceiling: {idle_for:?}"
    );
    assert!(ran_for >= idle_for);
    journal.wait_for("timer", "lane slot reclaimed");
    assert_eq!(journal.of("timer", "lane slot reclaimed").len(), 1);

    let snapshot = queue.lane_snapshot("timer").unwrap();
    assert_eq!(
        (
            snapshot.abandoned,
            snapshot.totals.stalled,
            snapshot.totals.reclaimed
        ),
        (1, 1, 1)
    );
    assert!(snapshot.is_conserved());
    stuck.release();
    journal.wait_for("timer", "ended after it had been given up");
}

#[test]
fn a_waiter_that_was_captured_before_the_reclaim_is_woken_by_it() {
    // On a busy machine the waiter may come to its turn only after the reclaim, and then has nothing to wait for: such a round shows
    // nothing, and another one is played.
    let captured = (0..50).any(|_| {
        let queue = queue();
        queue.configure_lane("captured", hasty()).unwrap();
        let stuck = Stuck::start(&queue, "captured");
        let waiting = std::thread::spawn({
            let queue = queue.clone();
            move || queue.wait_active(far())
        });
        // The task never ends; only the reclaim can end this wait.
        let drained = waiting.join().unwrap().unwrap();
        let idle = queue.wait_idle(far()).unwrap();
        assert_eq!(
            idle.abandoned, 1,
            "the answer is truthful about what still runs"
        );
        stuck.release();
        drained.abandoned == 1
    });
    assert!(captured, "in none of many rounds did the waiter wait");
}

#[test]
fn a_healthy_sibling_keeps_its_slot_and_dispatches_the_next() {
    let journal = journal();
    let queue = queue();
    queue
        .configure_lane(
            "sibling",
            LaneConfig {
                width: 2,
                ..hasty()
            },
        )
        .unwrap();
    let mut stuck = Stuck::start(&queue, "sibling");
    let (finish, told) = mpsc::channel::<()>();
    let (started, starts) = mpsc::channel();
    let healthy = queue
        .submit("sibling", patient(), move |_| {
            started.send(()).unwrap();
            told.recv().unwrap();
            "healthy"
        })
        .unwrap();
    starts.recv().unwrap();
    let next = queue.submit("sibling", patient(), |_| "next").unwrap();

    assert!(matches!(
        stuck.take_handle().wait_until(far()).unwrap(),
        Err(TaskError::Stalled { .. })
    ));
    assert_eq!(
        next.wait_until(far()).unwrap(),
        Ok("next"),
        "the stalled slot was freed"
    );
    let line = journal.wait_for("sibling", "lane slot reclaimed");
    assert!(line.contains("reclaimed=1"), "only the stalled one: {line}");
    let snapshot = queue.lane_snapshot("sibling").unwrap();
    assert_eq!(
        snapshot.active, 1,
        "the sibling still has its slot: {snapshot:?}"
    );

    // Both slots are taken again; the one who waits gets the sibling's, when the sibling ends normally.
    let (_, second) = Stuck::submit(&queue, "sibling");
    let after = queue.submit("sibling", patient(), |_| "after").unwrap();
    finish.send(()).unwrap();
    assert_eq!(
        healthy.wait_until(far()).unwrap(),
        Ok("healthy"),
        "it finished normally"
    );
    assert_eq!(after.wait_until(far()).unwrap(), Ok("after"));
    stuck.release();
    second.release();
}

#[test]
fn a_chain_behind_a_prior_holder_ends_with_errors_that_name_it() {
    let queue = queue();
    let config = LaneConfig {
        stall_ceiling: Limit::Never,
        ..LaneConfig::single_writer()
    };
    queue.configure_lane("chain", config).unwrap();
    let stuck = Stuck::start(&queue, "chain");
    let holder = stuck.handle.as_ref().unwrap().id();
    let bounded = || SubmitOptions {
        queue_limit: Limit::After(Duration::from_millis(10)),
        ..SubmitOptions::normal()
    };
    let chain: Vec<_> = (0..3)
        .map(|_| queue.submit("chain", bounded(), |_| ()).unwrap())
        .collect();
    for link in chain {
        let error = link.wait_until(far()).unwrap().unwrap_err();
        let TaskError::QueuedTooLong {
            lane,
            waited,
            behind,
        } = error
        else {
            panic!("not that: {error}")
        };
        assert_eq!((&*lane, behind), ("chain", Some(holder)));
        assert!(waited >= Duration::from_millis(10));
    }
    // A task in another lane that waits for this one is bounded in the same way.
    let nested = queue
        .submit("outer", SubmitOptions::normal(), move |task| {
            task.submit_and_wait("chain", bounded(), |_| ())
        })
        .unwrap();
    let error = nested.wait_until(far()).unwrap().unwrap().unwrap_err();
    assert!(
        matches!(error, NestedError::Task(TaskError::QueuedTooLong { behind: Some(id), .. }) if id == holder)
    );
    // And so is a wait for the holder itself.
    let not_drained = queue
        .wait_active(now() + Duration::from_millis(1))
        .unwrap_err();
    assert_eq!(not_drained.busy, [("chain".into(), 1)]);
    assert!(
        not_drained.to_string().contains("1 in lane `chain`"),
        "{not_drained}"
    );
    stuck.release();
}

#[test]
fn a_recovery_that_frees_nothing_says_so_and_the_lane_is_wedged() {
    let journal = journal();
    let queue = queue();
    queue
        .configure_lane(
            "wedged",
            LaneConfig {
                overrun: Overrun::Hold,
                ..hasty()
            },
        )
        .unwrap();
    let mut stuck = Stuck::start(&queue, "wedged");
    let next = queue.submit("wedged", patient(), |_| "ran").unwrap();

    assert!(matches!(
        stuck.take_handle().wait_until(far()).unwrap(),
        Err(TaskError::Stalled { .. })
    ));
    journal.wait_for("wedged", "recovery ineffective");
    let snapshot = queue.lane_snapshot("wedged").unwrap();
    assert!(snapshot.wedged);
    assert_eq!(snapshot.blocked_by, BlockedBy::Wedged);
    assert_eq!(
        (
            snapshot.active,
            snapshot.occupied,
            snapshot.abandoned,
            snapshot.queued
        ),
        (0, 1, 1, 1)
    );

    // A reset does not help either, and says so, too.
    let report = queue.reset_lane("wedged");
    assert_eq!(
        (report.cancelled, report.freed, report.kept, report.queued),
        (0, 0, 1, 1)
    );
    assert_eq!(journal.of("wedged", "recovery ineffective").len(), 2);
    assert_eq!(journal.of("wedged", "lane slot reclaimed"), [] as [&str; 0]);

    // The end of the work is what frees a lane with a single writer.
    stuck.release();
    assert_eq!(next.wait_until(far()).unwrap(), Ok("ran"));
    assert!(!queue.lane_snapshot("wedged").unwrap().wedged);
}

#[test]
fn too_many_phantoms_wedge_the_lane_until_one_returns() {
    let journal = journal();
    let queue = queue();
    queue.configure_lane("phantoms", hasty()).unwrap();
    let first = Stuck::start(&queue, "phantoms");
    let (starts, second) = Stuck::submit(&queue, "phantoms");
    starts.recv().unwrap();
    let third = queue.submit("phantoms", patient(), |_| "ran").unwrap();

    // The first was reclaimed, which is the one phantom this lane may have; so the second keeps its slot.
    journal.wait_for("phantoms", "recovery ineffective");
    let snapshot = queue.lane_snapshot("phantoms").unwrap();
    assert!(snapshot.wedged);
    assert_eq!(
        (snapshot.abandoned, snapshot.occupied, snapshot.queued),
        (2, 1, 1)
    );
    assert_eq!(queue.snapshot().phantoms, 1);

    // When the first returns, the second may become the phantom.
    first.release();
    assert_eq!(third.wait_until(far()).unwrap(), Ok("ran"));
    second.release();
}

#[test]
fn a_full_lane_with_nothing_to_reclaim_says_that_it_is_blocked() {
    let journal = journal();
    let queue = queue();
    let stuck = Stuck::start(&queue, "full");
    // Only now: a first task that waits for its thread on a busy machine would be reported too, in a lane that is not full.
    let config = LaneConfig {
        warn_after: Duration::from_millis(5),
        ..LaneConfig::serial()
    };
    queue.configure_lane("full", config).unwrap();
    let next = queue
        .submit("full", SubmitOptions::normal(), |_| ())
        .unwrap();
    let line = journal.wait_for("full", "lane dispatch blocked");
    for part in [
        "lane=full",
        "active=1",
        "maxConcurrent=1",
        "queued=1",
        "oldestActiveAgeMs=",
        "full=true",
        "suppressed=0",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    // Asked again and again: still one line, and the others are counted.
    let more: Vec<_> = (0..5)
        .map(|_| {
            queue
                .submit("full", SubmitOptions::normal(), |_| ())
                .unwrap()
        })
        .collect();
    assert_eq!(journal.of("full", "lane dispatch blocked").len(), 1);
    stuck.release();
    next.wait_until(far()).unwrap().unwrap();
    assert!(
        more.into_iter()
            .all(|handle| handle.wait_until(far()).unwrap().is_ok())
    );
}
