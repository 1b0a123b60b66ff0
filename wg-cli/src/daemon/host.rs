//! What the supervisor's driver asks about chats: may this one start, how is it started, what did its end mean.
//!
//! Everything here runs on the driver's thread and is short: a few small files are read and written. A file whose lock another process has is
//! not waited for: what has to be written before a start makes the start wait, everything else is written elsewhere.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use exit_classifier::{Asked, Counts, Ending, LockHolder, Observation, RuleSet};
use supervisor::tree::{Group, Marker};
use supervisor::{
    Cooperation, Disposition, Ended, Generation, Host, Ladder, Notice, Prepared, Rung,
    SpawnFailure, StartReason as Cause, UnitId,
};

use super::descriptors::Descriptors;
use super::graph_seen::InGraph;
use super::groups::Born;
use super::{Daemon, books, groups, holder, reap, rules, service_manager};
use crate::chat::{Decision, Findings, Happened};
use crate::clock;
use crate::control_group;
use crate::failure::{Failure, with_causes};
use crate::names::{EventKind, StartReason};
use crate::store::StoreError;
use crate::store::chat_state::{ChatRecord, SpawnRecord};
use crate::store::config::IN_FORCE;
use crate::store::exit_record::{ExitRecord, MemoryEnd};
use crate::store::files;
use crate::store::graph::ChatId;
use crate::store::resolve::{self, Make};
use crate::store::workspace::Workspace;
use crate::strays;
use crate::wire;

/// The environment variable that everything below a handler carries: `<workspace id>/<chat>/<nonce>`.
pub(super) const MARKER: &str = "WG_SESSION";

/// After how long a decision that cannot be taken just now is tried again: mostly it is a lock that another process has for the
/// length of one write. What lasts longer is asked four times more rarely each time, up to [`NOT_NOW`].
const NOT_NOW_FIRST: Duration = Duration::from_millis(25);

/// How often what lasts is tried again.
const NOT_NOW: Duration = Duration::from_secs(2);

/// How long the lock of a state file may take where this process itself has it, for the length of one write on another thread.
const OWN_LOCK: Duration = Duration::from_millis(100);

/// The same where nobody can be named who has it.
const NAMELESS_LOCK: Duration = Duration::from_millis(20);

/// How much of the end of a log is evidence, in bytes.
const TAIL: u64 = 2048;

/// The driver's host: the daemon, seen from the driver's thread.
#[derive(Debug)]
pub(super) struct ChatHost {
    daemon: Arc<Daemon>,
    rules: RuleSet,
    descriptors: Descriptors,
    /// The control groups of the handlers that run.
    groups: HashMap<ChatId, Option<(Group, Born)>>,
    /// How often in a row it could not be decided whether a chat may start.
    undecided: HashMap<ChatId, u32>,
    /// Children that this process had before it started any.
    before: HashSet<u32>,
}

impl ChatHost {
    pub(super) fn new(daemon: Arc<Daemon>) -> Self {
        Self {
            daemon,
            rules: rules::handler_rules(),
            descriptors: Descriptors::raise(),
            groups: HashMap::new(),
            undecided: HashMap::new(),
            before: strays::children(),
        }
    }

