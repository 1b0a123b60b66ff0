//! What people and programs want, against what is going on.

use supervisor::{Account, Action, Disposition, Event, Notice, StartReason, State, UnparkedBy};

use crate::subject::{Subject, crash, dependency, memory, permanent, secs};

#[test]
fn a_stop_beats_a_start_that_was_handed_out() {
    let mut subject = Subject::standard();
    subject.tell(Event::Start);
    let Some(Action::Spawn {
        epoch, generation, ..
    }) = subject.action
    else {
        panic!()
    };
    subject.tell(Event::Stop);
    assert_ne!(
        subject.machine.epoch(),
        epoch,
        "the driver sees that the start is void"
    );
    assert_eq!(subject.state_name(), "stopped");
    // A driver that starts it all the same is told to end it.
    subject.tell(Event::Spawned { generation, pid: 7 });
    assert_eq!(subject.action, Some(Action::Terminate { generation }));
    subject.ends(secs(1), crash());
    assert_eq!(subject.state_name(), "stopped");
}

#[test]
fn a_stop_beats_every_pause() {
    for ending in [crash(), memory(1), dependency(), Disposition::Released] {
        let mut subject = Subject::started();
        subject.ends(secs(1), ending.clone());
        assert!(subject.machine.deadline().is_some(), "{ending:?}");
        subject.tell(Event::Stop);
        assert_eq!(
            (subject.state_name(), subject.machine.deadline()),
            ("stopped", None)
        );
        subject.tell(Event::DeadlineReached);
        assert_eq!(subject.action, None);
    }
}

#[test]
fn an_ending_after_a_stop_was_asked_for_counts_as_nothing() {
    let mut subject = Subject::started();
    subject.tell(Event::Stop);
    assert!(matches!(subject.action, Some(Action::Terminate { .. })));
    subject.ends(secs(1), crash());
    assert_eq!(
        (subject.state_name(), subject.crash_number()),
        ("stopped", 0)
    );
    assert!(matches!(
        subject.notices[0],
        Notice::Exited {
            requested: true,
            ..
        }
    ));
}

#[test]
fn a_restart_operates_on_the_process_that_ran_and_never_on_its_replacement() {
    let mut subject = Subject::started();
    let (_, old) = subject.machine.state().process().unwrap();
    subject.tell(Event::Restart);
    assert_eq!(subject.action, Some(Action::Terminate { generation: old }));
    subject.ends(secs(1), crash());
    assert_eq!(subject.start_asked().1, StartReason::Restarted);
    let new = subject.comes_up();
    subject.tell(Event::Exited {
        generation: old,
        disposition: crash(),
    });
    assert!(
        matches!(subject.machine.state(), State::Running { generation, .. } if *generation == new)
    );
    assert_eq!(subject.crash_number(), 0);
}

#[test]
fn the_last_wish_during_a_stop_decides_what_follows() {
    for (wishes, state) in [
        (vec![Event::Start], "starting"),
        (vec![Event::Resume], "starting"),
        (vec![Event::Restart], "starting"),
        (vec![Event::Start, Event::Stop], "stopped"),
        (vec![Event::Wake], "stopped"),
    ] {
        let mut subject = Subject::started();
        subject.tell(Event::Stop);
        for wish in &wishes {
            subject.tell(wish.clone());
        }
        subject.ends(secs(1), crash());
        assert_eq!(subject.state_name(), state, "{wishes:?}");
    }
}

#[test]
fn a_kill_hurries_a_stop_that_is_going_on() {
    let mut subject = Subject::started();
    subject.tell(Event::Stop);
    let (_, generation) = subject.machine.state().process().unwrap();
    subject.tell(Event::Kill);
    assert_eq!(subject.action, Some(Action::Kill { generation }));
}

#[test]
fn a_message_cuts_the_pause_after_a_crash_short_once_per_number() {
    let mut subject = Subject::started();
    subject.ends(secs(1), crash());
    subject.tell(Event::Wake);
    assert_eq!(subject.start_asked().1, StartReason::WokenEarly);
    assert!(subject.notices.contains(&Notice::WokenEarly {
        account: Account::Crash,
        number: 1
    }));
    subject.comes_up();
    subject.ends(secs(1), crash());
    subject.tell(Event::Wake);
    assert_eq!(
        subject.start_asked().1,
        StartReason::WokenEarly,
        "number 2 is another number"
    );
}

