//! What can go wrong when memory figures are read.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a memory figure could not be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum MemoryError {
    /// There is no such process (any more).
    NoProcess {
        /// The process id that was asked for.
        pid: u32,
    },
    /// The process has no memory of its own: a zombie or a kernel thread.
    NoMemory {
        /// The process id that was asked for.
        pid: u32,
    },
    /// A file of the kernel's could not be read.
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of the kernel's does not say what it is known to say.
    Format {
        /// The file.
        path: PathBuf,
        /// What was looked for in it.
        missing: &'static str,
    },
}

impl MemoryError {
    /// The error for a file in `<proc>/<pid>`, where a missing file means a missing process, unless there is no process table at all.
    pub(super) fn of_process(pid: u32, path: &Path, source: io::Error) -> Self {
        let table_there = path.ancestors().nth(2).is_some_and(Path::is_dir);
        if table_there && is_gone(&source) {
            Self::NoProcess { pid }
        } else {
            Self::read(path, source)
        }
    }

    pub(super) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn format(path: &Path, missing: &'static str) -> Self {
        Self::Format {
            path: path.to_owned(),
            missing,
        }
    }
}

/// Returns whether reading below `/proc/<pid>` failed because the process ended: before the open (ENOENT) or after it (ESRCH).
pub(super) fn is_gone(error: &io::Error) -> bool {
    const ESRCH: i32 = 3;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH)
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProcess { pid } => write!(f, "there is no process {pid}"),
            Self::NoMemory { pid } => write!(f, "process {pid} has no memory of its own"),
            Self::Read { path, .. } => write!(f, "failed to read `{}`", path.display()),
            Self::Format { path, missing } => {
                write!(f, "`{}` says nothing about {missing}", path.display())
            }
        }
    }
}

impl std::error::Error for MemoryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::NoProcess { .. } | Self::NoMemory { .. } | Self::Format { .. } => None,
        }
    }
}
