//! A record that gets its name only when it is complete.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::linkat;

use crate::files::{self, FileId, RECORD};
use crate::sys;

/// What every temporary name starts with.
pub(crate) const STAGED_PREFIX: &str = ".handler.pid.";

/// Everybody may read the record; its owner may replace it.
const MODE: Mode = Mode::S_IRUSR
    .union(Mode::S_IWUSR)
    .union(Mode::S_IRGRP)
    .union(Mode::S_IROTH);

/// Our record: complete, but without its name at first.
#[derive(Debug)]
pub(crate) struct Draft {
    /// Kept open: while it is, no other file can get its inode, so that the identity stays an identity.
    file: File,
    pub(crate) id: FileId,
    /// When it was written, by the file system's own clock, in nanoseconds after 1970.
    pub(crate) written_at: i128,
    text: String,
    /// Its temporary name.
    staged: Option<CString>,
    /// Whether it ever had a name. A file that lost its last one cannot get another.
    pub(crate) named: bool,
}

impl Draft {
    pub(crate) fn create(dir: BorrowedFd<'_>, text: String) -> io::Result<Self> {
        match sys::create_unnamed(dir, MODE) {
            Ok(file) => Self::write(dir, file, None, text),
            Err(error) if files::is_unsupported(&error) => Self::create_named(dir, text),
            Err(error) => Err(error),
        }
    }

    fn create_named(dir: BorrowedFd<'_>, text: String) -> io::Result<Self> {
        let name = temporary_name()?;
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let file = File::from(openat(dir, name.as_c_str(), flags, MODE)?);
        Self::write(dir, file, Some(name), text)
    }

    fn write(
        dir: BorrowedFd<'_>,
        file: File,
        staged: Option<CString>,
        text: String,
    ) -> io::Result<Self> {
        let written = file.write_all_at(text.as_bytes(), 0).and_then(|()| {
            let stat = fstat(&file)?;
            files::ensure_mode(&file, &stat, MODE)?;
            Ok(stat)
        });
        match (written, staged) {
            (Ok(stat), staged) => Ok(Self {
                id: FileId::of_stat(&stat),
                written_at: files::modified_at(&stat),
                named: false,
                file,
                text,
                staged,
            }),
            // A full disk is the usual cause; the lock's own name was never touched.
            (Err(error), Some(name)) => files::remove(dir, &name).and(Err(error)),
            (Err(error), None) => Err(error),
        }
    }

    /// Gives the record its name; returns `false` if the name is taken.
    pub(crate) fn link(&mut self, dir: BorrowedFd<'_>) -> io::Result<bool> {
        let linked = match &self.staged {
            None => match sys::link_unnamed(&self.file, dir, RECORD) {
                // No `/proc`, or a file system without hard links.
                Err(error) if needs_name(&error) => {
                    *self = Self::create_named(dir, self.text.clone())?;
                    return self.link(dir);
                }
                linked => linked,
            },
            Some(name) => match linkat(dir, name.as_c_str(), dir, RECORD, AtFlags::empty()) {
                Ok(()) => files::remove(dir, name),
                Err(errno) if files::is_unsupported(&errno.into()) => {
                    sys::rename_to_free_name(dir, name, RECORD)
                }
                Err(errno) => Err(errno.into()),
            },
        };
        match linked {
            Ok(()) => {
                self.staged = None;
                self.named = true;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the record a temporary name, if it has none.
    pub(crate) fn stage(&mut self, dir: BorrowedFd<'_>) -> io::Result<()> {
        self.named = true;
        if self.staged.is_none() {
            let name = temporary_name()?;
            match sys::link_unnamed(&self.file, dir, &name) {
                Err(error) if needs_name(&error) => {
                    *self = Self::create_named(dir, self.text.clone())?;
                }
                linked => {
                    linked?;
                    self.staged = Some(name);
                }
            }
        }
        Ok(())
    }

    /// Exchanges what the temporary name and the record's name lead to. An error of the kind `NotFound` says that
    /// there is nothing to exchange with.
    ///
    /// Where names cannot be exchanged, the record `judged` is replaced instead, if it is still there.
    pub(crate) fn exchange(&mut self, dir: BorrowedFd<'_>, judged: FileId) -> io::Result<FileId> {
        let Some(staged) = &self.staged else {
            return Err(io::ErrorKind::NotFound.into());
        };
        match sys::exchange(dir, staged, RECORD) {
            // If somebody removed the temporary name meanwhile, what it led to is gone either way.
            Ok(()) => Ok(FileId::at(dir, staged)?.unwrap_or(judged)),
            Err(error) if files::is_unsupported(&error) => {
                if FileId::at(dir, RECORD)? != Some(judged) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                renameat(dir, staged.as_c_str(), dir, RECORD)?;
                self.staged = None;
                Ok(judged)
            }
            Err(error) => Err(error),
        }
    }

    /// Puts back what an exchange brought out.
    pub(crate) fn give_back(&mut self, dir: BorrowedFd<'_>) -> io::Result<()> {
        let Some(staged) = &self.staged else {
            return Ok(());
        };
        match sys::exchange(dir, staged, RECORD) {
            // Our record is gone from there already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match sys::rename_to_free_name(dir, staged, RECORD) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    put_back => put_back,
                }
            }
            exchanged => exchanged,
        }
    }

    /// Removes the temporary name and what it leads to.
    pub(crate) fn drop_staged(&mut self, dir: BorrowedFd<'_>) -> io::Result<()> {
        self.staged
            .take()
            .map_or(Ok(()), |name| files::remove(dir, &name))
    }

    /// Makes the record say nothing if it still has a name.
    pub(crate) fn void(&self) -> io::Result<()> {
        if fstat(&self.file)?.st_nlink == 0 {
            return Ok(());
        }
        // No process has the number 0, so whoever reads this takes the record for none, at once.
        self.file.write_all_at(b"0\n", 0)?;
        self.file.set_len(2)
    }

    /// Returns whether the record's name leads to this file.
    pub(crate) fn is_in_place(&self, dir: BorrowedFd<'_>) -> io::Result<bool> {
        Ok(FileId::at(dir, RECORD)? == Some(self.id))
    }
}

/// Returns whether a file without a name cannot get one here.
fn needs_name(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || files::is_unsupported(error)
}

/// Returns a temporary name for a record.
fn temporary_name() -> io::Result<CString> {
    CString::new(format!("{STAGED_PREFIX}{}", unique())).map_err(io::Error::other)
}

/// Returns a word that no other process and no other thread makes: process number and a count.
pub(crate) fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{count}", std::process::id())
}
