//! The simulated daemon: the real cores, machines, rules and edges, in the order in which the real daemon uses them.
//!
//! `feed`, `start` and the ladder follow the supervisor's driver; the rest follows `daemon/mod.rs`. There is no thread and no
//! file here, so each of them is one event of the world.

use std::collections::VecDeque;

use supervisor::{Action, Event, Generation, Machine, Moment, StartReason as Cause, State};

use super::process::{Kind, Pid};
use super::verbs::{Purge, Verb};
use super::world::{Asker, ChatNo, Matter, World};
use crate::chat::{Act, Chat, Happened, Wish};

/// How long an event lies in the driver's channel, in milliseconds.
const CHANNEL: u64 = 1;

/// How the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It takes the chats over.
    Booting,
    /// It looks after them.
    Up,
    /// It stops them all and ends.
    Ending,
}

/// A daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) id: u32,
    pub(super) phase: Life,
    /// Since when it is up, in milliseconds.
    pub(super) up_since: u64,
    pub(super) paused: bool,
    pub(super) entries: Vec<Entry>,
    pub(super) purge: Option<Purge>,
}

/// A chat as the daemon knows it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) core: Chat,
    pub(super) unit: Option<Unit>,
    /// Its handler, while the driver has one.
    pub(super) handler: Option<Pid>,
    pub(super) replies: usize,
    pub(super) lane: VecDeque<Verb>,
    /// The verb that is being carried out.
    pub(super) busy: Option<Verb>,
}

/// A chat as the driver knows it.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) machine: Machine,
    pub(super) run: Option<Run>,
    pub(super) watch: Option<Pid>,
    deadline: Option<Moment>,
}

/// One process, until it and all that it left behind are gone.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) pid: Pid,
    pub(super) generation: Generation,
    pub(super) since: u64,
    pub(super) gone_at: Option<u64>,
    pub(super) stop_asked: bool,
    pub(super) adopted: bool,
    pub(super) sweeping: bool,
    pub(super) waiting: Vec<Asker>,
}

