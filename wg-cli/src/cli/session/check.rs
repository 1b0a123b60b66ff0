//! `wg session check`: sessions and chats that do not fit together, and locks that nobody holds any more.

use std::collections::BTreeMap;

use session_lock::{Inspection, Kind, SessionLock};

use super::look;
use super::target::Target;
use crate::cli::args::session::Check;
use crate::cli::context::Context;
use crate::cli::finding::{self, Finding, Fix, Weight};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::store::graph::ChatId;
use crate::store::registry::Registry;
use crate::store::workspace::Workspace;

pub(super) fn run(cx: &Context<'_>, args: &Check) -> Outcome {
    let workspace = cx.workspace()?;
    let findings = findings(cx, &workspace, Fix::from(args.fix))?;
    finding::tell(cx, &findings)
}

/// Everything that is found, for `wg doctor` too.
pub(in crate::cli) fn findings(
    cx: &Context<'_>,
    workspace: &Workspace,
    fix: Fix,
) -> Outcome<Vec<Finding>> {
    let targets = Target::all(cx, workspace)?;
    let mut findings = Vec::new();
    for target in &targets {
        findings.extend(lock(target, fix)?);
    }
    findings.extend(strangers(&targets));
    if let Some(registry) = Registry::load(workspace)? {
        findings.extend(registered(workspace, &registry, fix));
    }
    Ok(findings)
}

/// What a dead holder left. Nobody has to tidy up after it: the next one takes it over.
fn lock(target: &Target, fix: Fix) -> Outcome<Option<Finding>> {
    let text = match look(target)? {
        Inspection::Stale { holder, .. } => format!(
            "the lock of {} was left by pid {}, which is gone",
            target.name, holder.pid
        ),
        Inspection::Corrupt { path, node: None } => {
            format!("`{}` is no record of a lock", path.display())
        }
        Inspection::Corrupt {
            path,
            node: Some(node),
        } => {
            let text = format!(
                "`{}` is {node}, and the session cannot be locked",
                path.display()
            );
            return Ok(Some(
                Finding::new("lock", Weight::Error, text).with_advice("remove it"),
            ));
        }
        // Free, held, or something that only a later version knows.
        Inspection::Free | _ => return Ok(None),
    };
    Ok(Some(Finding::new("lock", Weight::Note, text).fixed_by(
        "take it over and release it, as the next handler does",
        fix,
        || {
            // Whoever takes it in this moment is welcome to it.
            match SessionLock::try_acquire(&target.dir, Kind::Adapter) {
                Ok(lock) => lock.release().map(drop).map_err(|error| {
                    Failure::new(
                        ExitCode::System,
                        format!("failed to release {}", target.name),
                    )
                    .caused_by(error)
                }),
                Err(session_lock::AcquireError::Held { .. }) => Ok(()),
                Err(error) => Err(Failure::new(
                    ExitCode::System,
                    format!("failed to lock {}", target.name),
                )
                .caused_by(error)),
            }
        },
    )))
}

/// Sessions of chats that are not in the graph: their histories are kept, and nobody serves them.
fn strangers(targets: &[Target]) -> Vec<Finding> {
    let of_unknown_chats = targets.iter().filter(|target| {
        let name = target
            .dir
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        target.chat.is_none() && name.is_some_and(|name| ChatId::from_any_form(&name).is_some())
    });
    of_unknown_chats
        .map(|target| {
            let text = format!(
                "`{}` belongs to a chat that is not in the graph",
                target.dir.display()
            );
            Finding::new("session", Weight::Warning, text).with_advice(format!(
                "if nobody misses it: wg session rm {}",
                target.name
            ))
        })
        .collect()
}

fn registered(workspace: &Workspace, registry: &Registry, fix: Fix) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    for session in registry.sessions().filter(|session| !session.archived) {
        let dir = workspace.chat_root().join(&session.uuid);
        if !dir.is_dir() {
            let text = format!("session {} has no directory", session.uuid);
            findings.push(Finding::new("registry", Weight::Warning, text).fixed_by(
                "make it",
                fix,
                || {
                    std::fs::create_dir_all(&dir)
                        .map_err(|error| crate::store::StoreError::io("create", &dir)(error).into())
                },
            ));
        }
        for alias in session.aliases {
            if let Some(other) = owners.insert(alias.clone(), session.uuid.clone()) {
                let text = format!(
                    "`{alias}` names both session {other} and session {}",
                    session.uuid
                );
                findings.push(
                    Finding::new("registry", Weight::Warning, text)
                        .with_advice("wg session alias rm, then add"),
                );
            }
        }
    }
    findings
}
