//! What an agent writes down about itself: one line for each step, in a file of its chat, out of the program's reach.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::agent::append;

/// What an agent has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// It was started for a message.
    Start,
    /// Its handler has taken in some of its reply.
    Shown,
    /// It has answered.
    End,
    /// It met another live agent of its chat.
    Double,
}

impl What {
    const ALL: [Self; 4] = [Self::Start, Self::Shown, Self::End, Self::Double];

    const fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Shown => "shown",
            Self::End => "end",
            Self::Double => "DOUBLE",
        }
    }
}

/// One line of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) what: What,
    pub(crate) request: String,
    pub(crate) pid: u32,
    /// Milliseconds since 1970.
    pub(crate) at: u64,
}

impl Line {
    pub(crate) fn now(what: What, request: &str) -> Self {
        Self {
            what,
            request: request.to_owned(),
            pid: std::process::id(),
            at: millis(),
        }
    }

    pub(crate) fn append_to(&self, path: &Path) -> io::Result<()> {
        let Self {
            what,
            request,
            pid,
            at,
        } = self;
        append(path, &format!("{} {request} {pid} {at}\n", what.word()))
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let word = words.next()?;
        Some(Self {
            what: What::ALL.into_iter().find(|what| what.word() == word)?,
            request: words.next()?.to_owned(),
            pid: words.next()?.parse().ok()?,
            at: words.next()?.parse().ok()?,
        })
    }
}

/// Where the ledger of a chat is.
pub(crate) fn path(dir: &Path, chat: &str) -> PathBuf {
    dir.join(format!("{chat}.ledger"))
}

/// Where the canary of a chat is.
pub(crate) fn canary(dir: &Path, chat: &str) -> PathBuf {
    dir.join(format!("{chat}.canary"))
}

/// Reads a ledger from its beginning.
pub(crate) fn read(dir: &Path, chat: &str) -> Vec<Line> {
    let text = fs::read_to_string(path(dir, chat)).unwrap_or_default();
    text.lines().filter_map(Line::parse).collect()
}

/// The process that holds a canary, if it tells one.
pub(crate) fn holder(canary: &Path) -> Option<u32> {
    let pid = fs::read_to_string(canary).ok()?.parse().ok()?;
    (pid > 1).then_some(pid)
}

/// Whether a process lives and is an agent of such a run.
pub(crate) fn is_agent(pid: u32) -> bool {
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}"));
    let runs = read("stat").is_ok_and(|stat| !stat.windows(4).any(|state| state == b") Z "));
    runs && read("cmdline").is_ok_and(|line| line.starts_with(b"chaos-agent"))
}

/// Milliseconds since 1970.
pub(crate) fn millis() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}
