//! Processes that may not be looked into.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::{Bench, UNIT, wait};

/// Root may look into everything: as root, the test is run again by a user that nothing else here runs as.
const NOBODY_ELSE: u32 = 65_531;

/// Returns a copy of a program with this mode.
///
/// Written by another process: a descriptor that is open for writing here would be inherited by whatever another test's thread
/// starts at this moment, and executing the copy would then fail with ETXTBSY.
fn copy(program: &Path, directory: &Path, mode: u32) -> PathBuf {
    let copy = directory.join("program");
    let copied = Command::new("cp").arg(program).arg(&copy).status().unwrap();
    assert!(copied.success(), "cp: {copied}");
    fs::set_permissions(&copy, Permissions::from_mode(mode)).unwrap();
    copy
}

#[test]
fn what_may_not_be_looked_into_is_counted_and_makes_a_stop_a_best_effort() {
    if rustix::process::geteuid().is_root() {
        return as_somebody_else(
            "dark::what_may_not_be_looked_into_is_counted_and_makes_a_stop_a_best_effort",
        );
    }
    let bench = Bench::new();
    bench.add_announced(": >$READY; exec sleep 1000");
    bench.handle.start(UNIT);
    bench.spawned(UNIT);
    bench.wait_ready();
    let down = wait(&bench.handle.stop(UNIT));
    assert_eq!(down.report.unreadable, 0, "nothing is hidden yet");
    assert!(!down.report.best_effort());

    bench.handle.start(UNIT);
    bench.spawned(UNIT);
    bench.wait_ready();
    // The kernel hides the memory of a program that its user may run and not read.
    let directory = tempfile::tempdir().unwrap();
    let sleep = Path::new("/bin/sleep").canonicalize().unwrap();
    let mut dark = Command::new(copy(&sleep, directory.path(), 0o111))
        .arg("1000")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let down = wait(&bench.handle.stop(UNIT));
    dark.kill().unwrap();
    dark.wait().unwrap();
    assert_eq!(down.report.unreadable, 1);
    assert!(down.report.best_effort());
    assert_eq!(down.report.survivors, []);
}

#[track_caller]
fn as_somebody_else(test: &str) {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let own = std::env::current_exe().unwrap();
    let program = copy(&own, directory.path(), 0o755);
    let output = Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .current_dir("/")
        .uid(NOBODY_ELSE)
        .gid(NOBODY_ELSE)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && told.contains("1 passed"),
        "{told}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
