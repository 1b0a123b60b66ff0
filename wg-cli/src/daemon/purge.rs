//! Purge: every chat retired, every handler ended with proof, nothing else touched.
//!
//! The order is what makes it safe to be killed at any point: the sticky mark of every chat is on the disk before
//! the first process is signalled, so that no restart respawns one, and the next boot finishes what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use supervisor::{Adopted, Completion};

use super::host::unit_of;
use super::{Daemon, QUERY, reap, wishes};
use crate::chat::{Act, Happened, Wish};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::names::EventKind;
use crate::ops::{ChatName, Ended, PurgeError, PurgeOptions, PurgeReport, Skipped};
use crate::presence;
use crate::store::graph::{ChatId, Graph};
use crate::store::messages;
use crate::store::resolve::{self, Make};

/// Archives every chat and ends every handler.
pub(super) fn purge(
    daemon: &Arc<Daemon>,
    options: &PurgeOptions,
    caller: Option<ChatId>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<PurgeReport, Failure> {
    for task in Graph::load(&daemon.workspace)?.graph.chats() {
        daemon.admit(task);
    }
    let mut report = PurgeReport::default();
    let mut chosen = Vec::new();
    // Retired chats that somebody serves all the same: a purge ends those handlers too.
    let mut haunted = Vec::new();
    let chats: Vec<(ChatId, Wish, usize)> = daemon
        .chats
        .lock()
        .iter()
        .map(|(chat, entry)| (*chat, entry.core.wish(), entry.core.consumers()))
        .collect();
    for (chat, wish, consumers) in chats {
        if matches!(wish, Wish::Archived | Wish::Purged) {
            if is_held(daemon, chat) {
                haunted.push(chat);
            }
            continue;
        }
        if caller == Some(chat) && !options.include_self {
            report.skipped.push(Skipped {
                chat_id: chat.0,
                reason: "caller chat".to_owned(),
            });
        } else if !options.include_active && is_active(daemon, chat, consumers) {
            report.skipped.push(Skipped {
                chat_id: chat.0,
                reason: "active".to_owned(),
            });
        } else {
            chosen.push(chat);
        }
    }
    report.purged = chosen
        .iter()
        .map(|chat| ChatName {
            chat_id: chat.0,
            task_id: chat.task_id(),
        })
        .collect();
    if options.dry_run {
        return Ok(report);
    }
    // A handler that reads its mark before it is asked leaves by itself: it is ended by this purge all the same.
    let served: BTreeSet<ChatId> = {
        let chats = daemon.chats.lock();
        let served = |chat: &&ChatId| chats.get(chat).is_some_and(|entry| entry.handler.is_some());
        chosen.iter().filter(served).copied().collect()
    };
    let chosen = retire(daemon, chosen, &options.caller.actor, &mut report);

    let mut unproven = BTreeMap::new();
    let targets: Vec<ChatId> = chosen.iter().chain(&haunted).copied().collect();
    let mut stops: Vec<(ChatId, Completion)> = Vec::with_capacity(targets.len());
    for chat in &targets {
        take_in(daemon, *chat, options.force_unproven, &mut unproven);
        // Looked at and sent under the lock: a restore that comes meanwhile is behind the stop in the driver's queue, and one
        // that came before is left alone.
        let chats = daemon.chats.lock();
        if chats
            .get(chat)
            .is_some_and(|entry| entry.core.wish() != Wish::Run)
        {
            stops.push((*chat, daemon.driver().stop(unit_of(*chat))));
        }
    }
    for (done, (chat, stop)) in stops.into_iter().enumerate() {
        match stop.wait(daemon.stop_grace() * 3 + QUERY) {
            Ok(down) => {
                let handler = usize::from(down.was_running || served.contains(&chat));
                let others = down.report.ended.len() + daemon.end_left(chat);
                report.ended += Ended::of(handler, others);
                for survivor in down.report.survivors {
                    report.errors.push(PurgeError {
                        chat_id: chat.0,
                        pid: Some(survivor.pid),
                        error: format!("`{}` could not be ended", survivor.name),
                    });
                }
            }
            Err(e) => report.errors.push(PurgeError {
                chat_id: chat.0,
                pid: None,
                error: format!("its handler is not down yet: {e} (wg why {chat})"),
            }),
        }
        progress(done + 1, targets.len());
    }
    // Who has left meanwhile is no error, nor a dead handler whose leftovers had its lock.
    unproven.retain(|chat, _| is_held(daemon, *chat));
    for (chat, (pid, why)) in unproven {
        report.errors.push(PurgeError {
            chat_id: chat.0,
            pid,
            error: why,
        });
    }
    for chat in &chosen {
        daemon.event(
            EventKind::Purged,
            Some(*chat),
            &format!("purged by {}", options.caller.actor),
        );
    }
    Ok(report)
}

/// Marks each chat in its core and on the disk, then all of them in the graph; returns those that are marked. One that cannot
/// be marked stays as it was and is an error of the report.
fn retire(
    daemon: &Daemon,
    chosen: Vec<ChatId>,
    actor: &str,
    report: &mut PurgeReport,
) -> Vec<ChatId> {
    let mut marked = Vec::with_capacity(chosen.len());
    for chat in chosen {
        let wishing = daemon.wishing(chat);
        let _in_order = wishing.as_ref().map(|wishing| wishing.lock());
        let was = daemon
            .chats
            .lock()
            .get(&chat)
            .map(|entry| entry.core.wish());
        // The graph is written for all chats at once below, and the stop follows for all of them in parallel.
        for act in daemon.told(chat, Happened::Purge) {
            debug_assert!(matches!(act, Act::PersistWish(Wish::Purged) | Act::Stop));
        }
        match wishes::record(&daemon.workspace, chat, Wish::Purged, actor, "purged") {
            Ok(_) => marked.push(chat),
            Err(e) => {
                if let Some(was) = was {
                    daemon.act(chat, Happened::WishNotKept(was));
                }
                report.purged.retain(|name| name.chat_id != chat.0);
                report.errors.push(PurgeError {
                    chat_id: chat.0,
                    pid: None,
                    error: format!("it could not be marked as purged: {}", Failure::from(e)),
                });
            }
        }
    }
    // The marks hold even where the graph cannot be written: what they withdraw is ended all the same.
    let archived = Graph::edit(&daemon.workspace, |graph| {
        for chat in &marked {
            graph.archive(*chat, actor, "purged")?;
        }
        Ok(())
    })
    .and_then(|()| Graph::load(&daemon.workspace));
    match archived {
        Ok(loaded) => {
            for task in loaded.graph.chats() {
                daemon.admit(task);
            }
        }
        Err(e) => {
            let error = format!("purged, but not in the graph yet: {}", Failure::from(e));
            report.errors.extend(marked.first().map(|chat| PurgeError {
                chat_id: chat.0,
                pid: None,
                error,
            }));
        }
    }
    marked
}

/// Lets the driver have a live holder that is proven ours and that it does not have yet, so that the ladder can end it.
/// One that is not proven is asked to leave and remembered.
fn take_in(
    daemon: &Arc<Daemon>,
    chat: ChatId,
    force_unproven: bool,
    unproven: &mut BTreeMap<ChatId, (Option<u32>, String)>,
) {
    daemon.ensure_unit(chat);
    let Ok(dir) = resolve::session_dir(&daemon.workspace, chat, Make::No) else {
        return;
    };
    let Ok(found) = session_lock::inspect(&dir) else {
        return;
    };
    if !found.is_held() {
        return;
    }
    let Some(holder) = found.holder().cloned() else {
        return;
    };
    if daemon
        .chats
        .lock()
        .get(&chat)
        .is_some_and(|entry| entry.handler == Some(holder.pid))
    {
        return;
    }
    let identity = session_lock::ProcessIdentity::of(holder.pid).ok().flatten();
    let start = identity.and_then(|identity| identity.start_ticks);
    let proof = proven(daemon, &holder, start);
    if let Some(start) = start
        && holder.pid > 1
        && holder.pid != std::process::id()
        && (proof || (force_unproven && reap::is_our_users(holder.pid)))
    {
        match daemon
            .driver()
            .adopt(unit_of(chat), holder.pid, start, QUERY)
        {
            Ok(Adopted::Alive | Adopted::Ended) => return,
            Ok(_) => log::debug!("{chat}: the driver has a process of its own"),
            Err(e) => log::warn!("{chat}: holder {} could not be taken over: {e}", holder.pid),
        }
        return;
    }
    if let Err(e) = session_lock::request_release(&dir) {
        log::warn!("{chat}: no release could be requested: {e}");
    }
    let why = format!(
        "held by pid {} ({}), which is not proven to be a handler of this workspace; it was asked to leave \
         (end it yourself, or --force-unproven)",
        holder.pid, holder.kind
    );
    unproven.insert(chat, (Some(holder.pid), why));
}

/// Whether the holder of a session lock is proven to be a handler that this purge may end.
fn proven(daemon: &Daemon, holder: &session_lock::Holder, start: Option<u64>) -> bool {
    // Its identity stands in the guard that it holds, and matches the process.
    if let Some(identity) = holder.identity()
        && identity.start_ticks.is_some()
        && identity.start_ticks == start
    {
        return true;
    }
    let marker = daemon.marker(None);
    if reap::marker_of(holder.pid).is_some_and(|value| value.starts_with(&marker.prefix)) {
        return true;
    }
    // A handler of the earlier tool: three lines, our user, started before it wrote them, and it looks like one.
    reap::is_our_users(holder.pid)
        && reap::is_handler_command(holder.pid)
        && reap::started_before(start, &holder.since)
}

fn is_held(daemon: &Daemon, chat: ChatId) -> bool {
    resolve::session_dir(&daemon.workspace, chat, Make::No)
        .is_ok_and(|dir| session_lock::inspect(&dir).is_ok_and(|found| found.is_held()))
}

/// Whether the chat answers a message or somebody is connected, also one of whom no connection tells: this daemon is younger than it, or
/// there is none.
fn is_active(daemon: &Daemon, chat: ChatId, consumers: usize) -> bool {
    let is_there = || {
        resolve::session_dir(&daemon.workspace, chat, Make::No)
            .is_ok_and(|dir| presence::count(&dir) > 0)
    };
    consumers > 0 || is_there() || in_turn(daemon, chat)
}

fn in_turn(daemon: &Daemon, chat: ChatId) -> bool {
    let runs = daemon
        .chats
        .lock()
        .get(&chat)
        .is_some_and(|entry| entry.handler.is_some());
    runs && resolve::session_dir(&daemon.workspace, chat, Make::No)
        .is_ok_and(|dir| messages::next_unanswered(&dir).is_ok_and(|next| next.is_some()))
}

impl Daemon {
    /// Ends every handler that the driver has and everything else that carries this workspace's marker; returns who that was.
    pub(super) fn end_all(self: &Arc<Self>) -> Result<AllEnded, Failure> {
        let chats: Vec<ChatId> = self
            .chats
            .lock()
            .iter()
            .filter(|(_, entry)| entry.handler.is_some())
            .map(|(chat, _)| *chat)
            .collect();
        let stops: Vec<Completion> = chats
            .iter()
            .map(|chat| self.driver().stop(unit_of(*chat)))
            .collect();
        let mut ended = Ended::default();
        let mut survivors = Vec::new();
        for (chat, stop) in chats.iter().zip(stops) {
            let down = stop.wait(self.stop_grace() * 3 + QUERY).map_err(|e| {
                Failure::new(
                    ExitCode::System,
                    format!("the handler of {chat} is not down yet"),
                )
                .caused_by(e)
            })?;
            ended += Ended::of(usize::from(down.was_running), down.report.ended.len());
            survivors.extend(down.report.survivors);
        }
        let unseen = || {
            Failure::new(
                ExitCode::System,
                "what dead handlers left behind could not be looked at",
            )
        };
        let marker = self.marker(None);
        // A handler that could not be adopted is one all the same; what it was can be seen only while it lives.
        let (carriers, _) =
            supervisor::tree::carriers(&marker).map_err(|e| unseen().caused_by(e))?;
        let handlers: BTreeSet<u32> = carriers
            .iter()
            .map(|process| process.pid)
            .filter(|pid| reap::is_handler_command(*pid))
            .collect();
        let report =
            supervisor::tree::end(None, Some(&marker), QUERY, &mut |pid| self.is_exempt(pid))
                .map_err(|e| unseen().caused_by(e))?;
        let ours = report
            .ended
            .iter()
            .filter(|process| handlers.contains(&process.pid))
            .count();
        ended += Ended::of(ours, report.ended.len() - ours);
        survivors.extend(report.survivors);
        survivors.sort_by_key(|process| process.pid);
        survivors.dedup_by_key(|process| process.pid);
        let all: Vec<ChatId> = self.chats.lock().keys().copied().collect();
        let left = all.into_iter().map(|chat| self.end_left(chat)).sum();
        ended += Ended::of(0, left);
        Ok(AllEnded {
            ended,
            survivors: survivors
                .iter()
                .map(|process| format!("{} ({})", process.pid, process.name))
                .collect(),
        })
    }
}

/// What came of ending every handler.
#[derive(Debug, Default)]
pub struct AllEnded {
    /// Who was ended.
    pub ended: Ended,
    /// Those that are still there: `pid (name)`.
    pub survivors: Vec<String>,
}
