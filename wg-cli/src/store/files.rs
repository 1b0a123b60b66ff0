//! Reading and replacing small files without ever leaving half of one, hanging on a pipe or following a link.

use std::ffi::OsString;
use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::fcntl::OFlag;
use session_lock::Node;

use super::StoreError;
pub use super::lock::{SideLock, locked, locked_within};
use super::service_state::start_ticks;
use crate::clock::{self, Timestamp};

/// What every open of a state file carries: no link is followed, no pipe or device blocks, no child inherits the descriptor.
const GUARD_FLAGS: OFlag = OFlag::O_NOFOLLOW
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_CLOEXEC)
    .union(OFlag::O_NOCTTY);

/// Whether a write must have reached the disk before it is reported as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It survives a power cut.
    Sync,
    /// It survives the end of any process, not a power cut.
    NoSync,
}

/// Opens a regular file with `options`, without following a link and without waiting for the other end of a pipe.
///
/// # Errors
/// [`StoreError::NotARegularFile`] for anything else than a file, [`StoreError::Io`] for what the system says.
pub fn open(path: &Path, options: &mut OpenOptions) -> Result<File, StoreError> {
    let refused = |source: io::Error| match source.raw_os_error() {
        // What open(2) answers for a link under O_NOFOLLOW, for a socket or a pipe without a reader, and for writing to a directory.
        Some(libc_errno)
            if [libc_code::LOOP, libc_code::NXIO, libc_code::ISDIR].contains(&libc_errno) =>
        {
            not_regular(path)
        }
        _ => StoreError::Io {
            doing: "open",
            path: path.to_owned(),
            source,
        },
    };
    let file = options
        .custom_flags(GUARD_FLAGS.bits())
        .open(path)
        .map_err(refused)?;
    let metadata = file.metadata().map_err(StoreError::io("look at", path))?;
    if metadata.is_file() {
        Ok(file)
    } else {
        Err(StoreError::NotARegularFile {
            path: path.to_owned(),
            node: node_of(metadata.file_type()).unwrap_or(Node::Device),
        })
    }
}

/// What is at a path, if that is something else than a file.
fn node_of(kind: FileType) -> Option<Node> {
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some(Node::Directory)
    } else if kind.is_symlink() {
        Some(Node::Symlink)
    } else if kind.is_fifo() {
        Some(Node::Fifo)
    } else if kind.is_socket() {
        Some(Node::Socket)
    } else {
        Some(Node::Device)
    }
}

/// Returns what is in the place of a file, if that is something else; `None` too where nothing is there. No link is followed.
#[must_use]
pub fn node_at(path: &Path) -> Option<Node> {
    node_of(fs::symlink_metadata(path).ok()?.file_type())
}

/// The error of a path at which something else than a file was found.
fn not_regular(path: &Path) -> StoreError {
    StoreError::NotARegularFile {
        path: path.to_owned(),
        // It may be gone by now: then it was what the system refuses without a word of its kind.
        node: node_at(path).unwrap_or(Node::Socket),
    }
}

/// As [`open`], for whoever speaks of the system's errors only.
///
/// # Errors
/// The system's; what is no regular file is told in the words of [`StoreError::NotARegularFile`].
pub fn open_plainly(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    open(path, options).map_err(|error| {
        if let StoreError::Io { source, .. } = error {
            source
        } else {
            io::Error::other(error)
        }
    })
}

/// The errno values that tell a special file from a missing one.
mod libc_code {
    use nix::errno::Errno;

    pub(super) const LOOP: i32 = Errno::ELOOP as i32;
    pub(super) const NXIO: i32 = Errno::ENXIO as i32;
    pub(super) const ISDIR: i32 = Errno::EISDIR as i32;
}

