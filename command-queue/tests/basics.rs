//! The everyday life of a lane, through the public handle.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use command_queue::{CommandQueue, LaneConfig, Limit, QueueConfig, SubmitOptions, TaskError};

fn queue() -> CommandQueue {
    CommandQueue::start(QueueConfig::recommended()).expect("a thread can be started")
}

fn soon() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "a deadline that no test reaches unless it fails"
    )]
    let now = Instant::now();
    now + Duration::from_secs(60)
}

#[test]
fn a_task_runs_and_its_handle_has_the_result() {
    let queue = queue();
    let handle = queue.submit("a", SubmitOptions::normal(), |_| 7).unwrap();
    assert_eq!(handle.wait().unwrap(), 7);
}

#[test]
fn a_serial_lane_keeps_the_order_of_submission() {
    let queue = queue();
    let (sender, receiver) = mpsc::channel();
    for n in 0..1000 {
        let sender = sender.clone();
        drop(
            queue
                .submit("a", SubmitOptions::normal(), move |_| {
                    sender.send(n).unwrap();
                })
                .unwrap(),
        );
    }
    drop(sender);
    assert_eq!(
        receiver.iter().collect::<Vec<_>>(),
        (0..1000).collect::<Vec<_>>()
    );
    queue.wait_idle(soon()).unwrap();
    let snapshot = queue.snapshot();
    assert!(snapshot.is_conserved());
    assert_eq!(snapshot.totals.finished, 1000);
}

#[test]
fn a_task_that_never_ends_is_reclaimed_with_nothing_else_submitted() {
    let queue = queue();
    let config = LaneConfig {
        stall_ceiling: Limit::After(Duration::from_millis(20)),
        cancel_grace: Duration::from_millis(5),
        ..LaneConfig::serial()
    };
    queue.configure_lane("a", config).unwrap();
    let (release, blocked) = mpsc::channel::<()>();
    let stuck = queue
        .submit("a", SubmitOptions::normal(), move |_| {
            blocked.recv().is_ok()
        })
        .unwrap();
    let next = queue.submit("a", SubmitOptions::normal(), |_| 7).unwrap();
    assert_eq!(next.wait_until(soon()).unwrap(), Ok(7));
    assert!(matches!(
        stuck.wait_until(soon()).unwrap(),
        Err(TaskError::Stalled { .. })
    ));
    release.send(()).unwrap();
}
