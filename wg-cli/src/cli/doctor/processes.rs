//! What a service and its handlers left behind when they were killed.

use crate::cli::finding::{Finding, Fix, Weight};
use crate::daemon::groups::{self, Stray};
use crate::daemon::{local, orphans};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::{Client, ConnectError};
use crate::ops::ChatRow;
use crate::standstill::{self, Standstill};
use crate::store::StoreError;
use crate::store::files;
use crate::store::graph::ChatId;
use crate::store::workspace::Workspace;

/// Whether a service holds this workspace.
fn service_runs(workspace: &Workspace) -> bool {
    session_lock::inspect(&workspace.service_dir()).is_ok_and(|found| found.is_held())
}

/// A service that a signal or a debugger has stopped.
pub(super) fn service_stands_still(workspace: &Workspace) -> Option<Finding> {
    let daemon = standstill::of_service(&workspace.service_dir())?;
    Some(Finding::new("service", Weight::Error, &daemon.text).with_advice(daemon.advice()))
}

/// Whoever serves a chat and stands still, or has something below that does. Somebody may have meant it, so nothing is mended.
pub(super) fn stand_still(workspace: &Workspace) -> Vec<Finding> {
    // A graph that cannot be read is a finding of its own.
    let rows = local::list_chats(workspace).unwrap_or_default();
    let of_row = |row: ChatRow| {
        let chat = ChatId(row.chat_id);
        let told = move |one: Standstill| {
            let text = format!("{chat}: {}", one.text);
            Finding::new("process", Weight::Error, text).with_advice(one.advice())
        };
        row.stands_still.into_iter().map(told)
    };
    rows.into_iter().flat_map(of_row).collect()
}

/// A socket at which nobody listens any more.
pub(super) fn stale_socket(workspace: &Workspace, fix: Fix) -> Option<Finding> {
    let socket = workspace.socket_path().ok()?;
    if socket.symlink_metadata().is_err() || service_runs(workspace) {
        return None;
    }
    if socket.is_dir() && !socket.is_symlink() {
        let text = format!(
            "`{}` is a directory, and no service can listen there",
            socket.display()
        );
        return Some(Finding::new("socket", Weight::Error, text).fixed_by(
            "move it aside to `*.corrupt`",
            fix,
            || Ok(files::set_aside(&socket).map(drop)?),
        ));
    }
    // Its lock may be damaged, and the service lives: then somebody is there.
    if !matches!(Client::connect(workspace), Err(ConnectError::NotRunning)) {
        return None;
    }
    let text = format!("nobody listens at `{}` any more", socket.display());
    Some(Finding::new("socket", Weight::Note, text).fixed_by(
        "remove it, as the next start does",
        fix,
        || {
            // A service that started meanwhile has made its own.
            if service_runs(workspace) {
                return Ok(());
            }
            match std::fs::remove_file(&socket) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(StoreError::io("remove", &socket)(error).into())
                }
                _ => Ok(()),
            }
        },
    ))
}

/// Processes of dead handlers.
pub(super) fn left_behind(workspace: &Workspace, fix: Fix) -> Vec<Finding> {
    let found = match orphans::orphans(workspace, service_runs(workspace)) {
        Ok(found) => found,
        Err(error) => {
            let text = format!("the processes cannot be looked at: {error}");
            return vec![Finding::new("orphan", Weight::Warning, text)];
        }
    };
    let tell = |orphan: orphans::Orphan| {
        let text = format!(
            "`{}` (pid {}) was left behind by a dead handler of {}",
            orphan.name, orphan.pid, orphan.chat
        );
        Finding::new("orphan", Weight::Warning, text).fixed_by(
            "end it, with everything below it",
            fix,
            || match orphans::end(&orphan) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Failure::new(
                    ExitCode::System,
                    format!("pid {} does not end", orphan.pid),
                )),
                Err(error) => Err(Failure::new(
                    ExitCode::System,
                    "failed to look at the processes",
                )
                .caused_by(error)),
            },
        )
    };
    found.into_iter().map(tell).collect()
}

/// Control groups of dead handlers, which the next start would remove, or let go on.
pub(super) fn stray_groups(workspace: &Workspace, fix: Fix) -> Vec<Finding> {
    if service_runs(workspace) {
        return Vec::new();
    }
    let tell = |stray: Stray| {
        let dir = stray.dir().display();
        let (weight, text, what) = match &stray {
            Stray::Empty(_) => (
                Weight::Note,
                format!("the control group `{dir}` of a dead handler is empty"),
                "remove it, as the next start does",
            ),
            Stray::Frozen(_) => (
                Weight::Error,
                format!(
                    "who is in the control group `{dir}` stands still: a service was killed while it ended them"
                ),
                "let them go on",
            ),
        };
        Finding::new("control group", weight, text).fixed_by(what, fix, || {
            // A service that started meanwhile looks after them.
            if service_runs(workspace) {
                return Ok(());
            }
            stray.mend().map_err(|error| {
                let failed = format!("failed to mend `{}`", stray.dir().display());
                Failure::new(ExitCode::System, failed).caused_by(error)
            })
        })
    };
    groups::strays(workspace).into_iter().map(tell).collect()
}
