//! Which rule wins where several could, and what a caller may add.

use exit_classifier::{
    Asked, Cause, Condition, Counts, Ending, LockHolder, Observation, Rule, RuleError, RuleSet,
    errno,
};

use crate::common::{check, never_started, seen, signal};

const STRANGER: LockHolder = LockHolder {
    pid: 4711,
    alive: true,
    own_child: false,
};

/// One of everything that is a failure in a handler's set.
const FAILURES: [Ending; 12] = [
    Ending::Code(1),
    Ending::Code(2),
    Ending::Code(69),
    Ending::Code(71),
    Ending::Code(75),
    Ending::Code(78),
    Ending::Code(255),
    signal(9),
    signal(15),
    signal(11),
    Ending::Lost,
    never_started(errno::EAGAIN),
];

fn asked(what: Asked, ending: Ending) -> Observation<'static> {
    Observation {
        asked: Some(what),
        ..seen(ending)
    }
}

#[test]
fn any_ending_after_a_stop_or_restart_was_asked_for_was_requested() {
    for ending in FAILURES
        .into_iter()
        .chain([0, 12, 90, 91, 92].map(Ending::Code))
    {
        for (what, rule) in [
            (Asked::Stop, "stop_asked"),
            (Asked::Restart, "restart_asked"),
        ] {
            for rules in [RuleSet::handler(), RuleSet::agent(), RuleSet::command()] {
                let seen = Observation {
                    lock_holder: Some(STRANGER),
                    memory_drained: true,
                    oom_kills: 3,
                    ..asked(what, ending)
                };
                check(&rules, &seen, Cause::Requested, Counts::Nothing, rule);
            }
        }
    }
}

#[test]
fn an_interrupt_ends_a_turn_in_whatever_way_and_a_handler_only_by_its_signal() {
    for ending in FAILURES
        .into_iter()
        .chain([Ending::Code(0), Ending::Code(130)])
    {
        check(
            &RuleSet::agent(),
            &asked(Asked::Interrupt, ending),
            Cause::Requested,
            Counts::Nothing,
            "turn_interrupted",
        );
    }
    let handler = RuleSet::handler();
    for rules in [&handler, &RuleSet::command()] {
        check(
            rules,
            &asked(Asked::Interrupt, signal(2)),
            Cause::Requested,
            Counts::Nothing,
            "interrupt_asked",
        );
    }
    check(
        &handler,
        &asked(Asked::Interrupt, Ending::Code(1)),
        Cause::RuntimeError,
        Counts::Crash,
        "runtime_error",
    );
    check(
        &handler,
        &asked(Asked::Interrupt, signal(11)),
        Cause::Aborted,
        Counts::Crash,
        "aborted",
    );
}

#[test]
fn a_release_that_was_asked_for_excuses_leaving_and_not_failing() {
    let handler = RuleSet::handler();
    let release = |ending| asked(Asked::Release, ending);
    check(
        &handler,
        &release(Ending::Code(92)),
        Cause::Released,
        Counts::Nothing,
        "released",
    );
    check(
        &handler,
        &release(Ending::Code(0)),
        Cause::Released,
        Counts::Nothing,
        "released_clean",
    );
    check(
        &handler,
        &release(Ending::Code(1)),
        Cause::RuntimeError,
        Counts::Crash,
        "runtime_error",
    );
    check(
        &handler,
        &release(signal(9)),
        Cause::Killed,
        Counts::Crash,
        "killed",
    );
    check(
        &RuleSet::command(),
        &release(Ending::Code(0)),
        Cause::Released,
        Counts::Nothing,
        "released_clean",
    );
    // The request may have come past us, through a file: 92 says it all the same.
    check(
        &handler,
        &seen(Ending::Code(92)),
        Cause::Released,
        Counts::Nothing,
        "released",
    );
    // A turn runs to its end first.
    let agent = RuleSet::agent();
    check(
        &agent,
        &release(Ending::Code(0)),
        Cause::CleanExit,
        Counts::TurnDone,
        "turn_done",
    );
    check(
        &agent,
        &release(Ending::Code(1)),
        Cause::RuntimeError,
        Counts::TurnFailed,
        "turn_failed",
    );
}

