//! The world: its time, its agenda, its processes and locks. What happens next is the earliest entry of the agenda.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use exit_classifier::Ending;
use supervisor::{Epoch, Event, Generation, Holder, Moment, Stamp, StartReason};

use super::census::{Census, Kind as Counted};
use super::conduct::Conduct;
use super::daemon::Daemon;
use super::dice::Dice;
use super::disk::Disk;
use super::invariants::{Breach, Ledger};
use super::process::{Dead, Kind, Mood, Pid, Process};
use crate::clock::Timestamp;

/// Which chat, counted from 0.
pub(super) type ChatNo = usize;

/// What is going to happen. Entries of a daemon that is gone mean nothing.
#[derive(Debug, Clone)]
pub(super) enum Due {
    /// The generator does something.
    Fault,
    /// A process does its next step.
    Step { pid: Pid, at: u64 },
    /// A stranger lets go by itself.
    StrangerLeaves { pid: Pid },
    /// The disk has room again.
    DiskHasRoom,
    /// Processes can be started again.
    SpawnsWork,
    /// Files can be read again.
    FilesReadable,
    /// The handlers of a chat are well again.
    WellAgain { chat: ChatNo },
    /// A new daemon starts.
    Boot,
    /// Something that concerns this daemon only.
    Of { daemon: u32, what: Matter },
}

/// What is going to happen in a daemon.
#[derive(Debug, Clone)]
pub(super) enum Matter {
    /// The second half of its boot: leftovers, then the first look at each chat.
    FirstLooks,
    /// The driver reads an event from its channel.
    Control { chat: ChatNo, event: Event },
    /// The driver reads a stop that somebody waits for.
    Stop { chat: ChatNo, asker: Asker },
    /// A machine's deadline.
    Deadline { chat: ChatNo, at: Moment },
    /// A start that was decided is made.
    Start {
        chat: ChatNo,
        generation: Generation,
        epoch: Epoch,
        reason: StartReason,
    },
    /// The descriptor of a process became readable.
    SawExit {
        chat: ChatNo,
        generation: Generation,
    },
    /// The descriptor of a watched holder became readable.
    SawHolderEnd { chat: ChatNo, pid: Pid },
    /// The next step of a stop.
    Rung {
        chat: ChatNo,
        generation: Generation,
        step: u32,
    },
    /// A look at what is left below a handler.
    Pass {
        chat: ChatNo,
        generation: Generation,
    },
    /// The books are written.
    Save { chat: ChatNo },
    /// The hold-off of a released chat ends.
    HoldOff { chat: ChatNo },
    /// The inbox changed.
    Inbox { chat: ChatNo },
    /// The outbox changed.
    Outbox { chat: ChatNo },
    /// The chat's command lane takes its next verb.
    Lane { chat: ChatNo },
    /// The purge that is under way does its next step.
    Purge,
    /// The daemon sees whether all are down, so that it can end.
    LastLook,
}

/// Who waits for a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// Nobody.
    Nobody,
    /// The verb in the chat's lane.
    Lane,
    /// The purge.
    Purge,
}

/// Whether processes can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spawning {
    Works,
    /// The program is missing.
    NoProgram,
    /// There is no room for another process.
    NoRoom,
}

/// Everything there is in one run.
#[derive(Debug)]
pub(super) struct World<'a> {
    pub(super) conduct: &'a dyn Conduct,
    pub(super) dice: Dice,
    /// Milliseconds since the run began: the true time, which nobody in the world can see.
    pub(super) now: u64,
    base: Instant,
    booted_at: u64,
    pub(super) boot: u32,
    /// How far somebody has set the wall clock off, in milliseconds.
    pub(super) wall_is_off: i64,
    agenda: BTreeMap<(u64, u64), Due>,
    entries: u64,
    pub(super) disks: Vec<Disk>,
    pub(super) disk_is_full: bool,
    pub(super) files_unreadable: bool,
    pub(super) spawning: Spawning,
    pub(super) procs: BTreeMap<Pid, Process>,
    pub(super) dead: BTreeMap<Pid, Dead>,
    next_pid: Pid,
    /// Whose record is in each chat's lock; it counts while that process or an heir of the lock lives.
    pub(super) locks: Vec<Option<Pid>>,
    /// How the handlers of each chat are.
    pub(super) moods: Vec<Mood>,
    pub(super) consumers: Vec<BTreeSet<u64>>,
    pub(super) next_consumer: u64,
    pub(super) daemon: Option<Daemon>,
    pub(super) daemons: u32,
    /// Nothing is done to the world any more: what is left must come to rest.
    pub(super) healing: bool,
    pub(super) ledger: Ledger,
    pub(super) census: Census,
    pub(super) log: Option<Vec<String>>,
    pub(super) breaches: Vec<Breach>,
}

