//! The words of `wg why`, made from facts alone: the same with the daemon up or down.

use std::path::PathBuf;
use std::time::Duration;

use supervisor::State;
use supervisor::tree::Process;

use super::holder::{Right, Seen};
use crate::clock::{self, Timestamp};
use crate::names::ChatState;
use crate::notices::{account_text, park_text, pause, pause_of_the_unneeded};
use crate::standstill::Standstill;
use crate::store::chat_state::ChatRecord;
use crate::store::graph::{ChatId, ChatTask};
use crate::why::{Cure, Explanation, Fact, LastVerdict, STOPPED};

/// Everything that the words are made of.
#[derive(Debug)]
pub(super) struct Known {
    /// When all of this was found.
    pub(super) now: Timestamp,
    pub(super) chat: ChatId,
    pub(super) task: ChatTask,
    pub(super) agent: String,
    pub(super) state: ChatState,
    pub(super) since: Option<Timestamp>,
    pub(super) service: Service,
    pub(super) waits_for: Option<String>,
    pub(super) machine: Option<supervisor::Explanation>,
    /// When the machine does something by itself, if it will.
    pub(super) next_at: Option<Timestamp>,
    pub(super) reason: Option<String>,
    pub(super) last: Option<LastVerdict>,
    pub(super) record: ChatRecord,
    pub(super) unread: usize,
    pub(super) consumers: usize,
    /// Whether there is a reason to start it.
    pub(super) is_needed: bool,
    /// Who has the session, if that is not its handler.
    pub(super) holder: Option<Seen>,
    /// Where that one works.
    pub(super) holder_cwd: Option<PathBuf>,
    /// Its handler.
    pub(super) pid: Option<u32>,
    /// Who stands still of those who serve it.
    pub(super) stand_still: Vec<Standstill>,
    /// What a handler that is gone has left in its control group, beside whoever has the session.
    pub(super) left_over: Vec<Process>,
    /// What an agent with `leave_children` has running below the handler.
    pub(super) children: Vec<Process>,
    /// What is wrong with the graph, where that keeps this chat from being started.
    pub(super) graph_trouble: Option<String>,
    /// Why the last attempt to start could not be made.
    pub(super) not_now: Option<String>,
}

/// How the service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Runs,
    /// It runs and starts nothing until it is resumed.
    Paused,
    Down,
}

/// Puts what is known into words.
pub(super) fn words(known: &Known) -> Explanation {
    let mut told = Told::default();
    known.tell_of_processes(&mut told);
    known.tell_of_the_past(&mut told);
    let (headline, next) = known.tell_of_the_state(&mut told);
    let runs = known.service != Service::Down;
    Explanation {
        chat_id: known.chat.0,
        task_id: known.task.task_id.clone(),
        state: known.state,
        since: known.since,
        without_service: !runs,
        headline,
        facts: told.facts,
        last: known.last.clone(),
        next,
        next_at: known.next_at.filter(|_| runs),
        you_can: told.you_can,
    }
}

/// What was told so far.
#[derive(Debug, Default)]
struct Told {
    facts: Vec<Fact>,
    you_can: Vec<Cure>,
}

impl Told {
    fn fact(&mut self, label: &str, text: impl Into<String>) {
        self.facts.push(Fact {
            label: label.to_owned(),
            text: text.into(),
        });
    }

    fn can(&mut self, command: impl Into<String>, text: &str) {
        self.you_can.push(Cure {
            command: command.into(),
            text: text.to_owned(),
        });
    }
}

impl Known {
    /// Who serves the chat, who else has it, and with what.
    fn tell_of_processes(&self, told: &mut Told) {
        if let Some(seen) = &self.holder {
            told.fact("holder", self.holder_text(seen));
            let is_left = matches!(seen.right, Right::LeftBehind(_));
            // A service ends it by itself, once the chat is to start.
            if is_left && self.service == Service::Down && self.state != ChatState::Dormant {
                told.can(
                    format!("wg session takeover {}", self.chat),
                    "end what was left",
                );
            }
        }
        for one in &self.stand_still {
            told.fact(STOPPED, one.text.clone());
            if let Some(command) = &one.cure {
                told.can(command.clone(), "let it go on");
            }
        }
        if let Some(pid) = self.pid {
            let reason = self
                .reason
                .as_deref()
                .map(|reason| format!(", started for: {reason}"))
                .unwrap_or_default();
            let whose = match (self.state, self.service) {
                (_, Service::Down) => "; its service is not running",
                (ChatState::Adopted, _) => ", started by an earlier daemon and taken over",
                (_, Service::Runs | Service::Paused) => "",
            };
            told.fact("handler", format!("pid {pid}{reason}{whose}"));
        }
        told.fact("agent", self.agent.clone());
        let named = |all: &[Process]| {
            let all = all
                .iter()
                .map(|one| format!("{} (pid {})", one.name, one.pid));
            all.collect::<Vec<_>>().join(", ")
        };
        if !self.children.is_empty() {
            told.fact(
                "below it",
                format!(
                    "{}; what its agent leaves stays (leave_children)",
                    named(&self.children)
                ),
            );
        }
        if !self.left_over.is_empty() {
            told.fact(
                "left",
                format!(
                    "{}, in the control group of a handler that is gone",
                    named(&self.left_over)
                ),
            );
        }
    }

