//! The short form of the long test: `examples/torture` for a moment each.

#[path = "../../examples/torture/run.rs"]
mod run;
#[path = "../../examples/torture/shared.rs"]
mod shared;

use std::path::Path;
use std::time::Duration;

use run::{Delete, Faults, Plan};

use crate::support::command;

pub(crate) fn play(folder: &Path) {
    run::work(folder).unwrap();
}

#[track_caller]
fn check(processes: usize, faults: Faults, delete: Delete) {
    let seed = u64::from(std::process::id());
    let time = Duration::from_millis(700);
    let plan = Plan {
        processes,
        faults,
        delete,
        place: std::env::temp_dir(),
        time,
        seed,
    };
    println!("{plan:?}");
    let outcome = run::run(&plan, |folder| command(&[], "torture", folder)).unwrap();
    println!("{outcome:?}");
    assert_eq!(outcome.violations(), 0, "{plan:?}: {outcome:?}");
    assert!(outcome.entries > 0, "{outcome:?}");
    let quiet = faults == Faults::None && delete == Delete::Nothing;
    assert!(
        quiet || outcome.kills + outcome.stops + outcome.deletions > 0,
        "{outcome:?}"
    );
}

#[test]
fn there_is_one_owner() {
    check(2, Faults::None, Delete::Nothing);
}

#[test]
fn there_is_one_owner_while_processes_are_killed() {
    check(4, Faults::Kill, Delete::Nothing);
}

#[test]
fn there_is_one_owner_while_processes_are_stopped() {
    check(4, Faults::Stop, Delete::Nothing);
}

#[test]
fn there_is_one_owner_while_the_record_is_deleted() {
    check(4, Faults::KillAndStop, Delete::Record);
}

#[test]
fn there_is_one_owner_while_the_guard_is_deleted() {
    check(4, Faults::KillAndStop, Delete::Guard);
}
