//! Boot: which chats there are, which handlers of an earlier daemon live on, and what dead ones left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use supervisor::Adopted;
use supervisor::tree::Process;

use super::groups::Left;
use super::host::unit_of;
use super::{Daemon, QUERY, holder, reap};
use crate::chat::{Need, Wish};
use crate::clock;
use crate::failure::Failure;
use crate::names::EventKind;
use crate::store::StoreError;
use crate::store::chat_state::{ChatRecord, SpawnRecord};
use crate::store::events::EventLine;
use crate::store::files;
use crate::store::graph::{ChatId, Graph};
use crate::store::rename::Dry;
use crate::store::resolve::{self, Make, Sessions};
use crate::store::workspace::Workspace;

/// How long the leftovers of one dead handler may take to be gone.
const LEFTOVERS: Duration = Duration::from_secs(10);

/// Takes the workspace's chats over. Where the settings were changed while no daemon looked, the chats are told as at a reload: what
/// was parked for a fault in them is tried again.
///
/// # Errors
///
/// The graph cannot be read or migrated; an unreadable graph never reads as "no chats".
pub(super) fn boot(daemon: &Arc<Daemon>, reconfigured: bool) -> Result<(), Failure> {
    sweep_temporaries(daemon);
    migrate(daemon)?;
    let live = enroll(daemon)?;
    finish_retirements(daemon);
    let sessions = Sessions::load(&daemon.workspace)?;
    for chat in &live {
        daemon.ensure_unit_in(*chat, &sessions.dir(*chat));
    }
    let adopted = adopt(daemon, &live, &sessions);
    drop(end_leftovers(daemon, &adopted));
    sweep_groups(daemon, &adopted);
    daemon.booting.store(false, Ordering::SeqCst);
    // What was written to the graph meanwhile, and what it looked like.
    if let Err(e) = daemon.heed_graph() {
        log::warn!("{}", Failure::from(e));
    }
    if live.is_empty() {
        log::info!("No chat-loop tasks in graph — nothing to look after yet");
    }
    for chat in live.difference(&adopted) {
        first_look(daemon, *chat, &sessions.dir(*chat));
    }
    if reconfigured {
        for chat in &live {
            daemon.driver().config_changed(unit_of(*chat));
        }
    }
    // Made while the others were being looked at, and told that nothing starts yet.
    for chat in daemon.units() {
        if !live.contains(&chat) {
            daemon.driver().wake(unit_of(chat));
        }
    }
    for chat in &adopted {
        if let Ok(dir) = resolve::session_dir(&daemon.workspace, *chat, Make::No) {
            daemon.look_for_consumers(*chat, &dir);
        }
        // A wish that the former daemon wrote down and had no time to carry out is carried out now. Looked at and sent under
        // the lock, so that a resume that comes meanwhile is behind it in the driver's queue.
        let chats = daemon.chats.lock();
        if chats
            .get(chat)
            .is_some_and(|entry| entry.core.wish() != Wish::Run)
        {
            drop(daemon.driver().stop(unit_of(*chat)));
        }
    }
    Ok(())
}

/// As [`boot`], for a verb that works without a daemon: handlers are taken over so that they can be ended with
/// proof, and nothing is started or swept.
pub(super) fn take_over(daemon: &Arc<Daemon>) -> Result<(), Failure> {
    let live = enroll(daemon)?;
    let sessions = Sessions::load(&daemon.workspace)?;
    for chat in &live {
        daemon.ensure_unit_in(*chat, &sessions.dir(*chat));
    }
    adopt(daemon, &live, &sessions);
    Ok(())
}

/// Removes the temporary files of writers that were killed.
fn sweep_temporaries(daemon: &Daemon) {
    for dir in [
        daemon.workspace.root().to_owned(),
        daemon.workspace.service_dir(),
    ] {
        match files::sweep_temporaries(&dir) {
            Ok(0) => {}
            Ok(count) => log::info!("removed {count} temporary files of writers that were killed"),
            Err(e) => log::warn!("{}", Failure::from(e)),
        }
    }
}

/// Gives legacy ids their present form, once, with one line of the log.
fn migrate(daemon: &Daemon) -> Result<(), Failure> {
    let renamed = Graph::edit(&daemon.workspace, |graph| graph.rename_legacy(Dry::No))?;
    if !renamed.is_empty() {
        let names: Vec<String> = renamed
            .renamed_ids
            .iter()
            .map(|(from, to)| format!("{from} → {to}"))
            .collect();
        log::info!(
            "migrated the earlier ids of the graph: {}",
            names.join(", ")
        );
        for kept in &renamed.kept {
            log::warn!("{kept}");
        }
    }
    Ok(())
}

