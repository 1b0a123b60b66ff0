//! All observations there are, give or take: every ending, with everything else that a verdict looks at.
//!
//! No row here says what a single verdict is; the rows say what must hold for all of them. Each row is then shown to be able to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use exit_classifier::{
    Asked, Cause, Condition, Counts, Ending, LockHolder, Observation, Rule, RuleSet, Verdict, errno,
};

use crate::common::{never_started, signal};

/// Whose ending it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Handler,
    Agent,
    Command,
}

const ALL: [Whose; 3] = [Whose::Handler, Whose::Agent, Whose::Command];

impl Whose {
    fn rules(self) -> RuleSet {
        match self {
            Self::Handler => RuleSet::handler(),
            Self::Agent => RuleSet::agent(),
            Self::Command => RuleSet::command(),
        }
    }

    /// What a failure of its own is charged to.
    const fn failure(self) -> Counts {
        match self {
            Self::Handler | Self::Command => Counts::Crash,
            Self::Agent => Counts::TurnFailed,
        }
    }
}

fn endings() -> Vec<Ending> {
    let mut all = vec![Ending::Lost, Ending::Code(i32::MIN), Ending::Code(i32::MAX)];
    all.extend((-2..=257).map(Ending::Code));
    for number in (-1..=66).chain([127, 128, i32::MAX]) {
        all.push(signal(number));
        all.push(Ending::Signal { number, core: true });
    }
    all.extend((-1..=134).chain([i32::MAX]).map(never_started));
    all
}

fn holders() -> Vec<Option<LockHolder>> {
    let mut all = vec![None];
    for alive in [false, true] {
        for own_child in [false, true] {
            all.push(Some(LockHolder {
                pid: 4711,
                alive,
                own_child,
            }));
        }
    }
    all
}

