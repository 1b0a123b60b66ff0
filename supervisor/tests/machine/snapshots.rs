//! What is counted survives the program that counted it.

use std::time::Duration;

use supervisor::{Disposition, Event, Machine, Moment, Stamp, State};

use crate::subject::{Subject, crash, holder, permanent, secs};

fn stamp(boot: &str, at: Moment, wall: u64) -> Stamp {
    Stamp {
        boot: boot.into(),
        at,
        wall: secs(wall),
    }
}

/// Saves at wall time 1000 and restores later, with `at` and `wall` as the clocks
/// then say.
fn restored(subject: &Subject, boot: &str, at: Moment, wall: u64) -> Machine {
    let saved = subject.machine.snapshot(stamp("one", subject.now, 1_000));
    saved
        .restore(subject.machine.policy().clone(), &stamp(boot, at, wall))
        .expect("because it was just written")
}

fn waiting() -> Subject {
    let mut subject = Subject::started();
    for _ in 0..3 {
        subject.cycles(secs(1), crash());
    }
    subject.ends(
        secs(1),
        Disposition::Dependency {
            reason: "down".into(),
        },
    );
    subject
}

#[track_caller]
fn check_pause_left(machine: &Machine, now: Moment, left: Duration) {
    let until = machine.deadline().expect("because it waits");
    assert_eq!(until.since(now), left);
}

#[test]
fn within_one_boot_every_moment_stays_what_it_was() {
    let subject = waiting();
    let now = subject.now + secs(2);
    let machine = restored(&subject, "one", now, 999_999);
    check_pause_left(&machine, now, secs(3));
    let facts = machine.explain(now);
    assert_eq!(
        (facts.crash.number, facts.crash.in_window, facts.dependency),
        (3, 3, 1)
    );
}

#[test]
fn after_a_reboot_the_distance_is_taken_from_the_wall_clock() {
    let subject = waiting();
    let now = Moment::from_secs(20);
    let machine = restored(&subject, "two", now, 1_002);
    check_pause_left(&machine, now, secs(3));
    assert_eq!(
        machine.explain(now).crash.in_window,
        3,
        "though it is older than the boot"
    );
    let later = restored(&subject, "two", now, 1_000 + 700);
    check_pause_left(&later, now, secs(0));
    assert_eq!(later.explain(now).crash.in_window, 0);
    assert_eq!(
        later.explain(now).crash.number,
        3,
        "being switched off is no health"
    );
}

#[test]
fn a_wall_clock_that_went_back_makes_no_pause_longer() {
    let subject = waiting();
    let now = Moment::from_secs(20);
    check_pause_left(&restored(&subject, "two", now, 5), now, secs(5));
}

#[test]
fn a_monotonic_clock_that_went_back_within_a_boot_is_treated_as_a_reboot() {
    let subject = waiting();
    let now = Moment::from_secs(3);
    check_pause_left(&restored(&subject, "one", now, 1_001), now, secs(4));
}

#[test]
fn states_without_a_process_keep_their_reason_and_the_others_wait_to_be_found() {
    let mut parked = Subject::started();
    parked.ends(secs(1), permanent());
    let mut stopped = Subject::started();
    stopped.tell(Event::Stop);
    let mut held = Subject::started();
    let taken = Disposition::Contention {
        holder: holder(5),
        watchable: true,
    };
    held.ends(secs(1), taken);
    let mut starting = Subject::standard();
    starting.tell(Event::Wake);
    for (subject, name) in [
        (&parked, "parked"),
        (&stopped, "stopped"),
        (&held, "backoff"),
        (&starting, "idle"),
        (&Subject::started(), "idle"),
    ] {
        let machine = restored(subject, "one", subject.now, 1_000);
        assert_eq!(
            machine.state().name(),
            name,
            "{:?}",
            subject.machine.state()
        );
    }
    let machine = restored(&held, "one", held.now, 1_000);
    check_pause_left(&machine, held.now, secs(0));
    assert!(matches!(
        restored(&parked, "two", Moment::from_secs(1), 1_100).state(),
        State::Parked { since, .. } if *since == Moment::from_secs(1).before(secs(100))
    ));
}

#[test]
fn the_jitter_goes_on_where_it_was() {
    let mut subject = Subject::with(|policy| policy.jitter = 0.1);
    subject.start();
    subject.cycles(secs(1), crash());
    let mut copy = Subject::standard();
    copy.machine = restored(&subject, "one", subject.now, 1_000);
    copy.now = subject.now;
    copy.start();
    assert_eq!(
        subject.cycles(secs(1), crash()),
        copy.cycles(secs(1), crash())
    );
}

#[test]
fn a_start_of_the_former_program_is_void_and_generations_go_on() {
    let mut subject = Subject::standard();
    subject.tell(Event::Wake);
    let (generation, _) = subject.start_asked();
    let mut copy = Subject::standard();
    copy.machine = restored(&subject, "one", subject.now, 1_000);
    assert_ne!(copy.machine.epoch(), subject.machine.epoch());
    copy.tell(Event::Start);
    assert!(copy.start_asked().0 > generation);
}

#[cfg(feature = "serde")]
#[test]
fn a_snapshot_that_was_written_down_is_the_same_when_read_back() {
    use supervisor::Snapshot;

    for subject in [waiting(), Subject::started(), Subject::standard()] {
        let saved = subject.machine.snapshot(stamp("one", subject.now, 1_000));
        let text = serde_json::to_string(&saved).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), saved);
        let later = text.replacen("\"version\":1", "\"version\":2", 1);
        let later: Snapshot = serde_json::from_str(&later).unwrap();
        let now = stamp("one", subject.now, 1_000);
        let error = later
            .restore(subject.machine.policy().clone(), &now)
            .unwrap_err();
        assert_eq!(error.to_string(), "the saved state has form 2, known is 1");
    }
}
