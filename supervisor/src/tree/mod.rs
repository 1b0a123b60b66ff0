//! Processes below a process: finding them, and ending them with proof.
//!
//! A signal to a process group does not reach a tool that made a session of its
//! own, and a parent that died no longer leads to its children. So several kinds of
//! evidence are put together: the parent pids below a leader that lives, the
//! group and session that a dead leader still pins, an environment marker
//! that every descendant inherited, and, where there is one, a control group ([`Group`])
//! that none of them leaves by being born, orphaned or renamed. A process is signalled only through a
//! descriptor that was opened before its identity was read again, or with its whole group.

mod arrivals;
mod end;
mod group;
mod stat;
mod sweep;
mod table;

use std::io;

use nix::sys::prctl::get_child_subreaper;

use crate::clock;

pub(crate) use arrivals::Arrivals;
pub use end::{EndError, end, end_with_group};
pub(crate) use end::{FREEZES_WITHIN, carry_out, open};
pub use group::Group;
pub use stat::{is_alive, process, start_ticks};
pub(crate) use sweep::{Next, Order, OrderKind, Sweep, Target};
pub(crate) use table::Table;

pub use crate::sys::send;

/// A process, named well enough not to be mistaken for a later one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start: u64,
    /// Its command name, at most 15 bytes.
    pub name: String,
}

/// An environment variable that everything below a unit inherits: its carriers
/// are that unit's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Marker {
    /// The name of the variable.
    pub name: String,
    /// What its value starts with.
    pub prefix: String,
}

/// What came of ending a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Descendants that were ended by a signal of ours.
    pub ended: Vec<Process>,
    /// Descendants that are still there.
    pub survivors: Vec<Process>,
    /// Processes of our own user, young enough to be descendants, whose
    /// environment could not be read.
    pub unreadable: u32,
}

impl Report {
    /// Returns true if something may have been overlooked, because the evidence
    /// of an environment could not be had.
    #[must_use]
    pub fn best_effort(&self) -> bool {
        self.unreadable > 0
    }
}

/// Returns true if the kernel hands the orphans of this process's descendants to it.
pub(crate) fn is_subreaper() -> bool {
    std::process::id() == 1 || get_child_subreaper().is_ok_and(|set| set)
}

/// Returns every process below `pid` by parent pids, without `pid` itself.
///
/// # Errors
///
/// Returns an error if `/proc` cannot be read.
pub fn descendants(pid: u32) -> io::Result<Vec<Process>> {
    let table = Table::read(&[], 0)?;
    Ok(table
        .below(pid)
        .into_iter()
        .map(table::Entry::process)
        .collect())
}

/// Returns every process that carries `marker`, and how many of our own user's
/// could not be read. While somebody is just becoming another program, so that what he
/// carries does not show, everybody is looked at again, for 50 ms or a little longer at most.
///
/// # Errors
///
/// Returns an error if `/proc` cannot be read.
pub fn carriers(marker: &Marker) -> io::Result<(Vec<Process>, u32)> {
    let mut table = Table::read(&[&marker.name], 0)?;
    for _ in 0..sweep::MOST_EXEC_ROUNDS {
        if table.in_exec().next().is_none() {
            break;
        }
        end::wait_for_deaths(Vec::new(), clock::now() + FREEZES_WITHIN);
        table = Table::read(&[&marker.name], 0)?;
    }
    let carriers = table.carriers(marker).filter_map(|pid| table.get(pid));
    Ok((
        carriers.map(table::Entry::process).collect(),
        table.unreadable(),
    ))
}
