//! Every account of the policy, one table each.

use std::time::Duration;

use supervisor::{
    Account, Disposition, Event, Mover, Notice, ParkReason, SpawnFailure, StartReason, State,
};

use crate::subject::{Subject, crash, dependency, memory, permanent, secs, transient};

/// Runs through endings after a second each and compares the pauses, in seconds.
#[track_caller]
fn check_pauses(mut subject: Subject, endings: &[Disposition], pauses: &[u64]) -> Subject {
    for (round, (ending, pause)) in endings.iter().zip(pauses).enumerate() {
        assert_eq!(
            subject.cycles(secs(1), ending.clone()),
            secs(*pause),
            "ending {round}"
        );
    }
    subject
}

#[test]
fn a_crash_pauses_for_a_second_doubled_by_number_up_to_the_cap() {
    let mut subject = Subject::with(|policy| policy.crash_soft = 20);
    subject.start();
    check_pauses(
        subject,
        &vec![crash(); 9],
        &[1, 2, 4, 8, 16, 32, 60, 60, 60],
    );
}

#[test]
fn the_thirty_third_doubling_does_not_overflow() {
    let mut subject = Subject::with(|policy| {
        policy.crash_soft = 1_000;
        policy.crash_hard = 0;
        policy.unsafe_no_backoff = true;
    });
    subject.start();
    for _ in 0..80 {
        let pause = subject.cycles(secs(1), crash());
        assert!(pause >= secs(1) && pause <= secs(60), "{pause:?}");
    }
}

#[test]
fn more_crashes_than_the_soft_limit_in_its_window_degrade_and_that_is_told_once() {
    let mut subject = Subject::started();
    let mut told = 0;
    for number in 1..=8 {
        subject.ends(secs(1), crash());
        told += subject
            .notices
            .iter()
            .filter(|n| matches!(n, Notice::Degraded { .. }))
            .count();
        let degraded = matches!(subject.machine.state(), State::Degraded { .. });
        assert_eq!(degraded, number > 3, "crash {number}");
        let pause = subject.waits();
        if degraded {
            assert_eq!(pause, secs(60));
        }
        subject.comes_up();
    }
    assert_eq!(told, 1);
}

#[test]
fn an_episode_that_is_over_is_announced_again_when_it_comes_back() {
    let mut subject = Subject::with(|policy| policy.decay_every = secs(100_000));
    subject.start();
    let mut told = 0;
    for _ in 0..2 {
        for _ in 0..5 {
            subject.ends(secs(1), crash());
            told += subject
                .notices
                .iter()
                .filter(|n| matches!(n, Notice::Degraded { .. }))
                .count();
            subject.waits();
            subject.comes_up();
        }
        // Long enough for the window to be empty again.
        subject.cycles(secs(700), crash());
    }
    assert_eq!(told, 2);
}

#[test]
fn the_hard_limit_parks_with_the_number_and_the_last_reason() {
    let mut subject = Subject::started();
    for _ in 1..100 {
        subject.cycles(secs(1), crash());
    }
    subject.ends(secs(1), crash());
    let State::Parked {
        reason: ParkReason::CrashLimit { crashes, last },
        ..
    } = subject.machine.state()
    else {
        panic!("{:?}", subject.machine.state());
    };
    assert_eq!((*crashes, last.as_str()), (100, "exit code 1"));
    assert_eq!(subject.machine.deadline(), None);
}

#[test]
fn a_hard_limit_of_zero_never_parks() {
    let mut subject = Subject::with(|policy| policy.crash_hard = 0);
    subject.start();
    for _ in 0..1_000 {
        subject.cycles(secs(1), crash());
    }
    assert_eq!(subject.crash_number(), 1_000);
}

#[test]
fn a_crash_after_a_stable_run_of_its_own_is_number_one() {
    for (ran_for, number) in [(299, 4), (300, 4), (301, 1)] {
        let mut subject = Subject::started();
        for _ in 0..3 {
            subject.cycles(secs(1), crash());
        }
        subject.ends(secs(ran_for), crash());
        assert_eq!(subject.crash_number(), number, "ran for {ran_for} s");
    }
}

#[test]
fn a_crash_after_finished_work_is_number_one_and_a_mere_start_forgives_nothing() {
    let mut subject = Subject::started();
    subject.cycles(secs(1), crash());
    subject.cycles(secs(1), crash());
    assert_eq!(subject.crash_number(), 2);
    subject.tell(Event::Progress);
    subject.ends(secs(1), crash());
    assert_eq!(subject.crash_number(), 1);
}

#[test]
fn work_that_a_former_run_finished_does_not_forgive_the_next_crash() {
    let mut subject = Subject::started();
    subject.tell(Event::Progress);
    subject.cycles(secs(1), crash());
    subject.ends(secs(1), crash());
    assert_eq!(subject.crash_number(), 2);
}

