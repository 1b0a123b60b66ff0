//! What a person reads in place of a reply.

use std::fmt::Write;

use crate::clock;

use super::core::{MAX_ATTEMPTS, NoReply};
use super::turn::Report;

/// The parts that a `system-error` message is made of.
pub(crate) struct Trouble<'a> {
    /// The agent's name.
    pub(crate) agent: &'a str,
    /// The command that asks again, where there is one.
    pub(crate) retry: Option<&'a str>,
    /// Why there is no reply.
    pub(crate) reason: NoReply,
    /// The turn, where this handler ran it.
    pub(crate) report: Option<&'a Report>,
    /// What the agent had said, unless it was shown already.
    pub(crate) partial: &'a str,
}

/// Returns the text of one `system-error` message: what happened, the evidence, what was said so far, what can be done.
pub(crate) fn system_error(trouble: &Trouble<'_>) -> String {
    let mut text = sentence(trouble);
    if let Some(report) = trouble.report
        && !report.error_tail.trim().is_empty()
    {
        push(
            &mut text,
            format_args!(
                "\n\nIts last error output:\n{}",
                report.error_tail.trim_end()
            ),
        );
    }
    if !trouble.partial.trim().is_empty() {
        push(
            &mut text,
            format_args!("\n\nWhat it had said:\n{}", trouble.partial),
        );
    }
    match (trouble.reason, trouble.retry) {
        (NoReply::FailedForGood, Some(retry)) => push(
            &mut text,
            format_args!(
                "\n\nNothing more is tried until its configuration changes; then `{retry}` asks again."
            ),
        ),
        (
            NoReply::Failed
            | NoReply::OverMemoryCap
            | NoReply::Interrupted
            | NoReply::CutShort
            | NoReply::HandlerDied { .. },
            Some(retry),
        ) => push(&mut text, format_args!("\n\n`{retry}` asks again.")),
        (_, None) => {}
    }
    text
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more)
        .expect("writing to a string cannot fail because it only allocates");
}

/// Returns an amount of memory for people.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / (1 << 20))
}

fn sentence(trouble: &Trouble<'_>) -> String {
    let agent = trouble.agent;
    let ran = trouble
        .report
        .map(|report| clock::span(report.ran_for))
        .unwrap_or_default();
    match (trouble.reason, trouble.report) {
        (NoReply::Failed | NoReply::FailedForGood, Some(report)) => {
            if let Some(why) = &report.not_started {
                return format!("The agent `{agent}` could not be started: {why}.");
            }
            if report.asked.is_some() {
                return format!(
                    "The agent `{agent}` was ended because it showed no progress for too long ({} after {ran}).",
                    report.ending
                );
            }
            format!("The agent `{agent}` failed: {} after {ran}.", report.ending)
        }
        (NoReply::Failed | NoReply::FailedForGood, None) => format!("The agent `{agent}` failed."),
        (NoReply::OverMemoryCap, report) => {
            let used = report
                .and_then(|report| report.peak_memory)
                .map(|peak| format!(": it had up to {}", mebibytes(peak)))
                .unwrap_or_default();
            format!(
                "The agent `{agent}` was ended because it had more memory than `service.memory_cap` allows{used}, {ran} after \
                 its start. Give it more, or let it do less at once."
            )
        }
        (NoReply::Interrupted, None) => {
            "The message was taken back before its turn began.".to_owned()
        }
        (NoReply::Interrupted, Some(_)) => {
            format!("The turn was interrupted on request after {ran}.")
        }
        (NoReply::CutShort, _) => {
            format!("The chat was stopped while the agent `{agent}` was answering, after {ran}.")
        }
        (NoReply::HandlerDied { attempts }, _) if attempts >= MAX_ATTEMPTS => {
            format!(
                "No answer: {attempts} turns for this message ended together with the process that ran them."
            )
        }
        (NoReply::HandlerDied { .. }, _) => format!(
            "The process that ran this turn died while the agent `{agent}` was answering; it was not asked again because it \
             may already have acted."
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use exit_classifier::{Asked, Ending};

    use super::*;

    fn report(ending: Ending) -> Report {
        Report {
            ending,
            asked: None,
            ran_for: Duration::from_secs(3),
            text: String::new(),
            shown_output: false,
            error_tail: String::new(),
            ended_children: 0,
            survivors: Vec::new(),
            peak_memory: None,
            over_memory_cap: false,
            not_started: None,
        }
    }

    fn text(reason: NoReply, report: Option<&Report>, partial: &str) -> String {
        system_error(&Trouble {
            agent: "claude",
            retry: Some("wg chat retry chat-3 7"),
            reason,
            report,
            partial,
        })
    }

    #[test]
    fn a_failed_turn_names_code_evidence_partial_output_and_cure() {
        let report = Report {
            error_tail: "boom\n".to_owned(),
            ..report(Ending::Code(1))
        };
        let text = text(NoReply::Failed, Some(&report), "half an ans");
        for part in [
            "exit code 1",
            "boom",
            "half an ans",
            "wg chat retry chat-3 7",
        ] {
            assert!(text.contains(part), "`{part}` is missing in:\n{text}");
        }
    }

    #[test]
    fn a_stalled_turn_says_so() {
        let report = Report {
            asked: Some(Asked::Stall),
            ..report(Ending::Signal {
                number: 2,
                core: false,
            })
        };
        assert!(text(NoReply::Failed, Some(&report), "").contains("no progress"));
    }

    #[test]
    fn a_turn_over_its_memory_cap_says_how_much_it_had_and_where_the_cap_is_set() {
        let report = Report {
            peak_memory: Some(300 << 20),
            over_memory_cap: true,
            ..report(Ending::Signal {
                number: 15,
                core: false,
            })
        };
        let text = text(NoReply::OverMemoryCap, Some(&report), "");
        for part in ["300 MiB", "service.memory_cap", "wg chat retry chat-3 7"] {
            assert!(text.contains(part), "`{part}` is missing in:\n{text}");
        }
    }

    #[test]
    fn a_turn_whose_handler_died_shows_what_was_said() {
        let text = text(NoReply::HandlerDied { attempts: 1 }, None, "I pushed");
        assert!(
            text.contains("I pushed") && text.contains("may already have acted"),
            "{text}"
        );
    }

    #[test]
    fn an_agent_that_cannot_be_started_is_named_with_its_reason() {
        let report = Report {
            not_started: Some("its working directory `/nowhere` does not exist".to_owned()),
            ..report(Ending::NeverStarted { errno: 2 })
        };
        let text = text(NoReply::FailedForGood, Some(&report), "");
        assert!(
            text.contains("/nowhere") && text.contains("configuration changes"),
            "{text}"
        );
    }
}
