//! The lock of a side file, under which a file of the workspace is read, changed and written.
//!
//! It is flock(2), so that the earlier tool and this one exclude each other, and so that the kernel frees it when its holder dies. A holder
//! that was stopped keeps it: nobody waits for one of those for ever.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::notify::Notify;
use super::{StoreError, files};
use crate::clock;
use crate::standstill::Standstill;

/// How long a lock is waited for. Work under one takes milliseconds, on a slow disk perhaps seconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How often a lock is tried where the kernel does not tell when it is free.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// How often it is tried besides: a holder may give the lock back and keep its file open.
const TRY_ANYWAY: Duration = Duration::from_secs(1);

/// How long one is waited for that was stopped: it does nothing until somebody lets it go on, and only a person does that.
const STOPPED: Duration = Duration::from_secs(2);

/// How much of a holder's command line is told.
const COMMAND: usize = 60;

/// The process that has a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// Its number.
    pub pid: u32,
    /// The beginning of its command line, if that can be read.
    pub command: Option<String>,
    /// Whether it stands still, and what lets it go on.
    pub stands_still: Option<Box<Standstill>>,
}

impl LockHolder {
    fn of(pid: u32) -> Self {
        Self {
            pid,
            command: command_of(pid),
            stands_still: Standstill::of(pid).map(Box::new),
        }
    }
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)?;
        match (&self.command, self.stands_still.is_some()) {
            (Some(command), false) => write!(f, " (`{command}`)"),
            (Some(command), true) => write!(f, " (`{command}`, stopped)"),
            (None, true) => f.write_str(" (stopped)"),
            (None, false) => Ok(()),
        }
    }
}

/// Holds the lock of a side file; given back when this is dropped.
#[derive(Debug)]
#[must_use = "the lock is given back when this is dropped"]
pub struct SideLock {
    file: File,
}

impl SideLock {
    /// Waits for the lock of `side_file`, which is created if need be, for at most 30 s, and for 2 s where a process has it that was
    /// stopped.
    ///
    /// The side file is never removed by `wg`. Somebody may remove it all the same: then the path leads to another file than the one that
    /// was locked, and the lock is taken again on the new one.
    ///
    /// # Errors
    /// As [`files::open`], and [`StoreError::Busy`] when the time is over.
    pub fn acquire(side_file: &Path) -> Result<Self, StoreError> {
        Self::acquire_within(side_file, PATIENCE)
    }

    /// As [`SideLock::acquire`], with the time given.
    ///
    /// # Errors
    /// As [`SideLock::acquire`].
    pub fn acquire_within(side_file: &Path, patience: Duration) -> Result<Self, StoreError> {
        let deadline = clock::steady() + patience;
        loop {
            let file = files::open(
                side_file,
                OpenOptions::new().read(true).write(true).create(true),
            )?;
            let began = clock::steady();
            let got =
                wait(&file, side_file, deadline).map_err(StoreError::io("lock", side_file))?;
            match got {
                Got::Lock if is_at(&file, side_file) => return Ok(Self { file }),
                Got::Lock | Got::OtherFile => {}
                Got::Nothing(holder) => {
                    return Err(StoreError::Busy {
                        path: side_file.to_owned(),
                        holder,
                        waited: clock::steady().duration_since(began).min(patience),
                    });
                }
            }
        }
    }
}

impl Drop for SideLock {
    fn drop(&mut self) {
        // Explicitly: closing alone would leave the lock with a child that another thread is just about to exec.
        if let Err(error) = self.file.unlock() {
            log::warn!("a file lock could not be given back: {error}");
        }
    }
}

/// Runs `work` while the lock of `side_file` is held.
///
/// # Errors
/// As [`SideLock::acquire`], and whatever `work` returns.
pub fn locked<R, E: From<StoreError>>(
    side_file: &Path,
    work: impl FnOnce() -> Result<R, E>,
) -> Result<R, E> {
    let lock = SideLock::acquire(side_file)?;
    let result = work();
    drop(lock);
    result
}

/// As [`locked`], with the time given to wait for the lock.
///
/// # Errors
/// As [`locked`].
pub fn locked_within<R, E: From<StoreError>>(
    side_file: &Path,
    patience: Duration,
    work: impl FnOnce() -> Result<R, E>,
) -> Result<R, E> {
    let lock = SideLock::acquire_within(side_file, patience)?;
    let result = work();
    drop(lock);
    result
}

/// What a wait ended with.
#[derive(Debug)]
enum Got {
    Lock,
    /// The path leads to another file now.
    OtherFile,
    /// Nothing, because this process has it.
    Nothing(Option<LockHolder>),
}

/// Tries to lock `file`, which is open at `path`, until `deadline`.
fn wait(file: &File, path: &Path, deadline: Instant) -> io::Result<Got> {
    if try_lock(file)? {
        return Ok(Got::Lock);
    }
    // Only now, since most locks are free: a holder closes its descriptor after giving the lock back, and the kernel tells that. The watch
    // stands before the next try, so no close between the two is missed.
    let mut notify = Notify::on_close(path).ok();
    let stands_still_at = clock::steady() + STOPPED;
    loop {
        if try_lock(file)? {
            return Ok(Got::Lock);
        }
        if !is_at(file, path) {
            return Ok(Got::OtherFile);
        }
        let now = clock::steady();
        if now >= deadline || now >= stands_still_at {
            let holder = holder_of(file).map(LockHolder::of);
            if now >= deadline
                || holder
                    .as_ref()
                    .is_some_and(|holder| holder.stands_still.is_some())
            {
                return Ok(Got::Nothing(holder));
            }
        }
        match &mut notify {
            Some(notify) => notify.wait(deadline.min(now + TRY_ANYWAY))?,
            None => Notify::pause(deadline.min(now + TRY_EVERY))?,
        }
    }
}

/// Takes the lock if it is free, again after each signal.
fn try_lock(file: &File) -> io::Result<bool> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Whether `path` leads to this very file.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => identity(ours) == identity(there),
        _ => false,
    }
}

/// The beginning of a process's command line, on one line; its name where it has none.
fn command_of(pid: u32) -> Option<String> {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&words).replace(char::is_control, " ");
    let text = text.trim();
    if text.is_empty() {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        return Some(name.trim().replace(char::is_control, " "));
    }
    match text.char_indices().nth(COMMAND) {
        Some((end, _)) => Some(format!("{}…", &text[..end])),
        None => Some(text.to_owned()),
    }
}

/// Returns who has the lock of `side_file`, as far as that can be told.
pub(super) fn holder(side_file: &Path) -> Option<LockHolder> {
    let file = files::open_to_read(side_file).ok().flatten()?;
    holder_of(&file).map(LockHolder::of)
}

/// Returns who holds the lock, as far as the kernel says.
///
/// Its list is given out in pieces, and a line can be left out while others come and go: it is read more than once.
fn holder_of(file: &File) -> Option<u32> {
    (0..4).find_map(|_| listed_holder(file))
}

/// Looks through `/proc/locks`, see `proc_locks(5)`.
fn listed_holder(file: &File) -> Option<u32> {
    let inode = file.metadata().ok()?.ino();
    let table = fs::read_to_string("/proc/locks").ok()?;
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, place, ..] = fields[..] else {
            return None;
        };
        // The device is left out: some file systems show another one here than in stat(2).
        let same = place.rsplit(':').next().and_then(|text| text.parse().ok()) == Some(inode);
        if same { pid.parse().ok() } else { None }
    })
}