#[test]
fn ten_minutes_of_health_take_one_step_off_and_a_crash_starts_the_count_again() {
    let mut subject = Subject::started();
    for _ in 0..3 {
        subject.cycles(secs(1), crash());
    }
    subject.cycles(secs(599), Disposition::Clean);
    assert_eq!(subject.crash_number(), 3);
    subject.cycles(secs(1), Disposition::Clean);
    assert_eq!(subject.crash_number(), 2);
    subject.cycles(secs(590), Disposition::Clean);
    subject.cycles(secs(5), crash());
    assert_eq!(subject.crash_number(), 3, "595 s of health were not enough");
    subject.pass(secs(1_200));
    assert_eq!(
        subject.crash_number(),
        1,
        "a run that goes on decays as well"
    );
}

#[test]
fn a_transient_failure_to_start_is_a_crash_and_a_permanent_one_parks() {
    let mut subject = Subject::standard();
    subject.tell(Event::Start);
    let (generation, _) = subject.start_asked();
    subject.tell(Event::SpawnFailed {
        generation,
        failure: transient(),
    });
    assert_eq!(
        (subject.crash_number(), subject.state_name()),
        (1, "backoff")
    );
    subject.waits();
    let (generation, _) = subject.start_asked();
    let failure = SpawnFailure::Permanent {
        reason: "`/x` is missing".into(),
    };
    subject.tell(Event::SpawnFailed {
        generation,
        failure,
    });
    assert!(subject.is_parked());
    assert_eq!(
        subject.machine.explain(subject.now).last_failure.as_deref(),
        Some("`/x` is missing")
    );
}

#[test]
fn jitter_stays_within_its_share_and_is_repeated_by_the_same_seed() {
    let pauses = |seed| {
        let mut subject = Subject::with(|policy| {
            policy.jitter = 0.1;
            policy.crash_soft = 50;
        });
        let policy = subject.machine.policy().clone();
        subject.machine = supervisor::Machine::new(policy, seed, subject.now);
        subject.start();
        (0..40)
            .map(|_| subject.cycles(secs(1), crash()))
            .collect::<Vec<Duration>>()
    };
    let one = pauses(1);
    assert_eq!(one, pauses(1));
    assert_ne!(one, pauses(2));
    for pause in &one[8..] {
        assert!(*pause >= secs(54) && *pause <= secs(66), "{pause:?}");
    }
    assert!(one[8..].iter().any(|pause| *pause < secs(60)));
    assert!(one[8..].iter().any(|pause| *pause > secs(60)));
}

#[test]
fn clean_restarts_beyond_the_budget_pause_and_are_warned_about_once() {
    let mut subject = Subject::started();
    let mut warned = 0;
    for number in 1..=30_u32 {
        subject.ends(Duration::from_millis(10), Disposition::Clean);
        let warning = |n: &&Notice| {
            matches!(
                n,
                Notice::BudgetWarning {
                    account: Account::Clean,
                    ..
                }
            )
        };
        warned += subject.notices.iter().filter(warning).count();
        if subject.action.is_none() {
            assert!(number > 10);
            assert_eq!(subject.waits(), secs(1));
        } else {
            assert!(number <= 10);
        }
        subject.comes_up();
    }
    assert_eq!(warned, 1);
    subject.pass(secs(61));
    assert_eq!(
        subject.cycles(secs(0), Disposition::Clean),
        secs(0),
        "the window is empty again"
    );
}

/// The number that the last ending has in its account.
#[track_caller]
fn number_told(subject: &Subject) -> u32 {
    let number = |notice: &Notice| {
        if let Notice::Backoff { number, .. } = notice {
            Some(*number)
        } else {
            None
        }
    };
    let told = subject.notices.iter().find_map(number);
    told.unwrap_or_else(|| panic!("no pause is told: {:?}", subject.notices))
}

#[test]
fn every_restart_has_its_own_number_however_many_there_were() {
    for (ending, quiet) in [
        (Disposition::Clean, 61),
        (memory(1), 601),
        (dependency(), 301),
    ] {
        let mut subject = Subject::started();
        for number in 1..=200 {
            subject.ends(secs(0), ending.clone());
            assert_eq!(number_told(&subject), number, "{ending:?}");
            if subject.action.is_none() {
                subject.waits();
            }
            subject.comes_up();
        }
        subject.ends(secs(quiet), ending.clone());
        assert_eq!(number_told(&subject), 1, "{ending:?} after a quiet time");
    }
}

#[test]
fn a_pause_of_zero_is_told_as_well() {
    let mut subject = Subject::started();
    subject.ends(secs(1), Disposition::Clean);
    let told = subject.notices.iter().any(|notice| {
        matches!(
            notice,
            Notice::Backoff {
                account: Account::Clean,
                delay: Duration::ZERO,
                ..
            }
        )
    });
    assert!(told, "{:?}", subject.notices);
    assert_eq!(subject.start_asked().1, StartReason::Retry(Account::Clean));
}

