//! Holders that are killed, stopped, forked, replaced, namespaced, or share their number with another.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use session_lock::{
    AcquireError, HeldReason, Inspection, Kind, Liveness, ProcessIdentity, Released, SessionLock,
    Standing, inspect,
};

use crate::support::{self, Idler, Player, lines, plant, recorded_pid, signal, works};
use crate::sys::in_forked_child;

fn take(dir: &Path) -> Result<SessionLock, AcquireError> {
    SessionLock::try_acquire(dir, Kind::Adapter)
}

#[track_caller]
fn reason(dir: &Path) -> HeldReason {
    let error = take(dir).unwrap_err();
    let AcquireError::Held { reason, .. } = error else {
        panic!("{error:?}")
    };
    reason
}

#[test]
fn a_killed_holder_leaves_nothing_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Player::start("hold", dir.path());
    let held = holder.hear();
    assert_eq!(reason(dir.path()), HeldReason::Guarded);
    holder.kill();
    let lock = take(dir.path()).unwrap();
    let generation: u64 = held.strip_prefix("held ").unwrap().parse().unwrap();
    assert!(lock.generation() > generation);
}

#[test]
fn a_stopped_holder_is_not_robbed_whichever_file_is_deleted() {
    for file in [support::guard, support::record] {
        let dir = tempfile::tempdir().unwrap();
        let mut holder = Player::start("hold", dir.path());
        holder.hear();
        holder.signal("STOP");
        assert_eq!(reason(dir.path()), HeldReason::Guarded);
        fs::remove_file(file(dir.path())).unwrap();
        assert!(inspect(dir.path()).unwrap().is_held());
        assert!(take(dir.path()).is_err());
        holder.signal("CONT");
        holder.tell("");
        let said = holder.hear();
        assert!(
            ["Ok(Released)", "Ok(AlreadyGone)"].contains(&said.as_str()),
            "{said}"
        );
        drop(take(dir.path()).unwrap());
    }
}

#[test]
fn a_forked_child_cannot_release_its_parents_lock() {
    let dir = tempfile::tempdir().unwrap();
    let mut lock = Some(take(dir.path()).unwrap());
    in_forked_child(|| matches!(lock.take().unwrap().release(), Ok(Released::NotMine { .. })));
    in_forked_child(|| {
        drop(lock.take());
        true
    });
    in_forked_child(|| matches!(lock.as_mut().unwrap().verify(), Ok(Standing::Lost { .. })));
    assert_eq!(recorded_pid(dir.path()), std::process::id());
    let mut other = Player::start("try", dir.path());
    assert_eq!(other.hear(), "held: Guarded");
    assert_eq!(lock.as_mut().unwrap().verify().unwrap(), Standing::Held);
    assert_eq!(lock.take().unwrap().release().unwrap(), Released::Released);
}

#[test]
fn a_lock_is_free_for_the_next_at_once_while_other_threads_spawn() {
    let dir = tempfile::tempdir().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let spawner = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(Ordering::Relaxed) {
                assert!(Command::new("true").status().unwrap().success());
            }
        }
    });
    for turn in 0..2000 {
        let lock = take(dir.path()).unwrap_or_else(|error| panic!("turn {turn}: {error}"));
        assert_eq!(lock.release().unwrap(), Released::Released, "turn {turn}");
    }
    stop.store(true, Ordering::Relaxed);
    spawner.join().unwrap();
}

#[test]
fn no_other_child_inherits_a_lent_guard() {
    let dir = tempfile::tempdir().unwrap();
    let lock = take(dir.path()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let bystanders: Vec<_> = (0..2)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut seen = 0;
                while !stop.load(Ordering::Relaxed) {
                    let listed = Command::new("ls")
                        .args(["-l", "/proc/self/fd"])
                        .output()
                        .unwrap();
                    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
                    assert!(!listed.contains(".handler.guard"), "{listed}");
                    seen += 1;
                }
                seen
            })
        })
        .collect();
    for _ in 0..100 {
        let mut command = Command::new("ls");
        command.args(["-l", "/proc/self/fd"]).stdout(Stdio::piped());
        let listed = lock
            .spawn_lent(&mut command)
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert!(String::from_utf8_lossy(&listed.stdout).contains(".handler.guard"));
    }
    stop.store(true, Ordering::Relaxed);
    let seen: u32 = bystanders
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .sum();
    assert!(seen > 0, "nobody else spawned");
    assert_eq!(lock.release().unwrap(), Released::Released);
}

