//! What a program can do to a queue from inside its callbacks and at the worst moment. None of it may lose a task, leave a
//! caller without an answer, or stop a lane.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::thread;

use command_queue::{
    Close, CommandQueue, LaneConfig, Limit, Probe, QueueConfig, SlotNotice, SubmitError,
    SubmitOptions, TaskError,
};

use crate::common::{Stuck, far, hasty, journal, now, patient, queue};

#[test]
fn everything_may_be_dropped_from_inside_a_task_of_the_queue() {
    // The last handle to the queue goes inside one of its own tasks, which then looks at what is left.
    let queue = queue();
    let waiting = Arc::new(Mutex::new(None));
    let (go, gate) = mpsc::channel::<()>();
    let inside = queue.clone();
    let kept = Arc::clone(&waiting);
    let last = queue
        .submit("drop", patient(), move |task| {
            gate.recv().unwrap();
            drop(inside);
            // Its own handle, too, which nobody can wait for any more.
            let handle = kept.lock().unwrap().take();
            drop(handle);
            task.is_cancelled()
        })
        .unwrap();
    let own = queue.submit("drop", patient(), |_| ()).unwrap();
    let behind = queue.submit("drop", patient(), |_| ()).unwrap();
    *waiting.lock().unwrap() = Some(own);
    drop(queue);
    go.send(()).unwrap();
    assert_eq!(last.wait(), Ok(true), "it was told, and its result counts");
    assert_eq!(behind.wait(), Err(TaskError::Closed { reason: Close::Now }));
}

#[test]
fn a_slot_may_be_dropped_while_it_is_granted_and_after_its_queue_is_gone() {
    let queue = queue();
    for n in 0..100 {
        let reservation = queue
            .reserve("slots", patient(), drop, |_| panic!("an owner"))
            .unwrap();
        if n % 2 == 0 {
            reservation.cancel();
        }
    }
    assert_eq!(
        queue
            .submit("slots", patient(), |_| 1)
            .unwrap()
            .wait_until(far())
            .unwrap(),
        Ok(1)
    );
    let (granted, slots) = mpsc::channel();
    let _place = queue
        .reserve(
            "slots",
            patient(),
            move |slot| granted.send(slot).unwrap(),
            |_: SlotNotice| (),
        )
        .unwrap();
    let slot = slots.recv().unwrap();
    queue.wait_active(now()).unwrap_err();
    drop(queue);
    slot.progress();
    drop(slot);
}

#[test]
fn whatever_panics_panics_alone() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(thread::panicking(), "in drop");
        }
    }
    let queue = queue();
    queue.configure_lane("boom", hasty()).unwrap();
    queue.on_event(|_| panic!("a listener"));
    for _ in 0..20 {
        let caught = Bomb;
        let options = SubmitOptions {
            probe: Some(Probe::new(|| panic!("a probe"))),
            ..SubmitOptions::normal()
        };
        let probed = queue
            .submit("boom", options, |task| {
                assert!(!task.wait_cancelled(far()), "a task");
            })
            .unwrap();
        queue
            .submit_detached("boom", patient(), |_| -> Bomb { Bomb })
            .unwrap();
        // Never run: the closure goes with what it caught.
        let removed = queue
            .submit("boom", patient(), move |_| drop(caught))
            .unwrap();
        removed.cancel();
        assert!(matches!(
            removed.wait_until(far()).unwrap(),
            Err(TaskError::Cancelled { .. })
        ));
        // The probe's panic is silence, so the task stalls; its own panic comes too late to be its answer.
        assert!(matches!(
            probed.wait_until(far()).unwrap(),
            Err(TaskError::Stalled { .. })
        ));
    }
    let after = queue.submit("boom", patient(), |_| "goes on").unwrap();
    assert_eq!(after.wait_until(far()).unwrap(), Ok("goes on"));
    queue.wait_idle(far()).unwrap();
    assert!(queue.snapshot().is_conserved());
}

#[test]
fn a_listener_that_blocks_delays_no_lane() {
    let queue = queue();
    queue.configure_lane("deaf", hasty()).unwrap();
    let (let_go, held) = mpsc::channel::<()>();
    let (called, calls) = mpsc::channel();
    let held = Mutex::new(held);
    queue.on_event(move |_| {
        called.send(()).ok();
        held.lock().unwrap().recv().ok();
    });
    let first = Stuck::start(&queue, "deaf");
    calls.recv().unwrap();
    // The listener hangs in the first event; the slot goes back all the same.
    let next = queue.submit("deaf", patient(), |_| "ran").unwrap();
    assert_eq!(next.wait_until(far()).unwrap(), Ok("ran"));
    drop(let_go);
    first.release();
}

