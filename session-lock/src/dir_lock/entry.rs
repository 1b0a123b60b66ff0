//! One directory's entry in a registry.
//!
//! ```text
//! <registry>/<name>-<hash of the path>/
//!     directory      v1, and the canonical path; there before the lock can be taken, and never changed
//!     note           v1, by, reason: what the holder says about its lock
//!     hold           v1, by, reason, since: the hold of a person
//!     .handler.*     the lock
//! ```
#![expect(clippy::disallowed_methods, reason = "this driver stamps holds")]

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::{AT_FDCWD, OFlag};

use super::sweep::{self, UNFINISHED};
use super::{DirLockError, DirStatus};
use crate::error::{AcquireError, HeldReason};
use crate::files::{self, Opened};
use crate::inspect::{Inspection, inspect};

const VERSION: &[u8] = b"v1\n";

/// Who holds a directory and what for, in people's words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    /// Who.
    pub by: String,
    /// What for; may be empty.
    pub reason: String,
    /// Since when, as RFC 3339; empty in a note that was not stored yet.
    pub since: String,
}

/// A line break in a note would forge further lines of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableNote;

impl fmt::Display for UnusableNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a note must be one line that names somebody")
    }
}

impl std::error::Error for UnusableNote {}

impl Note {
    /// Returns a note of one line each; `reason` may be empty.
    ///
    /// # Errors
    ///
    /// Returns an error where `by` is empty or one of the two has more than one line.
    pub fn new(by: &str, reason: &str) -> Result<Self, UnusableNote> {
        let broken = |text: &str| text.contains(['\n', '\r', '\0']);
        if by.is_empty() || broken(by) || broken(reason) {
            return Err(UnusableNote);
        }
        Ok(Self {
            by: by.to_owned(),
            reason: reason.to_owned(),
            since: String::new(),
        })
    }

    fn format(&self, since: &str) -> Vec<u8> {
        format!("v1\n{}\n{}\n{since}\n", self.by, self.reason).into_bytes()
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes.strip_prefix(VERSION)?).ok()?;
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (by, reason, since) = (lines.next()?, lines.next()?, lines.next()?);
        let complete = lines.next().is_none() && !by.is_empty() && crate::record::is_time(since);
        complete.then(|| Self {
            by: by.to_owned(),
            reason: reason.to_owned(),
            since: since.to_owned(),
        })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.by)?;
        if self.reason.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.reason)
        }
    }
}

/// One directory's place in a registry.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    path: PathBuf,
    directory: PathBuf,
}

impl Entry {
    /// Returns the entry that `dir` has, or would have.
    pub(super) fn of(registry: &Path, dir: &Path) -> Result<Self, DirLockError> {
        let directory = dir.canonicalize().map_err(failed("resolve", dir))?;
        // It may have gone since: then that is what is wrong with it.
        let what = fs::metadata(&directory).map_err(failed("resolve", dir))?;
        if !what.is_dir() {
            return Err(failed("lock", dir)(io::ErrorKind::NotADirectory.into()));
        }
        let mut name = OsString::from(directory.file_name().unwrap_or_default());
        // A name may have 255 bytes; the hash needs 17.
        name = OsString::from_vec(name.as_bytes().iter().copied().take(200).collect());
        name.push(format!("-{:016x}", hash(directory.as_os_str().as_bytes())));
        Ok(Self {
            path: registry.join(name),
            directory,
        })
    }

