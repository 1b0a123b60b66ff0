//! What must be true after every event, whatever happened.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use supervisor::{Disposition, Generation, State};

use super::census::Kind as Counted;
use super::daemon::Life;
use super::process::Pid;
use super::world::{ChatNo, Matter, World};
use crate::chat::Wish;
use crate::names::ChatState;

/// The window in which attempts are counted, in milliseconds.
const WINDOW: u64 = 600_000;

/// How long after a wish (or after the daemon came up) a handler may live against it, in milliseconds: the ladder with all its
/// graces, and once more.
const LADDER: u64 = 60_000;

/// More decisions about one chat than this in [`SPIN_WINDOW`] are a loop without a pause.
const SPIN: usize = 100;
const SPIN_WINDOW: u64 = 1_000;

/// An invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// A session has at most one handler process.
    OneHandler,
    /// Nothing is started while a live process is known to have the session.
    HolderRespected,
    /// Attempts in any ten minutes stay within what the policy allows for the ending before each.
    AttemptsBounded,
    /// What is stopped, archived or purged is not started.
    WithdrawnStaysDown,
    /// What is stopped, archived or purged and runs all the same is ended.
    WithdrawnGoesDown,
    /// An accepted message has at most one reply, and one in the end.
    AnsweredOnce,
    /// An unanswered message has something under way that answers it, or a stated reason why not.
    Reachable,
    /// A stop that is done has left no process.
    StopLeavesNobody,
    /// What is started was written down before.
    RecordBeforeSpawn,
    /// Nobody asks without end whether a chat may start.
    Rests,
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Which.
    pub invariant: Invariant,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.what)
    }
}

/// What the last ending of a chat was booked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Booked {
    Nothing,
    Clean,
    Released,
    Memory,
    Contention,
    Permanent,
    Dependency,
    Crash,
}

/// What the checks remember of the past.
#[derive(Debug)]
pub(super) struct Ledger {
    chats: Vec<Account>,
}

#[derive(Debug)]
struct Account {
    /// What a person was told last.
    told: Wish,
    booked: Booked,
    attempts: VecDeque<(u64, Booked)>,
    /// When something from outside the policy may have led to a start.
    externals: VecDeque<u64>,
    /// When a message or a consumer came.
    needs: VecDeque<u64>,
    /// When it was decided about a start, whatever came of it.
    asked: VecDeque<u64>,
    checked_replies: usize,
    replied: BTreeSet<u64>,
    /// Since when a handler lives against a wish.
    against_since: Option<u64>,
}

impl Ledger {
    pub(super) fn new(chats: usize) -> Self {
        let account = || Account {
            told: Wish::Run,
            booked: Booked::Nothing,
            attempts: VecDeque::new(),
            externals: VecDeque::new(),
            needs: VecDeque::new(),
            asked: VecDeque::new(),
            checked_replies: 0,
            replied: BTreeSet::new(),
            against_since: None,
        };
        Self {
            chats: (0..chats).map(|_| account()).collect(),
        }
    }

    /// Something that a person, a stranger or another tool did may lead to a start.
    pub(super) fn external(&mut self, chat: ChatNo, now: u64) {
        self.chats[chat].externals.push_back(now);
    }

    /// A message or a consumer may lead to a start.
    pub(super) fn needed(&mut self, chat: ChatNo, now: u64) {
        self.chats[chat].needs.push_back(now);
    }

    pub(super) fn daemon_started(&mut self, now: u64) {
        for chat in 0..self.chats.len() {
            self.external(chat, now);
            self.chats[chat].against_since = None;
        }
    }

    pub(super) fn told(&mut self, chat: ChatNo, wish: Wish) {
        self.chats[chat].told = wish;
    }
}