#[test]
fn what_had_to_be_ended_for_lack_of_progress_has_failed() {
    for ending in FAILURES
        .into_iter()
        .chain([Ending::Code(0), Ending::Code(92)])
    {
        let seen = asked(Asked::Stall, ending);
        check(
            &RuleSet::handler(),
            &seen,
            Cause::Stalled,
            Counts::Crash,
            "stalled",
        );
        check(
            &RuleSet::command(),
            &seen,
            Cause::Stalled,
            Counts::Crash,
            "stalled",
        );
        check(
            &RuleSet::agent(),
            &seen,
            Cause::Stalled,
            Counts::TurnFailed,
            "turn_stalled",
        );
    }
}

#[test]
fn any_failure_while_a_live_stranger_has_the_session_is_contention_however_long_it_ran() {
    for ending in FAILURES {
        let rule = if ending == Ending::Code(75) {
            "lock_held"
        } else {
            "lock_held_by_other"
        };
        for ran_for in [0, 31, 250, 301_000, 86_400_000] {
            let seen = Observation {
                ran_for: std::time::Duration::from_millis(ran_for),
                lock_holder: Some(STRANGER),
                oom_kills: 1,
                ..seen(ending)
            };
            check(
                &RuleSet::handler(),
                &seen,
                Cause::LockHeld,
                Counts::Contention,
                rule,
            );
            check(
                &RuleSet::command(),
                &seen,
                Cause::LockHeld,
                Counts::Contention,
                "lock_held_by_other",
            );
        }
    }
}

#[test]
fn a_planned_ending_is_none_of_the_holders_doing() {
    for (code, cause, counts) in [
        (0, Cause::CleanExit, Counts::CleanRestart),
        (12, Cause::MemoryDrain, Counts::Memory),
        (90, Cause::MemoryDrain, Counts::Memory),
        (91, Cause::Idle, Counts::NothingNoRespawn),
        (92, Cause::Released, Counts::Nothing),
    ] {
        let verdict = RuleSet::handler().classify(&Observation {
            lock_holder: Some(STRANGER),
            ..seen(Ending::Code(code))
        });
        assert_eq!((verdict.cause, verdict.counts), (cause, counts), "{code}");
    }
}

#[test]
fn a_holder_that_is_dead_or_our_own_is_no_contention() {
    for alive in [false, true] {
        for own_child in [false, true] {
            let holder = LockHolder {
                alive,
                own_child,
                ..STRANGER
            };
            if holder == STRANGER {
                continue;
            }
            for ending in FAILURES {
                let verdict = RuleSet::handler().classify(&Observation {
                    lock_holder: Some(holder),
                    ..seen(ending)
                });
                // Code 75 is the process's own word for "held". Only where we know that something of ours had the
                // lock is it not believed; a stranger that ended meanwhile did have it.
                let contention = ending == Ending::Code(75) && !own_child;
                assert_eq!(
                    verdict.counts == Counts::Contention,
                    contention,
                    "{ending} {holder:?}"
                );
            }
        }
    }
    check(
        &RuleSet::handler(),
        &Observation {
            lock_holder: Some(LockHolder {
                own_child: true,
                ..STRANGER
            }),
            ..seen(Ending::Code(75))
        },
        Cause::RuntimeError,
        Counts::Crash,
        "lock_held_by_own",
    );
}

#[test]
fn an_agent_knows_nothing_of_the_session_lock() {
    for ending in FAILURES.into_iter().chain([Ending::Code(0)]) {
        let agent = RuleSet::agent();
        let with = agent.classify(&Observation {
            lock_holder: Some(STRANGER),
            ..seen(ending)
        });
        let without = agent.classify(&seen(ending));
        assert_eq!((with.counts, with.rule), (without.counts, without.rule));
    }
}

