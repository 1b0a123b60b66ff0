//! A small disk of its own for the workspace, which can be filled to the last byte.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// How large the disk is: the logs of an hour fit, and it is filled in a moment.
const SIZE: &str = "size=96m";

/// A mounted disk of this run.
#[derive(Debug)]
pub(crate) struct Disk {
    filler: PathBuf,
}

impl Disk {
    /// Mounts an empty disk on a directory, seen by this process and its children only, so that it is gone with the last of them.
    ///
    /// # Errors
    ///
    /// What the system says, mostly that this takes a right that we do not have.
    pub(crate) fn mount_on(dir: &Path) -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let nothing = None::<&str>;
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(nothing, "/", nothing, private, nothing)?;
        mount(
            Some("tmpfs"),
            dir,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(SIZE),
        )?;
        Ok(Self {
            filler: dir.join("filler"),
        })
    }

    /// Takes every byte that is left.
    pub(crate) fn fill(&self) -> io::Result<()> {
        let mut file = File::create(&self.filler)?;
        for size in [1 << 20, 4096] {
            let block = vec![0_u8; size];
            while file.write_all(&block).is_ok() {}
        }
        Ok(())
    }

    /// Gives the room back.
    pub(crate) fn empty(&self) {
        drop(fs::remove_file(&self.filler));
    }
}
