//! The rules of a turn boundary, one by one, and all short orders of events.

use super::*;

const IDLE: Duration = Duration::from_secs(300);

fn rules() -> Rules {
    Rules {
        patience: Patience::Idle(IDLE),
        on_interrupted: OnInterrupted::Auto,
        idle_interrupt: IdleInterrupt::Ignored,
    }
}

fn empty() -> Sight {
    Sight {
        wish: None,
        next: None,
        consumer_present: false,
        over_memory_cap: false,
        lock_lost: false,
    }
}

fn with_message(message: u64) -> Sight {
    pending(message, 0, false)
}

fn pending(message: u64, attempts: u32, shown_output: bool) -> Sight {
    Sight {
        next: Some(Pending {
            message,
            attempts,
            shown_output,
        }),
        ..empty()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an arbitrary origin; every test adds its own spans to it"
)]
fn origin() -> Instant {
    Instant::now()
}

fn core(rules: Rules) -> (Core, Instant) {
    let now = origin();
    (Core::new(rules, now), now)
}

fn turning(rules: Rules) -> (Core, Instant) {
    let (mut core, now) = core(rules);
    assert_eq!(
        core.handle(Event::Looked(with_message(1)), now),
        Step::Begin {
            message: 1,
            attempt: 1
        }
    );
    (core, now)
}

#[test]
fn the_oldest_unanswered_message_begins_a_turn() {
    let (mut core, now) = core(rules());
    assert_eq!(
        core.handle(Event::Looked(with_message(7)), now),
        Step::Begin {
            message: 7,
            attempt: 1
        }
    );
    assert_eq!(core.turning(), Some(7));
}

#[test]
fn a_reply_is_written_and_the_session_looked_at_again() {
    let (mut core, now) = turning(rules());
    let step = core.handle(Event::TurnEnded(TurnEnd::Replied), now);
    assert_eq!(
        step,
        Step::Settle {
            message: 1,
            answer: Answer::Reply,
            then: Then::Look
        }
    );
    assert_eq!(core.turning(), None);
}

#[test]
fn a_failed_agent_is_answered_once_and_the_handler_stays() {
    let (mut core, now) = turning(rules());
    let step = core.handle(Event::TurnEnded(TurnEnd::Failed), now);
    assert_eq!(
        step,
        Step::Settle {
            message: 1,
            answer: Answer::SystemError(NoReply::Failed),
            then: Then::Look
        }
    );
}

#[test]
fn endings_that_say_no_turn_can_run_leave_with_their_own_code() {
    for (end, answer, code) in [
        (
            TurnEnd::FailedForGood,
            Answer::SystemError(NoReply::FailedForGood),
            ExitCode::Config,
        ),
        (
            TurnEnd::Unavailable,
            Answer::Unread { attempts: 0 },
            ExitCode::Unavailable,
        ),
        (
            TurnEnd::NoResources,
            Answer::Unread { attempts: 0 },
            ExitCode::System,
        ),
    ] {
        let (mut core, now) = turning(rules());
        let step = core.handle(Event::TurnEnded(end), now);
        assert_eq!(
            step,
            Step::Settle {
                message: 1,
                answer,
                then: Then::Leave(code)
            },
            "{end:?}"
        );
    }
}

#[test]
fn a_message_whose_turn_died_silently_is_taken_again_once() {
    let (mut core, now) = core(rules());
    assert_eq!(
        core.handle(Event::Looked(pending(3, 1, false)), now),
        Step::Begin {
            message: 3,
            attempt: 2
        }
    );
}

#[test]
fn a_message_whose_agent_had_spoken_is_answered_instead_of_taken_again() {
    let (mut core, now) = core(rules());
    let answer = Answer::SystemError(NoReply::HandlerDied { attempts: 1 });
    let step = core.handle(Event::Looked(pending(3, 1, true)), now);
    assert_eq!(
        step,
        Step::Settle {
            message: 3,
            answer,
            then: Then::Look
        }
    );
}

#[test]
fn two_attempts_are_all_that_a_message_gets_under_every_rule() {
    for on_interrupted in [
        OnInterrupted::Auto,
        OnInterrupted::Retry,
        OnInterrupted::Fail,
    ] {
        let (mut core, now) = core(Rules {
            on_interrupted,
            ..rules()
        });
        let answer = Answer::SystemError(NoReply::HandlerDied {
            attempts: MAX_ATTEMPTS,
        });
        let step = core.handle(Event::Looked(pending(3, MAX_ATTEMPTS, false)), now);
        assert_eq!(
            step,
            Step::Settle {
                message: 3,
                answer,
                then: Then::Look
            },
            "{on_interrupted:?}"
        );
    }
}

