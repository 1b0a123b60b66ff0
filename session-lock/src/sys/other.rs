//! Other Unix systems: no process descriptors, no start times, no exchange of names.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::process_facts::ProcessFacts;

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn boot_id() -> Option<&'static str> {
    None
}

pub(crate) fn pid_namespace() -> Option<u64> {
    None
}

pub(crate) fn start_ticks(_pid: u32) -> Option<u64> {
    None
}

pub(crate) fn open_process(_pid: u32) -> io::Result<OwnedFd> {
    unsupported()
}

pub(crate) fn signal_process(
    _process: BorrowedFd<'_>,
    _signal: nix::sys::signal::Signal,
) -> io::Result<()> {
    unsupported()
}

pub(crate) fn look_up(pid: u32) -> ProcessFacts {
    match super::answers_to_kill(pid) {
        None => ProcessFacts::Unknown,
        Some(false) => ProcessFacts::Absent,
        Some(true) => ProcessFacts::Running { start_ticks: None },
    }
}

pub(crate) fn exchange(_dir: BorrowedFd<'_>, _one: &CStr, _other: &CStr) -> io::Result<()> {
    unsupported()
}

pub(crate) fn create_unnamed(
    _dir: BorrowedFd<'_>,
    _mode: nix::sys::stat::Mode,
) -> io::Result<File> {
    unsupported()
}

pub(crate) fn link_unnamed(_file: &File, _dir: BorrowedFd<'_>, _name: &CStr) -> io::Result<()> {
    unsupported()
}

/// Renames `from` to `to`, unless that name is taken; not in one step.
pub(crate) fn rename_to_free_name(dir: BorrowedFd<'_>, from: &CStr, to: &CStr) -> io::Result<()> {
    if crate::files::FileId::at(dir, to)?.is_some() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    nix::fcntl::renameat(dir, from, dir, to)?;
    Ok(())
}

pub(crate) fn parent(_pid: u32) -> Option<u32> {
    None
}

pub(crate) fn set_waiting(_guard: &File, _waiting: bool) -> io::Result<()> {
    Ok(())
}

pub(crate) fn is_awaited(_guard: &File) -> bool {
    false
}
