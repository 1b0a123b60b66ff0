//! No setting of a policy makes a storm, except the one that is named unsafe.

use std::time::Duration;

use supervisor::{Action, Disposition, Event, Policy, State, ValidPolicy};

use crate::subject::{Subject, crash, dependency, holder, memory, secs};

/// The shortest first pause, and the shortest of those that can come for ever.
const SHORTEST: Duration = Duration::from_millis(100);
const PACE: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3_600);
const HOUR: Duration = Duration::from_secs(3_600);

/// The most eager and the most patient value of a field, by its name.
type Extreme = (&'static str, Change, Change);
type Change = fn(&mut Policy);

/// Every field but `unsafe_no_backoff`: one that is added and not listed here does not compile, see [`all_fields`]. A window
/// stands before the budget that it limits.
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
        |p| (p.backoff_first, p.backoff_cap) = (p.backoff_first.min(PACE), PACE),
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
    (
        "crash_window",
        |p| (p.crash_window, p.crash_soft) = (secs(5), 1),
        |p| p.crash_window = LONGEST,
    ),
    (
        "crash_soft",
        |p| p.crash_soft = most_within(p.crash_window),
        |p| p.crash_soft = 1,
    ),
    ("crash_hard", |p| p.crash_hard = 0, |p| p.crash_hard = 1),
    (
        "decay_every",
        |p| p.decay_every = secs(1),
        |p| p.decay_every = LONGEST,
    ),
    (
        "clean_window",
        |p| (p.clean_window, p.clean_budget) = (secs(5), 1),
        |p| p.clean_window = LONGEST,
    ),
    (
        "clean_budget",
        |p| p.clean_budget = most_within(p.clean_window),
        |p| p.clean_budget = 1,
    ),
    (
        "clean_pause",
        |p| p.clean_pause = PACE,
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
        |p| p.memory_pause = PACE,
        |p| p.memory_pause = LONGEST,
    ),
    (
        "contention_pauses",
        |p| p.contention_pauses = vec![PACE; 100],
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
        |p| (p.dependency_first, p.dependency_cap) = (p.dependency_first.min(PACE), PACE),
        |p| {
            p.dependency_cap = LONGEST;
        },
    ),
    (
        "release_pause",
        |p| p.release_pause = PACE,
        |p| p.release_pause = LONGEST,
    ),
];

/// The largest budget that a window allows.
fn most_within(window: Duration) -> u32 {
    u32::try_from((window.as_secs() / 5).min(100)).expect("because it is no more than 100")
}

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

