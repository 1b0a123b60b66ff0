//! What a process does that a test has started.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use session_lock::{
    AcquireError, Kind, ReleaseWatch, SessionLock, TakeoverPolicy, Unproven, Wait, inspect,
    takeover,
};

use crate::crashes;
use crate::support::{command, listen, say};
use crate::torture;

pub(crate) fn play(role: &str, dir: &Path) {
    match role {
        "hold" => hold(dir),
        "try" => try_once(dir),
        "look" => say(&format!("{:?}", inspect(dir))),
        "lend" => lend(dir),
        "lend-to-a-taker" => lend_to_a_taker(dir),
        "take-over" => take_over(dir),
        "lend-often" => lend_often(dir),
        "exec" => exec(dir),
        "obey" => obey(dir),
        "wait" => wait(dir),
        "torture" => torture::play(dir),
        _with_plan => match role.split_once(' ') {
            Some(("crash", plan)) => crashes::play(dir, plan),
            Some(_) | None => panic!("there is no part `{role}`"),
        },
    }
}

fn hold(dir: &Path) {
    match SessionLock::try_acquire(dir, Kind::ChatNex) {
        Ok(lock) => {
            say(&format!("held {}", lock.generation()));
            listen();
            say(&format!("{:?}", lock.release()));
        }
        Err(error) => say(&format!("{error:?}")),
    }
}

fn try_once(dir: &Path) {
    match SessionLock::try_acquire(dir, Kind::ChatNex) {
        Ok(_lock) => say("got it"),
        Err(AcquireError::Held { reason, .. }) => say(&format!("held: {reason:?}")),
        Err(error) => say(&format!("failed: {error:?}")),
    }
}

/// Starts a child with the lock, names it, and releases when told to.
#[expect(
    clippy::zombie_processes,
    reason = "the child is to outlive this process"
)]
fn lend(dir: &Path) {
    let lock = SessionLock::try_acquire(dir, Kind::ChatNex).expect("free");
    // It waits for a writer of a pipe that nobody has but the test.
    let mut child = Command::new("cat");
    child
        .arg(dir.join("pipe"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0);
    let child = lock.spawn_lent(&mut child).expect("cat");
    say(&child.id().to_string());
    listen();
    say(&format!("{:?}", lock.release()));
}

/// Lends the lock to a process that tries to take it over, and releases when told to.
fn lend_to_a_taker(dir: &Path) {
    let lock = SessionLock::try_acquire(dir, Kind::ChatNex).expect("free");
    let mut taker = command(&[], "take-over", dir);
    taker.stdin(Stdio::null()).stdout(Stdio::inherit());
    let mut taker = lock.spawn_lent(&mut taker).expect("a process");
    assert!(taker.wait().expect("its end").success());
    listen();
    say(&format!("{:?}", lock.release()));
}

/// Takes over with no grace, and says what came of it.
fn take_over(dir: &Path) {
    let policy = TakeoverPolicy {
        request_grace: Duration::ZERO,
        term_grace: Duration::ZERO,
        kill_grace: Duration::from_secs(60),
        unproven: Unproven::Refuse,
    };
    say(&format!("{:?}", takeover(dir, &policy)));
}

/// Lends many times, and says how many descriptors that cost, and whether the lock is free afterwards.
fn lend_often(dir: &Path) {
    let lock = SessionLock::try_acquire(dir, Kind::ChatNex).expect("free");
    let open = || std::fs::read_dir("/proc/self/fd").expect("a list").count();
    let mut child = Command::new("cat");
    child
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut once = || {
        let output = lock.spawn_lent(&mut child).expect("cat").wait_with_output();
        assert!(output.expect("its end").status.success());
    };
    once();
    let before = open();
    (0..50).for_each(|_| once());
    say(&(open() - before).to_string());
    say(&format!("{:?}", lock.release()));
}

/// Becomes another program while it holds the lock.
fn exec(dir: &Path) {
    let lock = SessionLock::try_acquire(dir, Kind::ChatNex).expect("free");
    say(&format!("held {}", lock.generation()));
    listen();
    let mut next = command(&[], "try", dir);
    next.stdin(Stdio::inherit()).stdout(Stdio::inherit());
    panic!("{}", next.exec());
}

/// Releases when it is asked to.
fn obey(dir: &Path) {
    let lock = SessionLock::try_acquire(dir, Kind::ChatNex).expect("free");
    let mut watch = ReleaseWatch::new(&lock).expect("a watch");
    say("held");
    assert!(
        watch
            .wait(Instant::now() + Duration::from_secs(60))
            .expect("an event")
    );
    say(&format!("{:?}", lock.release()));
    listen();
}

/// Waits for the lock.
fn wait(dir: &Path) {
    say("waiting");
    let wait = Wait::Until(Instant::now() + Duration::from_secs(60));
    let lock = SessionLock::options()
        .kind(Kind::ChatNex)
        .wait(wait)
        .acquire(dir);
    say(&format!(
        "got it {}",
        lock.expect("free in time").generation()
    ));
    listen();
}
