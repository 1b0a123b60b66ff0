//! Slots for work that runs elsewhere: no thread waits for it, and the same rules watch over it.

use std::sync::mpsc;
use std::time::Duration;

use command_queue::{
    Cancelled, LaneConfig, Outcome, Overrun, Slot, SlotNotice, SubmitOptions, TaskError,
};

use crate::common::{far, hasty, patient, queue};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_slot_holds_its_lane_until_it_is_finished_or_dropped() {
    let queue = queue();
    let (granted, grants) = mpsc::channel::<Slot>();
    let reserve = || {
        let granted = granted.clone();
        queue
            .reserve(
                "turn:1",
                patient(),
                move |slot| granted.send(slot).unwrap(),
                |_| {},
            )
            .unwrap()
    };
    let (first, second, third) = (reserve(), reserve(), reserve());
    assert_eq!((first.ahead(), second.ahead(), third.ahead()), (0, 1, 2));
    let slot = grants.recv_timeout(LONG).unwrap();
    assert_eq!((slot.id(), slot.lane()), (first.id(), "turn:1"));
    assert!(grants.try_recv().is_err(), "one at a time");
    slot.finish(Outcome::Finished).unwrap();
    let slot = grants.recv_timeout(LONG).unwrap();
    assert_eq!(slot.id(), second.id());
    drop(slot);
    grants
        .recv_timeout(LONG)
        .unwrap()
        .finish(Outcome::Cancelled)
        .unwrap();
    let totals = queue.lane_snapshot("turn:1").unwrap().totals;
    assert_eq!(
        (totals.finished, totals.failed, totals.cancelled),
        (1, 1, 1),
        "a dropped slot failed"
    );
}

#[test]
fn a_thousand_slots_are_held_without_a_thread_for_each() {
    let queue = queue();
    let (granted, grants) = mpsc::channel::<Slot>();
    for n in 0..1000 {
        let granted = granted.clone();
        let reserved = queue.reserve(
            &format!("turn:{n}"),
            patient(),
            move |slot| granted.send(slot).unwrap(),
            |_| {},
        );
        drop(reserved.unwrap());
    }
    let held: Vec<_> = (0..1000)
        .map(|_| grants.recv_timeout(LONG).unwrap())
        .collect();
    assert!(queue.snapshot().threads <= 64);
    // Work still runs while all are held.
    assert_eq!(
        queue
            .submit("command:1", patient(), |_| 7)
            .unwrap()
            .wait_until(far())
            .unwrap(),
        Ok(7)
    );
    drop(held);
    queue.wait_idle(far()).unwrap();
}

#[test]
fn a_slot_that_stalls_tells_its_owner_and_a_single_writer_keeps_it_until_the_end() {
    let queue = queue();
    queue.configure_group("turns", 1);
    let config = LaneConfig {
        overrun: Overrun::Hold,
        group: Some("turns".into()),
        ..hasty()
    };
    queue.configure_lane("turn:2", config.clone()).unwrap();
    queue.configure_lane("turn:3", config).unwrap();
    let (granted, grants) = mpsc::channel::<Slot>();
    let (told, tells) = mpsc::channel();
    let second_granted = granted.clone();
    let first = queue
        .reserve(
            "turn:2",
            SubmitOptions::normal(),
            move |slot| granted.send(slot).unwrap(),
            move |notice| told.send(notice).unwrap_or_default(),
        )
        .unwrap();
    let slot = grants.recv_timeout(LONG).unwrap();
    let _second = queue
        .reserve(
            "turn:3",
            patient(),
            move |slot| second_granted.send(slot).unwrap(),
            |_| {},
        )
        .unwrap();

    let mut notice = tells.recv_timeout(LONG).unwrap();
    if notice == SlotNotice::Suspected {
        notice = tells.recv_timeout(LONG).unwrap();
    }
    assert!(
        matches!(notice, SlotNotice::Stop(TaskError::Stalled { .. })),
        "{notice:?}"
    );
    assert!(slot.ticket().is_cancelled());
    assert!(grants.try_recv().is_err(), "the group's slot is held, too");
    let id = first.id();
    assert_eq!(
        slot.finish(Outcome::Finished).unwrap_err().id,
        id,
        "its end was counted as a stall"
    );
    let next = grants.recv_timeout(LONG).unwrap();
    assert_eq!(next.lane(), "turn:3");
    let totals = queue.lane_snapshot("turn:2").unwrap().totals;
    assert_eq!((totals.stalled, totals.finished, totals.late), (1, 0, 1));
}

