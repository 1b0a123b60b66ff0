//! Children that do not want to go, or go at the wrong moment.

use std::time::Duration;

use supervisor::{Machine, Notice, State, UnitId, clock, tree};

use crate::common::{Answer, Bench, LONG, Seen, UNIT, eager, reap, shell, wait};

/// Starts unit 1 with this script and waits until the script says it is ready, by
/// making a file whose path is in `$READY`.
fn ready(script: &str) -> Bench {
    let bench = Bench::new();
    bench.grace(Duration::from_millis(100));
    bench.add_announced(script);
    bench.handle.start(UNIT);
    bench.spawned(UNIT);
    bench.wait_ready();
    bench
}

#[track_caller]
fn stops_without_a_trace(bench: &Bench, ended_at_least: usize) {
    let down = wait(&bench.handle.stop(UNIT));
    assert_eq!(down.report.survivors, []);
    assert!(
        down.report.ended.len() >= ended_at_least,
        "{:?}",
        down.report
    );
    assert_eq!(bench.carriers(), []);
}

#[test]
fn a_child_that_ignores_sigterm_is_killed_after_its_grace() {
    let bench = ready("trap '' TERM; : >$READY; while :; do sleep 1000; done");
    stops_without_a_trace(&bench, 0);
}

#[test]
fn fifty_forks_are_gone_with_their_parent() {
    let bench = ready("for i in $(seq 50); do sleep 1000 & done; : >$READY; wait");
    stops_without_a_trace(&bench, 50);
}

#[test]
fn a_child_that_made_a_session_of_its_own_is_found() {
    let bench = ready("setsid sh -c 'sleep 1000 & : >$READY; wait' & wait");
    stops_without_a_trace(&bench, 2);
}

#[test]
fn a_double_fork_whose_parent_is_gone_is_found() {
    let bench = ready("(setsid sh -c 'trap \"\" TERM HUP; : >$READY; sleep 1000' &) ; sleep 1000");
    stops_without_a_trace(&bench, 1);
}

#[test]
fn what_a_crashed_process_leaves_behind_is_ended_before_its_end_is_judged() {
    let bench = Bench::new();
    bench.add_announced("setsid sleep 1000 & : >$READY; wait");
    bench.handle.start(UNIT);
    let pid = bench.spawned(UNIT);
    bench.wait_ready();
    let left = tree::descendants(pid).unwrap();
    assert_eq!(left.len(), 1);
    bench.signal(pid, 9);
    let ended = bench.ended();
    let identity = |process: &tree::Process| (process.pid, process.start);
    let ended: Vec<_> = ended.leftovers.ended.iter().map(identity).collect();
    assert_eq!(ended, [identity(&left[0])]);
    assert!(!tree::is_alive(left[0].pid, left[0].start));
}

#[test]
fn a_fork_bomb_that_is_being_killed_does_not_outrun_its_end() {
    let script = "trap '' TERM; f() { sleep 1000 & sh -c 'sleep 1000 & sleep 1000' & }; \
                  i=0; while [ $i -lt 400 ]; do f; i=$((i+1)); \
                  [ $i -eq 20 ] && : >$READY; done; wait";
    let bench = ready(script);
    stops_without_a_trace(&bench, 1);
}

#[test]
fn a_child_that_is_dead_already_is_down_at_once_although_it_has_not_been_noticed() {
    let bench = ready(": >$READY; exec sleep 1000");
    let pid = running_pid(&bench);
    bench.signal(pid, 9);
    let down = wait(&bench.handle.stop(UNIT));
    assert_eq!(down.report.survivors, []);
    assert!(matches!(
        bench.handle.state(UNIT, LONG),
        Ok(Some(State::Stopped { .. }))
    ));
}

#[test]
fn a_child_that_exits_between_the_signal_and_the_wait_is_down_with_its_status() {
    for _ in 0..20 {
        let bench = ready("trap 'exit 7' TERM; : >$READY; while :; do sleep 0.01; done");
        let down = wait(&bench.handle.stop(UNIT));
        assert!(down.status.is_some());
        assert_eq!(bench.carriers(), []);
    }
}

#[test]
fn a_grandchild_that_holds_standard_output_does_not_hide_the_exit() {
    let bench = Bench::new();
    bench.add("sleep 1000 & exit 3");
    bench.handle.start(UNIT);
    assert_eq!(
        bench.ended().status.and_then(|status| status.code()),
        Some(3)
    );
    assert_eq!(bench.carriers(), []);
}

#[test]
fn a_child_that_is_stopped_by_a_signal_is_killed_all_the_same() {
    let bench = ready(": >$READY; exec sleep 1000");
    bench.signal(running_pid(&bench), 19);
    stops_without_a_trace(&bench, 0);
}

#[test]
fn a_process_that_cleared_its_environment_below_a_live_parent_is_found() {
    let bench = ready("setsid env -i READY=$READY sh -c 'sleep 1000 & : >$READY; wait; :' & wait");
    let pid = running_pid(&bench);
    let below = tree::descendants(pid).unwrap();
    let down = wait(&bench.handle.stop(UNIT));
    assert!(down.report.ended.len() >= 2, "{below:?} {down:?}");
    for process in below {
        assert!(!tree::is_alive(process.pid, process.start));
    }
}

