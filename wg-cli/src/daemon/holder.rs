//! Who holds a session: as the supervisor's machine wants to know it, and as people are told.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use session_lock::{Held, HeldReason, InspectError, Inspection, Liveness};
use supervisor::{Holder, tree};

use super::reap;
use crate::ops::HolderDto;
use crate::store::files;

/// Who has a session now, and what can be done about that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// A process that has it.
    pub(super) holder: HolderDto,
    /// By what right.
    pub(super) right: Right,
}

/// By what a process has a session, which decides who can make it leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Right {
    /// It holds the lock, and its identity is known.
    Proven,
    /// Another tool's record names its number, and nothing more is known.
    Unproven,
    /// It runs on another host or in another pid namespace: its number means somebody else here.
    Elsewhere,
    /// Its handler is gone, and it has the lock from that one.
    LeftBehind(Heirs),
    /// A screen of the earlier tool drives the chat beside the lock.
    Screen,
}

impl Seen {
    /// Whether this is a live process that holds the lock itself.
    pub(super) fn holds_itself(&self) -> bool {
        match self.right {
            Right::Proven | Right::Unproven => true,
            Right::Elsewhere | Right::LeftBehind(_) | Right::Screen => false,
        }
    }

    /// Whether it may heed a request to leave.
    pub(super) fn reads_requests(&self) -> bool {
        match self.right {
            Right::Proven | Right::Unproven | Right::Elsewhere => true,
            Right::LeftBehind(_) | Right::Screen => false,
        }
    }

    /// Whether this process is it, or has the lock besides.
    pub(super) fn is_among(&self, pid: u32) -> bool {
        let others = match &self.right {
            Right::LeftBehind(heirs) => heirs.others.as_slice(),
            Right::Proven | Right::Unproven | Right::Elsewhere | Right::Screen => &[],
        };
        self.holder.pid == pid || others.contains(&pid)
    }

    /// Whether its number means that process here.
    pub(super) fn is_of_here(&self) -> bool {
        self.right != Right::Elsewhere
    }

    /// Where it works, as far as the system shows it.
    pub(super) fn cwd(&self) -> Option<PathBuf> {
        let link = || fs::read_link(format!("/proc/{}/cwd", self.holder.pid)).ok();
        self.is_of_here().then(link).flatten()
    }
}

/// Processes that have a lock from a holder which is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heirs {
    /// One of them.
    pub(crate) pid: u32,
    /// What that one runs.
    pub(crate) name: String,
    /// The others.
    others: Vec<u32>,
    /// Who held it.
    pub(crate) left_by: session_lock::Holder,
    /// How that one went.
    gone: &'static str,
}

impl Heirs {
    /// Those of a lock, if its holder is gone.
    pub(crate) fn of(held: &Held) -> Option<Self> {
        let HeldReason::Inherited { pids } = &held.reason else {
            return None;
        };
        let (first, others) = pids.split_first()?;
        Some(Self {
            pid: *first,
            name: tree::process(*first)
                .map_or_else(|| "unnamed".to_owned(), |process| process.name),
            others: others.to_vec(),
            left_by: held.holder.clone()?,
            gone: how_it_went(held.liveness.as_ref()),
        })
    }
}

impl fmt::Display for Heirs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({})", self.pid, self.name)?;
        for other in &self.others {
            write!(f, ", pid {other}")?;
        }
        write!(
            f,
            ", left behind by handler {}, {}",
            self.left_by.pid, self.gone
        )
    }
}

/// Who has the session of this directory, for people.
pub(super) fn seen(dir: &Path) -> Option<Seen> {
    let found = session_lock::inspect(dir).ok();
    if let Some(Inspection::Held(held)) = found {
        return of_lock(&held);
    }
    screen(dir).map(|screen| Seen {
        holder: HolderDto {
            pid: screen.pid,
            kind: SCREEN.to_owned(),
            since: screen.since,
            left_by: None,
        },
        right: Right::Screen,
    })
}

fn of_lock(held: &Held) -> Option<Seen> {
    let holder = held.holder.as_ref()?;
    let dto = |pid, kind, left_by| HolderDto {
        pid,
        kind,
        since: holder.since.clone(),
        left_by,
    };
    if matches!(held.reason, HeldReason::Inherited { .. }) {
        let heirs = Heirs::of(held)?;
        return Some(Seen {
            holder: dto(heirs.pid, heirs.name.clone(), Some(holder.pid)),
            right: Right::LeftBehind(heirs),
        });
    }
    let proven = || {
        holder
            .identity()
            .is_some_and(|identity| identity.start_ticks.is_some())
    };
    let right = if matches!(
        held.reason,
        HeldReason::OtherHost | HeldReason::OtherNamespace
    ) {
        Right::Elsewhere
    } else if proven() {
        Right::Proven
    } else {
        Right::Unproven
    };
    Some(Seen {
        holder: dto(holder.pid, holder.kind.to_string(), None),
        right,
    })
}

/// How somebody who no longer holds a lock went, as the end of a sentence.
fn how_it_went(liveness: Option<&Liveness>) -> &'static str {
    if liveness == Some(&Liveness::Left) {
        "which let go of it"
    } else {
        "which is gone"
    }
}

/// Who holds the session of this directory now, and whether that process can be watched.
pub(super) fn live_holder(dir: &Path) -> Result<Option<(Holder, bool)>, InspectError> {
    let inspection = session_lock::inspect(dir)?;
    let watchable = inspection.is_watchable();
    Ok(match inspection {
        Inspection::Held(held) => match held.holder {
            Some(holder) => {
                let start = holder.identity().and_then(|identity| identity.start_ticks);
                Some((crate::wire::holder(&holder, start), watchable))
            }
            None => Some((somebody(held.reason.to_string()), false)),
        },
        Inspection::Free | Inspection::Stale { .. } | Inspection::Corrupt { .. } => {
            screen_holder(dir)
        }
        // A form of looking that this build does not know: held is the safe reading.
        other => Some((somebody(format!("{other:?}")), false)),
    })
}

fn somebody(label: String) -> Holder {
    Holder {
        pid: 0,
        start: None,
        label,
    }
}

/// The screen of the earlier tool that drives the chat itself: its number, its start, and since when.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) pid: u32,
    pub(super) start: Option<u64>,
    pub(super) since: String,
}

/// The label of such a screen.
pub(super) const SCREEN: &str = "tui-driven";

/// A live screen of the earlier tool that drives the chat itself (`.tui-driven`: its number, and when it wrote it).
///
/// The file stays behind when the screen crashes, so a process that started later than its time only has the number.
pub(super) fn screen(dir: &Path) -> Option<Screen> {
    let bytes = files::read(&dir.join(".tui-driven")).ok().flatten()?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().map(str::trim);
    let pid: u32 = lines.next()?.parse().ok().filter(|pid| *pid > 1)?;
    let since = lines.next().unwrap_or_default();
    let identity = session_lock::ProcessIdentity::of(pid).ok().flatten()?;
    let is_another = !since.is_empty() && !reap::started_before(identity.start_ticks, since);
    (!is_another).then(|| Screen {
        pid,
        start: identity.start_ticks,
        since: since.to_owned(),
    })
}

fn screen_holder(dir: &Path) -> Option<(Holder, bool)> {
    let screen = screen(dir)?;
    Some((
        Holder {
            pid: screen.pid,
            start: screen.start,
            label: SCREEN.to_owned(),
        },
        true,
    ))
}
