use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};

use crossbeam_channel::Sender;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};

use super::handle::Down;
use super::host::Ladder;
use crate::tree::{Group, Marker, Report, Sweep, Target};
use crate::{Generation, Machine, Moment};

/// One unit. Without a process it is its machine and little more.
#[derive(Debug)]
pub(super) struct Unit {
    /// As it came: a table of these that grows moves pointers.
    pub(super) machine: Box<Machine>,
    pub(super) run: Option<Box<Run>>,
    pub(super) watch: Option<Watch>,
    /// The machine's deadline as it stands in the timers.
    pub(super) deadline: Option<Moment>,
    /// Who waits for it to be down.
    pub(super) waiting: Vec<Sender<Down>>,
    pub(super) removing: bool,
}

/// The process that holds the unit's place.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) token: u64,
    pub(super) descriptor: OwnedFd,
}

/// One process of a unit, until it and all that it left behind are gone.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) pid: u32,
    pub(super) start_ticks: u64,
    pub(super) generation: Generation,
    /// `None` for an adopted process, which somebody else reaps.
    pub(super) child: Option<Child>,
    /// `None` for an adopted process that was gone already.
    pub(super) descriptor: Option<OwnedFd>,
    pub(super) token: Option<u64>,
    pub(super) since: Moment,
    pub(super) gone_at: Option<Moment>,
    pub(super) stop_asked: bool,
    pub(super) stage: Stage,
    pub(super) ladder: Option<Ladder>,
    pub(super) marker: Option<Marker>,
    /// The control group that it enters before it starts anything.
    pub(super) group: Option<Group>,
    /// Whether what comes to this process from a dead parent is this unit's.
    pub(super) orphans: bool,
    /// Whether the calling program was a subreaper when this process started, so that
    /// the kernel hands every orphan of it to the calling program.
    pub(super) inherited: bool,
    pub(super) sweep: Option<Sweep>,
    /// Descriptors of what was killed and is not gone yet, by their tokens.
    pub(super) dying: HashMap<u64, OwnedFd>,
    /// When the stage's timer is due, as it stands in the timers.
    pub(super) timer: Option<Moment>,
    /// When those that are still there are called survivors.
    pub(super) give_up_at: Option<Moment>,
    /// How often the status of an adopted process was asked for.
    pub(super) asked: u32,
    pub(super) report: Report,
    pub(super) status: Option<ExitStatus>,
}

/// How far the end of a process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It runs.
    Up,
    /// A stop begins: what is below it is looked at before it is asked to leave.
    Observing,
    /// It has been asked to leave by this step of the ladder.
    Asked(usize),
    /// What is left is being ended.
    Sweeping,
    /// All are gone; the status of an adopted process is not known yet.
    AwaitingStatus,
}

impl Unit {
    /// Returns true if somebody was promised that nobody is left.
    pub(super) fn wants_proof(&self) -> bool {
        !self.waiting.is_empty() || self.run.as_ref().is_some_and(|run| run.stop_asked)
    }
}

impl Run {
    /// Returns a run that is up and that nobody watches yet.
    pub(super) fn new(
        pid: u32,
        start_ticks: u64,
        generation: Generation,
        since: Moment,
        marker: Option<Marker>,
    ) -> Self {
        Self {
            pid,
            start_ticks,
            generation,
            child: None,
            descriptor: None,
            token: None,
            since,
            gone_at: None,
            stop_asked: false,
            stage: Stage::Up,
            ladder: None,
            marker,
            group: None,
            orphans: false,
            inherited: false,
            sweep: None,
            dying: HashMap::new(),
            timer: None,
            give_up_at: None,
            asked: 0,
            report: Report::default(),
            status: None,
        }
    }

    /// Looks at how a child ended and leaves it as it is: until it is reaped, which is
    /// when everything that it left behind is gone, nobody else can get its pid or
    /// make a group of that name.
    pub(super) fn look(&mut self) {
        if self.child.is_none() {
            return;
        }
        let Some(descriptor) = &self.descriptor else {
            return;
        };
        let looks = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(descriptor.as_fd()), looks) {
            Ok(seen) => self.status = seen.and_then(|seen| wait_status(&seen)),
            Err(error) => log::debug!("failed to look at pid {}: {error}", self.pid),
        }
    }

    pub(super) fn target(&self) -> Target {
        Target {
            leader: Some((self.pid, self.start_ticks)),
            // A child stays a zombie until the sweep is done, so that nobody else
            // can get its pid, nor a group of that name.
            pinned: self.child.is_some() || self.gone_at.is_none(),
            floor: self.start_ticks,
            marker: self.marker.clone(),
            orphans: self.orphans,
            group: self.group.clone(),
        }
    }
}

/// Puts what waitid(2) tells in pieces into the one number of wait(2).
fn wait_status(seen: &WaitIdStatus) -> Option<ExitStatus> {
    const CORE: i32 = 0x80;
    let raw = match (seen.exit_status(), seen.terminating_signal()) {
        (Some(code), _) => (code & 0xff) << 8,
        (None, Some(signal)) if seen.dumped() => signal | CORE,
        (None, Some(signal)) => signal,
        (None, None) => return None,
    };
    Some(ExitStatus::from_raw(raw))
}

#[cfg(test)]
mod tests {
    use super::{Machine, Run, Unit};

    #[test]
    fn a_unit_without_a_process_costs_less_than_a_kibibyte_and_one_with_less_than_two() {
        // A table that has just grown is half empty.
        let idle = 2 * size_of::<Unit>() + size_of::<Machine>();
        assert!(idle < 1_024, "{idle} bytes");
        let running = idle + size_of::<Run>();
        assert!(running < 2_048, "{running} bytes");
    }
}
