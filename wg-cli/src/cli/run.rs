//! `wg run`: one command in the foreground under the same supervisor.

use std::cell::RefCell;
use std::path::Path;

use supervisor::{Policy, Restart, ValidPolicy};

use super::args::{RestartWhen, Run};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::foreground::{self, RunOptions};
use crate::names::EventKind;
use crate::report::Report;
use crate::store::events::EventLine;
use crate::store::policy_file;

/// Runs the command and returns the code that the process leaves with.
pub(super) fn run(report: &Report, args: &Run) -> Result<u8, Failure> {
    let options = RunOptions {
        command: args.command.clone(),
        restart: match args.restart {
            RestartWhen::OnFailure => Restart::OnFailure,
            RestartWhen::Always => Restart::Always,
            RestartWhen::Never => Restart::Never,
        },
        policy: policy(args.policy.as_deref(), args.max_crashes)?,
    };
    // Under `--json` every line of stderr is a document, and the events are what there is to say.
    let (quiet, events) = (report.is_quiet(), args.events || report.is_json());
    let told = RefCell::new(Told::default());
    foreground::run(&options, move |event| {
        if events {
            crate::report::event_to_stderr(event);
        } else if !quiet {
            for line in told.borrow_mut().lines(event) {
                crate::report::aside(&format!("wg run: {line}"));
            }
        }
    })
}

/// So many of a run's leftovers are told one by one; a command may leave thousands.
const ORPHANS_TOLD: u32 = 3;

/// What a person was told so far.
#[derive(Default)]
struct Told {
    /// How many of this run's leftovers.
    orphans: u32,
    /// Why there was no start, if that was the last thing.
    no_start: Option<String>,
}

impl Told {
    /// What a person is told at an event.
    fn lines(&mut self, event: &EventLine) -> Vec<String> {
        if event.event == EventKind::OrphanEnded {
            self.orphans += 1;
            if self.orphans > ORPHANS_TOLD {
                return Vec::new();
            }
        }
        let mut lines = Vec::new();
        // Every event but another of its kind is the end of the list.
        if event.event != EventKind::OrphanEnded
            && let Some(more @ 1..) = std::mem::take(&mut self.orphans).checked_sub(ORPHANS_TOLD)
        {
            lines.push(format!("ended {more} more that it left behind"));
        }
        // A start that was given up on at once has the same reason.
        let again = self.no_start.take().is_some_and(|why| {
            event.event == EventKind::Parked && why.ends_with(reason(&event.text))
        });
        if event.event == EventKind::SpawnFailed {
            self.no_start = Some(event.text.clone());
        }
        if is_worth_a_line(event) && !again {
            lines.push(event.text.clone());
        }
        lines
    }
}

/// What stands behind the colon of a sentence.
fn reason(text: &str) -> &str {
    text.split_once(": ").map_or(text, |(_, reason)| reason)
}

/// What a person at the terminal wants to read: what went wrong and what comes next.
fn is_worth_a_line(event: &EventLine) -> bool {
    match event.event {
        EventKind::Exited => event
            .verdict
            .as_ref()
            .is_none_or(|verdict| verdict["class"] != "success"),
        EventKind::Backoff => event.delay_ms.is_some_and(|delay| delay > 0),
        EventKind::SpawnFailed
        | EventKind::Degraded
        | EventKind::Parked
        | EventKind::MemoryWarning
        | EventKind::BudgetWarning
        | EventKind::OrphanEnded => true,
        EventKind::DaemonStarted
        | EventKind::Adopted
        | EventKind::Held
        | EventKind::HolderGone
        | EventKind::Spawned
        | EventKind::Unparked
        | EventKind::Idle
        | EventKind::Woken
        | EventKind::TurnStarted
        | EventKind::TurnFinished
        | EventKind::TurnInterrupted
        | EventKind::LaneBlocked
        | EventKind::LaneReclaimed
        | EventKind::ReleaseRequested
        | EventKind::TakenOver
        | EventKind::Archived
        | EventKind::Purged
        | EventKind::Restored
        | EventKind::Stopped => false,
    }
}

/// The policy: that of a file's `[supervisor]` section, else the standard one, with the crash limit of the command line.
fn policy(file: Option<&Path>, max_crashes: Option<u32>) -> Result<ValidPolicy, Failure> {
    let mut policy = match file {
        Some(path) => policy_file::read(path)?,
        None => Policy::standard(),
    };
    if let Some(limit) = max_crashes {
        policy.crash_hard = limit;
    }
    policy.validate().map_err(|error| {
        Failure::new(ExitCode::Config, "the restart policy makes no sense").caused_by(error)
    })
}
