//! A machine's notices in words and as events: the same for chats and for `wg run`.

use std::time::Duration;

use log::Level;
use serde_json::json;
use supervisor::{Account, Holder, Moment, Notice, ParkReason, SpawnFailure, UnparkedBy};

use crate::clock::{self, Timestamp};
use crate::names::{ChatState, EventKind};
use crate::store::events::EventLine;

/// How much a person wants to hear of a notice.
#[must_use]
pub fn level(notice: &Notice) -> Level {
    match notice {
        Notice::SpawnFailed { .. }
        | Notice::Degraded { .. }
        | Notice::BudgetWarning { .. }
        | Notice::Parked { .. } => Level::Warn,
        Notice::Backoff { delay, .. } if delay.is_zero() => Level::Debug,
        Notice::Spawned { .. }
        | Notice::Adopted { .. }
        | Notice::Exited { .. }
        | Notice::Backoff { .. }
        | Notice::Held { .. }
        | Notice::Contended { .. }
        | Notice::HolderGone { .. }
        | Notice::Unparked { .. }
        | Notice::WokenEarly { .. }
        | Notice::Stopping { .. }
        | Notice::Finished => Level::Info,
        Notice::Idle | Notice::NotNow { .. } | Notice::Stopped => Level::Debug,
    }
}

/// The state that a chat is in after a notice; `None` where the notice changes none.
#[must_use]
pub fn state_after(notice: &Notice) -> Option<ChatState> {
    Some(match notice {
        Notice::Spawned { .. } => ChatState::Running,
        Notice::Adopted { .. } => ChatState::Adopted,
        Notice::Backoff { .. } | Notice::NotNow { .. } => ChatState::Backoff,
        Notice::Degraded { .. } => ChatState::Degraded,
        Notice::Held { .. } | Notice::Contended { .. } => ChatState::Held,
        Notice::Parked { .. } => ChatState::Parked,
        Notice::Idle => ChatState::Idle,
        Notice::Stopping { .. } => ChatState::Stopping,
        Notice::Stopped | Notice::Finished => ChatState::Stopped,
        Notice::SpawnFailed { .. }
        | Notice::Exited { .. }
        | Notice::BudgetWarning { .. }
        | Notice::HolderGone { .. }
        | Notice::Unparked { .. }
        | Notice::WokenEarly { .. } => return None,
    })
}

/// The event that a notice is written as; `None` for those that another event tells better.
///
/// `line` makes the event of a kind with its sentence; `what` is what runs, such as `handler`, and `because` follows a start in
/// parentheses.
#[expect(
    clippy::too_many_lines,
    reason = "one arm for each notice, side by side"
)]
pub fn event(
    notice: &Notice,
    what: &str,
    because: &str,
    line: impl FnOnce(EventKind, String) -> EventLine,
) -> Option<EventLine> {
    let because = if because.is_empty() {
        String::new()
    } else {
        format!(" ({because})")
    };
    Some(match notice {
        Notice::Spawned { pid, .. } => of_process(
            *pid,
            line(
                EventKind::Spawned,
                format!("{what} {pid} was started{because}"),
            ),
        ),
        Notice::Adopted { pid, .. } => of_process(
            *pid,
            line(
                EventKind::Adopted,
                format!("{what} {pid} of an earlier daemon was adopted"),
            ),
        ),
        Notice::SpawnFailed { failure, .. } => {
            let (SpawnFailure::Permanent { reason } | SpawnFailure::Transient { reason }) = failure;
            line(
                EventKind::SpawnFailed,
                format!("no {what} was started: {reason}"),
            )
        }
        // Told with the verdict, by whoever judged; the stop that is under way, by what it led to.
        Notice::Exited { .. } | Notice::Stopping { .. } => return None,
        Notice::Backoff {
            account,
            number,
            delay,
            until,
        } => EventLine {
            delay_ms: Some(millis(*delay)),
            crash_count: matches!(account, Account::Crash).then_some(*number),
            ..until_then(
                *until,
                line(
                    EventKind::Backoff,
                    format!(
                        "starts again {}{}",
                        pause(*delay),
                        account_text(*account, *number)
                    ),
                ),
            )
        },
        Notice::Degraded {
            number,
            in_window,
            window,
            pace,
        } => EventLine {
            delay_ms: Some(millis(*pace)),
            crash_count: Some(*number),
            ..line(
                EventKind::Degraded,
                format!(
                    "{in_window} crashes within {} (number {number}): one attempt every {} from now on",
                    clock::span(*window),
                    clock::span(*pace)
                ),
            )
        },
        Notice::BudgetWarning {
            account,
            count,
            budget,
            window,
            peak,
        } => EventLine {
            budget: Some(
                json!({ "account": account_name(*account), "count": count, "window_ms": millis(*window) }),
            ),
            ..line(
                if matches!(account, Account::Memory) {
                    EventKind::MemoryWarning
                } else {
                    EventKind::BudgetWarning
                },
                budget_text(*account, *count, *budget, *window, *peak),
            )
        },
        Notice::Held { holder } => held_by(
            holder,
            line(
                EventKind::Held,
                format!("held by live {holder}: no attempt while it lives"),
            ),
        ),
        Notice::Contended {
            holder,
            refusals,
            until,
        } => until_then(
            *until,
            held_by(
                holder,
                line(
                    EventKind::Held,
                    format!(
                        "held by {holder}, which cannot be watched: the lock is looked at again (refusal {refusals})"
                    ),
                ),
            ),
        ),
        Notice::HolderGone { holder } => held_by(
            holder,
            line(EventKind::HolderGone, format!("{holder} is gone")),
        ),
        Notice::Parked { reason } => {
            line(EventKind::Parked, format!("parked: {}", park_text(reason)))
        }
        Notice::Unparked { by } => {
            let who = match by {
                UnparkedBy::Resume => "a person resumed it",
                UnparkedBy::ConfigChanged => "its configuration changed",
                UnparkedBy::HolderGone => "the holder is gone",
                UnparkedBy::Adopted => "a process of it was found alive",
            };
            line(EventKind::Unparked, format!("un-parked: {who}"))
        }
        Notice::Idle => line(
            EventKind::Idle,
            "nobody needs it: a message or a consumer wakes it".to_owned(),
        ),
        Notice::WokenEarly { account, number } => line(
            EventKind::Woken,
            format!(
                "work cut a pause short ({} {number})",
                account_name(*account)
            ),
        ),
        Notice::NotNow { reason, until } => until_then(
            *until,
            line(
                EventKind::Backoff,
                format!("cannot start just now: {reason}"),
            ),
        ),
        Notice::Stopped => line(
            EventKind::Stopped,
            "down, and nothing is left of it".to_owned(),
        ),
        Notice::Finished => line(EventKind::Stopped, "down, and not started again".to_owned()),
    })
}

