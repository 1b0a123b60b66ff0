//! What can go wrong with a file of the workspace.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use session_lock::{AcquireError, Node};

use super::lock::LockHolder;
use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::Failure;

/// A file of the workspace could not be read or written.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused.
    Io {
        /// What was being done, after "failed to".
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file's content is not what its format says.
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Which line, counted from 1; 0 where lines mean nothing.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Something of that name is there already.
    AlreadyExists {
        /// The thing, such as "chat 3".
        what: String,
    },
    /// Another chat has that name, in small or capital letters.
    NameTaken {
        /// The name.
        name: String,
        /// Who has it, such as "chat-3".
        by: String,
    },
    /// A message has that request id already, and says something else.
    OtherQuestion {
        /// The request id.
        name: String,
        /// The number of that message.
        id: u64,
    },
    /// Nothing of that name is there.
    NotFound {
        /// The thing, such as "chat 3".
        what: String,
    },
    /// Another process holds the file's lock, and held it all the time that was waited.
    Busy {
        /// Which lock.
        path: PathBuf,
        /// Who holds it, if that can be told.
        holder: Option<LockHolder>,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The file is larger than anything of its kind.
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// So many bytes are read.
        most: u64,
    },
    /// Something else than a file is at the path; it was not followed and not read.
    NotARegularFile {
        /// Which path.
        path: PathBuf,
        /// What is there.
        node: Node,
    },
}

impl StoreError {
    /// Returns a function that adds to an [`io::Error`] what was being done to which file.
    pub fn io<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io {
                doing,
                path,
                source: _,
            } => write!(f, "failed to {doing} `{}`", path.display()),
            Self::Corrupt {
                path,
                line: 0,
                reason,
            } => write!(f, "`{}` is damaged: {reason}", path.display()),
            Self::Corrupt { path, line, reason } => write!(
                f,
                "`{}` is damaged in line {line}: {reason}",
                path.display()
            ),
            Self::AlreadyExists { what } => write!(f, "{what} already exists"),
            Self::NameTaken { name, by } => {
                write!(f, "`{}` is the name of {by} already", name.escape_debug())
            }
            Self::OtherQuestion { name, id } => write!(
                f,
                "the request id `{}` is that of message {id}, which says something else; nothing was sent",
                name.escape_debug()
            ),
            Self::NotFound { what } => write!(f, "{what} does not exist"),
            Self::Busy {
                path,
                holder,
                waited,
            } => {
                match holder {
                    Some(holder) => write!(f, "{holder} has")?,
                    None => write!(f, "somebody has")?,
                }
                write!(f, " the lock `{}`", path.display())?;
                if waited.as_secs() == 0 {
                    return Ok(());
                }
                write!(f, ", for over {}", clock::span(*waited))
            }
            Self::TooLarge { path, most } => {
                write!(f, "`{}` is larger than {most} bytes", path.display())
            }
            Self::NotARegularFile { path, node } => {
                write!(f, "`{}` is a {node}, not a regular file", path.display())
            }
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Corrupt { .. }
            | Self::AlreadyExists { .. }
            | Self::NameTaken { .. }
            | Self::OtherQuestion { .. }
            | Self::NotFound { .. }
            | Self::Busy { .. }
            | Self::TooLarge { .. }
            | Self::NotARegularFile { .. } => None,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Io { source, path, .. } => {
                let (code, cure) = refused_by_the_system(&source, &path);
                let failure = Self::new(code, message).caused_by(source);
                match cure {
                    Some(cure) => failure.with_cure(cure),
                    None => failure,
                }
            }
            StoreError::NameTaken { by, .. } => Self::new(ExitCode::Failed, message).with_cure(
                format!("choose another name; wg chat archive {by} frees this one"),
            ),
            StoreError::Corrupt { .. } => {
                Self::new(ExitCode::Config, message).with_cure("wg doctor")
            }
            StoreError::Busy { holder, .. } => {
                let cure = match holder {
                    Some(holder) => match holder.stands_still {
                        Some(stands_still) => stands_still.advice(),
                        None => format!("see what process {} is doing, and try again", holder.pid),
                    },
                    None => "try again".to_owned(),
                };
                Self::new(ExitCode::Held, message).with_cure(cure)
            }
            StoreError::NotARegularFile { .. } => {
                Self::new(ExitCode::Config, message).with_cure(MOVE_IT_AWAY)
            }
            StoreError::AlreadyExists { .. } => Self::new(ExitCode::Failed, message)
                .with_cure("--id chat-N takes a number that is free"),
            StoreError::OtherQuestion { .. } => {
                Self::new(ExitCode::Failed, message).with_cure("choose another --request-id")
            }
            StoreError::NotFound { .. } => Self::new(ExitCode::Failed, message),
            StoreError::TooLarge { .. } => Self::new(ExitCode::Config, message),
        }
    }
}