impl<'a> World<'a> {
    pub(super) fn new(seed: u64, chats: usize, conduct: &'a dyn Conduct, keep_log: bool) -> Self {
        let mut world = Self {
            conduct,
            dice: Dice::new(seed),
            // A day after the boot, so that no moment of interest lies before it.
            now: 0,
            base: crate::clock::steady(),
            booted_at: 0,
            boot: 1,
            wall_is_off: 0,
            agenda: BTreeMap::new(),
            entries: 0,
            disks: vec![Disk::new(); chats],
            disk_is_full: false,
            files_unreadable: false,
            spawning: Spawning::Works,
            procs: BTreeMap::new(),
            dead: BTreeMap::new(),
            next_pid: 100,
            locks: vec![None; chats],
            moods: vec![Mood::Well; chats],
            consumers: vec![BTreeSet::new(); chats],
            next_consumer: 1,
            daemon: None,
            daemons: 0,
            healing: false,
            ledger: Ledger::new(chats),
            census: Census::default(),
            log: keep_log.then(Vec::new),
            breaches: Vec::new(),
        };
        world.later(0, Due::Boot);
        world.later(50, Due::Fault);
        world
    }

    // Time.

    pub(super) fn instant(&self) -> Instant {
        self.base + Duration::from_millis(self.now)
    }

    pub(super) fn moment(&self) -> Moment {
        Moment::ZERO + Duration::from_millis(self.now - self.booted_at)
    }

    /// The time of the run at which a moment of this boot comes, rounded up as the driver's poll does.
    pub(super) fn time_of(&self, at: Moment) -> u64 {
        let nanos = at.since(Moment::ZERO).as_nanos();
        let millis = u64::try_from(nanos.div_ceil(1_000_000)).unwrap_or(u64::MAX);
        self.booted_at.saturating_add(millis)
    }

    fn wall_millis(&self) -> i64 {
        let now = i64::try_from(self.now).unwrap_or(i64::MAX);
        1_800_000_000_000 + now + self.wall_is_off
    }

