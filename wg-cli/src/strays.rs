//! What comes to this program because its parent ended.
//!
//! A child subreaper is given the orphans of all its descendants. They are then found by their place, whatever they did to their
//! environment, and a look for them need not go further than this program's own children. In return it has to wait for those that end.

use std::collections::HashSet;

use rustix::process::{Pid, WaitOptions, waitpid};

/// Makes this program the one to which its descendants' orphans come. Where that cannot be had they go further up, and are
/// looked for there.
pub(crate) fn come_here() {
    #[cfg(target_os = "linux")]
    if let Err(e) = nix::sys::prctl::set_child_subreaper(true) {
        log::debug!("not a subreaper: {e}");
    }
}

/// Whether they come here, and are those of this program's descendants alone: the first process of a machine or a container is given
/// everybody's.
pub(crate) fn are_ours() -> bool {
    std::process::id() != 1 && nix::sys::prctl::get_child_subreaper().is_ok_and(|set| set)
}

/// Returns the children of this process's first thread, to whom the kernel gives those of others.
pub(crate) fn children() -> HashSet<u32> {
    let own = std::process::id();
    let list = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
    list.unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Waits for those that came here and have ended, for a program that starts its own children from other threads than its first:
/// those are listed under the thread that started them, and are not touched.
pub(crate) fn reap() {
    for pid in children() {
        let Some(stray) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
            continue;
        };
        // One that still runs stays.
        if let Err(e) = waitpid(Some(stray), WaitOptions::NOHANG) {
            log::debug!("{pid} was waited for by somebody else: {e}");
        }
    }
}
