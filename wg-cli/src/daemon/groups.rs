//! The life of the handlers' control groups: made before a start, removed when nobody is left, swept after a daemon that was killed.
//!
//! A group is a directory `wg-<workspace>-<nonce>` below the daemon's own group; the nonce is the one of the spawn record, and the
//! record has the path, because a later daemon may itself be in another group.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use supervisor::tree::{self, EndError, Group, Marker, Report};

use super::{BORROWERS, Daemon, boot, reap};
use crate::clock::{self, Timestamp};
use crate::control_group::{self, Without};
use crate::names::EventKind;
use crate::store::chat_state::{ChatRecord, SpawnRecord};
use crate::store::events::EventLine;
use crate::store::graph::ChatId;
use crate::store::workspace::Workspace;

/// Where this daemon makes groups, if it may.
#[derive(Debug)]
pub(super) struct Groups {
    place: Result<PathBuf, Without>,
    prefix: String,
    /// Whether the last one could not be made.
    failed: AtomicBool,
}

impl Groups {
    /// Finds out where this process may make groups.
    pub(super) fn find(workspace: &Workspace) -> Self {
        Self {
            place: control_group::delegated(),
            prefix: format!("wg-{}-", workspace.id()),
            failed: AtomicBool::new(false),
        }
    }

    /// Whether handlers get control groups, as far as the last start could tell.
    pub(super) fn are_made(&self) -> bool {
        self.place.is_ok() && !self.failed.load(Ordering::SeqCst)
    }

    /// Whether this handler is in a group that was made for it.
    pub(super) fn have(&self, handler: u32) -> bool {
        // It may be a group of a former daemon, which had another place.
        let groups = fs::read_to_string(format!("/proc/{handler}/cgroup")).unwrap_or_default();
        let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
        own.and_then(|own| own.rsplit('/').next())
            .is_some_and(|name| name.starts_with(&self.prefix))
    }

    /// Writes to the log how handlers are ended.
    pub(super) fn tell(&self) {
        match &self.place {
            Ok(place) => log::info!("each handler gets a control group in `{}`", place.display()),
            Err(without) => {
                log::info!("handlers are ended by looking through /proc, because {without}");
            }
        }
    }

    /// The name of the handler's group that this process is in, if it is in one.
    pub(super) fn name_of(&self, pid: u32) -> Option<String> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
        let mut parts = path.split('/');
        parts
            .find(|part| part.starts_with(&self.prefix))
            .map(str::to_owned)
    }

    /// Makes the group of one start. Without one the handler is ended by what can be seen in `/proc`.
    pub(super) fn make(&self, nonce: &str) -> Option<Group> {
        let place = self.place.as_ref().ok()?;
        let dir = place.join(format!("{}{nonce}", self.prefix));
        let made = Group::create(&dir);
        self.failed.store(made.is_err(), Ordering::SeqCst);
        made.inspect_err(|e| log::warn!("the group `{}` could not be made: {e}", dir.display()))
            .ok()
    }

    /// Removes the groups of dead daemons in which nobody is left: those beside ours, and those beside `recorded` ones.
    pub(super) fn sweep(&self, recorded: &BTreeSet<PathBuf>, in_use: &BTreeSet<PathBuf>) {
        for dir in self.below(recorded) {
            if !in_use.contains(&dir) {
                put_away(&Group::at(dir));
            }
        }
    }

    /// The groups of this workspace's handlers: beside ours, and beside `recorded` ones.
    fn below(&self, recorded: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
        let places: BTreeSet<&Path> = recorded
            .iter()
            .filter_map(|dir| dir.parent())
            .chain(self.place.as_deref().ok())
            .collect();
        let entries = places
            .into_iter()
            .filter_map(|place| fs::read_dir(place).ok())
            .flatten()
            .flatten();
        let is_ours = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            name.as_encoded_bytes().starts_with(self.prefix.as_bytes())
        };
        entries.filter(is_ours).map(|entry| entry.path()).collect()
    }
}

/// Removes a group unless somebody is in it; then it stays until a later boot.
pub(super) fn put_away(group: &Group) {
    match group.is_populated() {
        Ok(false) => {
            if let Err(e) = group.remove() {
                log::debug!("the group `{}` stays: {e}", group.dir().display());
            }
        }
        Ok(true) => {
            log::debug!("somebody is in the group `{}`", group.dir().display());
            go_on(group);
        }
        // It is gone, or its hierarchy cannot be seen from here.
        Err(_) => {}
    }
}

/// Lets everybody in a group go on who stands still because somebody who was ending them was killed.
fn go_on(group: &Group) {
    if group.is_frozen().unwrap_or(false)
        && let Err(e) = group.thaw()
    {
        log::warn!("the group `{}` stands still: {e}", group.dir().display());
    }
}