fn budget_text(
    account: Account,
    count: u32,
    budget: u32,
    window: Duration,
    peak: Option<u64>,
) -> String {
    let text = format!(
        "{count} restarts within {} on the {} account, {budget} are free",
        clock::span(window),
        account_name(account)
    );
    match peak {
        Some(peak) => format!(
            "{text}; it used up to {} MiB: give it more (service.memory_cap) or look for a leak",
            peak / (1 << 20)
        ),
        None => text,
    }
}

/// What an account is called in a sentence.
#[must_use]
pub fn account_name(account: Account) -> &'static str {
    match account {
        Account::Crash => "crash",
        Account::Clean => "clean restart",
        Account::Memory => "memory",
        Account::Contention => "contention",
        Account::Dependency => "dependency",
        Account::Release => "release",
        Account::NotNow => "not now",
    }
}

/// What follows a pause for something that nobody needs: nothing. `account` says for what it pauses.
#[must_use]
pub fn pause_of_the_unneeded(delay: Duration, account: &str) -> String {
    if delay.is_zero() {
        "nobody needs it, so nothing is started".to_owned()
    } else {
        let when = pause(delay);
        format!("nobody needs it, so nothing is started; its pause is over {when}{account}")
    }
}

/// The account and the number in it for which a pause is made, as it stands behind a sentence.
#[must_use]
pub fn account_text(account: Account, number: u32) -> String {
    format!(" ({} {number})", account_name(account))
}

/// A pause as a person is told of it: `at once`, `in 300 ms`, `in 12 s`.
#[must_use]
pub fn pause(delay: Duration) -> String {
    match delay.as_millis() {
        0 => "at once".to_owned(),
        millis @ 1..1_000 => format!("in {millis} ms"),
        1_000.. => format!("in {}", clock::span(delay)),
    }
}

/// Why something is parked, in a sentence.
#[must_use]
pub fn park_text(reason: &ParkReason) -> String {
    match reason {
        ParkReason::Permanent { reason } => reason.clone(),
        ParkReason::CrashLimit { crashes, last } => {
            let times = if *crashes == 1 {
                "once; it".to_owned()
            } else {
                format!("{crashes} times; the last time it")
            };
            format!("it crashed {times} {last}")
        }
        ParkReason::Contended {
            holder, refusals, ..
        } => {
            format!("{holder} held the session through {refusals} looks at the lock")
        }
    }
}

/// A moment of the driver's clock on the wall clock.
#[must_use]
pub fn wall(moment: Moment) -> Timestamp {
    let now = supervisor::clock::now();
    if moment >= now {
        clock::now().plus(moment.since(now))
    } else {
        let past = millis(now.since(moment));
        let past = i64::try_from(past).unwrap_or(i64::MAX);
        Timestamp::from_millis(clock::now().millis().saturating_sub(past))
    }
}

/// An event that says until when; never a moment before its own, for what waits no longer.
fn until_then(moment: Moment, line: EventLine) -> EventLine {
    let left = moment.since(supervisor::clock::now());
    EventLine {
        until: Some(line.ts.plus(left)),
        ..line
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn of_process(pid: u32, line: EventLine) -> EventLine {
    EventLine {
        pid: Some(pid),
        ..line
    }
}

/// An event that names the holder of a session.
pub(crate) fn held_by(holder: &Holder, line: EventLine) -> EventLine {
    EventLine {
        holder: Some(json!({ "pid": holder.pid, "kind": holder.label })),
        ..line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_never_before_it_is_told() {
        let now = supervisor::clock::now();
        let (zero, pause) = (Duration::ZERO, Duration::from_secs(600));
        for delay in [zero, pause] {
            let told = [
                Notice::Backoff {
                    account: Account::Crash,
                    number: 1,
                    delay,
                    until: now + delay,
                },
                Notice::NotNow {
                    reason: "because".to_owned(),
                    until: now + delay,
                },
                Notice::Contended {
                    holder: Holder {
                        pid: 0,
                        start: None,
                        label: String::new(),
                    },
                    refusals: 1,
                    until: now + delay,
                },
            ];
            for notice in told {
                let line = |kind, text| EventLine::new(None, kind, text);
                let event = event(&notice, "process", "", line).unwrap();
                let until = event.until.unwrap();
                assert!(until >= event.ts, "{event:?}");
                assert!(until <= event.ts.plus(delay), "{event:?}");
            }
        }
    }
}