    /// What keeps it from being started, who waits, and how it has ended before.
    fn tell_of_the_past(&self, told: &mut Told) {
        if let Some(trouble) = &self.graph_trouble {
            told.fact("graph", trouble.clone());
            told.can("wg doctor", "say what is wrong with the graph");
        } else if let Some(reason) = &self.not_now {
            told.fact("because", reason.clone());
        }
        if self.unread > 0 || self.consumers > 0 {
            told.fact(
                "waiting",
                format!("{} unanswered, {} connected", self.unread, self.consumers),
            );
        }
        if let Some(machine) = &self.machine
            && machine.crash.number > 0
        {
            told.fact(
                "crashes",
                format!(
                    "number {}, {} within {} (more than {} degrade)",
                    machine.crash.number,
                    machine.crash.in_window,
                    clock::span(machine.crash.window),
                    machine.crash.soft
                ),
            );
        }
        let Some(last) = &self.last else { return };
        let evidence = |name: &str| last.evidence.get(name).and_then(serde_json::Value::as_str);
        if last.class != "planned"
            && let Some(said) = evidence("stderr")
            && let Some(line) = said.lines().rev().find(|line| !line.trim().is_empty())
        {
            told.fact("said", line.trim());
        }
        // A handler that leaves because of its agent says no more than that; what the agent did is the cause.
        if matches!(last.counts.as_str(), "permanent" | "dependency" | "crash")
            && let Some(agent) = evidence("agent")
        {
            told.fact("because", format!("its agent: {agent}"));
        }
    }

    /// The state in a few words, and what comes next.
    fn tell_of_the_state(&self, told: &mut Told) -> (String, String) {
        let (headline, next) = self.tell_of_the_moving_state(told);
        let is_handler = |one: &&Standstill| Some(one.pid) == self.pid;
        match self.stand_still.iter().find(is_handler) {
            Some(handler) => {
                let until = format!("nothing, until pid {} goes on", handler.pid);
                let in_a_turn = matches!(self.state, ChatState::Running | ChatState::Adopted)
                    && self.service != Service::Down
                    && self.unread > 0;
                let until = if in_a_turn {
                    format!("{until} (a turn without progress is ended at its ceiling)")
                } else {
                    until
                };
                (headline, until)
            }
            None => (headline, next),
        }
    }

    /// As [`Known::tell_of_the_state`], while its handler does what it has to do.
    fn tell_of_the_moving_state(&self, told: &mut Told) -> (String, String) {
        let chat = self.chat;
        match self.state {
            ChatState::Running | ChatState::Adopted => self.serving(told),
            ChatState::Starting => {
                told.can(format!("wg chat stop {chat}"), "leave it down");
                (
                    "starting".to_owned(),
                    "its handler takes the session, then it answers".to_owned(),
                )
            }
            ChatState::Queued => {
                told.can(format!("wg chat interrupt {chat}"), "give the turn up");
                match &self.waits_for {
                    Some(what) => (
                        format!("queued: {what}"),
                        "its turn begins when that is over".to_owned(),
                    ),
                    None => (
                        "queued: its turn waits for a slot".to_owned(),
                        "its turn begins when another one ends".to_owned(),
                    ),
                }
            }
            ChatState::Idle => self.idle(told),
            ChatState::Held => self.held(told),
            ChatState::Backoff | ChatState::Degraded => self.pausing(told),
            ChatState::Parked => self.parked(told),
            ChatState::Stopping if self.service == Service::Down => {
                told.can(format!("wg chat stop {chat}"), "end it now");
                (
                    "stopping: its handler is still there".to_owned(),
                    "it leaves at its turn boundary, or the next service ends it".to_owned(),
                )
            }
            ChatState::Stopping => (
                "stopping".to_owned(),
                "its handler and all below it are being ended".to_owned(),
            ),
            ChatState::Stopped => {
                told.can(format!("wg chat resume {chat}"), "let it run again");
                told.fact("stopped", self.decided("stopped", self.record.stopped_at));
                (
                    "stopped".to_owned(),
                    "nothing, until it is resumed; messages wait".to_owned(),
                )
            }
            ChatState::Archived => {
                let by = self.decided("archived", self.record.archived_at);
                self.retired(told, "archived", by)
            }
            ChatState::Purged => {
                let by = self.decided("purged", self.record.purged_at);
                self.retired(told, "purged", by)
            }
            ChatState::Dormant => self.dormant(told),
        }
    }