    pub(super) fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.wall_millis())
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp {
            boot: format!("boot-{}", self.boot),
            at: self.moment(),
            wall: Duration::from_millis(u64::try_from(self.wall_millis()).unwrap_or(0)),
        }
    }

    /// The computer starts anew: no process is left, and its clock begins again.
    pub(super) fn reboot(&mut self) {
        self.boot += 1;
        self.booted_at = self.now;
        self.daemon = None;
        self.procs.clear();
        for consumers in &mut self.consumers {
            consumers.clear();
        }
    }

    // Agenda.

    /// Puts something on the agenda that is due in so many milliseconds.
    pub(super) fn later(&mut self, delay: u64, due: Due) {
        self.entries += 1;
        self.agenda
            .insert((self.now.saturating_add(delay), self.entries), due);
    }

    /// As [`World::later`], for the daemon that runs now.
    pub(super) fn matter(&mut self, delay: u64, what: Matter) {
        if let Some(daemon) = &self.daemon {
            let daemon = daemon.id;
            self.later(delay, Due::Of { daemon, what });
        }
    }

    /// Takes the next entry and moves the time on; `None` if nothing is due before `until`.
    pub(super) fn next(&mut self, until: u64) -> Option<Due> {
        let entry = self.agenda.first_entry()?;
        let (at, _) = *entry.key();
        if at > until {
            return None;
        }
        let due = entry.remove();
        self.now = self.now.max(at);
        Some(due)
    }

    /// What is on the agenda of the daemon that runs now.
    pub(super) fn matters(&self) -> impl Iterator<Item = &Matter> {
        let id = self.daemon.as_ref().map(|daemon| daemon.id);
        self.agenda.values().filter_map(move |due| match due {
            Due::Of { daemon, what } if Some(*daemon) == id => Some(what),
            Due::Of { .. }
            | Due::Fault
            | Due::Step { .. }
            | Due::StrangerLeaves { .. }
            | Due::DiskHasRoom
            | Due::SpawnsWork
            | Due::FilesReadable
            | Due::WellAgain { .. }
            | Due::Boot => None,
        })
    }

    // Processes and locks.

    pub(super) fn start_process(&mut self, chat: ChatNo, nonce: Option<String>, kind: Kind) -> Pid {
        let pid = self.next_pid;
        self.next_pid += 1;
        let process = Process {
            chat,
            nonce,
            start_ticks: u64::from(pid) * 10,
            stubborn: self.dice.chance(50),
            status_is_lost: false,
            forks_when_killed: matches!(kind, Kind::Agent { .. }) && self.dice.chance(20),
            kind,
        };
        self.procs.insert(pid, process);
        pid
    }

    /// The process is gone; whoever watches it hears of it a little later.
    pub(super) fn end_process(&mut self, pid: Pid, ending: Ending) {
        let Some(process) = self.procs.remove(&pid) else {
            return;
        };
        self.say(format_args!("pid {pid} ends: {ending}"));
        let dead = Dead {
            ending,
            status_is_lost: process.status_is_lost,
        };
        self.dead.insert(pid, dead);
        let delay = self.dice.between(0, 5);
        if let Some(unit) = self.unit(process.chat) {
            if let Some(run) = &unit.run
                && run.pid == pid
            {
                let (chat, generation) = (process.chat, run.generation);
                self.matter(delay, Matter::SawExit { chat, generation });
            } else if unit.watch == Some(pid) {
                let chat = process.chat;
                self.matter(delay, Matter::SawHolderEnd { chat, pid });
            }
        }
    }

    /// The live process that has the session: the one that took the lock, or an heir of it.
    pub(super) fn lock_holder(&self, chat: ChatNo) -> Option<Pid> {
        let owner = self.locks[chat]?;
        if self.procs.contains_key(&owner) {
            return Some(owner);
        }
        self.procs
            .iter()
            .find(|(_, process)| matches!(process.kind, Kind::Agent { of } if of == owner))
            .map(|(pid, _)| *pid)
    }

    /// As `daemon/holder.rs` tells it to the machine.
    pub(super) fn live_holder(&self, chat: ChatNo) -> Option<(Holder, bool)> {
        let pid = self.lock_holder(chat)?;
        let process = self.procs.get(&pid)?;
        let (label, watchable) = match process.kind {
            Kind::Handler(_) => ("chat-nex", true),
            Kind::Agent { .. } => ("an heir of the lock", false),
            Kind::Stranger { watchable, .. } => ("stranger", watchable),
        };
        let holder = Holder {
            pid,
            start: Some(process.start_ticks),
            label: label.to_owned(),
        };
        Some((holder, watchable))
    }

    /// The live handlers of a chat.
    pub(super) fn handlers(&self, chat: ChatNo) -> Vec<Pid> {
        self.procs
            .iter()
            .filter(|(_, process)| process.chat == chat && process.handler().is_some())
            .map(|(pid, _)| *pid)
            .collect()
    }

    /// Everything alive that carries the chat's marker.
    pub(super) fn marked(&self, chat: ChatNo) -> Vec<Pid> {
        self.procs
            .iter()
            .filter(|(_, process)| process.chat == chat && process.is_marked())
            .map(|(pid, _)| *pid)
            .collect()
    }

    // Telling.

    pub(super) fn say(&mut self, what: std::fmt::Arguments<'_>) {
        let now = self.now;
        if let Some(log) = &mut self.log {
            log.push(format!("{:>9}.{:03} {what}", now / 1000, now % 1000));
        }
    }

    pub(super) fn count(&mut self, kind: Counted, name: impl Into<std::borrow::Cow<'static, str>>) {
        self.census.count(kind, name);
    }
}
