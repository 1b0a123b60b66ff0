//! The locks that are compared, each used as its own documentation recommends.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use session_lock::{Kind, SessionLock, Wait};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    SessionLock,
    StdFile,
    FdLock,
    Pidlock,
    Exclusive,
    ExclusiveSynced,
}

pub const ALL: [Contender; 6] = [
    Contender::SessionLock,
    Contender::StdFile,
    Contender::FdLock,
    Contender::Pidlock,
    Contender::Exclusive,
    Contender::ExclusiveSynced,
];

/// A lock in somebody's hands; dropping it releases it.
pub enum Held {
    Session(#[expect(dead_code, reason = "it is held")] SessionLock),
    File(File),
    Pid(pidlock::Pidlock),
    Marker(PathBuf),
}

impl Drop for Held {
    fn drop(&mut self) {
        match self {
            Self::Session(_) => {}
            Self::File(file) => file.unlock().expect("it is locked"),
            Self::Pid(lock) => lock.release().expect("it is ours"),
            Self::Marker(path) => fs::remove_file(path).expect("it is ours"),
        }
    }
}

impl Contender {
    pub fn name(self) -> &'static str {
        match self {
            Self::SessionLock => "session-lock",
            Self::StdFile => "std File::lock (open, lock, close)",
            Self::FdLock => "fd-lock (open, lock, close)",
            Self::Pidlock => "pidlock",
            Self::Exclusive => "O_EXCL + write + unlink",
            Self::ExclusiveSynced => "O_EXCL + write + fsync + unlink",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        ALL.into_iter().find(|it| format!("{it:?}") == name)
    }

    /// Whether it waits by itself; the others have to be asked again and again.
    pub fn waits(self) -> bool {
        matches!(self, Self::SessionLock | Self::StdFile | Self::FdLock)
    }

    /// Whether the lock of a killed holder can be taken.
    pub fn survives_kill(self) -> bool {
        !matches!(self, Self::Exclusive | Self::ExclusiveSynced)
    }

    pub fn try_take(self, dir: &Path) -> Option<Held> {
        let open = || {
            File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(dir.join("file"))
        };
        match self {
            Self::SessionLock => SessionLock::try_acquire(dir, Kind::Adapter)
                .ok()
                .map(Held::Session),
            Self::StdFile | Self::FdLock => {
                let file = open().expect("a file");
                file.try_lock().ok().map(|()| Held::File(file))
            }
            Self::Pidlock => {
                let mut lock =
                    pidlock::Pidlock::new_validated(dir.join("pidlock")).expect("a path");
                lock.acquire().ok().map(|()| Held::Pid(lock))
            }
            Self::Exclusive | Self::ExclusiveSynced => {
                let path = dir.join("marker");
                let mut file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .open(&path)
                    .ok()?;
                let text = format!(
                    "{}\n2026-11-21T02:45:50.123456789Z\nadapter\n",
                    std::process::id()
                );
                file.write_all(text.as_bytes()).expect("space");
                if self == Self::ExclusiveSynced {
                    file.sync_all().expect("a disk");
                }
                Some(Held::Marker(path))
            }
        }
    }

    /// Takes it once, uncontended, and releases it.
    pub fn cycle(self, dir: &Path) {
        if self == Self::FdLock {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(dir.join("file"));
            let mut lock = fd_lock::RwLock::new(file.expect("a file"));
            drop(lock.try_write().expect("free"));
        } else {
            drop(self.try_take(dir).expect("free"));
        }
    }

    /// Waits for it.
    pub fn take(self, dir: &Path) -> Held {
        match self {
            Self::SessionLock => {
                let wait = Wait::Until(Instant::now() + Duration::from_secs(60));
                let lock = SessionLock::options()
                    .kind(Kind::Adapter)
                    .wait(wait)
                    .acquire(dir);
                Held::Session(lock.expect("free in time"))
            }
            Self::StdFile | Self::FdLock => {
                let file = File::options()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(dir.join("file"));
                let file = file.expect("a file");
                file.lock().expect("a lock");
                Held::File(file)
            }
            Self::Pidlock | Self::Exclusive | Self::ExclusiveSynced => loop {
                if let Some(held) = self.try_take(dir) {
                    return held;
                }
                pause(Duration::from_millis(10));
            },
        }
    }
}

/// Waits for a time.
pub fn pause(time: Duration) {
    let (_never, clock) = mpsc::channel::<()>();
    let _elapsed: Result<(), _> = clock.recv_timeout(time);
}
