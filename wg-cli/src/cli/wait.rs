//! Waiting for the reply to one message, or for the reason why none will come.
//!
//! Nothing is polled: the session's directory tells of the reply and of its pieces, the service's directory of what happens to the chat.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::context::Context;
use super::conversation::Stream;
use super::follow::Follower;
use super::input;
use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::ipc::client::CALL_PATIENCE;
use crate::names::{ChatState, EventKind};
use crate::ops::{self, Sent};
use crate::patience::Patience;
use crate::report::one_line;
use crate::standstill::{self, Standstill, Told};
use crate::store::graph::ChatId;
use crate::store::messages::{self, Message, Side, Tail};
use crate::store::resolve;
use crate::store::watch::{DirWatch, Woke};
use crate::store::workspace::Workspace;

/// How soon a service that did not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How long the service may take to say what a chat is doing, where the verb itself has more time than that.
const SAID_WITHIN: Duration = Duration::from_secs(5);

/// How often it is looked whether somebody who keeps the reply from coming stands still.
pub(super) const LOOK_FOR_STANDSTILL: Duration = Duration::from_secs(1);

/// How long the service may take to judge the end of a handler before the verb leaves without knowing.
const JUDGED_WITHIN: Duration = Duration::from_secs(5);

/// How long a service may be away before the verb gives it up: a restart takes a fraction of it.
const COMES_BACK_WITHIN: Duration = Duration::from_secs(3);

/// A watch on a chat. It is made before the message is sent, so that nothing which follows from the message is missed.
#[derive(Debug)]
pub(super) struct ReplyWatch<'a> {
    cx: &'a Context<'a>,
    workspace: &'a Workspace,
    chat: ChatId,
    dir: PathBuf,
    session: DirWatch,
    service: DirWatch,
    events: Follower,
    service_was_up: bool,
    /// Who was said to stand still.
    standstill: Told,
    /// Something may be over, and the service could not say whether it is.
    unsure: bool,
    /// Since when no service was seen.
    down_since: Option<Instant>,
    /// What was said of why it takes longer: what happens again and again is said once.
    said: BTreeSet<String>,
}

impl<'a> ReplyWatch<'a> {
    /// Begins to watch.
    pub(super) fn begin(
        cx: &'a Context<'a>,
        workspace: &'a Workspace,
        chat: ChatId,
        patience: Patience,
    ) -> Outcome<Self> {
        let dir = resolve::session_dir_within(workspace, chat, patience.at_most(CALL_PATIENCE))?;
        let session = DirWatch::new(&dir)?;
        let service = DirWatch::new(&workspace.ensure_service_dir()?)?;
        let mut watch = Self {
            cx,
            workspace,
            chat,
            dir,
            session,
            service,
            events: Follower::new(&workspace.events_path()),
            service_was_up: workspace.state_path().exists(),
            standstill: Told::default(),
            unsure: false,
            down_since: None,
            said: BTreeSet::new(),
        };
        // What happened before the message does not concern it.
        drop(watch.new_events()?);
        Ok(watch)
    }

    /// Waits for the reply to this message and shows it while it comes.
    ///
    /// # Errors
    ///
    /// [`ExitCode::TimedOut`] when the patience is over, [`ExitCode::Config`] for a chat that was parked, [`ExitCode::Unavailable`] where
    /// its agent or the service is not there, [`ExitCode::Failed`] where a person stopped it. The message stays accepted in each case.
    pub(super) fn reply(
        &mut self,
        sent: &Sent,
        patience: Patience,
        stream: &mut Stream<'_>,
    ) -> Outcome<Message> {
        let inbox_id = sent.inbox_id;
        // By its name: another tool may have taken the same number, and then one of the two is asked under another.
        let is_it = |reply: &Message| {
            reply.request_id == sent.request_id
                || reply.request_id.is_empty() && reply.in_reply_to == Some(inbox_id)
        };
        let deadline = patience.deadline();
        let mut replies = Tail::new(&self.dir, Side::Outbox, 0);
        // What streams now may be the reply to an earlier message.
        let mut ahead: BTreeSet<u64> = messages::unanswered(&self.dir)?
            .iter()
            .map(|message| message.id)
            .filter(|id| *id < inbox_id)
            .collect();
        loop {
            for reply in replies.read_new()? {
                if is_it(&reply) {
                    return Ok(reply);
                }
                if let Some(id) = reply.in_reply_to {
                    ahead.remove(&id);
                }
            }
            if ahead.is_empty() {
                stream.show_file(&self.dir, inbox_id);
            }
            self.give_up_if_nothing_will_come(deadline)?;
            self.wait(deadline)?;
        }
    }