#[test]
fn progress_through_a_ticket_keeps_a_slot() {
    let queue = queue();
    queue
        .configure_lane(
            "t",
            LaneConfig {
                warn_after: LONG,
                ..hasty()
            },
        )
        .unwrap();
    let (granted, grants) = mpsc::channel::<Slot>();
    let (told, tells) = mpsc::channel();
    let probe = command_queue::Probe::new(crate::common::now);
    // A probe that always vouches stands for a progress report that is never late on a busy machine.
    let options = SubmitOptions {
        probe: Some(probe),
        ..SubmitOptions::normal()
    };
    let reserved = queue.reserve(
        "t",
        options,
        move |slot| granted.send(slot).unwrap(),
        move |notice| told.send(notice).unwrap_or_default(),
    );
    drop(reserved.unwrap());
    let slot = grants.recv_timeout(LONG).unwrap();
    let ticket = slot.ticket();
    ticket.clone().progress();
    // Several ceilings pass without a notice.
    assert!(tells.recv_timeout(Duration::from_millis(100)).is_err());
    slot.finish(Outcome::Finished).unwrap();
    assert!(!ticket.is_cancelled());
}

#[test]
fn a_reservation_that_is_cancelled_is_never_granted() {
    let queue = queue();
    queue.pause("r");
    let (told, tells) = mpsc::channel();
    let reservation = queue
        .reserve(
            "r",
            patient(),
            |_| panic!("it was cancelled"),
            move |notice| told.send(notice).unwrap(),
        )
        .unwrap();
    assert_eq!(reservation.cancel(), Cancelled::Removed);
    queue.resume("r");
    let notice = tells.recv_timeout(LONG).unwrap();
    assert!(
        matches!(notice, SlotNotice::Rejected(TaskError::Cancelled { .. })),
        "{notice:?}"
    );
    queue.wait_idle(far()).unwrap();
}

#[test]
fn an_owner_that_panics_when_it_is_granted_gives_the_slot_back() {
    let queue = queue();
    drop(
        queue
            .reserve("o", patient(), |_slot| panic!("owner"), |_| {})
            .unwrap(),
    );
    assert_eq!(
        queue
            .submit("o", patient(), |_| 1)
            .unwrap()
            .wait_until(far())
            .unwrap(),
        Ok(1)
    );
    assert_eq!(queue.lane_snapshot("o").unwrap().totals.failed, 1);
}

#[test]
fn work_that_ran_before_the_queue_did_gets_a_slot_over_the_width() {
    let queue = queue();
    queue.configure_group("turns", 1);
    for lane in ["turn:4", "turn:5"] {
        queue
            .configure_lane(
                lane,
                LaneConfig {
                    group: Some("turns".into()),
                    ..LaneConfig::single_writer()
                },
            )
            .unwrap();
    }
    let first = queue
        .adopt_slot_over_width("turn:4", patient(), |_| {})
        .unwrap();
    let second = queue
        .adopt_slot_over_width("turn:5", patient(), |_| {})
        .unwrap();
    assert_eq!(queue.snapshot().groups[0].occupied, 2);
    let next = queue.submit("turn:4", patient(), |_| 4).unwrap();
    first.finish(Outcome::Finished).unwrap();
    let snapshot = queue.lane_snapshot("turn:4").unwrap();
    assert_eq!(
        (snapshot.occupied, snapshot.queued),
        (0, 1),
        "the group is still full: {snapshot:?}"
    );
    second.finish(Outcome::Finished).unwrap();
    assert_eq!(next.wait_until(far()).unwrap(), Ok(4));
    queue.wait_idle(far()).unwrap();
    assert_eq!(queue.snapshot().groups[0].occupied, 0);
}

#[test]
fn a_slot_may_outlive_the_queue() {
    let queue = queue();
    let slot = queue.adopt_slot_over_width("x", patient(), |_| {}).unwrap();
    drop(queue);
    assert!(slot.ticket().is_cancelled());
    drop(slot);
}
