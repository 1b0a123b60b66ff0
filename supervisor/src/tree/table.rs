//! One pass over `/proc`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;

use super::group::{Group, Inside};
use super::stat::{environment_end, read_entry, read_into};
use super::{Marker, Process};

/// What the rules need to know about one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    pub(crate) session: u32,
    pub(crate) start: u64,
    pub(crate) alive: bool,
    /// Whether the first thread has ended, and others may work on.
    pub(crate) headless: bool,
    /// How many threads it has.
    pub(crate) threads: u64,
    pub(crate) name: String,
    /// The environment variables that were asked for, as `NAME=VALUE`.
    pub(crate) carried: Vec<String>,
    pub(crate) environment: Environment,
}

/// What the environment of a process shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Environment {
    /// What it carries, or nobody asked.
    Shown,
    /// One of our own user that may not be read.
    Hidden,
    /// None yet: the process is becoming another program.
    NotYet,
}

impl Entry {
    pub(crate) fn process(&self) -> Process {
        Process {
            pid: self.pid,
            start: self.start,
            name: self.name.clone(),
        }
    }
}

/// All processes at one moment, as far as one pass can see a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    entries: HashMap<u32, Entry>,
    children: HashMap<u32, Vec<u32>>,
    groups: HashMap<u32, Vec<u32>>,
    sessions: HashMap<u32, Vec<u32>>,
    /// By `NAME=VALUE`, so that one pass answers for any number of markers.
    carriers: BTreeMap<String, Vec<u32>>,
    /// What control groups showed after the processes had been read.
    inside: HashMap<Group, Inside>,
    /// This process and what it descends from.
    untouchable: HashSet<u32>,
    /// Whether it was seen at one moment, so that nobody can have been missed.
    conclusive: bool,
    /// Whether it was known when the reading ended that there may be more.
    is_partial: bool,
}

impl Table {
    /// Reads all processes, and of those that started at `floor` or later the
    /// environment variables with these names.
    pub(crate) fn read(names: &[&str], floor: u64) -> io::Result<Self> {
        Self::list_and_look(&HashSet::new(), names, floor, MOST_LISTINGS)
    }

    /// Reads all processes but `dead`, which are known to have ended and are still pinned, so
    /// that nobody is below them and nobody else can have their pids.
    ///
    /// While somebody new who carries something comes with each listing, it is not gone on for
    /// long: they may be gone before they are signalled. Such a table is no proof of anything.
    pub(crate) fn read_but(dead: &HashSet<u32>, names: &[&str], floor: u64) -> io::Result<Self> {
        Self::list_and_look(dead, names, floor, LISTINGS_IN_A_CHASE)
    }

    /// Lists everybody and looks at whoever is new, again and again: until nobody is, or, after `enough` listings, until somebody new
    /// carries something.
    fn list_and_look(
        dead: &HashSet<u32>,
        names: &[&str],
        floor: u64,
        enough: usize,
    ) -> io::Result<Self> {
        let mut look = Look::new(names, floor);
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen = dead.clone();
        let mut is_a_chase = false;
        for listing in 1..=MOST_LISTINGS {
            let (before, known) = (seen.len(), entries.len());
            for item in fs::read_dir("/proc")? {
                let item = item?;
                if let Some(pid) = item.file_name().to_str().and_then(|name| name.parse().ok())
                    && seen.insert(pid)
                {
                    entries.extend(look.at(pid));
                }
            }
            // One that ended between the listing and the look may have started another one meanwhile. Only a listing of nobody new
            // says that whoever lives was looked at.
            if seen.len() == before {
                break;
            }
            let mut new = entries.iter().skip(known);
            is_a_chase =
                listing >= enough && new.any(|entry| entry.alive && !entry.carried.is_empty());
            if is_a_chase {
                break;
            }
        }
        let mut table = Self::from_entries(entries);
        table.is_partial = is_a_chase;
        Ok(table)
    }