/// A control group that no service looks after.
#[derive(Debug)]
pub enum Stray {
    /// Nobody is in it.
    Empty(Group),
    /// Somebody is in it, and stands still.
    Frozen(Group),
}

impl Stray {
    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        match self {
            Self::Empty(group) | Self::Frozen(group) => group.dir(),
        }
    }

    /// Removes it, or lets everybody in it go on.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn mend(&self) -> io::Result<()> {
        match self {
            Self::Empty(group) => group.remove(),
            Self::Frozen(group) => group.thaw(),
        }
    }
}

/// Finds the groups of this workspace's handlers that a dead service left empty or frozen. While one runs they are its own.
#[must_use]
pub fn strays(workspace: &Workspace) -> Vec<Stray> {
    let spawns = boot::recorded(workspace).unwrap_or_default();
    let spawns = spawns
        .iter()
        .filter_map(|(_, record)| record.spawn.as_ref());
    let recorded = spawns
        .filter_map(recorded)
        .map(|group| group.dir().to_owned());
    let dirs = Groups::find(workspace).below(&recorded.collect());
    let stray = |dir: PathBuf| {
        let group = Group::at(dir);
        match (group.is_populated(), group.is_frozen()) {
            (Ok(false), _) => Some(Stray::Empty(group)),
            (Ok(true), Ok(true)) => Some(Stray::Frozen(group)),
            _ => None,
        }
    };
    dirs.into_iter().filter_map(stray).collect()
}

/// The group of a chat's last handler, as its record tells; one with another name than a daemon gives for that start is nobody's to end.
pub(super) fn recorded(spawn: &SpawnRecord) -> Option<Group> {
    let dir = spawn.group.as_deref()?;
    let is_of_this_start = dir.file_name().and_then(OsStr::to_str).is_some_and(|name| {
        let nonce = name
            .strip_prefix("wg-")
            .and_then(|rest| rest.rsplit_once('-'));
        nonce.is_some_and(|(_, nonce)| !nonce.is_empty() && nonce == spawn.nonce)
    });
    is_of_this_start.then(|| Group::at(dir))
}

/// What a dead handler left in its group.
#[derive(Debug)]
pub(super) struct Left {
    group: Group,
    leader: Option<(u32, u64)>,
    started_at: Timestamp,
}

/// How much earlier than its record was written a process of a handler can have begun, for clocks that are read one after the other.
const SLACK: Duration = Duration::from_secs(2);

impl Left {
    /// Looks into the group of the chat's last handler. `None` while that lives, unless it is `to_end`, and where nobody is in it.
    pub(super) fn of(spawn: &SpawnRecord, to_end: Option<u32>) -> Option<Self> {
        let group = recorded(spawn)?;
        let leader = spawn.pid.zip(spawn.start_ticks);
        let lives = leader.is_some_and(|(pid, start)| tree::is_alive(pid, start));
        if lives && leader.map(|(pid, _)| pid) != to_end {
            return None;
        }
        group.is_populated().unwrap_or(false).then_some(Self {
            group,
            leader,
            started_at: spawn.at,
        })
    }

    /// Who is in it and can have come from the handler.
    pub(super) fn members(&self, workspace: &Workspace) -> Vec<u32> {
        let mut members = self.group.members().unwrap_or_default();
        members.retain(|pid| !self.is_stranger(*pid, workspace));
        members
    }

    /// Whether somebody moved this process here: it began before the handler did, or is the child of somebody who is none of ours.
    fn is_stranger(&self, pid: u32, workspace: &Workspace) -> bool {
        let born = match self.leader {
            Some((_, first)) => Born::After(first),
            None => Born::Unknown,
        };
        self.is_older(pid) || was_moved_in(&self.group, pid, born, &reap::marker(workspace, None))
    }

    fn is_older(&self, pid: u32) -> bool {
        let Some(start) = tree::start_ticks(pid) else {
            return false;
        };
        match self.leader {
            Some((_, first)) => start < first,
            // The daemon was killed before it could write down which process it had started.
            None => reap::age_of_ticks(start)
                .is_some_and(|age| age > clock::now().since(self.started_at) + SLACK),
        }
    }

    /// Ends them, and whoever carries the marker, and removes the group.
    pub(super) fn end(
        &self,
        workspace: &Workspace,
        marker: Option<&Marker>,
        within: Duration,
        is_exempt: &mut dyn FnMut(u32) -> bool,
    ) -> Result<Report, EndError> {
        let mut spared = |pid: u32| self.is_stranger(pid, workspace) || is_exempt(pid);
        let report = tree::end_with_group(&self.group, self.leader, marker, within, &mut spared)?;
        put_away(&self.group);
        Ok(report)
    }
}

