//! What people do through the daemon, as `daemon/requests.rs` and `daemon/purge.rs` do it, and without one.
//!
//! The verbs of one chat come one after the other in its command lane. A purge has a lane of its own and may meet them anywhere.

use super::census::Kind as Counted;
use super::process::{Kind, Pid};
use super::world::{Asker, ChatNo, Matter, World};
use crate::chat::{Happened, Wish};
use supervisor::Event;

/// A verb for one chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Stop,
    Archive,
    Resume,
    Restore,
}

/// A purge that is under way: first every mark, then the ends.
#[derive(Debug)]
pub(super) struct Purge {
    to_mark: Vec<ChatNo>,
    marked: Vec<ChatNo>,
    waiting: Vec<ChatNo>,
}

impl World<'_> {
    /// A person types a verb.
    pub(super) fn verb(&mut self, chat: ChatNo, verb: Verb) {
        self.ledger.external(chat, self.now);
        if let (true, Some(entry)) = (self.is_up(), self.entry_mut(chat)) {
            entry.lane.push_back(verb);
            let delay = self.dice.between(0, 5);
            self.matter(delay, Matter::Lane { chat });
        } else if self.daemon.is_none() {
            self.verb_without_daemon(chat, verb);
        }
    }

    /// The command lane of a chat does its next verb.
    pub(super) fn take_verb(&mut self, chat: ChatNo) {
        let Some(entry) = self.entry_mut(chat) else {
            return;
        };
        if entry.busy.is_some() {
            return;
        }
        let Some(verb) = entry.lane.pop_front() else {
            return;
        };
        entry.busy = Some(verb);
        match verb {
            Verb::Stop | Verb::Archive => {
                let happened = match verb {
                    Verb::Stop => Happened::Stop,
                    Verb::Archive | Verb::Resume | Verb::Restore => Happened::Archive,
                };
                if self.act(chat, happened) {
                    self.ask_stop(chat, Asker::Lane);
                } else {
                    self.refused(chat);
                }
            }
            Verb::Resume => self.lift(chat, Happened::Resume),
            Verb::Restore => self.lift(chat, Happened::Restore),
        }
    }

    fn lift(&mut self, chat: ChatNo, happened: Happened) {
        if self.act(chat, happened) {
            self.lane_is_done(chat);
        } else {
            self.refused(chat);
        }
    }

    /// The person is told that it could not be done.
    fn refused(&mut self, chat: ChatNo) {
        self.count(Counted::Event, "verb_refused");
        self.lane_is_free(chat);
    }

    /// The person is told that it is done.
    pub(super) fn lane_is_done(&mut self, chat: ChatNo) {
        if let Some(entry) = self.entry(chat) {
            let wish = entry.core.wish();
            self.ledger.told(chat, wish);
        }
        self.lane_is_free(chat);
    }

    fn lane_is_free(&mut self, chat: ChatNo) {
        if let Some(entry) = self.entry_mut(chat) {
            entry.busy = None;
            if !entry.lane.is_empty() {
                self.matter(0, Matter::Lane { chat });
            }
        }
    }

    /// The same verbs with nobody there: the wish is written, then what runs is ended with it.
    fn verb_without_daemon(&mut self, chat: ChatNo, verb: Verb) {
        let was = self.disks[chat].wish();
        let wish = match verb {
            Verb::Stop => was.max(Wish::Stopped),
            Verb::Archive => was.max(Wish::Archived),
            Verb::Resume if was == Wish::Stopped => Wish::Run,
            Verb::Resume => was,
            Verb::Restore => Wish::Run,
        };
        if wish != was && !self.persist_wish(chat, wish) {
            return;
        }
        self.ledger.told(chat, wish);
        if wish != Wish::Run {
            self.end_marked(chat);
        }
    }

    fn end_marked(&mut self, chat: ChatNo) {
        let all: Vec<Pid> = self.marked(chat);
        for pid in all {
            self.kill(pid);
        }
    }

    // Purge.

    /// A person purges all chats.
    pub(super) fn purge(&mut self) {
        let all: Vec<ChatNo> = (0..self.disks.len()).collect();
        for chat in &all {
            self.ledger.external(*chat, self.now);
        }
        if self.daemon.is_none() {
            for chat in all {
                if self.persist_wish(chat, Wish::Purged) {
                    self.ledger.told(chat, Wish::Purged);
                    self.end_marked(chat);
                }
            }
            return;
        }
        let Some(daemon) = self.daemon.as_mut() else {
            return;
        };
        if daemon.purge.is_some() || daemon.phase != super::daemon::Life::Up {
            return;
        }
        let to_mark = all
            .into_iter()
            .filter(|chat| daemon.entries[*chat].core.wish() < Wish::Archived)
            .collect();
        daemon.purge = Some(Purge {
            to_mark,
            marked: Vec::new(),
            waiting: Vec::new(),
        });
        self.matter(0, Matter::Purge);
    }

    /// The purge marks the next chat, on the disk and in its core; when all are marked it ends what runs.
    pub(super) fn purge_step(&mut self) {
        let Some(purge) = self.daemon.as_mut().and_then(|d| d.purge.as_mut()) else {
            return;
        };
        if let Some(chat) = purge.to_mark.pop() {
            let now = self.instant();
            let was = self.entry(chat).map(|entry| entry.core.wish());
            if let Some(entry) = self.entry_mut(chat) {
                // The stop that it answers with follows for all chats at once.
                drop(entry.core.handle(Happened::Purge, now));
            }
            if self.persist_wish(chat, Wish::Purged) {
                if let Some(purge) = self.daemon.as_mut().and_then(|d| d.purge.as_mut()) {
                    purge.marked.push(chat);
                }
            } else if let Some(was) = was {
                self.act(chat, Happened::WishNotKept(was));
            }
            let delay = self.dice.between(0, 3);
            self.matter(delay, Matter::Purge);
            return;
        }
        let marked = std::mem::take(&mut purge.marked);
        purge.waiting.clone_from(&marked);
        if marked.is_empty() {
            self.purge_is_over();
            return;
        }
        for chat in marked {
            self.ensure_unit(chat);
            self.take_in_or_ask(chat);
            if self.entry(chat).is_some_and(|e| e.core.wish() != Wish::Run) {
                self.ask_stop(chat, Asker::Purge);
            } else {
                // Restored in between.
                self.purge_is_done_with(chat);
            }
        }
    }

    /// A live holder that is proven ours is taken over, so that it can be ended; any other is asked to leave.
    fn take_in_or_ask(&mut self, chat: ChatNo) {
        let Some(pid) = self.lock_holder(chat) else {
            return;
        };
        match self.procs.get(&pid).map(|process| &process.kind) {
            Some(Kind::Stranger { proven: false, .. }) => self.ask_release(pid),
            Some(Kind::Stranger { .. } | Kind::Handler(_)) => {
                self.take_in(chat, pid);
            }
            Some(Kind::Agent { .. }) | None => {}
        }
    }

    pub(super) fn purge_is_done_with(&mut self, chat: ChatNo) {
        if let Some(entry) = self.entry(chat) {
            let wish = entry.core.wish();
            self.ledger.told(chat, wish);
        }
        let Some(purge) = self.daemon.as_mut().and_then(|d| d.purge.as_mut()) else {
            return;
        };
        purge.waiting.retain(|other| *other != chat);
        if purge.waiting.is_empty() {
            self.purge_is_over();
        }
    }

    fn purge_is_over(&mut self) {
        self.count(Counted::Event, "purge_finished");
        if let Some(daemon) = &mut self.daemon {
            daemon.purge = None;
        }
    }

    // Messages, consumers, releases.

    /// A message is sent. Through the daemon it is looked at at once; another tool's is seen by inotify.
    pub(super) fn send(&mut self, chat: ChatNo) {
        if self.disk_is_full {
            self.count(Counted::Event, "message_refused");
            return;
        }
        self.disks[chat].inbox += 1;
        self.count(Counted::Event, "message_accepted");
        let message = self.disks[chat].inbox;
        self.say(format_args!(
            "message {message} for chat {chat} is accepted"
        ));
        self.ledger.needed(chat, self.now);
        for pid in self.handlers(chat) {
            if self.is_waiting(pid) {
                self.nudge(pid);
            }
        }
        if self.is_up() && self.dice.chance(50) && self.conduct.heeds_inbox() {
            self.ensure_unit(chat);
            self.act(chat, Happened::Looked { unanswered: true });
        }
        let delay = self.dice.between(1, 20);
        self.matter(delay, Matter::Inbox { chat });
    }

    fn is_waiting(&self, pid: Pid) -> bool {
        self.procs
            .get(&pid)
            .and_then(|process| process.handler())
            .is_some_and(|handler| matches!(handler.phase, super::process::Phase::Boundary))
    }

    /// Somebody connects to read.
    pub(super) fn attach(&mut self, chat: ChatNo) {
        if !self.is_up() {
            return;
        }
        let who = self.next_consumer;
        self.next_consumer += 1;
        self.consumers[chat].insert(who);
        self.ledger.needed(chat, self.now);
        self.act(chat, Happened::ConsumerCame(who));
    }

    /// One of those goes away.
    pub(super) fn detach(&mut self, chat: ChatNo) {
        if let Some(who) = self.consumers[chat].pop_first() {
            self.act(chat, Happened::ConsumerLeft(who));
        }
    }

    /// Those who were connected to the former daemon come back to the new one.
    pub(super) fn reconnect(&mut self) {
        for chat in 0..self.disks.len() {
            for who in self.consumers[chat].clone() {
                self.ledger.needed(chat, self.now);
                self.act(chat, Happened::ConsumerCame(who));
            }
        }
    }

    /// A person asks for the session: it is released, and the daemon holds off.
    pub(super) fn release(&mut self, chat: ChatNo) {
        self.ledger.external(chat, self.now);
        if let Some(pid) = self.lock_holder(chat) {
            self.ask_release(pid);
        }
        if self.is_up() {
            self.act(chat, Happened::Release);
            let now = self.instant();
            let until = self.entry(chat).and_then(|entry| entry.core.deadline());
            if let Some(until) = until {
                let delay = until.saturating_duration_since(now).as_millis();
                let delay = u64::try_from(delay).unwrap_or(u64::MAX);
                self.matter(delay, Matter::HoldOff { chat });
            }
        }
    }

    pub(super) fn hold_off_over(&mut self, chat: ChatNo) {
        let now = self.instant();
        let over = self
            .entry(chat)
            .and_then(|entry| entry.core.deadline())
            .is_some_and(|until| until <= now);
        if over {
            self.act(chat, Happened::HoldOffOver);
        }
    }

    /// The chat's agent is changed to one that makes sense, or to one that does not.
    pub(super) fn set_agent(&mut self, chat: ChatNo, usable: bool) {
        self.disks[chat].agent_is_usable = usable;
        self.ledger.external(chat, self.now);
        if self.is_up() {
            self.control(chat, Event::ConfigChanged);
        }
    }
}
