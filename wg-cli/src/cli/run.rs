//! `wg run`: one command in the foreground under the same supervisor.

use std::cell::Cell;
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
    let orphans = Cell::new(0_u32);
    foreground::run(&options, move |event| {
        if events {
            crate::report::event_to_stderr(event);
        } else if !quiet {
            for line in lines(event, &orphans) {
                crate::report::aside(&format!("wg run: {line}"));
            }
        }
    })
}

/// So many of a run's leftovers are told one by one; a command may leave thousands.
const ORPHANS_TOLD: u32 = 3;

/// What a person is told at an event; `orphans` counts those of a run so far.
fn lines(event: &EventLine, orphans: &Cell<u32>) -> Vec<String> {
    if event.event == EventKind::OrphanEnded {
        orphans.set(orphans.get() + 1);
        if orphans.get() > ORPHANS_TOLD {
            return Vec::new();
        }
    }
    let mut lines = Vec::new();
    // Every event but another of its kind is the end of the list.
    if event.event != EventKind::OrphanEnded
        && let Some(more @ 1..) = orphans.take().checked_sub(ORPHANS_TOLD)
    {
        lines.push(format!("ended {more} more that it left behind"));
    }
    if is_worth_a_line(event) {
        lines.push(event.text.clone());
    }
    lines
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
