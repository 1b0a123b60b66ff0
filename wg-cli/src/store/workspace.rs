//! The `.wg` directory: where it is, whose it is, and where in it everything lies.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::StoreError;
pub use super::discover::{Found, Surroundings};
use super::files;
use super::graph::ChatId;
use crate::exit_code::ExitCode;
use crate::failure::Failure;

/// The names that a workspace may have, the present one first.
pub const NAMES: [&str; 2] = [".wg", ".workgraph"];

/// The name of the graph in a workspace.
pub(super) const GRAPH: &str = "graph.jsonl";

/// The name of the settings in a workspace.
const CONFIG: &str = "config.toml";

/// The longest path that fits a Unix socket's address with its closing zero (`sun_path` has 108 bytes on Linux).
const LONGEST_SOCKET_PATH: usize = 107;

/// A workspace: its canonical directory and the identity of that directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    root: PathBuf,
    id: String,
}

impl Workspace {
    /// Opens the workspace that is exactly this directory.
    ///
    /// # Errors
    /// [`ExitCode::Failed`] if there is no such directory or its path is not UTF-8, [`ExitCode::System`] if it cannot be looked at.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        let root = fs::canonicalize(dir).map_err(|error| no_workspace(dir, error))?;
        let metadata = fs::metadata(&root).map_err(|error| no_workspace(dir, error))?;
        if !metadata.is_dir() {
            return Err(Failure::new(
                ExitCode::Failed,
                format!("`{}` is not a directory", dir.display()),
            )
            .with_cure("wg init"));
        }
        check_is_text(&root)?;
        let born = metadata
            .created()
            .ok()
            .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok())
            .unwrap_or_default();
        let id = format!(
            "{:x}-{:x}-{:x}",
            metadata.dev(),
            metadata.ino(),
            born.as_nanos()
        );
        Ok(Self { root, id })
    }

    /// Makes a workspace: `at` itself if it is named like one, else `at/.wg`.
    ///
    /// The graph is made last and only where there is none: of two that start at once one wins, and the other one finds its workspace.
    ///
    /// # Errors
    /// [`ExitCode::Failed`] if there is one already, [`ExitCode::System`] or [`ExitCode::NotPermitted`] for what the system says.
    pub fn init(at: &Path) -> Result<Self, Failure> {
        let target = if is_named_like_one(at) {
            at.to_owned()
        } else {
            at.join(NAMES[0])
        };
        check_is_text(&std::path::absolute(&target).unwrap_or_else(|_| target.clone()))?;
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let already = |there: &Path| {
            let shown = fs::canonicalize(there).unwrap_or_else(|_| there.to_owned());
            Failure::new(
                ExitCode::Failed,
                format!("WG already initialized at {}", shown.display()),
            )
            .with_cure("wg up")
        };
        let is_one = |dir: &PathBuf| dir.join(GRAPH).exists();
        if let Some(there) = NAMES.iter().map(|name| parent.join(name)).find(is_one) {
            return Err(already(&there));
        }
        files::create_directories(&target)?;
        for (name, content) in [
            (".gitignore", GITIGNORE),
            (CONFIG, FIRST_CONFIG),
            (GRAPH, ""),
        ] {
            match files::create_exclusively(&target.join(name), content.as_bytes()) {
                Err(StoreError::AlreadyExists { .. }) if name == GRAPH => {
                    return Err(already(&target));
                }
                Ok(()) | Err(StoreError::AlreadyExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Self::open(&target)
    }

    /// Whether its graph is there, which is made last: without one it is being made, or was never made whole.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.graph_path().exists()
    }

    /// Whether the directory has one of [`NAMES`].
    #[must_use]
    pub fn is_named_like_one(&self) -> bool {
        is_named_like_one(&self.root)
    }

    /// Returns the canonical directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the identity of the directory: device, inode and time of birth, in hexadecimal.
    ///
    /// A copy, and a successor in the same place, is another workspace; the same one under another name is not.
    #[must_use]
    pub fn id(&self) -> String {
        self.id.clone()
    }

    /// Returns where the graph is.
    #[must_use]
    pub fn graph_path(&self) -> PathBuf {
        self.root.join(GRAPH)
    }

    /// Returns the side file under whose lock the graph is changed.
    #[must_use]
    pub fn graph_lock_path(&self) -> PathBuf {
        self.root.join("graph.lock")
    }

    /// Returns where the settings are.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.root.join(CONFIG)
    }

    /// Returns where the daemon keeps the settings that it has in force.
    #[must_use]
    pub fn config_in_force_path(&self) -> PathBuf {
        self.service_dir().join("config.toml")
    }

    /// Returns the directory of all sessions.
    #[must_use]
    pub fn chat_root(&self) -> PathBuf {
        self.root.join("chat")
    }

    /// Returns the earlier tool's registry of sessions.
    #[must_use]
    pub fn registry_path(&self) -> PathBuf {
        self.chat_root().join(super::registry::FILE_NAME)
    }

    /// Returns the directory of the service's own files.
    #[must_use]
    pub fn service_dir(&self) -> PathBuf {
        self.root.join("service")
    }

    /// Returns the service directory after making sure that it is there, ours and closed to others.
    ///
    /// # Errors
    /// [`ExitCode::NotPermitted`] if it belongs to somebody else, [`ExitCode::System`] for what the system says.
    pub fn ensure_service_dir(&self) -> Result<PathBuf, Failure> {
        let dir = self.service_dir();
        ensure_private_dir(&dir)?;
        Ok(dir)
    }

    /// Returns where the daemon says who it is.
    #[must_use]
    pub fn state_path(&self) -> PathBuf {
        self.service_dir().join("state.json")
    }

    /// Returns where the daemon listens: `service/daemon.sock`, or a short name in the user's runtime directory if that is too long
    /// for a socket's address.
    ///
    /// # Errors
    /// [`ExitCode::NotPermitted`] if the runtime directory is not ours alone.
    pub fn socket_path(&self) -> Result<PathBuf, Failure> {
        let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        self.socket_path_from(runtime.as_deref(), Path::new("/tmp"))
    }

    /// As [`Workspace::socket_path`], with the runtime directory and the directory for temporary files given.
    ///
    /// # Errors
    /// As [`Workspace::socket_path`].
    pub fn socket_path_from(
        &self,
        runtime: Option<&Path>,
        temporary: &Path,
    ) -> Result<PathBuf, Failure> {
        let near = self.service_dir().join("daemon.sock");
        if near.as_os_str().len() <= LONGEST_SOCKET_PATH {
            return Ok(near);
        }
        let name = format!("wg-{:016x}.sock", fnv1a(self.id.as_bytes()));
        let own = runtime
            .filter(|dir| dir.is_absolute() && is_private_dir(dir))
            .map(|dir| dir.join(&name));
        if let Some(path) = own.filter(|path| path.as_os_str().len() <= LONGEST_SOCKET_PATH) {
            return Ok(path);
        }
        let dir = temporary.join(format!("wg-{}", nix::unistd::geteuid()));
        ensure_private_dir(&dir)?;
        Ok(dir.join(name))
    }

    /// Returns the daemon's log.
    #[must_use]
    pub fn daemon_log_path(&self) -> PathBuf {
        self.service_dir().join("daemon.log")
    }

    /// Returns the record of what happened and why.
    #[must_use]
    pub fn events_path(&self) -> PathBuf {
        self.service_dir().join("events.jsonl")
    }

    /// Returns the state file of a chat.
    #[must_use]
    pub fn chat_state_path(&self, chat: ChatId) -> PathBuf {
        self.service_dir()
            .join(format!("coordinator-state-{}.json", chat.0))
    }

    /// Refuses a workspace that is not ours: its configuration runs commands.
    ///
    /// # Errors
    /// [`ExitCode::NotPermitted`] naming the owner and the file.
    pub fn check_owner(&self) -> Result<(), Failure> {
        let us = nix::unistd::geteuid().as_raw();
        for path in [self.root.clone(), self.config_path(), self.graph_path()] {
            let owner = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata.uid(),
                Err(error) if files::absent(&error) => continue,
                Err(error) => {
                    return Err(StoreError::Io {
                        doing: "look at",
                        path,
                        source: error,
                    }
                    .into());
                }
            };
            if owner != us {
                return Err(Failure::new(
                    ExitCode::NotPermitted,
                    format!("`{}` belongs to user {owner}, not to you (user {us}), and its settings run commands", path.display()),
                )
                .with_cure("use a workspace of your own, or change its owner"));
            }
        }
        Ok(())
    }
}

