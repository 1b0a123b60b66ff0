//! What runs below this process: looked at for progress and memory, ended when a turn is over.
//!
//! A handler is a child subreaper: whatever its agent starts stays below it, through any double fork or new session. It
//! starts nothing but its agent, so everything below it belongs to the agent.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use exit_classifier::memory;
use supervisor::tree;

use crate::clock;
use crate::lock_holders;

/// One process below another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    /// Clock ticks after boot; with the pid it names one process for ever.
    start: u64,
    zombie: bool,
    /// Whether a signal or a debugger has stopped it.
    pub(crate) stopped: bool,
    /// User and system time of the process and of the children that it has waited for.
    cpu_ticks: u64,
}

/// Reads one line of `/proc/<pid>/stat`.
///
/// The second field is the program's name in parentheses and may hold anything, so the fields are counted from the last
/// parenthesis on.
fn parse_stat(pid: u32, line: &str) -> Option<Process> {
    let rest = &line[line.rfind(')')? + 1..];
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<u64>().ok())
    };
    // Fields 14 to 17 are utime, stime, cutime and cstime; a negative count of waited-for children is read as none.
    let cpu_ticks = (11..15).map(|index| number(index).unwrap_or(0)).sum();
    Some(Process {
        pid,
        parent: u32::try_from(number(1)?).ok()?,
        start: number(19)?,
        zombie: matches!(*fields.first()?, "Z" | "X"),
        stopped: matches!(*fields.first()?, "T" | "t"),
        cpu_ticks,
    })
}

/// Returns every process below `root`, without `root` itself; zombies included.
pub(crate) fn below(root: u32) -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut children: HashMap<u32, Vec<Process>> = HashMap::new();
    for entry in entries.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // A process that ended since the directory was read has no file any more.
        let Ok(line) = std::fs::read(entry.path().join("stat")) else {
            continue;
        };
        if let Some(process) = parse_stat(pid, &String::from_utf8_lossy(&line)) {
            children.entry(process.parent).or_default().push(process);
        }
    }
    let mut found = children.remove(&root).unwrap_or_default();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        let below = children.remove(&process.pid).unwrap_or_default();
        found.extend(below);
        next += 1;
    }
    found
}

/// Returns the CPU time of everything below `root`, in clock ticks.
pub(crate) fn cpu_ticks(tree: &[Process]) -> u64 {
    tree.iter().map(|process| process.cpu_ticks).sum()
}

/// Returns what a tree and its root have in memory, in bytes, mapped files not counted.
///
/// Pages that several of them share are counted once for each.
pub(crate) fn memory(root: u32, tree: &[Process]) -> u64 {
    let pids = tree.iter().map(|process| process.pid).chain([root]);
    // One that has ended since the tree was looked at has nothing any more.
    pids.filter_map(|pid| memory::resident(pid).ok())
        .fold(0, |sum, resident| sum.saturating_add(resident.bytes))
}

/// A live process that cannot be mistaken for a later one with the same number.
struct Pinned {
    process: Process,
    fd: OwnedFd,
}

impl Pinned {
    /// Opens the process, unless it is gone or its number belongs to another one by now.
    fn open(process: Process) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(process.pid).ok()?)?;
        let fd = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
        // Between the scan and the open the number may have passed to another process.
        let line = std::fs::read(format!("/proc/{}/stat", process.pid)).ok()?;
        let now = parse_stat(process.pid, &String::from_utf8_lossy(&line))?;
        (now.start == process.start && !now.zombie).then_some(Self { process, fd })
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.fd, signal) {
            log::debug!("process {} took no signal: {error}", self.process.pid);
        }
    }
}

/// Reaps every child that has ended, except the one named.
///
/// As a subreaper this process inherits what its agent's tools leave behind, also while the agent still runs; each one is
/// a process number that is missing until it is reaped.
pub(crate) fn reap_strays(keep: Option<u32>) {
    let me = std::process::id();
    for process in below(me) {
        if process.parent == me && process.zombie && Some(process.pid) != keep {
            reap(process.pid);
        }
    }
}

fn reap(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    if let Err(error) = waitid(
        WaitId::Pid(pid),
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
    ) {
        log::debug!("child {pid:?} was not reaped: {error}");
    }
}

/// How long what an agent left running may take to end by itself once it is told to.
pub(crate) const LEFTOVER_GRACE: Duration = Duration::from_secs(2);

/// How long a process that got SIGKILL is waited for before it is called a survivor.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// How gently what is left of an agent is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// SIGTERM, then force after this long.
    Gently(Duration),
    /// Force at once.
    ByForce,
}

/// What came of ending what an agent left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Processes that were alive and are gone now.
    pub(crate) count: u32,
    /// Processes that outlived SIGKILL, such as one in a call that cannot be interrupted.
    pub(crate) survivors: Vec<u32>,
}