    /// Whether the turn of this failed reply also parked the chat.
    ///
    /// The handler writes the reply, leaves, and the service judges its ending: that comes within milliseconds, and only after endings
    /// that speak of the agent's settings.
    pub(super) fn is_parked_by(&mut self, reply: &Message) -> Outcome<bool> {
        let exit = reply
            .turn
            .as_ref()
            .and_then(|turn| turn.exit.as_deref())
            .unwrap_or_default();
        if !may_park(exit) {
            return Ok(false);
        }
        let deadline = clock::steady() + JUDGED_WITHIN;
        loop {
            for line in self.new_events()? {
                let parked =
                    event_of(&line, self.chat).is_some_and(|(kind, _)| kind == EventKind::Parked);
                if parked {
                    return Ok(true);
                }
            }
            let also: Vec<_> = self.service.fd().into_iter().collect();
            match self
                .session
                .wait(Some(deadline), &also)
                .map_err(input::broken_wait)?
            {
                Woke::Ready(_) => self.service.drain(),
                Woke::Changed => {}
                Woke::Deadline => return Ok(false),
            }
        }
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Outcome<()> {
        let now = clock::steady();
        let ask_again = self.unsure.then(|| now + ASK_AGAIN);
        let look_at = Some(now + LOOK_FOR_STANDSTILL);
        let until = deadline.into_iter().chain(ask_again).chain(look_at).min();
        let also: Vec<_> = self.service.fd().into_iter().collect();
        match self
            .session
            .wait(until, &also)
            .map_err(input::broken_wait)?
        {
            Woke::Ready(_) => self.service.drain(),
            Woke::Changed => {}
            Woke::Deadline if until != deadline => {
                for one in self.standstill.news(self.in_the_way()) {
                    self.cx
                        .report
                        .note(&format!("{}: {}", self.chat, one.to_line()));
                }
            }
            Woke::Deadline => {
                let chat = self.chat;
                let (because, cure) = match self.in_the_way().first() {
                    Some(one) => (format!(": {}", one.text), one.advice()),
                    None => (String::new(), format!("wg why {chat}")),
                };
                return Err(Failure::new(
                    ExitCode::TimedOut,
                    format!("{chat} has not answered in time{because}; the message stays accepted"),
                )
                .with_cure(format!("{cure}; wg chat read {chat}")));
            }
        }
        Ok(())
    }

    fn in_the_way(&self) -> Vec<Standstill> {
        standstill::in_the_way(&self.workspace.service_dir(), &self.dir)
    }

    fn new_events(&mut self) -> Outcome<Vec<String>> {
        Ok(self.events.lines()?)
    }

    fn give_up_if_nothing_will_come(&mut self, deadline: Option<Instant>) -> Outcome<()> {
        let mut changed = false;
        for line in self.new_events()? {
            let Some((kind, event)) = event_of(&line, self.chat) else {
                continue;
            };
            let text = one_line(
                event
                    .get("text")
                    .and_then(Value::as_str)
                    .unwrap_or_default(),
            );
            if event.pointer("/verdict/cause").and_then(Value::as_str) == Some("unavailable") {
                return Err(self.unavailable(&text));
            }
            match meaning(kind) {
                Meaning::Nothing => {}
                Meaning::Waits => {
                    if self.said.insert(text.clone()) {
                        self.cx.report.note(&format!("{}: {text}", self.chat));
                    }
                }
                Meaning::MayBeOver => changed = true,
            }
        }
        let service_is_up = self.workspace.state_path().exists();
        let went_down =
            std::mem::replace(&mut self.service_was_up, service_is_up) && !service_is_up;
        if changed || went_down || self.unsure {
            self.look_at_the_state(deadline)?;
        }
        Ok(())
    }

    fn look_at_the_state(&mut self, deadline: Option<Instant>) -> Outcome<()> {
        // A service on its way down closes the connection in the middle of the answer: it is asked again when it is gone. One that
        // hangs keeps nobody longer than he wanted to wait.
        let within = said_within(deadline, clock::steady());
        let rows = ops::list_all_chats_within(self.workspace, within);
        self.unsure = rows.is_err();
        let Ok(rows) = rows else { return Ok(()) };
        let state = rows
            .iter()
            .find(|row| row.chat_id == self.chat.0)
            .map_or(ChatState::Dormant, |row| row.state);
        if state != ChatState::Dormant {
            self.down_since = None;
            return refuse_to_wait_for_nothing(self.workspace, self.chat, state);
        }
        // It may be on its way up again.
        let now = clock::steady();
        let since = *self.down_since.get_or_insert(now);
        if now.duration_since(since) < COMES_BACK_WITHIN {
            self.unsure = true;
            return Ok(());
        }
        refuse_to_wait_for_nothing(self.workspace, self.chat, state)
    }

    fn unavailable(&self, text: &str) -> Failure {
        let chat = self.chat;
        Failure::new(ExitCode::Unavailable, format!("the agent of {chat} is unavailable ({text}); the message stays accepted and is tried again"))
            .with_cure(format!("wg why {chat}"))
    }
}

/// How long the service may take to answer somebody who waits until this deadline.
fn said_within(deadline: Option<Instant>, now: Instant) -> Duration {
    deadline.map_or(SAID_WITHIN, |at| {
        at.saturating_duration_since(now).min(SAID_WITHIN)
    })
}

/// The event on this line, if it is one of this chat's.
fn event_of(line: &str, chat: ChatId) -> Option<(EventKind, Value)> {
    let event: Value = serde_json::from_str(line).ok()?;
    if event.get("chat_id").and_then(Value::as_u64) != Some(u64::from(chat.0)) {
        return None;
    }
    let kind = EventKind::parse(event.get("event")?.as_str()?)?;
    Some((kind, event))
}

/// Whether an agent's ending may mean that its settings are wrong: 78 by itself, 126 and 127 from a shell, or no start at all.
fn may_park(exit: &str) -> bool {
    match exit.strip_prefix("exit code ") {
        Some(code) => matches!(code, "78" | "126" | "127"),
        None => !exit.is_empty() && !exit.starts_with("SIG"),
    }
}

/// What an event tells somebody who waits for a reply.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// Nothing.
    Nothing,
    /// Why it takes longer.
    Waits,
    /// Perhaps that no reply will come.
    MayBeOver,
}

