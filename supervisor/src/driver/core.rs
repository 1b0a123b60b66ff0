use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use super::UnitId;
use super::handle::{Control, Down};
use super::host::Host;
use super::unit::{Run, Unit, Watch};
use crate::tree::{self, Arrivals, Table};
use crate::{Action, Epoch, Event, Generation, Holder, Moment, StartReason, State, clock};

/// The driver's thread: everything it knows.
pub(super) struct Core<H> {
    pub(super) host: H,
    pub(super) units: HashMap<UnitId, Unit>,
    pub(super) timers: BTreeSet<(Moment, UnitId, Timer)>,
    pub(super) tokens: HashMap<u64, (UnitId, Watched)>,
    next_token: u64,
    epoll: Epoll,
    waker: Arc<EventFd>,
    receiver: Receiver<Control>,
    /// Starts that were decided and not yet made; each is checked again before.
    pub(super) starts: VecDeque<Start>,
    /// Events that follow from what an action met.
    pending: VecDeque<(UnitId, Event)>,
    /// Units whose process tree is to be looked at in the next pass.
    pub(super) passes: BTreeSet<UnitId>,
    /// Processes of units that were started here and are not reaped yet, or adopted.
    pub(super) leaders: HashSet<u32>,
    /// Whether the kernel can tell the children of a process.
    pub(super) near: bool,
    /// Where whoever came to this program is listed.
    pub(super) arrivals: Option<Arrivals>,
    pub(super) closing: Option<Closing>,
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
pub(super) struct Start {
    pub(super) unit: UnitId,
    pub(super) generation: Generation,
    pub(super) epoch: Epoch,
    pub(super) reason: StartReason,
}

pub(super) struct Closing {
    pub(super) done: Vec<Sender<Down>>,
    pub(super) sum: Down,
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
            arrivals: None,
            closing: None,
        })
    }

    pub(super) fn run(mut self) {
        // The lists are those of this thread.
        self.arrivals = Arrivals::open().ok();
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

    pub(super) fn drain_pending(&mut self) {
        while let Some((unit, event)) = self.pending.pop_front() {
            self.feed(unit, event);
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

    pub(super) fn sync_deadline(&mut self, unit: UnitId) {
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

    /// Returns what runs for a unit.
    pub(super) fn running(&mut self, unit: UnitId) -> Option<&mut Run> {
        self.units.get_mut(&unit)?.run.as_deref_mut()
    }

    /// Returns what runs for a unit if it is this one, and not a successor.
    pub(super) fn run_of(&mut self, unit: UnitId, generation: Generation) -> Option<&mut Run> {
        self.running(unit)
            .filter(|run| run.generation == generation)
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

    pub(super) fn unwatch(&mut self, unit: UnitId) {
        let watch = self
            .units
            .get_mut(&unit)
            .and_then(|entry| entry.watch.take());
        if let Some(watch) = watch {
            self.unregister(watch.token, &watch.descriptor);
        }
    }
}

/// Answers somebody who may have stopped waiting, which is no concern of ours.
pub(super) fn reply<T>(to: &Sender<T>, answer: T) {
    drop(to.try_send(answer));
}

/// How long after its death an adopted process may take to be reaped by whoever
/// inherited it, before its status counts as lost.
pub(super) const REAPED_WITHIN: Duration = Duration::from_millis(2_500);