/// Whether a directory is named like a workspace.
pub(super) fn is_named_like_one(dir: &Path) -> bool {
    dir.file_name()
        .is_some_and(|name| NAMES.iter().any(|known| name == *known))
}

/// Refuses a path that the records, which are JSON, cannot hold.
fn check_is_text(path: &Path) -> Result<(), Failure> {
    if path.to_str().is_some() {
        return Ok(());
    }
    Err(Failure::new(
        ExitCode::Failed,
        format!(
            "the path of the workspace is not UTF-8: `{}`",
            path.display()
        ),
    )
    .with_cure("rename the directory, or use a workspace elsewhere"))
}

fn no_workspace(dir: &Path, error: io::Error) -> Failure {
    if files::absent(&error) {
        Failure::new(
            ExitCode::Failed,
            format!("there is no workspace at `{}`", dir.display()),
        )
        .with_cure("wg init")
    } else {
        StoreError::Io {
            doing: "open the workspace",
            path: dir.to_owned(),
            source: error,
        }
        .into()
    }
}

const GITIGNORE: &str =
    "service/\nchat/\nagents/\ngraph.lock\n*.lock\n*.corrupt*\n*.secret\n*.credentials\n";
const FIRST_CONFIG: &str = "# Settings of this workspace. Everything has a default; `wg doctor` checks what is written here.\n";

