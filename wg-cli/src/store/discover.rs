//! Which workspace a command means.

use std::env;
use std::path::{Path, PathBuf};

use super::workspace::{GRAPH, NAMES, Workspace, is_named_like_one};
use crate::exit_code::ExitCode;
use crate::failure::Failure;

/// What is said where the directory in which a process stands was removed under it, or is closed to it.
pub(crate) const NO_CURRENT_DIRECTORY: &str = "the current directory is gone, or closed to you";

/// What helps there.
pub(crate) const ELSEWHERE: &str = "cd to one that is there, or name a workspace with --dir";

/// A workspace and why it is this one.
#[derive(Debug, Clone)]
pub struct Found {
    /// The workspace.
    pub workspace: Workspace,
    /// Which rule found it, for `wg which`.
    pub reason: &'static str,
}

/// What discovery looks at, apart from the disk.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The value of `WG_DIR`.
    pub wg_dir: Option<PathBuf>,
    /// Where the process stands.
    pub cwd: Option<PathBuf>,
    /// The user's home.
    pub home: Option<PathBuf>,
}

impl Surroundings {
    /// Reads them from this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        let variable = |name: &str| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        Self {
            wg_dir: variable("WG_DIR"),
            cwd: env::current_dir().ok(),
            home: variable("HOME"),
        }
    }
}

impl Workspace {
    /// Finds the workspace: `--dir`, else `WG_DIR`, else the nearest `.wg` or `.workgraph` upwards, else an existing one in the home.
    ///
    /// # Errors
    /// [`ExitCode::Failed`] if there is none, with the cure; [`ExitCode::System`] if it cannot be looked at.
    pub fn discover(dir_flag: Option<&Path>) -> Result<Found, Failure> {
        Self::discover_from(dir_flag, &Surroundings::of_this_process())
    }

    /// As [`Workspace::discover`], with the surroundings given.
    ///
    /// # Errors
    /// As [`Workspace::discover`].
    pub fn discover_from(dir_flag: Option<&Path>, around: &Surroundings) -> Result<Found, Failure> {
        let given = |dir: &Path, reason| {
            let workspace = Self::open(&named(dir));
            let told = |failure: Failure| {
                failure.with_cure(format!("{reason} names it; wg init makes one"))
            };
            workspace
                .map(|workspace| Found { workspace, reason })
                .map_err(told)
        };
        if let Some(dir) = dir_flag {
            return given(dir, "--dir");
        }
        if let Some(dir) = around
            .wg_dir
            .as_deref()
            .filter(|dir| !dir.as_os_str().is_empty())
        {
            return given(dir, "WG_DIR");
        }
        let upwards = around.cwd.iter().flat_map(|cwd| cwd.ancestors());
        if let Some(dir) = upwards
            .flat_map(|at| NAMES.map(|name| at.join(name)))
            .find(|dir| dir.is_dir())
        {
            return Ok(Found {
                workspace: Self::open(&dir)?,
                reason: "found upwards from the current directory",
            });
        }
        let at_home = around
            .home
            .iter()
            .flat_map(|home| NAMES.map(|name| home.join(name)));
        if let Some(dir) = at_home.into_iter().find(|dir| dir.is_dir()) {
            return Ok(Found {
                workspace: Self::open(&dir)?,
                reason: "the one in the home directory",
            });
        }
        let (message, cure) = match around.cwd {
            Some(_) => ("there is no workspace here or above", "wg init, or wg up"),
            None => (NO_CURRENT_DIRECTORY, ELSEWHERE),
        };
        Err(Failure::new(ExitCode::Failed, message).with_cure(cure))
    }
}

/// Returns the workspace that a given directory means: itself, or the one inside a project directory.
fn named(dir: &Path) -> PathBuf {
    if is_named_like_one(dir) || dir.join(GRAPH).exists() {
        return dir.to_owned();
    }
    NAMES
        .iter()
        .map(|name| dir.join(name))
        .find(|inner| inner.is_dir())
        .unwrap_or_else(|| dir.to_owned())
}