#[test]
fn a_lent_child_has_its_own_pipes_directory_and_environment() {
    let dir = tempfile::tempdir().unwrap();
    let lock = take(dir.path()).unwrap();
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "read line; echo \"$line $WORD $(pwd)\"; echo wrong >&2; exit 7",
    ]);
    command
        .env("WORD", "word")
        .current_dir("/")
        .stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = lock.spawn_lent(&mut command).unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"line\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "line word /\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "wrong\n");
    assert_eq!(output.status.code(), Some(7));
    let error = lock
        .spawn_lent(&mut Command::new("/nonexistent"))
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_lent_child_that_asks_for_a_parent_death_signal_lives() {
    if !works("setpriv", &["--pdeathsig", "KILL", "true"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let lock = take(dir.path()).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = lock.spawn_lent(&mut command).unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    std::io::Write::write_all(&mut stdin, b"x").unwrap();
    std::io::Read::read_exact(&mut stdout, &mut [0]).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn lending_costs_no_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    let mut lender = Player::start("lend-often", dir.path());
    assert_eq!(lender.hear(), "0");
    assert_eq!(lender.hear(), "Ok(Released)");
}

#[test]
fn the_work_of_a_killed_holder_keeps_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut holder = Player::start("lend", dir.path());
    let borrower: u32 = holder.hear().parse().unwrap();
    holder.kill();
    let watch = session_lock::watch(borrower).unwrap().unwrap();

    assert_eq!(
        reason(dir.path()),
        HeldReason::Inherited {
            pids: vec![borrower]
        }
    );
    let Inspection::Held(held) = inspect(dir.path()).unwrap() else {
        panic!("free")
    };
    assert_eq!(held.holder.unwrap().pid, holder.pid());
    assert_eq!(held.liveness, Some(Liveness::Dead));
    assert_eq!(
        held.reason,
        HeldReason::Inherited {
            pids: vec![borrower]
        }
    );

    // The writer's end opens and closes, so the borrower ends.
    drop(
        File::options()
            .write(true)
            .open(dir.path().join("pipe"))
            .unwrap(),
    );
    assert!(
        watch
            .wait(std::time::Instant::now() + std::time::Duration::from_secs(60))
            .unwrap()
    );
    drop(take(dir.path()).unwrap());
}

#[test]
fn a_holder_that_released_while_its_child_works_is_succeeded_after_the_child() {
    let dir = tempfile::tempdir().unwrap();
    nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut holder = Player::start("lend", dir.path());
    let borrower: u32 = holder.hear().parse().unwrap();
    holder.tell("");
    assert_eq!(
        holder.hear(),
        format!("Ok(StillLent {{ pids: [{borrower}] }})")
    );
    assert_eq!(
        reason(dir.path()),
        HeldReason::Inherited {
            pids: vec![borrower]
        }
    );
    let watch = session_lock::watch(borrower).unwrap().unwrap();
    drop(
        File::options()
            .write(true)
            .open(dir.path().join("pipe"))
            .unwrap(),
    );
    assert!(
        watch
            .wait(std::time::Instant::now() + std::time::Duration::from_secs(60))
            .unwrap()
    );
    drop(take(dir.path()).unwrap());
}

#[test]
fn a_program_that_replaced_itself_adopts_its_own_lock() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Player::start("exec", dir.path());
    assert!(holder.hear().starts_with("held "));
    holder.tell("");
    assert_eq!(holder.hear(), "got it");
    assert!(holder.finish().success());
}

#[test]
fn a_holder_that_replaced_its_program_is_respected() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Player::start("exec", dir.path());
    holder.hear();
    // The same as if it had replaced its program: the guard is free, the identity is alive.
    let text = fs::read(support::guard(dir.path())).unwrap();
    fs::remove_file(support::guard(dir.path())).unwrap();
    fs::write(support::guard(dir.path()), text).unwrap();
    assert_eq!(reason(dir.path()), HeldReason::Unguarded);
    holder.kill();
    drop(take(dir.path()).unwrap());
}