/// Calls `visit` with every observation: about 130,000 of them.
fn walk(mut visit: impl FnMut(&Observation<'_>)) {
    let asked: Vec<_> = [None]
        .into_iter()
        .chain(Asked::ALL.iter().copied().map(Some))
        .collect();
    for ending in endings() {
        for asked in &asked {
            for lock_holder in holders() {
                for flags in 0..8 {
                    visit(&Observation {
                        ending,
                        ran_for: Duration::from_millis(31),
                        asked: *asked,
                        lock_holder,
                        memory_drained: flags & 1 != 0,
                        oom_kills: flags >> 1 & 1,
                        wrapper: flags & 4 != 0,
                        stderr_tail: b"",
                    });
                }
            }
        }
    }
}

/// We ended it for a purpose of our own.
fn ended_by_us(seen: &Observation<'_>) -> bool {
    matches!(seen.asked, Some(Asked::Stop | Asked::Restart))
}

/// Nothing had been asked of it, and nobody else has its session.
fn undisturbed(seen: &Observation<'_>) -> bool {
    seen.asked.is_none() && !stranger(seen)
}

fn stranger(seen: &Observation<'_>) -> bool {
    seen.lock_holder.is_some_and(LockHolder::is_live_stranger)
}

fn code_in(seen: &Observation<'_>, codes: &[i32]) -> bool {
    matches!(seen.ending, Ending::Code(code) if codes.contains(&code))
}

fn signal_in(seen: &Observation<'_>, numbers: &[i32]) -> bool {
    seen.signal()
        .is_some_and(|number| numbers.contains(&number))
}

fn errno_in(seen: &Observation<'_>, numbers: &[i32]) -> bool {
    matches!(seen.ending, Ending::NeverStarted { errno } if numbers.contains(&errno))
}

fn was_started(seen: &Observation<'_>) -> bool {
    !matches!(seen.ending, Ending::NeverStarted { .. })
}

/// It left by its own plan: with a code that a handler has for that, or because the memory watchdog told it to.
fn planned(whose: Whose, seen: &Observation<'_>) -> bool {
    (whose == Whose::Handler && code_in(seen, &[12, 90, 91, 92]))
        || (seen.memory_drained && signal_in(seen, &[1, 2, 15]))
}

/// An ending about which the table of causes says nothing.
fn unheard_of(whose: Whose, seen: &Observation<'_>) -> bool {
    match seen.ending {
        Ending::Code(code) => {
            let named = match whose {
                Whose::Handler => [0, 1, 2, 12, 64, 69, 75, 77, 78, 90, 91, 92].contains(&code),
                Whose::Agent => [0, 69, 78].contains(&code),
                Whose::Command => [0, 1].contains(&code),
            };
            let shell = seen.wrapper && ([126, 127].contains(&code) || (129..=159).contains(&code));
            !(named || shell || (code == 137 && seen.oom_kills > 0))
        }
        Ending::Signal { number, .. } => {
            ![1, 2, 4, 6, 7, 8, 9, 10, 11, 12, 15, 31].contains(&number)
        }
        Ending::Lost => false,
        Ending::NeverStarted { errno } => {
            ![errno::ENOENT, errno::EACCES, errno::ENOEXEC].contains(&errno)
        }
    }
}

/// Something that must hold for every verdict.
struct Invariant {
    says: &'static str,
    holds: fn(Whose, &Observation<'_>, &Verdict) -> bool,
    /// A way to get a verdict wrong that this row must notice.
    breaks: fn(&mut Verdict),
}

fn set(verdict: &mut Verdict, cause: Cause, counts: Counts) {
    verdict.cause = cause;
    verdict.counts = counts;
    verdict.class = counts.class();
}

const INVARIANTS: &[Invariant] = &[
    Invariant {
        says: "label, account and class agree",
        holds: |_, _, v| v.cause.may_count_as(v.counts) && v.class == v.counts.class(),
        breaks: |v| v.cause = Cause::Idle,
    },
    Invariant {
        says: "whatever was asked for counts as nothing, and as nothing else",
        holds: |_, seen, v| {
            !ended_by_us(seen) || (v.cause == Cause::Requested && v.counts == Counts::Nothing)
        },
        breaks: |v| set(v, Cause::Killed, Counts::Crash),
    },
    Invariant {
        says: "nothing was requested that was not asked for",
        holds: |_, seen, v| {
            v.cause != Cause::Requested || ended_by_us(seen) || seen.asked == Some(Asked::Interrupt)
        },
        breaks: |v| set(v, Cause::Requested, Counts::Nothing),
    },
    Invariant {
        says: "an interrupt excuses a handler only from the signal that it sends",
        holds: |whose, seen, v| {
            whose == Whose::Agent
                || seen.asked != Some(Asked::Interrupt)
                || v.cause != Cause::Requested
                || seen.signal() == Some(2)
        },
        breaks: |v| set(v, Cause::Requested, Counts::Nothing),
    },
    Invariant {
        says: "an ending that nobody has heard of is a failure",
        holds: |whose, seen, v| {
            !undisturbed(seen)
                || !unheard_of(whose, seen)
                || v.counts == whose.failure()
                || (v.counts == Counts::Crash && !was_started(seen))
        },
        breaks: |v| set(v, Cause::CleanExit, Counts::CleanRestart),
    },
    Invariant {
        says: "code 0 is no failure, unless it had to be ended for lack of progress",
        holds: |_, seen, v| {
            !code_in(seen, &[0])
                || seen.asked == Some(Asked::Stall)
                || matches!(
                    v.counts,
                    Counts::CleanRestart | Counts::TurnDone | Counts::Nothing | Counts::Memory
                )
        },
        breaks: |v| set(v, Cause::RuntimeError, Counts::Crash),
    },
    Invariant {
        says: "nothing but code 0 is a clean exit",
        holds: |_, seen, v| v.cause != Cause::CleanExit || code_in(seen, &[0]),
        breaks: |v| set(v, Cause::CleanExit, Counts::CleanRestart),
    },
    Invariant {
        says: "a failure while a live stranger has the session is contention, and costs no attempt",
        holds: |whose, seen, v| {
            let excused = ended_by_us(seen)
                || (seen.asked == Some(Asked::Interrupt) && signal_in(seen, &[2]))
                || planned(whose, seen)
                || code_in(seen, &[0]);
            whose == Whose::Agent || !stranger(seen) || excused || v.counts == Counts::Contention
        },
        breaks: |v| set(v, Cause::RuntimeError, Counts::Crash),
    },
    Invariant {
        says: "contention is with a live stranger or by the process's own word, and never with our own",
        holds: |whose, seen, v| {
            let own = seen.lock_holder.is_some_and(|holder| holder.own_child);
            let word = whose == Whose::Handler && code_in(seen, &[75]) && !own;
            v.counts != Counts::Contention || (whose != Whose::Agent && (stranger(seen) || word))
        },
        breaks: |v| set(v, Cause::LockHeld, Counts::Contention),
    },
    Invariant {
        says: "out of memory is only what the kernel counted",
        holds: |_, seen, v| {
            v.cause != Cause::OutOfMemory
                || (seen.oom_kills > 0 && (signal_in(seen, &[9]) || code_in(seen, &[137])))
        },
        breaks: |v| set(v, Cause::OutOfMemory, Counts::Crash),
    },
    Invariant {
        says: "a kill that the kernel counted is nobody else's",
        holds: |_, seen, v| {
            !undisturbed(seen)
                || seen.oom_kills == 0
                || !signal_in(seen, &[9])
                || v.cause == Cause::OutOfMemory
        },
        breaks: |v| set(v, Cause::Killed, Counts::Crash),
    },
    Invariant {
        says: "a code stands for a signal only if a known shell says so, and then the verdict tells",
        holds: |_, seen, v| {
            let decoded = seen.wrapper && matches!(seen.ending, Ending::Code(129..=159));
            let by_signal = matches!(v.cause, Cause::Killed | Cause::Aborted)
                || v.counts == Counts::ExternalStop;
            v.fact("decoded").is_some() == decoded
                && (!by_signal || decoded || matches!(seen.ending, Ending::Signal { .. }))
        },
        breaks: |v| set(v, Cause::Killed, Counts::Crash),
    },
    Invariant {
        says: "not started is what never started, and nothing else",
        holds: |_, seen, v| {
            (v.cause != Cause::NotStarted || !was_started(seen))
                && (was_started(seen) || !undisturbed(seen) || v.cause == Cause::NotStarted)
        },
        breaks: |v| set(v, Cause::NotStarted, Counts::Crash),
    },
    Invariant {
        says: "nothing is parked for good but what is known to be for good",
        holds: |whose, seen, v| {
            let codes: &[i32] = match whose {
                Whose::Handler => &[2, 64, 77, 78],
                Whose::Agent => &[78],
                Whose::Command => &[],
            };
            v.counts != Counts::Permanent
                || code_in(seen, codes)
                || (seen.wrapper && code_in(seen, &[126, 127]))
                || errno_in(seen, &[errno::ENOENT, errno::EACCES, errno::ENOEXEC])
        },
        breaks: |v| set(v, Cause::Config, Counts::Permanent),
    },
    Invariant {
        says: "what cannot be known is a failure",
        holds: |whose, seen, v| {
            seen.ending != Ending::Lost
                || !undisturbed(seen)
                || (v.cause == Cause::Lost && v.counts == whose.failure())
        },
        breaks: |v| set(v, Cause::Lost, Counts::CleanRestart),
    },
    Invariant {
        says: "an agent's failure touches no account of its handler, unless it could not even start",
        holds: |whose, seen, v| match v.counts {
            Counts::TurnDone | Counts::TurnFailed => whose == Whose::Agent,
            Counts::Nothing | Counts::Permanent | Counts::Dependency => true,
            Counts::Crash => whose != Whose::Agent || !was_started(seen),
            Counts::CleanRestart
            | Counts::NothingNoRespawn
            | Counts::Memory
            | Counts::Contention
            | Counts::ExternalStop => whose != Whose::Agent,
        },
        breaks: |v| set(v, Cause::RuntimeError, Counts::Crash),
    },
    Invariant {
        says: "only a handler that says so stays away",
        holds: |whose, seen, v| {
            v.counts != Counts::NothingNoRespawn
                || (whose == Whose::Handler && code_in(seen, &[91]))
        },
        breaks: |v| set(v, Cause::Idle, Counts::NothingNoRespawn),
    },
    Invariant {
        says: "only a handler that says so, or that was asked to, gave its session up",
        holds: |whose, seen, v| {
            v.cause != Cause::Released
                || (whose == Whose::Handler && code_in(seen, &[92]))
                || (seen.asked == Some(Asked::Release) && code_in(seen, &[0]))
        },
        breaks: |v| set(v, Cause::Released, Counts::Nothing),
    },
    Invariant {
        says: "a memory drain is one that was said or seen, and SIGKILL is none",
        holds: |whose, seen, v| {
            v.counts != Counts::Memory
                || (whose == Whose::Handler && code_in(seen, &[90, 12]))
                || (seen.memory_drained && (code_in(seen, &[0]) || signal_in(seen, &[1, 2, 15])))
        },
        breaks: |v| set(v, Cause::MemoryDrain, Counts::Memory),
    },
    Invariant {
        says: "a stop from outside is a gentle signal that we did not ask for",
        holds: |_, seen, v| {
            v.counts != Counts::ExternalStop || (signal_in(seen, &[1, 2, 15]) && !ended_by_us(seen))
        },
        breaks: |v| set(v, Cause::Killed, Counts::ExternalStop),
    },
    Invariant {
        says: "a dependency is down only by the process's own word",
        holds: |whose, seen, v| {
            v.counts != Counts::Dependency || (whose != Whose::Command && code_in(seen, &[69]))
        },
        breaks: |v| set(v, Cause::Unavailable, Counts::Dependency),
    },
    Invariant {
        says: "the rule that is named is the first that matches, and gave the verdict",
        holds: |whose, seen, v| {
            let rules = whose.rules();
            let first = rules.rules().find(|rule| rule.matches(seen));
            first.is_some_and(|rule| {
                (rule.name(), rule.cause(), rule.counts()) == (v.rule.as_ref(), v.cause, v.counts)
            })
        },
        breaks: |v| v.rule = "another".into(),
    },
    Invariant {
        says: "the evidence has each fact that was seen, once",
        holds: |_, seen, v| {
            let keys: BTreeSet<_> = v.evidence.iter().map(|(key, _)| key).collect();
            let errno = matches!(seen.ending, Ending::NeverStarted { errno } if errno != 0);
            let core = matches!(seen.ending, Ending::Signal { core: true, .. });
            keys.len() == v.evidence.len()
                && v.fact("ending") == Some(seen.ending.to_string().as_str())
                && v.fact("ran_ms") == Some("31")
                && v.fact("asked") == seen.asked.map(Asked::as_str)
                && v.fact("holder_pid").is_some() == seen.lock_holder.is_some()
                && v.fact("holder") == holder_word(seen)
                && v.fact("memory_drained").is_some() == seen.memory_drained
                && v.fact("oom_kills").is_some() == (seen.oom_kills > 0)
                && v.fact("wrapper").is_some() == seen.wrapper
                && v.fact("errno").is_some() == errno
                && v.fact("core_dumped").is_some() == core
        },
        breaks: |v| v.evidence.retain(|(key, _)| *key != "asked"),
    },
    Invariant {
        says: "the sentence is one line that ends with the rule",
        holds: |_, _, v| {
            let sentence = v.sentence();
            !sentence.contains(char::is_control)
                && sentence.ends_with(&format!(" (rule {})", v.rule))
        },
        breaks: |v| v.because = "two\nlines".into(),
    },
];

fn holder_word(seen: &Observation<'_>) -> Option<&'static str> {
    let holder = seen.lock_holder?;
    Some(
        match (holder.is_live_stranger(), holder.alive, holder.own_child) {
            (true, ..) => "live_other",
            (false, true, _) => "live_own",
            (false, false, true) => "dead_own",
            (false, false, false) => "dead_other",
        },
    )
}

#[test]
fn every_invariant_holds_for_every_observation() {
    for whose in ALL {
        let rules = whose.rules();
        walk(|seen| {
            let verdict = rules.classify(seen);
            for row in INVARIANTS {
                assert!(
                    (row.holds)(whose, seen, &verdict),
                    "{}\n{whose:?} {seen:?}\n{verdict:?}",
                    row.says
                );
            }
        });
    }
}

#[test]
fn every_invariant_notices_the_mistake_it_is_there_for() {
    for row in INVARIANTS {
        let noticed = ALL.into_iter().any(|whose| {
            let rules = whose.rules();
            let mut noticed = false;
            walk(|seen| {
                if !noticed {
                    let mut verdict = rules.classify(seen);
                    let held = (row.holds)(whose, seen, &verdict);
                    (row.breaks)(&mut verdict);
                    noticed = held && !(row.holds)(whose, seen, &verdict);
                }
            });
            noticed
        });
        assert!(noticed, "no mistake is noticed by: {}", row.says);
    }
}

#[test]
fn every_rule_cause_and_account_is_reached() {
    let mut causes = BTreeSet::new();
    let mut accounts = BTreeSet::new();
    for whose in ALL {
        let rules = whose.rules();
        let mut reached: BTreeMap<_, u32> = rules.rules().map(|r| (r.name(), 0)).collect();
        walk(|seen| {
            let verdict = rules.classify(seen);
            *reached.get_mut(verdict.rule.as_ref()).unwrap() += 1;
            causes.insert(verdict.cause);
            accounts.insert(verdict.counts);
        });
        let missed: Vec<_> = reached.iter().filter(|(_, n)| **n == 0).collect();
        assert!(missed.is_empty(), "{whose:?} never reaches {missed:?}");
    }
    assert!(causes.iter().eq(Cause::ALL), "{causes:?}");
    assert!(accounts.iter().eq(Counts::ALL), "{accounts:?}");
}

#[test]
fn how_long_it_ran_changes_no_verdict() {
    for whose in ALL {
        let rules = whose.rules();
        walk(|seen| {
            let short = rules.classify(seen);
            for ran_for in [Duration::ZERO, Duration::from_secs(86_400), Duration::MAX] {
                let long = rules.classify(&Observation { ran_for, ..*seen });
                assert_eq!((short.counts, &short.rule), (long.counts, &long.rule));
            }
        });
    }
}

#[test]
fn a_known_shells_word_for_a_signal_is_as_good_as_the_signal() {
    for whose in ALL {
        let rules = whose.rules();
        walk(|seen| {
            if let (true, Some(number)) = (seen.wrapper, seen.ending.signal_told_by_shell()) {
                let told = rules.classify(seen);
                let died = rules.classify(&Observation {
                    ending: signal(number),
                    ..*seen
                });
                assert_eq!(
                    (told.counts, told.rule),
                    (died.counts, died.rule),
                    "{seen:?}"
                );
            }
        });
    }
}

#[test]
fn a_core_dump_changes_the_evidence_and_not_the_verdict() {
    for whose in ALL {
        let rules = whose.rules();
        walk(|seen| {
            if let Ending::Signal { number, core: true } = seen.ending {
                let with = rules.classify(seen);
                let without = rules.classify(&Observation {
                    ending: signal(number),
                    ..*seen
                });
                assert_eq!((with.counts, with.rule), (without.counts, without.rule));
            }
        });
    }
}

#[test]
fn a_preferred_rule_changes_only_what_it_matches() {
    let mine = Rule::new(
        "mine",
        vec![Condition::Code(vec![75, 145].into()), Condition::Unasked],
        Cause::Unavailable,
        Counts::Dependency,
    )
    .unwrap();
    for whose in ALL {
        let plain = whose.rules();
        let with = whose.rules().prefer(mine.clone());
        walk(|seen| {
            let verdict = with.classify(seen);
            if mine.matches(seen) {
                assert_eq!(
                    (verdict.counts, verdict.rule.as_ref()),
                    (Counts::Dependency, "mine")
                );
            } else {
                let same = plain.classify(seen);
                assert_eq!((verdict.counts, verdict.rule), (same.counts, same.rule));
            }
        });
    }
}
