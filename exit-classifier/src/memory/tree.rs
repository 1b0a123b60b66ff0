//! The memory of a process and everything below it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use super::MemoryError;
use super::status::{Source, resident_in};

/// The resident memory of a process and all its descendants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tree {
    /// The sum in bytes. Pages that a parent and a child still share after a fork, and shared memory that several of them have
    /// mapped, are counted once for each: an upper bound.
    pub bytes: u64,
    /// How many processes are in the sum.
    pub processes: usize,
    /// How many of them could be counted only with their mapped files ([`Source::VmRssFallback`]).
    pub fallbacks: usize,
    /// How many processes of the tree exist, but would not be read.
    pub unreadable: usize,
}

/// Returns the memory of a process and all its descendants, in one pass over `/proc`.
///
/// Descent goes by parent process id, through every session and process group. A process whose parent ended belongs to the
/// nearest subreaper above it, or to nobody here. Processes that end meanwhile are left out; zombies count nothing.
///
/// # Errors
///
/// [`MemoryError::NoProcess`] where the root does not exist, [`MemoryError::Read`] where `/proc` cannot be listed.
pub fn tree(pid: u32) -> Result<Tree, MemoryError> {
    tree_in(Path::new("/proc"), pid)
}

/// [`tree`] for a process table at another place.
fn tree_in(proc: &Path, root: u32) -> Result<Tree, MemoryError> {
    let children = children(proc, root)?;
    let mut sum = Tree {
        bytes: 0,
        processes: 0,
        fallbacks: 0,
        unreadable: 0,
    };
    // The pass is no snapshot: a process id that is used again while it runs could close a ring of parents.
    let mut seen = HashSet::from([root]);
    let mut left = vec![root];
    while let Some(pid) = left.pop() {
        match resident_in(proc, pid) {
            Ok(resident) => {
                sum.bytes = sum.bytes.saturating_add(resident.bytes);
                sum.processes += 1;
                sum.fallbacks += usize::from(resident.source == Source::VmRssFallback);
            }
            Err(MemoryError::NoProcess { .. } | MemoryError::NoMemory { .. }) => {}
            Err(MemoryError::Read { .. } | MemoryError::Format { .. }) => sum.unreadable += 1,
        }
        for child in children.get(&pid).into_iter().flatten() {
            if seen.insert(*child) {
                left.push(*child);
            }
        }
    }
    Ok(sum)
}

/// Returns the children of every process, provided that `root` is among the processes.
fn children(proc: &Path, root: u32) -> Result<HashMap<u32, Vec<u32>>, MemoryError> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut root_seen = false;
    let entries = fs::read_dir(proc).map_err(|source| MemoryError::read(proc, source))?;
    for entry in entries {
        let entry = entry.map_err(|source| MemoryError::read(proc, source))?;
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        root_seen |= pid == root;
        // A process that ends during the pass has no parent any more; its children are found below their new one.
        if let Some(parent) = fs::read(entry.path().join("stat"))
            .ok()
            .and_then(|stat| parent(&stat))
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    if root_seen {
        Ok(children)
    } else {
        Err(MemoryError::NoProcess { pid: root })
    }
}

/// Returns the parent's id from the bytes of a `/proc/<pid>/stat`.
///
/// The name in field 2 may itself hold blanks and brackets, so fields are counted from the last `)` (`proc_pid_stat(5)`).
fn parent(stat: &[u8]) -> Option<u32> {
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    std::str::from_utf8(&stat[after_name..])
        .ok()?
        .split_ascii_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process table of plain files, removed at the end.
    struct Table(tempfile::TempDir);

    impl Table {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn process(self, pid: u32, name: &str, parent: u32, status: &str) -> Self {
            let dir = self.0.path().join(pid.to_string());
            fs::create_dir(&dir).unwrap();
            let stat = format!("{pid} ({name}) S {parent} {pid} {pid} 0 -1 4194304 0\n");
            fs::write(dir.join("stat"), stat).unwrap();
            fs::write(dir.join("status"), status).unwrap();
            self
        }
    }

    const ONE: &str = "RssAnon:\t1 kB\n";

    #[test]
    fn the_sum_is_over_all_generations_and_nobody_else() {
        let table = Table::new()
            .process(1, "init", 0, ONE)
            .process(10, "handler", 1, "RssAnon:\t100 kB\nRssShmem:\t10 kB\n")
            .process(11, "agent", 10, ONE)
            .process(12, "tool ) in (brackets", 11, ONE)
            .process(13, "old kernel", 12, "VmRSS:\t5 kB\n")
            .process(14, "zombie", 10, "State:\tZ (zombie)\n")
            .process(15, "of the zombie", 14, ONE)
            .process(20, "other", 1, "RssAnon:\t7777 kB\n");
        assert_eq!(
            tree_in(table.0.path(), 10).unwrap(),
            Tree {
                bytes: (110 + 1 + 1 + 5 + 1) * 1024,
                processes: 5,
                fallbacks: 1,
                unreadable: 0,
            }
        );
        assert_eq!(tree_in(table.0.path(), 13).unwrap().bytes, 5 * 1024);
    }

    #[test]
    fn a_ring_of_parents_is_counted_once() {
        let table = Table::new()
            .process(10, "a", 12, ONE)
            .process(11, "b", 10, ONE)
            .process(12, "c", 11, ONE);
        assert_eq!(tree_in(table.0.path(), 10).unwrap().bytes, 3 * 1024);
    }

    #[test]
    fn a_process_that_cannot_be_read_is_told() {
        let table = Table::new()
            .process(10, "a", 1, ONE)
            .process(11, "b", 10, ONE);
        // A directory in the place of the file cannot be read by anybody, root included.
        let status = table.0.path().join("11/status");
        fs::remove_file(&status).unwrap();
        fs::create_dir(&status).unwrap();
        let sum = tree_in(table.0.path(), 10).unwrap();
        assert_eq!((sum.bytes, sum.processes, sum.unreadable), (1024, 1, 1));
    }

    #[test]
    fn a_root_that_does_not_exist_is_an_error_and_not_a_zero() {
        let table = Table::new().process(10, "a", 1, ONE);
        let error = tree_in(table.0.path(), 99).unwrap_err();
        assert!(
            matches!(error, MemoryError::NoProcess { pid: 99 }),
            "{error}"
        );
    }
}
