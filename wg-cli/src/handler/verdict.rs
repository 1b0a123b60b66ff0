//! What an agent's ending means for its turn, in the words of `exit-classifier`.

use std::ffi::OsString;
use std::path::Path;

use exit_classifier::{Asked, Counts, Ending, Observation, RuleSet, Verdict};
use rustix::io::Errno;

use crate::agent::Program;

use super::core::TurnEnd;
use super::turn::Report;

/// Programs that run a command for somebody, and whose codes 126 and 127 speak of that command.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "zsh", "ksh", "ash", "env"];

/// Returns whether this agent is a known shell wrapper.
#[must_use]
pub fn is_wrapper(program: &Program) -> bool {
    match program {
        Program::BuiltInEcho => false,
        Program::Argv(argv) => argv.first().is_some_and(is_shell),
    }
}

fn is_shell(program: &OsString) -> bool {
    Path::new(program)
        .file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| SHELLS.contains(&name))
}

/// Returns what the report means for the turn, and the verdict behind it.
pub(crate) fn judge(report: &Report, wrapper: bool) -> (TurnEnd, Verdict) {
    let verdict = RuleSet::agent().classify(&Observation {
        asked: report.asked,
        memory_drained: report.over_memory_cap,
        wrapper,
        stderr_tail: report.error_tail.as_bytes(),
        ..Observation::new(report.ending, report.ran_for)
    });
    let end = if report.ending
        == (Ending::NeverStarted {
            errno: Errno::TOOBIG.raw_os_error(),
        }) {
        // This message does not fit into a command line; the next one may.
        TurnEnd::Failed
    } else if report.over_memory_cap {
        TurnEnd::OverMemoryCap
    } else {
        turn_end(verdict.counts, report)
    };
    (end, verdict)
}

fn turn_end(counts: Counts, report: &Report) -> TurnEnd {
    match counts {
        Counts::TurnDone => TurnEnd::Replied,
        Counts::Permanent => TurnEnd::FailedForGood,
        Counts::Dependency => TurnEnd::Unavailable,
        Counts::Crash => TurnEnd::NoResources,
        // "Nothing" is an ending that was asked for; only an interrupt leaves the handler where it is.
        Counts::Nothing if report.asked == Some(Asked::Interrupt) => TurnEnd::Interrupted,
        Counts::Nothing => TurnEnd::CutShort {
            shown_output: report.shown_output,
        },
        // The accounts of a handler mean nothing in a turn: they read as a turn that failed.
        Counts::TurnFailed
        | Counts::CleanRestart
        | Counts::NothingNoRespawn
        | Counts::Memory
        | Counts::Contention
        | Counts::ExternalStop => TurnEnd::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report(ending: Ending, asked: Option<Asked>) -> Report {
        Report {
            ending,
            asked,
            ran_for: Duration::from_secs(1),
            text: String::new(),
            shown_output: true,
            error_tail: String::new(),
            ended_children: 0,
            survivors: Vec::new(),
            peak_memory: None,
            over_memory_cap: false,
            not_started: None,
        }
    }

    #[track_caller]
    fn means(ending: Ending, asked: Option<Asked>, wrapper: bool, expected: TurnEnd) {
        assert_eq!(judge(&report(ending, asked), wrapper).0, expected);
    }

    #[test]
    fn code_0_is_a_reply() {
        means(Ending::Code(0), None, false, TurnEnd::Replied);
    }

    #[test]
    fn other_codes_signals_and_stalls_are_failed_turns() {
        for code in [1, 2, 12, 75, 77, 90, 91, 92, 130, 145, 255] {
            means(Ending::Code(code), None, false, TurnEnd::Failed);
        }
        for number in [1, 2, 6, 9, 11, 15] {
            means(
                Ending::Signal {
                    number,
                    core: false,
                },
                None,
                false,
                TurnEnd::Failed,
            );
        }
        means(Ending::Code(0), Some(Asked::Stall), false, TurnEnd::Failed);
        means(Ending::Lost, None, false, TurnEnd::Failed);
    }

    #[test]
    fn what_cannot_be_started_for_good_and_code_78_end_the_handler_too() {
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::NOEXEC] {
            let ending = Ending::NeverStarted {
                errno: errno.raw_os_error(),
            };
            means(ending, None, false, TurnEnd::FailedForGood);
        }
        means(Ending::Code(78), None, false, TurnEnd::FailedForGood);
    }

    #[test]
    fn codes_126_and_127_speak_of_the_command_only_from_a_shell() {
        for code in [126, 127] {
            means(Ending::Code(code), None, true, TurnEnd::FailedForGood);
            means(Ending::Code(code), None, false, TurnEnd::Failed);
        }
    }

    #[test]
    fn code_69_and_a_full_machine_leave_the_message_unread() {
        means(Ending::Code(69), None, false, TurnEnd::Unavailable);
        for errno in [Errno::AGAIN, Errno::NOMEM, Errno::MFILE] {
            let ending = Ending::NeverStarted {
                errno: errno.raw_os_error(),
            };
            means(ending, None, false, TurnEnd::NoResources);
        }
    }

    #[test]
    fn a_message_too_long_for_a_command_line_fails_alone() {
        means(
            Ending::NeverStarted {
                errno: Errno::TOOBIG.raw_os_error(),
            },
            None,
            false,
            TurnEnd::Failed,
        );
    }

    #[test]
    fn any_ending_after_an_interrupt_is_the_interrupt_and_after_a_stop_the_stop() {
        for ending in [
            Ending::Code(0),
            Ending::Code(130),
            Ending::Signal {
                number: 2,
                core: false,
            },
        ] {
            means(ending, Some(Asked::Interrupt), false, TurnEnd::Interrupted);
            means(
                ending,
                Some(Asked::Stop),
                false,
                TurnEnd::CutShort { shown_output: true },
            );
        }
    }

    #[test]
    fn shells_are_known_by_their_file_name() {
        for (program, expected) in [
            ("bash", true),
            ("/bin/sh", true),
            ("claude", false),
            ("/opt/sh/agent", false),
        ] {
            let program = Program::Argv(vec![OsString::from(program)]);
            assert_eq!(is_wrapper(&program), expected, "{program:?}");
        }
    }
}
