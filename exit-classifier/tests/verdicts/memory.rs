//! Memory figures of real processes.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::Read;

use exit_classifier::memory::cgroup::MemoryGroup;
use exit_classifier::memory::{
    LimitedBy, MemoryError, Source, basis, default_cap, host_memory, parse_status, resident, tree,
};

use crate::common::{Shell, look};

/// Reads one byte from a shell's output: what it wrote before waiting for its input.
fn wait_for_byte(shell: &mut Shell) {
    let mut byte = [0];
    let output = shell.child().stdout.as_mut().unwrap();
    output.read_exact(&mut byte).unwrap();
}

/// The named fields of a process's status in KiB.
fn fields(pid: u32, names: &[&str]) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let number = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    status
        .lines()
        .filter(|line| {
            names
                .iter()
                .any(|name| line.starts_with(&format!("{name}:")))
        })
        .filter_map(number)
        .sum()
}

#[test]
fn files_that_a_process_has_mapped_are_not_its_memory() {
    let mut shell = Shell::start("echo x; read line");
    wait_for_byte(&mut shell);
    let pid = shell.pid();
    let figure = resident(pid).unwrap();
    assert_eq!(figure.source, Source::AnonPlusShmem);
    assert_eq!(figure.bytes, fields(pid, &["RssAnon", "RssShmem"]) * 1024);
    // A shell has its own program and the C library mapped.
    assert!(figure.bytes < fields(pid, &["VmRSS"]) * 1024);
}

#[test]
fn memory_that_a_process_fills_is_seen() {
    const MUCH: usize = 64 << 20;
    let before = resident(std::process::id()).unwrap().bytes;
    let filled = vec![1_u8; MUCH];
    let after = resident(std::process::id()).unwrap().bytes;
    assert!(filled.iter().all(|byte| *byte == 1));
    // Other tests of this program may give memory back meanwhile, but none has nearly as much.
    assert!(after > before + MUCH as u64 / 2, "{before} {after}");
}

#[test]
fn the_tree_reaches_through_sessions_and_generations() {
    let mut shell =
        Shell::start("exec 3<&0; cat <&3 & setsid cat <&3 & sh -c 'cat <&3 & echo x; wait' & wait");
    wait_for_byte(&mut shell);
    let sum = tree(shell.pid()).unwrap();
    // Two shells and three cats. A `cat` may not have replaced its shell yet, but it is there.
    assert_eq!((sum.processes, sum.fallbacks, sum.unreadable), (5, 0, 0));
    assert!(sum.bytes > resident(shell.pid()).unwrap().bytes);
    drop(shell.close());
    shell.child().wait().unwrap();
}

#[test]
fn a_zombie_has_no_memory_and_a_missing_process_is_told_apart() {
    let mut shell = Shell::start("exit 0");
    let pid = shell.pid();
    look(pid);
    let error = resident(pid).unwrap_err();
    assert!(matches!(error, MemoryError::NoMemory { .. }), "{error}");
    let sum = tree(pid).unwrap();
    assert_eq!((sum.bytes, sum.processes), (0, 0));
    shell.child().wait().unwrap();

    // Above every possible id: the kernel's highest `pid_max` is 4,194,304.
    let nobody = 4_194_305;
    let error = resident(nobody).unwrap_err();
    assert!(matches!(error, MemoryError::NoProcess { .. }), "{error}");
    let error = tree(nobody).unwrap_err();
    assert_eq!(error.to_string(), "there is no process 4194305");
    let error = MemoryGroup::of(nobody).unwrap_err();
    assert!(matches!(error, MemoryError::NoProcess { .. }), "{error}");
}

#[test]
fn the_basis_is_never_more_than_the_machine_has() {
    let host = host_memory().unwrap();
    let basis = basis(std::process::id()).unwrap();
    assert!(basis.bytes <= host);
    assert_eq!(basis.limited_by == LimitedBy::Host, basis.bytes == host);
    let cap = default_cap(basis.bytes);
    assert!(0 < cap && cap < basis.bytes, "{cap} of {basis:?}");
}

#[test]
fn the_group_of_this_process_is_a_directory_if_it_can_be_seen() {
    let Some(group) = MemoryGroup::of(std::process::id()).unwrap() else {
        return;
    };
    assert!(group.dir().is_dir(), "{group:?}");
    let limit = group.limit().unwrap();
    assert_ne!(limit, Some(0));
    group.oom_kills().unwrap();
}

#[test]
fn every_status_on_this_machine_is_understood() {
    let mut understood = 0;
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path().join("status");
        let Ok(status) = fs::read_to_string(path) else {
            continue;
        };
        let has = |name| status.lines().any(|line| line.starts_with(name));
        assert_eq!(parse_status(&status).is_some(), has("VmRSS:"), "{status}");
        understood += 1;
    }
    assert!(understood > 1);
}