    /// The command that serves the chat, and the record of the decision, written before anything is started.
    fn go(
        &mut self,
        chat: ChatId,
        generation: Generation,
        reason: StartReason,
        dir: &Path,
    ) -> Result<Command, StoreError> {
        let daemon = Arc::clone(&self.daemon);
        let nonce = crate::store::registry::nonce()?;
        // That of a start which came to nothing.
        self.forget_group(chat);
        let group = daemon.groups.make(&nonce);
        let born = if strays::are_ours() {
            Born::Here
        } else {
            Born::Unknown
        };
        self.groups
            .insert(chat, group.clone().map(|group| (group, born)));
        let group = group.as_ref().map(Group::dir);
        let record = SpawnRecord {
            nonce: nonce.clone(),
            generation: generation.0,
            reason,
            actor: "daemon".to_owned(),
            at: clock::now(),
            pid: None,
            start_ticks: None,
            boot_id: clock::boot_id().map(str::to_owned),
            log_from: 0,
            group: group.map(Path::to_owned),
        };
        let (log, log_from) = handler_log(dir, daemon.config().service.log_max_size)?;
        let record = SpawnRecord { log_from, ..record };
        update_at_once(&daemon.workspace, chat, |state| {
            state.spawn = Some(record.clone());
        })?;
        let out = log
            .try_clone()
            .map_err(StoreError::io("share", &dir.join(HANDLER_LOG)))?;
        let mut command = Command::new(crate::self_exe());
        command
            .arg0("wg")
            .arg("--dir")
            .arg(daemon.workspace.root())
            .arg("spawn-task")
            .arg(chat.task_id())
            .current_dir(daemon.workspace.root().parent().unwrap_or(Path::new("/")))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(log);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WG_") {
                command.env_remove(name);
            }
        }
        // A handler speaks to no service manager.
        for name in service_manager::VARIABLES {
            command.env_remove(name);
        }
        command
            .env("WG_DIR", daemon.workspace.root())
            .env("WG_CHAT_REF", chat.to_string())
            .env(IN_FORCE, daemon.workspace.config_in_force_path())
            .env(
                MARKER,
                format!("{}/{}/{nonce}", daemon.workspace.id(), chat),
            );
        if let Some(group) = group {
            command.env(control_group::VARIABLE, group);
        }
        Ok(command)
    }

    /// Whether somebody moved this process into the control group of one of our handlers.
    fn was_moved_in(&self, pid: u32) -> bool {
        if self.groups.values().all(Option::is_none) {
            return false;
        }
        let Some(name) = self.daemon.groups.name_of(pid) else {
            return false;
        };
        let mut groups = self.groups.values().flatten();
        let of = groups.find(|(group, _)| group.dir().file_name() == Some(OsStr::new(&name)));
        of.is_some_and(|(group, born)| {
            groups::was_moved_in(group, pid, *born, &self.daemon.marker(None))
        })
    }

    /// Its handler is gone, and so is everybody who was to be ended with it.
    fn forget_group(&mut self, chat: ChatId) {
        if let Some((group, _)) = self.groups.remove(&chat).flatten() {
            groups::put_away(&group);
        }
    }
}

impl ChatHost {
    /// Where in the log the words of the handler that was started last begin; what is before them is its predecessors'.
    fn log_from(&self, chat: ChatId) -> u64 {
        let record = ChatRecord::load(&self.daemon.workspace, chat).ok();
        record
            .and_then(|record| record.spawn)
            .map_or(0, |spawn| spawn.log_from)
    }

    /// Looks whether the chat may start; an error is why that cannot be said just now.
    fn look(
        &mut self,
        chat: ChatId,
        generation: Generation,
        reason: Cause,
    ) -> Result<Prepared, String> {
        let daemon = Arc::clone(&self.daemon);
        if let Err(e) = daemon.heed_graph() {
            return Err(format!("the graph cannot be read: {}", Failure::from(e)));
        }
        match daemon.in_graph(chat) {
            InGraph::There => {}
            InGraph::Unclear => {
                return Err("its line of the graph cannot be read (wg doctor)".to_owned());
            }
            InGraph::Gone => return Ok(Prepared::NotNeeded),
        }
        let dir =
            resolve::session_dir_within(&daemon.workspace, chat, Duration::ZERO).map_err(|e| {
                format!(
                    "the session directory of {chat} cannot be made: {}",
                    Failure::from(e)
                )
            })?;
        daemon.look_whether_consumers_are_gone(chat, &dir);
        if !reap::inheritors(&dir).is_empty() {
            // Only our own dead handler's leftovers have the lock: that is no contention. They are ended out of the way of
            // this thread; the chat is looked at again when the pause is over.
            let background = Arc::clone(&daemon);
            daemon.in_lane(
                &format!("leftovers:{}", chat.0),
                "end leftovers",
                move || {
                    background.end_borrowers(chat);
                },
            );
            return Err("what a dead handler left behind is being ended".to_owned());
        }
        let holder = holder::live_holder(&dir)
            .map_err(|e| format!("the session lock cannot be read: {}", with_causes(&e)))?;
        let unanswered = daemon
            .is_waited_for(chat, &dir)
            .map_err(|e| format!("the inbox cannot be read: {}", Failure::from(e)))?;
        let agent = daemon.agent_of(chat);
        let found = Findings {
            starts_are_off: daemon.starts_are_off(),
            held: holder.is_some(),
            unanswered,
            agent_is_usable: agent.is_ok(),
        };
        match daemon.decide(chat, found, matches!(reason, Cause::Retry(_))) {
            Decision::NotNeeded => Ok(Prepared::NotNeeded),
            Decision::HeldOff(until) => Ok(Prepared::NotNow {
                reason: "it was released to a person".to_owned(),
                after: until.saturating_duration_since(clock::steady()),
            }),
            Decision::Held => Ok(match holder {
                Some((holder, watchable)) => Prepared::Held { holder, watchable },
                None => Prepared::NotNeeded,
            }),
            Decision::Refuse => Ok(Prepared::Refused {
                reason: agent
                    .err()
                    .map(|refusal| refusal.to_string())
                    .unwrap_or_default(),
            }),
            Decision::Start(reason) => {
                let command = self.go(chat, generation, reason, &dir).map_err(|e| {
                    format!(
                        "the decision to start could not be written down: {}",
                        Failure::from(e)
                    )
                })?;
                daemon.starting(chat, reason);
                Ok(Prepared::Go(Box::new(command)))
            }
        }
    }

