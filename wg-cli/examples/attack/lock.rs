//! `wg lock` and `wg session` under fire: killed at any instant, files deleted, replaced and planted, arguments that make no sense.

mod arguments;
pub(crate) mod inside;
mod planted;
mod storm;

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::frame::Attack;

pub(crate) fn attack(attack: &mut Attack) -> io::Result<()> {
    while attack.goes_on() {
        storm::round(attack)?;
        planted::round(attack)?;
        arguments::round(attack)?;
    }
    Ok(())
}

/// The folder where the lock of `dir` is kept.
fn entry_of(root: &Path, dir: &Path) -> Option<PathBuf> {
    let text = [b"v1\n", dir.as_os_str().as_bytes(), b"\n"].concat();
    let entries = fs::read_dir(root.join(".local/state/wg/locks")).ok()?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths.find(|path| fs::read(path.join("directory")).is_ok_and(|bytes| bytes == text))
}
