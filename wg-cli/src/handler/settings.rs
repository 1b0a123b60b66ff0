//! What the configuration means for one handler.

use std::path::{Path, PathBuf};

use exit_classifier::memory;

use crate::agent::AgentSpec;
use crate::store::Workspace;
use crate::store::config::MemoryCap;

/// Returns where an agent works: its own directory, which a relative one is below the workspace's, else the workspace's.
pub(crate) fn working_directory(workspace: &Workspace, agent: &AgentSpec) -> PathBuf {
    let project = workspace.root().parent().unwrap_or(Path::new("/"));
    match &agent.cwd {
        Some(cwd) => project.join(cwd),
        None => project.to_owned(),
    }
}

/// Returns the cap in bytes, or `None` where there is none.
pub(crate) fn memory_cap(cap: MemoryCap) -> Option<u64> {
    match cap {
        MemoryCap::Off => None,
        MemoryCap::Bytes(bytes) => Some(bytes),
        MemoryCap::Auto => match memory::basis(std::process::id()) {
            Ok(basis) => memory::cap(None, basis.bytes),
            Err(error) => {
                log::warn!("no memory cap: what this machine has is not known: {error}");
                None
            }
        },
    }
}