/// What helps where something else stands in the place of a file of ours.
const MOVE_IT_AWAY: &str =
    "move it away, or ask wg doctor; wg follows no links and opens no pipes among its own files";

/// A lock that could not be looked at or taken, with the cause, the code and the cure that any other file has.
pub(crate) fn of_lock(message: impl Into<String>, error: AcquireError) -> Failure {
    let (code, cure) = match &error {
        AcquireError::Io { source, path, .. } => refused_by_the_system(source, path),
        // What stands in the way stays there until somebody changes it.
        AcquireError::Refused { .. } => (ExitCode::Config, Some(MOVE_IT_AWAY.to_owned())),
        AcquireError::NetworkFileSystem { .. } => (ExitCode::Config, None),
        AcquireError::Held { .. } | AcquireError::UnusableKind { .. } | _ => {
            (ExitCode::System, None)
        }
    };
    let failure = Failure::new(code, message).caused_by(error);
    match cure {
        Some(cure) => failure.with_cure(cure),
        None => failure,
    }
}

/// What a refusal of the operating system means to a caller, and what helps where that is known.
fn refused_by_the_system(source: &io::Error, path: &Path) -> (ExitCode, Option<String>) {
    match source.kind() {
        io::ErrorKind::PermissionDenied => (ExitCode::NotPermitted, Some(who_may(path))),
        io::ErrorKind::ReadOnlyFilesystem => (
            ExitCode::NotPermitted,
            Some(
                "the file system is mounted read-only: remount it, or use a workspace elsewhere \
                 with --dir"
                    .to_owned(),
            ),
        ),
        io::ErrorKind::StorageFull => (
            ExitCode::System,
            Some(
                "the disk is full: make room and try again; what was accepted before is on it"
                    .to_owned(),
            ),
        ),
        io::ErrorKind::QuotaExceeded => (
            ExitCode::System,
            Some(
                "your share of the disk is used up: make room and try again; what was accepted before is on it"
                    .to_owned(),
            ),
        ),
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => (
            ExitCode::System,
            Some("something else stands in its place: move it away".to_owned()),
        ),
        // The standard library has no words for these.
        io::ErrorKind::Other | _ if source.raw_os_error() == Some(EIO) => (
            ExitCode::System,
            Some("the disk may be failing: see what the kernel says (dmesg), and copy the workspace elsewhere".to_owned()),
        ),
        io::ErrorKind::Other | _ if matches!(source.raw_os_error(), Some(EMFILE | ENFILE)) => (
            ExitCode::System,
            Some("too many files are open: raise ulimit -n".to_owned()),
        ),
        io::ErrorKind::Other | _ => (ExitCode::System, None),
    }
}

const EIO: i32 = nix::errno::Errno::EIO as i32;
const EMFILE: i32 = nix::errno::Errno::EMFILE as i32;
const ENFILE: i32 = nix::errno::Errno::ENFILE as i32;

/// Names the user who may: the owner of the nearest thing of this path that there is.
fn who_may(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let me = nix::unistd::geteuid();
    let owner = path
        .ancestors()
        .find_map(|there| there.symlink_metadata().ok())
        .map(|there| nix::unistd::Uid::from_raw(there.uid()));
    match owner {
        Some(owner) if owner != me => {
            let name = nix::unistd::User::from_uid(owner)
                .ok()
                .flatten()
                .map_or_else(
                    || format!("user {owner}"),
                    |user| format!("user {}", user.name),
                );
            format!(
                "it belongs to {name}: run wg as them, or use a workspace of your own with --dir"
            )
        }
        Some(_) | None => "its mode keeps you out: chmod u+rwX".to_owned(),
    }
}