    /// Reads only where descendants of a process can be: below these `roots`, and
    /// below those children of this process's ancestors that started at `floor` or
    /// later. `own` are children of this process that are not to be looked at.
    ///
    /// When a process ends, the kernel hands its children to its nearest ancestor
    /// that is a subreaper, else to the first process (see `PR_SET_CHILD_SUBREAPER`
    /// in prctl(2)). What a child of ours leaves behind is therefore found among
    /// the children of our ancestors, of the first process, or of ourselves, and
    /// whatever is below those. `inherits` says that this process is such a subreaper
    /// and was one when the roots started: then nothing can have got above it.
    ///
    /// Orphans become children of their new parent's first thread that has not ended,
    /// and so does a sibling that one of them makes. Those that a process started
    /// itself from its other threads are none of ours.
    pub(crate) fn read_near(
        names: &[&str],
        floor: u64,
        roots: &HashSet<u32>,
        own: &HashSet<u32>,
        inherits: bool,
    ) -> io::Result<Self> {
        let mut look = Look::new(names, floor);
        let me = std::process::id();
        let mut line = Vec::new();
        let mut at = me;
        while let Some(entry) = look.stat(at) {
            let parent = entry.parent;
            line.push(entry);
            if inherits || parent == 0 || line.iter().any(|entry| entry.pid == parent) {
                break;
            }
            at = parent;
        }
        let mut seen: HashSet<u32> = line.iter().map(|entry| entry.pid).collect();
        let mut reapers: Vec<(u32, bool)> = line
            .iter()
            .map(|entry| (entry.pid, entry.headless))
            .collect();
        if !inherits && seen.insert(1) {
            // In a container the line may end outside of it.
            reapers.push((1, true));
        }
        seen.extend(own.difference(roots));
        let mut entries = line;
        let mut queue = Vec::new();
        for root in roots {
            if !seen.insert(*root) {
                continue;
            }
            // The environment of a unit's own process is no evidence of anything.
            let entry = if own.contains(root) {
                look.stat(*root)
            } else {
                look.at(*root)
            };
            if let Some(entry) = entry {
                queue.push((*root, entry.threads));
                entries.push(entry);
            }
        }
        let mut children = Vec::new();
        let mut strangers = HashSet::new();
        let mut rounds = 0..MOST_LISTINGS;
        let mut is_complete = false;
        // As with everybody: who ends before he is looked at has handed his children on.
        while !is_complete && rounds.next().is_some() {
            is_complete = true;
            for (reaper, headless) in reapers.iter().copied() {
                let listed = if headless {
                    look.children(reaper, &mut children)
                } else {
                    look.inherited(reaper, &mut children)
                };
                if let Err(error) = listed {
                    // An ancestor that has ended handed its children to the next one,
                    // which is asked as well. One that only cannot be seen (`hidepid`)
                    // leaves a hole: then nearby is not enough.
                    if reaper == 1 || reaper == me || look.stat(reaper).is_some() {
                        return Err(error);
                    }
                }
                for child in children.drain(..) {
                    if seen.contains(&child) || strangers.contains(&child) {
                        continue;
                    }
                    let entry = look.at(child);
                    if entry.as_ref().is_some_and(|entry| entry.start < floor) {
                        strangers.insert(child);
                        continue;
                    }
                    is_complete = false;
                    if let Some(entry) = entry {
                        seen.insert(child);
                        queue.push((child, entry.threads));
                        entries.push(entry);
                    }
                }
            }
            while let Some((parent, threads)) = queue.pop() {
                let listed = if threads == 1 {
                    look.children_of_first(parent, &mut children)
                } else {
                    look.children(parent, &mut children)
                };
                // One that ended meanwhile has handed its children on, and they are found there.
                if listed.is_err() {
                    is_complete = false;
                    continue;
                }
                for child in children.drain(..) {
                    if !seen.insert(child) {
                        continue;
                    }
                    match look.at(child) {
                        Some(entry) => {
                            queue.push((child, entry.threads));
                            entries.push(entry);
                        }
                        None => is_complete = false,
                    }
                }
            }
        }
        Ok(Self::from_entries(entries))
    }

    /// Returns true if the kernel lists the children of a thread, which
    /// [`read_near`](Self::read_near) needs (`CONFIG_PROC_CHILDREN`).
    pub(crate) fn can_read_near() -> bool {
        fs::metadata("/proc/thread-self/children").is_ok()
    }

    /// Nobody, seen at one moment by [`Arrivals`](super::Arrivals).
    pub(crate) fn of_nobody() -> Self {
        Self {
            conclusive: true,
            ..Self::default()
        }
    }

    pub(crate) fn is_conclusive(&self) -> bool {
        self.conclusive
    }

    /// Returns true if somebody who carries something may have been missed, so that a look that finds nobody says nothing.
    pub(crate) fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// This table, as if its reading had broken off.
    #[cfg(test)]
    pub(crate) fn partial(self) -> Self {
        Self {
            is_partial: true,
            ..self
        }
    }

