//! Boot of the simulated daemon, as `daemon/boot.rs` and `daemon/books.rs` do it.

use std::collections::{BTreeSet, VecDeque};

use supervisor::{Event, Machine, Policy, Snapshot, State, ValidPolicy};

use super::census::Kind as Counted;
use super::daemon::{Daemon, Entry, Life, Run};
use super::process::Pid;
use super::world::{ChatNo, Due, Matter, World};
use crate::chat::{Chat, Need, Wish};

/// The policy under test: what is shipped.
pub(super) fn policy() -> ValidPolicy {
    Policy::standard()
        .validate()
        .expect("because the recommended policy is valid")
}

impl World<'_> {
    /// A daemon starts, unless one runs: there is a lock for that.
    pub(super) fn boot(&mut self) {
        if self.daemon.is_some() {
            return;
        }
        if self.files_unreadable {
            // A graph that cannot be read never reads as "no chats".
            self.later(1_000, Due::Boot);
            return;
        }
        self.daemons += 1;
        self.count(Counted::Event, "daemon_started");
        let number = self.daemons;
        self.say(format_args!("daemon {number} starts"));
        let entries = self
            .disks
            .iter()
            .map(|disk| Entry {
                core: Chat::new(disk.wish()),
                unit: None,
                handler: None,
                replies: disk.outbox.len(),
                lane: VecDeque::new(),
                busy: None,
            })
            .collect();
        self.daemon = Some(Daemon {
            id: self.daemons,
            phase: Life::Booting,
            up_since: self.now,
            paused: false,
            entries,
            purge: None,
        });
        self.ledger.daemon_started(self.now);
        let live = self.live_chats();
        for chat in &live {
            self.ensure_unit(*chat);
        }
        for chat in live {
            self.adopt(chat);
        }
        let delay = self.dice.between(1, 50);
        self.matter(delay, Matter::FirstLooks);
    }

    /// The chats that may have a handler: a stopped one may have one that is to be ended.
    fn live_chats(&self) -> Vec<ChatNo> {
        (0..self.disks.len())
            .filter(|chat| {
                self.entry(*chat)
                    .is_some_and(|entry| matches!(entry.core.wish(), Wish::Run | Wish::Stopped))
            })
            .collect()
    }

    /// Adopts a live handler of an earlier daemon: its nonce must be the one that was written down.
    fn adopt(&mut self, chat: ChatNo) {
        let Some(spawn) = self.disks[chat].record.spawn.clone() else {
            return;
        };
        let candidates: BTreeSet<Pid> = self
            .lock_holder(chat)
            .into_iter()
            .chain(spawn.pid.filter(|_| self.conduct.finds_unlocked_handlers()))
            .collect();
        for pid in candidates {
            let Some(process) = self.procs.get(&pid) else {
                continue;
            };
            if process.nonce.as_deref() != Some(spawn.nonce.as_str()) || process.handler().is_none()
            {
                continue;
            }
            if self.take_in(chat, pid) {
                return;
            }
        }
    }

    /// Gives the driver a process that it did not start; false if it has one.
    pub(super) fn take_in(&mut self, chat: ChatNo, pid: Pid) -> bool {
        if self.unit(chat).is_none_or(|unit| unit.run.is_some()) {
            return false;
        }
        let since = self.moment();
        self.feed(chat, Event::Adopted { pid, since });
        let now = self.now;
        let Some(unit) = self.unit_mut(chat) else {
            return false;
        };
        let Some((_, generation)) = unit.machine.state().process() else {
            return false;
        };
        unit.run = Some(Run {
            pid,
            generation,
            since: now,
            gone_at: None,
            stop_asked: false,
            adopted: true,
            sweeping: false,
            waiting: Vec::new(),
        });
        self.count(Counted::Event, "adopted");
        if !self.procs.contains_key(&pid) {
            self.matter(0, Matter::SawExit { chat, generation });
        }
        true
    }

    /// Ends what dead handlers left behind, then looks at each chat.
    pub(super) fn first_looks(&mut self) {
        let adopted: Vec<bool> = (0..self.disks.len())
            .map(|chat| self.unit(chat).is_some_and(|unit| unit.run.is_some()))
            .collect();
        for (chat, adopted) in adopted.iter().enumerate() {
            if *adopted {
                continue;
            }
            for pid in self.marked(chat) {
                let has_lock = self.locks[chat] == Some(pid);
                let is_handler = self.procs.get(&pid).is_some_and(|p| p.handler().is_some());
                if is_handler && !has_lock && !self.conduct.finds_unlocked_handlers() {
                    continue;
                }
                // A holder of a lock is exempt: it may be somebody's that the marker was handed down to.
                let withdrawn = self.disks[chat].record.is_withdrawn();
                if !has_lock || (withdrawn && self.conduct.ends_what_runs()) {
                    self.count(Counted::Event, "leftover_ended");
                    self.kill(pid);
                }
            }
        }
        if let Some(daemon) = &mut self.daemon {
            daemon.phase = Life::Up;
            daemon.up_since = self.now;
        }
        for (chat, adopted) in adopted.into_iter().enumerate() {
            let wish = self.disks[chat].wish();
            if adopted {
                // What a person wished while nobody was there to carry it out is carried out now.
                if wish != Wish::Run && self.conduct.ends_what_runs() {
                    self.ask_stop(chat, super::world::Asker::Nobody);
                }
                continue;
            }
            if self.unit(chat).is_some() {
                self.first_look(chat);
            }
        }
        self.reconnect();
    }

    fn first_look(&mut self, chat: ChatNo) {
        let held = self.live_holder(chat).is_some();
        let unanswered = self.files_unreadable || self.disks[chat].unanswered().is_some();
        let now = self.instant();
        let needed = self.entry_mut(chat).is_some_and(|entry| {
            drop(
                entry
                    .core
                    .handle(crate::chat::Happened::Looked { unanswered }, now),
            );
            matches!(entry.core.need(now), Need::Because(_))
        });
        let stopped = self
            .unit(chat)
            .is_some_and(|unit| matches!(unit.machine.state(), State::Stopped { .. }));
        let wanted = self
            .entry(chat)
            .is_some_and(|entry| entry.core.wish() == Wish::Run);
        if stopped && wanted && self.conduct.starts_what_only_its_daemon_stopped() {
            self.control(chat, Event::Start);
        } else if held || needed {
            self.control(chat, Event::Wake);
        }
    }

    /// The machine as an earlier daemon left it, or a new one. It goes through the text that the real one writes.
    pub(super) fn machine_for(&self, chat: ChatNo) -> Machine {
        let seed = u64::try_from(chat).unwrap_or(0);
        let fresh = || Machine::new(policy(), seed, self.moment());
        let Some(saved) = &self.disks[chat].books else {
            return fresh();
        };
        let text = serde_json::to_value(saved).expect("because a snapshot is plain data");
        serde_json::from_value::<Snapshot>(text)
            .expect("because it was written by this very version")
            .restore(policy(), &self.stamp())
            .unwrap_or_else(|_| fresh())
    }
}
