//! How much memory a handler and everything below it use, without mapped files: what would be free if they ended.

use std::collections::BTreeMap;
use std::fs;

/// The processes of this machine, as they were at one look.
#[derive(Debug, Default)]
pub(super) struct Trees {
    bytes: BTreeMap<u32, u64>,
}

impl Trees {
    /// Returns the memory of the tree that this process heads, if it was asked for and is there.
    pub(super) fn bytes(&self, root: u32) -> Option<u64> {
        self.bytes.get(&root).copied()
    }
}

/// Looks at the trees that these processes head.
pub(super) fn of_trees(roots: impl Iterator<Item = u32>) -> Trees {
    let roots: Vec<u32> = roots.collect();
    if roots.is_empty() {
        return Trees::default();
    }
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pid in processes() {
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let sum = |root: u32| {
        let own = anonymous(root)?;
        let mut total = own;
        let mut waiting = children.get(&root).cloned().unwrap_or_default();
        while let Some(pid) = waiting.pop() {
            total += anonymous(pid).unwrap_or(0);
            waiting.extend(children.get(&pid).into_iter().flatten());
        }
        Some((root, total))
    };
    Trees {
        bytes: roots.into_iter().filter_map(sum).collect(),
    }
}

fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The fourth field of `/proc/PID/stat`; the second may hold anything, and ends with the last parenthesis.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(1)?.parse().ok()
}

/// Pages that no file backs, resident and swapped out.
fn anonymous(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |label: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(label))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
    };
    Some((kib("RssAnon:")? + kib("VmSwap:").unwrap_or(0)) * 1024)
}

/// `12M`, `1.5G`: at most five characters.
pub(super) fn in_words(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes < MIB {
        return format!("{}K", bytes >> 10);
    }
    let mib = bytes / MIB;
    if mib < 1024 {
        format!("{mib}M")
    } else {
        format!("{}.{}G", mib / 1024, mib % 1024 * 10 / 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::{in_words, of_trees};

    #[test]
    fn this_process_has_memory_and_one_that_is_not_there_has_none() {
        let me = std::process::id();
        let trees = of_trees([me, u32::MAX].into_iter());
        assert!(trees.bytes(me).is_some_and(|bytes| bytes > 0));
        assert_eq!(trees.bytes(u32::MAX), None);
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, words) in [
            (0, "0K"),
            (900 << 10, "900K"),
            (12 << 20, "12M"),
            (1536 << 20, "1.5G"),
            (1023 << 20, "1023M"),
        ] {
            assert_eq!(in_words(bytes), words);
        }
    }
}
