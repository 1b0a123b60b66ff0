//! The files in a locked directory, always reached through the directory's descriptor.

use std::ffi::CStr;
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::Node;
use crate::record;

/// The record that everybody may read.
pub(crate) const RECORD: &CStr = c".handler.pid";
/// The file that is flocked for as long as the lock is held.
pub(crate) const GUARD: &CStr = c".handler.guard";
/// The request to release.
pub(crate) const MARKER: &CStr = c".handler.release-requested";

/// Returns the path of one of the files above, for messages.
pub(crate) fn path_of(dir: &Path, name: &CStr) -> PathBuf {
    dir.join(name.to_string_lossy().as_ref())
}

/// Which file something is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl FileId {
    pub(crate) fn of_stat(stat: &FileStat) -> Self {
        Self {
            device: device_number(stat),
            inode: stat.st_ino,
        }
    }

    pub(crate) fn of(file: impl AsFd) -> io::Result<Self> {
        Ok(Self::of_stat(&fstat(file)?))
    }

    /// Returns which file `name` leads to, or `None` if there is none. Links are not followed.
    pub(crate) fn at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<Self>> {
        match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Self::of_stat(&stat))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Returns which directory `path` leads to.
    pub(crate) fn of_path(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

#[cfg(target_os = "linux")]
fn device_number(stat: &FileStat) -> u64 {
    stat.st_dev
}

#[cfg(not(target_os = "linux"))]
fn device_number(stat: &FileStat) -> u64 {
    u64::from(stat.st_dev.cast_unsigned())
}

pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(
        path,
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?)
}

/// What a name led to.
#[derive(Debug)]
pub(crate) enum Opened {
    Absent,
    Regular(File, FileId, FileStat),
    Other(Node),
}

/// Opens `name` in `dir` if it is a regular file. Follows no link, and waits for nobody at a named pipe.
pub(crate) fn open_regular(
    dir: BorrowedFd<'_>,
    name: &(impl NixPath + ?Sized),
    flags: OFlag,
) -> io::Result<Opened> {
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = match openat(dir, name, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT) => return Ok(Opened::Absent),
        Err(Errno::ELOOP) => return Ok(Opened::Other(Node::Symlink)),
        Err(Errno::EISDIR) => return Ok(Opened::Other(Node::Directory)),
        // A socket cannot be opened, nor a device without its driver.
        Err(Errno::ENXIO | Errno::ENODEV) => {
            let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            return Ok(Opened::Other(node_of(&stat).unwrap_or(Node::Socket)));
        }
        Err(errno) => return Err(errno.into()),
    };
    let stat = fstat(&file)?;
    Ok(match node_of(&stat) {
        Some(node) => Opened::Other(node),
        None => Opened::Regular(file, FileId::of_stat(&stat), stat),
    })
}

/// Returns what stands there instead of a regular file.
fn node_of(stat: &FileStat) -> Option<Node> {
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFREG {
        None
    } else if kind == SFlag::S_IFDIR {
        Some(Node::Directory)
    } else if kind == SFlag::S_IFLNK {
        Some(Node::Symlink)
    } else if kind == SFlag::S_IFIFO {
        Some(Node::Fifo)
    } else if kind == SFlag::S_IFSOCK {
        Some(Node::Socket)
    } else {
        Some(Node::Device)
    }
}

/// Reads a small file: at most one byte more than the largest record has, so that a longer one shows.
pub(crate) fn read_small(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; record::LARGEST + 1];
    // One call is enough: a regular file gives all it has.
    let length = loop {
        match file.read_at(&mut bytes, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    bytes.truncate(length);
    Ok(bytes)
}

/// Creates a file that is to be renamed into its place. What a killed process left there, or somebody planted, is
/// removed, unless it is a folder with something in it: nothing in its place is ever followed, waited for or written to.
pub(crate) fn create_anew(path: &Path) -> io::Result<File> {
    let create = || File::options().write(true).create_new(true).open(path);
    match create() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                    std::fs::remove_dir(path)?;
                }
                removed => removed?,
            }
            create()
        }
        created => created,
    }
}

/// Removes `name` from `dir`; it is fine if it is not there.
pub(crate) fn remove(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes sure that a file has at least the permissions `wanted`, whatever the umask took away.
pub(crate) fn ensure_mode(file: &File, stat: &FileStat, wanted: Mode) -> io::Result<()> {
    if stat.st_mode & wanted.bits() == wanted.bits() {
        return Ok(());
    }
    match nix::sys::stat::fchmod(file, wanted) {
        // Not our file: whoever made it chose its permissions.
        Ok(()) | Err(Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The guard's descriptor, and whether the flock on it is ours.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) file: File,
    pub(crate) id: FileId,
    /// The process that locked it through this handle. A forked child has a copy of the handle, and unlocking
    /// there would free its parent's lock.
    locked_by: Option<u32>,
}

impl Guard {
    pub(crate) fn new(file: File, id: FileId) -> Self {
        Self {
            file,
            id,
            locked_by: None,
        }
    }

    /// Tries to lock; returns whether it is ours now.
    pub(crate) fn try_lock(&mut self) -> io::Result<bool> {
        loop {
            match self.file.try_lock() {
                Ok(()) => {
                    self.locked_by = Some(std::process::id());
                    return Ok(true);
                }
                Err(TryLockError::WouldBlock) => return Ok(false),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Returns whether somebody has it, for one who only looks: he shares it for an instant, which keeps no other looker from
    /// the same answer. Whoever wants it in that instant finds it busy and nobody who claims it, and tries again.
    pub(crate) fn is_taken(file: &File) -> io::Result<bool> {
        loop {
            match file.try_lock_shared() {
                Ok(()) => return file.unlock().map(|()| false),
                Err(TryLockError::WouldBlock) => return Ok(true),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Unlocks, if this process locked.
    pub(crate) fn unlock(&mut self) -> io::Result<()> {
        match self.locked_by.take() {
            Some(pid) if pid == std::process::id() => self.file.unlock(),
            Some(_) | None => Ok(()),
        }
    }

    /// Leaves the lock to whoever else has the file open; from now on a drop only closes the descriptor.
    pub(crate) fn leave(&mut self) {
        self.locked_by = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = self.unlock() {
            log::warn!("failed to unlock a guard: {error}");
        }
    }
}

/// Returns when a file was last written, in nanoseconds after 1970.
pub(crate) fn modified_at(stat: &FileStat) -> i128 {
    i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec)
}

/// How long an incomplete record is taken for one that is still being written.
const IN_FLIGHT: Duration = Duration::from_secs(2);

/// Returns whether an incomplete file that was written at `modified_at` may still be in the making at `now`, both in
/// nanoseconds after 1970. A time in the future makes nothing young for ever.
pub(crate) fn is_in_the_making(modified_at: i128, now: i128) -> bool {
    now.abs_diff(modified_at) < IN_FLIGHT.as_nanos()
}

/// Returns whether the file system, or the system, does not have an operation at all.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    let codes = [
        Errno::EOPNOTSUPP,
        Errno::ENOSYS,
        Errno::EINVAL,
        Errno::EISDIR,
        Errno::EPERM,
    ];
    error.kind() == io::ErrorKind::Unsupported
        || error
            .raw_os_error()
            .is_some_and(|code| codes.contains(&Errno::from_raw(code)))
}
