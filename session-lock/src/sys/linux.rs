//! Linux: process descriptors, `/proc`, and renames that exchange two names.
#![expect(
    unsafe_code,
    reason = "nix has no call for process descriptors or for ranges of descriptors"
)]

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, fcntl};
use nix::libc;
use nix::unistd::linkat;

use crate::process_facts::ProcessFacts;
use crate::readable::is_readable;

/// Clock ticks a second in everything that `/proc` tells; fixed for user space on every architecture.
const TICKS_PER_SECOND: i64 = 100;

/// Returns the identifier of the running boot.
pub(crate) fn boot_id() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    BOOT.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let word = text.trim();
        (!word.is_empty() && !word.contains(char::is_whitespace)).then(|| word.to_owned())
    })
    .as_deref()
}

/// Returns the inode of this process's pid namespace.
pub(crate) fn pid_namespace() -> Option<u64> {
    fs::metadata("/proc/self/ns/pid")
        .ok()
        .map(|node| node.ino())
}

/// Opens a descriptor for the process `pid`; it turns readable when the process has ended.
pub(crate) fn open_process(pid: u32) -> io::Result<OwnedFd> {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return Err(Errno::ESRCH.into());
    };
    // SAFETY: `pidfd_open` takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = Errno::result(fd)?;
    let fd = RawFd::try_from(fd).map_err(|_too_large| io::Error::from(Errno::EBADF))?;
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends `signal` to the very process that the descriptor was opened for.
pub(crate) fn signal_process(
    process: BorrowedFd<'_>,
    signal: nix::sys::signal::Signal,
) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open for the call, and a null `siginfo` asks for that of `kill`.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal as libc::c_int,
            info,
            0,
        )
    };
    Errno::result(sent)?;
    Ok(())
}

/// Returns what the system says about `pid`.
pub(crate) fn look_up(pid: u32) -> ProcessFacts {
    match open_process(pid) {
        Ok(process) => {
            // The start time is read before the descriptor is asked: if the process has not ended by then, the
            // number was its own all along.
            let stat = read_stat(pid);
            match is_readable(process.as_fd()) {
                Ok(true) => ProcessFacts::Ended,
                Ok(false) if stat.as_ref().is_some_and(Stat::is_ending) => ProcessFacts::Ended,
                Ok(false) => ProcessFacts::Running {
                    start_ticks: stat.map(|stat| stat.start_ticks),
                },
                Err(_poll) => ProcessFacts::Unknown,
            }
        }
        // Not the number of a process, or (`EINVAL`, later `ENOENT`) that of a thread which does not lead one.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ESRCH | libc::EINVAL | libc::ENOENT)
            ) =>
        {
            ProcessFacts::Absent
        }
        // No such call, forbidden by a filter, or no descriptor to spare.
        Err(_unavailable) => look_up_without_descriptor(pid),
    }
}

/// Returns what signal 0 and `/proc` say about `pid`.
fn look_up_without_descriptor(pid: u32) -> ProcessFacts {
    match super::answers_to_kill(pid) {
        None => ProcessFacts::Unknown,
        Some(false) => ProcessFacts::Absent,
        Some(true) => match read_stat(pid) {
            // A process whose first thread has ended shows the same state while its other threads run.
            Some(stat)
                if matches!(stat.state, b'Z' | b'X') && stat.threads <= 1 || stat.is_ending() =>
            {
                ProcessFacts::Ended
            }
            Some(stat) => ProcessFacts::Running {
                start_ticks: Some(stat.start_ticks),
            },
            None => ProcessFacts::Running { start_ticks: None },
        },
    }
}

/// Returns when `pid` started, in ticks after the boot.
pub(crate) fn start_ticks(pid: u32) -> Option<u64> {
    read_stat(pid).map(|stat| stat.start_ticks)
}

/// Returns the process that started `pid`, or that took it over.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    read_stat(pid).map(|stat| stat.parent)
}

/// The fields of `/proc/<pid>/stat` that matter here.
struct Stat {
    state: u8,
    parent: u32,
    flags: u64,
    threads: u64,
    start_ticks: u64,
}

impl Stat {
    /// Returns whether the process will never run again, although the kernel is still tidying up after it: closing
    /// an inotify instance alone takes it 20 ms, long after the locks are free.
    fn is_ending(&self) -> bool {
        /// `PF_EXITING` of the kernel; it is never taken back.
        const EXITING: u64 = 4;
        self.flags & EXITING != 0 && self.threads <= 1
    }
}

fn read_stat(pid: u32) -> Option<Stat> {
    // A line of 52 numbers and a name of at most 64 bytes; the file tells no size, and one read is enough.
    let mut bytes = [0; 2048];
    let length = File::open(format!("/proc/{pid}/stat"))
        .ok()?
        .read(&mut bytes)
        .ok()?;
    let mut stat = parse_stat(&bytes[..length])?;
    stat.start_ticks = stat.start_ticks.checked_add_signed(-boot_offset_ticks())?;
    Some(stat)
}

fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    // The command's name may hold spaces and parentheses: the fields start after the last one.
    let fields = &bytes[bytes.iter().rposition(|byte| *byte == b')')? + 1..];
    let mut fields = std::str::from_utf8(fields).ok()?.split_ascii_whitespace();
    // Fields 3, 4, 9, 20 and 22 of proc(5); each `nth` continues where the last one stopped.
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let flags = fields.nth(4)?.parse().ok()?;
    let threads = fields.nth(10)?.parse().ok()?;
    let start_ticks = fields.nth(1)?.parse().ok()?;
    Some(Stat {
        state,
        parent,
        flags,
        threads,
        start_ticks,
    })
}

