//! Taking, seeing and releasing a lock, within one process.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};

use session_lock::{
    AcquireError, HeldReason, Inspection, Kind, Released, SessionLock, Standing, inspect,
};

use crate::support::Player;

#[test]
fn a_second_acquisition_is_told_who_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let lock = SessionLock::try_acquire(dir.path(), Kind::ChatNex).unwrap();
    let error = SessionLock::try_acquire(dir.path(), Kind::Adapter).unwrap_err();
    let AcquireError::Held {
        holder: Some(holder),
        reason: HeldReason::Guarded,
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(holder.pid, std::process::id());
    assert_eq!(holder.kind, Kind::ChatNex);
    assert_eq!(&holder, lock.holder());
}

#[test]
fn the_record_has_exactly_three_lines_and_goes_with_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let lock = SessionLock::try_acquire(dir.path(), Kind::from("my own kind")).unwrap();
    let record = fs::read_to_string(dir.path().join(".handler.pid")).unwrap();
    assert_eq!(
        record,
        format!(
            "{}\n{}\nmy own kind\n",
            std::process::id(),
            lock.holder().since
        )
    );
    assert!(inspect(dir.path()).unwrap().is_held());
    assert_eq!(lock.release().unwrap(), Released::Released);
    assert_eq!(inspect(dir.path()).unwrap(), Inspection::Free);
    let names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, [".handler.guard"]);
}

#[test]
fn generations_rise() {
    let dir = tempfile::tempdir().unwrap();
    let first = SessionLock::try_acquire(dir.path(), Kind::Adapter)
        .unwrap()
        .generation();
    let second = SessionLock::try_acquire(dir.path(), Kind::Adapter)
        .unwrap()
        .generation();
    fs::remove_file(dir.path().join(".handler.guard")).unwrap();
    let third = SessionLock::try_acquire(dir.path(), Kind::Adapter)
        .unwrap()
        .generation();
    assert!(first < second && second < third, "{first} {second} {third}");
}

#[test]
fn what_was_deleted_is_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut lock = SessionLock::try_acquire(dir.path(), Kind::Adapter).unwrap();
    assert_eq!(lock.verify().unwrap(), Standing::Held);
    for name in [".handler.pid", ".handler.guard"] {
        fs::remove_file(dir.path().join(name)).unwrap();
        assert!(
            SessionLock::try_acquire(dir.path(), Kind::Adapter).is_err(),
            "{name}"
        );
        assert_eq!(lock.verify().unwrap(), Standing::Repaired, "{name}");
        assert_eq!(lock.verify().unwrap(), Standing::Held, "{name}");
    }
    assert_eq!(lock.release().unwrap(), Released::Released);
}

#[test]
fn who_lost_both_files_is_told_who_came_instead() {
    let dir = tempfile::tempdir().unwrap();
    let mut lock = SessionLock::try_acquire(dir.path(), Kind::Adapter).unwrap();
    for name in [".handler.pid", ".handler.guard"] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    let mut other = Player::start("hold", dir.path());
    assert!(other.hear().starts_with("held"));
    let Standing::Lost { by: Some(by) } = lock.verify().unwrap() else {
        panic!()
    };
    assert_eq!(by.pid, other.pid());
    // The loser leaves the other one's files alone.
    drop(lock);
    assert_eq!(inspect(dir.path()).unwrap().holder().unwrap().pid, by.pid);
}

#[test]
fn a_lent_lock_outlives_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let lock = SessionLock::try_acquire(dir.path(), Kind::Adapter).unwrap();
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = lock.spawn_lent(&mut command).unwrap();
    assert_eq!(
        lock.release().unwrap(),
        Released::StillLent {
            pids: vec![child.id()]
        }
    );

    let error = SessionLock::try_acquire(dir.path(), Kind::Adapter).unwrap_err();
    let AcquireError::Held { reason, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(
        reason,
        HeldReason::Inherited {
            pids: vec![child.id()]
        }
    );
    assert!(inspect(dir.path()).unwrap().is_held());

    drop(child.stdin.take());
    let mut rest = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut rest)
        .unwrap();
    child.wait().unwrap();
    assert!(!inspect(dir.path()).unwrap().is_held());
    drop(SessionLock::try_acquire(dir.path(), Kind::Adapter).unwrap());
}

#[test]
fn a_guard_deleted_while_it_is_lent_does_not_let_others_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut lock = SessionLock::try_acquire(dir.path(), Kind::Adapter).unwrap();
    let mut cat = Command::new("cat");
    let mut child = lock
        .spawn_lent(cat.stdin(Stdio::piped()).stdout(Stdio::null()))
        .unwrap();
    fs::remove_file(dir.path().join(".handler.guard")).unwrap();
    assert_eq!(lock.verify().unwrap(), Standing::Repaired);
    assert_eq!(
        lock.release().unwrap(),
        Released::StillLent {
            pids: vec![child.id()]
        }
    );
    assert!(inspect(dir.path()).unwrap().is_held());
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn a_command_can_be_lent_to_again() {
    let dir = tempfile::tempdir().unwrap();
    let lock = SessionLock::try_acquire(dir.path(), Kind::Adapter).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "exit 3"]);
    for _ in 0..3 {
        assert_eq!(
            lock.spawn_lent(&mut command)
                .unwrap()
                .wait()
                .unwrap()
                .code(),
            Some(3)
        );
    }
    assert_eq!(lock.release().unwrap(), Released::Released);
}
