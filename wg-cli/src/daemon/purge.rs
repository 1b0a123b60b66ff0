//! Purge: every chat retired, every handler ended with proof, nothing else touched.
//!
//! The order is what makes it safe to be killed at any point: the sticky mark of every chat is on the disk before
//! the first process is signalled, so that no restart respawns one, and the next boot finishes what is left.

mod mark;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use supervisor::tree::Process;
use supervisor::{Adopted, Completion};

use super::host::unit_of;
use super::{Daemon, QUERY, boot, reap};
use crate::chat::Wish;
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
    let Targets { chosen, haunted } = choose(daemon, options, caller, &mut report);
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
    let actor = &options.caller.actor;
    let mut unproven = BTreeMap::new();
    let mut stops = begin_to_end(daemon, &haunted, options, &mut unproven);
    let purged = mark::retire(daemon, chosen, actor, &mut report, &mut |marked| {
        stops.extend(begin_to_end(daemon, marked, options, &mut unproven));
    });
    let targets: BTreeSet<ChatId> = purged.iter().chain(&haunted).copied().collect();
    let total = stops.len();
    for (done, (chat, stop)) in stops.into_iter().enumerate() {
        match stop.wait(daemon.stop_grace() * 3 + QUERY) {
            Ok(down) => {
                let handler = usize::from(down.was_running || served.contains(&chat));
                let others = down.report.ended.len() + daemon.end_left(chat);
                report.ended += Ended::of(handler, others);
                let survivors = down.report.survivors.into_iter();
                report
                    .errors
                    .extend(survivors.map(|process| survived((chat, process))));
            }
            Err(e) => report.errors.push(PurgeError {
                chat_id: chat.0,
                pid: daemon
                    .chats
                    .lock()
                    .get(&chat)
                    .and_then(|entry| entry.handler),
                error: format!("its handler is not down yet: {e} (wg why {chat})"),
                code: ExitCode::Held.code(),
            }),
        }
        progress(done + 1, total);
    }
    if !daemon.is_a_service() {
        // The service that would have ended these is dead.
        let all: Vec<ChatId> = daemon.chats.lock().keys().copied().collect();
        let others = all.into_iter().filter(|chat| !targets.contains(chat));
        let left = boot::end_leftovers(daemon, &others.collect());
        report.ended += Ended::of(0, left.ended);
        report
            .errors
            .extend(left.survivors.into_iter().map(survived));
    }
    // Who has left meanwhile is no error, nor a dead handler whose leftovers had its lock.
    unproven.retain(|chat, _| is_held(daemon, *chat));
    for (chat, (pid, why)) in unproven {
        report.errors.push(PurgeError {
            chat_id: chat.0,
            pid,
            error: why,
            code: ExitCode::Held.code(),
        });
    }
    for chat in &purged {
        daemon.event(
            EventKind::Purged,
            Some(*chat),
            &format!("purged by {actor}"),
        );
    }
    Ok(report)
}

fn survived((chat, process): (ChatId, Process)) -> PurgeError {
    PurgeError {
        chat_id: chat.0,
        pid: Some(process.pid),
        error: format!("`{}` could not be ended", process.name),
        code: ExitCode::Held.code(),
    }
}

/// Whom a purge is about.
struct Targets {
    /// Chats to retire.
    chosen: Vec<ChatId>,
    /// Retired chats that somebody serves all the same: a purge ends those handlers too.
    haunted: Vec<ChatId>,
}

fn choose(
    daemon: &Daemon,
    options: &PurgeOptions,
    caller: Option<ChatId>,
    report: &mut PurgeReport,
) -> Targets {
    let mut chosen = Vec::new();
    let mut haunted = Vec::new();
    let chats: Vec<(ChatId, Wish)> = daemon
        .chats
        .lock()
        .iter()
        .map(|(chat, entry)| (*chat, entry.core.wish()))
        .collect();
    for (chat, wish) in chats {
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
        } else if !options.include_active && is_active(daemon, chat) {
            report.skipped.push(Skipped {
                chat_id: chat.0,
                reason: "active".to_owned(),
            });
        } else {
            chosen.push(chat);
        }
    }
    Targets { chosen, haunted }
}

/// Has the handlers of these chats stopped, all at once.
fn begin_to_end(
    daemon: &Arc<Daemon>,
    targets: &[ChatId],
    options: &PurgeOptions,
    unproven: &mut BTreeMap<ChatId, (Option<u32>, String)>,
) -> Vec<(ChatId, Completion)> {
    let mut stops = Vec::with_capacity(targets.len());
    for chat in targets {
        take_in(daemon, *chat, options.force_unproven, unproven);
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
    stops
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
fn is_active(daemon: &Daemon, chat: ChatId) -> bool {
    let dir = resolve::session_dir(&daemon.workspace, chat, Make::No).ok();
    let is_there = || dir.as_deref().is_some_and(|dir| presence::count(dir) > 0);
    daemon.consumers(chat, dir.as_deref()) > 0 || is_there() || in_turn(daemon, chat)
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
        let is_hurried = self.hurried.load(Ordering::SeqCst);
        let begin = |chat: &ChatId| {
            if is_hurried {
                self.driver().kill(unit_of(*chat))
            } else {
                self.driver().stop(unit_of(*chat))
            }
        };
        let stops: Vec<Completion> = chats.iter().map(begin).collect();
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
        let all: Vec<ChatId> = self.chats.lock().keys().copied().collect();
        let left = all.into_iter().map(|chat| self.end_left(chat)).sum();
        ended += Ended::of(0, left);
        // Also in the group of a start that its service had no time to write the process of.
        let left = boot::end_leftovers(self, &BTreeSet::new());
        ended += Ended::of(0, left.ended);
        survivors.extend(left.survivors.into_iter().map(|(_, process)| process));
        survivors.sort_by_key(|process| process.pid);
        survivors.dedup_by_key(|process| process.pid);
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
pub(super) struct AllEnded {
    /// Who was ended.
    pub ended: Ended,
    /// Those that are still there: `pid (name)`.
    pub survivors: Vec<String>,
}
