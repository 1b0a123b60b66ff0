//! A process that the kernel really ends for lack of memory, where this machine lets us make a control group.
#![cfg(target_os = "linux")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use exit_classifier::memory::cgroup::{MemoryGroup, Version};
use exit_classifier::{Cause, Counts, Observation, RuleSet};

use crate::common::{Shell, check, seen, signal};

/// 32 MiB.
const LIMIT: &str = "33554432";

/// A control group of our own, removed at the end.
struct Group(PathBuf);

impl Group {
    /// Makes a group with a limit of 32 MiB and no swap below that of this process, or says why that is not possible here.
    fn make() -> io::Result<(Self, MemoryGroup)> {
        let own = MemoryGroup::of(std::process::id())
            .map_err(io::Error::other)?
            .ok_or_else(|| io::Error::other("no memory control group"))?;
        let dir = own
            .dir()
            .join(format!("exit-classifier-test-{}", std::process::id()));
        fs::create_dir(&dir)?;
        let group = Self(dir.clone());
        let v1 = own.version() == Version::V1;
        let (limit, swap, no_swap) = if v1 {
            // Version 1 limits memory and swap together.
            (
                "memory.limit_in_bytes",
                "memory.memsw.limit_in_bytes",
                LIMIT,
            )
        } else {
            ("memory.max", "memory.swap.max", "0")
        };
        fs::write(dir.join(limit), LIMIT)?;
        if dir.join(swap).exists() {
            fs::write(dir.join(swap), no_swap)?;
        }
        let told = MemoryGroup::at(&dir, own.version());
        // A control group whose count cannot be read proves nothing either way.
        told.oom_kills()
            .map_err(io::Error::other)?
            .ok_or_else(|| io::Error::other("no count of kills"))?;
        Ok((group, told))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).ok();
    }
}

/// Runs a script inside the group and returns what was seen of it.
fn run_in(group: &MemoryGroup, dir: &Path, script: &str) -> Observation<'static> {
    let before = group.oom_kills().unwrap().unwrap();
    let procs = dir.join("cgroup.procs");
    let ending = Shell::start(&format!(
        "echo $$ > {} || exit 97; {script}",
        procs.display()
    ))
    .end();
    let after = group.oom_kills().unwrap().unwrap();
    Observation {
        oom_kills: after - before,
        ..seen(ending)
    }
}

#[test]
fn a_kill_by_the_kernel_is_told_from_a_kill_by_somebody() {
    let (group, told) = match Group::make() {
        Ok(made) => made,
        Err(error) => {
            eprintln!("no control group can be made here, so nothing is shown: {error}");
            return;
        }
    };
    assert_eq!(told.limit().unwrap(), Some(32 << 20));

    // `tail` keeps what it has read since the last line break, and there is none.
    let starved = run_in(&told, &group.0, "exec tail /dev/zero");
    assert_eq!((starved.ending, starved.oom_kills), (signal(9), 1));
    let rules = RuleSet::handler();
    check(
        &rules,
        &starved,
        Cause::OutOfMemory,
        Counts::Crash,
        "out_of_memory",
    );

    let killed = run_in(&told, &group.0, "kill -9 $$");
    assert_eq!((killed.ending, killed.oom_kills), (signal(9), 0));
    check(&rules, &killed, Cause::Killed, Counts::Crash, "killed");

    // Inside a shell that lives on, it is code 137 and the same count.
    let inner = run_in(&told, &group.0, "tail /dev/zero; exit $?");
    assert_eq!(inner.ending, exit_classifier::Ending::Code(137));
    check(
        &rules,
        &inner,
        Cause::OutOfMemory,
        Counts::Crash,
        "out_of_memory_137",
    );
}