    /// What the handler that was started last wrote about its end, if it is that process.
    fn exit_record(&self, chat: ChatId, pid: u32) -> Option<ExitRecord> {
        let dir = resolve::session_dir(&self.daemon.workspace, chat, Make::No).ok()?;
        let record = ExitRecord::read(&dir)
            .ok()
            .flatten()
            .filter(|record| record.pid == pid)?;
        // A number comes back; the nonce of a spawn does not.
        let spawn = ChatRecord::load(&self.daemon.workspace, chat).ok()?.spawn?;
        (record.nonce.as_deref() == Some(spawn.nonce.as_str())).then_some(record)
    }
}

impl Host for ChatHost {
    fn prepare(&mut self, unit: UnitId, generation: Generation, reason: Cause) -> Prepared {
        let chat = chat_of(unit);
        match self.look(chat, generation, reason) {
            Ok(prepared) => {
                self.undecided.remove(&chat);
                prepared
            }
            Err(reason) => {
                let times = self.undecided.entry(chat).or_default();
                let after = pause_after(*times);
                *times = times.saturating_add(1);
                Prepared::NotNow { reason, after }
            }
        }
    }

    fn spawned(&mut self, unit: UnitId, generation: Generation, pid: u32, start_ticks: u64) {
        self.descriptors.restore_for(pid);
        let chat = chat_of(unit);
        let write_down = move |state: &mut ChatRecord| {
            if let Some(spawn) = &mut state.spawn
                && spawn.generation == generation.0
            {
                spawn.pid = Some(pid);
                spawn.start_ticks = Some(start_ticks);
            }
        };
        match update_at_once(&self.daemon.workspace, chat, write_down) {
            Ok(()) => {}
            Err(StoreError::Busy { .. }) => {
                let daemon = Arc::clone(&self.daemon);
                self.daemon
                    .in_lane(&books::record_lane(chat), "spawn record", move || {
                        let write = || ChatRecord::update(&daemon.workspace, chat, write_down);
                        if let Err(e) = daemon.patiently(write) {
                            log::warn!("{chat}: the pid of handler {pid}: {}", Failure::from(e));
                        }
                    });
            }
            // The nonce in its environment still tells a later daemon whose it is.
            Err(e) => log::warn!(
                "{chat}: the pid of handler {pid} could not be written down: {}",
                Failure::from(e)
            ),
        }
        self.daemon.act(chat, Happened::Started);
    }