    pub(crate) fn from_entries(list: impl IntoIterator<Item = Entry>) -> Self {
        let mut table = Self::default();
        for entry in list {
            let pid = entry.pid;
            table.children.entry(entry.parent).or_default().push(pid);
            table.groups.entry(entry.group).or_default().push(pid);
            table.sessions.entry(entry.session).or_default().push(pid);
            for variable in &entry.carried {
                table
                    .carriers
                    .entry(variable.clone())
                    .or_default()
                    .push(pid);
            }
            table.entries.insert(pid, entry);
        }
        table.untouchable = table.upward(std::process::id()).into_iter().collect();
        table
    }

    pub(crate) fn get(&self, pid: u32) -> Option<&Entry> {
        self.entries.get(&pid)
    }

    /// Looks at a group, whose leader is told if it is not known yet whether it is in there. Done after
    /// the processes were read: a pid that is listed then is that of the process that was read
    /// before, or that one has ended and no signal reaches it.
    pub(crate) fn look_inside(&mut self, group: &Group, leader: Option<u32>) {
        match group.look(leader) {
            Ok(inside) => self.insert_inside(group, inside),
            // Then it is neither evidence nor proof.
            Err(error) => log::debug!("failed to look at `{}`: {error}", group.dir().display()),
        }
    }

    pub(crate) fn insert_inside(&mut self, group: &Group, inside: Inside) {
        self.inside.insert(group.clone(), inside);
    }

    pub(crate) fn inside(&self, group: &Group) -> Option<&Inside> {
        self.inside.get(group)
    }

    /// Shows `pid` as no longer alive, for a caller that ends what is below itself.
    pub(crate) fn hide(&mut self, pid: u32) {
        if let Some(entry) = self.entries.get_mut(&pid) {
            entry.alive = false;
        }
    }

    /// Returns what claims to be of the group or session that `pid` leads.
    pub(crate) fn members_of(&self, pid: u32) -> impl Iterator<Item = u32> {
        let groups = self.groups.get(&pid).into_iter().flatten();
        groups
            .chain(self.sessions.get(&pid).into_iter().flatten())
            .copied()
    }

    pub(crate) fn is_untouchable(&self, pid: u32) -> bool {
        pid <= 1 || self.untouchable.contains(&pid)
    }

