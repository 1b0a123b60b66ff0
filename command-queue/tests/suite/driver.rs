//! Threads, handles and what goes wrong with them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use command_queue::{
    BlockedBy, Cancelled, Capacity, CommandQueue, ConfigError, Event, IdleLimit, LaneConfig, Limit,
    NestedError, Probe, SubmitError, SubmitOptions, TaskContext, TaskError,
};

use crate::common::{PATIENCE, Stuck, far, hasty, journal, now, patient, queue};

/// Runs a task that panics and returns what its caller is told.
fn panic_of(queue: &CommandQueue, task: fn(&TaskContext)) -> String {
    let handle = queue
        .submit("p", patient(), task)
        .expect("the lane takes it");
    match handle.wait_until(far()) {
        Ok(Err(TaskError::Panicked { lane, message })) if &*lane == "p" => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_panic_is_the_tasks_own_and_the_lane_goes_on() {
    struct PanicsOnDrop;
    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }
    let queue = queue();
    assert_eq!(panic_of(&queue, |_| panic!("plain")), "plain");
    assert_eq!(panic_of(&queue, |_| panic!("number {}", 3 + 4)), "number 7");
    assert_eq!(
        panic_of(&queue, |_| std::panic::panic_any(7_u8)),
        "a panic without a message"
    );
    // A payload that panics when it is dropped, and a result that does so and that nobody takes.
    let payload = panic_of(&queue, |_| std::panic::panic_any(PanicsOnDrop));
    assert_eq!(payload, "a panic that panicked when it was dropped");
    drop(queue.submit("p", patient(), |_| PanicsOnDrop).unwrap());
    let after = queue.submit("p", patient(), |_| 1).unwrap();
    assert_eq!(after.wait_until(far()).unwrap(), Ok(1));
    assert_eq!(queue.lane_snapshot("p").unwrap().totals.panicked, 4);
}

#[test]
fn cancelling_removes_what_waits_and_tells_what_runs() {
    let queue = queue();
    let (started, starts) = mpsc::channel();
    let running = queue
        .submit("c", patient(), move |task| {
            started.send(()).unwrap();
            assert!(task.wait_cancelled(far()));
            task.is_cancelled()
        })
        .unwrap();
    starts.recv().unwrap();
    let ran = Arc::new(AtomicBool::new(false));
    let waiting = queue
        .submit("c", patient(), {
            let ran = Arc::clone(&ran);
            move |_| ran.store(true, Ordering::SeqCst)
        })
        .unwrap();
    assert_eq!(waiting.ahead(), 1);
    assert_eq!(waiting.cancel(), Cancelled::Removed);
    assert_eq!(waiting.cancel(), Cancelled::TooLate);
    assert!(matches!(waiting.wait(), Err(TaskError::Cancelled { .. })));
    assert_eq!(
        Arc::strong_count(&ran),
        1,
        "its closure was dropped with it"
    );

    assert_eq!(running.cancel(), Cancelled::Requested);
    let id = running.id();
    assert_eq!(running.wait(), Ok(true), "what it returns still counts");
    assert_eq!(queue.cancel("c", id), Cancelled::TooLate);
    let totals = queue.lane_snapshot("c").unwrap().totals;
    assert_eq!((totals.cancelled, totals.finished), (1, 1));
    assert!(!ran.load(Ordering::SeqCst));
}

#[test]
fn a_wait_with_a_deadline_gives_the_handle_back() {
    let queue = queue();
    let mut stuck = Stuck::start(&queue, "w");
    let pending = stuck
        .take_handle()
        .wait_until(now() + Duration::from_millis(1))
        .unwrap_err();
    assert!(pending.to_string().contains("in lane `w`"), "{pending}");
    assert!(pending.waited >= Duration::from_millis(1));
    stuck.release();
    assert_eq!(pending.handle.wait(), Ok(()));
}

#[test]
fn waiting_for_ones_own_serial_lane_is_refused_and_other_lanes_are_not() {
    let queue = queue();
    let own = queue
        .submit("n", patient(), |task| {
            task.submit_and_wait("n", patient(), |_| 1)
        })
        .unwrap();
    let refused = own.wait_until(far()).unwrap().unwrap();
    assert!(
        matches!(
            refused,
            Err(NestedError::Submit(SubmitError::WouldDeadlock { .. }))
        ),
        "{refused:?}"
    );

    let other = queue
        .submit("n", patient(), |task| {
            task.submit_and_wait("m", patient(), |_| 1)
        })
        .unwrap();
    assert_eq!(other.wait_until(far()).unwrap(), Ok(Ok(1)));

    // By way of a plain handle it is refused as well, and the task it wanted still runs afterwards.
    let plain = queue
        .submit("n", patient(), {
            let queue = queue.clone();
            move |_| queue.submit("n", patient(), |_| 2).unwrap().wait()
        })
        .unwrap();
    assert!(matches!(
        plain.wait_until(far()).unwrap(),
        Ok(Err(TaskError::WouldDeadlock { .. }))
    ));
    queue.wait_idle(far()).unwrap();
    assert_eq!(queue.lane_snapshot("n").unwrap().totals.finished, 4);
}

#[test]
fn waiting_for_another_lane_is_not_a_stall() {
    let queue = queue();
    queue.configure_lane("outer", hasty()).unwrap();
    let (in_inner, inner_runs) = mpsc::channel();
    let outer = queue
        .submit("outer", SubmitOptions::normal(), move |task| {
            task.submit_and_wait("inner", patient(), move |inner| {
                in_inner.send(()).unwrap();
                // Far longer than the outer ceiling.
                inner.wait_cancelled(now() + Duration::from_millis(100))
            })
        })
        .unwrap();
    inner_runs.recv().unwrap();
    assert_eq!(outer.wait_until(far()).unwrap(), Ok(Ok(false)));
}

#[test]
fn a_probe_is_asked_before_a_task_is_stopped() {
    let queue = queue();
    queue.configure_lane("probe", hasty()).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let probe = Probe::new({
        let asked = Arc::clone(&asked);
        move || {
            asked.fetch_add(1, Ordering::SeqCst);
            now()
        }
    });
    let options = SubmitOptions {
        probe: Some(probe),
        ..SubmitOptions::normal()
    };
    let (let_go, held) = mpsc::channel::<()>();
    let handle = queue
        .submit("probe", options, {
            let asked = Arc::clone(&asked);
            move |task| {
                // Several ceilings pass; each time the probe vouches for the task.
                while asked.load(Ordering::SeqCst) < 5 && !task.is_cancelled() {
                    held.recv_timeout(Duration::from_millis(1)).ok();
                }
                "vouched for"
            }
        })
        .unwrap();
    assert_eq!(handle.wait_until(far()).unwrap(), Ok("vouched for"));
    drop(let_go);
}

#[test]
fn a_probe_that_panics_is_reported_once_and_counts_as_silence() {
    let journal = journal();
    let queue = queue();
    queue.configure_lane("badprobe", hasty()).unwrap();
    let options = SubmitOptions {
        probe: Some(Probe::new(|| panic!("no answer"))),
        ..SubmitOptions::normal()
    };
    let handle = queue
        .submit("badprobe", options, |task| {
            assert!(task.wait_cancelled(far()));
        })
        .unwrap();
    assert!(matches!(
        handle.wait_until(far()).unwrap(),
        Err(TaskError::Stalled { .. })
    ));
    // The probe's thread says that it failed, which may be a moment after the watchdog saw that there is no answer; or, where the panic
    // itself takes longer than a probe may, the watchdog says that it did not answer.
    journal.wait_for("badprobe", "progress probe");
    assert_eq!(journal.of("badprobe", "progress probe").len(), 1);
}

#[test]
fn a_full_lane_hands_the_closure_back() {
    let queue = queue();
    queue
        .configure_lane(
            "b",
            LaneConfig {
                capacity: Capacity::Bounded(0),
                ..LaneConfig::serial()
            },
        )
        .unwrap();
    let stuck = Stuck::start(&queue, "b");
    let refused = queue.submit("b", patient(), |_| 5).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "lane `b` is full: 0 tasks wait already"
    );
    stuck.release();
    queue.wait_idle(far()).unwrap();
    assert_eq!(
        queue.submit("c", patient(), refused.task).unwrap().wait(),
        Ok(5)
    );
}