#[test]
fn a_probe_that_never_answers_is_given_up_and_the_slot_goes_back() {
    let journal = journal();
    let queue = queue();
    queue.configure_lane("mute", hasty()).unwrap();
    let (let_go, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let options = SubmitOptions {
        probe: Some(Probe::new(move || {
            held.lock().unwrap().recv().ok();
            now()
        })),
        ..SubmitOptions::normal()
    };
    let hung = queue
        .submit("mute", options, |task| task.wait_cancelled(far()))
        .unwrap();
    let next = queue.submit("mute", patient(), |_| "ran").unwrap();
    assert!(matches!(
        hung.wait_until(far()).unwrap(),
        Err(TaskError::Stalled { .. })
    ));
    assert_eq!(next.wait_until(far()).unwrap(), Ok("ran"));
    journal.wait_for("mute", "progress probe did not answer");
    assert_eq!(journal.of("mute", "progress probe did not answer").len(), 1);
    drop(let_go);
}

#[test]
fn closing_in_a_storm_of_submissions_loses_nothing_and_accepts_nothing_afterwards() {
    const SUBMITTERS: u8 = 8;
    for (round, how) in [Close::Drain, Close::Now, Close::Drain, Close::Now]
        .into_iter()
        .enumerate()
    {
        let queue = queue();
        let (accepted, answered, ran) = (
            AtomicU64::new(0),
            AtomicU64::new(0),
            Arc::new(AtomicU64::new(0)),
        );
        let start = Barrier::new(usize::from(SUBMITTERS) + 1);
        let refused_once = (Mutex::new(0_u8), Condvar::new());
        thread::scope(|scope| {
            for submitter in 0..SUBMITTERS {
                let (queue, accepted, answered) = (&queue, &accepted, &answered);
                let (start, refused_once, ran) = (&start, &refused_once, &ran);
                scope.spawn(move || {
                    start.wait();
                    let mut handles = Vec::new();
                    for n in 0.. {
                        let ran = Arc::clone(ran);
                        let lane = format!("storm-{}", (u64::from(submitter) + n) % 3);
                        let task = move |_: &command_queue::TaskContext| {
                            ran.fetch_add(1, Ordering::SeqCst);
                        };
                        match queue.submit(&lane, patient(), task) {
                            Ok(handle) => handles.push(handle),
                            Err(refused) => {
                                assert_eq!(refused.reason, SubmitError::Closed { reason: how });
                                break;
                            }
                        }
                    }
                    *refused_once.0.lock().unwrap() += 1;
                    refused_once.1.notify_all();
                    accepted.fetch_add(handles.len() as u64, Ordering::SeqCst);
                    for handle in handles {
                        match handle.wait_until(far()).expect("everybody is answered") {
                            Ok(()) => {
                                answered.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(error) => {
                                assert_eq!(how, Close::Now, "{error}");
                                assert_eq!(error, TaskError::Closed { reason: how });
                            }
                        }
                    }
                });
            }
            start.wait();
            for _ in 0..round * 200 {
                thread::yield_now();
            }
            queue.close(how);
            queue.wait_idle(far()).unwrap();
            // Whoever saw the queue open has left its task by now: nothing comes in after this.
            let submitted = queue.snapshot().totals.submitted;
            let mut refused = refused_once.0.lock().unwrap();
            while *refused < SUBMITTERS {
                refused = refused_once.1.wait(refused).unwrap();
            }
            drop(refused);
            assert_eq!(queue.snapshot().totals.submitted, submitted);
        });
        let totals = queue.snapshot().totals;
        assert!(queue.snapshot().is_conserved());
        assert_eq!(totals.submitted, accepted.load(Ordering::SeqCst));
        assert_eq!(totals.finished, answered.load(Ordering::SeqCst));
        assert_eq!(totals.finished, ran.load(Ordering::SeqCst));
        assert_eq!(totals.cleared, totals.submitted - totals.finished);
    }
}

/// Set in the process in which threads are scarce.
const SCARCE: &str = "COMMAND_QUEUE_SCARCE";

#[test]
fn no_task_is_lost_when_no_further_thread_can_be_started() {
    if std::env::var_os(SCARCE).is_none() {
        // Address space for few stacks only; the limit holds for every user, which that on processes does not.
        let own = std::env::current_exe().unwrap();
        let done = Command::new("sh")
            .args([
                "-c",
                "ulimit -v 200000; exec \"$0\" --exact --nocapture \"$1\"",
            ])
            .arg(own)
            .arg("hostile::no_task_is_lost_when_no_further_thread_can_be_started")
            .env(SCARCE, "1")
            .env("MALLOC_ARENA_MAX", "1")
            .env("RUST_MIN_STACK", (16 << 20).to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&done.stdout);
        assert!(
            done.status.success() && text.contains("1 passed"),
            "{text}{}",
            String::from_utf8_lossy(&done.stderr)
        );
        return;
    }
    let journal = journal();
    let queue = CommandQueue::start(QueueConfig {
        lane_defaults: LaneConfig {
            stall_ceiling: Limit::Never,
            ..LaneConfig::serial()
        },
        ..QueueConfig::recommended()
    })
    .unwrap();
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let handles: Vec<_> = (0..40)
        .map(|n| {
            let gate = Arc::clone(&gate);
            queue
                .submit(&format!("scarce-{n}"), patient(), move |_| {
                    let mut open = gate.0.lock().unwrap();
                    while !*open {
                        open = gate.1.wait(open).unwrap();
                    }
                })
                .unwrap()
        })
        .collect();
    journal.wait_for_any("failed to start a worker");
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    for handle in handles {
        assert_eq!(handle.wait_until(far()).unwrap(), Ok(()));
    }
}
