//! Processes of this workspace that no live handler answers for: what dead handlers left behind.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use supervisor::tree::{self, EndError, Process};

use super::groups::Left;
use super::{boot, reap};
use crate::lock_holders;
use crate::store::chat_state::ChatRecord;
use crate::store::graph::ChatId;
use crate::store::resolve::{self, Make};
use crate::store::workspace::Workspace;

/// How long one of them may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process that a dead handler left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Its number.
    pub pid: u32,
    /// Its command name.
    pub name: String,
    /// The chat that it was started for.
    pub chat: ChatId,
    start: u64,
}

/// Finds them: a process that carries this workspace's marker, and whose handler is not the one that has the session now.
///
/// While a service runs, the handler that it started last may not have its session yet and is left out.
///
/// # Errors
///
/// The processes cannot be listed.
pub fn orphans(workspace: &Workspace, service_runs: bool) -> io::Result<Vec<Orphan>> {
    let (carriers, _) = tree::carriers(&reap::marker(workspace, None))?;
    let mut found = Vec::new();
    for Process { pid, start, name } in carriers {
        let Some((chat, nonce)) = reap::marker_of(pid).as_deref().and_then(parts) else {
            continue;
        };
        if belongs_to_somebody(workspace, chat, &nonce, service_runs)
            || lock_holders::holds_a_lock(pid)
        {
            continue;
        }
        found.push(Orphan {
            pid,
            name,
            chat,
            start,
        });
    }
    in_groups(workspace, service_runs, &mut found)?;
    Ok(found)
}

/// Finds those that show no marker any more and are in the control group of a dead handler, but not a daemon or a multiplexer that
/// was started from inside, and what is below that.
fn in_groups(workspace: &Workspace, service_runs: bool, found: &mut Vec<Orphan>) -> io::Result<()> {
    for (chat, record) in boot::recorded(workspace)? {
        let Some(spawn) = record.spawn else { continue };
        let Some(left) = Left::of(&spawn, None) else {
            continue;
        };
        if belongs_to_somebody(workspace, chat, &spawn.nonce, service_runs) {
            continue;
        }
        let (holders, members): (Vec<u32>, Vec<u32>) = left
            .members(workspace)
            .into_iter()
            .partition(|pid| lock_holders::holds_a_lock(*pid));
        let mut spared = BTreeSet::new();
        for holder in holders {
            spared.extend(
                tree::descendants(holder)?
                    .into_iter()
                    .map(|process| process.pid),
            );
        }
        for pid in members {
            let known = found.iter().any(|orphan| orphan.pid == pid);
            if known || spared.contains(&pid) {
                continue;
            }
            if let Some(Process { pid, start, name }) = tree::process(pid) {
                found.push(Orphan {
                    pid,
                    name,
                    chat,
                    start,
                });
            }
        }
    }
    Ok(())
}

/// The chat and the nonce of a marker.
fn parts(marker: &str) -> Option<(ChatId, String)> {
    let mut parts = marker.split('/').skip(1);
    let chat = parts.next()?.strip_prefix("chat-")?.parse().ok()?;
    Some((ChatId(chat), parts.next()?.to_owned()))
}

fn belongs_to_somebody(
    workspace: &Workspace,
    chat: ChatId,
    nonce: &str,
    service_runs: bool,
) -> bool {
    let holder = resolve::session_dir(workspace, chat, Make::No)
        .ok()
        .and_then(|dir| session_lock::inspect(&dir).ok())
        .filter(session_lock::Inspection::is_held)
        .and_then(|found| found.holder().map(|holder| holder.pid));
    let of_holder = holder.and_then(reap::marker_of).as_deref().and_then(parts);
    if of_holder.is_some_and(|(_, holders)| holders == nonce) {
        return true;
    }
    // A state that cannot be read proves nothing against anybody.
    let started_last = ChatRecord::load(workspace, chat).map_or(true, |record| {
        record.spawn.is_some_and(|spawn| spawn.nonce == nonce)
    });
    service_runs && started_last
}

/// Ends one, with everything below it; returns whether it is gone.
///
/// # Errors
///
/// The processes cannot be listed.
pub fn end(orphan: &Orphan) -> Result<bool, EndError> {
    let leader = Some((orphan.pid, orphan.start));
    let report = tree::end(leader, None, PATIENCE, &mut lock_holders::holds_a_lock)?;
    Ok(report.survivors.is_empty())
}