    /// Returns the folder of every entry of a registry.
    pub(super) fn paths(registry: &Path) -> Result<Vec<PathBuf>, DirLockError> {
        let listed = match fs::read_dir(registry) {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed("list", registry)(source)),
        };
        let mut paths = Vec::new();
        for listed in listed {
            let path = listed.map_err(failed("list", registry))?.path();
            // What is still being put together, or no folder at all, is no entry.
            if path
                .extension()
                .is_none_or(|extension| extension != UNFINISHED)
                && path.is_dir()
            {
                paths.push(path);
            }
        }
        Ok(paths)
    }

    /// Returns the entry in a folder; `None` if the folder is gone.
    pub(super) fn load(path: PathBuf) -> Result<Option<Self>, DirLockError> {
        let file = path.join("directory");
        let Some(bytes) = read(&file)? else {
            return if path.is_dir() {
                Err(DirLockError::Corrupt { path: file })
            } else {
                Ok(None)
            };
        };
        let directory = bytes
            .strip_prefix(VERSION)
            .and_then(|rest| rest.strip_suffix(b"\n"));
        match directory {
            Some([b'/', ..]) => {
                let directory = directory.unwrap_or_default().to_vec();
                Ok(Some(Self {
                    path,
                    directory: PathBuf::from(OsString::from_vec(directory)),
                }))
            }
            Some(_) | None => Err(DirLockError::Corrupt { path: file }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the entry's folder, complete with the directory's path, if it is not there yet.
    pub(super) fn create(&self, registry: &Path) -> Result<(), DirLockError> {
        /// Each further try means that somebody swept what was just made.
        const TRIES: u32 = 16;
        for _ in 0..TRIES {
            let is_new = !self.path.is_dir() && self.make()?;
            match Self::load(self.path.clone())? {
                Some(there) if there.directory == self.directory => {
                    if is_new {
                        sweep::sweep(registry);
                    }
                    return Ok(());
                }
                Some(_another) => {
                    return Err(DirLockError::Corrupt {
                        path: self.path.join("directory"),
                    });
                }
                None => {}
            }
        }
        Err(failed("create", &self.path)(io::ErrorKind::NotFound.into()))
    }

    /// Makes the folder; returns whether it did, or another was faster.
    fn make(&self) -> Result<bool, DirLockError> {
        let beside = sweep::unfinished_name(&self.path);
        fs::create_dir_all(&beside).map_err(failed("create", &beside))?;
        let text = [VERSION, self.directory.as_os_str().as_bytes(), b"\n"].concat();
        // An entry must not lose its path in a power cut, so that is on the disk before it has its name.
        let made = files::create_anew(&beside.join("directory"))
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&beside, &self.path));
        let Err(source) = made else {
            return Ok(true);
        };
        drop(fs::remove_dir_all(&beside));
        // A folder with a file in it is never replaced, and one that was swept meanwhile is made again.
        let raced = [
            io::ErrorKind::DirectoryNotEmpty,
            io::ErrorKind::AlreadyExists,
            io::ErrorKind::NotFound,
        ];
        if raced.contains(&source.kind()) {
            Ok(false)
        } else {
            Err(failed("create", &self.path)(source))
        }
    }

    /// Refuses an entry whose lock says nothing sensible.
    pub(super) fn refuse_corrupt(&self) -> Result<(), DirLockError> {
        match inspect(&self.path).map_err(DirLockError::Inspect)? {
            Inspection::Corrupt { path, .. } => Err(DirLockError::Corrupt { path }),
            Inspection::Free | Inspection::Held(_) | Inspection::Stale { .. } => Ok(()),
        }
    }

    /// Refuses a directory that a person holds.
    pub(super) fn refuse_hold(&self) -> Result<(), DirLockError> {
        match self.read_note("hold")? {
            None => Ok(()),
            Some(note) => Err(self.held_against(&self.directory, None, None, Some(note))),
        }
    }

    /// Refuses a directory if one above or below it is held.
    pub(super) fn refuse_overlap(&self, registry: &Path) -> Result<(), DirLockError> {
        for path in Self::paths(registry)? {
            let other = match Self::load(path.clone()) {
                Ok(Some(other)) => other,
                Ok(None) => continue,
                // Whom it protects is not known, but it protects nobody.
                Err(DirLockError::Corrupt { .. }) if is_free(&path) => continue,
                Err(error) => return Err(error),
            };
            let overlaps = other.directory.starts_with(&self.directory)
                || self.directory.starts_with(&other.directory);
            if other.directory == self.directory || !overlaps {
                continue;
            }
            let status = other.status()?;
            if status.hold.is_some() {
                return Err(other.held_against(&self.directory, None, None, status.hold));
            }
            if let Inspection::Held(held) = status.inspection {
                let holder = held.holder.map(Box::new);
                let reason = Some(held.reason);
                return Err(other.held_against(&self.directory, holder, reason, status.note));
            }
        }
        Ok(())
    }

    fn held_against(
        &self,
        wanted: &Path,
        holder: Option<Box<crate::Holder>>,
        reason: Option<HeldReason>,
        note: Option<Note>,
    ) -> DirLockError {
        DirLockError::Held {
            wanted: wanted.to_owned(),
            held: self.directory.clone(),
            holder,
            reason,
            note: note.map(Box::new),
            entry: self.path.clone(),
        }
    }

    /// Turns a failed acquisition of the entry's lock into what it means for the directory.
    pub(super) fn held_or(&self, error: AcquireError) -> DirLockError {
        match error {
            AcquireError::Held { holder, reason, .. } => {
                // A note that cannot be read explains nothing; it does not make the lock any less held.
                let note = self.read_note("note").unwrap_or_default();
                self.held_against(&self.directory, holder.map(Box::new), Some(reason), note)
            }
            AcquireError::Refused { path, .. } => DirLockError::Corrupt { path },
            error @ (AcquireError::NetworkFileSystem { .. }
            | AcquireError::UnusableKind { .. }
            | AcquireError::Io { .. }) => DirLockError::Acquire(error),
        }
    }

    pub(super) fn status(&self) -> Result<DirStatus, DirLockError> {
        let inspection = match inspect(&self.path) {
            Err(_) if !self.path.is_dir() => {
                return Ok(DirStatus {
                    directory: self.directory.clone(),
                    inspection: Inspection::Free,
                    note: None,
                    hold: None,
                    entry: self.path.clone(),
                });
            }
            looked => looked.map_err(DirLockError::Inspect)?,
        };
        if let Inspection::Corrupt { path, .. } = inspection {
            return Err(DirLockError::Corrupt { path });
        }
        let note = if inspection.is_held() {
            self.read_note("note").unwrap_or_default()
        } else {
            None
        };
        Ok(DirStatus {
            directory: self.directory.clone(),
            note,
            hold: self.read_note("hold")?,
            inspection,
            entry: self.path.clone(),
        })
    }

    fn read_note(&self, name: &str) -> Result<Option<Note>, DirLockError> {
        let path = self.path.join(name);
        match read(&path)? {
            Some(bytes) => Note::parse(&bytes)
                .map(Some)
                .ok_or(DirLockError::Corrupt { path }),
            None => Ok(None),
        }
    }

    /// Stores what the holder says, or removes what the one before it said.
    pub(super) fn write_note(&self, note: Option<&Note>) -> Result<(), DirLockError> {
        match note {
            Some(note) => self.replace("note", note),
            None => self.remove("note"),
        }
    }

    pub(super) fn write_hold(&self, note: &Note) -> Result<(), DirLockError> {
        self.replace("hold", note)
    }

    pub(super) fn end_hold(&self) -> Result<Option<Note>, DirLockError> {
        let note = match self.read_note("hold") {
            Err(DirLockError::Corrupt { .. }) => None,
            read => read?,
        };
        self.remove("hold")?;
        Ok(note)
    }

    fn replace(&self, name: &str, note: &Note) -> Result<(), DirLockError> {
        let (path, beside) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let text = note.format(&crate::time::format(SystemTime::now()));
        // A folder with something in it, which nobody removes for its owner.
        let in_the_way = |error: &io::Error| error.kind() == io::ErrorKind::DirectoryNotEmpty;
        let mut file = match files::create_anew(&beside) {
            Err(error) if in_the_way(&error) => return Err(DirLockError::Corrupt { path: beside }),
            created => created.map_err(failed("write", &beside))?,
        };
        // A hold must survive a power cut, so it is on the disk before it has its name.
        let written = file.write_all(&text).and_then(|()| file.sync_all());
        let written = written.and_then(|()| fs::rename(&beside, &path));
        written.map_err(unless_a_folder("write", &path))
    }

    fn remove(&self, name: &str) -> Result<(), DirLockError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(unless_a_folder("remove", &path)(source))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Reads a file of an entry, `None` if there is none. Follows no link and waits for nobody at a named pipe: what is no
/// regular file says nothing sensible.
fn read(path: &Path) -> Result<Option<Vec<u8>>, DirLockError> {
    /// More than any path and any note need, in bytes.
    const LARGEST: u64 = 64 * 1024;
    let opened = files::open_regular(AT_FDCWD, path, OFlag::O_RDONLY);
    let file = match opened.map_err(failed("read", path))? {
        Opened::Absent => return Ok(None),
        Opened::Regular(file, _, _) => file,
        Opened::Other(_) => {
            return Err(DirLockError::Corrupt {
                path: path.to_owned(),
            });
        }
    };
    let mut bytes = Vec::new();
    file.take(LARGEST)
        .read_to_end(&mut bytes)
        .map_err(failed("read", path))?;
    Ok(Some(bytes))
}

/// Returns whether provably nobody holds what the entry in `path` is for, whatever that is.
fn is_free(path: &Path) -> bool {
    let nobody = matches!(
        inspect(path),
        Ok(Inspection::Free | Inspection::Stale { .. })
    );
    nobody && !path.join("hold").exists()
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirLockError + use<> {
    let path = path.to_owned();
    move |source| DirLockError::Io {
        doing,
        path,
        source,
    }
}

/// As [`failed`], but a folder in the place of a file is nobody's word: a person has to look at it.
fn unless_a_folder(
    doing: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> DirLockError + use<> {
    let failed = failed(doing, path);
    let path = path.to_owned();
    move |source| {
        if source.kind() == io::ErrorKind::IsADirectory {
            DirLockError::Corrupt { path }
        } else {
            failed(source)
        }
    }
}

/// FNV-1a, which is the same in every version of every program. Two paths with the same value are told apart by
/// the path in the entry.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}
