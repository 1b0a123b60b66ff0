//! The command under `wg lock run`: looks whether it is alone, stays for a moment, and looks again.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::dice::Dice;
use crate::frame::pause;

/// A file of its own that the one who is inside locks, and into which it writes who it is.
pub(crate) const ARENA: &str = "arena";
/// One byte for each time that somebody was inside.
pub(crate) const ENTRIES: &str = "entries";
/// There where the guard is deleted and replaced in this round.
pub(crate) const UNGUARDED: &str = "unguarded";
/// Every broken rule, one a line.
pub(crate) const BROKEN: &str = "broken";

pub(crate) fn main(folder: &Path) -> ExitCode {
    match enter(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(append(
                &folder.join(BROKEN),
                format!("inside failed: {error}\n").as_bytes(),
            ));
            ExitCode::FAILURE
        }
    }
}

fn enter(folder: &Path) -> io::Result<()> {
    let own = std::process::id();
    let arena = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.join(ARENA))?;
    loop {
        match arena.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // The one before may be dying, its lock on the directory already free.
        let other = who(&arena)?;
        if is_alive(other, folder.join(UNGUARDED).exists()) {
            let line = format!("{own} came in while {other} was inside\n");
            append(&folder.join(BROKEN), line.as_bytes())?;
            return Ok(());
        }
        pause(Duration::from_micros(200));
    }
    arena.write_all_at(&own.to_le_bytes(), 0)?;
    append(&folder.join(ENTRIES), b".")?;
    pause(Duration::from_micros(
        Dice::new(u64::from(own)).below(40_000),
    ));
    let now = who(&arena)?;
    if now != own {
        let line = format!("{now} came in while {own} was inside\n");
        append(&folder.join(BROKEN), line.as_bytes())?;
    }
    Ok(())
}

/// Whoever came in last.
pub(crate) fn who(arena: &File) -> io::Result<u32> {
    let mut bytes = [0; 4];
    match arena.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        read => read.map(|()| u32::from_le_bytes(bytes)),
    }
}

fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    File::options()
        .append(true)
        .create(true)
        .open(path)?
        .write_all(bytes)
}

/// Whether a process will run another instruction of its own: not if the kernel is tidying up after it (`PF_EXITING`).
///
/// Where the guard is deleted and made anew, not either if it was sent SIGKILL and has not come to its turn since. There a
/// command has the lock through its wrapper alone: the guard that was lent to it lost its name, and the wrapper's new one was never
/// lent. So when a group is killed, the next one may come in once the wrapper is gone, while its command waits for a
/// processor on which to die. It will never run again, and it was killed before the next one could come: the kernel signals a
/// whole group before the end of any member can be waited for. With the guard in place no such excuse counts, because the
/// command itself keeps it locked until its files are closed.
fn is_alive(pid: u32, unguarded: bool) -> bool {
    const EXITING: u64 = 4;
    const KILLED: u64 = 1 << 8;
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
    // In this order: a process that was not killed when its signals were read and is there afterwards was alive in between.
    let (Ok(status), Ok(stat)) = (read("status"), read("stat")) else {
        return false;
    };
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields);
    // Field 9 of proc(5); the name before the parenthesis is field 2.
    let flags = fields.and_then(|fields| fields.split_ascii_whitespace().nth(6));
    let flags = flags.and_then(|flags| flags.parse::<u64>().ok());
    let is_killed = status.lines().any(|line| {
        let pending = line
            .strip_prefix("SigPnd:")
            .or_else(|| line.strip_prefix("ShdPnd:"));
        let pending = pending.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
        pending.is_some_and(|pending| pending & KILLED != 0)
    });
    flags.is_some_and(|flags| flags & EXITING == 0) && !(unguarded && is_killed)
}