/// Opens a regular file for reading; `None` if there is none.
///
/// # Errors
/// As [`open`].
pub fn open_to_read(path: &Path) -> Result<Option<File>, StoreError> {
    match open(path, OpenOptions::new().read(true)) {
        Ok(file) => Ok(Some(file)),
        Err(StoreError::Io { source, .. }) if absent(&source) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a whole file of at most so many bytes that belongs to the user, who may have put a link in its place; `None` if there is none.
///
/// # Errors
/// As [`open`], but a link is followed; [`StoreError::TooLarge`].
pub fn read_following(path: &Path, most: u64) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::canonicalize(path) {
        Ok(target) => {
            let file = match open_to_read(&target) {
                Ok(Some(file)) => file,
                Ok(None) => return Ok(None),
                // The name that was given, not that of what it leads to.
                Err(StoreError::NotARegularFile { node, .. }) => {
                    let path = path.to_owned();
                    return Err(StoreError::NotARegularFile { path, node });
                }
                Err(error) => return Err(error),
            };
            let mut bytes = Vec::new();
            let read = file.take(most + 1).read_to_end(&mut bytes);
            if read.map_err(StoreError::io("read", path))? as u64 > most {
                let path = path.to_owned();
                return Err(StoreError::TooLarge { path, most });
            }
            Ok(Some(bytes))
        }
        // What leads to no path, such as a socket at /dev/fd/63.
        Err(error) if absent(&error) && path.exists() => Err(StoreError::NotARegularFile {
            path: path.to_owned(),
            node: fs::metadata(path)
                .ok()
                .and_then(|there| node_of(there.file_type()))
                .unwrap_or(Node::Device),
        }),
        Err(error) if absent(&error) => Ok(None),
        Err(source) => Err(StoreError::Io {
            doing: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

/// Whether an error says that the file, or a directory on the way to it, is not there.
#[must_use]
pub fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Reads a whole regular file; `None` if there is none.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(mut file) = open_to_read(path)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(StoreError::io("read", path))?;
    Ok(Some(bytes))
}

/// Whether the last byte of a file, which is open for reading, is none that ends a line.
///
/// # Errors
/// What the system says.
pub fn ends_torn(file: &File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    Ok(last != *b"\n")
}

/// Returns a sibling of `path` whose name no other process and no other call uses.
fn temporary_sibling(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    // The boot and the pid namespace are not in the name: O_EXCL below finds the rare twin, and the counter moves on.
    name.push(format!(
        ".tmp.{}.{}",
        process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    ));
    path.with_file_name(name)
}

/// Replaces the content of `path` in one step: readers see the old bytes or the new ones, whoever dies when.
///
/// The mode of the file that is replaced is kept; a new file gets 0644 under the process's umask. The bytes are on disk when this returns.
///
/// # Errors
/// [`StoreError::NotARegularFile`] if something else is in the place; [`StoreError::Io`] for what the system says. The old content is
/// untouched then.
pub fn replace_atomically(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    replace(path, bytes, Durability::Sync)
}

/// As [`replace_atomically`], with the choice not to wait for the disk.
///
/// # Errors
/// As [`replace_atomically`].
pub fn replace(path: &Path, bytes: &[u8], durability: Durability) -> Result<(), StoreError> {
    let mode = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Some(metadata.permissions().mode()),
        Ok(_) => return Err(not_regular(path)),
        Err(_) => None,
    };
    let (temporary, mut file) = create_temporary(path)?;
    let written = (|| {
        if let Some(mode) = mode {
            file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
        }
        file.write_all(bytes)?;
        if durability == Durability::Sync {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)
    })();
    if let Err(source) = written {
        // The temporary file is of no use to anybody; if it cannot be removed either, the first error is the one to tell.
        drop(fs::remove_file(&temporary));
        return Err(StoreError::Io {
            doing: "replace",
            path: path.to_owned(),
            source,
        });
    }
    match durability {
        Durability::Sync => sync_directory_of(path),
        Durability::NoSync => Ok(()),
    }
}

/// Writes a new file in one step: of several that try at once one wins, and nobody sees half of it.
///
/// # Errors
/// [`StoreError::AlreadyExists`] if anything is in the place; [`StoreError::Io`] for what the system says.
pub fn create_exclusively(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let (temporary, mut file) = create_temporary(path)?;
    let linked = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&temporary, path));
    // Linked or not, the first name has had its use.
    drop(fs::remove_file(&temporary));
    match linked {
        Ok(()) => sync_directory_of(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(StoreError::AlreadyExists {
                what: format!("`{}`", path.display()),
            })
        }
        Err(source) => Err(StoreError::Io {
            doing: "create",
            path: path.to_owned(),
            source,
        }),
    }
}

/// Makes a directory and those above it, so that they survive a power cut. One that is there is no error.
///
/// # Errors
/// [`StoreError::Io`] for what the system says.
pub fn create_directories(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_directories(parent)?;
    }
    match fs::create_dir(dir) {
        Ok(()) => sync_directory_of(dir),
        // Somebody else was faster.
        Err(_) if dir.is_dir() => Ok(()),
        Err(source) => Err(StoreError::Io {
            doing: "create",
            path: dir.to_owned(),
            source,
        }),
    }
}

/// Creates the file that will be renamed over `path`.
fn create_temporary(path: &Path) -> Result<(PathBuf, File), StoreError> {
    loop {
        let temporary = temporary_sibling(path);
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .custom_flags(GUARD_FLAGS.bits())
            .open(&temporary)
        {
            Ok(file) => return Ok((temporary, file)),
            // Left behind by a dead process whose number is ours now; the counter has moved on.
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => {
                return Err(StoreError::Io {
                    doing: "create a temporary file beside",
                    path: path.to_owned(),
                    source,
                });
            }
        }
    }
}

