//! `service/events.jsonl`: what happened and why, one line an event, `seq` rising over rotations and restarts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::graph::ChatId;
use super::jsonl::{Appender, LineFile};
use super::{StoreError, Workspace, files, json, lock};
use crate::clock::{self, Timestamp};
use crate::names::{ChatState, EventKind};

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventLine {
    /// When.
    pub ts: Timestamp,
    /// Its number, from 1.
    pub seq: u64,
    /// Which chat; none for the daemon's own events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_id: Option<ChatId>,
    /// The id of the chat's task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// What happened.
    pub event: EventKind,
    /// The chat's state after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ChatState>,
    /// The process it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// What an ending meant: `{class, cause, rule, counts, evidence}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Value>,
    /// How long the next start waits, in milliseconds; also written where it is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Who holds the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Value>,
    /// The number of the crash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crash_count: Option<u32>,
    /// What is left of which account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Value>,
    /// The sentence that `wg why` prints.
    pub text: String,
}

impl EventLine {
    /// Returns an event without number and details; `chat` is `None` for the daemon's own.
    pub fn new(chat: Option<ChatId>, event: EventKind, text: impl Into<String>) -> Self {
        Self {
            ts: clock::now(),
            seq: 0,
            chat_id: chat,
            task_id: chat.map(ChatId::task_id),
            event,
            state: None,
            pid: None,
            verdict: None,
            delay_ms: None,
            until: None,
            holder: None,
            crash_count: None,
            budget: None,
            text: text.into(),
        }
    }
}

/// The log of events of a workspace.
#[derive(Debug, Clone)]
pub struct EventLog {
    path: PathBuf,
    max_size: u64,
    keep: u32,
}

impl EventLog {
    /// Returns the log of a workspace; it is moved to `events.jsonl.1` before it grows over `max_size` bytes, and `keep` such files stay.
    #[must_use]
    pub fn open(workspace: &Workspace, max_size: u64, keep: u32) -> Self {
        Self {
            path: workspace.events_path(),
            max_size,
            keep,
        }
    }

    /// Appends an event, gives it its number and returns that.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was written then.
    pub fn append(&self, mut event: EventLine) -> Result<u64, StoreError> {
        self.append_all(std::slice::from_mut(&mut event), lock::PATIENCE)?;
        Ok(event.seq)
    }

    /// Appends events in their order under one lock, which is waited for no longer than `patience`, and gives them their numbers.
    ///
    /// # Errors
    /// [`StoreError`]. An event that has no number then, which is 0, was not written, and neither was any after it.
    pub fn append_all(
        &self,
        events: &mut [EventLine],
        patience: Duration,
    ) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut file = Appender::open_within(&self.path, patience, |line| {
            serde_json::from_slice::<EventLine>(line).is_ok()
        })?;
        let in_file = file
            .lines_backwards()
            .find(seq_of)
            .map_err(StoreError::io("read", &self.path))?;
        // An empty file was just rotated, or emptied by somebody.
        let last = match in_file {
            Some(seq) => seq,
            None => self.last_rotated_seq()?,
        };
        for (event, seq) in events.iter_mut().zip(last + 1..) {
            event.seq = seq;
            let line = json::line(&*event);
            let written = if file.length() > 0 && file.length() + line.len() as u64 > self.max_size
            {
                file.rotate(self.keep)
            } else {
                Ok(())
            }
            .and_then(|()| file.append(&line, files::Durability::NoSync));
            if written.is_err() {
                event.seq = 0;
                return written;
            }
        }
        Ok(())
    }

    /// Returns the highest number in the rotated files, 0 if there are none.
    fn last_rotated_seq(&self) -> Result<u64, StoreError> {
        for number in 1..=self.keep {
            let path = files::with_suffix(&self.path, &format!(".{number}"));
            if let Some(file) = LineFile::open(&path)?
                && let Some(seq) = file.find_backwards(seq_of)?
            {
                return Ok(seq);
            }
        }
        Ok(0)
    }

    /// Returns the last `count` events, of one chat or of all, in their order.
    ///
    /// # Errors
    /// [`StoreError`]; a line that is no event is passed over.
    pub fn tail(&self, chat: Option<ChatId>, count: usize) -> Result<Vec<EventLine>, StoreError> {
        self.backwards(count, |event| chat.is_none() || event.chat_id == chat)
    }

    /// Returns the last event of a chat.
    ///
    /// # Errors
    /// As [`EventLog::tail`].
    pub fn last(&self, chat: ChatId) -> Result<Option<EventLine>, StoreError> {
        Ok(self.tail(Some(chat), 1)?.pop())
    }

    /// Returns the last event of every chat that is wanted, in one pass.
    ///
    /// # Errors
    /// As [`EventLog::tail`].
    pub fn last_of_each(
        &self,
        wanted: impl Fn(&EventLine) -> bool,
    ) -> Result<BTreeMap<ChatId, EventLine>, StoreError> {
        let mut last = BTreeMap::new();
        self.each_backwards(|event| {
            if let Some(chat) = event.chat_id
                && wanted(&event)
            {
                last.entry(chat).or_insert(event);
            }
            Go::On
        })?;
        Ok(last)
    }

    /// Returns the events with numbers over `seq`, in their order; what lies before them is not read.
    ///
    /// # Errors
    /// As [`EventLog::tail`].
    pub fn after(&self, seq: u64) -> Result<Vec<EventLine>, StoreError> {
        let mut events = Vec::new();
        self.each_backwards(|event| {
            if event.seq <= seq {
                return Go::Stop;
            }
            events.push(event);
            Go::On
        })?;
        events.reverse();
        Ok(events)
    }

    fn backwards(
        &self,
        count: usize,
        wanted: impl Fn(&EventLine) -> bool,
    ) -> Result<Vec<EventLine>, StoreError> {
        let mut events = Vec::new();
        if count > 0 {
            self.each_backwards(|event| {
                if wanted(&event) {
                    events.push(event);
                }
                if events.len() < count {
                    Go::On
                } else {
                    Go::Stop
                }
            })?;
        }
        events.reverse();
        Ok(events)
    }

    /// Shows every event to `look`, from the last to the first, over all files.
    fn each_backwards(&self, mut look: impl FnMut(EventLine) -> Go) -> Result<(), StoreError> {
        for number in 0..=self.keep {
            let path = if number == 0 {
                self.path.clone()
            } else {
                files::with_suffix(&self.path, &format!(".{number}"))
            };
            if each_line_backwards(&path, &mut look)? == Go::Stop {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Whether the look back goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Go {
    On,
    Stop,
}

fn each_line_backwards(
    path: &Path,
    look: &mut impl FnMut(EventLine) -> Go,
) -> Result<Go, StoreError> {
    let Some(file) = LineFile::open(path)? else {
        return Ok(Go::On);
    };
    let stopped = file.find_backwards(|line| {
        // An event of a later version is passed over: its words are not ours to tell.
        let event = serde_json::from_slice(line).ok()?;
        (look(event) == Go::Stop).then_some(Go::Stop)
    })?;
    Ok(stopped.unwrap_or(Go::On))
}

/// Only the number of a line: an event of a later version has one too.
#[derive(Deserialize)]
struct SeqOnly {
    seq: u64,
}

fn seq_of(line: &[u8]) -> Option<u64> {
    serde_json::from_slice::<SeqOnly>(line)
        .ok()
        .map(|line| line.seq)
}
