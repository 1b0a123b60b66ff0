use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use super::UnitId;
use super::handle::{Adopted, Control, Down, Shutdown, UnitReport};
use super::host::{Host, Prepared};
use super::unit::{Run, Stage, Unit, Watch};
use crate::tree::{self, Report, Table};
use crate::{
    Action, Epoch, Event, Generation, Holder, Machine, Moment, SpawnFailure, StartReason, State,
    clock,
};

/// The driver's thread: everything it knows.
pub(super) struct Core<H> {
    pub(super) host: H,
    pub(super) units: HashMap<UnitId, Unit>,
    timers: BTreeSet<(Moment, UnitId, Timer)>,
    tokens: HashMap<u64, (UnitId, Watched)>,
    next_token: u64,
    epoll: Epoll,
    waker: Arc<EventFd>,
    receiver: Receiver<Control>,
    /// Starts that were decided and not yet made; each is checked again before.
    starts: VecDeque<Start>,
    /// Events that follow from what an action met.
    pending: VecDeque<(UnitId, Event)>,
    /// Units whose process tree is to be looked at in the next pass.
    pub(super) passes: BTreeSet<UnitId>,
    /// Processes that were started here and are not reaped yet.
    pub(super) leaders: HashSet<u32>,
    /// Whether the kernel can tell the children of a process.
    pub(super) near: bool,
    closing: Option<Closing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Machine,
    Run,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Watched {
    Process(Generation),
    Dying(Generation),
    Holder,
}

#[derive(Clone, Copy, Debug)]
struct Start {
    unit: UnitId,
    generation: Generation,
    epoch: Epoch,
    reason: StartReason,
}

struct Closing {
    done: Vec<Sender<Down>>,
    sum: Down,
}

/// The waker's token; all others are counted up from here.
const WAKER: u64 = 0;
/// So many starts are made before the descriptors are looked at again: an exit or
/// a stop never waits for a thousand starts.
const STARTS_PER_ROUND: usize = 8;

impl<H: Host> Core<H> {
    pub(super) fn new(
        host: H,
        receiver: Receiver<Control>,
        waker: Arc<EventFd>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*waker, EpollEvent::new(EpollFlags::EPOLLIN, WAKER))?;
        Ok(Self {
            host,
            units: HashMap::new(),
            timers: BTreeSet::new(),
            tokens: HashMap::new(),
            next_token: WAKER + 1,
            epoll,
            waker,
            receiver,
            starts: VecDeque::new(),
            pending: VecDeque::new(),
            passes: BTreeSet::new(),
            leaders: HashSet::new(),
            near: Table::can_read_near(),
            closing: None,
        })
    }