    fn serving(&self, told: &mut Told) -> (String, String) {
        let chat = self.chat;
        let head = if self.unread > 0 {
            "answering"
        } else {
            "running"
        };
        if self.service == Service::Down {
            told.can("wg service start", "start the service, which takes it over");
            told.can(format!("wg chat stop {chat}"), "end its handler");
            return (
                format!("{head}, without the service"),
                "its handler answers what comes, and leaves when nobody is connected and nothing is unanswered for a while".to_owned(),
            );
        }
        told.can(format!("wg chat attach {chat}"), "talk to it");
        told.can(format!("wg chat stop {chat}"), "end its handler");
        (
            head.to_owned(),
            "its handler leaves when nobody is connected and nothing is unanswered for a while"
                .to_owned(),
        )
    }

    fn idle(&self, told: &mut Told) -> (String, String) {
        let chat = self.chat;
        told.can(format!("wg chat send {chat} TEXT"), "give it work");
        match (self.is_needed, self.held_up()) {
            (true, Some((why, until))) => {
                (format!("idle: {why}"), format!("it starts when {until}"))
            }
            (true, None) => (
                "idle".to_owned(),
                "it is needed, and is about to start".to_owned(),
            ),
            (false, held_up) => (
                "idle: nobody needs it".to_owned(),
                and_that("a message or a consumer wakes it", held_up),
            ),
        }
    }

    fn held(&self, told: &mut Told) -> (String, String) {
        let chat = self.chat;
        let ask = |told: &mut Told| {
            told.can(
                format!("wg session release {chat}"),
                "ask it to leave at its turn boundary",
            );
        };
        let pid = self.holder.as_ref().map(|seen| seen.holder.pid);
        match self.holder.as_ref().map(|seen| &seen.right) {
            Some(Right::Proven) | None => {
                ask(told);
                told.can(
                    format!("wg session takeover {chat}"),
                    "end it after 30 s if it does not",
                );
            }
            Some(Right::Unproven) => {
                ask(told);
                told.can(
                    format!("wg session takeover {chat} --allow-unproven"),
                    "end it after 30 s if it does not; look first whether it is the holder",
                );
            }
            // From here nobody can end it.
            Some(Right::Elsewhere) => ask(told),
            Some(Right::LeftBehind(_)) => {
                told.can(format!("wg session takeover {chat}"), "end what was left");
            }
            Some(Right::Screen) => {
                if let Some(pid) = pid {
                    told.can(
                        format!("kill {pid}"),
                        "end that screen, if you cannot leave the chat there",
                    );
                }
            }
        }
        let who = pid.map_or_else(|| "it".to_owned(), |pid| pid.to_string());
        let next = match self.machine.as_ref().map(|machine| &machine.state) {
            _ if self.service == Service::Down => {
                told.can("wg service start", "start the service");
                format!("nothing: the service is not running, and {who} has the session")
            }
            Some(State::Contended { refusals, .. }) => and_that(
                &format!(
                    "the lock is looked at again {} (refusal {refusals}); nothing is started meanwhile",
                    self.when()
                ),
                self.held_up(),
            ),
            _ if self.is_needed => and_that(
                &format!("nothing is tried while {who} lives; {chat} starts when it ends"),
                self.held_up(),
            ),
            _ => format!("nothing is tried while {who} lives, and nobody needs {chat} now"),
        };
        ("held by another process".to_owned(), next)
    }

    /// A pause before the next start; nothing follows it where nobody needs the chat then.
    fn pausing(&self, told: &mut Told) -> (String, String) {
        let chat = self.chat;
        let is_degraded = self.state == ChatState::Degraded;
        let resume = if is_degraded {
            "try at once, and forget the crashes"
        } else {
            "try at once"
        };
        told.can(format!("wg chat resume {chat}"), resume);
        told.can(format!("wg chat stop {chat}"), "leave it down");
        let cannot_now = matches!(
            self.machine.as_ref().map(|machine| &machine.state),
            Some(State::Backoff {
                account: supervisor::Account::NotNow,
                ..
            })
        );
        let headline = if is_degraded {
            "degraded: it crashes too often"
        } else if cannot_now {
            "it cannot start just now"
        } else {
            "waiting before the next start"
        };
        let when = self.when();
        let next = match self.held_up() {
            _ if cannot_now => format!("it is looked at again {when}"),
            _ if !self.is_needed => pause_of_the_unneeded(self.left(), &self.account()),
            None if is_degraded => format!("one more attempt {when}"),
            None => format!("starts again {when}{}", self.account()),
            Some((_, until)) => format!(
                "nothing is started until {until}; its pause is over {when}{}",
                self.account()
            ),
        };
        (headline.to_owned(), next)
    }

