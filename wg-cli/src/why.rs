//! Why a chat is in the state it is in: what happened, what happens next and when, what the user can do.
//!
//! `explain` gathers facts, from the daemon or from the files; the words are made here from those facts alone,
//! so that text and `--json` cannot disagree.

use exit_classifier::Verdict;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::clock::{self, Timestamp};
use crate::columns::{self, WIDTH};
use crate::failure::Failure;
use crate::names::{ChatState, EventKind};
use crate::store::events::EventLine;
use crate::store::graph::ChatId;
use crate::store::workspace::Workspace;

/// The label of somebody who stands still.
pub(crate) const STOPPED: &str = "stopped";

/// A labelled line of an explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// One word: `holder`, `last`, `next`, `agent`, …
    pub label: String,
    /// One sentence.
    pub text: String,
}

/// Something that the user can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cure {
    /// A command line, ready to paste.
    pub command: String,
    /// What it does.
    pub text: String,
}

/// The verdict on the last ending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastVerdict {
    /// How serious it was.
    pub class: String,
    /// Why it ended.
    pub cause: String,
    /// Which rule said so.
    pub rule: String,
    /// Which account it was charged to.
    pub counts: String,
    /// The facts it was judged by.
    pub evidence: Map<String, Value>,
    /// One sentence.
    pub text: String,
    /// When.
    pub at: Timestamp,
    /// Which process.
    pub pid: Option<u32>,
}

/// Why a chat is in the state it is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The chat.
    pub chat_id: u32,
    /// Its task in the graph.
    pub task_id: String,
    /// What it is doing.
    pub state: ChatState,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Whether no service looks after it.
    #[serde(default)]
    pub without_service: bool,
    /// The state in a few words: "held by another process".
    pub headline: String,
    /// What is known, in the order in which it is told.
    pub facts: Vec<Fact>,
    /// The last verdict, if a handler ever ended.
    pub last: Option<LastVerdict>,
    /// What happens next, and when.
    pub next: String,
    /// When something happens by itself, if it does.
    pub next_at: Option<Timestamp>,
    /// What the user can do.
    pub you_can: Vec<Cure>,
}

impl Explanation {
    /// The explanation for a person, at most 80 columns where the facts allow.
    #[must_use]
    pub fn to_text(&self, now: Timestamp) -> String {
        self.to_text_within(WIDTH, now)
    }

    /// As [`Explanation::to_text`], for another width: the time stands at its right end.
    pub(crate) fn to_text_within(&self, width: usize, now: Timestamp) -> String {
        let name = ChatId(self.chat_id).to_string();
        let head = format!("{name}  {}", self.headline);
        let mut text = match self.since {
            Some(since) => {
                let span = format!("for {}", clock::span(now.since(since)));
                let at = width
                    .saturating_sub(columns::of(&span))
                    .max(columns::of(&head) + 2);
                format!("{}{span}\n", columns::pad(&head, at))
            }
            None => format!("{head}\n"),
        };
        let mut line = |label: &str, body: &str| {
            text.extend(["  ", &format!("{label:<8}"), " ", body, "\n"]);
        };
        for fact in &self.facts {
            line(&fact.label, &fact.text);
        }
        if let Some(last) = &self.last {
            let pid = last
                .pid
                .map(|pid| format!("handler {pid} "))
                .unwrap_or_default();
            line(
                "last",
                &format!("{pid}{} ({})", last.text, last.at.ago_in_words(now)),
            );
        }
        line("next", &self.next);
        let commands = self
            .you_can
            .iter()
            .map(|cure| columns::of(&cure.command))
            .max()
            .unwrap_or(0);
        for (n, cure) in self.you_can.iter().enumerate() {
            line(
                if n == 0 { "you can" } else { "" },
                &format!("{}  {}", columns::pad(&cure.command, commands), cure.text),
            );
        }
        text
    }

    /// How urgently a person should look, worst first; `None` for a chat that is simply well.
    #[must_use]
    pub fn badness(&self) -> Option<u8> {
        let says = |label: &str| self.facts.iter().any(|fact| fact.label == label);
        match self.state {
            ChatState::Parked => Some(0),
            ChatState::Degraded => Some(1),
            ChatState::Held => Some(2),
            // It looks well, and nothing moves.
            ChatState::Running | ChatState::Adopted | ChatState::Queued | ChatState::Starting
                if says(STOPPED) =>
            {
                Some(2)
            }
            ChatState::Backoff => Some(3),
            ChatState::Queued => Some(4),
            ChatState::Stopping => Some(5),
            ChatState::Stopped => Some(6),
            ChatState::Starting => Some(7),
            ChatState::Dormant => Some(8),
            ChatState::Running | ChatState::Adopted | ChatState::Idle => {
                // It is well, and would not start again.
                let is_held_up = says("graph");
                (is_held_up || self.without_service).then_some(9)
            }
            ChatState::Archived | ChatState::Purged => None,
        }
    }
}

/// Explains one chat, or, without one, every chat that is not simply running or idle, worst first.
///
/// # Errors
///
/// The daemon is there and does not answer, or the files cannot be read.
pub fn explain(workspace: &Workspace, chat: Option<ChatId>) -> Result<Vec<Explanation>, Failure> {
    let chats = match chat {
        Some(chat) => vec![chat],
        None => crate::ops::list_chats(workspace, false)?
            .iter()
            .map(|row| ChatId(row.chat_id))
            .collect(),
    };
    let mut all = Vec::new();
    for one in chats {
        let explanation = crate::ops::explain_one(workspace, one)?;
        if chat.is_some() || explanation.badness().is_some() {
            all.push(explanation);
        }
    }
    all.sort_by_key(Explanation::badness);
    Ok(all)
}

impl LastVerdict {
    /// What is kept of a verdict.
    pub(crate) fn of(verdict: &Verdict, pid: u32) -> Self {
        let evidence: Map<String, Value> = verdict
            .evidence
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Value::from(value.clone())))
            .collect();
        Self {
            class: verdict.class.to_string(),
            cause: verdict.cause.to_string(),
            rule: verdict.rule.to_string(),
            counts: verdict.counts.to_string(),
            evidence,
            text: verdict.sentence(),
            at: clock::now(),
            pid: Some(pid),
        }
    }

    /// The verdict that an earlier daemon wrote down.
    pub(crate) fn from_event(line: &EventLine) -> Option<Self> {
        if line.event != EventKind::Exited {
            return None;
        }
        let verdict = line.verdict.as_ref()?;
        let word = |name: &str| {
            verdict
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        Some(Self {
            class: word("class"),
            cause: word("cause"),
            rule: word("rule"),
            counts: word("counts"),
            evidence: verdict
                .get("evidence")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
            text: line.text.clone(),
            at: line.ts,
            pid: line.pid,
        })
    }

    /// The verdict as it stands in an event.
    pub(crate) fn to_event(&self) -> Value {
        json!({
            "class": self.class,
            "cause": self.cause,
            "rule": self.rule,
            "counts": self.counts,
            "evidence": self.evidence,
        })
    }
}
