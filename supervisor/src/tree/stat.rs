//! What the kernel tells of one process: a line of fields, and files that are made when they are read.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::Process;
use super::table::{Entry, Environment};

/// Most files of `/proc` are read in one go.
const CHUNK: usize = 4_096;

/// Returns when `pid` started, in clock ticks since boot: field 22 of
/// `/proc/<pid>/stat`, see proc(5). `None` if there is no such process.
#[must_use]
pub fn start_ticks(pid: u32) -> Option<u64> {
    read_entry(pid, &mut Vec::new()).map(|entry| entry.start)
}

/// Returns the process that has this pid now, or `None` if there is none.
#[must_use]
pub fn process(pid: u32) -> Option<Process> {
    read_entry(pid, &mut Vec::new()).map(|entry| entry.process())
}

/// Returns true if the process that started then under this pid still is alive. A
/// zombie is not, nor is a later process with the same pid.
#[must_use]
pub fn is_alive(pid: u32, start: u64) -> bool {
    read_entry(pid, &mut Vec::new()).is_some_and(|entry| entry.start == start && entry.alive)
}

pub(crate) fn read_entry(pid: u32, buffer: &mut Vec<u8>) -> Option<Entry> {
    parse_stat(pid, read_stat(pid, buffer)?)
}

fn read_stat(pid: u32, buffer: &mut Vec<u8>) -> Option<&[u8]> {
    let path = format!("/proc/{pid}/stat");
    buffer.clear();
    buffer.resize(CHUNK, 0);
    // The one line of this file comes in one go, so that nobody need ask for more.
    let read = fs::File::open(path).and_then(|mut file| file.read(buffer));
    buffer.get(..read.ok()?)
}

/// Returns the address at which the environment of a process ends: 0 while it has none yet. `None` for what never has one.
pub(super) fn environment_end(pid: u32, buffer: &mut Vec<u8>) -> Option<u64> {
    parse_environment_end(read_stat(pid, buffer)?)
}

/// A thread of the kernel (flag `PF_KTHREAD` of `linux/sched.h` in field 9) has no memory, and a first thread that has ended has none
/// any more; until Linux 6.13 the environment of both reads as empty and not as an error.
fn parse_environment_end(stat: &[u8]) -> Option<u64> {
    const OF_THE_KERNEL: u64 = 0x0020_0000;
    let (_, fields) = split_stat(stat)?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let flags: u64 = fields.get(6)?.parse().ok()?;
    if flags & OF_THE_KERNEL != 0 || matches!(*fields.first()?, "Z" | "X" | "x") {
        return None;
    }
    fields.get(48)?.parse().ok()
}

/// Parts the line of a process into its name and the fields behind it, of which the first is field 3. The name stands in
/// parentheses and may hold any byte, so the fields are counted from the last closing one.
fn split_stat(stat: &[u8]) -> Option<(&[u8], &str)> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    Some((stat.get(open + 1..close)?, fields))
}

pub(super) fn parse_stat(pid: u32, stat: &[u8]) -> Option<Entry> {
    let (name, rest) = split_stat(stat)?;
    let name = String::from_utf8_lossy(name).into_owned();
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let state = *fields.first()?;
    let threads: u64 = fields.get(17)?.parse().ok()?;
    let headless = matches!(state, "Z" | "X" | "x");
    Some(Entry {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
        // A first thread that has ended shows as a zombie while the others work on.
        alive: !headless || threads > 1,
        headless,
        threads,
        name,
        carried: Vec::new(),
        environment: Environment::Shown,
    })
}

pub(super) fn read_into(path: &str, buffer: &mut Vec<u8>) -> io::Result<()> {
    // What could not be opened is not what was read before.
    buffer.clear();
    read_all(&fs::File::open(path)?, buffer)
}

/// Reads a file of `/proc` from its beginning, which makes its content anew.
pub(super) fn read_all(file: &fs::File, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    // Not `read_to_end`, which asks twice for a size that files of `/proc` do not have:
    // a pass reads hundreds of them.
    loop {
        let filled = buffer.len();
        buffer.resize(filled + CHUNK, 0);
        let at = u64::try_from(filled).unwrap_or(u64::MAX);
        let read = file.read_at(&mut buffer[filled..], at);
        buffer.truncate(filled + read.as_ref().map_or(0, |count| *count));
        match read {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = b"77 (a) b (c) S 1 70 60 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9\n";
        let entry = parse_stat(77, line).unwrap();
        assert_eq!((entry.parent, entry.group, entry.session), (1, 70, 60));
        assert_eq!((entry.start, entry.alive), (4242, true));
        assert_eq!(entry.name, "a) b (c");
    }

    #[test]
    fn a_zombie_with_working_threads_is_alive() {
        let dead = b"77 (x) Z 1 70 60 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9\n";
        let half = b"77 (x) Z 1 70 60 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 4242 9 9\n";
        assert!(!parse_stat(77, dead).unwrap().alive);
        assert!(parse_stat(77, half).unwrap().alive);
    }

    #[test]
    fn only_what_has_memory_can_be_without_an_environment_for_a_while() {
        let line = |state: &str, flags: u32, end: u64| {
            let middle = "0 ".repeat(41);
            format!("77 (x) {state} 1 70 60 0 -1 {flags} {middle}{end} 0\n")
        };
        let end = |line: String| parse_environment_end(line.as_bytes());
        assert_eq!(end(line("R", 0x40_0000, 0)), Some(0));
        assert_eq!(end(line("S", 0x40_0000, 4_096)), Some(4_096));
        assert_eq!(end(line("I", 0x0420_8060, 0)), None);
        assert_eq!(end(line("Z", 0x40_0000, 0)), None);
        // A kernel that tells no more than its first fields.
        assert_eq!(end("77 (x) S 1 70 60 0 -1 0 1 2 3".into()), None);
    }

    #[test]
    fn cut_off_lines_are_no_process_and_no_panic() {
        let line = b"77 (x) Z 1 70 60 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242";
        for length in 0..line.len() - 4 {
            assert_eq!(parse_stat(77, &line[..length]), None, "{length} bytes");
        }
    }
}
