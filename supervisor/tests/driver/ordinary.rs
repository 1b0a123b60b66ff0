//! The ordinary life of a unit, with real processes.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use crate::common::{Answer, Bench, LONG, UNIT, eager, shell, wait};
use supervisor::{Adopted, Holder, Notice, State, UnitId, tree};

#[test]
fn a_unit_that_crashes_is_started_again_and_a_stop_ends_that() {
    let bench = Bench::new();
    bench.add("kill -9 $$");
    bench.handle.start(UNIT);
    let first = bench.spawned(UNIT);
    let second = bench.spawned(UNIT);
    assert_ne!(first, second);
    wait(&bench.handle.stop(UNIT));
    let state = bench.handle.state(UNIT, LONG).unwrap().unwrap();
    assert!(matches!(state, State::Stopped { .. }), "{state:?}");
}

#[test]
fn a_unit_that_finished_its_work_is_not_started_again() {
    let bench = Bench::new();
    bench.add("exit 3");
    bench.handle.start(UNIT);
    bench.notice(|notice| *notice == Notice::Finished);
    assert!(matches!(
        bench.handle.state(UNIT, LONG),
        Ok(Some(State::Stopped { .. }))
    ));
}

#[test]
fn a_stop_sends_the_ladders_signal_and_reports_the_status() {
    let bench = Bench::new();
    bench.add("exec sleep 1000");
    bench.handle.start(UNIT);
    bench.spawned(UNIT);
    let down = wait(&bench.handle.stop(UNIT));
    assert_eq!(down.status.and_then(|status| status.signal()), Some(15));
    assert!(down.was_running && down.report.survivors.is_empty());
}

#[test]
fn a_missing_program_parks_the_unit_and_is_named() {
    let bench = Bench::new();
    bench.answer(UNIT, Answer::Run(vec!["/nowhere/at/all".into()]));
    bench.handle.add(
        UNIT,
        supervisor::Machine::new(eager(), 1, supervisor::clock::now()),
    );
    bench.handle.start(UNIT);
    let notice = bench.notice(|notice| matches!(notice, Notice::Parked { .. }));
    assert!(
        format!("{notice:?}").contains("/nowhere/at/all"),
        "{notice:?}"
    );
}

#[test]
fn while_a_watched_holder_lives_there_is_no_attempt_and_its_end_starts_the_unit() {
    let bench = Bench::new();
    let mut holder = Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let pid = holder.id();
    bench.add("exec sleep 1000");
    let start = tree::start_ticks(pid);
    bench.answer(
        UNIT,
        Answer::HeldBy(Holder {
            pid,
            start,
            label: "test".into(),
        }),
    );
    bench.handle.wake(UNIT);
    bench.notice(|notice| matches!(notice, Notice::Held { .. }));
    bench.handle.wake(UNIT);
    assert!(matches!(
        bench.handle.state(UNIT, LONG),
        Ok(Some(State::Held { .. }))
    ));
    assert!(
        bench.seen.is_empty(),
        "nothing was asked while the holder lived"
    );
    bench.answer(UNIT, shell("exec sleep 1000"));
    holder.kill().unwrap();
    bench.spawned(UNIT);
    holder.wait().unwrap();
}

#[test]
fn an_adopted_process_is_watched_and_its_status_is_known_once_it_was_reaped() {
    let bench = Bench::new();
    bench.add("exec sleep 1000");
    bench.answer(UNIT, Answer::NotNeeded);
    let mut process = Command::new("sh")
        .args(["-c", "read line; exit 42"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = process.id();
    let start = tree::start_ticks(pid).unwrap();
    assert_eq!(
        bench.handle.adopt(UNIT, pid, start, LONG),
        Ok(Adopted::Alive)
    );
    drop(process.stdin.take());
    process.wait().unwrap();
    let ended = bench.ended();
    assert!(ended.adopted);
    // Older kernels do not tell; then nobody can know.
    if let Some(status) = ended.status {
        assert_eq!(status.code(), Some(42));
    }
    bench.notice(|notice| *notice == Notice::Idle);
}

#[test]
fn a_recycled_pid_is_not_adopted() {
    let bench = Bench::new();
    bench.add("exec sleep 1000");
    bench.answer(UNIT, Answer::NotNeeded);
    let own = std::process::id();
    let start = tree::start_ticks(own).unwrap();
    assert_eq!(
        bench.handle.adopt(UNIT, own, start + 1, LONG),
        Ok(Adopted::Ended)
    );
    assert_eq!(bench.ended().status, None);
    assert_eq!(
        bench.handle.adopt(UnitId(99), own, start, LONG),
        Ok(Adopted::Refused)
    );
}

#[test]
fn a_restart_replaces_the_process_that_ran() {
    let bench = Bench::new();
    bench.add("exec sleep 1000");
    bench.handle.start(UNIT);
    let first = bench.spawned(UNIT);
    wait(&bench.handle.restart(UNIT));
    let second = bench.spawned(UNIT);
    assert_ne!(first, second);
    assert!(matches!(
        bench.handle.state(UNIT, LONG),
        Ok(Some(State::Running { pid, .. })) if pid == second
    ));
}
