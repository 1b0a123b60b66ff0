//! Who is in a directory, whatever any lock says.

use std::io;
use std::path::{Path, PathBuf};

/// A process whose working directory lies in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Occupant {
    /// The process.
    pub pid: u32,
    /// The process that started it, or that took it over.
    pub parent: u32,
    /// Its working directory.
    pub directory: PathBuf,
    /// Its program's name, as the system shows it.
    pub command: String,
}

/// Lists every process whose working directory is `dir` or lies below it, by number.
///
/// Processes of other users may be hidden from the caller, and then are missing. Linux only.
///
/// # Errors
///
/// Returns an error where the directory cannot be resolved or the system does not list its processes
/// (`Unsupported` outside Linux).
pub fn occupants(dir: &Path) -> io::Result<Vec<Occupant>> {
    let dir = dir.canonicalize()?;
    #[cfg(target_os = "linux")]
    {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let process = Path::new("/proc").join(&name);
            let Ok(directory) = std::fs::read_link(process.join("cwd")) else {
                continue;
            };
            if !directory.starts_with(&dir) {
                continue;
            }
            let command = std::fs::read(process.join("comm")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command);
            found.push(Occupant {
                pid,
                parent: crate::sys::parent(pid).unwrap_or(0),
                directory,
                command: command.trim_end_matches('\n').to_owned(),
            });
        }
        found.sort_by_key(|occupant| occupant.pid);
        Ok(found)
    }
    #[cfg(not(target_os = "linux"))]
    {
        drop(dir);
        Err(io::ErrorKind::Unsupported.into())
    }
}