    pub(super) fn run(mut self) {
        let mut events = vec![EpollEvent::empty(); 256];
        loop {
            while let Ok(control) = self.receiver.try_recv() {
                if self.obey(control).is_break() {
                    return;
                }
            }
            self.fire_timers();
            self.drain_pending();
            self.make_passes();
            for _ in 0..STARTS_PER_ROUND {
                let Some(start) = self.starts.pop_front() else {
                    break;
                };
                self.start(start);
                self.drain_pending();
            }
            if self.is_closed() {
                return;
            }
            match self.epoll.wait(&mut events, self.timeout()) {
                Ok(count) => {
                    for event in events.iter().take(count) {
                        self.ready(event.data());
                    }
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => log::warn!("failed to wait for events: {errno}"),
            }
        }
    }

    fn timeout(&self) -> EpollTimeout {
        if !self.starts.is_empty() || !self.pending.is_empty() || !self.passes.is_empty() {
            return EpollTimeout::ZERO;
        }
        let Some((at, ..)) = self.timers.first() else {
            return EpollTimeout::NONE;
        };
        // Rounded up, so that the thread does not wake a moment too early.
        let millis = at.since(clock::now()).as_micros().div_ceil(1_000);
        EpollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX))
            .unwrap_or(EpollTimeout::MAX)
    }

    fn ready(&mut self, token: u64) {
        if token == WAKER {
            // Whatever the counter says, the channel is drained next.
            if let Err(errno) = self.waker.read() {
                log::debug!("failed to reset the waker: {errno}");
            }
            return;
        }
        let Some((unit, watched)) = self.tokens.get(&token).copied() else {
            return;
        };
        match watched {
            Watched::Process(generation) => self.process_ready(unit, generation),
            Watched::Dying(generation) => self.death(unit, generation, token),
            Watched::Holder => {
                self.unwatch(unit);
                self.feed(unit, Event::HolderGone);
            }
        }
    }

    fn fire_timers(&mut self) {
        let now = clock::now();
        while let Some((at, unit, timer)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            let Some(entry) = self.units.get_mut(&unit) else {
                continue;
            };
            match timer {
                Timer::Machine => {
                    entry.deadline = None;
                    self.feed(unit, Event::DeadlineReached);
                }
                Timer::Run => {
                    if let Some(run) = &mut entry.run {
                        run.timer = None;
                    }
                    self.run_timer(unit);
                }
            }
        }
    }

    fn drain_pending(&mut self) {
        while let Some((unit, event)) = self.pending.pop_front() {
            self.feed(unit, event);
        }
    }

    // Handles.

    fn obey(&mut self, control: Control) -> std::ops::ControlFlow<()> {
        use std::ops::ControlFlow::{Break, Continue};
        match control {
            Control::Add { unit, machine } => self.add(unit, *machine),
            Control::Event { unit, event } => self.feed(unit, event),
            Control::Stop { unit, event, done } => self.stop(unit, event, done),
            Control::Adopt {
                unit,
                pid,
                start_ticks,
                answer,
            } => {
                let adopted = self.adopt(unit, pid, start_ticks);
                reply(&answer, adopted);
            }
            Control::Signal { unit, signal } => self.signal(unit, signal),
            Control::Policy { unit, policy } => {
                if let Some(entry) = self.units.get_mut(&unit) {
                    entry.machine.set_policy(policy);
                }
            }
            Control::Remove { unit, done } => {
                if let Some(entry) = self.units.get_mut(&unit) {
                    entry.removing = true;
                }
                self.stop(unit, Event::Stop, done);
            }
            Control::Explain { unit, answer } => {
                let now = clock::now();
                let report = self.units.get(&unit).map(|entry| UnitReport {
                    explanation: entry.machine.explain(now),
                    stop_step: entry.run.as_ref().and_then(|run| match run.stage {
                        Stage::Asked(step) => Some(step),
                        Stage::Up | Stage::Observing | Stage::Sweeping | Stage::AwaitingStatus => {
                            None
                        }
                    }),
                });
                reply(&answer, report);
            }
            Control::List { answer } => {
                let mut list: Vec<(UnitId, State)> = self
                    .units
                    .iter()
                    .map(|(unit, entry)| (*unit, entry.machine.state().clone()))
                    .collect();
                list.sort_by_key(|(unit, _)| *unit);
                reply(&answer, list);
            }
            Control::Snapshot { unit, answer } => {
                reply(
                    &answer,
                    self.units.get(&unit).map(|entry| entry.machine.clone()),
                );
            }
            Control::Shutdown {
                how: Shutdown::LeaveRunning,
                done,
            } => {
                // Dropping a `Child` neither kills nor reaps it.
                reply(&done, Down::default());
                return Break(());
            }
            Control::Shutdown {
                how: Shutdown::StopAll,
                done,
            } => {
                self.close(&Event::Stop, Some(done));
            }
            Control::Shutdown {
                how: Shutdown::KillAll,
                done,
            } => {
                self.close(&Event::Kill, Some(done));
            }
            Control::NobodyLeft => self.close(&Event::Stop, None),
        }
        self.drain_pending();
        Continue(())
    }

    fn add(&mut self, unit: UnitId, machine: Machine) {
        if self.closing.is_some() || self.units.contains_key(&unit) {
            return;
        }
        let entry = Unit {
            machine,
            run: None,
            watch: None,
            deadline: None,
            waiting: Vec::new(),
            removing: false,
        };
        self.units.insert(unit, entry);
        self.sync_deadline(unit);
    }

    fn stop(&mut self, unit: UnitId, event: Event, done: Sender<Down>) {
        let Some(entry) = self.units.get_mut(&unit) else {
            reply(&done, Down::default());
            return;
        };
        if entry.run.is_some() {
            entry.waiting.push(done);
            self.feed(unit, event);
        } else {
            self.feed(unit, event);
            reply(&done, Down::default());
            self.forget_if_removing(unit);
        }
    }

    fn close(&mut self, event: &Event, done: Option<Sender<Down>>) {
        self.starts.clear();
        let closing = self.closing.get_or_insert_with(|| Closing {
            done: Vec::new(),
            sum: Down::default(),
        });
        closing.done.extend(done);
        let units: Vec<UnitId> = self.units.keys().copied().collect();
        for unit in units {
            self.feed(unit, event.clone());
        }
    }

    fn is_closed(&mut self) -> bool {
        if self.closing.is_none() || self.units.values().any(|entry| entry.run.is_some()) {
            return false;
        }
        if let Some(closing) = self.closing.take() {
            for done in &closing.done {
                reply(done, closing.sum.clone());
            }
        }
        true
    }

    /// Adds what one unit's end came to to the sum that a shutdown reports.
    pub(super) fn book_closing(&mut self, report: &Report) {
        if let Some(closing) = &mut self.closing {
            closing.sum.was_running = true;
            closing
                .sum
                .report
                .ended
                .extend(report.ended.iter().cloned());
            closing
                .sum
                .report
                .survivors
                .extend(report.survivors.iter().cloned());
            let unreadable = closing.sum.report.unreadable.max(report.unreadable);
            closing.sum.report.unreadable = unreadable;
        }
    }

    pub(super) fn forget_if_removing(&mut self, unit: UnitId) {
        let gone = self
            .units
            .get(&unit)
            .is_some_and(|entry| entry.removing && entry.run.is_none());
        if gone {
            self.unwatch(unit);
            if let Some(entry) = self.units.remove(&unit)
                && let Some(at) = entry.deadline
            {
                self.timers.remove(&(at, unit, Timer::Machine));
            }
        }
    }

    // Machines.

    /// Gives an event to a unit's machine and does what it answers.
    pub(super) fn feed(&mut self, unit: UnitId, event: Event) {
        let Some(entry) = self.units.get_mut(&unit) else {
            return;
        };
        let step = entry.machine.handle(event, clock::now());
        for notice in &step.notices {
            self.host.notice(unit, notice);
        }
        if entry.watch.is_some() && !matches!(entry.machine.state(), State::Held { .. }) {
            self.unwatch(unit);
        }
        self.sync_deadline(unit);
        match step.action {
            Some(Action::Spawn {
                generation,
                epoch,
                reason,
            }) => {
                self.starts.push_back(Start {
                    unit,
                    generation,
                    epoch,
                    reason,
                });
            }
            Some(Action::Terminate { generation }) => self.terminate(unit, generation),
            Some(Action::Kill { generation }) => self.kill(unit, generation),
            Some(Action::Watch { holder }) => self.watch(unit, &holder),
            None => {}
        }
    }

    fn sync_deadline(&mut self, unit: UnitId) {
        let Some(entry) = self.units.get_mut(&unit) else {
            return;
        };
        let due = entry.machine.deadline();
        if due == entry.deadline {
            return;
        }
        if let Some(old) = entry.deadline {
            self.timers.remove(&(old, unit, Timer::Machine));
        }
        entry.deadline = due;
        if let Some(due) = due {
            self.timers.insert((due, unit, Timer::Machine));
        }
    }

    pub(super) fn set_run_timer(&mut self, unit: UnitId, due: Option<Moment>) {
        let Some(run) = self
            .units
            .get_mut(&unit)
            .and_then(|entry| entry.run.as_mut())
        else {
            return;
        };
        if let Some(old) = run.timer.take() {
            self.timers.remove(&(old, unit, Timer::Run));
        }
        run.timer = due;
        if let Some(due) = due {
            self.timers.insert((due, unit, Timer::Run));
        }
    }

    // Starts.

    fn start(&mut self, start: Start) {
        let Start {
            unit,
            generation,
            epoch,
            reason,
        } = start;
        let Some(entry) = self.units.get(&unit) else {
            return;
        };
        let wanted = matches!(
            entry.machine.state(), State::Starting { generation: now, .. } if *now == generation
        );
        // A stop came in between: the wish that this start follows from is void.
        if !wanted || entry.machine.epoch() != epoch || self.closing.is_some() {
            return;
        }
        let event = match self.host.prepare(unit, generation, reason) {
            Prepared::Go(mut command) => {
                let program = command.get_program().to_owned();
                match command.spawn() {
                    Ok(child) => return self.started(unit, generation, child),
                    Err(error) => {
                        let failure = self.host.spawn_error(unit, &program, &error);
                        Event::SpawnFailed {
                            generation,
                            failure,
                        }
                    }
                }
            }
            Prepared::Held { holder, watchable } => Event::Held {
                generation,
                holder,
                watchable,
            },
            Prepared::NotNeeded => Event::NotNeeded { generation },
            Prepared::Refused { reason } => Event::SpawnFailed {
                generation,
                failure: SpawnFailure::Permanent { reason },
            },
            Prepared::NotNow { reason, after } => Event::NotNow {
                generation,
                reason,
                after,
            },
        };
        self.feed(unit, event);
    }

    fn started(&mut self, unit: UnitId, generation: Generation, mut child: Child) {
        let pid = child.id();
        // The child is not reaped yet, so that its pid can only mean itself.
        let opened = tree::open(pid).and_then(|descriptor| {
            let start =
                tree::start_ticks(pid).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            let token = self.register(unit, Watched::Process(generation), &descriptor)?;
            Ok((descriptor, start, token))
        });
        let (descriptor, start_ticks, token) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // What cannot be watched must not run.
                let ended = child.kill().and_then(|()| child.wait());
                if let Err(error) = ended {
                    log::warn!("failed to end pid {pid}, which cannot be watched: {error}");
                }
                let reason = format!("failed to watch the new process: {error}");
                let failure = SpawnFailure::Transient { reason };
                return self.feed(
                    unit,
                    Event::SpawnFailed {
                        generation,
                        failure,
                    },
                );
            }
        };
        self.leaders.insert(pid);
        let marker = self.host.marker(unit);
        let run = Run {
            pid,
            start_ticks,
            generation,
            child: Some(child),
            descriptor: Some(descriptor),
            token: Some(token),
            since: clock::now(),
            gone_at: None,
            stop_asked: false,
            stage: Stage::Up,
            ladder: None,
            marker,
            sweep: None,
            dying: HashMap::new(),
            timer: None,
            give_up_at: None,
            asked: 0,
            report: Report::default(),
            status: None,
        };
        if let Some(entry) = self.units.get_mut(&unit) {
            entry.run = Some(Box::new(run));
        }
        self.host.spawned(unit, generation, pid, start_ticks);
        self.feed(unit, Event::Spawned { generation, pid });
    }

    fn adopt(&mut self, unit: UnitId, pid: u32, start_ticks: u64) -> Adopted {
        let Some(entry) = self.units.get(&unit) else {
            return Adopted::Refused;
        };
        if entry.run.is_some() || self.closing.is_some() || pid <= 1 {
            return Adopted::Refused;
        }
        let descriptor = match open_if_same(pid, start_ticks) {
            Ok(descriptor) => descriptor,
            Err(error) => {
                log::warn!("failed to watch pid {pid}, which is not adopted: {error}");
                return Adopted::Refused;
            }
        };
        let since = clock::moment_of_ticks(start_ticks);
        let token = match &descriptor {
            Some(descriptor) => {
                // The generation is not known before the machine has agreed.
                match self.register(unit, Watched::Process(Generation(0)), descriptor) {
                    Ok(token) => Some(token),
                    Err(error) => {
                        log::warn!("failed to watch pid {pid}, which is not adopted: {error}");
                        return Adopted::Refused;
                    }
                }
            }
            None => None,
        };
        self.feed(unit, Event::Adopted { pid, since });
        let process = self
            .units
            .get(&unit)
            .and_then(|entry| entry.machine.state().process());
        let Some((_, generation)) = process else {
            if let (Some(token), Some(descriptor)) = (token, &descriptor) {
                self.unregister(token, descriptor);
            }
            return Adopted::Refused;
        };
        if let Some(token) = token {
            self.tokens
                .insert(token, (unit, Watched::Process(generation)));
        }
        let marker = self.host.marker(unit);
        let run = Run {
            pid,
            start_ticks,
            generation,
            child: None,
            descriptor,
            token,
            since,
            gone_at: None,
            stop_asked: false,
            stage: Stage::Up,
            ladder: None,
            marker,
            sweep: None,
            dying: HashMap::new(),
            timer: None,
            give_up_at: None,
            asked: 0,
            report: Report::default(),
            status: None,
        };
        if let Some(entry) = self.units.get_mut(&unit) {
            entry.run = Some(Box::new(run));
        }
        if token.is_some() {
            return Adopted::Alive;
        }
        self.process_ready(unit, generation);
        Adopted::Ended
    }

    // Descriptors.

    pub(super) fn register(
        &mut self,
        unit: UnitId,
        watched: Watched,
        descriptor: &OwnedFd,
    ) -> io::Result<u64> {
        let token = self.next_token;
        self.epoll.add(
            descriptor.as_fd(),
            EpollEvent::new(EpollFlags::EPOLLIN, token),
        )?;
        self.next_token += 1;
        self.tokens.insert(token, (unit, watched));
        Ok(token)
    }

    /// Must be called before the descriptor is closed: a copy of it that some
    /// child inherited would keep the registration alive otherwise.
    pub(super) fn unregister(&mut self, token: u64, descriptor: &OwnedFd) {
        self.tokens.remove(&token);
        if let Err(errno) = self.epoll.delete(descriptor.as_fd()) {
            log::debug!("failed to take a descriptor out of the poll set: {errno}");
        }
    }

    fn watch(&mut self, unit: UnitId, holder: &Holder) {
        self.unwatch(unit);
        let event = match tree::open(holder.pid) {
            Ok(descriptor) => {
                let found = tree::start_ticks(holder.pid);
                let same = match holder.start {
                    Some(start) => found == Some(start),
                    None => found.is_some(),
                };
                if same {
                    match self.register(unit, Watched::Holder, &descriptor) {
                        Ok(token) => {
                            if let Some(entry) = self.units.get_mut(&unit) {
                                entry.watch = Some(Watch { token, descriptor });
                            }
                            return;
                        }
                        Err(error) => {
                            log::warn!("failed to watch {holder}: {error}");
                            Event::HolderUnwatchable
                        }
                    }
                } else {
                    Event::HolderGone
                }
            }
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32) => {
                Event::HolderGone
            }
            Err(error) => {
                log::warn!("failed to watch {holder}: {error}");
                Event::HolderUnwatchable
            }
        };
        self.pending.push_back((unit, event));
    }

    fn unwatch(&mut self, unit: UnitId) {
        let watch = self
            .units
            .get_mut(&unit)
            .and_then(|entry| entry.watch.take());
        if let Some(watch) = watch {
            self.unregister(watch.token, &watch.descriptor);
        }
    }
}

/// Opens the process if it still is the one that started then; `None` if it is gone.
fn open_if_same(pid: u32, start_ticks: u64) -> io::Result<Option<OwnedFd>> {
    match tree::open(pid) {
        Ok(descriptor) => {
            let same = tree::start_ticks(pid) == Some(start_ticks);
            Ok(same.then_some(descriptor))
        }
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Answers somebody who may have stopped waiting, which is no concern of ours.
pub(super) fn reply<T>(to: &Sender<T>, answer: T) {
    drop(to.try_send(answer));
}

/// How long after its death an adopted process may take to be reaped by whoever
/// inherited it, before its status counts as lost.
pub(super) const REAPED_WITHIN: Duration = Duration::from_millis(2_500);
