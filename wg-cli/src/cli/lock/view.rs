//! What is told about the lock of a directory, as text and as JSON.

use std::io;
use std::path::PathBuf;

use serde::Serialize;
use session_lock::{DirLockError, DirStatus, Inspection, Note, Relation, Unreadable};

use crate::clock::Timestamp;
use crate::standstill;

/// A process that has a directory.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Holder {
    pid: u32,
    kind: String,
    since: String,
    generation: Option<u64>,
    uid: Option<u32>,
    /// Its working directory, where the system shows it.
    cwd: Option<PathBuf>,
    /// What it runs, where the system shows it.
    command: Option<String>,
}

impl Holder {
    fn of(holder: &session_lock::Holder) -> Self {
        let cwd = std::fs::read_link(format!("/proc/{}/cwd", holder.pid)).ok();
        let command = std::fs::read(format!("/proc/{}/cmdline", holder.pid))
            .ok()
            .filter(|bytes| !bytes.is_empty())
            .map(|bytes| {
                String::from_utf8_lossy(&bytes)
                    .trim_end_matches('\0')
                    .replace('\0', " ")
            });
        Self {
            pid: holder.pid,
            kind: holder.kind.as_str().to_owned(),
            since: holder.since.clone(),
            generation: holder.generation(),
            uid: holder.uid(),
            cwd,
            command,
        }
    }

    /// `pid 4711 (lock-run) since 2 h ago`.
    pub(super) fn to_text(&self, now: Timestamp) -> String {
        let since = Timestamp::parse(&self.since)
            .map(|since| format!(" since {}", since.ago_in_words(now)))
            .unwrap_or_default();
        format!("pid {} ({}){since}", self.pid, self.kind)
    }

    /// Whether this process was started below it.
    pub(super) fn is_above_us(&self) -> bool {
        let mut pid = std::process::id();
        while pid > 1 {
            if pid == self.pid {
                return true;
            }
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
            pid = parent
                .and_then(|parent| parent.trim().parse().ok())
                .unwrap_or(0);
        }
        false
    }
}

/// What a holder or a person said about a lock.
#[derive(Debug, Clone, Serialize)]
pub(super) struct NoteView {
    by: String,
    reason: String,
    since: String,
}

impl NoteView {
    fn of(note: &Note) -> Self {
        Self {
            by: note.by.clone(),
            reason: note.reason.clone(),
            since: note.since.clone(),
        }
    }

    /// `ann: a migration`.
    pub(super) fn to_text(&self) -> String {
        if self.reason.is_empty() {
            self.by.clone()
        } else {
            format!("{}: {}", self.by, self.reason)
        }
    }
}

/// Who stands against a lock that was wanted.
#[derive(Debug, Serialize)]
pub(super) struct HeldView {
    /// The directory that was wanted.
    directory: PathBuf,
    /// The directory that is held: the same, or one above or below.
    pub(super) held: PathBuf,
    /// `None` for a person's hold.
    pub(super) holder: Option<Holder>,
    reason: Option<String>,
    note: Option<NoteView>,
}

impl HeldView {
    pub(super) fn of(error: &DirLockError) -> Option<Self> {
        let DirLockError::Held {
            wanted,
            held,
            holder,
            reason,
            note,
            ..
        } = error
        else {
            return None;
        };
        Some(Self {
            directory: wanted.clone(),
            held: held.clone(),
            holder: holder.as_deref().map(Holder::of),
            reason: reason
                .as_ref()
                .map(|reason| standstill::reason(reason, holder.as_deref())),
            note: note.as_deref().map(NoteView::of),
        })
    }

