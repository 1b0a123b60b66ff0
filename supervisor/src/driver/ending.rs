//! From "stop" to "nobody is left".

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;

use super::UnitId;
use super::core::{Core, REAPED_WITHIN, Watched, reply};
use super::handle::Down;
use super::host::{Cooperation, Ended, Host};
use super::unit::Stage;
use crate::tree::{self, FREEZES_WITHIN, Group, Next, Sweep, Table};
use crate::{Event, Generation, clock, sys};

/// Steps of the ladder that come before its signals.
const COOPERATIVE_STEPS: usize = 2;
/// A pass that waits for deaths looks again after this long in any case.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A leader that SIGKILL does not end is stuck in the kernel; it is looked at so
/// often until it is gone.
const STUCK_PACE: Duration = Duration::from_secs(1);

impl<H: Host> Core<H> {
    /// The machine wants this process to be gone.
    pub(super) fn terminate(&mut self, unit: UnitId, generation: Generation) {
        let ladder = self.host.ladder(unit);
        let Some(run) = self.run_of(unit, generation) else {
            return;
        };
        if run.stage != Stage::Up {
            return;
        }
        run.stop_asked = true;
        run.ladder = Some(ladder);
        run.stage = Stage::Observing;
        run.sweep = Some(Sweep::new(run.target()));
        if let Some(group) = &run.group
            && let Err(error) = group.thaw()
        {
            // Who stands still hears nothing.
            log::debug!("failed to thaw `{}`: {error}", group.dir().display());
        }
        // Nor does a process that somebody stopped, be it asked without any signal.
        if let Some(descriptor) = &run.descriptor {
            send(descriptor, run.pid, Signal::CONT.as_raw(), None);
        }
        self.passes.insert(unit);
    }

    /// The machine wants this process to be gone at once.
    pub(super) fn kill(&mut self, unit: UnitId, generation: Generation) {
        let ladder = self.host.ladder(unit);
        let Some(run) = self.run_of(unit, generation) else {
            return;
        };
        run.stop_asked = true;
        run.ladder.get_or_insert(ladder);
        match run.stage {
            Stage::Up | Stage::Observing | Stage::Asked(_) => self.begin_sweep(unit),
            Stage::Sweeping | Stage::AwaitingStatus => {}
        }
    }

    /// A descriptor of the process itself became readable: it has ended.
    pub(super) fn process_ready(&mut self, unit: UnitId, generation: Generation) {
        let Some(run) = self.run_of(unit, generation) else {
            return;
        };
        if run.stage == Stage::AwaitingStatus {
            return;
        }
        if run.gone_at.is_none() {
            run.gone_at = Some(clock::now());
        }
        run.look();
        // The descriptor stays readable from now on and has nothing more to say.
        if let Some(token) = run.token.take()
            && let Some(descriptor) = run.descriptor.take()
        {
            self.unregister(token, &descriptor);
            self.keep_descriptor(unit, descriptor);
        }
        self.feed(unit, Event::LeaderExited { generation });
        self.begin_sweep(unit);
    }

    fn keep_descriptor(&mut self, unit: UnitId, descriptor: OwnedFd) {
        if let Some(run) = self.running(unit) {
            run.descriptor = Some(descriptor);
        }
    }

    fn begin_sweep(&mut self, unit: UnitId) {
        let Some(run) = self.running(unit) else {
            return;
        };
        if run.sweep.is_none() {
            run.sweep = Some(Sweep::new(run.target()));
        }
        if run.gone_at.is_some()
            && let Some(sweep) = &mut run.sweep
        {
            sweep.leader_is_gone();
            if run.child.is_none() {
                sweep.unpin();
            }
        }
        run.stage = Stage::Sweeping;
        self.set_run_timer(unit, None);
        self.passes.insert(unit);
    }

    /// Something that was killed is gone.
    pub(super) fn death(&mut self, unit: UnitId, generation: Generation, token: u64) {
        let Some(run) = self.run_of(unit, generation) else {
            return;
        };
        let descriptor = run.dying.remove(&token);
        let last = run.dying.is_empty() && run.stage == Stage::Sweeping;
        if let Some(descriptor) = descriptor {
            self.unregister(token, &descriptor);
        }
        if last {
            self.set_run_timer(unit, None);
            self.passes.insert(unit);
        }
    }

    pub(super) fn run_timer(&mut self, unit: UnitId) {
        let Some(run) = self.units.get(&unit).and_then(|entry| entry.run.as_ref()) else {
            return;
        };
        match run.stage {
            Stage::Asked(step) => self.climb(unit, step + 1),
            Stage::Sweeping => {
                self.passes.insert(unit);
            }
            Stage::AwaitingStatus => self.settle_status(unit),
            // Neither sets a timer.
            Stage::Up | Stage::Observing => {}
        }
    }

