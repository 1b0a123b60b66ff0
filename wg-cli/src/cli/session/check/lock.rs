//! What can be said about the lock of one session: who left it, who has it without right, and what stands in its place.

use std::path::Path;
use std::time::Duration;

use session_lock::{
    AcquireError, Held, HeldReason, Holder, Inspection, Kind, Liveness, SessionLock,
};

use super::super::target::Target;
use super::super::{HolderView, look};
use crate::cli::finding::{Finding, Fix, Weight};
use crate::clock::{self, Timestamp};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::process_start;
use crate::store::files;

/// Two clocks that tell the same instant may differ by as much.
const CLOCK_SLACK: Duration = Duration::from_secs(2);

pub(super) fn finding(target: &Target, fix: Fix) -> Outcome<Option<Finding>> {
    Ok(match look(target)? {
        Inspection::Stale { holder, liveness } => {
            Some(swept(target, stale(&target.name, &holder, liveness), fix))
        }
        Inspection::Corrupt { path, node: None } => Some(swept(
            target,
            format!(
                "`{}` is no record of a lock, and counts as none",
                path.display()
            ),
            fix,
        )),
        Inspection::Corrupt {
            path,
            node: Some(node),
        } => {
            let text = format!(
                "`{}` is a {node}, not a regular file, and the session cannot be locked",
                path.display()
            );
            let finding = Finding::new("lock", Weight::Error, text);
            // A link to something is somebody's, who knows why.
            Some(if path.is_symlink() && path.exists() {
                finding.with_advice("remove it")
            } else {
                finding.fixed_by("move it aside to `*.corrupt`", fix, || {
                    Ok(files::set_aside(&path).map(drop)?)
                })
            })
        }
        Inspection::Held(held) => held_oddly(target, &held),
        // Free, or something that only a later version knows.
        Inspection::Free | _ => None,
    })
}

/// What a dead holder left. Nobody has to tidy up after it: the next one takes it over.
fn stale(name: &str, holder: &Holder, liveness: Liveness) -> String {
    let who = HolderView::of(holder).to_text(clock::now());
    let pid = holder.pid;
    let why = match liveness {
        Liveness::Zombie => "which has ended, though its parent has not noticed yet".to_owned(),
        Liveness::Reused => {
            format!(
                "which has ended; its number was given to another process since{}",
                named(pid)
            )
        }
        Liveness::Rebooted => "which ended with the last start of this machine".to_owned(),
        Liveness::Left => "which let go of it".to_owned(),
        Liveness::OtherNamespace => "which ran in a container that is gone".to_owned(),
        Liveness::Dead | Liveness::Alive | Liveness::OtherHost | Liveness::Unknown | _ => {
            "which is gone".to_owned()
        }
    };
    format!("the lock of {name} was left by {who}, {why}")
}

/// A lock that is held, but not by a live handler that proves who it is.
fn held_oddly(target: &Target, held: &Held) -> Option<Finding> {
    let name = &target.name;
    let holder = held.holder.as_ref();
    let who = holder.map_or_else(
        || "a process that is not named".to_owned(),
        |holder| HolderView::of(holder).to_text(clock::now()),
    );
    let takeover = format!("wg session takeover {name}");
    match &held.reason {
        HeldReason::Inherited { pids } => {
            let pids: Vec<String> = pids
                .iter()
                .map(|pid| format!("pid {pid}{}", named(*pid)))
                .collect();
            let text = format!(
                "the lock of {name} is orphaned: {who} is gone, and what it started still has it: {}",
                if pids.is_empty() {
                    "nobody that can be seen".to_owned()
                } else {
                    pids.join(", ")
                }
            );
            let advice = format!("wait until that has ended, or end it: {takeover}");
            Some(Finding::new("lock", Weight::Warning, text).with_advice(advice))
        }
        HeldReason::Foreign => Some(foreign(target, holder?, &who)),
        HeldReason::OtherHost | HeldReason::OtherNamespace => {
            let text = format!("{name} is held by {who}: {}", held.reason);
            let advice = "look there; from here nobody can tell whether it still runs";
            Some(Finding::new("lock", Weight::Note, text).with_advice(advice))
        }
        HeldReason::Unknown => {
            let text = format!("{name} is held by {who}: {}", held.reason);
            let advice = format!("if it does not run: {takeover} --allow-unproven");
            Some(Finding::new("lock", Weight::Warning, text).with_advice(advice))
        }
        // A handler at its work; one that is writing its record; and what only a later version knows.
        HeldReason::Guarded
        | HeldReason::Unguarded
        | HeldReason::Initialising
        | HeldReason::ThisProcess
        | HeldReason::Unsettled
        | _ => None,
    }
}

/// Another tool's record: it names a number alone, so it holds as long as any process has that number.
fn foreign(target: &Target, holder: &Holder, who: &str) -> Finding {
    let (name, pid) = (&target.name, holder.pid);
    let record = target.dir.join(".handler.pid");
    if started_after(pid, &holder.since) {
        let text = format!(
            "{name} counts as held by {who}, but that process{} started after the record was written: most likely its \
             number was given to another one",
            named(pid)
        );
        // Clocks can be set, so this is for a person to decide.
        return Finding::new("lock", Weight::Warning, text)
            .with_advice(format!("if it is no handler: rm {}", quoted(&record)));
    }
    let text = format!(
        "{name} is held by {who}{}, another tool's process, which proves its right by its number alone",
        named(pid)
    );
    Finding::new("lock", Weight::Note, text)
}

/// Whether the process with that number started after `since`, as far as the clocks can be trusted.
fn started_after(pid: u32, since: &str) -> bool {
    let (Some(started), Some(since)) = (process_start::of(pid), Timestamp::parse(since)) else {
        return false;
    };
    started.since(since) > CLOCK_SLACK
}

/// ` (sleep)`, where the system shows what the process runs.
fn named(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match name.trim_end() {
        "" => String::new(),
        name => format!(" ({name})"),
    }
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// A lock that nobody holds: taken over and released, as the next handler would do it.
fn swept(target: &Target, text: String, fix: Fix) -> Finding {
    let failed = |doing: &str| {
        Failure::new(
            ExitCode::System,
            format!("failed to {doing} {}", target.name),
        )
    };
    Finding::new("lock", Weight::Note, text).fixed_by(
        "take it over and release it, as the next handler does",
        fix,
        || match SessionLock::try_acquire(&target.dir, Kind::Adapter) {
            Ok(lock) => lock
                .release()
                .map(drop)
                .map_err(|error| failed("release").caused_by(error)),
            // Whoever takes it in this moment is welcome to it.
            Err(AcquireError::Held { .. }) => Ok(()),
            Err(error) => Err(failed("lock").caused_by(error)),
        },
    )
}