/// Whether a directory is ours, a real one, and closed to everybody else.
fn is_private_dir(dir: &Path) -> bool {
    fs::symlink_metadata(dir).is_ok_and(|metadata| {
        metadata.is_dir()
            && metadata.uid() == nix::unistd::geteuid().as_raw()
            && !open_to_others(&metadata)
    })
}

/// Whether anybody else may read, write or enter.
fn open_to_others(metadata: &fs::Metadata) -> bool {
    metadata.mode() & 0o077 != 0
}

/// Makes `dir` with mode 0700, or closes the one that is there if it is ours.
fn ensure_private_dir(dir: &Path) -> Result<(), Failure> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(StoreError::Io {
                doing: "create",
                path: dir.to_owned(),
                source: error,
            }
            .into());
        }
        Ok(()) | Err(_) => {}
    }
    let metadata = fs::symlink_metadata(dir).map_err(StoreError::io("look at", dir))?;
    let refuse = |why: &str| {
        Failure::new(ExitCode::NotPermitted, format!("`{}` {why}", dir.display()))
            .with_cure("remove it, then try again")
    };
    if !metadata.is_dir() {
        return Err(refuse("is not a directory"));
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(refuse(&format!("belongs to user {}", metadata.uid())));
    }
    if open_to_others(&metadata) {
        // Ours but open to others: earlier tools made it with the usual mode.
        let mut permissions = metadata.permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o700);
        fs::set_permissions(dir, permissions).map_err(StoreError::io("close to others", dir))?;
    }
    Ok(())
}

/// The FNV-1a hash (64 bits): stable over versions and machines, which the standard library's is not.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
