//! Whether anything can be written to a workspace just now.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::{StoreError, Workspace};

/// So much has to fit: a state file with its temporary twin, a few messages and events.
const WANTED: usize = 64 << 10;

/// Writes a little to a file without a name, which nobody sees and which is gone with its descriptor, whoever dies.
///
/// # Errors
/// [`StoreError::Io`]: the disk is full, somebody's share of it is used up, it is read-only or fails. What is seen only by a write, such as
/// a quota, is seen here.
pub fn check(workspace: &Workspace) -> Result<(), StoreError> {
    let service = workspace.service_dir();
    let dir = if service.is_dir() {
        service.as_path()
    } else {
        workspace.root()
    };
    write_without_a_name(dir).map_err(StoreError::io("write to", dir))
}

fn write_without_a_name(dir: &Path) -> io::Result<()> {
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let file = match open(dir, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(file) => file,
        // This file system, or kernel, has no such files: then nothing is known.
        Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let mut file = File::from(file);
    file.write_all(&vec![0; WANTED])?;
    file.sync_data()
}