    /// Takes the step of the ladder with this number, or the first one after it
    /// that exists.
    fn climb(&mut self, unit: UnitId, from: usize) {
        let mut step = from;
        loop {
            let Some(run) = self.running(unit) else {
                return;
            };
            let Some(ladder) = run.ladder.clone() else {
                return;
            };
            let grace = match step {
                0 => self
                    .host
                    .cooperate(unit, Cooperation::Release)
                    .then_some(ladder.release_grace),
                1 => self
                    .host
                    .cooperate(unit, Cooperation::CloseStdin)
                    .then_some(ladder.stdin_grace),
                _ => {
                    let Some(rung) = ladder.signals.get(step - COOPERATIVE_STEPS) else {
                        self.begin_sweep(unit);
                        return;
                    };
                    // Liveness decides, not whether some signal was sent before.
                    if let Some(descriptor) = &run.descriptor {
                        send(descriptor, run.pid, rung.signal, None);
                        // A process that somebody stopped hears nothing.
                        send(descriptor, run.pid, Signal::CONT.as_raw(), None);
                    }
                    Some(rung.grace)
                }
            };
            let grace = grace.filter(|grace| !grace.is_zero());
            if let Some(grace) = grace {
                if let Some(run) = self.running(unit) {
                    run.stage = Stage::Asked(step);
                }
                self.set_run_timer(unit, Some(clock::now() + grace));
                return;
            }
            step += 1;
        }
    }

    /// Looks at the processes once, for all units whose turn it is. Where nobody was
    /// found any more after a stop, the last word is had from a look at all of them.
    pub(super) fn make_passes(&mut self) {
        let due = std::mem::take(&mut self.passes);
        if due.is_empty() {
            return;
        }
        let (all, mut near): (Vec<UnitId>, Vec<UnitId>) = due
            .into_iter()
            .partition(|unit| !self.near || self.needs_all(*unit));
        let (plain, rest): (Vec<UnitId>, Vec<UnitId>) =
            near.iter().partition(|unit| self.left_nobody_known(**unit));
        if !plain.is_empty() && self.nobody_came() {
            let table = Table::of_nobody();
            for unit in plain {
                self.pass(unit, &table);
            }
            near = rest;
        }
        self.pass_together(&near, false);
        self.pass_together(&all, true);
    }

    fn needs_all(&self, unit: UnitId) -> bool {
        let Some(entry) = self.units.get(&unit) else {
            return false;
        };
        entry.run.as_ref().is_some_and(|run| {
            let sweep = run.sweep.as_ref();
            if sweep.is_some_and(Sweep::is_proven_by_group) {
                return false;
            }
            let verifying = sweep.is_some_and(Sweep::is_verifying);
            // What was adopted may have been started below somebody else's reaper.
            run.child.is_none() || (verifying && entry.wants_proof())
        })
    }

    /// Returns true if this unit's process is a dead child, and whatever it may have left
    /// behind has come to this program.
    fn left_nobody_known(&self, unit: UnitId) -> bool {
        let run = self.units.get(&unit).and_then(|entry| entry.run.as_ref());
        run.is_some_and(|run| {
            let sweep = run.sweep.as_ref();
            run.inherited && run.child.is_some() && sweep.is_some_and(Sweep::knows_nobody)
        })
    }

    /// Returns true if nobody is a child of this program but what was started here.
    fn nobody_came(&mut self) -> bool {
        let Some(arrivals) = self.arrivals.as_mut().filter(|_| tree::is_subreaper()) else {
            return false;
        };
        arrivals.none_but(&self.leaders).unwrap_or_else(|error| {
            log::debug!("the list of children tells nothing: {error}");
            false
        })
    }

    /// Returns the processes that have ended and are not reaped yet.
    fn dead(&self) -> HashSet<u32> {
        let runs = self.units.values().filter_map(|entry| entry.run.as_ref());
        let dead = runs.filter(|run| run.gone_at.is_some() && run.child.is_some());
        dead.map(|run| run.pid).collect()
    }

    /// Returns true if what these units' processes left behind came to this program.
    fn all_inherited(&self, due: &[UnitId]) -> bool {
        let mut runs = due
            .iter()
            .filter_map(|unit| self.units.get(unit)?.run.as_ref());
        runs.all(|run| run.inherited)
    }

