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
    findings.extend(strangers(workspace, &targets)?);
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

/// Directories below `chat/` that belong to no chat and no session.
fn strangers(workspace: &Workspace, targets: &[Target]) -> Outcome<Vec<Finding>> {
    let root = workspace.chat_root();
    let Ok(entries) = std::fs::read_dir(&root) else {
        return Ok(Vec::new());
    };
    let known = known_directories(workspace)?;
    let mut findings = Vec::new();
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == ".archive"
            || known.contains(&name)
            || targets.iter().any(|target| target.dir == path)
        {
            continue;
        }
        let text = format!("`{}` belongs to no chat and no session", path.display());
        findings.push(
            Finding::new("session", Weight::Warning, text)
                .with_advice("if nobody misses it: wg session rm, or remove the directory"),
        );
    }
    Ok(findings)
}

/// Directories of sessions that the registry names.
fn known_directories(workspace: &Workspace) -> Outcome<Vec<String>> {
    Ok(Registry::load(workspace)?
        .map(|registry| registry.sessions().map(|session| session.uuid).collect())
        .unwrap_or_default())
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