/// What is known of who can have been given what a dead member of a handler's group left.
#[derive(Debug, Clone, Copy)]
pub(super) enum Born {
    /// This process alone: it is the subreaper above the handler, which it started itself.
    Here,
    /// An ancestor of the handler, which started at these clock ticks after the boot, and so nobody younger.
    After(u64),
    /// Nothing.
    Unknown,
}

/// Whether somebody moved this member of a handler's group in, provably: it does not carry the `marker`, and neither does its parent,
/// which is alive, outside of the group, and cannot have been given it by the kernel when its own parent ended.
pub(super) fn was_moved_in(group: &Group, pid: u32, born: Born, marker: &Marker) -> bool {
    let is_ours = |pid| reap::marker_of(pid).is_some_and(|value| value.starts_with(&marker.prefix));
    let Some(parent) = parent_of(pid).filter(|parent| *parent > 1) else {
        return false;
    };
    let is_too_young = match born {
        Born::Here => true,
        Born::After(first) => tree::start_ticks(parent).is_some_and(|start| start > first),
        Born::Unknown => false,
    };
    is_too_young
        && !group.has(parent)
        && !is_ancestor_of_ours(parent)
        && !is_ours(pid)
        && !is_ours(parent)
        // Whoever ended meanwhile has left it to somebody else.
        && parent_of(pid) == Some(parent)
}

fn is_ancestor_of_ours(pid: u32) -> bool {
    std::iter::successors(Some(std::process::id()), |pid| parent_of(*pid))
        .take_while(|pid| *pid > 0)
        .any(|ours| ours == pid)
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    parent.trim().parse().ok()
}

impl Daemon {
    /// Ends what a dead handler of this chat left, with its lock or in its control group; returns how many processes that were.
    pub(super) fn end_left(&self, chat: ChatId) -> usize {
        self.end_borrowers(chat) + self.end_group(chat)
    }

    fn end_group(&self, chat: ChatId) -> usize {
        let record = ChatRecord::load(&self.workspace, chat).ok();
        // One whose process is not known yet is only just being started, unless nothing is started here: then it was killed with its
        // service before that could be written down.
        let Some(left) = record
            .and_then(|record| record.spawn)
            .filter(|spawn| spawn.pid.is_some() || self.watch.get().is_none())
            .and_then(|spawn| Left::of(&spawn, None))
        else {
            return 0;
        };
        let mut is_exempt = |pid: u32| {
            let chats = self.chats.lock();
            let serves = chats.values().any(|entry| entry.handler == Some(pid));
            drop(chats);
            serves || self.is_exempt(pid)
        };
        match left.end(&self.workspace, None, BORROWERS, &mut is_exempt) {
            Ok(report) => {
                for process in &report.ended {
                    let text = format!(
                        "ended `{}` (pid {}), left behind in its control group by a dead handler",
                        process.name, process.pid
                    );
                    log::info!("Coordinator-{}: {text}", chat.0);
                    self.events.write(EventLine {
                        pid: Some(process.pid),
                        ..EventLine::new(Some(chat), EventKind::OrphanEnded, text)
                    });
                }
                report.ended.len()
            }
            Err(e) => {
                log::error!("{chat}: the control group could not be ended: {e}");
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::StartReason;

    #[test]
    fn a_record_leads_to_no_group_that_was_not_made_for_that_start() {
        let spawn = |nonce: &str, dir: &str| SpawnRecord {
            nonce: nonce.to_owned(),
            generation: 1,
            reason: StartReason::Message,
            actor: "test".to_owned(),
            at: clock::now(),
            pid: None,
            start_ticks: None,
            boot_id: None,
            log_from: 0,
            group: Some(PathBuf::from(dir)),
        };
        let leads = |nonce, dir| recorded(&spawn(nonce, dir)).is_some();
        assert!(leads("01ab", "/sys/fs/cgroup/a.scope/wg-fe00-5f3c-77-01ab"));
        for (nonce, dir) in [
            ("01ab", "/sys/fs/cgroup/system.slice"),
            ("01ab", "/sys/fs/cgroup/a.scope/wg-5f3c-01ac"),
            ("01ab", "/sys/fs/cgroup/a.scope/wg-5f3c-01ab/.."),
            ("01ab", "/sys/fs/cgroup/a.scope/5f3c-01ab"),
            ("", "/sys/fs/cgroup/a.scope/wg-5f3c-"),
            ("", "/"),
        ] {
            assert!(!leads(nonce, dir), "{dir}");
        }
    }
}
