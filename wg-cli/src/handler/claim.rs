//! How a handler comes to its session lock.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use session_lock::{AcquireError, HeldReason, Holder, Kind, SessionLock, Wait, WaitError};

use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::standstill;
use crate::store::error::of_lock;

use super::ears::{Ears, Heard};
use super::{mark, tree};

/// How a person waits for a handler that was asked to leave.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    /// How long.
    patience: Duration,
    /// How often the wait is shown.
    shown_every: Duration,
}

/// At a terminal.
const WAITING: Waiting = Waiting {
    patience: Duration::from_secs(30),
    shown_every: Duration::from_secs(1),
};

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
            ask_and_wait(wanted, holder.as_ref(), ears, WAITING)
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
    wanted: &Wanted<'_>,
    holder: Option<&Holder>,
    ears: &mut Ears,
    waiting: Waiting,
) -> Result<SessionLock, Failure> {
    let Wanted {
        session,
        chat,
        kind,
        ..
    } = *wanted;
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
    let deadline = clock::steady() + waiting.patience;
    loop {
        let now = clock::steady();
        match session_lock::wait_free(session, deadline.min(now + waiting.shown_every)) {
            Err(WaitError::TimedOut { .. }) if clock::steady() < deadline => {
                let left = deadline.saturating_duration_since(clock::steady());
                tell(&format!("still held, waiting {} more", clock::span(left)));
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
            "session of {chat} is already owned: held by {}: {}",
            name(holder.as_ref()),
            standstill::reason(reason, holder.as_ref())
        );
        return Failure::new(ExitCode::Held, message)
            .with_cure(format!("wg session release {chat}"));
    }
    of_lock(format!("failed to lock the session of {chat}"), error)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_in_vain_for_a_session_is_told_with_75_who_has_it() {
        let session = tempfile::tempdir().unwrap();
        let lock = SessionLock::try_acquire(session.path(), Kind::Adapter).unwrap();
        let wanted = Wanted {
            session: session.path(),
            chat: "chat-0",
            marker: "none",
            kind: &Kind::ChatNex,
            exempt: &HashSet::new,
        };
        let mut ears = Ears::open().unwrap();
        let waiting = Waiting {
            patience: Duration::ZERO,
            shown_every: Duration::ZERO,
        };
        let failure = ask_and_wait(&wanted, None, &mut ears, waiting).unwrap_err();
        assert_eq!(failure.code, ExitCode::Held);
        let named = format!("pid={} kind=adapter", std::process::id());
        assert!(failure.to_string().contains(&named), "{failure}");
        assert!(session.path().join(".handler.release-requested").exists());
        lock.release().unwrap();
        assert!(ask_and_wait(&wanted, None, &mut ears, waiting).is_ok());
    }
}
