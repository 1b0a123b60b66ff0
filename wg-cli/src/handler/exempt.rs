//! Who is never ended with an agent, although it runs below one.
//!
//! An agent may start the workspace's daemon, or a handler of another chat. Such a process has a lock of its own, by which
//! it is known; it and what it started are nobody's leftovers. Those of other workspaces are known by the descriptor of their
//! lock, see [`lock_holders`](crate::lock_holders); here are also those of this one whose lock is a record alone.

use std::collections::HashSet;
use std::path::Path;

use crate::store::Workspace;

/// Returns who is exempt now: the holders of the service lock and of every session lock but that of `own`.
///
/// It looks at every session, so it is asked only when there is somebody to be ended.
pub(crate) fn holders(workspace: &Workspace, own: &Path) -> HashSet<u32> {
    let sessions = std::fs::read_dir(workspace.chat_root())
        .into_iter()
        .flatten()
        .flatten();
    sessions
        .map(|entry| entry.path())
        .filter(|path| path != own && path.is_dir())
        .chain([workspace.service_dir()])
        .filter_map(|path| holder(&path))
        .collect()
}

fn holder(dir: &Path) -> Option<u32> {
    match session_lock::inspect(dir) {
        Ok(found) if found.is_held() => found.holder().map(|holder| holder.pid),
        Ok(_) => None,
        Err(error) => {
            log::debug!("{} has no lock to look at: {error}", dir.display());
            None
        }
    }
}