#[test]
fn a_message_never_cuts_a_degraded_unit_short() {
    let mut subject = Subject::started();
    for _ in 0..3 {
        subject.ends(secs(1), crash());
        subject.tell(Event::Wake);
        subject.comes_up();
    }
    subject.ends(secs(1), crash());
    assert_eq!(
        subject.state_name(),
        "degraded",
        "early starts count like any other"
    );
    subject.tell(Event::Wake);
    assert_eq!(subject.action, None);
}

#[test]
fn a_stream_of_messages_cannot_turn_the_longest_dependency_pause_into_none() {
    let mut subject = Subject::started();
    let mut early = 0;
    for _ in 0..50 {
        subject.ends(secs(1), dependency());
        subject.tell(Event::Wake);
        if subject.action.is_some() {
            early += 1;
        } else {
            subject.waits();
        }
        subject.comes_up();
    }
    assert_eq!(
        early, 7,
        "once for each of 5, 10, 20, 40, 80, 160 and 300 s"
    );
}

#[test]
fn a_message_does_not_shorten_the_pauses_of_memory_release_and_clean_restarts() {
    for ending in [memory(1), Disposition::Released] {
        let mut subject = Subject::started();
        subject.ends(secs(1), ending.clone());
        subject.tell(Event::Wake);
        assert_eq!(subject.action, None, "{ending:?}");
    }
}

#[test]
fn work_that_arrives_while_the_host_is_asked_is_not_lost() {
    let mut subject = Subject::standard();
    subject.tell(Event::Wake);
    let (generation, _) = subject.start_asked();
    subject.tell(Event::Wake);
    subject.tell(Event::NotNeeded { generation });
    assert_eq!(
        subject.start_asked().1,
        StartReason::Woken,
        "the answer was older than the work"
    );
}

#[test]
fn after_every_ending_the_host_is_asked_before_the_unit_is_idle() {
    let mut subject = Subject::started();
    subject.ends(secs(1), Disposition::IdleLeft);
    let (generation, _) = subject.start_asked();
    subject.tell(Event::NotNeeded { generation });
    assert_eq!(subject.state_name(), "idle");
    assert_eq!(subject.notices, [Notice::Idle]);
}

#[test]
fn a_resume_unparks_and_forgives() {
    let mut subject = Subject::with(|policy| policy.crash_hard = 2);
    subject.start();
    subject.cycles(secs(1), crash());
    subject.ends(secs(1), crash());
    assert!(subject.is_parked());
    for futile in [
        Event::Start,
        Event::Wake,
        Event::Restart,
        Event::DeadlineReached,
    ] {
        subject.tell(futile.clone());
        assert_eq!(subject.action, None, "{futile:?}");
    }
    subject.tell(Event::Resume);
    assert!(subject.notices.contains(&Notice::Unparked {
        by: UnparkedBy::Resume
    }));
    subject.comes_up();
    subject.ends(secs(1), crash());
    assert_eq!(
        (subject.state_name(), subject.crash_number()),
        ("backoff", 1)
    );
}

#[test]
fn a_resume_of_a_degraded_unit_forgets_the_rate_too() {
    let mut subject = Subject::with(|policy| policy.crash_soft = 2);
    subject.start();
    subject.cycles(secs(1), crash());
    subject.cycles(secs(1), crash());
    subject.ends(secs(1), crash());
    assert_eq!(subject.state_name(), "degraded");
    subject.tell(Event::Resume);
    subject.comes_up();
    subject.ends(secs(1), crash());
    assert_eq!(
        (subject.state_name(), subject.crash_number()),
        ("backoff", 1)
    );
    let crash = subject.machine.explain(subject.now).crash;
    assert_eq!(crash.in_window, 1);
    // The pause of the new number 1 may be cut short like any other.
    subject.tell(Event::Wake);
    assert!(subject.action.is_some());
}

