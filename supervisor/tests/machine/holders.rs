//! Somebody else holds the place: no churn, no dead end.

use std::time::Duration;

use supervisor::{
    Action, Disposition, Event, Holder, Notice, ParkReason, StartReason, State, UnparkedBy,
};

use crate::subject::{Subject, crash, holder, secs};

/// Answers the start that was asked for: held.
#[track_caller]
fn refused_by(subject: &mut Subject, by: Holder, watchable: bool) {
    let (generation, _) = subject.start_asked();
    subject.tell(Event::Held {
        generation,
        holder: by,
        watchable,
    });
}

fn asked() -> Subject {
    let mut subject = Subject::standard();
    subject.tell(Event::Wake);
    subject
}

#[test]
fn while_a_watched_holder_lives_nothing_is_attempted_whatever_comes() {
    let mut subject = asked();
    refused_by(&mut subject, holder(5), true);
    assert_eq!(subject.action, Some(Action::Watch { holder: holder(5) }));
    assert_eq!(subject.machine.deadline(), None);
    for futile in [
        Event::Wake,
        Event::Start,
        Event::Restart,
        Event::DeadlineReached,
    ] {
        subject.pass(secs(1_000));
        subject.tell(futile);
        assert_eq!(
            (subject.action.clone(), subject.state_name()),
            (None, "held")
        );
    }
    subject.tell(Event::HolderGone);
    assert_eq!(subject.start_asked().1, StartReason::HolderGone);
}

#[test]
fn a_process_that_leaves_because_its_place_is_taken_is_held_and_no_crash() {
    let mut subject = Subject::started();
    subject.ends(
        secs(1),
        Disposition::Contention {
            holder: holder(5),
            watchable: true,
        },
    );
    assert_eq!((subject.state_name(), subject.crash_number()), ("held", 0));
}

#[test]
fn an_unwatchable_holder_is_probed_with_growing_pauses_and_the_sixth_refusal_parks() {
    let mut subject = asked();
    for pause in [10, 20, 40, 80, 120] {
        refused_by(&mut subject, holder(5), false);
        assert_eq!(subject.waits(), secs(pause));
    }
    refused_by(&mut subject, holder(5), false);
    let State::Parked {
        reason:
            ParkReason::Contended {
                holder: by,
                refusals,
                since,
            },
        ..
    } = subject.machine.state()
    else {
        panic!("{:?}", subject.machine.state());
    };
    assert_eq!((by, *refusals), (&holder(5), 6));
    assert_eq!(subject.now.since(*since), secs(270));
}

#[test]
fn another_holder_starts_from_the_first_pause() {
    let mut subject = asked();
    refused_by(&mut subject, holder(5), false);
    assert_eq!(subject.waits(), secs(10));
    refused_by(&mut subject, holder(5), false);
    assert_eq!(subject.waits(), secs(20));
    refused_by(&mut subject, holder(6), false);
    assert_eq!(subject.waits(), secs(10));
    let recycled = Holder {
        start: Some(1),
        ..holder(6)
    };
    refused_by(&mut subject, recycled, false);
    assert_eq!(
        subject.waits(),
        secs(10),
        "the same pid is not the same process"
    );
}

#[test]
fn the_ladder_goes_on_where_it_was_when_the_process_itself_finds_its_place_taken() {
    let mut subject = asked();
    let taken = || Disposition::Contention {
        holder: holder(0),
        watchable: false,
    };
    for pause in [10, 20, 40, 80, 120] {
        subject.comes_up();
        subject.ends(Duration::from_millis(50), taken());
        assert_eq!(subject.waits(), secs(pause));
    }
    subject.comes_up();
    subject.ends(Duration::from_millis(50), taken());
    assert!(subject.is_parked(), "six starts in all, then none");
}

#[test]
fn another_failure_in_between_starts_the_ladder_again() {
    let mut subject = asked();
    refused_by(&mut subject, holder(5), false);
    subject.waits();
    subject.comes_up();
    subject.ends(secs(1), crash());
    subject.waits();
    refused_by(&mut subject, holder(5), false);
    assert_eq!(subject.waits(), secs(10));
}

fn parked() -> Subject {
    let mut subject = asked();
    for _ in 0..5 {
        refused_by(&mut subject, holder(5), false);
        subject.waits();
    }
    refused_by(&mut subject, holder(5), false);
    subject
}

#[test]
fn a_park_behind_a_holder_ends_when_the_holder_is_reported_gone() {
    let mut subject = parked();
    subject.tell(Event::HolderGone);
    assert_eq!(
        subject.notices[0],
        Notice::Unparked {
            by: UnparkedBy::HolderGone
        }
    );
    subject.comes_up();
}

#[test]
fn a_park_behind_a_holder_looks_again_by_itself_and_says_nothing_while_nothing_changed() {
    let mut subject = parked();
    let since = subject.now;
    for _ in 0..3 {
        assert_eq!(subject.waits(), secs(600));
        refused_by(&mut subject, holder(5), false);
        assert_eq!(subject.notices, []);
        assert!(matches!(subject.machine.state(), State::Parked { since: at, .. } if *at == since));
    }
    subject.waits();
    subject.comes_up();
    let by = UnparkedBy::HolderGone;
    assert_eq!(subject.notices[0], Notice::Unparked { by });
}

#[test]
fn a_park_behind_a_holder_can_be_told_not_to_look() {
    let mut subject = Subject::with(|policy| policy.contention_probe = Duration::ZERO);
    subject.tell(Event::Wake);
    for _ in 0..5 {
        refused_by(&mut subject, holder(5), false);
        subject.waits();
    }
    refused_by(&mut subject, holder(5), false);
    assert!(subject.is_parked());
    assert_eq!(subject.machine.deadline(), None);
}

#[test]
fn a_holder_that_is_reported_gone_and_met_again_is_probed_and_not_watched() {
    let mut subject = asked();
    refused_by(&mut subject, holder(5), true);
    subject.tell(Event::HolderGone);
    refused_by(&mut subject, holder(5), true);
    assert_eq!(
        (subject.state_name(), subject.waits()),
        ("contended", secs(10))
    );
}

#[test]
fn holders_that_come_and_go_at_once_do_not_make_a_loop_without_pauses() {
    let mut subject = asked();
    let begun = subject.now;
    for pid in 1..200 {
        refused_by(&mut subject, holder(pid), true);
        if subject.state_name() == "held" {
            subject.tell(Event::HolderGone);
        } else {
            subject.waits();
        }
    }
    assert!(
        subject.now.since(begun) > secs(180),
        "{:?}",
        subject.now.since(begun)
    );
}

#[test]
fn a_holder_that_cannot_be_watched_after_all_is_probed() {
    let mut subject = asked();
    refused_by(&mut subject, holder(5), true);
    subject.tell(Event::HolderUnwatchable);
    assert_eq!(subject.waits(), secs(10));
}

#[test]
fn a_person_who_resumes_a_held_unit_makes_it_look_and_no_more() {
    let mut subject = asked();
    refused_by(&mut subject, holder(5), true);
    subject.tell(Event::Resume);
    refused_by(&mut subject, holder(5), true);
    assert_eq!(subject.state_name(), "held");
}
