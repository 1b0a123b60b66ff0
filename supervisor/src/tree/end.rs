//! Ending a tree from a thread that may wait.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::stat::read_entry;
use super::{Group, Marker, Next, Order, OrderKind, Report, Sweep, Table, Target};
use crate::clock;

/// Ends `leader`, everything below it and everything that carries `marker`: frozen
/// first, leaves before parents, until two passes over all processes find nobody.
/// If `leader` is the calling process, it is spared.
///
/// `leader` names a process by pid and start time (see [`start_ticks`](super::start_ticks));
/// it may have ended already. `is_exempt` is asked about each process that is
/// found; an exempt process and everything below it stays. Gives up after `within`
/// and names the survivors in the report. Blocks; the wait is for deaths, not for
/// time to pass.
///
/// # Errors
///
/// Returns an error if `/proc` cannot be read.
pub fn end(
    leader: Option<(u32, u64)>,
    marker: Option<&Marker>,
    within: Duration,
    is_exempt: &mut dyn FnMut(u32) -> bool,
) -> Result<Report, EndError> {
    end_all(leader, marker, None, within, is_exempt)
}

/// Does what [`end`] does, and ends whoever is in the control group of `leader` as well, in one go if
/// nobody in it is exempt. Who is older than `leader` is none of its descendants.
///
/// # Errors
///
/// Returns an error if `/proc` cannot be read.
pub fn end_with_group(
    group: &Group,
    leader: Option<(u32, u64)>,
    marker: Option<&Marker>,
    within: Duration,
    is_exempt: &mut dyn FnMut(u32) -> bool,
) -> Result<Report, EndError> {
    end_all(leader, marker, Some(group), within, is_exempt)
}

fn end_all(
    leader: Option<(u32, u64)>,
    marker: Option<&Marker>,
    group: Option<&Group>,
    within: Duration,
    is_exempt: &mut dyn FnMut(u32) -> bool,
) -> Result<Report, EndError> {
    let leader = leader.filter(|(pid, _)| *pid > 1);
    let floor = leader.map_or(0, |(_, start)| start);
    let own = leader.is_some_and(|(pid, _)| pid == std::process::id());
    // The calling process goes on, so that it is no victim, only a parent.
    let target = Target {
        leader,
        pinned: false,
        floor,
        marker: marker.cloned(),
        orphans: false,
        group: group.cloned(),
    };
    let mut sweep = Sweep::new(target);
    let until = clock::now() + within;
    let names: Vec<&str> = marker.iter().map(|marker| marker.name.as_str()).collect();
    loop {
        let mut table = Table::read_but(&HashSet::new(), &names, floor)
            .map_err(|source| EndError { source })?;
        if own {
            table.hide(std::process::id());
        }
        if let Some((group, leader)) = sweep.group() {
            table.look_inside(group, leader);
        }
        let (orders, next) = sweep.pass(&table, is_exempt);
        let dying = carry_out(&mut sweep, &orders);
        let now = clock::now();
        // Nobody is given up on before he was killed once, or he would stay frozen.
        if next == Next::Done || (now >= until && sweep.is_killing()) {
            sweep.give_up();
            carry_out(&mut sweep, &[]);
            return Ok(sweep.report(&table));
        }
        match next {
            Next::AfterDeaths => wait_for_deaths(dying, now + LONGEST_WAIT),
            Next::Soon => wait_for_deaths(dying, now + FREEZES_WITHIN),
            Next::Again | Next::Done => {}
        }
    }
}

/// A process may be killed and stay for a while (in the kernel, or until somebody
/// thaws it); looking again from time to time notices what changed meanwhile.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// A group that was told to stand still is looked at again after this long.
pub(crate) const FREEZES_WITHIN: Duration = Duration::from_millis(1);

/// Does what was ordered, and returns descriptors that tell of the deaths.
pub(crate) fn carry_out(sweep: &mut Sweep, orders: &[Order]) -> Vec<OwnedFd> {
    let thaw = sweep.take_thaw();
    let Some(group) = sweep.target().group.as_ref() else {
        return orders.iter().filter_map(execute).collect();
    };
    if thaw && let Err(error) = group.thaw() {
        log::warn!("failed to thaw `{}`: {error}", group.dir().display());
    }
    let (together, singly): (Vec<&Order>, Vec<&Order>) =
        orders.iter().partition(|order| order.by_group);
    let mut dying: Vec<OwnedFd> = singly.into_iter().filter_map(execute).collect();
    for kind in [OrderKind::Freeze, OrderKind::Kill] {
        let members: Vec<&Order> = together
            .iter()
            .copied()
            .filter(|order| order.kind == kind)
            .collect();
        if members.is_empty() {
            continue;
        }
        let (done, watched) = match kind {
            OrderKind::Freeze => (group.freeze(), Vec::new()),
            OrderKind::Kill => {
                // Opened while they are there to be opened.
                let open = |order: &&Order| open_verified(order.process.pid, order.process.start);
                let watched = members.iter().filter_map(open).collect();
                (group.kill(), watched)
            }
        };
        match done {
            Ok(()) => dying.extend(watched),
            Err(error) => {
                log::debug!(
                    "one by one, because `{}` failed: {error}",
                    group.dir().display()
                );
                dying.extend(members.into_iter().filter_map(execute));
            }
        }
    }
    dying
}

/// Sends what was ordered and returns a descriptor that tells of the death.
///
/// The descriptor is opened first and the identity read after that: if they
/// match, the descriptor is of the process that was meant, whatever becomes of
/// the pid.
fn execute(order: &Order) -> Option<OwnedFd> {
    let signal = match order.kind {
        OrderKind::Freeze => Signal::STOP,
        OrderKind::Kill => Signal::KILL,
    };
    let descriptor = open_verified(order.process.pid, order.process.start)?;
    match pidfd_send_signal(&descriptor, signal) {
        Ok(()) => (order.kind == OrderKind::Kill).then_some(descriptor),
        Err(error) => {
            log::debug!("failed to signal pid {}: {error}", order.process.pid);
            None
        }
    }
}

/// Opens the process with this pid if it still is the one that started then.
fn open_verified(pid: u32, start: u64) -> Option<OwnedFd> {
    if pid <= 1 {
        return None;
    }
    let descriptor = open(pid).ok()?;
    let entry = read_entry(pid, &mut Vec::new())?;
    (entry.start == start).then_some(descriptor)
}

pub(crate) fn open(pid: u32) -> io::Result<OwnedFd> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = raw.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)
}

/// Returns when all of these have ended, or at `until`.
pub(super) fn wait_for_deaths(mut descriptors: Vec<OwnedFd>, until: crate::Moment) {
    loop {
        let left = until.since(clock::now());
        if left.is_zero() {
            return;
        }
        let mut watched: Vec<PollFd<'_>> = descriptors
            .iter()
            .map(|fd| PollFd::new(fd, PollFlags::IN))
            .collect();
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        // An interrupted wait is a short one.
        if let Err(error) = poll(&mut watched, Some(&timeout)) {
            log::debug!("failed to wait for a death: {error}");
            return;
        }
        let ended: Vec<bool> = watched.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ended = ended.into_iter();
        descriptors.retain(|_| !ended.next().unwrap_or(true));
        if descriptors.is_empty() {
            return;
        }
    }
}

/// A tree could not be ended because the processes could not be listed.
#[derive(Debug)]
#[non_exhaustive]
pub struct EndError {
    source: io::Error,
}

impl fmt::Display for EndError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed to list the processes in `/proc`")
    }
}

impl Error for EndError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}
