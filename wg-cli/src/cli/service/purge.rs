//! `wg service purge-chats`: every chat is retired, every handler ended, every history kept.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::cli::args::service::Purge;
use crate::cli::context::Context;
use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::ops::{self, Caller, PurgeOptions, PurgeReport};
use crate::store::workspace::Workspace;

/// From how many chats on a bar is worth drawing.
const BAR_FROM: usize = 20;

pub(in crate::cli) fn run(cx: &Context<'_>, args: &Purge) -> Outcome {
    let workspace = cx.workspace()?;
    let options = PurgeOptions {
        include_active: !args.keep_active,
        include_self: args.include_self,
        dry_run: args.dry_run,
        force_unproven: args.force_unproven,
        caller: Caller::from_env(),
    };
    let report = purge_within(cx, workspace, options, args.wait)?;
    let text = || to_text(&report, args.dry_run);
    // What would be done, and what could not be, is never left out.
    if args.dry_run || !report.errors.is_empty() {
        cx.report.answer(&report, text)?;
    } else {
        cx.report.done(&report, text)?;
    }
    Ok(report.exit_code())
}

/// What the thread that purges tells the one that waits for it.
enum Told {
    Progress { done: usize, total: usize },
    Ended(Outcome<PurgeReport>),
}

/// Purges in a thread of its own, so that somebody who has no more time can leave.
fn purge_within(
    cx: &Context<'_>,
    workspace: Workspace,
    options: PurgeOptions,
    wait: Option<Duration>,
) -> Outcome<PurgeReport> {
    let deadline = wait.and_then(|wait| clock::steady().checked_add(wait));
    let (tell, told) = mpsc::channel();
    let purge = move || {
        // Nobody listens any more where the time was over.
        let mut progress = |done, total| drop(tell.send(Told::Progress { done, total }));
        let report = ops::purge(&workspace, &options, &mut progress);
        drop(tell.send(Told::Ended(report)));
    };
    thread::Builder::new()
        .name("purge".to_owned())
        .spawn(purge)
        .map_err(|error| {
            Failure::new(ExitCode::System, "failed to start a thread").caused_by(error)
        })?;
    loop {
        let next = match deadline {
            None => told.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => {
                told.recv_timeout(deadline.saturating_duration_since(clock::steady()))
            }
        };
        match next {
            Ok(Told::Progress { done, total }) if total >= BAR_FROM => {
                cx.report.progress("purging", done, total);
            }
            Ok(Told::Progress { .. }) => {}
            Ok(Told::Ended(report)) => return report,
            Err(RecvTimeoutError::Timeout) => {
                return Err(
                    Failure::new(ExitCode::TimedOut, "the purge has not ended in time")
                        .with_cure("wg service purge-chats again waits for the rest"),
                );
            }
            // It panicked, and has said so.
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::new(ExitCode::Bug, "the purge broke off"));
            }
        }
    }
}

/// One summary line, and one line for each chat that is not as asked for.
fn to_text(report: &PurgeReport, dry_run: bool) -> String {
    let verb = if dry_run { "Would purge" } else { "Purged" };
    let mut summary = vec![format!("{verb} {} chat(s)", report.purged.len())];
    summary.extend(report.ended.in_words());
    if !report.skipped.is_empty() {
        summary.push(format!("skipped {}", report.skipped.len()));
    }
    let mut lines = vec![summary.join(", ")];
    lines.extend(
        report
            .skipped
            .iter()
            .map(|skipped| format!("  skipped chat-{}: {}", skipped.chat_id, skipped.reason)),
    );
    lines.extend(report.errors.iter().map(|left| {
        let pid = left
            .pid
            .map(|pid| format!(" pid {pid}"))
            .unwrap_or_default();
        let what = if left.is_held() {
            "still held"
        } else {
            "failed"
        };
        format!("  {what}: chat-{}{pid}: {}", left.chat_id, left.error)
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::{ExitCode, to_text};
    use crate::ops::{ChatName, Ended, PurgeError, PurgeReport, Skipped};

    #[test]
    fn the_summary_counts_and_names_every_chat_that_is_not_as_asked_for() {
        let report = PurgeReport {
            purged: vec![ChatName {
                chat_id: 1,
                task_id: ".chat-1".into(),
            }],
            skipped: vec![Skipped {
                chat_id: 2,
                reason: "caller chat".into(),
            }],
            errors: vec![
                PurgeError {
                    chat_id: 1,
                    pid: Some(42),
                    error: "not proven ours".into(),
                    code: ExitCode::Held.code(),
                },
                PurgeError {
                    chat_id: 3,
                    pid: None,
                    error: "no room".into(),
                    code: ExitCode::System.code(),
                },
            ],
            ended: Ended::of(1, 2),
        };
        assert_eq!(
            to_text(&report, false),
            "Purged 1 chat(s), 1 handler and 2 other processes ended, skipped 1\n  skipped chat-2: caller chat\n  still held: chat-1 pid 42: not proven ours\n  failed: chat-3: no room"
        );
        assert_eq!(
            report.exit_code(),
            ExitCode::System,
            "what no retry mends goes before what one may"
        );
        assert_eq!(to_text(&PurgeReport::default(), false), "Purged 0 chat(s)");
        assert_eq!(
            to_text(&PurgeReport::default(), true),
            "Would purge 0 chat(s)"
        );
    }
}
