//! `wg doctor`: what is wrong with a workspace, and what would put it right.
//!
//! One check that cannot be made is a finding of its own and never the end of the others.

mod chats;
mod machine;
mod places;
mod processes;
mod settings;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::args::Doctor;
use super::context::Context;
use super::finding::{self, Finding, Fix, Weight};
use super::session::check;
use crate::agent::AgentSpec;
use crate::clock::{self, Timestamp};
use crate::failure::{Failure, Outcome};
use crate::store::StoreError;
use crate::store::config::Config;
use crate::store::files;
use crate::store::graph::{Graph, Loaded};
use crate::store::messages::{self, Side};
use crate::store::rename::Dry;
use crate::store::resolve::{self, Make};
use crate::store::service_state::ServiceState;
use crate::store::watch::DirWatch;
use crate::store::workspace::Workspace;

pub(super) fn run(cx: &Context<'_>, args: &Doctor) -> Outcome {
    let workspace = cx.workspace()?;
    let fix = Fix::from(args.fix);
    let mut findings = Vec::new();
    findings.extend(owner(&workspace));
    findings.extend(machine::room(&workspace));
    let graph_as_read = Graph::load(&workspace);
    // First: what stands in the way of one check stands in the way of its fix, too.
    let taken = places::taken(&workspace, graph_as_read.as_ref().ok(), fix);
    findings.extend(machine::foreign_files(&workspace));
    findings.extend(machine::file_system(&workspace));
    findings.extend(machine::open_to_others(&workspace, fix));
    findings.extend(service_directory(&workspace, fix));
    match service_state(&workspace, fix) {
        Ok(found) => findings.extend(found),
        Err(failure) => findings.push(unreadable("service", &failure)),
    }
    findings.extend(processes::service_stands_still(&workspace));
    findings.extend(processes::stale_socket(&workspace, fix));
    findings.extend(processes::left_behind(&workspace, fix));
    findings.extend(processes::stray_groups(&workspace, fix));
    findings.extend(kernel_watches(&workspace));
    let config = match Config::load(&workspace) {
        Ok(config) => Some(config),
        Err(failure) => {
            let advice = match failure.cure() {
                Some(cure) if is_a_cure_here(cure) => cure,
                Some(_) => "put a file in its place, or move it away for the defaults",
                None => "correct the line, then wg service reload",
            };
            findings.push(
                Finding::new("settings", Weight::Error, failure.what_and_why()).with_advice(advice),
            );
            None
        }
    };
    findings.extend(settings::misspelt_sections(&workspace));
    match graph_as_read {
        Ok(loaded) => {
            findings.extend(machine::limits(loaded.graph.chats().len()));
            findings.extend(chats::states(&workspace, &loaded, fix));
            match graph(&workspace, &loaded, config.as_ref(), fix) {
                Ok(found) => findings.extend(found),
                Err(failure) => findings.push(unreadable("graph", &failure)),
            }
        }
        Err(error) => findings.push(
            Finding::new("graph", Weight::Error, Failure::from(error).what_and_why()).with_advice(
                "put back a copy of the graph; without one nobody knows which chats there are",
            ),
        ),
    }
    findings.extend(processes::stand_still(&workspace));
    findings.extend(set_aside(&workspace));
    match check::findings(cx, &workspace, fix) {
        Ok(found) => findings.extend(found),
        Err(failure) => {
            let what = failure.what_and_why();
            // The graph and the registry have been told of.
            if !findings
                .iter()
                .any(|finding| finding.text().contains(&what))
            {
                findings.push(unreadable("sessions", &failure));
            }
        }
    }
    findings.retain(|finding| !taken.tells(finding));
    findings.splice(0..0, taken.findings);
    finding::tell(cx, &findings)
}

/// Whether a cure is more than to ask `wg doctor`.
fn is_a_cure_here(cure: &str) -> bool {
    !cure.contains("wg doctor")
}

/// A check that could not be made.
fn unreadable(check: &'static str, failure: &Failure) -> Finding {
    let finding = Finding::new(check, Weight::Error, failure.what_and_why());
    match failure.cure() {
        Some(cure) if is_a_cure_here(cure) => finding.with_advice(cure),
        Some(_) | None => finding,
    }
}

fn owner(workspace: &Workspace) -> Option<Finding> {
    let failure = workspace.check_owner().err()?;
    Some(
        Finding::new("owner", Weight::Error, failure.message())
            .with_advice(failure.cure().unwrap_or_default()),
    )
}

/// Whoever may write here can make the service run their commands.
fn service_directory(workspace: &Workspace, fix: Fix) -> Option<Finding> {
    let dir = workspace.service_dir();
    let metadata = std::fs::metadata(&dir)
        .ok()
        .filter(std::fs::Metadata::is_dir)?;
    let mode = metadata.mode() & 0o777;
    if mode.trailing_zeros() >= 6 {
        return None;
    }
    let text = format!("`{}` is open to others (mode {mode:o})", dir.display());
    Some(
        Finding::new("service directory", Weight::Warning, text).fixed_by(
            "close it (mode 700)",
            fix,
            || {
                std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700))
                    .map_err(|error| StoreError::io("close", &dir)(error).into())
            },
        ),
    )
}