    fn pass_together(&mut self, due: &[UnitId], all: bool) {
        let sweeps: Vec<&Sweep> = due
            .iter()
            .filter_map(|unit| self.units.get(unit)?.run.as_ref()?.sweep.as_ref())
            .collect();
        if sweeps.is_empty() {
            return;
        }
        let markers = sweeps
            .iter()
            .filter_map(|sweep| sweep.target().marker.as_ref());
        let mut names: Vec<String> = markers.map(|marker| marker.name.clone()).collect();
        names.sort();
        names.dedup();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let floor = sweeps
            .iter()
            .map(|sweep| sweep.target().floor)
            .min()
            .unwrap_or(0);
        let groups: Vec<(Group, Option<u32>)> = sweeps
            .iter()
            .filter_map(|sweep| sweep.group())
            .map(|(group, leader)| (group.clone(), leader))
            .collect();
        let table = if all {
            Table::read_but(&self.dead(), &names, floor)
        } else {
            let members = groups.iter().filter_map(|(group, _)| group.members().ok());
            let known = sweeps.iter().flat_map(|sweep| sweep.roots());
            let roots: HashSet<u32> = known.chain(members.flatten()).collect();
            let inherits = tree::is_subreaper() && self.all_inherited(due);
            Table::read_near(&names, floor, &roots, &self.leaders, inherits).or_else(|error| {
                log::debug!("looking everywhere, because nearby failed: {error}");
                Table::read(&names, floor)
            })
        };
        match table {
            Ok(mut table) => {
                for (group, leader) in &groups {
                    table.look_inside(group, *leader);
                }
                for unit in due {
                    self.pass(*unit, &table);
                }
            }
            Err(error) => {
                log::warn!("failed to list the processes, trying again: {error}");
                for unit in due {
                    self.pass_blindly(*unit);
                }
            }
        }
    }

    /// The processes cannot be listed, for want of descriptors or of `/proc`. A stop
    /// goes on all the same, and says in the end that it could not look.
    fn pass_blindly(&mut self, unit: UnitId) {
        let now = clock::now();
        let Some(run) = self.running(unit) else {
            return;
        };
        if run.stage == Stage::Observing {
            self.climb(unit, 0);
            return;
        }
        let final_grace = run.ladder.as_ref().map_or(LOOK_AGAIN, |l| l.final_grace);
        let give_up_at = *run.give_up_at.get_or_insert(now + final_grace);
        if run.gone_at.is_none()
            && let Some(descriptor) = &run.descriptor
        {
            send(descriptor, run.pid, Signal::KILL.as_raw(), None);
        } else if now >= give_up_at {
            run.report.unreadable = 1;
            self.settle_status(unit);
            return;
        }
        self.set_run_timer(unit, Some(now + LOOK_AGAIN));
    }

    fn pass(&mut self, unit: UnitId, table: &Table) {
        let host = &mut self.host;
        let Some(entry) = self.units.get_mut(&unit) else {
            return;
        };
        let proof = entry.wants_proof();
        let Some(run) = entry.run.as_mut() else {
            return;
        };
        let Some(sweep) = &mut run.sweep else { return };
        let generation = run.generation;
        // Another unit's process is no leftover of this one, wherever it is found.
        let (own, leaders) = (run.pid, &self.leaders);
        let mut is_exempt =
            |pid: u32| (pid != own && leaders.contains(&pid)) || host.is_exempt(pid);
        if run.stage == Stage::Observing {
            sweep.observe(table, &mut is_exempt);
            self.climb(unit, 0);
            return;
        }
        let now = clock::now();
        sweep.promise(proof);
        let (orders, next) = sweep.pass(table, &mut is_exempt);
        let final_grace = run
            .ladder
            .get_or_insert_with(|| host.ladder(unit))
            .final_grace;
        let give_up_at = *run.give_up_at.get_or_insert(now + final_grace);
        let given_up = now >= give_up_at && sweep.is_killing();
        if given_up {
            sweep.give_up();
        }
        if next == Next::Done || given_up {
            run.report = sweep.report(table);
        }
        let leader_gone = run.gone_at.is_some();
        for descriptor in tree::carry_out(sweep, &orders) {
            match self.register(unit, Watched::Dying(generation), &descriptor) {
                Ok(token) => {
                    if let Some(run) = self.running(unit) {
                        run.dying.insert(token, descriptor);
                    }
                }
                Err(error) => log::debug!("failed to watch a dying process: {error}"),
            }
        }
        // Nobody is given up on before he was killed once, or he would stay frozen.
        if next == Next::Done || given_up {
            if leader_gone {
                self.settle_status(unit);
            } else if next == Next::Done {
                // Its descriptor is about to say so as well.
                self.process_ready(unit, generation);
            } else {
                self.report_stuck(unit);
            }
            return;
        }
        match next {
            Next::Again => {
                self.passes.insert(unit);
            }
            Next::AfterDeaths => self.set_run_timer(unit, Some(now + LOOK_AGAIN)),
            Next::Soon => self.set_run_timer(unit, Some(now + FREEZES_WITHIN)),
            Next::Done => {}
        }
    }