/// Ends everything below this process, except `keep`, a child that has ended and is not reaped yet, and except the
/// `exempt` processes, whoever else holds a service's or a session's lock, and what is below them.
pub(crate) fn end_below(
    keep: Option<u32>,
    manner: Manner,
    exempt: &dyn Fn() -> HashSet<u32>,
) -> Ended {
    let me = std::process::id();
    reap_strays(keep);
    if alive_below(me).is_empty() {
        // Most turns leave nobody behind, and then nothing has to be looked up.
        return Ended::default();
    }
    let mut exempt = exempt();
    let mut seen = HashSet::new();
    if let Manner::Gently(grace) = manner {
        let below = alive_below(me).into_iter().map(|process| process.pid);
        exempt.extend(below.filter(|pid| lock_holders::holds_a_lock(*pid)));
        let spared = below_any(&exempt);
        let pinned: Vec<Pinned> = alive_below(me)
            .into_iter()
            .filter(|process| !exempt.contains(&process.pid) && !spared.contains(&process.pid))
            .filter_map(Pinned::open)
            .collect();
        for process in &pinned {
            seen.insert((process.process.pid, process.process.start));
            process.signal(Signal::TERM);
            // A stopped process takes the signal only when it runs again.
            process.signal(Signal::CONT);
        }
        wait_gone(pinned, clock::steady() + grace);
    }
    let leader = tree::start_ticks(me).map(|start| (me, start));
    let mut survivors = Vec::new();
    match tree::end(leader, None, KILL_PATIENCE, &mut |pid| {
        exempt.contains(&pid) || lock_holders::holds_a_lock(pid)
    }) {
        Ok(report) => {
            seen.extend(
                report
                    .ended
                    .iter()
                    .map(|process| (process.pid, process.start)),
            );
            for process in report.survivors {
                seen.remove(&(process.pid, process.start));
                survivors.push(process.pid);
            }
        }
        Err(error) => log::error!("what the agent left behind could not be ended: {error}"),
    }
    reap_strays(keep);
    Ended {
        count: u32::try_from(seen.len()).unwrap_or(u32::MAX),
        survivors,
    }
}

/// Ends one process and everything below it by force; returns whether nobody of them is left.
pub(crate) fn end_tree(pid: u32, exempt: &HashSet<u32>) -> bool {
    let Some(start) = tree::start_ticks(pid) else {
        return true;
    };
    match tree::end(Some((pid, start)), None, KILL_PATIENCE, &mut |pid| {
        exempt.contains(&pid) || lock_holders::holds_a_lock(pid)
    }) {
        Ok(report) => report.survivors.is_empty(),
        Err(error) => {
            log::warn!("process {pid} could not be ended: {error}");
            false
        }
    }
}

fn alive_below(root: u32) -> Vec<Process> {
    below(root)
        .into_iter()
        .filter(|process| !process.zombie)
        .collect()
}

fn below_any(roots: &HashSet<u32>) -> HashSet<u32> {
    roots
        .iter()
        .flat_map(|root| below(*root))
        .map(|process| process.pid)
        .collect()
}

/// Waits until all of them have ended or the deadline has passed, and returns who is left.
fn wait_gone(mut pinned: Vec<Pinned>, deadline: Instant) -> Vec<u32> {
    while !pinned.is_empty() {
        let left = deadline.saturating_duration_since(clock::steady());
        if left.is_zero() {
            break;
        }
        let mut fds: Vec<PollFd<'_>> = pinned
            .iter()
            .map(|process| PollFd::from_borrowed_fd(process.fd.as_fd(), PollFlags::IN))
            .collect();
        if let Err(error) = poll(&mut fds, Timespec::try_from(left).ok().as_ref())
            && error != rustix::io::Errno::INTR
        {
            log::warn!("failed to wait for processes that were ended: {error}");
            break;
        }
        let gone: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let mut gone = gone.into_iter();
        pinned.retain(|_| !gone.next().unwrap_or(false));
    }
    pinned
        .into_iter()
        .map(|process| process.process.pid)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_may_hold_parentheses_and_spaces() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 987654 0 0";
        let process = parse_stat(42, line).unwrap();
        assert_eq!(
            (process.parent, process.start, process.cpu_ticks),
            (7, 987_654, 100)
        );
        assert!(!process.zombie);
    }

    #[test]
    fn a_line_that_is_cut_off_is_no_process() {
        assert_eq!(parse_stat(42, "42 (sh) S 7 42"), None);
        assert_eq!(parse_stat(42, ""), None);
    }

    #[test]
    fn this_process_is_below_its_parent() {
        let me = std::process::id();
        assert!(
            below(std::os::unix::process::parent_id())
                .iter()
                .any(|process| process.pid == me)
        );
    }
}
