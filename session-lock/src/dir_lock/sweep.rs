//! Removes from a registry what is provably nobody's: entries of directories that are gone, and folders that killed
//! processes left half-made.
#![expect(
    clippy::disallowed_methods,
    reason = "this driver tells how old a half-made folder is"
)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::entry::Entry;
use super::turn::Turn;
use crate::kind::Kind;
use crate::lock::SessionLock;
use crate::record;
use crate::sys;

/// What is still being put together ends like this.
pub(super) const UNFINISHED: &str = "new";

/// A half-made folder of a process that cannot be seen is left alone for as long. Its maker may run in another pid
/// namespace; if it was stopped for longer, it makes another folder.
const OLD: Duration = Duration::from_secs(60);

/// As many entries are removed at once; the rest waits for the next new one.
const MOST: usize = 64;

/// Sweeps the registry. Called when an entry was added, so that a registry does not grow for ever.
pub(super) fn sweep(registry: &Path) {
    // While an entry is being removed its lock is ours, and whoever looks for overlaps must not take it for somebody's.
    let Some(_turn) = Turn::take(registry) else {
        return;
    };
    let paths = fs::read_dir(registry).into_iter().flatten().flatten();
    let paths = paths.map(|entry| entry.path()).filter(|path| path.is_dir());
    let mut swept = 0;
    for path in paths {
        let is_unfinished = path.extension().is_some_and(|it| it == UNFINISHED);
        let outcome = if is_unfinished && is_abandoned(&path) {
            remove(&path).map(|()| true)
        } else if is_unfinished {
            Ok(false)
        } else {
            sweep_entry(&path)
        };
        match outcome {
            Ok(removed) => swept += usize::from(removed),
            Err(error) => log::debug!("failed to sweep `{}`: {error}", path.display()),
        }
        if swept == MOST {
            return;
        }
    }
}

/// Returns the name, beside `path`, of something that this process is putting together.
pub(super) fn unfinished_name(path: &Path) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(format!(".{}.{UNFINISHED}", crate::draft::unique()));
    PathBuf::from(name)
}

/// Returns whether the maker of a half-made folder is gone.
fn is_abandoned(path: &Path) -> bool {
    let name = path.file_stem().and_then(|stem| stem.to_str());
    let pid = name.and_then(|name| {
        let (_entry, unique) = name.rsplit_once('.')?;
        record::parse_pid(unique.split_once('-')?.0)
    });
    let is_old = || {
        let modified = fs::metadata(path).and_then(|it| it.modified()).ok();
        let age = modified.and_then(|at| SystemTime::now().duration_since(at).ok());
        age.is_some_and(|age| age >= OLD)
    };
    pid.is_some_and(|pid| sys::is_running(pid).is_ok_and(|running| !running)) && is_old()
}

/// Removes the entry of a directory that is gone, unless somebody has its lock or a hold on it; returns whether it did.
///
/// What is lost with it is the generation, which the clock seeds anew and higher.
fn sweep_entry(path: &Path) -> io::Result<bool> {
    let entry = match Entry::load(path.to_owned()) {
        Ok(Some(entry)) if is_gone(entry.directory()) => entry,
        Ok(_) | Err(_) => return Ok(false),
    };
    // A corrupt record blocks its directory until a person has looked, also if it comes back.
    if entry.refuse_corrupt().is_err() {
        return Ok(false);
    }
    // From here on nobody else gets this lock; who waits for it finds that the path leads elsewhere.
    let Ok(lock) = SessionLock::try_acquire(path, Kind::from("sweep")) else {
        return Ok(false);
    };
    let is_nobodys =
        lock.is_in_place() && is_gone(&path.join("hold")) && is_gone(entry.directory());
    if is_nobodys {
        remove(path)?;
    }
    Ok(is_nobodys)
}

/// Returns whether nothing has this path, as far as that can be known.
fn is_gone(path: &Path) -> bool {
    let gone = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
    fs::symlink_metadata(path).is_err_and(|error| gone.contains(&error.kind()))
}

/// Removes a folder of the registry. It loses its name first, in one step: nobody finds it half-removed, and a maker
/// that is alive after all cannot give it its name any more.
fn remove(path: &Path) -> io::Result<()> {
    let aside = unfinished_name(path);
    fs::rename(path, &aside)?;
    fs::remove_dir_all(aside)
}
