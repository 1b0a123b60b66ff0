//! The simulated handler processes: take the lock, answer, wait, leave, or fall over.
//!
//! They follow what `wg nex` promises: the cursor moves after the reply, a message is given to an agent at most twice, and a
//! withdrawn chat is left with 92 right after the lock was taken.

use exit_classifier::Ending;

use super::census::Kind as Counted;
use super::process::{Kind, Mood, Phase, Pid};
use super::world::{ChatNo, Due, Matter, World};

/// How long a handler that nobody needs stays, in milliseconds.
const IDLE_GRACE: u64 = 300_000;

/// How often a message is given to an agent.
const MOST_ATTEMPTS: u32 = 2;

impl World<'_> {
    /// A process does what it does next.
    pub(super) fn step(&mut self, pid: Pid, at: u64) {
        let Some(process) = self.procs.get(&pid) else {
            return;
        };
        let (chat, stubborn) = (process.chat, process.stubborn);
        let Some(handler) = process.handler().filter(|handler| handler.step_at == at) else {
            return;
        };
        let handler = handler.clone();
        if handler.told_to_end && !stubborn {
            self.end_agents(pid);
            self.leave(pid, 0);
            return;
        }
        match handler.phase {
            Phase::Fresh => self.take_lock(pid, chat),
            Phase::Waiting { since } => self.serve(pid, chat, since, handler.release_asked),
            Phase::Turn { message } => self.end_turn(pid, chat, message),
            Phase::Replied { message } => {
                self.move_cursor(chat, message);
                let since = self.now;
                self.enter(pid, Phase::Waiting { since }, 1);
            }
        }
    }

    fn enter(&mut self, pid: Pid, phase: Phase, delay: u64) {
        if let Some(handler) = self.procs.get_mut(&pid).and_then(|p| p.handler_mut()) {
            handler.phase = phase;
        }
        self.step_in(pid, delay);
    }

    fn take_lock(&mut self, pid: Pid, chat: ChatNo) {
        if self.dice.chance(4) {
            self.fall_over(pid);
        } else if self.lock_holder(chat).is_some() {
            self.leave(pid, 75);
        } else {
            self.locks[chat] = Some(pid);
            self.say(format_args!("handler {pid} has the lock of chat {chat}"));
            if self.disks[chat].record.is_withdrawn() {
                self.leave(pid, 92);
            } else {
                let since = self.now;
                self.enter(pid, Phase::Waiting { since }, 1);
            }
        }
    }

    fn serve(&mut self, pid: Pid, chat: ChatNo, since: u64, release_asked: bool) {
        if release_asked {
            self.leave(pid, 92);
            return;
        }
        if !self.healing && self.dice.chance(6) {
            self.fall_over(pid);
            return;
        }
        let ending = match self.moods[chat] {
            Mood::Well | Mood::AgentDown => None,
            Mood::Crashes => Some(1),
            Mood::LeavesCleanly => Some(0),
            Mood::Drains => Some(90),
        };
        if let Some(code) = ending {
            self.leave(pid, code);
            return;
        }
        let Some(message) = self.conduct.next_message(&self.disks[chat]) else {
            self.wait(pid, chat, since);
            return;
        };
        if self.disk_is_full || self.files_unreadable {
            self.leave(pid, 71);
            return;
        }
        let before = self.disks[chat]
            .attempts
            .get(&message)
            .copied()
            .unwrap_or(0);
        let shown = self.disks[chat].shown.contains(&message);
        if before >= MOST_ATTEMPTS || (before > 0 && shown) {
            // Interrupted before: an agent may already have done something that must not be done twice.
            self.reply(pid, chat, message, "system_error_reply");
            return;
        }
        if !self.disks[chat].agent_is_usable {
            self.reply(pid, chat, message, "system_error_reply");
            self.leave(pid, 78);
            return;
        }
        self.disks[chat].attempts.insert(message, before + 1);
        if self.moods[chat] == Mood::AgentDown || (!self.healing && self.dice.chance(8)) {
            // What the agent depends on is down; the message stays unread.
            self.disks[chat].attempts.insert(message, before);
            self.leave(pid, 69);
            return;
        }
        self.count(Counted::Event, "turn_started");
        let nonce = self.procs.get(&pid).and_then(|p| p.nonce.clone());
        for _ in 0..self.dice.between(1, 2) {
            self.start_process(chat, nonce.clone(), Kind::Agent { of: pid });
        }
        if self.dice.chance(40) {
            self.disks[chat].shown.push(message);
        }
        let longest = if self.dice.chance(5) { 900_000 } else { 20_000 };
        let delay = self.dice.between(20, longest);
        self.enter(pid, Phase::Turn { message }, delay);
    }

    /// Nothing to do: it stays for the idle grace, then leaves.
    fn wait(&mut self, pid: Pid, chat: ChatNo, since: u64) {
        if !self.consumers[chat].is_empty() {
            let now = self.now;
            self.enter(pid, Phase::Waiting { since: now }, IDLE_GRACE);
        } else if self.now >= since + IDLE_GRACE {
            self.leave(pid, 91);
        } else {
            let rest = since + IDLE_GRACE - self.now;
            self.enter(pid, Phase::Waiting { since }, rest);
        }
    }

    fn end_turn(&mut self, pid: Pid, chat: ChatNo, message: u64) {
        if self.disk_is_full {
            // The reply is kept and tried again: it is not lost for a full disk.
            self.enter(pid, Phase::Turn { message }, 2_000);
            return;
        }
        self.end_agents(pid);
        self.count(Counted::Event, "turn_finished");
        self.reply(pid, chat, message, "reply");
    }

    fn reply(&mut self, pid: Pid, chat: ChatNo, message: u64, kind: &'static str) {
        self.count(Counted::Event, kind);
        self.disks[chat].outbox.push(message);
        self.say(format_args!(
            "handler {pid} answers message {message} of chat {chat}"
        ));
        let delay = self.dice.between(0, 10);
        self.matter(delay, Matter::Outbox { chat });
        self.enter(pid, Phase::Replied { message }, 5);
    }

    fn move_cursor(&mut self, chat: ChatNo, message: u64) {
        // Never past a message without a reply, and a cursor that is not written costs a look, no more.
        let disk = &mut self.disks[chat];
        while !self.disk_is_full
            && disk.cursor < message
            && disk.outbox.contains(&(disk.cursor + 1))
        {
            disk.cursor += 1;
        }
    }

    fn end_agents(&mut self, of: Pid) {
        let agents: Vec<Pid> = self
            .procs
            .iter()
            .filter(|(_, process)| matches!(process.kind, Kind::Agent { of: above } if above == of))
            .map(|(pid, _)| *pid)
            .collect();
        for pid in agents {
            self.kill(pid);
        }
    }

    /// The process leaves with a code, and says so in its note.
    pub(super) fn leave(&mut self, pid: Pid, code: i32) {
        let Some(process) = self.procs.get(&pid) else {
            return;
        };
        let chat = process.chat;
        if !self.disk_is_full && process.handler().is_some() {
            self.disks[chat].exit = Some((pid, Ending::Code(code)));
        }
        self.end_process(pid, Ending::Code(code));
    }

    /// A handler ends as none should.
    fn fall_over(&mut self, pid: Pid) {
        self.count(Counted::Event, "handler_fell_over");
        let signal = |number, core| Ending::Signal { number, core };
        let ending = self.dice.pick(&[
            Ending::Code(0),
            Ending::Code(1),
            Ending::Code(1),
            Ending::Code(3),
            Ending::Code(71),
            Ending::Code(90),
            Ending::Code(12),
            Ending::Code(101),
            Ending::Code(139),
            signal(nix::libc::SIGABRT, true),
            signal(nix::libc::SIGSEGV, true),
            signal(nix::libc::SIGTERM, false),
            signal(nix::libc::SIGKILL, false),
        ]);
        self.end_process(pid, ending);
    }

    /// Somebody asks the process to leave at its turn boundary.
    pub(super) fn ask_release(&mut self, pid: Pid) {
        self.count(Counted::Event, "release_requested");
        let Some(process) = self.procs.get_mut(&pid) else {
            return;
        };
        match &mut process.kind {
            Kind::Handler(handler) => {
                handler.release_asked = true;
                if let Phase::Waiting { .. } = handler.phase {
                    self.nudge(pid);
                }
            }
            Kind::Stranger { .. } => {
                if self.dice.chance(50) {
                    let delay = self.dice.between(10, 60_000);
                    self.later(delay, Due::StrangerLeaves { pid });
                }
            }
            Kind::Agent { .. } => {}
        }
    }

    /// SIGTERM.
    pub(super) fn tell_to_end(&mut self, pid: Pid) {
        if let Some(process) = self.procs.get_mut(&pid) {
            let stubborn = process.stubborn;
            if let Some(handler) = process.handler_mut() {
                handler.told_to_end = true;
                if !stubborn {
                    self.nudge(pid);
                }
            } else if !stubborn {
                let number = nix::libc::SIGTERM;
                self.end_process(
                    pid,
                    Ending::Signal {
                        number,
                        core: false,
                    },
                );
            }
        }
    }

    /// The process notices something before it would have looked.
    pub(super) fn nudge(&mut self, pid: Pid) {
        let delay = self.dice.between(1, 50);
        self.step_in(pid, delay);
    }

    /// The process does its next step after so many milliseconds, and not when it would have.
    pub(super) fn step_in(&mut self, pid: Pid, delay: u64) {
        let at = self.now + delay;
        if let Some(handler) = self.procs.get_mut(&pid).and_then(|p| p.handler_mut()) {
            handler.step_at = at;
            self.later(delay, Due::Step { pid, at });
        }
    }
}
