//! Full disks, missing kernel calls, interrupted calls, no descriptors left, no permission.

use std::fs;
use std::path::Path;

use session_lock::{Kind, SessionLock};

use crate::support::{self, Idler, Player, guard, lines, plant, record, works};

/// Lets a process try once behind `wrapper`, and returns what it says.
fn outcome(wrapper: &[&str], dir: &Path) -> String {
    let mut player = Player::start_behind(wrapper, "try", dir);
    let said = player.hear();
    player.finish();
    said
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Lets a kernel call fail, each time or at the times named, in a process that tries to take the lock.
fn with_fault(call: &str, fault: &str, dir: &Path) -> Option<String> {
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{fault}"));
    let wrapper = [
        "strace",
        "-qq",
        "-f",
        "-o",
        "/dev/null",
        "-e",
        &trace,
        "-e",
        &inject,
    ];
    works("strace", &["-qq", "-o", "/dev/null", "true"]).then(|| outcome(&wrapper, dir))
}

#[test]
fn the_lock_works_where_the_kernel_lacks_what_it_likes_best() {
    for (call, fault) in [
        ("pidfd_open", "error=ENOSYS"),
        ("pidfd_open", "error=EPERM"),
        ("renameat2", "error=EINVAL"),
        ("renameat2", "error=ENOSYS"),
        ("linkat", "error=EPERM"),
        ("linkat", "error=EOPNOTSUPP"),
        ("inotify_init1", "error=EMFILE"),
        ("statfs,fstatfs", "error=ENOSYS"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let Some(said) = with_fault(call, fault, dir.path()) else {
            return;
        };
        assert_eq!(said, "got it", "{call} {fault}");
        assert_eq!(names(dir.path()), [".handler.guard"], "{call} {fault}");

        // A dead process's record, and a live one's.
        let idler = Idler::new();
        plant(dir.path(), lines(idler.pid()));
        assert_eq!(
            with_fault(call, fault, dir.path()).unwrap(),
            "held: Foreign",
            "{call} {fault}"
        );
        drop(idler);
        assert_eq!(
            with_fault(call, fault, dir.path()).unwrap(),
            "got it",
            "{call} {fault}"
        );
        assert_eq!(names(dir.path()), [".handler.guard"], "{call} {fault}");
    }
}

#[test]
fn an_interrupted_lock_call_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some(said) = with_fault("flock", "error=EINTR:when=1..3", dir.path()) else {
        return;
    };
    assert_eq!(said, "got it");
}

#[test]
fn a_file_system_without_locks_is_an_error_and_never_a_lock() {
    for error in ["ENOLCK", "EOPNOTSUPP", "ENOSYS", "EBADF"] {
        let dir = tempfile::tempdir().unwrap();
        let Some(said) = with_fault("flock", &format!("error={error}"), dir.path()) else {
            return;
        };
        assert!(
            said.starts_with("failed: Io { doing: \"lock the guard\""),
            "{error}: {said}"
        );
        assert!(!record(dir.path()).exists());
    }
}

#[test]
fn a_failure_at_any_step_leaves_nothing_held() {
    for call in [
        "openat",
        "write,pwrite64",
        "linkat",
        "renameat2",
        "unlinkat",
        "newfstatat,fstat",
    ] {
        for when in 1..=12 {
            let dir = tempfile::tempdir().unwrap();
            plant(dir.path(), "garbage\n");
            let fault = format!("error=EIO:when={when}");
            // Where the fault hits the program's start, it says nothing at all.
            let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{fault}"));
            let path = format!("-P{}", dir.path().display());
            let files =
                [record(dir.path()), guard(dir.path())].map(|it| format!("-P{}", it.display()));
            let wrapper = [
                "strace",
                "-qq",
                "-f",
                "-o",
                "/dev/null",
                &path,
                &files[0],
                &files[1],
                "-e",
                &trace,
                "-e",
                &inject,
            ];
            if !works("strace", &["-qq", "-o", "/dev/null", "true"]) {
                return;
            }
            let said = outcome(&wrapper, dir.path());
            assert!(
                said == "got it" || said.starts_with("failed: "),
                "{call} {when}: {said}"
            );
            let lock = SessionLock::try_acquire(dir.path(), Kind::Adapter);
            drop(lock.unwrap_or_else(|error| panic!("{call} {when}: {said}, then {error}")));
        }
    }
}

#[test]
fn a_full_file_system_is_an_error_and_leaves_no_empty_record() {
    let mount = |options: &str, fill: &str| {
        format!(
            "mount -t tmpfs -o {options} none \"$0\" && cd \"$0\" && {fill}; \"$@\"; echo @$(ls -A)"
        )
    };
    if !works("unshare", &["--mount", "true"]) {
        return;
    }
    for (options, fill) in [
        ("size=16k", "head -c 1000000 /dev/zero > fill 2>/dev/null"),
        ("size=1m,nr_inodes=3", "touch one two three 2>/dev/null"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let script = mount(options, fill);
        let path = dir.path().to_str().unwrap();
        let wrapper = ["unshare", "--mount", "sh", "-c", &script, path];
        let mut player = Player::start_behind(&wrapper, "try", dir.path());
        let said = player.hear();
        assert!(said.starts_with("failed: Io"), "{options}: {said}");
        let left = player.hear();
        assert!(!left.contains(".handler.pid"), "{options}: {left}");
    }
}

#[test]
fn a_directory_that_may_not_be_written_is_an_error() {
    let nobody = [
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
    ];
    let dir = tempfile::tempdir().unwrap();
    if support::is_root("becoming nobody") && works(nobody[0], &[&nobody[1..], &["true"]].concat())
    {
        fs::set_permissions(
            dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let said = outcome(&nobody, dir.path());
        assert!(said.starts_with("failed: Io"), "{said}");
    }
    let read_only = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
    if works("unshare", &["--mount", "true"]) {
        let path = dir.path().to_str().unwrap();
        let said = outcome(
            &["unshare", "--mount", "sh", "-c", read_only, path],
            dir.path(),
        );
        assert!(said.starts_with("failed: Io"), "{said}");
    }
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn no_umask_keeps_the_next_one_out() {
    let nobody = "umask 0777; exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    if !support::is_root("becoming nobody") || !works("setpriv", &["--reuid", "65534", "true"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
    let mut holder = Player::start_behind(&["sh", "-c", nobody, "sh"], "hold", dir.path());
    holder.hear();
    let mode = |path| {
        let metadata = fs::metadata(path).unwrap();
        std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777
    };
    assert_eq!(mode(record(dir.path())), 0o644);
    assert_eq!(mode(guard(dir.path())), 0o600);
    assert_eq!(
        outcome(&["sh", "-c", nobody, "sh"], dir.path()),
        "held: Guarded"
    );
    holder.tell("");
    assert_eq!(holder.hear(), "Ok(Released)");
    assert_eq!(outcome(&["sh", "-c", nobody, "sh"], dir.path()), "got it");
}

#[test]
fn running_out_of_descriptors_half_way_leaves_nothing_held() {
    let dir = tempfile::tempdir().unwrap();
    let mut failed = 0;
    for limit in 3..=10 {
        let script = format!("ulimit -n {limit}; exec \"$@\"");
        let mut player = Player::start_behind(&["sh", "-c", &script, "sh"], "try", dir.path());
        // Below a handful of descriptors the program does not even start.
        let said = player.hear_anything();
        player.finish();
        match said.as_deref() {
            Some("got it") | None => {}
            Some(said) => {
                assert!(said.starts_with("failed: Io"), "{limit}: {said}");
                failed += 1;
            }
        }
        drop(SessionLock::try_acquire(dir.path(), Kind::Adapter).unwrap());
    }
    assert!(failed > 0, "the limit never hit");
}

#[test]
fn the_lock_works_without_proc() {
    let script = "umount -l /proc && exec \"$@\"";
    if !works("unshare", &["--mount", "sh", "-c", "umount -l /proc"]) {
        return;
    }
    let wrapper = ["unshare", "--mount", "sh", "-c", script, "sh"];
    let (dir, idler) = (tempfile::tempdir().unwrap(), Idler::new());
    assert_eq!(outcome(&wrapper, dir.path()), "got it");
    plant(dir.path(), lines(idler.pid()));
    assert_eq!(outcome(&wrapper, dir.path()), "held: Foreign");
    drop(idler);
    assert_eq!(outcome(&wrapper, dir.path()), "got it");
    assert_eq!(names(dir.path()), [".handler.guard"]);
}

#[test]
fn a_waiter_without_events_looks_for_itself() {
    for (call, error) in [
        ("inotify_init1", "EMFILE"),
        ("inotify_add_watch", "ENOSPC"),
        ("pidfd_open", "EMFILE"),
    ] {
        if !works("strace", &["-qq", "-o", "/dev/null", "true"]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut holder = Player::start("hold", dir.path());
        holder.hear();
        let (trace, inject) = (
            format!("trace={call}"),
            format!("inject={call}:error={error}"),
        );
        let wrapper = [
            "strace",
            "-qq",
            "-f",
            "-o",
            "/dev/null",
            "-e",
            &trace,
            "-e",
            &inject,
        ];
        let mut waiter = Player::start_behind(&wrapper, "wait", dir.path());
        assert_eq!(waiter.hear(), "waiting");
        holder.kill();
        assert!(waiter.hear().starts_with("got it"), "{call}");
    }
}

#[test]
fn a_holder_without_events_hears_requests_all_the_same() {
    if !works("strace", &["-qq", "-o", "/dev/null", "true"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let inject = "inject=inotify_init1:error=EMFILE";
    let wrapper = [
        "strace",
        "-qq",
        "-f",
        "-o",
        "/dev/null",
        "-e",
        "trace=inotify_init1",
        "-e",
        inject,
    ];
    let mut holder = Player::start_behind(&wrapper, "obey", dir.path());
    assert_eq!(holder.hear(), "held");
    session_lock::request_release(dir.path()).unwrap();
    assert_eq!(holder.hear(), "Ok(Released)");
}