    pub(crate) fn children_of(&self, pid: u32) -> &[u32] {
        self.children.get(&pid).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn carriers(&self, marker: &Marker) -> impl Iterator<Item = u32> {
        let from = format!("{}={}", marker.name, marker.prefix);
        self.carriers
            .range(from.clone()..)
            .take_while(move |(variable, _)| variable.starts_with(&from))
            .flat_map(|(_, pids)| pids.iter().copied())
    }

    pub(crate) fn unreadable(&self) -> u32 {
        let count = self
            .entries
            .values()
            .filter(|entry| entry.environment == Environment::Hidden)
            .count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Returns those that have no environment yet, by pid and start: nobody can say what they will carry.
    pub(crate) fn in_exec(&self) -> impl Iterator<Item = (u32, u64)> {
        let entries = self.entries.values();
        let in_exec = entries.filter(|entry| entry.environment == Environment::NotYet);
        in_exec.map(|entry| (entry.pid, entry.start))
    }

    /// Returns the processes below `pid`, nearest first.
    pub(crate) fn below(&self, pid: u32) -> Vec<&Entry> {
        let mut found: Vec<&Entry> = Vec::new();
        let mut queue = vec![pid];
        // A table that was read while pids were reused can hold a circle; each
        // pid is followed once.
        let mut seen = HashSet::from([pid]);
        while let Some(parent) = queue.pop() {
            for child in self.children_of(parent) {
                if seen.insert(*child) {
                    queue.push(*child);
                    found.extend(self.get(*child));
                }
            }
        }
        found
    }

    /// Returns the pids from `pid` up to the first process.
    pub(crate) fn upward(&self, pid: u32) -> Vec<u32> {
        let mut line = vec![pid];
        let mut at = pid;
        while let Some(entry) = self.get(at) {
            at = entry.parent;
            if at == 0 || line.contains(&at) {
                break;
            }
            line.push(at);
        }
        line
    }
}

/// Reads processes one by one.
struct Look<'a> {
    names: BTreeSet<&'a str>,
    floor: u64,
    own: u32,
    me: u32,
    buffer: Vec<u8>,
}

impl<'a> Look<'a> {
    fn new(names: &[&'a str], floor: u64) -> Self {
        let own = fs::metadata("/proc/self");
        Self {
            names: names.iter().copied().collect(),
            floor,
            own: own.map(|meta| owner(&meta)).unwrap_or_default(),
            me: std::process::id(),
            buffer: Vec::new(),
        }
    }

    fn stat(&mut self, pid: u32) -> Option<Entry> {
        read_entry(pid, &mut self.buffer)
    }

    /// Reads a process, and what was asked for of its environment if it is young.
    fn at(&mut self, pid: u32) -> Option<Entry> {
        let mut entry = self.stat(pid)?;
        if self.names.is_empty() || !entry.alive || entry.start < self.floor {
            return Some(entry);
        }
        self.look_into(&mut entry);
        Some(entry)
    }

    /// Reads what was asked for of the environment of a process.
    ///
    /// From when the kernel gives a process its new memory, in the middle of execve(2), until it has copied the new environment into it
    /// the environment reads as empty and its end as address 0 (field 51 of `/proc/<pid>/stat`, see proc(5)); loading a program from
    /// a slow disk lies in between. An environment that really is empty has its end somewhere.
    fn look_into(&mut self, entry: &mut Entry) {
        let pid = entry.pid;
        let mut end = None;
        for _ in 0..LOOKS {
            match read_into(&format!("/proc/{pid}/environ"), &mut self.buffer) {
                Ok(()) if self.buffer.is_empty() => {}
                Ok(()) => {
                    entry.carried = carried(&self.buffer, &self.names);
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    if real_user(pid, &mut self.buffer) == Some(self.own) {
                        entry.environment = Environment::Hidden;
                    }
                    return;
                }
                // It has ended meanwhile.
                Err(_) => return,
            }
            let now = environment_end(pid, &mut self.buffer);
            match now {
                Some(0) => break,
                // Nobody there, nothing that could have one, or an old kernel that does not tell.
                None => return,
                // It was the same program before and after the look, with nothing in its environment.
                Some(_) if now == end => return,
                Some(_) => end = now,
            }
        }
        entry.environment = Environment::NotYet;
    }

    /// Lists the children that the first thread of a process has, and if it is this
    /// process those of the calling thread.
    fn inherited(&mut self, pid: u32, children: &mut Vec<u32>) -> io::Result<()> {
        self.children_of_first(pid, children)?;
        if pid == self.me {
            // What a child made into a sibling of itself.
            self.children_in("/proc/thread-self/children", children)?;
        }
        Ok(())
    }

    /// Lists the children of the first thread of a process.
    fn children_of_first(&mut self, pid: u32, children: &mut Vec<u32>) -> io::Result<()> {
        self.children_in(&format!("/proc/{pid}/task/{pid}/children"), children)
    }

    /// Lists the children of all threads of a process.
    fn children(&mut self, pid: u32, children: &mut Vec<u32>) -> io::Result<()> {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.file_name();
            let Some(task) = task.to_str() else { continue };
            let list = format!("/proc/{pid}/task/{task}/children");
            // A thread ends and its children move to another one; the second
            // pass sees them there.
            if let Err(error) = self.children_in(&list, children) {
                log::debug!("failed to list the children of {pid}: {error}");
            }
        }
        Ok(())
    }