#[test]
fn a_second_stop_and_a_kill_join_the_first() {
    let bench = Bench::new();
    bench.add_announced("trap '' TERM; : >$READY; while :; do sleep 1000; done");
    bench.handle.start(UNIT);
    bench.spawned(UNIT);
    bench.wait_ready();
    // The grace is far longer than the test: only the kill can end this.
    let first = bench.handle.stop(UNIT);
    let second = bench.handle.stop(UNIT);
    let kill = bench.handle.kill(UNIT);
    for completion in [first, second, kill] {
        assert!(wait(&completion).was_running);
    }
}

#[test]
fn bad_programs_are_decided_about_at_once_and_named() {
    let directory = std::env::temp_dir();
    let not_executable = std::path::Path::new("/etc/hostname");
    for (unit, program) in [
        (UnitId(11), "/nowhere/at/all".to_owned()),
        (UnitId(12), directory.display().to_string()),
        (UnitId(13), not_executable.display().to_string()),
        (UnitId(14), "a\0b".to_owned()),
    ] {
        let bench = Bench::new();
        bench.answer(unit, Answer::Run(vec![program.clone()]));
        bench
            .handle
            .add(unit, Machine::new(eager(), 1, clock::now()));
        bench.handle.start(unit);
        let notice = bench.notice(|notice| matches!(notice, Notice::Parked { .. }));
        let named = program.split('\0').next().unwrap_or_default();
        assert!(format!("{notice:?}").contains(named), "{notice:?}");
    }
}

#[test]
fn a_refusal_of_the_host_parks_and_nothing_is_started() {
    let bench = Bench::new();
    bench.add("true");
    bench.answer(UNIT, Answer::Refuse);
    bench.handle.start(UNIT);
    bench.notice(|notice| matches!(notice, Notice::Parked { .. }));
    assert!(bench.seen.is_empty());
}

#[test]
fn forty_units_are_stopped_together_with_everything_below_them() {
    let bench = Bench::new();
    bench.grace(Duration::from_millis(50));
    let script = "trap '' TERM; setsid sleep 1000 & while :; do sleep 1000; done";
    for number in 0..40 {
        let unit = UnitId(number);
        bench.answer(unit, shell(script));
        bench
            .handle
            .add(unit, Machine::new(eager(), number, clock::now()));
        bench.handle.start(unit);
    }
    for number in 0..40 {
        let mut found = false;
        while !found {
            if let Seen::Spawned(UnitId(of), ..) = bench.next() {
                found = of == number;
            }
        }
    }
    let stops: Vec<_> = (0..40)
        .map(|number| bench.handle.stop(UnitId(number)))
        .collect();
    for stop in &stops {
        assert_eq!(wait(stop).report.survivors, []);
    }
    assert_eq!(bench.carriers(), []);
}

#[test]
fn a_driver_that_nobody_controls_any_more_stops_its_units() {
    let bench = ready(": >$READY; exec sleep 1000");
    let marker = tree::Marker {
        name: crate::common::MARKER.into(),
        prefix: format!("{}/", bench.marker),
    };
    let seen = bench.seen.clone();
    bench.abandon();
    // The driver drops its end when its thread is done.
    while seen.recv_timeout(LONG).is_ok() {}
    assert_eq!(tree::carriers(&marker).unwrap().0, []);
}

#[test]
fn units_that_are_left_running_are_found_and_adopted_by_the_next_driver() {
    let first = ready("trap 'exit 5' TERM; : >$READY; while :; do sleep 0.01; done");
    let pid = running_pid(&first);
    let start = tree::start_ticks(pid).unwrap();
    let left = first.handle.shutdown(supervisor::Shutdown::LeaveRunning);
    wait(&left);
    first.handle.join();
    assert_eq!(tree::start_ticks(pid), Some(start), "it still runs");

    let second = Bench::new();
    second.share_marker(&first);
    second.add("exit 3");
    assert_eq!(
        second.handle.adopt(UNIT, pid, start, LONG),
        Ok(supervisor::Adopted::Alive)
    );
    let stop = second.handle.stop(UNIT);
    // It is a child of this test, which has to reap it; the kernel tells its
    // status after that.
    reap(pid);
    let down = wait(&stop);
    assert_eq!(down.report.survivors, []);
    if let Some(status) = down.status {
        assert_eq!(status.code(), Some(5));
    }
}

fn running_pid(bench: &Bench) -> u32 {
    let state = bench.handle.state(UNIT, LONG).expect("because it answers");
    let process = state.and_then(|state| state.process());
    process.expect("because it runs").0
}

#[test]
fn a_stop_of_something_that_does_not_run_resolves_at_once() {
    let bench = Bench::new();
    bench.add("true");
    assert!(!wait(&bench.handle.stop(UNIT)).was_running);
    assert!(!wait(&bench.handle.stop(UnitId(77))).was_running);
    assert!(!wait(&bench.handle.remove(UNIT)).was_running);
    assert_eq!(bench.handle.state(UNIT, LONG), Ok(None));
}