    fn judge(&mut self, unit: UnitId, ended: &Ended) -> Disposition {
        let chat = chat_of(unit);
        let daemon = Arc::clone(&self.daemon);
        let dir = resolve::session_dir(&daemon.workspace, chat, Make::No).ok();
        let holder = dir
            .as_deref()
            .and_then(|dir| holder::live_holder(dir).ok().flatten());
        let tail = dir
            .as_deref()
            .map(|dir| tail(&dir.join(HANDLER_LOG), self.log_from(chat)))
            .unwrap_or_default();
        let mut seen = Observation::new(
            ended.status.map_or(Ending::Lost, Ending::from),
            ended.ran_for,
        );
        if ended.stop_asked {
            seen.asked = Some(Asked::Stop);
        }
        seen.lock_holder = holder.as_ref().map(|(holder, _)| LockHolder {
            pid: holder.pid,
            alive: true,
            own_child: holder.pid == ended.pid,
        });
        seen.stderr_tail = &tail;
        let mut verdict = self.rules.classify(&seen);
        let memory = (verdict.counts == Counts::Memory)
            .then(|| self.exit_record(chat, ended.pid)?.memory)
            .flatten();
        if let Some(MemoryEnd { peak, cap }) = memory {
            verdict.evidence.push(("memory_peak", peak.to_string()));
            verdict.evidence.push(("memory_cap", cap.to_string()));
        }
        let disposition = wire::disposition(&verdict, holder, memory.map(|memory| memory.peak));
        daemon.ended(chat, ended, &verdict);
        self.forget_group(chat);
        disposition
    }

    fn lost_status(&mut self, unit: UnitId, pid: u32, _start_ticks: u64) -> Option<ExitStatus> {
        let record = self.exit_record(chat_of(unit), pid)?;
        match (record.code, record.signal) {
            (_, Some(signal)) => Some(ExitStatus::from_raw(signal)),
            (Some(code), None) => Some(ExitStatus::from_raw(code << 8)),
            (None, None) => None,
        }
    }

    fn notice(&mut self, unit: UnitId, notice: &Notice) {
        let chat = chat_of(unit);
        self.daemon.notice(chat, notice);
        if books::matters(notice) {
            self.daemon.save_later(chat);
        }
    }

    fn spawn_error(&mut self, unit: UnitId, program: &OsStr, error: &io::Error) -> SpawnFailure {
        self.forget_group(chat_of(unit));
        SpawnFailure::of(program, error)
    }

    fn group(&mut self, unit: UnitId) -> Option<Group> {
        let chat = chat_of(unit);
        let workspace = &self.daemon.workspace;
        let of_adopted = || {
            let spawn = ChatRecord::load(workspace, chat).ok()?.spawn?;
            let born = spawn.start_ticks.map_or(Born::Unknown, Born::After);
            Some((groups::recorded(&spawn)?, born))
        };
        let group = self.groups.entry(chat).or_insert_with(of_adopted);
        group.as_ref().map(|(group, _)| group.clone())
    }

    fn marker(&mut self, unit: UnitId) -> Option<Marker> {
        Some(self.daemon.marker(Some(chat_of(unit))))
    }

    fn cooperate(&mut self, unit: UnitId, step: Cooperation) -> bool {
        match step {
            Cooperation::Release => {
                let chat = chat_of(unit);
                let Ok(dir) = resolve::session_dir(&self.daemon.workspace, chat, Make::No) else {
                    return false;
                };
                match session_lock::request_release(&dir) {
                    Ok(session_lock::ReleaseRequest::Asked { .. }) => {
                        self.daemon.event(
                            EventKind::ReleaseRequested,
                            Some(chat),
                            "asked to leave at its turn boundary",
                        );
                        true
                    }
                    // It has not taken its lock yet, so it cannot be asked: the signals come next.
                    Ok(_) => false,
                    Err(e) => {
                        log::debug!("{chat}: no release could be requested: {e}");
                        false
                    }
                }
            }
            // A handler's standard input is the null device.
            Cooperation::CloseStdin => false,
        }
    }

    fn ladder(&mut self, _unit: UnitId) -> Ladder {
        let grace = self.daemon.stop_grace();
        Ladder {
            release_grace: grace,
            stdin_grace: Duration::ZERO,
            // SIGTERM lets the handler end its agent by the agent's own ladder and write down what became of the turn.
            signals: vec![Rung {
                signal: nix::sys::signal::Signal::SIGTERM as i32,
                // Its agent has the same grace; what it then writes down takes a moment more.
                grace: grace.saturating_add(Duration::from_secs(3)),
            }],
            final_grace: Duration::from_secs(5),
        }
    }

    /// What comes to the daemon comes from a handler that is dead, because a live one is given its own.
    fn owns_orphans(&mut self, _unit: UnitId) -> bool {
        strays::are_ours()
    }