    fn parked(&self, told: &mut Told) -> (String, String) {
        told.can(
            format!("wg chat resume {}", self.chat),
            "try again once the cause is mended",
        );
        let down = self.service == Service::Down;
        if down {
            told.can(
                "wg service start",
                "start the service, also after a change of config.toml",
            );
        } else {
            told.can("wg service reload", "after a change of config.toml");
        }
        if let Some(State::Parked { reason, .. }) =
            self.machine.as_ref().map(|machine| &machine.state)
        {
            told.fact("parked", park_text(reason));
        }
        let next = if down {
            "nothing: the service is not running, and leaves it parked until it is resumed or its configuration changes".to_owned()
        } else {
            and_that(
                "nothing, until it is resumed or its configuration changes",
                self.held_up(),
            )
        };
        ("parked: it is not started again by itself".to_owned(), next)
    }

    fn retired(&self, told: &mut Told, how: &str, decided: String) -> (String, String) {
        told.can(format!("wg chat restore {}", self.chat), "bring it back");
        told.fact(how, decided);
        (how.to_owned(), "nothing, until it is restored".to_owned())
    }

    fn dormant(&self, told: &mut Told) -> (String, String) {
        let headline = "dormant: the service is not running".to_owned();
        if self.holder.is_some() || !self.left_over.is_empty() {
            told.can(
                "wg service start",
                "start the service, which ends what was left first",
            );
            let end = if self.left_over.is_empty() {
                format!("wg session takeover {}", self.chat)
            } else {
                "wg doctor --fix".to_owned()
            };
            told.can(end, "only end what was left");
            return (
                headline,
                "nothing, until the service runs and has ended what was left".to_owned(),
            );
        }
        told.can("wg service start", "start the service");
        let then = match self.machine.as_ref().map(|machine| &machine.state) {
            Some(State::Backoff { .. }) if self.is_needed => {
                format!("; then it starts {}{}", self.when(), self.account())
            }
            Some(State::Degraded { .. }) if self.is_needed => {
                format!("; then there is one more attempt {}", self.when())
            }
            _ => String::new(),
        };
        (headline, format!("nothing, until the service runs{then}"))
    }

    /// What keeps every start back, as a reason and as what has to happen.
    fn held_up(&self) -> Option<(&'static str, &'static str)> {
        if self.graph_trouble.is_some() {
            Some(("the graph cannot be read", "the graph can be read"))
        } else if self.service == Service::Paused {
            Some((
                "the service is paused",
                "the service is resumed (wg service resume)",
            ))
        } else {
            None
        }
    }

    /// When the pause is over.
    fn when(&self) -> String {
        pause(self.left())
    }

    /// How much of the pause is left.
    fn left(&self) -> Duration {
        self.next_at
            .map_or(Duration::ZERO, |until| until.since(self.now))
    }

    /// For which account it pauses, where that is one, and which number of it that is.
    fn account(&self) -> String {
        match self.machine.as_ref().map(|machine| &machine.state) {
            Some(State::Backoff {
                account, number, ..
            }) if !matches!(account, supervisor::Account::NotNow) => {
                account_text(*account, *number)
            }
            _ => String::new(),
        }
    }

    fn decided(&self, what: &str, at: Option<Timestamp>) -> String {
        let by = self.record.wish_actor.as_deref().unwrap_or("somebody");
        let when = at
            .map(|at| format!(" {}", at.ago_in_words(self.now)))
            .unwrap_or_default();
        format!("{what} by {by}{when}")
    }

    fn holder_text(&self, seen: &Seen) -> String {
        if let Right::LeftBehind(heirs) = &seen.right {
            return heirs.to_string();
        }
        let holder = &seen.holder;
        let place = self
            .holder_cwd
            .as_ref()
            .map(|cwd| format!("  cwd {}", cwd.display()))
            .unwrap_or_default();
        // Relative, as everything that a person reads; what the holder wrote where that is no time.
        let since = Timestamp::parse(&holder.since)
            .map_or_else(|| holder.since.clone(), |at| at.ago_in_words(self.now));
        format!("pid {}  {}  since {since}{place}", holder.pid, holder.kind)
    }
}

/// What is true otherwise, and what keeps it back for now.
fn and_that(next: &str, held_up: Option<(&'static str, &'static str)>) -> String {
    match held_up {
        Some((_, until)) => format!("{next}; nothing is started until {until}"),
        None => next.to_owned(),
    }
}