#[test]
fn eight_producers_each_keep_their_order() {
    let queue = queue();
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for producer in 0..8 {
            let (queue, sender) = (&queue, sender.clone());
            scope.spawn(move || {
                for n in 0..500 {
                    let sender = sender.clone();
                    queue
                        .submit_detached("o", patient(), move |_| {
                            sender.send((producer, n)).unwrap();
                        })
                        .unwrap();
                }
            });
        }
    });
    drop(sender);
    let mut next = [0; 8];
    for (producer, n) in receiver {
        assert_eq!(n, next[producer], "producer {producer}");
        next[producer] += 1;
    }
    assert_eq!(next, [500; 8]);
}

#[test]
fn one_slow_lane_does_not_hold_up_a_thousand_others() {
    let queue = queue();
    let stuck = Stuck::start(&queue, "slow");
    let handles: Vec<_> = (0..1000)
        .map(|n| {
            queue
                .submit(&format!("fast-{n}"), patient(), move |_| n)
                .unwrap()
        })
        .collect();
    for (n, handle) in handles.into_iter().enumerate() {
        assert_eq!(handle.wait_until(far()).unwrap(), Ok(n));
    }
    stuck.release();
}

#[test]
fn blocking_tasks_get_a_worker_each_up_to_the_maximum() {
    let queue = queue();
    let all = Arc::new(Barrier::new(32));
    // They only end together: one that had to wait for another's worker would be a deadlock.
    let handles: Vec<_> = (0..32)
        .map(|n| {
            let all = Arc::clone(&all);
            queue
                .submit(&format!("meet-{n}"), patient(), move |_| {
                    all.wait().is_leader()
                })
                .unwrap()
        })
        .collect();
    let leaders = handles.into_iter();
    assert_eq!(
        leaders
            .map(|handle| usize::from(handle.wait_until(far()).unwrap().unwrap()))
            .sum::<usize>(),
        1
    );
}

