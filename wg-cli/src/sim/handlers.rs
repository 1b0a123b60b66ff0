//! The simulated handler processes. What a handler does next is decided by its shipped core; here its steps are done, in the
//! order of `handler/drive.rs` and `handler/answering.rs`, and here it falls over.

use std::time::Duration;

use exit_classifier::Ending;

use super::census::Kind as Counted;
use super::process::{Cut, Kind, Mood, Phase, Pid};
use super::world::{ChatNo, Due, Matter, World};
use crate::chat::Wish;
use crate::exit_code::ExitCode;
use crate::handler::core::{
    self, Answer, Core, Event, IdleInterrupt, Patience, Pending, Rules, Sight, Step, Then, TurnEnd,
};
use crate::store::config::OnInterrupted;

/// How long a handler that nobody needs stays.
const IDLE_GRACE: Duration = Duration::from_secs(300);

impl World<'_> {
    /// The core of a handler that starts now.
    pub(super) fn handler_core(&mut self) -> Core {
        let rules = Rules {
            patience: Patience::Idle(IDLE_GRACE),
            on_interrupted: self.dice.pick(&[
                OnInterrupted::Auto,
                OnInterrupted::Auto,
                OnInterrupted::Retry,
                OnInterrupted::Fail,
            ]),
            idle_interrupt: IdleInterrupt::Ignored,
        };
        Core::new(rules, self.instant())
    }

    /// A process does what it does next.
    pub(super) fn step(&mut self, pid: Pid, at: u64) {
        let Some(process) = self.procs.get(&pid) else {
            return;
        };
        let chat = process.chat;
        let Some(handler) = process.handler().filter(|handler| handler.step_at == at) else {
            return;
        };
        match handler.phase {
            Phase::Fresh => self.take_lock(pid, chat),
            Phase::Boundary => self.look(pid, chat),
            Phase::Turn { message } => self.end_turn(pid, chat, message),
            // The reply is on the disk and the cursor is not: the moment that decides whether anything is answered twice.
            Phase::Replied { .. } if !self.healing && self.dice.chance(3) => self.fall_over(pid),
            Phase::Replied { message, then } => {
                self.move_cursor(chat, message);
                self.do_step(pid, chat, then.into());
            }
        }
    }

    fn enter(&mut self, pid: Pid, phase: Phase, delay: u64) {
        if let Some(handler) = self.procs.get_mut(&pid).and_then(|p| p.handler_mut()) {
            handler.phase = phase;
        }
        self.step_in(pid, delay);
    }

    /// Tells the core of a handler; a handler that is gone has nothing to do.
    fn tell(&mut self, pid: Pid, event: Event) -> Option<Step> {
        let now = self.instant();
        let handler = self.procs.get_mut(&pid).and_then(|p| p.handler_mut())?;
        Some(handler.core.handle(event, now))
    }

    fn take_lock(&mut self, pid: Pid, chat: ChatNo) {
        if self.dice.chance(4) {
            self.fall_over(pid);
            return;
        }
        if self.lock_holder(chat).is_some() {
            self.leave(pid, ExitCode::Held);
            return;
        }
        self.locks[chat] = Some(pid);
        self.say(format_args!("handler {pid} has the lock of chat {chat}"));
        if self.disks[chat].record.is_withdrawn() {
            self.leave(pid, ExitCode::Released);
        } else if self.files_unreadable {
            self.leave(pid, ExitCode::System);
        } else if !self.disks[chat].agent_is_usable {
            self.leave(pid, ExitCode::Config);
        } else {
            self.enter(pid, Phase::Boundary, 1);
        }
    }

    /// A handler at its turn boundary: what was asked comes first, then the session.
    fn look(&mut self, pid: Pid, chat: ChatNo) {
        if !self.healing && self.dice.chance(5) {
            self.fall_over(pid);
            return;
        }
        match self.moods[chat] {
            Mood::Crashes => return self.leave(pid, ExitCode::Failed),
            Mood::LeavesCleanly => return self.leave(pid, ExitCode::Ok),
            Mood::Well | Mood::Drains | Mood::AgentDown => {}
        }
        let Some(handler) = self.procs.get_mut(&pid).and_then(|p| p.handler_mut()) else {
            return;
        };
        let event = if std::mem::take(&mut handler.told_to_stop) {
            Event::StopAsked
        } else if handler.release_asked {
            Event::ReleaseAsked
        } else if self.files_unreadable {
            return self.leave(pid, ExitCode::System);
        } else {
            Event::Looked(self.sight(pid, chat))
        };
        if let Some(step) = self.tell(pid, event) {
            self.do_step(pid, chat, step);
        }
    }

    fn sight(&self, pid: Pid, chat: ChatNo) -> Sight {
        let disk = &self.disks[chat];
        let next = self.conduct.next_message(disk).map(|message| {
            let earlier = disk.attempt.filter(|(of, _)| *of == message);
            Pending {
                message,
                attempts: earlier.map_or(0, |(_, attempts)| attempts),
                shown_output: earlier.is_some() && disk.shown,
            }
        });
        Sight {
            wish: match disk.wish() {
                Wish::Run => None,
                Wish::Stopped => Some(core::Wish::Stopped),
                Wish::Archived => Some(core::Wish::Archived),
                Wish::Purged => Some(core::Wish::Purged),
            },
            next,
            consumer_present: !self.consumers[chat].is_empty(),
            over_memory_cap: self.moods[chat] == Mood::Drains,
            lock_lost: self.locks[chat] != Some(pid),
        }
    }

    /// Does what the core says.
    fn do_step(&mut self, pid: Pid, chat: ChatNo, step: Step) {
        match step {
            // Only a turn hears that it is to end.
            Step::Look | Step::EndTurn(_) => self.enter(pid, Phase::Boundary, 1),
            Step::Wait => {
                let now = self.instant();
                let deadline = self
                    .procs
                    .get(&pid)
                    .and_then(|p| p.handler())
                    .and_then(|handler| handler.core.deadline());
                let rest = deadline.map_or(IDLE_GRACE, |at| at.saturating_duration_since(now));
                let rest = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX);
                self.enter(pid, Phase::Boundary, rest.max(1));
            }
            Step::Begin { message, attempt } => self.begin_turn(pid, chat, message, attempt),
            Step::Settle {
                message,
                answer,
                then,
            } => self.settle(pid, chat, message, answer, then),
            Step::Leave(code) => self.leave(pid, code),
        }
    }

    fn begin_turn(&mut self, pid: Pid, chat: ChatNo, message: u64, attempt: u32) {
        if self.disk_is_full {
            // The attempt could not be written down, so the turn must not begin.
            self.leave(pid, ExitCode::System);
            return;
        }
        let nonce = self.procs.get(&pid).and_then(|p| p.nonce.clone());
        self.count(Counted::Event, "turn_started");
        self.disks[chat].attempt = Some((message, attempt));
        self.disks[chat].shown = self.dice.chance(40);
        for _ in 0..self.dice.between(1, 2) {
            self.start_process(chat, nonce.clone(), Kind::Agent { of: pid });
        }
        if let Some(handler) = self.procs.get_mut(&pid).and_then(|p| p.handler_mut()) {
            handler.cut = Cut::No;
        }
        let longest = if self.dice.chance(5) { 900_000 } else { 20_000 };
        let delay = self.dice.between(20, longest);
        self.enter(pid, Phase::Turn { message }, delay);
    }

    /// The turn is over, and what the agent left is gone; the core says what is written.
    fn end_turn(&mut self, pid: Pid, chat: ChatNo, message: u64) {
        let cut = self
            .procs
            .get(&pid)
            .and_then(|p| p.handler())
            .map_or(Cut::No, |handler| handler.cut);
        let shown_output = self.disks[chat].shown;
        let end = match cut {
            Cut::Stop => TurnEnd::CutShort { shown_output },
            Cut::Interrupt => TurnEnd::Interrupted,
            Cut::No if !self.disks[chat].agent_is_usable => TurnEnd::FailedForGood,
            Cut::No if self.moods[chat] == Mood::AgentDown => TurnEnd::Unavailable,
            Cut::No if self.healing => TurnEnd::Replied,
            Cut::No => match self.dice.between(1, 100) {
                1..=8 => TurnEnd::Failed,
                9..=14 => TurnEnd::Unavailable,
                15..=16 => TurnEnd::NoResources,
                _ => TurnEnd::Replied,
            },
        };
        self.end_agents(pid);
        self.count(Counted::Event, turn_word(end));
        let step = self.tell(pid, Event::TurnEnded(end));
        match step {
            Some(Step::Settle { answer, then, .. }) => {
                self.settle(pid, chat, message, answer, then);
            }
            Some(step) => self.do_step(pid, chat, step),
            None => {}
        }
    }

    /// Writes what came of a message; only then does the cursor move.
    fn settle(&mut self, pid: Pid, chat: ChatNo, message: u64, answer: Answer, then: Then) {
        let kind = match answer {
            Answer::Stay => return self.do_step(pid, chat, then.into()),
            Answer::Unread { attempts } => {
                self.disks[chat].shown = false;
                self.disks[chat].attempt = (attempts > 0).then_some((message, attempts));
                return self.do_step(pid, chat, then.into());
            }
            Answer::Reply => "reply",
            Answer::SystemError(_) => "system_error_reply",
        };
        if self.disk_is_full || self.files_unreadable {
            // The record of the attempt stays: the next handler finds it.
            self.leave(pid, ExitCode::System);
            return;
        }
        self.count(Counted::Event, kind);
        self.disks[chat].outbox.push(message);
        self.say(format_args!(
            "handler {pid} answers message {message} of chat {chat}: {kind}"
        ));
        let delay = self.dice.between(0, 10);
        self.matter(delay, Matter::Outbox { chat });
        self.enter(pid, Phase::Replied { message, then }, 5);
    }

    fn move_cursor(&mut self, chat: ChatNo, message: u64) {
        // A cursor that is not written costs a look, no more.
        if !self.disk_is_full {
            let disk = &mut self.disks[chat];
            disk.cursor = disk.cursor.max(message);
        }
        self.disks[chat].attempt = None;
        self.disks[chat].shown = false;
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

    /// The handler leaves with a code, and says so in its note.
    fn leave(&mut self, pid: Pid, code: ExitCode) {
        let Some(process) = self.procs.get(&pid) else {
            return;
        };
        let ending = Ending::Code(i32::from(code.code()));
        if !self.disk_is_full {
            let chat = process.chat;
            self.disks[chat].exit = Some((pid, ending));
        }
        self.end_process(pid, ending);
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
        let hangs = self.dice.chance(30);
        let Some(process) = self.procs.get_mut(&pid) else {
            return;
        };
        match &mut process.kind {
            // One that hangs hears nothing, and only force ends it.
            Kind::Handler(_) if hangs && process.stubborn => {}
            Kind::Handler(handler) => {
                handler.release_asked = true;
                if handler.phase == Phase::Boundary {
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
    pub(super) fn tell_to_stop(&mut self, pid: Pid) {
        let Some(process) = self.procs.get_mut(&pid).filter(|p| !p.stubborn) else {
            return;
        };
        let Some(handler) = process.handler_mut() else {
            let number = nix::libc::SIGTERM;
            let core = false;
            return self.end_process(pid, Ending::Signal { number, core });
        };
        match handler.phase {
            // It has no ears yet.
            Phase::Fresh => {
                let number = nix::libc::SIGTERM;
                let core = false;
                self.end_process(pid, Ending::Signal { number, core });
            }
            Phase::Boundary => {
                handler.told_to_stop = true;
                self.nudge(pid);
            }
            Phase::Turn { .. } => self.cut_turn(pid, Event::StopAsked, Cut::Stop),
            Phase::Replied { .. } => handler.told_to_stop = true,
        }
    }

    /// SIGINT to a handler: it ends the turn, not the chat.
    pub(super) fn interrupt(&mut self, pid: Pid) {
        let phase = self
            .procs
            .get(&pid)
            .and_then(|p| p.handler())
            .map(|h| h.phase);
        if let Some(Phase::Turn { .. }) = phase {
            self.count(Counted::Event, "turn_interrupted");
            self.cut_turn(pid, Event::InterruptAsked, Cut::Interrupt);
        }
    }

    fn cut_turn(&mut self, pid: Pid, event: Event, cut: Cut) {
        if let Some(Step::EndTurn(_)) = self.tell(pid, event)
            && let Some(handler) = self.procs.get_mut(&pid).and_then(|p| p.handler_mut())
        {
            // A stop is stronger than an interrupt that was asked for before.
            if handler.cut != Cut::Stop {
                handler.cut = cut;
            }
            self.nudge(pid);
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

fn turn_word(end: TurnEnd) -> &'static str {
    match end {
        TurnEnd::Replied => "turn: replied",
        TurnEnd::Failed => "turn: failed",
        TurnEnd::OverMemoryCap => "turn: over the memory cap",
        TurnEnd::FailedForGood => "turn: failed for good",
        TurnEnd::Unavailable => "turn: unavailable",
        TurnEnd::NoResources => "turn: no resources",
        TurnEnd::Interrupted => "turn: interrupted",
        TurnEnd::NotBegun => "turn: not begun",
        TurnEnd::CutShort { .. } => "turn: cut short",
    }
}
