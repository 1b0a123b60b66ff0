//! The seeded generator of what goes wrong, and of what people do meanwhile.

use std::fmt;

use super::census::Kind as Counted;
use super::daemon::Life;
use super::process::{Kind, Mood, Pid};
use super::verbs::Verb;
use super::world::{ChatNo, Due, Matter, Spawning, World};
use crate::chat::Wish;
use supervisor::Event;

/// Declares the faults with their names and how often each is chosen.
macro_rules! faults {
    ($($variant:ident = $name:literal, $weight:literal;)+) => {
        /// What the generator can do to the world.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Fault { $(#[doc = $name] $variant,)+ }

        impl Fault {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the name of the fault.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            const fn weight(self) -> u64 {
                match self { $(Self::$variant => $weight,)+ }
            }
        }
    };
}

faults! {
    Send = "send a message", 40;
    Attach = "a consumer comes", 6;
    Detach = "a consumer goes", 6;
    KillHandler = "kill a handler", 14;
    TermHandler = "somebody else's sigterm to a handler", 3;
    KillAgent = "kill an agent", 4;
    KillDaemon = "kill the daemon", 6;
    StopDaemon = "stop the daemon and its handlers", 2;
    KeepHandlers = "stop the daemon, keep the handlers", 2;
    LoseStatus = "lose a status", 4;
    Interrupt = "interrupt a turn", 4;
    Steal = "a stranger steals a lock", 7;
    Seize = "a stranger takes a lock", 4;
    StrangerEnds = "a stranger ends", 5;
    JumpWall = "the wall clock jumps", 3;
    SpawnFailsForGood = "starts fail for good", 2;
    SpawnFailsForNow = "starts fail for now", 3;
    DiskFull = "the disk is full", 4;
    Unreadable = "files cannot be read", 2;
    Sicken = "the handlers of a chat fall ill", 4;
    BreakAgent = "the agent's settings break", 6;
    MendAgent = "the agent's settings are mended", 8;
    Stop = "stop", 6;
    Resume = "resume", 7;
    Archive = "archive", 3;
    Restore = "restore", 7;
    Purge = "purge", 2;
    Release = "release to a person", 4;
    Pause = "pause the service", 1;
    Unpause = "unpause the service", 2;
    Reboot = "reboot", 1;
    Quiet = "nothing for long", 2;
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl World<'_> {
    /// Does something to the world and says when the next thing is done.
    pub(super) fn fault(&mut self) {
        if self.healing {
            return;
        }
        let sum = Fault::ALL.iter().map(|fault| fault.weight()).sum();
        let mut left = self.dice.between(1, sum);
        let fault = Fault::ALL
            .iter()
            .find(|fault| {
                let here = left <= fault.weight();
                left = left.saturating_sub(fault.weight());
                here
            })
            .copied()
            .unwrap_or(Fault::Send);
        let last = self.disks.len() - 1;
        let chat =
            usize::try_from(self.dice.between(0, u64::try_from(last).unwrap_or(0))).unwrap_or(0);
        self.count(Counted::Fault, fault.as_str());
        self.say(format_args!("* {fault} (chat {chat})"));
        let pause = self.do_fault(fault, chat);
        self.later(pause, Due::Fault);
    }

    /// Returns how long it is quiet afterwards, in milliseconds.
    fn do_fault(&mut self, fault: Fault, chat: ChatNo) -> u64 {
        let spans = [5, 50, 500, 5_000, 60_000];
        let longest = self.dice.pick(&spans);
        let pause = self.dice.between(1, longest);
        match fault {
            Fault::Send => self.send(chat),
            Fault::Attach => self.attach(chat),
            Fault::Detach => self.detach(chat),
            Fault::KillHandler | Fault::TermHandler => self.hit_handler(chat, fault),
            Fault::KillAgent => {
                let agent = self.of_kind(|kind| matches!(kind, Kind::Agent { .. }));
                self.kill_one(&agent);
            }
            Fault::KillDaemon => self.kill_daemon(),
            Fault::StopDaemon => self.end_daemon(),
            Fault::KeepHandlers => {
                for chat in 0..self.disks.len() {
                    self.save(chat);
                }
                self.kill_daemon();
            }
            Fault::LoseStatus => {
                for pid in self.handlers(chat) {
                    if let Some(process) = self.procs.get_mut(&pid) {
                        process.status_is_lost = true;
                    }
                }
            }
            Fault::Interrupt => {
                for pid in self.handlers(chat) {
                    self.interrupt(pid);
                }
            }
            Fault::Seize => self.seize(chat),
            Fault::Steal => self.steal(chat),
            Fault::StrangerEnds => {
                let strangers = self.of_kind(|kind| matches!(kind, Kind::Stranger { .. }));
                self.kill_one(&strangers);
            }
            Fault::JumpWall => {
                let by = i64::try_from(self.dice.between(0, 20_000_000)).unwrap_or(0);
                self.wall_is_off += by - 10_000_000;
            }
            Fault::SpawnFailsForGood => self.spawns_fail(Spawning::NoProgram),
            Fault::SpawnFailsForNow => self.spawns_fail(Spawning::NoRoom),
            Fault::DiskFull => {
                self.disk_is_full = true;
                let delay = self.dice.between(10, 30_000);
                self.later(delay, Due::DiskHasRoom);
            }
            Fault::Unreadable => {
                self.files_unreadable = true;
                let delay = self.dice.between(10, 10_000);
                self.later(delay, Due::FilesReadable);
            }
            Fault::Sicken => {
                self.moods[chat] = self.dice.pick(&[
                    Mood::Crashes,
                    Mood::Crashes,
                    Mood::LeavesCleanly,
                    Mood::Drains,
                    Mood::AgentDown,
                ]);
                let longest = self.dice.pick(&[60_000, 1_000_000, 10_000_000]);
                let delay = self.dice.between(1_000, longest);
                self.later(delay, Due::WellAgain { chat });
            }
            Fault::BreakAgent => self.set_agent(chat, false),
            Fault::MendAgent => self.set_agent(chat, true),
            Fault::Stop => self.verb(chat, Verb::Stop),
            Fault::Resume => self.verb(chat, Verb::Resume),
            Fault::Archive => self.verb(chat, Verb::Archive),
            Fault::Restore => self.verb(chat, Verb::Restore),
            Fault::Purge => self.purge(),
            Fault::Release => self.release(chat),
            Fault::Pause => self.pause(true),
            Fault::Unpause => self.pause(false),
            Fault::Reboot => {
                self.reboot();
                self.boot_later();
            }
            Fault::Quiet => return self.dice.between(100_000, 1_500_000),
        }
        pause
    }

    fn of_kind(&self, is: impl Fn(&Kind) -> bool) -> Vec<Pid> {
        self.procs
            .iter()
            .filter(|(_, process)| is(&process.kind))
            .map(|(pid, _)| *pid)
            .collect()
    }

    fn kill_one(&mut self, of: &[Pid]) {
        if !of.is_empty() {
            let pid = self.dice.pick(of);
            if self
                .procs
                .get(&pid)
                .is_some_and(|p| matches!(p.kind, Kind::Stranger { .. }))
            {
                self.stranger_ends(pid);
            } else {
                self.kill(pid);
            }
        }
    }

    fn hit_handler(&mut self, chat: ChatNo, fault: Fault) {
        let handlers = self.handlers(chat);
        if handlers.is_empty() {
            return;
        }
        let pid = self.dice.pick(&handlers);
        if fault == Fault::KillHandler {
            self.kill(pid);
        } else {
            self.tell_to_stop(pid);
        }
    }

    /// A stranger takes the session, if nobody has it.
    fn seize(&mut self, chat: ChatNo) {
        if self.lock_holder(chat).is_none() {
            self.steal(chat);
        }
    }

    /// A stranger takes the session, whoever has it.
    fn steal(&mut self, chat: ChatNo) {
        let watchable = self.dice.chance(60);
        let proven = watchable && self.dice.chance(50);
        let pid = self.start_process(chat, None, Kind::Stranger { watchable, proven });
        self.locks[chat] = Some(pid);
        let delay = self.dice.between(100, 400_000);
        self.later(delay, Due::StrangerLeaves { pid });
    }

    pub(super) fn stranger_ends(&mut self, pid: Pid) {
        if let Some(process) = self.procs.get(&pid) {
            let chat = process.chat;
            self.ledger.external(chat, self.now);
            self.count(Counted::Event, "stranger_ended");
            self.end_process(pid, exit_classifier::Ending::Code(0));
        }
    }

    fn spawns_fail(&mut self, how: Spawning) {
        self.spawning = how;
        let delay = self.dice.between(100, 20_000);
        self.later(delay, Due::SpawnsWork);
    }

    fn pause(&mut self, paused: bool) {
        if let Some(daemon) = &mut self.daemon {
            daemon.paused = paused;
        }
        if !paused {
            self.wake_all();
        }
    }

    /// What an unpaused service does: each chat decides afresh.
    pub(super) fn wake_all(&mut self) {
        for chat in 0..self.disks.len() {
            self.ledger.needed(chat, self.now);
            if self.unit(chat).is_some() {
                self.control(chat, Event::Wake);
            }
        }
    }

    fn kill_daemon(&mut self) {
        if self.daemon.take().is_some() {
            self.count(Counted::Event, "daemon_died");
        }
        self.boot_later();
    }

    fn boot_later(&mut self) {
        let longest = self.dice.pick(&[100, 5_000, 100_000]);
        let delay = self.dice.between(1, longest);
        self.later(delay, Due::Boot);
    }

    /// The daemon stops everything it runs, then ends.
    fn end_daemon(&mut self) {
        if !self.is_up() {
            return;
        }
        for chat in 0..self.disks.len() {
            self.save(chat);
        }
        if let Some(daemon) = &mut self.daemon {
            daemon.phase = Life::Ending;
        }
        for chat in 0..self.disks.len() {
            self.feed(chat, Event::Stop);
        }
        self.matter(10, Matter::LastLook);
    }

    pub(super) fn last_look(&mut self) {
        let busy = self.daemon.as_ref().is_some_and(|daemon| {
            daemon
                .entries
                .iter()
                .any(|entry| entry.unit.as_ref().is_some_and(|unit| unit.run.is_some()))
        });
        if busy {
            self.matter(100, Matter::LastLook);
        } else {
            self.daemon = None;
            self.count(Counted::Event, "daemon_stopped");
            self.boot_later();
        }
    }

    /// Everything that was broken is mended, and people lift every wish: what is left must come to rest.
    pub(super) fn heal(&mut self) {
        self.healing = true;
        self.say(format_args!("* everything is mended"));
        self.disk_is_full = false;
        self.files_unreadable = false;
        self.spawning = Spawning::Works;
        self.moods.fill(Mood::Well);
        for pid in self.of_kind(|kind| matches!(kind, Kind::Stranger { .. })) {
            self.stranger_ends(pid);
        }
        self.pause(false);
        for chat in 0..self.disks.len() {
            while !self.consumers[chat].is_empty() {
                self.detach(chat);
            }
            self.set_agent(chat, true);
        }
        if self.daemon.is_none() {
            self.boot();
        }
    }

    /// People lift every wish that is left.
    pub(super) fn lift_wishes(&mut self) {
        for chat in 0..self.disks.len() {
            if self.disks[chat].wish() != Wish::Run {
                self.verb(chat, Verb::Restore);
            }
            self.verb(chat, Verb::Resume);
        }
    }
}