    pub(super) fn to_text(&self, now: Timestamp) -> String {
        let through = if self.held == self.directory {
            String::new()
        } else {
            format!(" through `{}`", self.held.display())
        };
        let who = match (&self.holder, &self.reason) {
            (Some(holder), _) => holder.to_text(now),
            (None, Some(_)) => "a process that is not named".to_owned(),
            (None, None) => "a person".to_owned(),
        };
        let note = self
            .note
            .as_ref()
            .map(|note| format!(", {}", note.to_text()))
            .unwrap_or_default();
        let cwd = self
            .holder
            .as_ref()
            .and_then(|holder| holder.cwd.as_ref())
            .map(|cwd| format!(", in `{}`", cwd.display()))
            .unwrap_or_default();
        let reason = self
            .reason
            .as_ref()
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default();
        format!(
            "`{}` is held{through} by {who}{note}{cwd}{reason}",
            self.directory.display()
        )
    }

    /// Whether a person holds it, without any process.
    pub(super) fn is_a_persons(&self) -> bool {
        self.reason.is_none()
    }
}

/// A process whose working directory is in a locked one.
#[derive(Debug, Serialize)]
struct OccupantView {
    pid: u32,
    parent: u32,
    command: String,
    cwd: PathBuf,
    /// `holder`, `follower` or `stranger`.
    relation: &'static str,
}

/// The lock of one directory.
#[derive(Debug, Serialize)]
pub(super) struct LockView {
    pub(super) directory: PathBuf,
    /// `free`, `held`, `hold` (a person's) or `stale`.
    state: &'static str,
    pub(super) holder: Option<Holder>,
    /// Why it counts as it does.
    reason: Option<String>,
    pub(super) note: Option<NoteView>,
    pub(super) hold: Option<NoteView>,
    /// Locked directories above and below, which keep this one from being locked.
    overlaps: Vec<PathBuf>,
    /// Who works in the directory; only told for one directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    occupants: Option<Vec<OccupantView>>,
}

/// Every lock, for `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Locks {
    pub(super) locks: Vec<LockView>,
    /// What stands in the way of a directory and says nothing sensible.
    pub(super) unreadable: Vec<UnreadableView>,
}

/// An entry that nobody can make sense of.
#[derive(Debug, Serialize)]
pub(super) struct UnreadableView {
    /// The directory that it is for, where that can be read.
    directory: Option<PathBuf>,
    /// The folder of the entry.
    entry: PathBuf,
    reason: String,
}

impl UnreadableView {
    pub(super) fn of(unreadable: &Unreadable) -> Self {
        let because = &unreadable.because;
        let cause = std::error::Error::source(because);
        Self {
            directory: unreadable.directory.clone(),
            entry: unreadable.entry.clone(),
            reason: cause.map_or_else(
                || because.to_string(),
                |cause| format!("{because}: {cause}"),
            ),
        }
    }

    /// The cells of a row of the list.
    pub(super) fn to_row(&self) -> [String; 3] {
        let directory = self.directory.as_ref();
        [
            directory.map_or_else(|| "(not known)".to_owned(), |it| it.display().to_string()),
            "unreadable".to_owned(),
            self.reason.clone(),
        ]
    }
}

impl LockView {
    /// `held` are the locks that may overlap.
    pub(super) fn of(status: &DirStatus, held: &[DirStatus]) -> Self {
        let reason = match &status.inspection {
            Inspection::Held(held) => Some(standstill::reason(&held.reason, held.holder.as_ref())),
            Inspection::Stale { .. } => Some("its holder is gone".to_owned()),
            Inspection::Free | Inspection::Corrupt { .. } | _ => None,
        };
        let overlaps = held
            .iter()
            .map(|other| &other.directory)
            .filter(|other| {
                **other != status.directory
                    && (other.starts_with(&status.directory) || status.directory.starts_with(other))
            })
            .cloned()
            .collect();
        Self {
            directory: status.directory.clone(),
            state: super::state(&status.inspection, status.hold.is_some()),
            holder: status.inspection.holder().map(Holder::of),
            reason,
            note: status.note.as_ref().map(NoteView::of),
            hold: status.hold.as_ref().map(NoteView::of),
            overlaps,
            occupants: None,
        }
    }