/// Returns by how many ticks start times read here lie above those of the initial time namespace.
fn boot_offset_ticks() -> i64 {
    static OFFSET: OnceLock<i64> = OnceLock::new();
    *OFFSET.get_or_init(|| {
        let text = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        let seconds = text.lines().find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next() == Some("boottime"))
                .then(|| words.next()?.parse::<i64>().ok())
                .flatten()
        });
        seconds.unwrap_or(0).saturating_mul(TICKS_PER_SECOND)
    })
}

/// Exchanges two names in `dir`.
pub(crate) fn exchange(dir: BorrowedFd<'_>, one: &CStr, other: &CStr) -> io::Result<()> {
    rename(dir, one, other, libc::RENAME_EXCHANGE)
}

/// Renames `from` to `to`, unless that name is taken.
pub(crate) fn rename_to_free_name(dir: BorrowedFd<'_>, from: &CStr, to: &CStr) -> io::Result<()> {
    rename(dir, from, to, libc::RENAME_NOREPLACE)
}

fn rename(dir: BorrowedFd<'_>, from: &CStr, to: &CStr, flags: libc::c_uint) -> io::Result<()> {
    let dir = dir.as_raw_fd();
    let (from, to) = (from.as_ptr(), to.as_ptr());
    // SAFETY: both names are terminated strings that live for the call.
    let done = unsafe { libc::syscall(libc::SYS_renameat2, dir, from, dir, to, flags) };
    Errno::result(done)?;
    Ok(())
}

/// Creates a file without a name in `dir`.
pub(crate) fn create_unnamed(dir: BorrowedFd<'_>, mode: nix::sys::stat::Mode) -> io::Result<File> {
    use nix::fcntl::{OFlag, openat};
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    Ok(File::from(openat(dir, c".", flags, mode)?))
}

/// Gives the file without a name the name `name` in `dir`, unless the name is taken.
pub(crate) fn link_unnamed(file: &File, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    /// Whether the short way was refused once: before Linux 6.10 it takes a capability.
    static REFUSED: AtomicBool = AtomicBool::new(false);
    if !REFUSED.load(Ordering::Relaxed) {
        match linkat(file, c"", dir, name, AtFlags::AT_EMPTY_PATH) {
            Err(Errno::ENOENT) => {}
            linked => return Ok(linked?),
        }
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let linked = linkat(dir, path.as_str(), dir, name, AtFlags::AT_SYMLINK_FOLLOW);
    // The short way has the same answer for a directory that is gone; only where this one leads on is it to blame.
    if linked.is_ok() {
        REFUSED.store(true, Ordering::Relaxed);
    }
    Ok(linked?)
}

/// Gives the calling thread a table of descriptors of its own: a copy that nobody else sees change.
pub(crate) fn leave_shared_descriptors() -> io::Result<()> {
    use nix::sched::{CloneFlags, unshare};
    if unshare(CloneFlags::CLONE_FILES).is_ok() {
        return Ok(());
    }
    // Container filters forbid `unshare` altogether but let this one through, which copies the table as well
    // before it closes nothing.
    close_range(u32::MAX, u32::MAX, libc::CLOSE_RANGE_UNSHARE)
}

/// Closes every descriptor of the calling thread's own table but `kept`.
///
/// Only after [`leave_shared_descriptors`], in a thread that uses no descriptor any more.
pub(crate) fn close_all_but(kept: BorrowedFd<'_>) -> io::Result<()> {
    let kept =
        u32::try_from(kept.as_raw_fd()).map_err(|_negative| io::Error::from(Errno::EBADF))?;
    if kept > 0 {
        close_range(0, kept - 1, 0)?;
    }
    close_range(kept + 1, u32::MAX, 0)
}

fn close_range(first: u32, last: u32, flags: u32) -> io::Result<()> {
    // SAFETY: the call takes integers. Which descriptors may be closed is the caller's part, see above.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    Errno::result(done)?;
    Ok(())
}

/// Takes over a descriptor that came through a socket.
pub(crate) fn own_received(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel made this descriptor while it delivered the message, and only its number was passed on.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Borrows a descriptor by its number, in a thread that has just copied the shared table.
pub(crate) fn borrow_in_own_table(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the caller's lock keeps the descriptor open in the shared table until the copy exists, and nobody
    // closes anything in the copy but the calling thread, after its last use of this borrow.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Where in the guard a waiter puts its mark: far behind any text. The mark is a lock of the open file, which has
/// nothing to do with the flock that is waited for.
fn mark_of(kind: libc::c_int) -> libc::flock {
    let narrow = |wide: libc::c_int| libc::c_short::try_from(wide).unwrap_or_default();
    libc::flock {
        l_type: narrow(kind),
        l_whence: narrow(libc::SEEK_SET),
        l_start: 1 << 40,
        l_len: 1,
        l_pid: 0,
    }
}

/// Marks whoever has `guard` open through this descriptor as waiting, or takes the mark away.
pub(crate) fn set_waiting(guard: &File, waiting: bool) -> io::Result<()> {
    let mark = mark_of(if waiting {
        libc::F_RDLCK
    } else {
        libc::F_UNLCK
    });
    fcntl(guard, FcntlArg::F_OFD_SETLK(&mark))?;
    Ok(())
}

/// Returns whether anybody else waits for `guard`.
pub(crate) fn is_awaited(guard: &File) -> bool {
    let mut mark = mark_of(libc::F_WRLCK);
    let asked = fcntl(guard, FcntlArg::F_OFD_GETLK(&mut mark));
    asked.is_ok() && i32::from(mark.l_type) != libc::F_UNLCK
}
