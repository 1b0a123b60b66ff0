//! What can go wrong, one type per operation.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::holder::Holder;
use crate::kind::Kind;

/// Why another is considered to hold the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeldReason {
    /// It has the guard, and the record or the guard names it.
    Guarded,
    /// Its identity proves that it lives, although it has no longer the guard (it replaced its program, or the
    /// guard was deleted).
    Unguarded,
    /// A record of another tool names a process that is alive, or that nothing proves dead.
    Foreign,
    /// The record is incomplete and so young that its writer may still be at it.
    Initialising,
    /// Its owner is gone, but these processes inherited the guard from it and still run.
    Inherited {
        /// The processes that could be found; empty where the system does not show them.
        pids: Vec<u32>,
    },
    /// This very process holds it already.
    ThisProcess,
    /// It lives on another host that shares the file system. Only a person can know whether it still runs.
    OtherHost,
    /// It lives in another pid namespace and has the guard.
    OtherNamespace,
    /// The system does not say whether it runs.
    Unknown,
    /// The files changed all the time while the lock was being taken.
    Unsettled,
}

impl fmt::Display for HeldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guarded => "it is alive and has the guard",
            Self::Unguarded => "it is alive but no longer has the guard",
            Self::Foreign => "nothing proves that this process of another tool has ended",
            Self::Initialising => "its record is still being written",
            Self::Inherited { pids } if pids.is_empty() => {
                "it has ended, but a process that it started still has the guard"
            }
            Self::Inherited { pids } => {
                f.write_str("it has ended, but the guard was inherited by")?;
                for (at, pid) in pids.iter().enumerate() {
                    write!(f, "{} {pid}", if at == 0 { "" } else { "," })?;
                }
                return Ok(());
            }
            Self::ThisProcess => "it is this very process",
            Self::OtherHost => "it runs on another host",
            Self::OtherNamespace => "it runs in another pid namespace",
            Self::Unknown => "the system does not say whether it runs",
            Self::Unsettled => "the lock changed hands all the time",
        })
    }
}

/// What stands where a regular file should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Node {
    /// A symbolic link, which is never followed.
    Symlink,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A device, or something that has no name here.
    Device,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Symlink => "symbolic link",
            Self::Directory => "directory",
            Self::Fifo => "named pipe",
            Self::Socket => "socket",
            Self::Device => "device",
        })
    }
}

/// Why a lock was not acquired.
#[derive(Debug)]
#[non_exhaustive]
pub enum AcquireError {
    /// Another holds the directory. Trying again makes sense once it is gone.
    Held {
        /// The directory.
        path: PathBuf,
        /// Who holds it, where anybody is named.
        holder: Option<Holder>,
        /// How it is known.
        reason: HeldReason,
    },
    /// Something that is not a regular file stands where the lock keeps its own.
    Refused {
        /// The file.
        path: PathBuf,
        /// What it is.
        node: Node,
    },
    /// The directory lies on a network file system, where a lock may hang and a process number proves nothing.
    NetworkFileSystem {
        /// The directory.
        path: PathBuf,
        /// The name of the file system.
        name: &'static str,
    },
    /// The kind cannot be written as one line.
    UnusableKind {
        /// The kind.
        kind: Kind,
    },
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

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held {
                path,
                holder,
                reason,
            } => write_held(f, path, holder.as_ref(), reason),
            Self::Refused { path, node } => {
                write!(
                    f,
                    "refused to lock: `{}` is a {node}, not a regular file",
                    path.display()
                )
            }
            Self::NetworkFileSystem { path, name } => write!(
                f,
                "refused to lock `{}` on a network file system ({name}): put the directory on a local one",
                path.display()
            ),
            Self::UnusableKind { kind } => {
                write!(
                    f,
                    "refused the kind `{}`: it must be one line of 1 to 255 bytes",
                    kind.as_str().escape_debug()
                )
            }
            Self::Io { doing, path, .. } => write!(f, "failed to {doing} `{}`", path.display()),
        }
    }
}

pub(crate) fn write_held(
    f: &mut fmt::Formatter<'_>,
    path: &std::path::Path,
    holder: Option<&Holder>,
    reason: &HeldReason,
) -> fmt::Result {
    write!(f, "`{}` is held by ", path.display())?;
    match holder {
        Some(holder) => write!(f, "{holder}: {reason}"),
        None => write!(f, "an unnamed process: {reason}"),
    }
}

impl Error for AcquireError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Held { .. }
            | Self::Refused { .. }
            | Self::NetworkFileSystem { .. }
            | Self::UnusableKind { .. } => None,
        }
    }
}

/// Defines an error for an operation that fails only where the system refuses something.
macro_rules! io_error {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        #[non_exhaustive]
        pub struct $name {
            /// What was being done, after "failed to".
            pub doing: &'static str,
            /// The file or directory.
            pub path: PathBuf,
            /// The system's answer.
            pub source: io::Error,
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "failed to {} `{}`", self.doing, self.path.display())
            }
        }

        impl Error for $name {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.source)
            }
        }
    };
}

io_error! {
    /// Why a lock was not released cleanly. The kernel frees it at the latest when the process ends.
    ReleaseError
}
io_error! {
    /// Why a directory could not be inspected.
    InspectError
}
io_error! {
    /// Why a holder could not be asked to release.
    RequestError
}
io_error! {
    /// Why release requests cannot be watched for.
    WatchError
}
