//! How a handler comes to its session lock.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use session_lock::{AcquireError, HeldReason, Holder, Kind, SessionLock, Wait, WaitError};

use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::store::error::of_lock;

use super::ears::{Ears, Heard};
use super::{mark, tree};

/// How long a person at a terminal waits for a handler that was asked to leave.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the wait is shown.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What to do when another process holds the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenHeld {
    /// Leave at once.
    Leave,
    /// Ask it to leave and wait for a while, telling the person on stderr.
    Ask,
}

/// Which lock is wanted, and for whom.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// The session directory.
    pub(crate) session: &'a Path,
    /// How the session is called.
    pub(crate) chat: &'a str,
    /// How the mark of everything that belongs to this session begins (`<workspace>/<chat>/`).
    pub(crate) marker: &'a str,
    /// What is written into the lock.
    pub(crate) kind: &'a Kind,
    /// Processes that are never ended, asked for when somebody is to be.
    pub(crate) exempt: &'a dyn Fn() -> HashSet<u32>,
}

/// Takes the session lock.
///
/// A guard that only leftovers of an earlier handler still have is no reason to stay away: they are ended.
pub(crate) fn claim(
    wanted: &Wanted<'_>,
    when_held: WhenHeld,
    ears: &mut Ears,
) -> Result<SessionLock, Failure> {
    let Wanted {
        session,
        chat,
        marker,
        kind,
        exempt,
    } = *wanted;
    let first = match try_once(session, kind, Wait::Never) {
        Err(AcquireError::Held {
            reason: HeldReason::Inherited { pids },
            ..
        }) if end_leftovers(&pids, marker, exempt) => try_once(session, kind, Wait::Never),
        outcome => outcome,
    };
    match (first, when_held) {
        (Err(AcquireError::Held { holder, .. }), WhenHeld::Ask) => {
            ask_and_wait(session, chat, kind, holder.as_ref(), ears)
        }
        (outcome, _) => outcome.map_err(|error| failure(chat, error)),
    }
}

fn try_once(session: &Path, kind: &Kind, wait: Wait) -> Result<SessionLock, AcquireError> {
    SessionLock::options()
        .kind(kind.clone())
        .wait(wait)
        .acquire(session)
}

fn ask_and_wait(
    session: &Path,
    chat: &str,
    kind: &Kind,
    holder: Option<&Holder>,
    ears: &mut Ears,
) -> Result<SessionLock, Failure> {
    match session_lock::request_release(session) {
        Ok(_) => tell(&format!(
            "{chat} is held by {}; asked it to leave at its turn boundary",
            name(holder)
        )),
        Err(error) => tell(&format!(
            "{chat} is held by {}, who could not be asked to leave: {error}",
            name(holder)
        )),
    }
    let deadline = clock::steady() + PATIENCE;
    loop {
        let now = clock::steady();
        match session_lock::wait_free(session, deadline.min(now + PROGRESS_EVERY)) {
            Err(WaitError::TimedOut { .. }) if now < deadline => {
                tell(&format!(
                    "still held, waiting {} more",
                    clock::span(deadline.saturating_duration_since(now))
                ));
            }
            // Whatever it is, the attempt to take the lock says it better.
            Ok(_) | Err(_) => break,
        }
        if ears.listen().iter().any(|heard| *heard != Heard::Child) {
            return Err(Failure::new(
                ExitCode::Held,
                format!("{chat} is still held by {}", name(holder)),
            ));
        }
    }
    try_once(session, kind, Wait::Never).map_err(|error| failure(chat, error))
}

fn name(holder: Option<&Holder>) -> String {
    holder.map_or_else(
        || "another process".to_owned(),
        |holder| {
            format!(
                "pid={} kind={} since={}",
                holder.pid,
                holder.kind.as_str(),
                holder.since
            )
        },
    )
}

/// Says something to the person at the terminal; stdout belongs to the protocol.
fn tell(text: &str) {
    if let Err(error) = writeln!(std::io::stderr(), "{text}") {
        log::debug!("nobody reads stderr: {error}");
    }
}

fn failure(chat: &str, error: AcquireError) -> Failure {
    if let AcquireError::Held { holder, reason, .. } = &error {
        let message = format!(
            "session of {chat} is already owned: held by {}: {reason}",
            name(holder.as_ref())
        );
        return Failure::new(ExitCode::Held, message)
            .with_cure(format!("wg session release {chat}"));
    }
    let message = format!("failed to lock the session of {chat}");
    if matches!(error, AcquireError::Io { .. }) {
        return of_lock(message, error);
    }
    // What stands in the way stays there until somebody changes it.
    Failure::new(ExitCode::Config, message).caused_by(error)
}

/// Ends what an earlier handler of this chat left behind, if that is all that these processes are.
///
/// Returns whether every one of them was proved to belong to this chat by its environment, and is gone. What has a lock
/// of its own is a daemon or another handler that was started from inside the chat, and stays.
fn end_leftovers(pids: &[u32], marker: &str, exempt: &dyn Fn() -> HashSet<u32>) -> bool {
    let exempt = exempt();
    let ours = |pid: &u32| !exempt.contains(pid) && carries(*pid, marker);
    if pids.is_empty() || !pids.iter().all(ours) {
        return false;
    }
    log::warn!("ending what an earlier handler left behind: {pids:?}");
    pids.iter().all(|pid| tree::end_tree(*pid, &exempt))
}

/// Returns whether the environment that this process was started with names this chat.
fn carries(pid: u32, marker: &str) -> bool {
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    let wanted = format!("{}={marker}", mark::VARIABLE);
    environment
        .split(|byte| *byte == 0)
        .any(|variable| variable.starts_with(wanted.as_bytes()))
}