#[test]
fn a_group_caps_its_lanes_together() {
    let queue = queue();
    assert_eq!(
        queue.configure_lane(
            "g1",
            LaneConfig {
                group: Some("g".into()),
                ..LaneConfig::serial()
            }
        ),
        Err(ConfigError::UnknownGroup {
            lane: "g1".into(),
            group: "g".into()
        })
    );
    queue.configure_group("g", 2);
    for lane in ["g1", "g2", "g3"] {
        queue
            .configure_lane(
                lane,
                LaneConfig {
                    group: Some("g".into()),
                    ..LaneConfig::serial()
                },
            )
            .unwrap();
    }
    let first = Stuck::start(&queue, "g1");
    let second = Stuck::start(&queue, "g2");
    let third = queue.submit("g3", patient(), |_| 3).unwrap();
    let snapshot = queue.snapshot();
    assert_eq!(
        (snapshot.groups[0].width, snapshot.groups[0].occupied),
        (2, 2)
    );
    assert_eq!(
        queue.lane_snapshot("g3").unwrap().blocked_by,
        BlockedBy::Group
    );
    first.release();
    assert_eq!(third.wait_until(far()).unwrap(), Ok(3));
    second.release();
    queue.wait_idle(far()).unwrap();
    assert_eq!(queue.snapshot().groups[0].occupied, 0);
}

#[test]
fn whoever_sees_a_lane_idle_sees_its_place_in_the_group_given_back() {
    let queue = queue();
    queue.configure_group("returned", 1);
    for lane in ["r1", "r2"] {
        let config = LaneConfig {
            group: Some("returned".into()),
            ..LaneConfig::serial()
        };
        queue.configure_lane(lane, config).unwrap();
    }
    for round in 0..2_000 {
        let lane = ["r1", "r2"][round % 2];
        queue.submit_detached(lane, patient(), |_| ()).unwrap();
        queue.wait_idle(far()).unwrap();
        assert_eq!(queue.snapshot().groups[0].occupied, 0, "round {round}");
    }
}

#[test]
fn a_wider_group_and_a_lane_that_leaves_it_both_go_on() {
    let queue = queue();
    queue.configure_group("h", 0);
    for lane in ["h1", "h2"] {
        queue
            .configure_lane(
                lane,
                LaneConfig {
                    group: Some("h".into()),
                    ..LaneConfig::serial()
                },
            )
            .unwrap();
    }
    let first = queue.submit("h1", patient(), |_| 1).unwrap();
    let second = queue.submit("h2", patient(), |_| 2).unwrap();
    queue.configure_lane("h1", LaneConfig::serial()).unwrap();
    assert_eq!(first.wait_until(far()).unwrap(), Ok(1));
    queue.configure_group("h", 1);
    assert_eq!(second.wait_until(far()).unwrap(), Ok(2));
}

#[test]
fn lane_names_are_trimmed_and_blank_means_main() {
    let queue = queue();
    let long = "x".repeat(1 << 20);
    for (given, name) in [
        ("", "main"),
        (" \t", "main"),
        (" a ", "a"),
        ("späße 🚂", "späße 🚂"),
        (&*long, &*long),
    ] {
        let handle = queue
            .submit(given, patient(), |task| task.lane().to_owned())
            .unwrap();
        assert_eq!(handle.wait_until(far()).unwrap().as_deref(), Ok(name));
    }
}

#[test]
fn listeners_hear_what_was_decided_and_one_that_panics_harms_nobody() {
    let queue = queue();
    queue.configure_lane("e", hasty()).unwrap();
    let (sender, receiver) = mpsc::channel();
    queue.on_event(|_| panic!("a listener"));
    queue.on_event(move |event| sender.send(event.clone()).unwrap_or_default());
    let stuck = Stuck::start(&queue, "e");
    let id = stuck.handle.as_ref().unwrap().id();
    let mut kinds = Vec::new();
    while kinds.last() != Some(&"reclaimed") {
        let event = receiver.recv_timeout(Duration::from_secs(60)).unwrap();
        // On a busy machine the task may have waited for a thread, and that is told, too.
        if matches!(event, Event::Blocked { .. } | Event::WaitedLong { .. }) {
            continue;
        }
        let kind = if matches!(event, Event::Suspected { id: of, .. } if of == id) {
            "suspected"
        } else if matches!(event, Event::Stalled { id: of, .. } if of == id) {
            "stalled"
        } else {
            assert!(
                matches!(event, Event::Reclaimed { id: of, .. } if of == id),
                "{event:?}"
            );
            "reclaimed"
        };
        kinds.push(kind);
    }
    // On a busy machine the ceiling may have passed before anybody could suspect.
    assert!(kinds.ends_with(&["stalled", "reclaimed"]), "{kinds:?}");
    stuck.release();
    assert!(
        matches!(receiver.recv_timeout(Duration::from_secs(60)), Ok(Event::ReturnedLate { id: of, .. }) if of == id)
    );
}