#[test]
fn a_number_given_to_another_process_does_not_keep_the_directory() {
    let last_pid = "/proc/sys/kernel/ns_last_pid";
    if !support::is_root("choosing the next process number") || !Path::new(last_pid).exists() {
        return;
    }
    for _ in 0..50 {
        let dir = tempfile::tempdir().unwrap();
        let mut holder = Player::start("hold", dir.path());
        holder.hear();
        let pid = holder.pid();
        let before = ProcessIdentity::of(pid).unwrap().unwrap();
        holder.kill();
        fs::write(last_pid, (pid - 1).to_string()).unwrap();
        let idler = Idler::new();
        if idler.pid() != pid || before.is_alive() {
            // Another process was faster, or the two started in one tick of the clock.
            continue;
        }
        let Inspection::Stale { liveness, .. } = inspect(dir.path()).unwrap() else {
            panic!()
        };
        assert_eq!(liveness, Liveness::Reused);
        assert!(
            session_lock::PidWatch::of(&before).unwrap().is_none(),
            "no signal can reach it"
        );
        drop(take(dir.path()).unwrap());
        return;
    }
    panic!("the number could not be had in 50 tries");
}

#[test]
fn a_holder_in_another_pid_namespace_is_judged_by_its_guard() {
    if !works("unshare", &["--pid", "--fork", "--mount-proc", "true"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let wrapper = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let mut holder = Player::start_behind(&wrapper, "hold", dir.path());
    holder.hear();
    assert_eq!(recorded_pid(dir.path()), 1);
    assert_eq!(reason(dir.path()), HeldReason::OtherNamespace);
    let looked = inspect(dir.path()).unwrap();
    assert!(looked.is_held() && !looked.is_watchable(), "{looked:?}");
    // A twin has the same number in a namespace of its own.
    let mut twin = Player::start_behind(&wrapper, "try", dir.path());
    assert_eq!(twin.hear(), "held: OtherNamespace");
    holder.kill_behind();
    let mut twin = Player::start_behind(&wrapper, "try", dir.path());
    assert_eq!(twin.hear(), "got it");
    twin.finish();
    drop(take(dir.path()).unwrap());
}

#[test]
fn a_time_namespace_does_not_shift_identities() {
    let wrapper = [
        "unshare",
        "--time",
        "--boottime",
        "100000",
        "--fork",
        "--kill-child",
    ];
    if !works(wrapper[0], &[&wrapper[1..], &["true"]].concat()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Player::start_behind(&wrapper, "hold", dir.path());
    holder.hear();
    let looked = inspect(dir.path()).unwrap();
    assert!(looked.is_watchable(), "{looked:?}");
    holder.kill_behind();
    let lock = take(dir.path()).unwrap();
    let mut other = Player::start_behind(&wrapper, "look", dir.path());
    let said = other.hear();
    assert!(said.contains("liveness: Some(Alive)"), "{said}");
    drop(lock);
}

#[test]
fn a_process_that_may_not_be_signalled_is_alive() {
    let wrapper = [
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
    ];
    if !support::is_root("becoming nobody")
        || !works(wrapper[0], &[&wrapper[1..], &["true"]].concat())
    {
        return;
    }
    let (dir, idler) = (tempfile::tempdir().unwrap(), Idler::new());
    std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
    plant(dir.path(), lines(idler.pid()));
    let mut nobody = Player::start_behind(&wrapper, "try", dir.path());
    assert_eq!(nobody.hear(), "held: Foreign");
    nobody.finish();
    drop(idler);
    let mut nobody = Player::start_behind(&wrapper, "try", dir.path());
    assert_eq!(nobody.hear(), "got it");
    nobody.finish();
}

#[test]
fn signals_reach_only_whom_they_are_meant_for() {
    let idler = Idler::new();
    signal(idler.pid(), "STOP");
    let identity = ProcessIdentity::of(idler.pid()).unwrap().unwrap();
    assert!(identity.is_alive(), "a stopped process is alive");
    let other = ProcessIdentity {
        start_ticks: identity.start_ticks.map(|ticks| ticks + 1),
        ..identity
    };
    assert!(!other.is_alive());
}