#[test]
fn a_change_of_the_configuration_unparks_and_cuts_pauses_short() {
    for ending in [permanent(), crash(), dependency(), memory(1)] {
        let mut subject = Subject::started();
        subject.ends(secs(1), ending.clone());
        subject.tell(Event::ConfigChanged);
        assert_eq!(
            subject.start_asked().1,
            StartReason::ConfigChanged,
            "{ending:?}"
        );
    }
    let mut subject = Subject::started();
    subject.tell(Event::ConfigChanged);
    assert_eq!(
        (subject.action.clone(), subject.state_name()),
        (None, "running")
    );
}

#[test]
fn a_timer_that_fires_early_changes_nothing() {
    let mut subject = Subject::started();
    subject.ends(secs(1), crash());
    let before = subject.machine.state().clone();
    subject.tell(Event::DeadlineReached);
    assert_eq!(
        (subject.action.clone(), subject.machine.state()),
        (None, &before)
    );
}

#[test]
fn a_host_that_cannot_decide_is_asked_again_but_not_at_once() {
    let mut subject = Subject::standard();
    subject.tell(Event::Wake);
    let (generation, _) = subject.start_asked();
    let after = std::time::Duration::ZERO;
    subject.tell(Event::NotNow {
        generation,
        reason: "graph is being written".into(),
        after,
    });
    assert_eq!(subject.waits(), std::time::Duration::from_millis(100));
    assert_eq!(subject.start_asked().1, StartReason::Retry(Account::NotNow));
    assert_eq!(subject.crash_number(), 0);
}

#[test]
fn the_time_that_ending_the_leftovers_takes_is_no_time_of_the_run() {
    let mut subject = Subject::started();
    let (_, generation) = subject.machine.state().process().unwrap();
    subject.pass(secs(299));
    subject.tell(Event::LeaderExited { generation });
    assert_eq!(subject.state_name(), "ending");
    subject.pass(secs(50));
    subject.tell(Event::Exited {
        generation,
        disposition: crash(),
    });
    assert!(matches!(subject.notices[0], Notice::Exited { ran_for, .. } if ran_for == secs(299)));
}

#[test]
fn an_adopted_process_has_run_since_it_started() {
    let mut subject = Subject::standard();
    let since = subject.now.before(secs(500));
    subject.tell(Event::Adopted { pid: 9, since });
    subject.ends(secs(1), crash());
    assert!(matches!(subject.notices[0], Notice::Exited { ran_for, .. } if ran_for == secs(501)));
    assert_eq!(subject.crash_number(), 1);
}

#[test]
fn an_adoption_voids_a_start_that_was_handed_out() {
    let mut subject = Subject::standard();
    subject.tell(Event::Wake);
    let Some(Action::Spawn { epoch, .. }) = subject.action else {
        panic!()
    };
    subject.tell(Event::Adopted {
        pid: 9,
        since: subject.now,
    });
    assert_ne!(subject.machine.epoch(), epoch);
    subject.tell(Event::Adopted {
        pid: 10,
        since: subject.now,
    });
    assert!(matches!(
        subject.machine.state(),
        State::Running { pid: 9, .. }
    ));
}

#[test]
fn a_person_who_starts_a_unit_while_the_host_says_not_needed_is_heard() {
    for wish in [
        Event::Start,
        Event::Resume,
        Event::Restart,
        Event::ConfigChanged,
    ] {
        let mut subject = Subject::standard();
        subject.tell(Event::Wake);
        let (generation, _) = subject.start_asked();
        subject.tell(wish.clone());
        subject.tell(Event::NotNeeded { generation });
        assert_eq!(subject.state_name(), "starting", "{wish:?}");
    }
}

#[test]
fn what_was_wrong_with_a_former_configuration_is_tried_again_once() {
    let mut subject = Subject::started();
    subject.tell(Event::ConfigChanged);
    subject.ends(secs(1), permanent());
    assert_eq!(subject.start_asked().1, StartReason::ConfigChanged);
    subject.comes_up();
    subject.ends(secs(1), permanent());
    assert!(subject.is_parked());
}