impl World<'_> {
    pub(super) fn entry(&self, chat: ChatNo) -> Option<&Entry> {
        self.daemon.as_ref()?.entries.get(chat)
    }

    pub(super) fn entry_mut(&mut self, chat: ChatNo) -> Option<&mut Entry> {
        self.daemon.as_mut()?.entries.get_mut(chat)
    }

    pub(super) fn unit(&self, chat: ChatNo) -> Option<&Unit> {
        self.entry(chat)?.unit.as_ref()
    }

    pub(super) fn unit_mut(&mut self, chat: ChatNo) -> Option<&mut Unit> {
        self.entry_mut(chat)?.unit.as_mut()
    }

    pub(super) fn run_mut(&mut self, chat: ChatNo, of: Generation) -> Option<&mut Run> {
        self.unit_mut(chat)?
            .run
            .as_mut()
            .filter(|run| run.generation == of)
    }

    // The driver.

    /// Gives the driver a machine for the chat, once.
    pub(super) fn ensure_unit(&mut self, chat: ChatNo) {
        if self.entry(chat).is_none_or(|entry| entry.unit.is_some()) {
            return;
        }
        let machine = self.machine_for(chat);
        if let Some(entry) = self.entry_mut(chat) {
            entry.unit = Some(Unit {
                machine,
                run: None,
                watch: None,
                deadline: None,
            });
        }
        self.sync_deadline(chat);
    }

    /// Puts an event into the driver's channel.
    pub(super) fn control(&mut self, chat: ChatNo, event: Event) {
        self.matter(CHANNEL, Matter::Control { chat, event });
    }

    /// Puts a stop into the driver's channel.
    pub(super) fn ask_stop(&mut self, chat: ChatNo, asker: Asker) {
        if asker == Asker::Nobody || self.conduct.ends_what_runs() {
            self.matter(CHANNEL, Matter::Stop { chat, asker });
        } else {
            self.is_down(chat, asker);
        }
    }

    pub(super) fn stop(&mut self, chat: ChatNo, asker: Asker) {
        if !self.conduct.ends_what_runs() {
            return;
        }
        let Some(unit) = self.unit_mut(chat) else {
            self.is_down(chat, asker);
            return;
        };
        if let Some(run) = &mut unit.run {
            run.waiting.push(asker);
            self.feed(chat, Event::Stop);
        } else {
            self.feed(chat, Event::Stop);
            self.is_down(chat, asker);
        }
    }

    /// Gives an event to a chat's machine and does what it answers.
    pub(super) fn feed(&mut self, chat: ChatNo, event: Event) {
        let now = self.moment();
        let shown = self.log.is_some().then(|| format!("{event:?}"));
        let Some(unit) = self.unit_mut(chat) else {
            return;
        };
        let step = unit.machine.handle(event, now);
        if !matches!(unit.machine.state(), State::Held { .. }) {
            unit.watch = None;
        }
        if let Some(shown) = shown {
            let state = self
                .unit(chat)
                .map(|unit| format!("{:?}", unit.machine.state()));
            self.say(format_args!(
                "  machine {chat}: {shown} -> {}",
                state.unwrap_or_default()
            ));
        }
        for notice in &step.notices {
            self.notice(chat, notice);
        }
        self.sync_deadline(chat);
        match step.action {
            Some(Action::Spawn {
                generation,
                epoch,
                reason,
            }) => {
                let delay = self.dice.between(0, 8);
                self.matter(
                    delay,
                    Matter::Start {
                        chat,
                        generation,
                        epoch,
                        reason,
                    },
                );
            }
            Some(Action::Terminate { generation }) => self.terminate(chat, generation),
            Some(Action::Kill { generation }) => self.begin_sweep(chat, generation),
            Some(Action::Watch { holder }) => self.watch(chat, holder.pid),
            None => {}
        }
    }

    fn sync_deadline(&mut self, chat: ChatNo) {
        let Some(unit) = self.unit_mut(chat) else {
            return;
        };
        let due = unit.machine.deadline();
        if due == unit.deadline {
            return;
        }
        unit.deadline = due;
        if let Some(at) = due {
            let delay = self.time_of(at).saturating_sub(self.now);
            self.matter(delay, Matter::Deadline { chat, at });
        }
    }

    pub(super) fn deadline(&mut self, chat: ChatNo, at: Moment) {
        let Some(unit) = self.unit_mut(chat) else {
            return;
        };
        if unit.deadline == Some(at) {
            unit.deadline = None;
            self.feed(chat, Event::DeadlineReached);
        }
    }

    fn watch(&mut self, chat: ChatNo, pid: Pid) {
        let event = match self.procs.get(&pid).map(|process| &process.kind) {
            None => Event::HolderGone,
            Some(Kind::Stranger {
                watchable: false, ..
            }) => Event::HolderUnwatchable,
            Some(Kind::Stranger { .. } | Kind::Handler(_) | Kind::Agent { .. }) => {
                if let Some(unit) = self.unit_mut(chat) {
                    unit.watch = Some(pid);
                }
                return;
            }
        };
        self.control(chat, event);
    }

    /// Makes a start that was decided, if its wish is still in force.
    pub(super) fn start(
        &mut self,
        chat: ChatNo,
        generation: Generation,
        epoch: supervisor::Epoch,
        reason: Cause,
    ) {
        let Some(unit) = self.unit(chat) else { return };
        let wanted = matches!(unit.machine.state(), State::Starting { generation: now, .. } if *now == generation);
        if !wanted || unit.machine.epoch() != epoch || self.is_ending() {
            return;
        }
        let event = self.prepare(chat, generation, reason);
        self.feed(chat, event);
    }

    // The daemon.

    pub(super) fn is_ending(&self) -> bool {
        self.daemon
            .as_ref()
            .is_none_or(|daemon| daemon.phase == Life::Ending)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.daemon.as_ref().is_some_and(|daemon| daemon.paused)
    }

    /// Whether there is a daemon that takes requests.
    pub(super) fn is_up(&self) -> bool {
        self.daemon
            .as_ref()
            .is_some_and(|daemon| daemon.phase == Life::Up)
    }

    /// Takes what happened around a chat and does what follows; false if a wish could not be written down.
    pub(super) fn act(&mut self, chat: ChatNo, happened: Happened) -> bool {
        let now = self.instant();
        let Some(entry) = self.entry_mut(chat) else {
            return true;
        };
        let was = entry.core.wish();
        let acts = entry.core.handle(happened, now);
        for act in acts {
            if !self.carry_out(chat, act) {
                self.act(chat, Happened::WishNotKept(was));
                return false;
            }
        }
        true
    }

    fn carry_out(&mut self, chat: ChatNo, act: Act) -> bool {
        match act {
            Act::PersistWish(wish) => {
                if !self.persist_wish(chat, wish) && self.conduct.refuses_unwritten_wish() {
                    return false;
                }
                if wish == Wish::Run {
                    self.ensure_unit(chat);
                    self.control(chat, Event::Start);
                }
            }
            Act::PersistConsumerSeen => {}
            Act::Start(_) => {
                self.ensure_unit(chat);
                self.control(chat, Event::Wake);
            }
            Act::Unpark(_) => {
                self.ensure_unit(chat);
                self.control(chat, Event::Resume);
            }
            Act::Stop => self.ask_stop(chat, Asker::Nobody),
        }
        true
    }

    /// Writes a wish to the state file; false if the disk is full.
    pub(super) fn persist_wish(&mut self, chat: ChatNo, wish: Wish) -> bool {
        if self.disk_is_full {
            return false;
        }
        let now = self.wall();
        crate::daemon::wishes::write(&mut self.disks[chat].record, wish, now);
        true
    }

    pub(super) fn inbox_changed(&mut self, chat: ChatNo) {
        if !self.conduct.heeds_inbox() {
            return;
        }
        // What cannot be read may hold a message: the start that follows asks again until it can be.
        let unanswered = self.files_unreadable || self.disks[chat].unanswered().is_some();
        self.act(chat, Happened::Looked { unanswered });
    }

    pub(super) fn outbox_changed(&mut self, chat: ChatNo) {
        let last = self.disks[chat].outbox.len();
        let finished = self.entry_mut(chat).is_some_and(|entry| {
            let more = last > entry.replies;
            entry.replies = entry.replies.max(last);
            more && entry.unit.is_some()
        });
        if finished {
            self.control(chat, Event::Progress);
        }
        self.inbox_changed(chat);
    }

    /// Writes the books of a chat.
    pub(super) fn save(&mut self, chat: ChatNo) {
        if self.disk_is_full {
            return;
        }
        let stamp = self.stamp();
        if let Some(unit) = self.unit(chat) {
            let books = unit.machine.snapshot(stamp);
            self.disks[chat].books = Some(books);
        }
    }

    /// Something happens in the daemon.
    pub(super) fn of_daemon(&mut self, what: Matter) {
        match what {
            Matter::FirstLooks => self.first_looks(),
            Matter::Control { chat, event } => self.feed(chat, event),
            Matter::Stop { chat, asker } => self.stop(chat, asker),
            Matter::Deadline { chat, at } => self.deadline(chat, at),
            Matter::Start {
                chat,
                generation,
                epoch,
                reason,
            } => self.start(chat, generation, epoch, reason),
            Matter::SawExit { chat, generation } => self.saw_exit(chat, generation),
            Matter::SawHolderEnd { chat, pid } => {
                if let Some(unit) = self.unit_mut(chat)
                    && unit.watch == Some(pid)
                {
                    unit.watch = None;
                    self.feed(chat, Event::HolderGone);
                }
            }
            Matter::Rung {
                chat,
                generation,
                step,
            } => self.climb(chat, generation, step),
            Matter::Pass { chat, generation } => self.pass(chat, generation),
            Matter::Save { chat } => self.save(chat),
            Matter::HoldOff { chat } => self.hold_off_over(chat),
            Matter::Inbox { chat } => self.inbox_changed(chat),
            Matter::Outbox { chat } => self.outbox_changed(chat),
            Matter::Lane { chat } => self.take_verb(chat),
            Matter::Purge => self.purge_step(),
            Matter::LastLook => self.last_look(),
        }
    }
}