    fn is_exempt(&mut self, pid: u32) -> bool {
        self.before.contains(&pid) || self.daemon.is_exempt(pid) || self.was_moved_in(pid)
    }
}

/// How long to wait before what could not be decided this many times in a row is looked at again.
fn pause_after(times: u32) -> Duration {
    4_u32
        .checked_pow(times)
        .and_then(|factor| NOT_NOW_FIRST.checked_mul(factor))
        .map_or(NOT_NOW, |pause| pause.min(NOT_NOW))
}

/// Changes the record of a chat without waiting for another process that has its lock.
fn update_at_once(
    workspace: &Workspace,
    chat: ChatId,
    change: impl Fn(&mut ChatRecord),
) -> Result<(), StoreError> {
    let update = |patience| ChatRecord::update_within(workspace, chat, patience, &change).map(drop);
    match update(Duration::ZERO) {
        Err(StoreError::Busy {
            holder: Some(holder),
            ..
        }) if holder.pid == std::process::id() => update(OWN_LOCK),
        // Whoever had it gave it back before it could be said who that was: another thread of this process, most likely.
        Err(StoreError::Busy { holder: None, .. }) => update(NAMELESS_LOCK),
        done => done,
    }
}

/// What a handler says, in its session's directory.
const HANDLER_LOG: &str = "handler.log";

/// The chat that a unit stands for: they have the same number.
pub(super) fn chat_of(unit: UnitId) -> ChatId {
    ChatId(u32::try_from(unit.0).unwrap_or(u32::MAX))
}

/// The unit of a chat.
pub(super) fn unit_of(chat: ChatId) -> UnitId {
    UnitId(u64::from(chat.0))
}

/// The handler's log, opened for appending, and its length: a file, never a pipe, so that a dead daemon does not kill a handler.
fn handler_log(dir: &Path, max: u64) -> Result<(std::fs::File, u64), StoreError> {
    let path = dir.join(HANDLER_LOG);
    let failed = |doing| StoreError::io(doing, &path);
    if path.metadata().is_ok_and(|metadata| metadata.len() > max) {
        std::fs::rename(&path, dir.join("handler.log.1")).map_err(failed("rotate"))?;
    }
    let mut options = OpenOptions::new();
    options.create(true).read(true).append(true).mode(0o600);
    let mut log = files::open(&path, &mut options)?;
    if files::ends_torn(&log).map_err(failed("read"))? {
        // The predecessor was cut off; what is said next is a line of its own.
        log.write_all(b"\n").map_err(failed("append to"))?;
    }
    let length = log.metadata().map_err(failed("look at"))?.len();
    Ok((log, length))
}

/// The last bytes of a file from an offset on, nothing where it cannot be read. One that is shorter than the offset was begun anew.
fn tail(path: &Path, from: u64) -> Vec<u8> {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> io::Result<Vec<u8>> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(path)?;
        let length = file.metadata()?.len();
        let from = if from > length { 0 } else { from };
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL).max(from)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_holds_nothing_of_the_predecessor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("handler.log");
        std::fs::write(&path, "the predecessor's last words\n").unwrap();
        let (_, from) = handler_log(dir.path(), 1 << 20).unwrap();
        assert_eq!(tail(&path, from), b"");
        std::fs::write(&path, "the predecessor's last words\nits own\n").unwrap();
        assert_eq!(tail(&path, from), b"its own\n");
        std::fs::write(&path, "anew\n").unwrap();
        assert_eq!(tail(&path, from), b"anew\n", "the file was begun again");
        std::fs::write(&path, "cut of").unwrap();
        let (_, from) = handler_log(dir.path(), 1 << 20).unwrap();
        assert_eq!(
            (from, std::fs::read(&path).unwrap()),
            (7, b"cut of\n".to_vec()),
            "nothing is glued to half a line"
        );
        let (_, from) = handler_log(dir.path(), 3).unwrap();
        assert_eq!(from, 0, "what was too long was moved away");
    }

    #[test]
    fn what_cannot_be_decided_is_asked_again_soon_at_first_and_every_two_seconds_in_the_end() {
        let pauses = [0, 1, 2, 3, 4, 5, 100, u32::MAX].map(|times| pause_after(times).as_millis());
        assert_eq!(pauses, [25, 100, 400, 1_600, 2_000, 2_000, 2_000, 2_000]);
    }
}