/// Endings that can come again and again without anybody doing anything, by the number of the run.
type Ending = (&'static str, fn(u32) -> Disposition);

/// One for each account and answer.
const ENDINGS: [Ending; 8] = [
    ("crash", |_| crash()),
    ("clean", |_| Disposition::Clean),
    ("requested", |_| Disposition::Requested),
    ("released", |_| Disposition::Released),
    ("memory", |_| memory(1)),
    ("dependency", |_| dependency()),
    ("refused", |_| Disposition::Contention {
        holder: holder(7),
        watchable: false,
    }),
    // By somebody else each time, who is gone at once.
    ("overtaken", |run| Disposition::Contention {
        holder: holder(1_000 + run),
        watchable: true,
    }),
];

/// Those that are booked as another one is.
const TWINS: [Ending; 2] = [
    ("idle", |_| Disposition::IdleLeft),
    ("ended by another", |_| Disposition::ExternalStop {
        reason: "SIGTERM".into(),
    }),
];

/// Lets a unit end as fast as it can, in these two ways by turns, while messages come all the time; no time passes but the
/// pauses. Returns how many starts there were within an hour, or `most`, and how long that took.
fn starts(policy: &ValidPolicy, one: Ending, other: Ending, most: u32) -> (u32, Duration) {
    let mut subject = Subject::of(policy.clone());
    subject.start();
    let begun = subject.now;
    let mut starts = 1;
    while starts < most {
        let (_, ending) = if starts % 2 == 0 { other } else { one };
        subject.ends(Duration::ZERO, ending(starts));
        if let Some(Action::Watch { .. }) = subject.action {
            subject.tell(Event::HolderGone);
        }
        if subject.action.is_none() {
            subject.tell(Event::Wake);
        }
        while subject.action.is_none() && subject.machine.deadline().is_some() {
            subject.waits();
        }
        if subject.action.is_none() || subject.now.since(begun) > HOUR {
            break;
        }
        subject.comes_up();
        starts += 1;
    }
    (starts, subject.now.since(begun))
}

/// What may be started at once, once; and then two in a second, one after a pause and one whose pause a message cut short or
/// whose holder left. Jitter shortens and lengthens pauses alike, but not evenly.
#[track_caller]
fn is_no_storm(what: &str, policy: &ValidPolicy, one: Ending, other: Ending, most: u32) {
    let (starts, spent) = starts(policy, one, other, most);
    let free = 2 * (policy.crash_soft + 2 * policy.clean_budget) + 12;
    let bound = u64::from(free) + 2 * spent.as_secs() * 21 / 20;
    assert!(
        u64::from(starts) <= bound,
        "{what}, {} and {}: {starts} starts in {spent:?}, {bound} are allowed",
        one.0,
        other.0
    );
}

/// The standard policy with these changes.
fn changed(changes: &[Change]) -> ValidPolicy {
    let mut policy = Policy::standard();
    policy.jitter = 0.0;
    for change in changes {
        change(&mut policy);
    }
    policy
        .validate()
        .expect("because no extreme is beyond what is allowed")
}

#[test]
fn no_extreme_of_any_single_field_makes_a_storm_within_an_hour() {
    assert_eq!(all_fields(&Policy::standard()), EXTREMES.len() + 1);
    for (field, eager, patient) in EXTREMES {
        for change in [eager, patient] {
            let policy = changed(&[change]);
            for one in ENDINGS.into_iter().chain(TWINS) {
                is_no_storm(field, &policy, one, one, u32::MAX);
            }
        }
    }
}

/// In any order of two extremes that the list has: a later one takes the earlier one's field along where it has to.
#[test]
fn no_two_fields_at_their_extremes_make_a_storm() {
    /// More than are free, and enough to tell ten in a second from two.
    const ENOUGH: u32 = 300;
    let mut pairs = 0;
    for (at, (field, eager, patient)) in EXTREMES.into_iter().enumerate() {
        for (other, other_eager, other_patient) in EXTREMES.into_iter().skip(at + 1) {
            for change in [eager, patient] {
                for other_change in [other_eager, other_patient] {
                    let policy = changed(&[change, other_change]);
                    pairs += 1;
                    for (first, one) in ENDINGS.into_iter().enumerate() {
                        for two in ENDINGS.into_iter().skip(first) {
                            let what = format!("{field} and {other}");
                            is_no_storm(&what, &policy, one, two, ENOUGH);
                        }
                    }
                }
            }
        }
    }
    assert_eq!(pairs, 4 * 19 * 18 / 2);
}

#[test]
fn all_fields_at_their_most_eager_make_no_storm_within_an_hour() {
    let policy = changed(&EXTREMES.map(|(_, eager, _)| eager));
    for one in ENDINGS {
        for other in ENDINGS {
            is_no_storm("all", &policy, one, other, u32::MAX);
        }
    }
}

/// Incident 1 began with three attempts in under 250 ms.
#[test]
fn a_pause_that_comes_for_ever_is_a_second_at_least() {
    let fast = Duration::from_millis(999);
    let too_fast: [(&str, Change, &str); 4] = [
        (
            "backoff_cap",
            |p| (p.backoff_first, p.backoff_cap) = (SHORTEST, SHORTEST),
            "`backoff_cap` is 100ms, allowed is at least 1s, unless `unsafe_no_backoff` is true",
        ),
        (
            "dependency_cap",
            |p| (p.dependency_first, p.dependency_cap) = (SHORTEST, SHORTEST),
            "`dependency_cap` is 100ms, allowed is at least 1s, unless `unsafe_no_backoff` is true",
        ),
        (
            "clean_budget",
            |p| (p.clean_budget, p.clean_window) = (10, secs(1)),
            "`clean_budget` is 10, allowed is at most 100, and one for each five seconds of its window, unless \
             `unsafe_no_backoff` is true",
        ),
        (
            "contention_pauses",
            |p| p.contention_pauses = vec![PACE, SHORTEST],
            "`contention_pauses` is 100ms, allowed is at least 1s, unless `unsafe_no_backoff` is true",
        ),
    ];
    for (field, change, told) in too_fast {
        let mut policy = Policy::standard();
        change(&mut policy);
        assert_eq!(policy.clone().validate().unwrap_err().to_string(), told);
        policy.unsafe_no_backoff = true;
        assert!(policy.validate().is_ok(), "{field}");
    }
    for (field, change) in [
        (
            "clean_pause",
            (|p, pause| p.clean_pause = pause) as fn(&mut Policy, Duration),
        ),
        ("memory_pause", |p, pause| p.memory_pause = pause),
        ("release_pause", |p, pause| p.release_pause = pause),
    ] {
        let mut policy = Policy::standard();
        change(&mut policy, fast);
        assert_eq!(policy.validate().expect_err(field).field, field);
    }
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
            (p.crash_soft, p.crash_window) = (1, secs(1));
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
    let policy = changed(&[|policy| {
        policy.backoff_first = Duration::ZERO;
        policy.backoff_cap = Duration::ZERO;
        policy.crash_hard = 0;
        policy.unsafe_no_backoff = true;
    }]);
    let [crash, ..] = ENDINGS;
    assert_eq!(starts(&policy, crash, crash, 400), (400, Duration::ZERO));
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
    matches!(subject.action, Some(Action::Spawn { .. }))
}