/// Reads the graph and takes every chat into account; returns those that may run.
fn enroll(daemon: &Daemon) -> Result<BTreeSet<ChatId>, Failure> {
    let loaded = Graph::load(&daemon.workspace)?;
    for warning in loaded.told() {
        log::warn!("{warning}");
    }
    let mut verdicts = daemon.events.last_verdicts();
    for task in loaded.graph.chats() {
        let last = verdicts.remove(&task.id);
        daemon.admit_new(task, last);
    }
    if loaded.warnings.is_empty() {
        let is_empty = loaded.graph.tasks().next().is_none();
        archive_orphan_states(daemon, is_empty);
    } else {
        // A chat whose line cannot be read is not a chat that is gone.
        log::warn!("the graph is damaged, so no state file is taken for an orphan (wg doctor)");
    }
    let chats = daemon.chats.lock();
    Ok(chats
        .iter()
        .filter(|(_, entry)| matches!(entry.core.wish(), Wish::Run | Wish::Stopped))
        .map(|(chat, _)| *chat)
        .collect())
}

/// A chat that is marked as retired and not archived in the graph: whoever retired it was killed between the two.
fn finish_retirements(daemon: &Daemon) {
    let half_way: Vec<ChatId> = daemon
        .chats
        .lock()
        .iter()
        .filter(|(_, entry)| entry.task.live)
        .filter(|(_, entry)| matches!(entry.core.wish(), Wish::Archived | Wish::Purged))
        .map(|(chat, _)| *chat)
        .collect();
    if half_way.is_empty() {
        return;
    }
    let why = "retired before the last service ended";
    match daemon.archive_in_graph(&half_way, "daemon", why) {
        Ok(()) => {
            for chat in half_way {
                log::info!(
                    "Coordinator-{}: archived in the graph, as its mark tells",
                    chat.0
                );
            }
        }
        Err(e) => log::error!(
            "retired chats are not archived in the graph yet: {}",
            Failure::from(e)
        ),
    }
}

/// A state file of ours that names a chat the graph does not have archives itself: no spawn is ever tried for it.
///
/// A graph without any task is more likely one that somebody is writing than one whose chats are all gone: then a chat that has a session
/// keeps its state.
fn archive_orphan_states(daemon: &Daemon, is_empty: bool) {
    let known: BTreeSet<ChatId> = daemon.chats.lock().keys().copied().collect();
    let orphans = match states_without_chats(&daemon.workspace, &known, is_empty) {
        Ok(orphans) => orphans,
        Err(e) => {
            log::warn!("the state files cannot be listed: {e}");
            return;
        }
    };
    for chat in orphans.kept {
        log::warn!(
            "the graph is empty, so the state of {chat}, which has a session, is left as it is"
        );
    }
    for chat in orphans.to_archive {
        say_that_it_is_an_orphan(chat);
        if let Err(e) = archive_state(&daemon.workspace, chat) {
            log::error!("{chat}: {}", Failure::from(e));
        }
    }
}

/// One line of the log, in words that other people's scripts look for.
pub(super) fn say_that_it_is_an_orphan(chat: ChatId) {
    log::warn!(
        "Coordinator-{}: orphan supervisor — {} is not in the graph, so nothing is started for it (no restart loop)",
        chat.0,
        chat.task_id()
    );
}

/// A record without anything of ours is another tool's state.
fn is_ours_and_open(record: &ChatRecord) -> bool {
    *record != ChatRecord::default() && record.archived_at.is_none() && record.purged_at.is_none()
}

/// Archives the state of a chat that the graph does not have.
///
/// # Errors
///
/// As [`ChatRecord::update`].
pub(crate) fn archive_state(workspace: &Workspace, chat: ChatId) -> Result<(), StoreError> {
    let now = clock::now();
    ChatRecord::update(workspace, chat, |record| record.archived_at = Some(now)).map(drop)
}

/// Chats that have an open state of ours and are not in the graph.
#[derive(Debug, Default)]
pub(crate) struct StatesWithoutChats {
    /// Their states are archived.
    pub(crate) to_archive: Vec<ChatId>,
    /// Theirs are left as they are, because it is more likely the graph that is gone.
    pub(crate) kept: Vec<ChatId>,
}

/// Looks for them; a graph without any task does not prove that a chat which has a session is gone.
///
/// # Errors
///
/// The state files cannot be listed.
pub(crate) fn states_without_chats(
    workspace: &Workspace,
    known: &BTreeSet<ChatId>,
    is_empty: bool,
) -> std::io::Result<StatesWithoutChats> {
    let mut found = StatesWithoutChats::default();
    for (chat, record) in recorded(workspace)? {
        if known.contains(&chat) || !is_ours_and_open(&record) {
            continue;
        }
        let has_session =
            || resolve::session_dir(workspace, chat, Make::No).is_ok_and(|dir| dir.is_dir());
        if is_empty && has_session() {
            found.kept.push(chat);
        } else {
            found.to_archive.push(chat);
        }
    }
    Ok(found)
}