#[test]
fn retry_takes_a_message_again_whatever_its_agent_had_said_and_fail_never_does() {
    let (mut core, now) = core(Rules {
        on_interrupted: OnInterrupted::Retry,
        ..rules()
    });
    assert_eq!(
        core.handle(Event::Looked(pending(3, 1, true)), now),
        Step::Begin {
            message: 3,
            attempt: 2
        }
    );

    let (mut core, now) = self::core(Rules {
        on_interrupted: OnInterrupted::Fail,
        ..rules()
    });
    let answer = Answer::SystemError(NoReply::HandlerDied { attempts: 1 });
    let step = core.handle(Event::Looked(pending(3, 1, false)), now);
    assert_eq!(
        step,
        Step::Settle {
            message: 3,
            answer,
            then: Then::Look
        }
    );
}

#[test]
fn a_handler_leaves_when_nobody_needed_it_for_the_idle_time() {
    let (mut core, now) = core(rules());
    assert_eq!(core.handle(Event::Looked(empty()), now), Step::Wait);
    assert_eq!(core.deadline(), Some(now + IDLE));
    let just_before = now + IDLE.checked_sub(Duration::from_nanos(1)).unwrap();
    assert_eq!(core.handle(Event::Looked(empty()), just_before), Step::Wait);
    assert_eq!(
        core.handle(Event::Looked(empty()), now + IDLE),
        Step::Leave(ExitCode::IdleLeft)
    );
}

#[test]
fn the_idle_time_counts_from_the_end_of_the_last_turn() {
    let (mut core, now) = turning(rules());
    let later = now + Duration::from_secs(1_000);
    assert!(matches!(
        core.handle(Event::TurnEnded(TurnEnd::Replied), later),
        Step::Settle { .. }
    ));
    assert_eq!(core.handle(Event::Looked(empty()), later), Step::Wait);
    assert_eq!(core.deadline(), Some(later + IDLE));
}

#[test]
fn a_consumer_keeps_the_handler_and_restarts_the_idle_time() {
    let (mut core, now) = core(rules());
    let present = Sight {
        consumer_present: true,
        ..empty()
    };
    let late = now + IDLE;
    assert_eq!(core.handle(Event::Looked(present), late), Step::Wait);
    assert_eq!(core.deadline(), Some(late + IDLE));
    assert_eq!(
        core.handle(Event::Looked(empty()), late + IDLE),
        Step::Leave(ExitCode::IdleLeft)
    );
}

#[test]
fn an_idle_time_beyond_the_clock_never_ends() {
    let (mut core, now) = core(Rules {
        patience: Patience::Idle(Duration::MAX),
        ..rules()
    });
    assert_eq!(core.handle(Event::Looked(empty()), now), Step::Wait);
    assert_eq!(core.deadline(), None);
}

#[test]
fn an_autonomous_handler_leaves_when_the_inbox_is_empty() {
    let (mut core, now) = core(Rules {
        patience: Patience::UntilDrained,
        ..rules()
    });
    assert_eq!(
        core.handle(Event::Looked(with_message(1)), now),
        Step::Begin {
            message: 1,
            attempt: 1
        }
    );
    assert!(matches!(
        core.handle(Event::TurnEnded(TurnEnd::Replied), now),
        Step::Settle { .. }
    ));
    assert_eq!(
        core.handle(Event::Looked(empty()), now),
        Step::Leave(ExitCode::Ok)
    );
}

#[test]
fn a_release_lets_the_turn_finish_and_then_leaves() {
    let (mut core, now) = turning(rules());
    assert_eq!(core.handle(Event::ReleaseAsked, now), Step::Wait);
    let step = core.handle(Event::TurnEnded(TurnEnd::Replied), now);
    let then = Then::Leave(ExitCode::Released);
    assert_eq!(
        step,
        Step::Settle {
            message: 1,
            answer: Answer::Reply,
            then
        }
    );
}

#[test]
fn a_release_between_turns_leaves_even_with_messages_waiting() {
    let (mut core, now) = core(rules());
    assert_eq!(
        core.handle(Event::ReleaseAsked, now),
        Step::Leave(ExitCode::Released)
    );
}

#[test]
fn a_turn_that_was_only_waited_for_is_forgotten() {
    let (mut core, now) = turning(rules());
    assert_eq!(core.handle(Event::ReleaseAsked, now), Step::Wait);
    let step = core.handle(Event::TurnEnded(TurnEnd::NotBegun), now);
    let then = Then::Leave(ExitCode::Released);
    assert_eq!(
        step,
        Step::Settle {
            message: 1,
            answer: Answer::Stay,
            then
        }
    );
}

#[test]
fn an_agent_that_is_down_takes_no_attempt_from_its_message() {
    let (mut core, now) = core(rules());
    assert_eq!(
        core.handle(Event::Looked(pending(3, 1, false)), now),
        Step::Begin {
            message: 3,
            attempt: 2
        }
    );
    let step = core.handle(Event::TurnEnded(TurnEnd::Unavailable), now);
    let answer = Answer::Unread { attempts: 1 };
    assert_eq!(
        step,
        Step::Settle {
            message: 3,
            answer,
            then: Then::Leave(ExitCode::Unavailable)
        }
    );
}