impl World<'_> {
    pub(super) fn breach(&mut self, invariant: Invariant, what: String) {
        self.say(format_args!("BREACH {invariant:?}: {what}"));
        if self
            .breaches
            .iter()
            .all(|known| known.invariant != invariant)
        {
            self.breaches.push(Breach { invariant, what });
        }
    }

    pub(super) fn booked(&mut self, chat: ChatNo, disposition: &Disposition) {
        self.ledger.chats[chat].booked = match disposition {
            Disposition::Clean | Disposition::ExternalStop { .. } | Disposition::IdleLeft => {
                Booked::Clean
            }
            // Asked for by somebody, who is counted as such.
            Disposition::Requested | Disposition::Finished => Booked::Nothing,
            Disposition::Released => Booked::Released,
            Disposition::Memory { .. } => Booked::Memory,
            Disposition::Contention { .. } => Booked::Contention,
            Disposition::Permanent { .. } => Booked::Permanent,
            Disposition::Dependency { .. } => Booked::Dependency,
            Disposition::Crash { .. } => Booked::Crash,
        };
    }

    /// A process is about to be started.
    pub(super) fn attempted(&mut self, chat: ChatNo, nonce: &str) {
        if let Some((holder, _)) = self.live_holder(chat) {
            self.breach(
                Invariant::HolderRespected,
                format!("chat {chat} is started although {holder} has it"),
            );
        }
        let (disk, told) = (self.disks[chat].wish(), self.ledger.chats[chat].told);
        if disk != Wish::Run || told != Wish::Run {
            self.breach(
                Invariant::WithdrawnStaysDown,
                format!(
                    "chat {chat} is started; the disk says {disk:?}, the person was told {told:?}"
                ),
            );
        }
        let recorded = self.disks[chat].record.spawn.as_ref();
        if recorded.is_none_or(|spawn| spawn.nonce != nonce) {
            self.breach(
                Invariant::RecordBeforeSpawn,
                format!("chat {chat} is started and no record says so"),
            );
        }
        self.check_attempts(chat);
    }

    /// It is decided about a start.
    pub(super) fn asked(&mut self, chat: ChatNo) {
        let now = self.now;
        let asked = &mut self.ledger.chats[chat].asked;
        asked.push_back(now);
        while asked.front().is_some_and(|at| at + SPIN_WINDOW <= now) {
            asked.pop_front();
        }
        let count = asked.len();
        if count > SPIN {
            self.breach(
                Invariant::Rests,
                format!("it was decided {count} times in a second whether chat {chat} may start"),
            );
        }
    }

    fn check_attempts(&mut self, chat: ChatNo) {
        let now = self.now;
        let spawning_fails = self.spawning != super::world::Spawning::Works;
        let account = &mut self.ledger.chats[chat];
        let booked = account.booked;
        // An attempt without a process is an ending of its own.
        if spawning_fails {
            account.booked = Booked::Crash;
        }
        account.attempts.push_back((now, booked));
        let old = |at: u64| at + WINDOW <= now;
        while account.attempts.front().is_some_and(|(at, _)| old(*at)) {
            account.attempts.pop_front();
        }
        for times in [&mut account.externals, &mut account.needs] {
            while times.front().is_some_and(|at| old(*at)) {
                times.pop_front();
            }
        }
        let same = account
            .attempts
            .iter()
            .filter(|(_, other)| *other == booked)
            .count();
        let (externals, needs) = (account.externals.len(), account.needs.len());
        let most =
            allowed(booked) + 4 * externals + if booked == Booked::Crash { 0 } else { needs };
        if same > most {
            self.breach(
                Invariant::AttemptsBounded,
                format!("{same} attempts of chat {chat} after {booked:?} in ten minutes, {most} are allowed"),
            );
        }
    }

    /// A stop has come to its end.
    pub(super) fn stop_is_done(&mut self, chat: ChatNo) {
        let left = self.marked(chat);
        let replaced = self.unit(chat).is_some_and(|unit| unit.run.is_some());
        if !left.is_empty() && !replaced {
            self.breach(
                Invariant::StopLeavesNobody,
                format!("chat {chat} is stopped, and these live: {left:?}"),
            );
        }
    }

    /// Looks at the whole world.
    pub(super) fn check(&mut self) {
        for chat in 0..self.disks.len() {
            self.check_handlers(chat);
            self.check_replies(chat);
            self.check_wish(chat);
            let state = self.state(chat);
            self.count(Counted::State, state.as_str());
            if let Err(what) = self.check_reachable(chat) {
                self.breach(Invariant::Reachable, format!("chat {chat}: {what}"));
            }
        }
    }

    fn state(&self, chat: ChatNo) -> ChatState {
        let machine = self.unit(chat).map(|unit| unit.machine.state());
        match self.entry(chat) {
            Some(entry) if machine.is_none() && entry.core.wish() == Wish::Run => ChatState::Idle,
            Some(entry) => crate::chat::state(entry.core.wish(), machine),
            None => crate::chat::state(self.disks[chat].wish(), None),
        }
    }

    fn check_handlers(&mut self, chat: ChatNo) {
        let handlers = self.handlers(chat);
        if handlers.len() > 1 {
            self.breach(
                Invariant::OneHandler,
                format!("chat {chat} has the handlers {handlers:?}"),
            );
        }
    }

    fn check_replies(&mut self, chat: ChatNo) {
        let account = &mut self.ledger.chats[chat];
        let outbox = &self.disks[chat].outbox;
        let mut twice = None;
        for message in &outbox[account.checked_replies..] {
            if !account.replied.insert(*message) {
                twice = Some(*message);
            }
        }
        account.checked_replies = outbox.len();
        if let Some(message) = twice {
            self.breach(
                Invariant::AnsweredOnce,
                format!("message {message} of chat {chat} has two replies"),
            );
        }
    }

    /// A wish that stands on the disk, or that a person was told, is carried out by the daemon that is up.
    fn check_wish(&mut self, chat: ChatNo) {
        let up = self
            .daemon
            .as_ref()
            .is_some_and(|daemon| daemon.phase == Life::Up);
        let handlers: Vec<Pid> = self.handlers(chat);
        let has_run = self.unit(chat).is_some_and(|unit| unit.run.is_some());
        let against =
            up && self.disks[chat].wish() != Wish::Run && (has_run || !handlers.is_empty());
        let now = self.now;
        let account = &mut self.ledger.chats[chat];
        if !against {
            account.against_since = None;
            return;
        }
        let since = *account.against_since.get_or_insert(now);
        if now > since + LADDER {
            self.breach(
                Invariant::WithdrawnGoesDown,
                format!("chat {chat} is withdrawn, and its end does not come: {handlers:?}"),
            );
        }
    }

    /// Says what is wrong if an unanswered message can wait for ever.
    fn check_reachable(&self, chat: ChatNo) -> Result<(), String> {
        let Some(daemon) = &self.daemon else {
            return Ok(());
        };
        let entry = &daemon.entries[chat];
        let waits = self.disks[chat].unanswered().is_some();
        if daemon.phase != Life::Up || daemon.paused || !waits {
            return Ok(());
        }
        if entry.core.wish() != Wish::Run || self.disks[chat].wish() != Wish::Run {
            // The stated reason is the wish.
            return Ok(());
        }
        let Some(unit) = &entry.unit else {
            return self.woken_or(chat, "there is no machine");
        };
        let fault = match unit.machine.state() {
            State::Idle { .. } => return self.woken_or(chat, "the machine is idle"),
            State::Stopped { .. } => return self.woken_or(chat, "the machine is stopped"),
            State::Starting { .. } => {
                let made = self.due(|m| matches!(m, Matter::Start { chat: of, .. } if *of == chat));
                (!made).then_some("the start is not made")
            }
            State::Running {
                pid, generation, ..
            } => {
                let seen = self.procs.contains_key(pid) || self.ends(chat, *generation);
                (!seen).then_some("nobody has seen the end of the handler")
            }
            State::Ending { generation, .. } | State::Stopping { generation, .. } => {
                (!self.ends(chat, *generation)).then_some("the end does not go on")
            }
            State::Backoff { .. } | State::Degraded { .. } | State::Contended { .. } => {
                let timer = self.due(|m| {
                    matches!(m, Matter::Deadline { chat: of, at } if *of == chat && Some(*at) == unit.machine.deadline())
                });
                (!timer).then_some("no timer is set for the pause")
            }
            State::Held { holder, .. } => {
                if unit.watch == Some(holder.pid) && self.procs.contains_key(&holder.pid)
                    || self
                        .due(|m| matches!(m, Matter::SawHolderEnd { chat: of, .. } if *of == chat))
                {
                    return Ok(());
                }
                return self.woken_or(chat, "nobody watches the holder");
            }
            // A park is a stated reason.
            State::Parked { .. } => None,
        };
        fault.map_or(Ok(()), |what| Err(what.to_owned()))
    }

    fn due(&self, is: impl Fn(&Matter) -> bool) -> bool {
        self.matters().any(is)
    }

    /// Whether the end of this process goes on.
    fn ends(&self, chat: ChatNo, generation: Generation) -> bool {
        self.due(|matter| {
            matches!(
                matter,
                Matter::SawExit { chat: of, generation: its }
                | Matter::Rung { chat: of, generation: its, .. }
                | Matter::Pass { chat: of, generation: its } if *of == chat && *its == generation
            )
        })
    }

    /// Fine if something is on its way that wakes the chat.
    fn woken_or(&self, chat: ChatNo, what: &str) -> Result<(), String> {
        let woken = self.due(|matter| {
            matches!(
                matter,
                Matter::Inbox { chat: of }
                | Matter::Outbox { chat: of }
                | Matter::HoldOff { chat: of }
                | Matter::Control { chat: of, .. } if *of == chat
            )
        });
        if woken {
            Ok(())
        } else {
            Err(format!("a message waits, and {what}"))
        }
    }

    /// Looks at a world that has come to rest: every accepted message has its reply.
    pub(super) fn check_rest(&mut self) {
        for chat in 0..self.disks.len() {
            if let Some(message) = self.disks[chat].unanswered() {
                let state = self
                    .unit(chat)
                    .map(|unit| format!("{:?}", unit.machine.state()));
                self.breach(
                    Invariant::AnsweredOnce,
                    format!("message {message} of chat {chat} has no reply in the end; machine {state:?}"),
                );
            }
        }
    }
}

/// How many attempts the policy allows in ten minutes after endings of this kind, not counting what people do.
fn allowed(booked: Booked) -> usize {
    let policy = super::boot::policy();
    let paced = |pause: Duration| {
        let shortest = pause.mul_f64(1.0 - policy.jitter);
        let millis = u64::try_from(shortest.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        usize::try_from(WINDOW / millis).unwrap_or(usize::MAX) + 1
    };
    let budget = |free: u32| usize::try_from(free).unwrap_or(usize::MAX);
    match booked {
        Booked::Nothing | Booked::Permanent => 1,
        Booked::Clean => budget(policy.clean_budget) + paced(policy.clean_pause),
        Booked::Released => paced(policy.release_pause),
        Booked::Memory => paced(policy.memory_pause),
        Booked::Contention => {
            paced(policy.contention_pauses[0])
                + budget(policy.clean_budget) * paced(policy.clean_window)
        }
        Booked::Dependency => paced(policy.dependency_first),
        Booked::Crash => budget(policy.crash_soft) + paced(policy.backoff_cap) + 1,
    }
}