    pub(super) fn look_for_occupants(&mut self, status: &DirStatus) -> io::Result<()> {
        let mut occupants = Vec::new();
        for (occupant, relation) in status.occupants()? {
            // Who asks is there too, and gone before the answer is read.
            if occupant.pid == std::process::id() {
                continue;
            }
            occupants.push(OccupantView {
                pid: occupant.pid,
                parent: occupant.parent,
                command: occupant.command,
                cwd: occupant.directory,
                relation: match relation {
                    Relation::Holder => "holder",
                    Relation::Follower => "follower",
                    Relation::Stranger | _ => "stranger",
                },
            });
        }
        self.occupants = Some(occupants);
        Ok(())
    }

    /// Who has it, in one line.
    pub(super) fn headline(&self, now: Timestamp) -> String {
        let directory = self.directory.display();
        match (self.state, &self.holder, &self.hold) {
            ("held", Some(holder), _) => {
                let reason = self.reason.as_deref().unwrap_or_default();
                format!("{directory}: held by {}: {reason}", holder.to_text(now))
            }
            ("held", None, _) => {
                let reason = self.reason.as_deref().unwrap_or_default();
                format!("{directory}: held by a process that is not named: {reason}")
            }
            ("hold", _, Some(hold)) => format!("{directory}: held by a person, {}", hold.to_text()),
            ("stale", Some(holder), _) => format!(
                "{directory}: free; its last holder {} is gone",
                holder.to_text(now)
            ),
            _ => format!("{directory}: free"),
        }
    }

    pub(super) fn to_text(&self, now: Timestamp) -> String {
        let mut lines = vec![self.headline(now)];
        if self.state == "held" {
            if let Some(note) = &self.note {
                lines.push(format!("  note      {}", note.to_text()));
            }
            if let Some(holder) = &self.holder {
                if let Some(command) = &holder.command {
                    lines.push(format!(
                        "  command   {}",
                        crate::columns::clip(&crate::report::one_line(command), 66)
                    ));
                }
                if let Some(cwd) = &holder.cwd {
                    lines.push(format!("  cwd       {}", cwd.display()));
                }
            }
        }
        for other in &self.overlaps {
            lines.push(format!("  overlaps  {}, which is locked", other.display()));
        }
        for occupant in self.occupants.iter().flatten() {
            lines.push(format!(
                "  {:<9} pid {} ({}) in {}",
                occupant.relation,
                occupant.pid,
                occupant.command,
                occupant.cwd.display()
            ));
        }
        lines.join("\n")
    }
}

/// What became of a release, for `--json`.
#[derive(Debug, Serialize)]
pub(super) struct ReleaseView {
    pub(super) directory: PathBuf,
    pub(super) was_held: bool,
    /// The process that held it.
    pub(super) holder: Option<Holder>,
    /// The person who held it.
    pub(super) hold: Option<NoteView>,
    /// Whether it may be taken now.
    pub(super) free: bool,
    /// Whether the holder had to be signalled.
    pub(super) signalled: bool,
}

impl ReleaseView {
    pub(super) fn to_text(&self, now: Timestamp) -> String {
        let directory = self.directory.display();
        if !self.was_held {
            return format!("{directory}: nobody holds it");
        }
        let who = match (&self.holder, &self.hold) {
            (_, Some(hold)) => format!("the hold of {}", hold.to_text()),
            (Some(holder), None) => holder.to_text(now),
            (None, None) => "a process that is not named".to_owned(),
        };
        match (self.free, self.signalled) {
            (true, true) => format!("{directory}: {who} was ended; it is free now"),
            (true, false) if self.hold.is_some() => {
                format!("{directory}: {who} has ended; it is free now")
            }
            (true, false) => format!("{directory}: {who} has left; it is free now"),
            (false, _) => format!("{directory}: asked {who} to leave"),
        }
    }
}