#[test]
fn a_stop_ends_the_turn_and_a_second_one_hurries() {
    let (mut core, now) = turning(rules());
    assert_eq!(
        core.handle(Event::StopAsked, now),
        Step::EndTurn(EndTurn::Stop)
    );
    assert_eq!(
        core.handle(Event::StopAsked, now),
        Step::EndTurn(EndTurn::Hurry)
    );
    let step = core.handle(
        Event::TurnEnded(TurnEnd::CutShort {
            shown_output: false,
        }),
        now,
    );
    let then = Then::Leave(ExitCode::Released);
    assert_eq!(
        step,
        Step::Settle {
            message: 1,
            answer: Answer::Stay,
            then
        }
    );
}

#[test]
fn a_stopped_turn_that_had_spoken_is_answered_with_what_there_is() {
    let (mut core, now) = turning(rules());
    assert_eq!(
        core.handle(Event::StopAsked, now),
        Step::EndTurn(EndTurn::Stop)
    );
    let step = core.handle(
        Event::TurnEnded(TurnEnd::CutShort { shown_output: true }),
        now,
    );
    let answer = Answer::SystemError(NoReply::CutShort);
    assert_eq!(
        step,
        Step::Settle {
            message: 1,
            answer,
            then: Then::Leave(ExitCode::Released)
        }
    );
}

#[test]
fn an_interrupt_ends_the_turn_and_not_the_chat() {
    let (mut core, now) = turning(rules());
    assert_eq!(
        core.handle(Event::InterruptAsked, now),
        Step::EndTurn(EndTurn::Interrupt)
    );
    let step = core.handle(Event::TurnEnded(TurnEnd::Interrupted), now);
    let answer = Answer::SystemError(NoReply::Interrupted);
    assert_eq!(
        step,
        Step::Settle {
            message: 1,
            answer,
            then: Then::Look
        }
    );
}

#[test]
fn an_interrupt_between_turns_is_ignored_under_a_daemon_and_leaves_at_a_terminal() {
    let (mut core, now) = core(rules());
    assert_eq!(core.handle(Event::InterruptAsked, now), Step::Look);
    let (mut core, now) = self::core(Rules {
        idle_interrupt: IdleInterrupt::Leaves,
        ..rules()
    });
    assert_eq!(
        core.handle(Event::InterruptAsked, now),
        Step::Leave(ExitCode::Released)
    );
}

#[test]
fn a_standing_wish_beats_a_waiting_message() {
    for wish in [Wish::Stopped, Wish::Archived, Wish::Purged] {
        let (mut core, now) = core(rules());
        let sight = Sight {
            wish: Some(wish),
            ..with_message(1)
        };
        assert_eq!(
            core.handle(Event::Looked(sight), now),
            Step::Leave(ExitCode::Released),
            "{wish:?}"
        );
    }
}

#[test]
fn memory_over_the_cap_drains_before_the_next_message() {
    let (mut core, now) = core(rules());
    let sight = Sight {
        over_memory_cap: true,
        ..with_message(1)
    };
    assert_eq!(
        core.handle(Event::Looked(sight), now),
        Step::Leave(ExitCode::MemoryDrain)
    );
}

#[test]
fn a_lost_lock_is_left_before_anything_is_written() {
    let (mut core, now) = core(rules());
    let sight = Sight {
        lock_lost: true,
        ..with_message(1)
    };
    assert_eq!(
        core.handle(Event::Looked(sight), now),
        Step::Leave(ExitCode::Held)
    );
}

#[test]
fn every_turn_that_begins_is_settled_exactly_once_in_every_order_of_events() {
    // All sequences of five events: a settle never comes without a begin before it, and never twice for one.
    let sights = [empty(), with_message(1), pending(1, 1, true)];
    let mut events: Vec<Event> = sights.into_iter().map(Event::Looked).collect();
    events.extend([Event::StopAsked, Event::InterruptAsked, Event::ReleaseAsked]);
    events.extend([
        Event::TurnEnded(TurnEnd::Replied),
        Event::TurnEnded(TurnEnd::Unavailable),
        Event::TurnEnded(TurnEnd::CutShort {
            shown_output: false,
        }),
    ]);
    let now = origin();
    for code in 0..events.len().pow(5) {
        let mut core = Core::new(rules(), now);
        let mut open = false;
        let mut rest = code;
        for _ in 0..5 {
            let event = events[rest % events.len()];
            rest /= events.len();
            match core.handle(event, now) {
                Step::Begin { .. } => {
                    assert!(!open, "two turns at once");
                    open = true;
                }
                Step::Settle {
                    answer: Answer::SystemError(NoReply::HandlerDied { .. }),
                    ..
                } => assert!(!open),
                Step::Settle { .. } => {
                    assert!(open, "an answer without a turn");
                    open = false;
                }
                Step::Leave(_) => {
                    assert!(!open, "left in the middle of a turn");
                    break;
                }
                Step::EndTurn(_) => assert!(open, "ended a turn that does not run"),
                Step::Look | Step::Wait => {}
            }
        }
        assert_eq!(open, core.turning().is_some());
    }
}