    /// The process itself survived SIGKILL. Whoever waits is told so; the unit is
    /// not down, and it is looked at until it is.
    fn report_stuck(&mut self, unit: UnitId) {
        let Some(entry) = self.units.get_mut(&unit) else {
            return;
        };
        let Some(run) = &mut entry.run else { return };
        let down = Down {
            status: None,
            was_running: true,
            report: run.report.clone(),
        };
        for waiting in entry.waiting.drain(..) {
            reply(&waiting, down.clone());
        }
        log::warn!("pid {} of unit {unit} does not end", run.pid);
        self.set_run_timer(unit, Some(clock::now() + STUCK_PACE));
    }

    /// Everybody is gone; what remains is to know how the process itself ended.
    fn settle_status(&mut self, unit: UnitId) {
        let host = &mut self.host;
        let Some(run) = self
            .units
            .get_mut(&unit)
            .and_then(|entry| entry.run.as_mut())
        else {
            return;
        };
        run.stage = Stage::AwaitingStatus;
        let now = clock::now();
        if let Some(child) = &mut run.child {
            match child.try_wait() {
                Ok(Some(status)) => run.status = Some(status),
                // A debugger that follows it is told first, and has not listened yet.
                Ok(None) if now.since(run.gone_at.unwrap_or(now)) < REAPED_WITHIN => {
                    self.set_run_timer(unit, Some(now + LOOK_AGAIN));
                    return;
                }
                Ok(None) => log::warn!("pid {} cannot be reaped", run.pid),
                // Somebody else in this program waits for strangers' children. What
                // was seen before that stands.
                Err(error) => log::warn!("pid {} was reaped by another: {error}", run.pid),
            }
            self.finish(unit);
            return;
        }
        let known = run
            .descriptor
            .as_ref()
            .and_then(|descriptor| sys::exit_status(descriptor.as_fd()))
            .map(ExitStatus::from_raw)
            .or_else(|| host.lost_status(unit, run.pid, run.start_ticks));
        let gone_at = run.gone_at.unwrap_or(now);
        let waited = now.since(gone_at);
        if known.is_some() || run.descriptor.is_none() || waited >= REAPED_WITHIN {
            run.status = known;
            self.finish(unit);
            return;
        }
        // The kernel tells once the process was reaped by whoever inherited it.
        run.asked += 1;
        let pause = Duration::from_millis(2_u64 << run.asked.min(6));
        self.set_run_timer(unit, Some(now + pause));
    }

    fn finish(&mut self, unit: UnitId) {
        self.set_run_timer(unit, None);
        let Some(entry) = self.units.get_mut(&unit) else {
            return;
        };
        let Some(mut run) = entry.run.take() else {
            return;
        };
        let waiting = std::mem::take(&mut entry.waiting);
        self.leaders.remove(&run.pid);
        for (token, descriptor) in std::mem::take(&mut run.dying) {
            self.unregister(token, &descriptor);
        }
        let ended = Ended {
            pid: run.pid,
            start_ticks: run.start_ticks,
            generation: run.generation,
            status: run.status,
            ran_for: run.gone_at.unwrap_or(run.since).since(run.since),
            stop_asked: run.stop_asked,
            adopted: run.child.is_none(),
            leftovers: run.report.clone(),
        };
        let disposition = self.host.judge(unit, &ended);
        self.book_closing(&run.report);
        self.feed(
            unit,
            Event::Exited {
                generation: run.generation,
                disposition,
            },
        );
        let down = Down {
            status: run.status,
            was_running: true,
            report: run.report,
        };
        for waiting in &waiting {
            reply(waiting, down.clone());
        }
        self.forget_if_removing(unit);
    }

    /// Passes a signal on to the process of a unit.
    pub(super) fn signal(&mut self, unit: UnitId, signal: i32, value: Option<usize>) {
        let run = self.units.get(&unit).and_then(|entry| entry.run.as_ref());
        if let Some(run) = run
            && let Some(descriptor) = &run.descriptor
        {
            send(descriptor, run.pid, signal, value);
        }
    }
}

fn send(descriptor: &OwnedFd, pid: u32, signal: i32, value: Option<usize>) {
    if let Err(error) = sys::send(descriptor.as_fd(), signal, value) {
        log::debug!("failed to send signal {signal} to pid {pid}: {error}");
    }
}
