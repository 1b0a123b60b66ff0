//! Ending a tree without a driver.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use supervisor::tree::{self, Marker};

use crate::common::{LONG, MARKER};

/// A child that does not outlive its test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have been ended and reaped, then there is nothing to kill.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Returns a marker's value that no other run of these tests uses.
fn own(value: &str) -> String {
    format!("{}/{value}", std::process::id())
}

/// Starts a script that writes a line when it is ready.
fn tree_of(script: &str, value: &str) -> Guard {
    let mut child = Command::new("sh")
        .args(["-c", script])
        .env(MARKER, own(value))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("because there is a shell");
    let mut byte = [0];
    let stdout = child.stdout.as_mut().expect("because it is piped");
    stdout.read_exact(&mut byte).expect("because it says so");
    Guard(child)
}

#[test]
fn a_tree_is_ended_with_its_leader() {
    let script = "setsid sleep 1000 & sleep 1000 & echo; trap '' TERM; wait";
    let mut child = tree_of(script, "tree/1");
    let start = tree::start_ticks(child.0.id()).unwrap();
    let report = tree::end(Some((child.0.id(), start)), None, LONG, &mut |_| false).unwrap();
    assert_eq!(
        (report.ended.len(), report.survivors.len()),
        (2, 0),
        "{report:?}"
    );
    assert_eq!(child.0.wait().unwrap().signal(), Some(9));
}

#[test]
fn carriers_of_a_marker_are_ended_and_others_with_another_value_stay() {
    let _one = tree_of("sleep 1000 & echo; wait", "tree/2/a");
    let _other = tree_of("echo; exec sleep 1000", "tree/3/a");
    let marker = |prefix: &str| Marker {
        name: MARKER.into(),
        prefix: own(prefix),
    };
    let report = tree::end(None, Some(&marker("tree/2/")), LONG, &mut |_| false).unwrap();
    assert_eq!(report.ended.len(), 2, "{report:?}");
    assert_eq!(tree::carriers(&marker("tree/3/")).unwrap().0.len(), 1);
}

#[test]
fn what_is_exempt_stays_and_is_no_survivor() {
    let child = tree_of("echo; exec sleep 1000", "tree/4");
    let marker = Marker {
        name: MARKER.into(),
        prefix: own("tree/4"),
    };
    let spared = child.0.id();
    let report = tree::end(None, Some(&marker), Duration::ZERO, &mut |pid| {
        pid == spared
    })
    .unwrap();
    assert_eq!((report.ended.len(), report.survivors.len()), (0, 0));
}

#[test]
fn a_leader_whose_pid_belongs_to_somebody_else_by_now_is_not_touched() {
    let child = tree_of("echo; exec sleep 1000", "tree/5");
    let start = tree::start_ticks(child.0.id()).unwrap();
    let report = tree::end(Some((child.0.id(), start + 1)), None, LONG, &mut |_| false).unwrap();
    assert_eq!(report, tree::Report::default());
    assert!(tree::is_alive(child.0.id(), start));
}

#[test]
fn a_carrier_that_becomes_another_program_without_end_is_ended_and_its_environment_is_waited_for() {
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("program");
    // Each round is a new program: half of the time it has no environment that could be read.
    let script = "exec sh \"$0\"\n";
    std::fs::write(&program, script).unwrap();
    for round in 0..10 {
        let value = format!("tree/6/{round}/");
        let child = Command::new("sh")
            .args(["-c", "exec sh \"$PROGRAM\""])
            .env("PROGRAM", &program)
            .env(MARKER, own(&value))
            .stdin(Stdio::null())
            .spawn()
            .expect("because there is a shell");
        let guard = Guard(child);
        let marker = Marker {
            name: MARKER.into(),
            prefix: own(&value),
        };
        let report = tree::end(None, Some(&marker), LONG, &mut |_| false).unwrap();
        assert_eq!(
            (report.ended.len(), report.survivors.len()),
            (1, 0),
            "round {round}"
        );
        drop(guard);
    }
}

#[test]
fn carriers_that_end_faster_than_they_are_looked_at_are_ended_with_those_they_leave_behind() {
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("program");
    // There is one of them at a time, for a few milliseconds.
    let script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; sh \"$0\" & exit";
    std::fs::write(&program, script).unwrap();
    for round in 0..10 {
        let value = format!("tree/7/{round}/");
        let child = Command::new("sh")
            .arg(&program)
            .env(MARKER, own(&value))
            .stdin(Stdio::null())
            .spawn()
            .expect("because there is a shell");
        let mut guard = Guard(child);
        // From here on only the marker leads to them.
        guard.0.wait().unwrap();
        let marker = Marker {
            name: MARKER.into(),
            prefix: own(&value),
        };
        let report = tree::end(None, Some(&marker), LONG, &mut |_| false).unwrap();
        assert!(!report.ended.is_empty(), "round {round}");
        assert_eq!(report.survivors, [], "round {round}");
        let left = tree::end(None, Some(&marker), LONG, &mut |_| false).unwrap();
        assert_eq!(left.ended, [], "round {round}");
    }
}
