//! The everyday life of a lane, through the public handle.

use std::sync::mpsc;

use command_queue::SubmitOptions;

use crate::common::{far, queue};

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
    queue.wait_idle(far()).unwrap();
    let snapshot = queue.snapshot();
    assert!(snapshot.is_conserved());
    assert_eq!(snapshot.totals.finished, 1000);
}