/// Removes the temporary files that killed processes left in `dir`, and returns how many.
///
/// A file that is younger than an hour, or whose process lives, is left alone: it may be about to be renamed.
///
/// # Errors
/// [`StoreError::Io`] if the directory cannot be listed.
pub fn sweep_temporaries(dir: &Path) -> Result<usize, StoreError> {
    const OLD: Duration = Duration::from_secs(3600);
    let now = clock::now();
    let mut swept = 0;
    for name in names_in(dir)? {
        let Some(pid) = writer_of(&name) else {
            continue;
        };
        let path = dir.join(&name);
        let is_old = fs::symlink_metadata(&path).is_ok_and(|metadata| {
            metadata.is_file() && now.since(Timestamp::from_millis(metadata.mtime() * 1000)) > OLD
        });
        if is_old && start_ticks(pid).is_none() && fs::remove_file(&path).is_ok() {
            swept += 1;
        }
    }
    Ok(swept)
}

/// Returns the process that made a temporary file, by its name.
fn writer_of(name: &str) -> Option<u32> {
    let (start, counter) = name.strip_prefix('.')?.rsplit_once('.')?;
    let (start, pid) = start.rsplit_once('.')?;
    let ours =
        start.strip_suffix(".tmp").is_some() && counter.bytes().all(|byte| byte.is_ascii_digit());
    if ours { pid.parse().ok() } else { None }
}

/// Makes a creation, a rename or a removal in the directory of `path` survive a power cut.
///
/// # Errors
/// [`StoreError::Io`] for what the system says.
pub fn sync_directory_of(path: &Path) -> Result<(), StoreError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(StoreError::io("sync", directory))
}

/// Returns `path` with `suffix` added to its name: `inbox.jsonl` and `.lock` give `inbox.jsonl.lock`.
#[must_use]
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// Moves a damaged file out of the way, to `NAME.corrupt` or the first free `NAME.corrupt-N`, and returns where it is now.
///
/// # Errors
/// [`StoreError::Io`] for what the system says.
pub fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let mut attempt = 0_u32;
    loop {
        let target = if attempt == 0 {
            with_suffix(path, ".corrupt")
        } else {
            with_suffix(path, &format!(".corrupt-{attempt}"))
        };
        // A hard link never replaces what is there, and works for links and pipes too.
        match fs::hard_link(path, &target) {
            Ok(()) => {
                fs::remove_file(path).map_err(StoreError::io("move aside", path))?;
                return Ok(target);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => attempt += 1,
            // No hard links here (a directory, some file systems): a rename, to a name that was free a moment ago.
            Err(error) if !absent(&error) => {
                if fs::symlink_metadata(&target).is_ok() {
                    attempt += 1;
                    continue;
                }
                fs::rename(path, &target).map_err(StoreError::io("move aside", path))?;
                return Ok(target);
            }
            Err(source) => {
                return Err(StoreError::Io {
                    doing: "move aside",
                    path: path.to_owned(),
                    source,
                });
            }
        }
    }
}

/// Renames `path` to `path.1`, after `path.1` to `path.2` and so on; what would become number `keep + 1` is removed.
///
/// With `keep` 0 the file is removed. A missing file is no error.
///
/// # Errors
/// [`StoreError::Io`] for what the system says.
pub fn rotate(path: &Path, keep: u32) -> Result<(), StoreError> {
    let numbered = |number: u32| {
        if number == 0 {
            path.to_owned()
        } else {
            with_suffix(path, &format!(".{number}"))
        }
    };
    let settle = |result: io::Result<()>, path: &Path| match result {
        Err(source) if !absent(&source) => Err(StoreError::Io {
            doing: "rotate",
            path: path.to_owned(),
            source,
        }),
        Ok(()) | Err(_) => Ok(()),
    };
    let oldest = numbered(keep);
    settle(fs::remove_file(&oldest), &oldest)?;
    for number in (0..keep).rev() {
        let from = numbered(number);
        settle(fs::rename(&from, numbered(number + 1)), &from)?;
    }
    Ok(())
}

/// Returns the names in a directory that are texts; none if it is not there.
///
/// # Errors
/// [`StoreError::Io`] for what the system says.
pub fn names_in(dir: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if absent(&error) => return Ok(Vec::new()),
        Err(source) => {
            return Err(StoreError::Io {
                doing: "list",
                path: dir.to_owned(),
                source,
            });
        }
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(StoreError::io("list", dir))?.file_name();
        names.extend(name.into_string().ok());
    }
    Ok(names)
}
