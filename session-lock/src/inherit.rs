//! Who has the guard without being its holder: children that inherited the descriptor.

use crate::files::FileId;

/// A process that has the lock through an inherited descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inheritor {
    pub(crate) pid: u32,
    /// Whether the descriptor survives the start of another program. If not, the process is a copy of the holder:
    /// either a child between its fork and its exec, or one that never calls exec.
    pub(crate) lent: bool,
}

/// Returns the processes other than this one that have `guard` open and locked, as far as `/proc` shows them.
#[cfg(target_os = "linux")]
pub(crate) fn inheritors(guard: FileId) -> Vec<Inheritor> {
    let own = std::process::id();
    let pids = names("/proc").filter_map(|name| name.parse::<u32>().ok());
    let mut found: Vec<_> = pids
        .filter(|pid| *pid != own)
        .filter_map(|pid| inheritor(pid, guard))
        .collect();
    found.sort_by_key(|inheritor| inheritor.pid);
    found
}

/// Returns the processes other than this one that have the guard in `dir` open and locked.
pub(crate) fn inheritors_in(dir: &std::path::Path) -> Vec<u32> {
    let guard = FileId::of_path(&crate::files::path_of(dir, crate::files::GUARD));
    let found = guard.map(inheritors).unwrap_or_default();
    found.into_iter().map(|inheritor| inheritor.pid).collect()
}

/// Returns whether the process has the guard in `dir` open and locked.
#[cfg(target_os = "linux")]
pub(crate) fn has_guard_of(pid: u32, dir: &std::path::Path) -> bool {
    FileId::of_path(&crate::files::path_of(dir, crate::files::GUARD))
        .is_ok_and(|guard| inheritor(pid, guard).is_some())
}

#[cfg(target_os = "linux")]
fn inheritor(pid: u32, guard: FileId) -> Option<Inheritor> {
    use std::os::unix::fs::MetadataExt;
    let mut found: Option<Inheritor> = None;
    for fd in names(&format!("/proc/{pid}/fd")) {
        // The link's text is cheaper than the file's identity, and almost never ends like this.
        let link = format!("/proc/{pid}/fd/{fd}");
        let Ok(target) = std::fs::read_link(&link) else {
            continue;
        };
        if !target.to_string_lossy().contains(".handler.guard") {
            continue;
        }
        let same = std::fs::metadata(&link)
            .is_ok_and(|it| it.dev() == guard.device && it.ino() == guard.inode);
        let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        // Somebody who is only trying or looking has the file open too; the lock shows on the holder's open file alone.
        if same && info.lines().any(is_exclusive) {
            let lent = !closes_on_exec(&info);
            found = Some(Inheritor {
                pid,
                lent: lent || found.is_some_and(|found| found.lent),
            });
        }
    }
    found
}

/// Returns whether a line of an `fdinfo` file tells of the lock: the shared one is that of somebody who only looks.
#[cfg(target_os = "linux")]
fn is_exclusive(line: &str) -> bool {
    line.starts_with("lock:") && line.contains("FLOCK") && line.contains("WRITE")
}

/// Returns whether the text of an `fdinfo` file says that the descriptor is closed when another program starts.
#[cfg(target_os = "linux")]
fn closes_on_exec(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags
        .and_then(|octal| i32::from_str_radix(octal.trim(), 8).ok())
        .unwrap_or(0);
    flags & nix::libc::O_CLOEXEC != 0
}

#[cfg(target_os = "linux")]
fn names(dir: &str) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Returns nobody: this system does not show who has a file open.
#[cfg(not(target_os = "linux"))]
pub(crate) fn inheritors(_guard: FileId) -> Vec<Inheritor> {
    Vec::new()
}

/// Returns `false`: this system does not show who has a file open.
#[cfg(not(target_os = "linux"))]
pub(crate) fn has_guard_of(_pid: u32, _dir: &std::path::Path) -> bool {
    false
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn who_only_looks_at_a_lock_is_no_borrower_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let guard = dir.path().join(".handler.guard");
        std::fs::write(&guard, "").unwrap();
        let id = FileId::of_path(&guard).unwrap();
        for (how, is_borrower) in [("--shared", false), ("--exclusive", true)] {
            let mut child = Command::new("flock")
                .arg(how)
                .arg(&guard)
                .arg("cat")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = child.stdin.take().unwrap();
            input.write_all(b"locked\n").unwrap();
            let mut line = String::new();
            let output = child.stdout.take().unwrap();
            BufReader::new(output).read_line(&mut line).unwrap();
            let found = inheritors(id);
            drop(input);
            child.wait().unwrap();
            assert_eq!(line, "locked\n");
            assert_eq!(!found.is_empty(), is_borrower, "{how}: {found:?}");
        }
        assert_eq!(inheritors(id), []);
    }
}