#[test]
fn a_worker_that_drained_on_its_memory_limit_did_not_crash() {
    for rules in [RuleSet::handler(), RuleSet::command()] {
        for (ending, rule) in [
            (Ending::Code(0), "memory_drain_clean"),
            (signal(15), "memory_drain_signal"),
            (signal(1), "memory_drain_signal"),
            (signal(2), "memory_drain_signal"),
        ] {
            let seen = Observation {
                memory_drained: true,
                ..seen(ending)
            };
            check(&rules, &seen, Cause::MemoryDrain, Counts::Memory, rule);
        }
        for (ending, cause, rule) in [
            (Ending::Code(1), Cause::RuntimeError, "runtime_error"),
            (signal(9), Cause::Killed, "killed"),
            (signal(11), Cause::Aborted, "aborted"),
        ] {
            let seen = Observation {
                memory_drained: true,
                ..seen(ending)
            };
            check(&rules, &seen, cause, Counts::Crash, rule);
        }
    }
}

#[test]
fn a_kill_is_the_kernels_only_if_the_kernel_counted_it() {
    let oom = |ending, oom_kills, wrapper| Observation {
        oom_kills,
        wrapper,
        ..seen(ending)
    };
    for (rules, counts, killed, by_signal, by_code, unknown) in [
        (
            RuleSet::handler(),
            Counts::Crash,
            "killed",
            "out_of_memory",
            "out_of_memory_137",
            "unknown_ending",
        ),
        (
            RuleSet::command(),
            Counts::Crash,
            "killed",
            "out_of_memory",
            "out_of_memory_137",
            "unknown_ending",
        ),
        (
            RuleSet::agent(),
            Counts::TurnFailed,
            "turn_killed",
            "turn_out_of_memory",
            "turn_out_of_memory_137",
            "turn_failed",
        ),
    ] {
        check(
            &rules,
            &oom(signal(9), 0, false),
            Cause::Killed,
            counts,
            killed,
        );
        check(
            &rules,
            &oom(signal(9), 1, false),
            Cause::OutOfMemory,
            counts,
            by_signal,
        );
        let code = Ending::Code(137);
        check(
            &rules,
            &oom(code, 0, false),
            Cause::RuntimeError,
            counts,
            unknown,
        );
        check(
            &rules,
            &oom(code, 2, false),
            Cause::OutOfMemory,
            counts,
            by_code,
        );
        check(&rules, &oom(code, 0, true), Cause::Killed, counts, killed);
        check(
            &rules,
            &oom(code, 2, true),
            Cause::OutOfMemory,
            counts,
            by_signal,
        );
        // Some other process of the group was hit, and this one left with an error of its own.
        let failed = rules.classify(&oom(Ending::Code(1), 1, false));
        assert_eq!(failed.cause, Cause::RuntimeError);
        assert_eq!(failed.fact("oom_kills"), Some("1"));
    }
}

#[test]
fn a_rule_of_the_caller_comes_first_and_is_named() {
    let sign_in = Rule::new(
        "sign_in_expired",
        vec![Condition::Code(vec![145].into()), Condition::Unasked],
        Cause::Config,
        Counts::Permanent,
    )
    .unwrap()
    .because("the sign-in has run out");
    let rules = RuleSet::handler().prefer(sign_in);
    let expired = seen(Ending::Code(145));
    check(
        &rules,
        &expired,
        Cause::Config,
        Counts::Permanent,
        "sign_in_expired",
    );
    assert_eq!(
        rules.classify(&expired).sentence(),
        "left with code 145 after 5.0 s: the sign-in has run out (rule sign_in_expired)"
    );
    // The rest stays as it was, and so does what was asked for.
    check(
        &rules,
        &seen(Ending::Code(75)),
        Cause::LockHeld,
        Counts::Contention,
        "lock_held",
    );
    check(
        &rules,
        &asked(Asked::Stop, Ending::Code(145)),
        Cause::Requested,
        Counts::Nothing,
        "stop_asked",
    );
    // Without it, the code is unknown.
    check(
        &RuleSet::handler(),
        &expired,
        Cause::RuntimeError,
        Counts::Crash,
        "unknown_ending",
    );
}

