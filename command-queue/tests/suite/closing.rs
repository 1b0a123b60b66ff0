//! How queues and lanes end, and who waits for that.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use command_queue::{Close, CommandQueue, LaneConfig, QueueConfig, SubmitError, TaskError, Totals};

use crate::common::{Stuck, far, hasty, now, patient, queue};

#[test]
fn draining_finishes_what_was_accepted_and_now_hands_it_back() {
    for how in [Close::Drain, Close::Now] {
        let queue = queue();
        let (started, starts) = mpsc::channel();
        let running = queue
            .submit("d", patient(), move |task| {
                started.send(()).unwrap();
                // `Now` tells it to stop; a drain lets it see the deadline of this wait.
                task.wait_cancelled(now() + Duration::from_millis(20))
            })
            .unwrap();
        starts.recv().unwrap();
        let waiting = queue.submit("d", patient(), |_| ()).unwrap();
        queue.close(how);
        let refused = queue.submit("d", patient(), |_| ()).unwrap_err();
        assert_eq!(refused.reason, SubmitError::Closed { reason: how });
        assert_eq!(queue.wait_idle(far()).unwrap().abandoned, 0);
        assert_eq!(running.wait(), Ok(how == Close::Now));
        let expected = if how == Close::Drain {
            Ok(())
        } else {
            Err(TaskError::Closed { reason: how })
        };
        assert_eq!(waiting.wait(), expected);
        assert!(queue.snapshot().is_conserved());
    }
}

#[test]
fn a_wait_that_runs_out_reports_who_is_left() {
    let queue = queue();
    let stuck = Stuck::start(&queue, "left");
    let not_drained = queue
        .wait_idle(now() + Duration::from_millis(1))
        .unwrap_err();
    assert_eq!(not_drained.busy, [("left".into(), 1)]);
    stuck.release();
}

#[test]
fn a_wait_for_what_runs_ignores_what_comes_later() {
    let queue = queue();
    let early = Stuck::start(&queue, "early");
    let (asked, asks) = mpsc::channel();
    let waiting = thread::spawn({
        let queue = queue.clone();
        move || {
            asked.send(()).unwrap();
            queue.wait_active(far())
        }
    });
    asks.recv().unwrap();
    // Whether this one is captured depends on who is faster; that it never ends must not matter once `early`
    // has ended and the set was captured, so it is told to end only when the wait is over or has captured it.
    let late = Stuck::start(&queue, "late");
    early.release();
    late.release();
    waiting.join().unwrap().unwrap();
}

#[test]
fn dropping_the_queue_tells_running_work_and_hands_waiting_work_back() {
    let queue = queue();
    let (started, starts) = mpsc::channel();
    let running = queue
        .submit("q", patient(), move |task| {
            started.send(()).unwrap();
            task.wait_cancelled(far())
        })
        .unwrap();
    starts.recv().unwrap();
    let waiting = queue.submit("q", patient(), |_| ()).unwrap();
    drop(queue);
    assert_eq!(
        waiting.wait(),
        Err(TaskError::Closed { reason: Close::Now })
    );
    assert_eq!(running.wait(), Ok(true));
}

#[test]
fn a_stuck_task_does_not_outlive_its_callers_patience_when_the_queue_is_gone() {
    let queue = queue();
    queue.configure_lane("gone", hasty()).unwrap();
    let mut stuck = Stuck::start(&queue, "gone");
    drop(queue);
    // The watchdog stays for as long as something may stall.
    assert!(matches!(
        stuck.take_handle().wait_until(far()).unwrap(),
        Err(TaskError::Stalled { .. })
    ));
    stuck.release();
}

#[test]
fn lanes_that_nobody_configured_are_forgotten_and_their_counts_are_not() {
    let queue = CommandQueue::start(QueueConfig {
        lane_retention: Duration::from_millis(1),
        ..QueueConfig::recommended()
    })
    .unwrap();
    queue
        .configure_lane(
            "kept",
            LaneConfig {
                width: 2,
                ..LaneConfig::serial()
            },
        )
        .unwrap();
    for n in 0..20_000 {
        queue
            .submit_detached(&format!("session:{n}"), patient(), |_| ())
            .unwrap();
    }
    queue.wait_idle(far()).unwrap();
    // The sweep that follows the last task finds all of them idle; each further one looks again.
    let mut rounds = 0;
    while queue.snapshot().lanes.len() > 1 {
        rounds += 1;
        assert!(
            rounds < 1_000_000,
            "{} lanes are left",
            queue.snapshot().lanes.len()
        );
        queue
            .submit("kept", patient(), |_| ())
            .unwrap()
            .wait()
            .unwrap();
    }
    let snapshot = queue.snapshot();
    assert_eq!(&*snapshot.lanes[0].lane, "kept");
    assert!(snapshot.is_conserved());
    assert_eq!(snapshot.totals.finished, 20_000 + rounds);
}

#[test]
fn a_lane_in_use_is_never_forgotten_under_its_users() {
    let queue = CommandQueue::start(QueueConfig {
        lane_retention: Duration::ZERO,
        ..QueueConfig::recommended()
    })
    .unwrap();
    // Threads hammer few lanes that are forgotten all the time; every task must run.
    let ran = Arc::new(AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            let (queue, ran) = (&queue, &ran);
            scope.spawn(move || {
                for n in 0..5_000 {
                    let ran = Arc::clone(ran);
                    queue
                        .submit_detached(&format!("l{}", n % 3), patient(), move |_| {
                            ran.fetch_add(1, Ordering::SeqCst)
                        })
                        .unwrap();
                }
            });
        }
    });
    queue.wait_idle(far()).unwrap();
    assert_eq!(ran.load(Ordering::SeqCst), 20_000);
    assert_eq!(queue.snapshot().totals.finished, 20_000);
}

#[test]
fn a_forgotten_lane_is_counted_once_at_any_instant() {
    let queue = CommandQueue::start(QueueConfig {
        lane_retention: Duration::ZERO,
        ..QueueConfig::recommended()
    })
    .unwrap();
    // One thread makes lanes that are forgotten as soon as their task has ended, another counts all the time. What
    // was counted as ended once must be counted for ever, wherever the totals of its lane are at that instant.
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let counting = scope.spawn(|| {
            let mut seen = Totals::default();
            let mut looks = 0_u64;
            while !over.load(Ordering::SeqCst) || looks == 0 {
                let snapshot = queue.snapshot();
                assert!(snapshot.is_conserved(), "{snapshot:?}");
                let totals = snapshot.totals;
                assert!(
                    totals.submitted >= seen.submitted && totals.finished >= seen.finished,
                    "{totals:?} after {seen:?}"
                );
                seen = totals;
                looks += 1;
            }
        });
        for n in 0..3_000 {
            queue
                .submit(&format!("l{}", n % 7), patient(), |_| ())
                .unwrap()
                .wait()
                .unwrap();
            if counting.is_finished() {
                break;
            }
        }
        over.store(true, Ordering::SeqCst);
        counting.join().unwrap();
    });
    queue.wait_idle(far()).unwrap();
    assert_eq!(queue.snapshot().totals.finished, 3_000);
}