#[test]
fn a_late_result_is_dropped_and_counts_for_nothing() {
    let journal = journal();
    let queue = queue();
    queue.configure_lane("late", hasty()).unwrap();
    let (let_go, held) = mpsc::channel::<()>();
    // Heard to be gone when it is dropped, whichever thread does that.
    let (result, gone) = mpsc::channel::<()>();
    let handle = queue
        .submit("late", SubmitOptions::normal(), move |_| {
            held.recv().ok();
            result
        })
        .unwrap();
    assert!(matches!(
        handle.wait_until(far()).unwrap(),
        Err(TaskError::Stalled { .. })
    ));
    queue.wait_active(far()).unwrap();
    let_go.send(()).unwrap();
    // A second task of the lane shows that the late end neither freed nor started anything.
    assert_eq!(
        queue
            .submit("late", patient(), |_| 1)
            .unwrap()
            .wait_until(far())
            .unwrap(),
        Ok(1)
    );
    journal.wait_for("late", "its result is dropped");
    queue.wait_idle(far()).unwrap();
    let snapshot = queue.lane_snapshot("late").unwrap();
    assert_eq!(
        (
            snapshot.totals.late,
            snapshot.totals.stalled,
            snapshot.totals.finished
        ),
        (1, 1, 1)
    );
    drop(queue);
    assert_eq!(
        gone.recv_timeout(PATIENCE),
        Err(mpsc::RecvTimeoutError::Disconnected)
    );
}

#[test]
fn a_timeout_and_an_end_at_the_same_time_have_one_winner() {
    let queue = queue();
    let config = LaneConfig {
        width: 4,
        stall_ceiling: Limit::Never,
        cancel_grace: Duration::ZERO,
        max_phantoms: 1000,
        ..LaneConfig::serial()
    };
    queue.configure_lane("race", config).unwrap();
    let mut answers = [0_u64; 2];
    for n in 0..2_000_u64 {
        // The budget passes at about the time at which the task ends.
        let budget = Limit::After(Duration::from_micros(n % 100));
        let options = SubmitOptions {
            budget,
            idle: IdleLimit::Never,
            ..SubmitOptions::normal()
        };
        let handle = queue
            .submit("race", options, |_| thread::yield_now())
            .unwrap();
        match handle.wait_until(far()).unwrap() {
            Ok(()) => answers[0] += 1,
            Err(TaskError::TimedOut { .. }) => answers[1] += 1,
            Err(other) => panic!("{other}"),
        }
    }
    queue.wait_idle(far()).unwrap();
    let snapshot = queue.lane_snapshot("race").unwrap();
    assert_eq!(
        [snapshot.totals.finished, snapshot.totals.timed_out],
        answers
    );
    assert!(snapshot.is_conserved());
}

#[test]
fn a_task_may_say_that_it_failed() {
    let queue = queue();
    let handle = queue
        .submit("f", patient(), |task| {
            task.mark_failed();
            "still a result"
        })
        .unwrap();
    assert_eq!(handle.wait_until(far()).unwrap(), Ok("still a result"));
    assert_eq!(queue.lane_snapshot("f").unwrap().totals.failed, 1);
}

#[test]
fn clear_and_pause_and_width_work_on_a_running_queue() {
    let queue = queue();
    queue.pause("s");
    let waiting: Vec<_> = (0..3)
        .map(|n| queue.submit("s", patient(), move |_| n).unwrap())
        .collect();
    assert_eq!(
        queue.lane_snapshot("s").unwrap().blocked_by,
        BlockedBy::Pause
    );
    assert_eq!(queue.clear("s"), 3);
    for handle in waiting {
        assert!(matches!(handle.wait(), Err(TaskError::Cleared { .. })));
    }
    let after = queue.submit("s", patient(), |_| 9).unwrap();
    queue.set_width("s", 0);
    queue.resume("s");
    assert!(queue.lane_snapshot("s").unwrap().paused);
    queue.set_width("s", 1);
    assert_eq!(after.wait_until(far()).unwrap(), Ok(9));
}
