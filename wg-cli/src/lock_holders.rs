//! Who is never ended with what somebody left behind: a process that itself holds a service's or a session's lock.
//!
//! A daemon, a handler or a terminal that was started from inside a chat is below that chat and carries its marker, and is
//! nobody's leftover; neither is what it started. It may belong to any workspace.

use std::fs;
use std::path::Path;

use session_lock::Inspection;

/// The file whose lock it is.
const GUARD: &str = ".handler.guard";
/// What stands beside the lock of a directory, which is no session's.
const OF_A_DIRECTORY: &str = "directory";

/// The live process of this machine that holds the lock of `dir`, if that is who holds it.
pub(crate) fn of_here(dir: &Path) -> Option<u32> {
    let found = session_lock::inspect(dir).ok();
    let found = found.filter(Inspection::is_watchable)?;
    found.holder().map(|holder| holder.pid)
}

/// Whether the process is itself the holder of such a lock. One that merely inherited the descriptor is no holder: the record names
/// another. Whoever has only the lock of a directory (`wg lock run`) is left behind like any other.
pub(crate) fn holds_a_lock(pid: u32) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| {
            target.file_name().is_some_and(|name| name == GUARD)
                && target.parent().is_some_and(|dir| is_holder_of(dir, pid))
        })
}

fn is_holder_of(dir: &Path, pid: u32) -> bool {
    !dir.join(OF_A_DIRECTORY).is_file()
        && session_lock::inspect(dir).is_ok_and(|found| {
            found.is_held() && found.holder().is_some_and(|holder| holder.pid == pid)
        })
}