#[test]
fn the_rule_preferred_last_is_asked_first() {
    let rule = |name: &'static str, counts| {
        let when = vec![Condition::Code(vec![0].into())];
        Rule::new(name, when, Cause::CleanExit, counts).unwrap()
    };
    let rules = RuleSet::agent()
        .prefer(rule("first", Counts::CleanRestart))
        .prefer(rule("second", Counts::TurnDone));
    check(
        &rules,
        &seen(Ending::Code(0)),
        Cause::CleanExit,
        Counts::TurnDone,
        "second",
    );
    let names: Vec<_> = rules.rules().map(Rule::name).take(3).collect();
    assert_eq!(names, ["second", "first", "stop_asked"]);
}

#[test]
fn a_rule_can_read_the_last_words() {
    let rules = RuleSet::agent().prefer(
        Rule::new(
            "busy_writer",
            vec![
                Condition::Failed,
                Condition::StderrContains("already has an active writer".into()),
            ],
            Cause::Unavailable,
            Counts::Dependency,
        )
        .unwrap(),
    );
    let told = |stderr_tail, code| Observation {
        stderr_tail,
        ..seen(Ending::Code(code))
    };
    let busy = b"\xffError: session already has an active writer\n";
    check(
        &rules,
        &told(busy, 1),
        Cause::Unavailable,
        Counts::Dependency,
        "busy_writer",
    );
    check(
        &rules,
        &told(busy, 0),
        Cause::CleanExit,
        Counts::TurnDone,
        "turn_done",
    );
    for other in [&b""[..], b"active", b"already has an active write"] {
        check(
            &rules,
            &told(other, 1),
            Cause::RuntimeError,
            Counts::TurnFailed,
            "turn_failed",
        );
    }
}

#[test]
fn a_rule_whose_label_and_account_contradict_each_other_cannot_be_made() {
    for cause in Cause::ALL {
        for counts in Counts::ALL {
            let made = Rule::new("mine", vec![], *cause, *counts);
            if cause.may_count_as(*counts) {
                assert!(made.is_ok(), "{cause} {counts}");
            } else {
                assert_eq!(
                    made,
                    Err(RuleError::Disagrees {
                        cause: *cause,
                        counts: *counts
                    })
                );
            }
        }
    }
    let error = Rule::new("mine", vec![], Cause::Requested, Counts::Crash).unwrap_err();
    assert_eq!(
        error.to_string(),
        "an ending of cause `requested` cannot count as `crash`"
    );
}

#[test]
fn a_rule_needs_a_name_that_can_be_printed() {
    for name in ["", "two words", "a\nb", "\u{1b}[31m", "ä", "a)b"] {
        let error = Rule::new(name, vec![], Cause::Lost, Counts::Crash).unwrap_err();
        assert_eq!(
            error,
            RuleError::Name {
                name: name.to_owned()
            }
        );
        assert!(!error.to_string().contains(['\n', '\u{1b}']), "{error}");
    }
    let rule = Rule::new("aider.exit-0_is-not", vec![], Cause::Lost, Counts::Crash)
        .unwrap()
        .because("a\nphrase\u{1b}[31m ");
    let verdict = RuleSet::agent()
        .prefer(rule)
        .classify(&seen(Ending::Code(0)));
    assert_eq!(verdict.because, "a phrase [31m");
}

#[test]
fn the_standard_rules_agree_with_the_table_of_causes_and_have_names_of_their_own() {
    for rules in [RuleSet::handler(), RuleSet::agent(), RuleSet::command()] {
        let mut names: Vec<_> = rules.rules().map(Rule::name).collect();
        for rule in rules.rules() {
            let same = Rule::new(
                rule.name().to_owned(),
                rule.when().to_vec(),
                rule.cause(),
                rule.counts(),
            );
            assert!(same.is_ok(), "{rule:?}");
        }
        let last = rules.rules().last().unwrap();
        assert!(last.when().is_empty(), "the last one matches everything");
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "each name once");
    }
}
