//! Processes that stand still: a signal or a debugger has stopped them, so they live, keep what they have, and do nothing until somebody
//! lets them go on. Who does, and the words for it, which are the same wherever they are said.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use session_lock::{HeldReason, Holder};

use crate::handler::tree;
use crate::lock_holders;

/// How often whoever waits for somebody looks whether that one stands still. Two looks in a row decide: under a debugger, or between two
/// jobs of a shell, a process may stand still for an instant.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(150);

/// A process that stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standstill {
    /// The process.
    pub pid: u32,
    /// Which one it is, and that it stands still: one sentence.
    pub text: String,
    /// The command that lets it go on; none where a debugger has it.
    pub cure: Option<String>,
}

/// What stopped a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Signal,
    /// The debugger with this number, 0 where it cannot be seen from here.
    Debugger(u32),
}

impl Standstill {
    /// This process, if it stands still.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Self::named(pid, &format!("pid {pid}"), "does nothing")
    }

    fn named(pid: u32, who: &str, therefore: &str) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(Self::told(pid, stopped_by(&status)?, who, therefore))
    }

    fn told(pid: u32, by: By, who: &str, therefore: &str) -> Self {
        let what = match by {
            By::Signal => "was stopped by a signal".to_owned(),
            By::Debugger(0) => "stands still in a debugger".to_owned(),
            By::Debugger(debugger) => format!("stands still in a debugger (pid {debugger})"),
        };
        Self {
            pid,
            text: format!("{who} {what} and {therefore}"),
            cure: (by == By::Signal).then(|| format!("kill -CONT {pid}")),
        }
    }

    /// What a person can do, for the end of a sentence.
    #[must_use]
    pub fn advice(&self) -> String {
        match &self.cure {
            Some(command) => format!("{command} lets it go on"),
            None => "leave the debugger to let it go on".to_owned(),
        }
    }

    /// Everything in one line: who, and what helps.
    #[must_use]
    pub fn to_line(&self) -> String {
        format!("{} ({})", self.text, self.advice())
    }
}

/// The daemon that has the lock of this service directory, if it stands still.
pub(crate) fn of_service(service_dir: &Path) -> Option<Standstill> {
    of_service_process(lock_holders::of_here(service_dir)?)
}

/// Why a lock counts as held, and that its holder stands still if it does.
pub(crate) fn reason(reason: &HeldReason, holder: Option<&Holder>) -> String {
    // Of these the number may be somebody else's here.
    let is_another = matches!(
        reason,
        HeldReason::Inherited { .. } | HeldReason::OtherHost | HeldReason::OtherNamespace
    );
    let holder = holder.filter(|_| !is_another);
    match holder.and_then(|holder| Standstill::of(holder.pid)) {
        Some(stands_still) => format!("{reason}; {}", stands_still.to_line()),
        None => reason.to_string(),
    }
}

/// This daemon, if it stands still.
pub(crate) fn of_service_process(pid: u32) -> Option<Standstill> {
    Standstill::named(pid, &format!("the service (pid {pid})"), "does not answer")
}

/// Whoever of a handler and everything below it stands still; of several, one below the other, the uppermost.
pub(crate) fn of_tree(handler: u32) -> Vec<Standstill> {
    let own = Standstill::of(handler);
    let below = tree::below(handler);
    let uppermost = below.iter().filter(|process| {
        let parent = below.iter().find(|other| other.pid == process.parent);
        process.stopped && parent.is_none_or(|parent| !parent.stopped)
    });
    let below = uppermost.filter_map(|process| {
        let name = fs::read_to_string(format!("/proc/{}/comm", process.pid)).ok()?;
        let who = format!(
            "pid {} ({}), below its handler,",
            process.pid,
            name.trim_end()
        );
        Standstill::named(process.pid, &who, "does nothing")
    });
    own.into_iter().chain(below).collect()
}

/// Whoever keeps the chat whose session is in `session` from answering because he stands still: the one who serves it, his agent, or the
/// service.
pub(crate) fn in_the_way(service_dir: &Path, session: &Path) -> Vec<Standstill> {
    let served = lock_holders::of_here(session).map(of_tree);
    of_service(service_dir)
        .into_iter()
        .chain(served.into_iter().flatten())
        .collect()
}

/// What somebody who waits has been told already.
#[derive(Debug, Default)]
pub(crate) struct Told(Vec<Standstill>);

impl Told {
    /// Takes in who stands still now; returns those of whom nothing was said since they last went on.
    pub(crate) fn news(&mut self, now: Vec<Standstill>) -> Vec<Standstill> {
        let before = std::mem::replace(&mut self.0, now);
        let is_new = |one: &&Standstill| !before.contains(one);
        self.0.iter().filter(is_new).cloned().collect()
    }
}

/// What has stopped the process of this `/proc/PID/status`, if it stands still; see `proc_pid_status(5)`.
fn stopped_by(status: &str) -> Option<By> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()
    };
    match field("State:")? {
        "T" => Some(By::Signal),
        "t" => Some(By::Debugger(
            field("TracerPid:")
                .and_then(|pid| pid.parse().ok())
                .unwrap_or(0),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_stopped_is_told_with_what_lets_it_go_on() {
        let told = |status: &str| {
            let by = stopped_by(status)?;
            Some(Standstill::told(7, by, "pid 7", "does nothing").to_line())
        };
        for (state, line) in [
            ("S (sleeping)\nTracerPid:\t9", None),
            ("Z (zombie)\nTracerPid:\t0", None),
            (
                "T (stopped)\nTracerPid:\t0",
                Some("pid 7 was stopped by a signal and does nothing (kill -CONT 7 lets it go on)"),
            ),
            (
                "t (tracing stop)\nTracerPid:\t9",
                Some(
                    "pid 7 stands still in a debugger (pid 9) and does nothing (leave the debugger to let it go on)",
                ),
            ),
            (
                "t (tracing stop)\nTracerPid:\t0",
                Some(
                    "pid 7 stands still in a debugger and does nothing (leave the debugger to let it go on)",
                ),
            ),
        ] {
            let status = format!("Name:\tT\nState:\t{state}\nPPid:\t1\n");
            assert_eq!(told(&status).as_deref(), line, "{status}");
        }
        assert_eq!(stopped_by(""), None);
    }

    #[test]
    fn whoever_waits_is_told_once_and_again_when_it_happens_again() {
        let one = Standstill::told(7, By::Signal, "pid 7", "does nothing");
        let other = Standstill::told(8, By::Signal, "pid 8", "does nothing");
        let mut told = Told::default();
        let first = std::slice::from_ref(&one);
        assert_eq!(told.news(first.to_vec()), first);
        assert_eq!(told.news(vec![one.clone(), other.clone()]), [other]);
        assert_eq!(told.news(Vec::new()), []);
        assert_eq!(told.news(first.to_vec()), first);
    }
}