fn meaning(kind: EventKind) -> Meaning {
    match kind {
        EventKind::Held
        | EventKind::Backoff
        | EventKind::Degraded
        | EventKind::LaneBlocked
        | EventKind::SpawnFailed => Meaning::Waits,
        EventKind::Parked | EventKind::Stopped | EventKind::Archived | EventKind::Purged => {
            Meaning::MayBeOver
        }
        EventKind::DaemonStarted
        | EventKind::Adopted
        | EventKind::HolderGone
        | EventKind::Spawned
        | EventKind::Exited
        | EventKind::Unparked
        | EventKind::Idle
        | EventKind::Woken
        | EventKind::TurnStarted
        | EventKind::TurnFinished
        | EventKind::TurnInterrupted
        | EventKind::LaneReclaimed
        | EventKind::MemoryWarning
        | EventKind::ReleaseRequested
        | EventKind::TakenOver
        | EventKind::Restored
        | EventKind::OrphanEnded
        | EventKind::BudgetWarning => Meaning::Nothing,
    }
}

/// A chat that answers nobody in its present state: waiting would look like a hang.
///
/// # Errors
///
/// The state, and what lifts it; the message stays accepted.
pub(super) fn refuse_to_wait_for_nothing(
    workspace: &Workspace,
    chat: ChatId,
    state: ChatState,
) -> Outcome<()> {
    let (code, what, cure) = match state {
        ChatState::Stopped => (
            ExitCode::Failed,
            "is stopped".to_owned(),
            format!("wg chat resume {chat}"),
        ),
        ChatState::Archived | ChatState::Purged => (
            ExitCode::Failed,
            "is retired".to_owned(),
            format!("wg chat restore {chat}"),
        ),
        ChatState::Parked => (
            ExitCode::Config,
            why_parked(workspace, chat),
            format!("wg why {chat}"),
        ),
        ChatState::Dormant => (
            ExitCode::Unavailable,
            "is not served: the service is not running".to_owned(),
            "wg service start".to_owned(),
        ),
        ChatState::Running
        | ChatState::Adopted
        | ChatState::Starting
        | ChatState::Queued
        | ChatState::Idle
        | ChatState::Held
        | ChatState::Backoff
        | ChatState::Degraded
        | ChatState::Stopping => return Ok(()),
    };
    Err(Failure::new(
        code,
        format!("{chat} {what}; the message waits in its inbox"),
    )
    .with_cure(cure))
}

/// What the service says about it; that it is parked where the service says nothing.
fn why_parked(workspace: &Workspace, chat: ChatId) -> String {
    let told = crate::why::explain(workspace, Some(chat))
        .ok()
        .and_then(|mut explanations| explanations.pop());
    match told.and_then(|told| told.last) {
        Some(last) => {
            let stderr = last
                .evidence
                .get("stderr")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let words = stderr
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty())
                .map(|line| format!(": {line}"));
            format!(
                "is parked: its handler {}{}",
                last.text,
                words.unwrap_or_default()
            )
        }
        None => "is parked".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_hangs_keeps_nobody_beyond_his_own_deadline() {
        let now = clock::steady();
        let at = |after: Duration| Some(now + after);
        let soon = Duration::from_millis(200);
        assert_eq!(said_within(at(soon), now), soon);
        assert_eq!(said_within(Some(now), now + soon), Duration::ZERO);
        assert_eq!(said_within(at(SAID_WITHIN * 3), now), SAID_WITHIN);
        assert_eq!(said_within(None, now), SAID_WITHIN);
    }
}
