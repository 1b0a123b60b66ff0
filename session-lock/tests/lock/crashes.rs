//! A process killed after any one step, and the one that comes next.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use session_lock::protocol::Step;
use session_lock::{Inspection, Kind, SessionLock, inspect};

use crate::support::{self, Idler, Player, lines, plant, say};

/// Takes and releases the lock, or is refused, and is killed after the step with the number `last`.
pub(crate) fn play(dir: &Path, last: &str) {
    let last: usize = last.parse().expect("a number");
    let done = AtomicUsize::new(0);
    let observer = move |step: Step| {
        if done.fetch_add(1, Ordering::Relaxed) == last {
            say(&format!("{step:?}"));
            support::signal(std::process::id(), "KILL");
        }
    };
    if let Ok(lock) = SessionLock::options().observe(observer).acquire(dir) {
        lock.release().expect("released");
    }
    say("done");
}

/// Kills a process after each step in turn, in a directory that `prepare` makes; returns the steps.
fn killed_after_each_step(prepare: impl Fn(&Path)) -> Vec<String> {
    let mut steps = Vec::new();
    loop {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let role = format!("crash {}", steps.len());
        let mut player = Player::start(&role, dir.path());
        let step = player.hear();
        player.finish();
        let looked = inspect(dir.path()).unwrap();
        assert!(!looked.is_held(), "after {step}: {looked:?}");
        let lock = SessionLock::try_acquire(dir.path(), Kind::Adapter);
        let lock = lock.unwrap_or_else(|error| panic!("after {step}: {error}"));
        assert_eq!(
            support::recorded_pid(dir.path()),
            std::process::id(),
            "after {step}"
        );
        drop(lock);
        assert_eq!(
            inspect(dir.path()).unwrap(),
            Inspection::Free,
            "after {step}"
        );
        let names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|it| it.unwrap().file_name())
            .collect();
        assert_eq!(names, [".handler.guard"], "after {step}");
        if step == "done" {
            return steps;
        }
        steps.push(step);
    }
}

#[test]
fn a_process_killed_after_any_step_of_taking_and_releasing_blocks_nobody() {
    let steps = killed_after_each_step(|_dir| {});
    let expected = [
        "OpenGuard",
        "LockGuard",
        "CheckGuard",
        "ReadGuard",
        "ReadRecord",
        "ClearMarker",
        "WriteClaim",
        "LinkRecord",
        "ConfirmGuard",
        "UnlinkRecord",
        "VoidRecord",
        "MarkFree",
        "UnlockGuard",
    ];
    assert_eq!(steps, expected);
}

#[test]
fn a_process_killed_after_any_step_of_succeeding_a_dead_one_blocks_nobody() {
    let steps = killed_after_each_step(|dir| {
        let mut holder = Player::start("hold", dir);
        holder.hear();
        holder.kill();
    });
    let expected = [
        "OpenGuard",
        "LockGuard",
        "CheckGuard",
        "ReadGuard",
        "ReadRecord",
        "ClearMarker",
        "WriteClaim",
        "StageRecord",
        "ExchangeRecords",
        "LookAtDisplaced",
        "DropStaged",
        "ConfirmGuard",
        "UnlinkRecord",
        "VoidRecord",
        "MarkFree",
        "UnlockGuard",
    ];
    assert_eq!(steps, expected);
}

#[test]
fn a_process_killed_after_any_step_of_giving_way_blocks_nobody() {
    for length in 0.. {
        let (dir, idler) = (tempfile::tempdir().unwrap(), Idler::new());
        plant(dir.path(), lines(idler.pid()));
        let mut player = Player::start(&format!("crash {length}"), dir.path());
        let step = player.hear();
        player.finish();
        drop(idler);
        drop(SessionLock::try_acquire(dir.path(), Kind::Adapter).unwrap());
        if step == "done" {
            assert!(length > 4, "it gave way after {length} steps");
            break;
        }
    }
}