/// Adopts the live handlers of chats that came into the graph only now.
pub(super) fn adopt_late(daemon: &Daemon, chats: &BTreeSet<ChatId>) {
    if chats.is_empty() {
        return;
    }
    let sessions = match Sessions::load(&daemon.workspace) {
        Ok(sessions) => sessions,
        Err(e) => {
            log::warn!(
                "handlers of new chats are not looked for: {}",
                Failure::from(e)
            );
            return;
        }
    };
    for chat in chats {
        daemon.ensure_unit_in(*chat, &sessions.dir(*chat));
    }
    for chat in adopt(daemon, chats, &sessions) {
        daemon.look_for_consumers(chat, &sessions.dir(chat));
    }
}

/// Adopts the live handlers of earlier daemons: the nonce in the environment must be the one that was written down before
/// the fork.
fn adopt(daemon: &Daemon, live: &BTreeSet<ChatId>, sessions: &Sessions<'_>) -> BTreeSet<ChatId> {
    let mut adopted = BTreeSet::new();
    for chat in live {
        let dir = sessions.dir(*chat);
        let Ok(record) = ChatRecord::load(&daemon.workspace, *chat) else {
            continue;
        };
        let Some(spawn) = record.spawn else { continue };
        let holder = session_lock::inspect(&dir)
            .ok()
            .filter(session_lock::Inspection::is_held)
            .and_then(|found| found.holder().map(|holder| holder.pid));
        for (pid, start) in reap::handlers_of(&daemon.workspace, *chat, holder, &spawn) {
            match daemon.driver().adopt(unit_of(*chat), pid, start, QUERY) {
                Ok(Adopted::Alive) => {
                    adopted.insert(*chat);
                    break;
                }
                Ok(_) => {}
                Err(e) => log::error!("{chat}: handler {pid} could not be adopted: {e}"),
            }
        }
    }
    adopted
}

/// Ends what dead handlers left behind, but nothing of these chats: before anything is judged: a lock that only our own leftovers hold is
/// never contention.
pub(super) fn end_leftovers(daemon: &Daemon, adopted: &BTreeSet<ChatId>) -> EndedLeftovers {
    let mut done = EndedLeftovers::default();
    let all = match supervisor::tree::carriers(&daemon.marker(None)) {
        Ok((all, _)) => all,
        Err(e) => {
            log::warn!("no process can be looked at, so leftovers stay: {e}");
            return done;
        }
    };
    let mut owners = BTreeSet::new();
    for process in all {
        let Some(value) = reap::marker_of(process.pid) else {
            continue;
        };
        let chat = value
            .split('/')
            .nth(1)
            .and_then(|name| name.strip_prefix("chat-"))
            .and_then(|n| n.parse().ok());
        owners.extend(chat.map(ChatId));
    }
    let mut spawns = spawns(daemon);
    // What shed its environment is found by its group alone.
    let owns = |spawn: &SpawnRecord| Left::of(spawn, None).is_some();
    owners.extend(
        spawns
            .iter()
            .filter(|(_, spawn)| owns(spawn))
            .map(|(chat, _)| *chat),
    );
    for chat in owners {
        if adopted.contains(&chat) {
            continue;
        }
        let withdrawn = withdrawn_handler(daemon, chat);
        let mut is_exempt = |pid| Some(pid) != withdrawn && daemon.is_exempt(pid);
        let marker = daemon.marker(Some(chat));
        let left = spawns
            .remove(&chat)
            .and_then(|spawn| Left::of(&spawn, withdrawn));
        let ended = match left {
            Some(left) => left.end(&daemon.workspace, Some(&marker), LEFTOVERS, &mut is_exempt),
            None => supervisor::tree::end(None, Some(&marker), LEFTOVERS, &mut is_exempt),
        };
        match ended {
            Ok(report) => {
                done.ended += report.ended.len();
                for process in report.ended {
                    let text = format!(
                        "ended `{}` (pid {}), left behind by a dead handler",
                        process.name, process.pid
                    );
                    log::info!("Coordinator-{}: {text}", chat.0);
                    daemon.events.write(EventLine {
                        pid: Some(process.pid),
                        ..EventLine::new(Some(chat), EventKind::OrphanEnded, text)
                    });
                }
                for process in report.survivors {
                    log::error!(
                        "Coordinator-{}: `{}` (pid {}) could not be ended",
                        chat.0,
                        process.name,
                        process.pid
                    );
                    done.survivors.push((chat, process));
                }
            }
            Err(e) => log::error!("{chat}: the leftovers could not be ended: {e}"),
        }
    }
    done
}