/// A service that was killed leaves its state behind. Nobody believes it, because its start time no longer matches.
fn service_state(workspace: &Workspace, fix: Fix) -> Outcome<Option<Finding>> {
    let state = match ServiceState::read(workspace) {
        Ok(Some(state)) => state,
        Ok(None) => return Ok(None),
        Err(error @ StoreError::Corrupt { .. }) => {
            return Ok(Some(damaged_state(workspace, error, fix)));
        }
        Err(error) => return Err(error.into()),
    };
    if state.is_alive() {
        return Ok(None);
    }
    let text = format!(
        "the service (pid {}) has ended without tidying up",
        state.pid
    );
    Ok(Some(Finding::new("service", Weight::Note, text).fixed_by(
        "remove what it left, as the next start does",
        fix,
        || Ok(state.remove(workspace)?),
    )))
}

/// A service that runs is known by its lock, so what its state should say is known, too.
fn damaged_state(workspace: &Workspace, error: StoreError, fix: Fix) -> Finding {
    let holder = session_lock::inspect(&workspace.service_dir())
        .ok()
        .filter(session_lock::Inspection::is_held)
        .and_then(|found| found.holder().cloned());
    let what = match &holder {
        Some(_) => "move it aside to `*.corrupt`, and write it anew for the service that runs",
        None => "move it aside to `*.corrupt`; the next start writes its own",
    };
    let text = Failure::from(error).what_and_why();
    Finding::new("service", Weight::Error, text).fixed_by(what, fix, || {
        files::set_aside(&workspace.state_path())?;
        if let Some(holder) = holder {
            let since = Timestamp::parse(&holder.since).unwrap_or_else(clock::now);
            ServiceState::of_running(holder.pid, workspace.socket_path()?, since)
                .write(workspace)?;
        }
        Ok(())
    })
}

/// Without them everything still works, once a second.
fn kernel_watches(workspace: &Workspace) -> Option<Finding> {
    let watch = DirWatch::new(workspace.root()).ok()?;
    let why = watch.polling()?.to_owned();
    Some(
        Finding::new("kernel watches", Weight::Warning, why)
            .with_advice("raise fs.inotify.max_user_instances"),
    )
}

fn graph(
    workspace: &Workspace,
    loaded: &Loaded,
    config: Option<&Config>,
    fix: Fix,
) -> Outcome<Vec<Finding>> {
    let mut findings: Vec<Finding> = loaded
        .told()
        .into_iter()
        .map(|warning| {
            Finding::new("graph", Weight::Warning, warning)
                .with_advice("correct the line, or take it out; it is never rewritten")
        })
        .collect();
    let legacy = loaded.graph.clone().rename_legacy(Dry::Yes)?;
    if !legacy.is_empty() {
        let text = format!(
            "{} task(s) have the names of an earlier version",
            legacy.renamed_ids.len().max(legacy.renamed_tags)
        );
        findings.push(Finding::new("names", Weight::Warning, text).fixed_by(
            "rename them, as the service does when it starts",
            fix,
            || {
                Graph::edit(workspace, |graph| graph.rename_legacy(Dry::No))?;
                Ok(())
            },
        ));
    }
    for chat in loaded.graph.chats().iter().filter(|chat| chat.live) {
        if let Some(Err(failure)) = config.map(|config| AgentSpec::for_chat(config, chat)) {
            findings.push(Finding::new(
                "agent",
                Weight::Error,
                format!("{}: {failure}", chat.id),
            ));
        }
        // A registry that cannot be read is a finding of its own.
        let Ok(dir) = resolve::session_dir(workspace, chat.id, Make::No) else {
            continue;
        };
        findings.extend(chats::not_rising(&dir, chat.id, fix));
        for side in [Side::Inbox, Side::Outbox] {
            findings.extend(chats::torn(&dir, side, chat.id, fix));
            findings.extend(chats::too_high(&dir, side, chat.id, fix));
            findings.extend(bad_lines(&dir, side, chat.id));
        }
    }
    findings.extend(chats::registry(workspace));
    Ok(findings)
}

fn bad_lines(dir: &Path, side: Side, chat: crate::store::graph::ChatId) -> Option<Finding> {
    let text = match messages::read_after(dir, side, 0) {
        Ok(read) if read.bad_lines == 0 => return None,
        Ok(read) => format!(
            "{} line(s) of the {} of {chat} are no messages",
            read.bad_lines,
            side.as_str()
        ),
        Err(error) => Failure::from(error).what_and_why(),
    };
    Some(
        Finding::new("messages", Weight::Warning, text)
            .with_advice("look at the file; the other messages are not affected"),
    )
}

/// Files that were moved aside because they could not be read.
fn set_aside(workspace: &Workspace) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut waiting = vec![workspace.root().to_owned()];
    while let Some(dir) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_dir {
                waiting.push(entry.path());
            } else if entry.file_name().to_string_lossy().contains(".corrupt") {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
        .iter()
        .map(|path| {
            let text = format!(
                "`{}` was moved aside because it could not be read",
                path.display()
            );
            Finding::new("set aside", Weight::Note, text).with_advice("look at it, then remove it")
        })
        .collect()
}
