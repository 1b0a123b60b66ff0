//! `wg session check`: sessions and chats that do not fit together, and locks that nobody holds any more.

mod lock;

use std::collections::BTreeMap;

use session_lock::{Held, HeldReason, Holder, Inspection};

use super::target::Target;
use super::{look, takeover_command};
use crate::cli::args::session::Check;
use crate::cli::context::Context;
use crate::cli::finding::{self, Finding, Fix, Weight};
use crate::failure::Outcome;
use crate::store::graph::{ChatId, Graph};
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
        findings.extend(lock::finding(target, fix)?);
    }
    findings.extend(strangers(&targets)?);
    findings.extend(retired(&Graph::load(workspace)?.graph, &targets)?);
    if let Some(registry) = Registry::load(workspace)? {
        findings.extend(registered(workspace, &registry, fix));
    }
    Ok(findings)
}

/// Sessions of chats that are not in the graph: their histories are kept, and nobody serves them. And second sessions of
/// chats that are: nobody reads what is in them.
fn strangers(targets: &[Target]) -> Outcome<Vec<Finding>> {
    let mut findings = Vec::new();
    for target in targets.iter().filter(|target| target.chat.is_none()) {
        let name = target.dir.file_name().unwrap_or_default();
        let Some(chat) = ChatId::from_any_form(&name.to_string_lossy()) else {
            continue;
        };
        let dir = target.dir.display();
        let used = targets.iter().find(|other| other.chat == Some(chat));
        let finding = if let Some(used) = used {
            let text = format!(
                "`{dir}` is a duplicate: {chat} keeps its session in `{}`, and nobody reads this one",
                used.dir.display()
            );
            Finding::new("session", Weight::Warning, text)
                .with_advice("take from it what is missed there, and remove it")
        } else {
            let text = format!("`{dir}` belongs to a chat that is not in the graph");
            Finding::new("session", Weight::Warning, text).with_advice(format!(
                "if nobody misses it: wg session rm {}",
                target.name
            ))
        };
        findings.push(finding);
        if let Some((held, holder)) = &served(target)? {
            let text = format!(
                "pid {} ({}) is an orphan: it serves `{dir}`, which no chat uses",
                holder.pid, holder.kind
            );
            let end = match used {
                // A name that means a chat leads to the session that the chat uses.
                Some(_) => format!("kill {}", holder.pid),
                None => takeover_command(&target.name, Some(held)),
            };
            let end = format!("end it: {end}");
            findings.push(Finding::new("session", Weight::Warning, text).with_advice(end));
        }
    }
    Ok(findings)
}

/// Who serves a session; of what a dead holder left its lock tells.
fn served(target: &Target) -> Outcome<Option<(Held, Holder)>> {
    let Inspection::Held(held) = look(target)? else {
        return Ok(None);
    };
    let is_left = matches!(held.reason, HeldReason::Inherited { .. });
    let holder = held.holder.clone().filter(|_| !is_left);
    Ok(holder.map(|holder| (held, holder)))
}

/// Sessions of chats that are to be served no more, and yet are.
fn retired(graph: &Graph, targets: &[Target]) -> Outcome<Vec<Finding>> {
    let mut findings = Vec::new();
    for chat in graph.chats().iter().filter(|chat| !chat.live) {
        let Some(target) = targets.iter().find(|target| target.chat == Some(chat.id)) else {
            continue;
        };
        if let Some((held, holder)) = &served(target)? {
            let state = if chat.archived {
                "archived"
            } else {
                chat.status.as_str()
            };
            let text = format!(
                "{} is {state}, and pid {} ({}) still serves it",
                target.name, holder.pid, holder.kind
            );
            let advice = format!(
                "wait until it has left, or end it: {}",
                takeover_command(&target.name, Some(held))
            );
            findings.push(Finding::new("session", Weight::Warning, text).with_advice(advice));
        }
    }
    Ok(findings)
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
