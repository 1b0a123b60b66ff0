//! What can go wrong with the lock of a directory.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use super::Note;
use crate::error::{AcquireError, HeldReason, InspectError};
use crate::holder::Holder;

/// Why a directory was not locked, or its lock not looked at.
#[derive(Debug)]
#[non_exhaustive]
pub enum DirLockError {
    /// Another holds the directory, or one above or below it.
    Held {
        /// The directory that was wanted.
        wanted: PathBuf,
        /// The directory that is held: the same, or one above or below.
        held: PathBuf,
        /// The process that holds it, where one is named.
        holder: Option<Box<Holder>>,
        /// How that is known; `None` for the hold of a person.
        reason: Option<HeldReason>,
        /// What the holder said about it.
        note: Option<Box<Note>>,
        /// The folder of the entry that stands against it.
        entry: PathBuf,
    },
    /// An entry says nothing sensible, and nobody can know whom it protects. A person has to look.
    Corrupt {
        /// The file.
        path: PathBuf,
    },
    /// The lock of the entry failed.
    Acquire(AcquireError),
    /// The lock of the entry could not be looked at.
    Inspect(InspectError),
    /// The system refused an operation.
    Io {
        /// What was being done, after "failed to".
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl fmt::Display for DirLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held {
                wanted,
                held,
                holder,
                note,
                ..
            } => {
                write!(f, "`{}` is held", wanted.display())?;
                if held != wanted {
                    write!(f, " through `{}`", held.display())?;
                }
                match holder {
                    Some(holder) => write!(f, " by {holder}")?,
                    None => f.write_str(" by a person")?,
                }
                note.as_ref().map_or(Ok(()), |note| write!(f, " ({note})"))
            }
            Self::Corrupt { path } => {
                write!(
                    f,
                    "`{}` says nothing sensible; look at it and remove it",
                    path.display()
                )
            }
            Self::Acquire(_) => f.write_str("failed to lock the directory"),
            Self::Inspect(_) => f.write_str("failed to look at the lock of the directory"),
            Self::Io { doing, path, .. } => write!(f, "failed to {doing} `{}`", path.display()),
        }
    }
}

impl Error for DirLockError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Acquire(error) => Some(error),
            Self::Inspect(error) => Some(error),
            Self::Io { source, .. } => Some(source),
            Self::Held { .. } | Self::Corrupt { .. } => None,
        }
    }
}
