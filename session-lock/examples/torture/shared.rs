//! Numbers that all processes of a run share.
#![expect(unsafe_code, reason = "memory is shared between processes")]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, ProtFlags, mmap};

/// What the processes of one run tell each other. Every field starts at zero.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Shared {
    /// Set when the run is over.
    pub(crate) stop: AtomicU64,
    /// The process that is inside, or zero.
    pub(crate) owner: AtomicU64,
    pub(crate) entries: AtomicU64,
    pub(crate) refusals: AtomicU64,
    /// Entries whose predecessor never left: it was killed inside.
    pub(crate) successions: AtomicU64,
    /// Two processes inside at once.
    pub(crate) overlaps: AtomicU64,
    pub(crate) generation: AtomicU64,
    /// Entries with a generation that is not higher than the one before.
    pub(crate) generation_violations: AtomicU64,
    /// Locks that their holder was told it had lost.
    pub(crate) losses: AtomicU64,
    pub(crate) errors: AtomicU64,
}

/// Creates the memory, or opens it, as the file `path`.
pub(crate) fn open(path: &Path) -> io::Result<&'static Shared> {
    let size = size_of::<Shared>();
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.set_len(size as u64)?;
    let length = NonZeroUsize::new(size).expect("because it has fields");
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a fresh mapping of a whole file of that size, at an address of the kernel's choice.
    let memory: NonNull<_> = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, &file, 0) }?;
    // SAFETY: the mapping is page-aligned, as large as `Shared`, zeroed or written by others as `Shared`, never
    // unmapped, and every field is atomic.
    Ok(unsafe { memory.cast::<Shared>().as_ref() })
}
