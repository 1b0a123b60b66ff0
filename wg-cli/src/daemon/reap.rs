//! Whose a process is: the marker in its environment, and the locks that it holds.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use supervisor::tree::{Marker, Process};

use super::host::MARKER;
use crate::clock::{self, Timestamp};
use crate::store::chat_state::SpawnRecord;
use crate::store::graph::ChatId;
use crate::store::workspace::Workspace;

/// The marker of everything below one chat's handlers, or below any handler of this workspace.
pub(super) fn marker(workspace: &Workspace, chat: Option<ChatId>) -> Marker {
    let prefix = match chat {
        Some(chat) => format!("{}/{chat}/", workspace.id()),
        None => format!("{}/", workspace.id()),
    };
    Marker {
        name: MARKER.to_owned(),
        prefix,
    }
}

/// The value of the marker in a process's environment, as far as it can be read.
///
/// Evidence, not proof: a process may overwrite its environment, and one that is not dumpable shows none.
pub(super) fn marker_of(pid: u32) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let name = format!("{MARKER}=");
    environment
        .split(|byte| *byte == 0)
        .find_map(|variable| variable.strip_prefix(name.as_bytes()))
        .map(|value| String::from_utf8_lossy(value).into_owned())
}

/// The live processes that are the handler of this start of a chat, each with its start: the nonce in the environment is the one that
/// was written down before the fork. Mostly one, or none.
///
/// `holder` is whom the lock names: the handler, even if the daemon died before it could write the pid down.
pub(super) fn handlers_of(
    workspace: &Workspace,
    chat: ChatId,
    holder: Option<u32>,
    spawn: &SpawnRecord,
) -> Vec<(u32, u64)> {
    let candidates: BTreeSet<u32> = holder
        .into_iter()
        .chain(spawn.pid)
        .filter(|pid| *pid > 1)
        .collect();
    let expected = format!("{}/{chat}/{}", workspace.id(), spawn.nonce);
    let is_it = |pid: u32| {
        let identity = session_lock::ProcessIdentity::of(pid).ok().flatten()?;
        let start = identity.start_ticks?;
        let is_another =
            spawn.pid == Some(pid) && spawn.start_ticks.is_some_and(|known| known != start);
        let carries = marker_of(pid).as_deref() == Some(expected.as_str());
        (carries && !is_another).then_some((pid, start))
    };
    candidates.into_iter().filter_map(is_it).collect()
}

/// Whether this looks like a handler of this or the earlier tool: `wg … nex`, `claude-handler`, `codex-handler`.
pub(super) fn is_handler_command(pid: u32) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let mut words = line.split(|byte| *byte == 0);
    let is_wg = words.next().is_some_and(|program| {
        Path::new(&*String::from_utf8_lossy(program))
            .file_name()
            .is_some_and(|name| name == "wg")
    });
    is_wg && words.any(|word| matches!(word, b"nex" | b"claude-handler" | b"codex-handler"))
}

/// Whether the process belongs to our user.
pub(super) fn is_our_users(pid: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(format!("/proc/{pid}"))
        .is_ok_and(|metadata| metadata.uid() == nix::unistd::geteuid().as_raw())
}

/// How long ago the process started that started this many clock ticks after the boot.
pub(super) fn age_of_ticks(ticks: u64) -> Option<Duration> {
    let uptime: f64 = fs::read_to_string("/proc/uptime")
        .ok()?
        .split(' ')
        .next()?
        .parse()
        .ok()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
        .ok()
        .flatten()?;
    let started =
        Duration::from_millis(ticks.checked_mul(1000)? / u64::try_from(per_second).ok()?.max(1));
    Some(
        Duration::try_from_secs_f64(uptime)
            .ok()?
            .saturating_sub(started),
    )
}

/// How much later than the time in its record a process may have started, for clocks that are read one after the other.
const RECORD_SLACK_MILLIS: i64 = 2_000;

/// Whether a process that started at these clock ticks was there when somebody wrote this time beside its number.
pub(super) fn started_before(start: Option<u64>, written: &str) -> bool {
    let (Some(written), Some(start)) = (Timestamp::parse(written), start) else {
        return false;
    };
    let Some(age) = age_of_ticks(start) else {
        return false;
    };
    let started = clock::now().millis() - i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    started <= written.millis() + RECORD_SLACK_MILLIS
}

/// The processes that have the session's lock although the handler that lent it to them is gone.
pub(super) fn inheritors(dir: &Path) -> Vec<u32> {
    match session_lock::inspect(dir) {
        Ok(session_lock::Inspection::Held(held)) => {
            if let session_lock::HeldReason::Inherited { pids } = held.reason {
                pids
            } else {
                Vec::new()
            }
        }
        Ok(_) | Err(_) => Vec::new(),
    }
}

/// Ends what still has the session's lock although its handler is gone, with everything below it: a tool that cleared its
/// environment and changed its session is found by the descriptor alone. Returns who was ended.
pub(super) fn end_inheritors(
    dir: &Path,
    within: Duration,
    is_exempt: &mut dyn FnMut(u32) -> bool,
) -> Vec<Process> {
    let mut ended = Vec::new();
    // Twice: what is ended may have passed the descriptor on meanwhile.
    for _ in 0..2 {
        for pid in inheritors(dir) {
            if pid <= 1 || !is_our_users(pid) || is_exempt(pid) {
                continue;
            }
            // Its start first, then whether it still has the lock: a number that was given to somebody else meanwhile fails one
            // of the two.
            let Some(start) = supervisor::tree::start_ticks(pid) else {
                continue;
            };
            if !inheritors(dir).contains(&pid) {
                continue;
            }
            match supervisor::tree::end(Some((pid, start)), None, within, is_exempt) {
                Ok(report) => {
                    for process in report.survivors {
                        log::error!(
                            "`{}` (pid {}) could not be ended",
                            process.name,
                            process.pid
                        );
                    }
                    ended.push(Process {
                        pid,
                        start,
                        name: String::from("a borrower of the lock"),
                    });
                    ended.extend(
                        report
                            .ended
                            .into_iter()
                            .filter(|process| process.pid != pid),
                    );
                }
                Err(e) => log::error!("the borrowers of a lock could not be ended: {e}"),
            }
        }
    }
    ended
}