/// What came of ending what dead handlers left.
#[derive(Debug, Default)]
pub(super) struct EndedLeftovers {
    pub(super) ended: usize,
    pub(super) survivors: Vec<(ChatId, Process)>,
}

/// The last start of each chat that has a state file.
fn spawns(daemon: &Daemon) -> BTreeMap<ChatId, SpawnRecord> {
    match recorded(&daemon.workspace) {
        Ok(recorded) => recorded
            .into_iter()
            .filter_map(|(chat, record)| Some((chat, record.spawn?)))
            .collect(),
        Err(e) => {
            log::warn!("the state files cannot be listed: {e}");
            BTreeMap::new()
        }
    }
}

/// Removes the control groups of dead handlers. Nothing is being started yet, so that an empty one is nobody's.
pub(super) fn sweep_groups(daemon: &Daemon, adopted: &BTreeSet<ChatId>) {
    let spawns = spawns(daemon).into_iter();
    let groups = spawns.filter_map(|(chat, spawn)| Some((chat, spawn.group?)));
    let (in_use, left): (Vec<_>, Vec<_>) = groups.partition(|(chat, _)| adopted.contains(chat));
    let paths = |groups: Vec<(ChatId, PathBuf)>| groups.into_iter().map(|(_, dir)| dir).collect();
    daemon.groups.sweep(&paths(left), &paths(in_use));
}

/// The handler that serves a chat although a person withdrew it: a purge or an archive whose daemon ended before the handler
/// did is finished here. A holder of a lock is exempt otherwise.
fn withdrawn_handler(daemon: &Daemon, chat: ChatId) -> Option<u32> {
    let chats = daemon.chats.lock();
    let wish = chats.get(&chat)?.core.wish();
    drop(chats);
    if wish == Wish::Run {
        return None;
    }
    let dir = resolve::session_dir(&daemon.workspace, chat, Make::No).ok()?;
    let found = session_lock::inspect(&dir)
        .ok()
        .filter(session_lock::Inspection::is_held)?;
    found.holder().map(|holder| holder.pid)
}

/// A held session is shown and watched from the start; an unanswered message starts its chat; everything else stays
/// idle, with nothing spawned.
fn first_look(daemon: &Arc<Daemon>, chat: ChatId, dir: &Path) {
    daemon.end_borrowers_in(chat, dir);
    daemon.look_for_consumers(chat, dir);
    match messages_seen(daemon, chat, dir) {
        Ok(()) => {}
        Err(e) => log::warn!("{chat}: {}", Failure::from(e)),
    }
    let held = holder::live_holder(dir).is_ok_and(|holder| holder.is_some());
    let needed = matches!(daemon.look(chat, dir), Ok(Need::Because(_)));
    // The end of the former daemon stopped its machines, and the last of that may be what it wrote down.
    let stopped = matches!(
        daemon.machine_state(chat),
        Some(supervisor::State::Stopped { .. })
    );
    let wanted = daemon
        .chats
        .lock()
        .get(&chat)
        .is_some_and(|entry| entry.core.wish() == Wish::Run);
    if needed && !held {
        daemon.start_in_turn(chat);
    } else if stopped && wanted {
        daemon.driver().start(unit_of(chat));
    } else if held {
        daemon.driver().wake(unit_of(chat));
    }
}

/// Remembers how many replies there are, so that only new ones count as finished turns.
fn messages_seen(daemon: &Daemon, chat: ChatId, dir: &Path) -> Result<(), StoreError> {
    let last = crate::store::messages::last_id(dir, crate::store::messages::Side::Outbox)?;
    if let Some(entry) = daemon.chats.lock().get_mut(&chat) {
        entry.replies = last;
    }
    Ok(())
}

/// Every chat that has a state file, with what is ours in it.
pub(super) fn recorded(workspace: &Workspace) -> std::io::Result<Vec<(ChatId, ChatRecord)>> {
    let mut all = Vec::new();
    let entries = match std::fs::read_dir(workspace.service_dir()) {
        Ok(entries) => entries,
        // No service has run here yet.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(all),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("coordinator-state-"))
            .and_then(|rest| rest.strip_suffix(".json"));
        let Some(chat) = number.and_then(ChatId::from_digits) else {
            continue;
        };
        match ChatRecord::load(workspace, chat) {
            Ok(record) => all.push((chat, record)),
            Err(e) => log::warn!("{}", Failure::from(e)),
        }
    }
    Ok(all)
}
