//! What the operating system is asked for, kept in one place so that the rest reads as policy.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;

#[cfg(not(target_os = "linux"))]
mod other;
#[cfg(not(target_os = "linux"))]
pub(crate) use other::*;

use std::io;
use std::sync::Mutex;

use nix::errno::Errno;

use crate::process_facts::ProcessFacts;

/// What this process knows about itself.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) pid: u32,
    pub(crate) start_ticks: Option<u64>,
    pub(crate) pid_namespace: Option<u64>,
    pub(crate) host: String,
}

/// Returns what this process knows about itself, looked up once per process.
pub(crate) fn own() -> Own {
    static CACHE: Mutex<Option<Own>> = Mutex::new(None);
    let pid = std::process::id();
    // A forked child may find the mutex locked by a thread that it does not have, so nobody waits for it; and
    // it finds its parent's facts there, which is why they are compared with its own number.
    let mut cache = CACHE.try_lock().ok();
    if let Some(own) = cache
        .as_deref()
        .and_then(Option::as_ref)
        .filter(|own| own.pid == pid)
    {
        return own.clone();
    }
    let own = Own {
        pid,
        start_ticks: start_ticks(pid),
        pid_namespace: pid_namespace(),
        host: host_name(),
    };
    if let Some(cache) = &mut cache {
        **cache = Some(own.clone());
    }
    own
}

/// Returns the host's name as one word, so that it can stand in a line of words.
fn host_name() -> String {
    let name = nix::unistd::gethostname()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let word: String = name
        .chars()
        .map(|c| {
            if c.is_whitespace() || c.is_control() {
                '_'
            } else {
                c
            }
        })
        .collect();
    if word.is_empty() {
        "-".to_owned()
    } else {
        word
    }
}

/// Returns whether a process with this number runs; one that has ended and waits for its parent does not.
pub(crate) fn is_running(pid: u32) -> io::Result<bool> {
    match look_up(pid) {
        ProcessFacts::Running { .. } => Ok(true),
        ProcessFacts::Absent | ProcessFacts::Ended => Ok(false),
        ProcessFacts::Unknown => Err(io::Error::other(
            "the system does not say whether the process runs",
        )),
    }
}

/// Asks with signal 0. A process that may not be signalled is there all the same.
pub(crate) fn answers_to_kill(pid: u32) -> Option<bool> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).ok()?);
    match nix::sys::signal::kill(pid, None) {
        Ok(()) | Err(Errno::EPERM) => Some(true),
        Err(Errno::ESRCH) => Some(false),
        Err(_other) => None,
    }
}