    fn children_in(&mut self, list: &str, children: &mut Vec<u32>) -> io::Result<()> {
        read_into(list, &mut self.buffer)?;
        let text = String::from_utf8_lossy(&self.buffer);
        let pids = text.split_ascii_whitespace();
        children.extend(pids.filter_map(|pid| pid.parse::<u32>().ok()));
        Ok(())
    }
}

fn carried(environment: &[u8], names: &BTreeSet<&str>) -> Vec<String> {
    let variables = environment.split(|byte| *byte == 0);
    let wanted = variables.filter(|variable| {
        let name = variable
            .split(|byte| *byte == b'=')
            .next()
            .unwrap_or_default();
        std::str::from_utf8(name).is_ok_and(|name| names.contains(name))
    });
    wanted
        .map(|variable| String::from_utf8_lossy(variable).into_owned())
        .collect()
}

/// How often everybody is listed at most, while each time there is somebody new.
const MOST_LISTINGS: usize = 50;

/// How often before those who were found are signalled, while each listing shows somebody new who may be one of them. Whoever lives for
/// milliseconds only is caught by looking little and signalling soon.
const LISTINGS_IN_A_CHASE: usize = 2;

/// How often an empty environment is looked at before whoever shows it counts as one that becomes another program again and again.
const LOOKS: u32 = 4;

fn owner(meta: &fs::Metadata) -> u32 {
    use std::os::unix::fs::MetadataExt;
    meta.uid()
}

/// The directory of a process that may not be looked into belongs to root, so its
/// user has to be taken from `status`.
fn real_user(pid: u32, buffer: &mut Vec<u8>) -> Option<u32> {
    read_into(&format!("/proc/{pid}/status"), buffer).ok()?;
    let text = String::from_utf8_lossy(buffer);
    let line = text.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::stat::{parse_stat, start_ticks};

    #[test]
    fn a_marker_is_the_start_of_a_value_of_exactly_its_variable() {
        let names = BTreeSet::from(["WG_X"]);
        let entry = |pid, environment: &[u8]| Entry {
            carried: carried(environment, &names),
            ..parse_stat(pid, b"7 (x) S 1 7 7 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 42 9 9").unwrap()
        };
        let table = Table::from_entries([
            entry(71, b"A=1\0WG_X=abc/7\0"),
            entry(72, b"A=WG_X=abc/7\0"),
            entry(73, b"WG_X=abd/7\0"),
            entry(74, b"WG_XY=abc/7\0"),
            entry(75, b"WG_X=abc/8\0"),
        ]);
        let marker = Marker {
            name: "WG_X".into(),
            prefix: "abc/".into(),
        };
        let mut found: Vec<u32> = table.carriers(&marker).collect();
        found.sort_unstable();
        assert_eq!(found, [71, 75]);
    }

    #[test]
    fn a_look_at_everything_leaves_out_only_the_dead_that_are_named() {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let ended = waitid(
            WaitId::Pid(pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        );
        let all = Table::read(&[], 0);
        let but = Table::read_but(&HashSet::from([child.id()]), &[], 0);
        child.wait().unwrap();
        ended.unwrap();
        let (all, but) = (all.unwrap(), but.unwrap());
        assert!(all.get(child.id()).is_some_and(|entry| !entry.alive));
        assert_eq!(but.get(child.id()), None);
        assert!(but.get(std::process::id()).is_some());
    }

    #[test]
    fn an_environment_that_is_empty_is_no_environment_that_is_still_to_come() {
        use std::io::Read;
        use std::process::{Command, Stdio};

        let mut child = Command::new("sh")
            .args(["-c", "echo; read -r end"])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let shown = Look::new(&["WG_X"], 0).at(pid);
        let end = environment_end(pid, &mut Vec::new());
        let mut seen = Vec::new();
        read_into(&format!("/proc/{pid}/environ"), &mut seen).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(shown.unwrap().environment, Environment::Shown);
        assert_eq!((seen, end == Some(0)), (vec![], false), "{end:?}");
        assert_eq!(environment_end(pid, &mut Vec::new()), None);
    }

    /// What the kernel does with orphans decides whether looking nearby is enough.
    #[test]
    fn orphans_that_left_their_session_are_found_nearby_as_well_as_everywhere() {
        use std::io::Read;
        use std::process::{Command, Stdio};

        let value = format!("near-{}", std::process::id());
        // The inner shell is an orphan in a session of its own when it writes.
        let script = "(setsid sh -c 'sleep 1000 & echo; wait' &)";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .env("SUPERVISOR_NEAR", &value)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let floor = start_ticks(child.id()).unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        child.wait().unwrap();

        let marker = Marker {
            name: "SUPERVISOR_NEAR".into(),
            prefix: value,
        };
        let names = ["SUPERVISOR_NEAR"];
        let none = HashSet::new();
        let near = Table::read_near(&names, floor, &none, &none, false);
        let everywhere = Table::read(&names, floor);
        let ended = crate::tree::end(
            None,
            Some(&marker),
            std::time::Duration::from_secs(10),
            &mut |_| false,
        );
        let carriers = |table: io::Result<Table>| -> BTreeSet<u32> {
            table.unwrap().carriers(&marker).collect()
        };
        let (near, everywhere) = (carriers(near), carriers(everywhere));
        assert_eq!(near, everywhere);
        assert_eq!(everywhere.len(), 2);
        assert_eq!(ended.unwrap().ended.len(), 2);
    }
}