#[test]
fn the_memory_account_always_pauses_and_warns_with_the_highest_peak() {
    let mut subject = Subject::started();
    let mut warnings = Vec::new();
    for peak in [5, 9, 7, 6, 5] {
        subject.ends(secs(1), memory(peak));
        for notice in &subject.notices {
            if let Notice::BudgetWarning {
                account: Account::Memory,
                count,
                peak,
                ..
            } = notice
            {
                warnings.push((*count, *peak));
            }
        }
        assert_eq!(subject.waits(), secs(30));
        subject.comes_up();
    }
    assert_eq!(warnings, [(4, Some(9))]);
}

#[test]
fn a_dependency_pauses_for_five_seconds_doubled_to_five_minutes_and_never_gives_up() {
    let pauses = [5, 10, 20, 40, 80, 160, 300, 300, 300];
    let mut subject = check_pauses(Subject::started(), &vec![dependency(); 9], &pauses);
    for _ in 0..1_000 {
        assert_eq!(subject.cycles(secs(1), dependency()), secs(300));
    }
    assert_eq!(subject.crash_number(), 0);
}

#[test]
fn a_dependency_that_worked_in_between_starts_from_the_first_pause() {
    for forgiving in [Disposition::Clean, Disposition::IdleLeft] {
        let mut subject = check_pauses(Subject::started(), &[dependency(), dependency()], &[5, 10]);
        subject.cycles(secs(1), forgiving);
        check_pauses(subject, &[dependency()], &[5]);
    }
    let mut subject = check_pauses(Subject::started(), &[dependency(), dependency()], &[5, 10]);
    subject.tell(Event::Progress);
    assert_eq!(subject.cycles(secs(1), dependency()), secs(5));
    assert_eq!(
        subject.cycles(secs(301), dependency()),
        secs(5),
        "a stable run counts too"
    );
}

#[test]
fn what_is_permanent_parks_at_once_and_names_the_ways_out() {
    let mut subject = Subject::started();
    subject.ends(secs(1), permanent());
    assert!(subject.is_parked());
    assert_eq!(subject.machine.deadline(), None);
    let explanation = subject.machine.explain(subject.now);
    assert_eq!(explanation.moved_by, [Mover::Resume, Mover::ConfigChange]);
    assert_eq!(explanation.last_failure.as_deref(), Some("no such key"));
}

#[test]
fn requests_releases_and_idle_leaves_are_booked_to_no_account() {
    for ending in [
        Disposition::Requested,
        Disposition::Released,
        Disposition::IdleLeft,
        Disposition::ExternalStop {
            reason: "SIGTERM".into(),
        },
    ] {
        let mut subject = Subject::started();
        subject.ends(secs(1), ending.clone());
        let facts = subject.machine.explain(subject.now);
        assert_eq!(
            (facts.crash.number, facts.memory.count, facts.dependency),
            (0, 0, 0),
            "{ending:?}"
        );
    }
}

#[test]
fn after_a_release_the_place_is_free_for_ten_seconds() {
    let mut subject = Subject::started();
    subject.ends(secs(1), Disposition::Released);
    assert_eq!(subject.waits(), secs(10));
    assert_eq!(
        subject.start_asked().1,
        StartReason::Retry(Account::Release)
    );
}

#[test]
fn finished_work_is_not_started_again_but_can_be() {
    let mut subject = Subject::started();
    subject.ends(secs(1), Disposition::Finished);
    assert_eq!(
        (subject.state_name(), subject.machine.deadline()),
        ("stopped", None)
    );
    subject.tell(Event::Wake);
    assert_eq!(subject.action, None);
    subject.tell(Event::Start);
    subject.comes_up();
}

#[test]
fn without_the_unsafe_field_no_sequence_of_endings_restarts_without_limit() {
    let endings = [
        crash(),
        Disposition::Clean,
        Disposition::IdleLeft,
        Disposition::Requested,
        Disposition::ExternalStop {
            reason: "SIGTERM".into(),
        },
        memory(1),
        dependency(),
    ];
    // Every pair of endings in turn, with no time passing but the pauses.
    for one in &endings {
        for other in &endings {
            let mut subject = Subject::started();
            let begun = subject.now;
            let rounds = 200;
            let mut ends = 0_u32;
            for _ in 0..rounds {
                for ending in [one, other] {
                    if subject.is_parked() {
                        break;
                    }
                    subject.ends(Duration::ZERO, ending.clone());
                    if subject.action.is_none() && !subject.is_parked() {
                        subject.waits();
                    }
                    if !subject.is_parked() {
                        subject.comes_up();
                        ends += 1;
                    }
                }
            }
            let spent = subject.now.since(begun);
            // Ten clean restarts are free; from then on each costs a second.
            let bound = 15 + spent.as_secs();
            assert!(
                u64::from(ends) <= bound,
                "{one:?} and {other:?}: {ends} starts in {spent:?}"
            );
        }
    }
}
