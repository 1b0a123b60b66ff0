//! No setting of a policy makes a storm, except the one that is named unsafe.

use std::time::Duration;

use supervisor::{Disposition, Event, Policy, State};

use crate::subject::{Subject, crash, dependency, holder, memory, secs};

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3_600);

/// The most eager and the most patient value of a field, by its name.
type Extreme = (&'static str, Change, Change);
type Change = fn(&mut Policy);

/// Every field but `unsafe_no_backoff`: one that is added and not listed here does not compile, see [`all_fields`].
const EXTREMES: [Extreme; 19] = [
    (
        "backoff_first",
        |p| p.backoff_first = SHORTEST,
        |p| {
            (p.backoff_first, p.backoff_cap) = (LONGEST, LONGEST);
        },
    ),
    (
        "backoff_cap",
        |p| (p.backoff_first, p.backoff_cap) = (SHORTEST, SHORTEST),
        |p| {
            p.backoff_cap = LONGEST;
        },
    ),
    ("jitter", |p| p.jitter = 0.5, |p| p.jitter = 0.0),
    (
        "stable_after",
        |p| p.stable_after = secs(1),
        |p| p.stable_after = LONGEST,
    ),
    ("crash_soft", |p| p.crash_soft = 100, |p| p.crash_soft = 1),
    (
        "crash_window",
        |p| p.crash_window = secs(1),
        |p| p.crash_window = LONGEST,
    ),
    ("crash_hard", |p| p.crash_hard = 0, |p| p.crash_hard = 1),
    (
        "decay_every",
        |p| p.decay_every = secs(1),
        |p| p.decay_every = LONGEST,
    ),
    (
        "clean_budget",
        |p| p.clean_budget = 100,
        |p| p.clean_budget = 1,
    ),
    (
        "clean_window",
        |p| p.clean_window = secs(1),
        |p| p.clean_window = LONGEST,
    ),
    (
        "clean_pause",
        |p| p.clean_pause = SHORTEST,
        |p| p.clean_pause = LONGEST,
    ),
    (
        "memory_budget",
        |p| p.memory_budget = 10_000,
        |p| p.memory_budget = 1,
    ),
    (
        "memory_window",
        |p| p.memory_window = secs(1),
        |p| p.memory_window = LONGEST,
    ),
    (
        "memory_pause",
        |p| p.memory_pause = SHORTEST,
        |p| p.memory_pause = LONGEST,
    ),
    (
        "contention_pauses",
        |p| p.contention_pauses = vec![SHORTEST; 100],
        |p| {
            p.contention_pauses = vec![LONGEST];
        },
    ),
    (
        "contention_probe",
        |p| p.contention_probe = secs(1),
        |p| p.contention_probe = LONGEST,
    ),
    (
        "dependency_first",
        |p| p.dependency_first = SHORTEST,
        |p| {
            (p.dependency_first, p.dependency_cap) = (LONGEST, LONGEST);
        },
    ),
    (
        "dependency_cap",
        |p| (p.dependency_first, p.dependency_cap) = (SHORTEST, SHORTEST),
        |p| {
            p.dependency_cap = LONGEST;
        },
    ),
    (
        "release_pause",
        |p| p.release_pause = SHORTEST,
        |p| p.release_pause = LONGEST,
    ),
];

/// Names every field, so that a new one is noticed here.
fn all_fields(policy: &Policy) -> usize {
    let Policy {
        backoff_first: _,
        backoff_cap: _,
        jitter: _,
        stable_after: _,
        crash_soft: _,
        crash_window: _,
        crash_hard: _,
        decay_every: _,
        clean_budget: _,
        clean_window: _,
        clean_pause: _,
        memory_budget: _,
        memory_window: _,
        memory_pause: _,
        contention_pauses: _,
        contention_probe: _,
        dependency_first: _,
        dependency_cap: _,
        release_pause: _,
        unsafe_no_backoff: _,
    } = policy;
    20
}

/// Endings that can come again and again without anybody doing anything.
fn endings() -> Vec<Disposition> {
    vec![
        crash(),
        Disposition::Clean,
        Disposition::IdleLeft,
        Disposition::Requested,
        Disposition::Released,
        Disposition::ExternalStop {
            reason: "SIGTERM".into(),
        },
        memory(1),
        dependency(),
    ]
}

/// Lets a unit end as fast as it can, in these two ways by turns, while messages come all the time; no time passes but the
/// pauses. Returns how many starts there were and how long that took.
fn starts(
    change: impl FnOnce(&mut Policy),
    one: &Disposition,
    other: &Disposition,
) -> (u32, Duration) {
    let mut subject = Subject::with(change);
    subject.start();
    let begun = subject.now;
    let mut starts = 0;
    for round in 0..400 {
        let ending = if round % 2 == 0 { one } else { other };
        subject.ends(Duration::ZERO, ending.clone());
        if subject.action.is_none() {
            subject.tell(Event::Wake);
        }
        while subject.action.is_none() && subject.machine.deadline().is_some() {
            subject.waits();
        }
        if subject.action.is_none() {
            break;
        }
        subject.comes_up();
        starts += 1;
    }
    (starts, subject.now.since(begun))
}

/// A hundred free starts; then ten a second that are free, and the shortest pauses that are allowed, which jitter may halve.
#[track_caller]
fn is_no_storm(what: &str, change: impl Fn(&mut Policy) + Copy) {
    for one in &endings() {
        for other in &endings() {
            let (starts, spent) = starts(change, one, other);
            let bound = 120 + 30 * spent.as_millis().div_ceil(1_000);
            assert!(
                u128::from(starts) <= bound,
                "{what}, {one:?} and {other:?}: {starts} starts in {spent:?}, {bound} are allowed"
            );
        }
    }
}

#[test]
fn no_extreme_of_any_single_field_makes_a_storm() {
    assert_eq!(all_fields(&Policy::standard()), EXTREMES.len() + 1);
    for (field, eager, patient) in EXTREMES {
        is_no_storm(field, eager);
        is_no_storm(field, patient);
    }
}

#[test]
fn all_fields_at_their_most_eager_make_no_storm() {
    let all = |policy: &mut Policy| {
        for (_, eager, _) in EXTREMES {
            eager(policy);
        }
        // As many as their windows of a second allow.
        (policy.crash_soft, policy.clean_budget) = (10, 10);
    };
    is_no_storm("all", all);
}

#[test]
fn a_value_beyond_any_extreme_is_refused_by_the_name_of_its_field() {
    let beyond: [(&str, Change); 13] = [
        ("backoff_first", |p| p.backoff_first = Duration::ZERO),
        ("backoff_cap", |p| p.backoff_cap = Duration::ZERO),
        ("jitter", |p| p.jitter = 0.51),
        ("stable_after", |p| p.stable_after = Duration::ZERO),
        ("crash_window", |p| p.crash_window = Duration::ZERO),
        ("decay_every", |p| p.decay_every = Duration::ZERO),
        ("crash_soft", |p| {
            (p.crash_soft, p.crash_window) = (11, secs(1));
        }),
        ("clean_budget", |p| p.clean_budget = 101),
        ("clean_pause", |p| p.clean_pause = Duration::ZERO),
        ("memory_pause", |p| p.memory_pause = Duration::ZERO),
        ("contention_pauses", |p| {
            p.contention_pauses = vec![Duration::ZERO];
        }),
        ("dependency_first", |p| p.dependency_first = Duration::ZERO),
        ("release_pause", |p| p.release_pause = Duration::ZERO),
    ];
    for (field, change) in beyond {
        let mut policy = Policy::standard();
        change(&mut policy);
        assert_eq!(policy.validate().expect_err(field).field, field);
    }
}

#[test]
fn only_the_field_that_is_named_unsafe_lets_a_unit_start_without_end() {
    let (starts, spent) = starts(
        |policy| {
            policy.backoff_first = Duration::ZERO;
            policy.backoff_cap = Duration::ZERO;
            policy.crash_hard = 0;
            policy.unsafe_no_backoff = true;
        },
        &crash(),
        &crash(),
    );
    assert_eq!((starts, spent), (400, Duration::ZERO));
}

#[test]
fn under_no_setting_is_a_holder_that_lives_met_by_an_attempt() {
    for (field, eager, patient) in EXTREMES {
        for change in [eager, patient] {
            let mut subject = Subject::with(change);
            subject.tell(Event::Wake);
            let (generation, _) = subject.start_asked();
            subject.tell(Event::Held {
                generation,
                holder: holder(7),
                watchable: true,
            });
            for event in [Event::Wake, Event::Start, Event::DeadlineReached] {
                subject.pass(secs(700));
                subject.tell(event);
                assert_eq!(subject.machine.deadline(), None, "{field}");
                let held = matches!(subject.machine.state(), State::Held { .. });
                assert!(
                    held && !starts_something(&subject),
                    "{field}: {:?}",
                    subject.action
                );
            }
        }
    }
}

fn starts_something(subject: &Subject) -> bool {
    matches!(subject.action, Some(supervisor::Action::Spawn { .. }))
}
