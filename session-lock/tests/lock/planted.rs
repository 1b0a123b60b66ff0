//! Records and other things planted by hand: what is taken over, what is respected, what is refused.
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use crate::support::{self, Idler, guard, lines, plant, record, recorded_pid};
use session_lock::record::{Content, Record, parse};
use session_lock::{
    AcquireError, HeldReason, Holder, Inspection, Kind, Liveness, Node, ProcessIdentity,
    SessionLock, Standing, inspect, watch,
};

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn take(dir: &Path) -> Result<SessionLock, AcquireError> {
    SessionLock::try_acquire(dir, Kind::Adapter)
}

#[track_caller]
fn assert_taken(dir: &Path) {
    let looked = inspect(dir).unwrap();
    assert!(!looked.is_held(), "{looked:?}");
    let mut lock = take(dir).unwrap();
    assert_eq!(recorded_pid(dir), std::process::id());
    assert_eq!(lock.verify().unwrap(), Standing::Held);
    drop(lock);
    let names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, [".handler.guard"], "nothing else is left");
}

#[track_caller]
fn assert_held(dir: &Path, expected: &HeldReason) -> Option<Holder> {
    let before = fs::read(record(dir)).unwrap();
    let looked = inspect(dir).unwrap();
    assert!(looked.is_held(), "{looked:?}");
    let error = take(dir).unwrap_err();
    let AcquireError::Held { holder, reason, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(reason, *expected);
    assert_eq!(
        fs::read(record(dir)).unwrap(),
        before,
        "the record was touched"
    );
    holder
}

#[track_caller]
fn assert_refused(dir: &Path, expected: Node) {
    let error = take(dir).unwrap_err();
    let AcquireError::Refused { node, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(node, expected);
    let Inspection::Corrupt { node, .. } = inspect(dir).unwrap() else {
        panic!("not corrupt")
    };
    assert_eq!(node, Some(expected));
}

fn make_old(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3))
        .unwrap();
}

#[test]
fn another_tools_live_process_is_respected_and_named() {
    let (dir, idler) = (dir(), Idler::new());
    plant(dir.path(), lines(idler.pid()));
    let holder = assert_held(dir.path(), &HeldReason::Foreign).unwrap();
    assert_eq!((holder.pid, holder.kind), (idler.pid(), Kind::ChatNex));
    assert!(inspect(dir.path()).unwrap().is_watchable());
}

#[test]
fn the_parent_is_another_live_process() {
    let dir = dir();
    plant(dir.path(), lines(std::os::unix::process::parent_id()));
    assert_held(dir.path(), &HeldReason::Foreign);
}

#[test]
fn a_dead_process_is_succeeded() {
    let (dir, mut idler) = (dir(), Idler::new());
    idler.0.kill().unwrap();
    idler.0.wait().unwrap();
    plant(dir.path(), lines(idler.pid()));
    assert_taken(dir.path());
}

#[test]
fn a_zombie_is_dead() {
    let (dir, mut idler) = (dir(), Idler::new());
    let watch = watch(idler.pid()).unwrap().unwrap();
    idler.0.kill().unwrap();
    assert!(
        watch
            .wait(Instant::now() + Duration::from_secs(60))
            .unwrap()
    );
    plant(dir.path(), lines(idler.pid()));
    let Inspection::Stale { liveness, .. } = inspect(dir.path()).unwrap() else {
        panic!()
    };
    assert_eq!(liveness, Liveness::Zombie);
    assert_taken(dir.path());
}

#[test]
fn a_process_whose_first_thread_ended_is_alive() {
    let dir = dir();
    let (source, program) = (dir.path().join("it.c"), dir.path().join("it"));
    let text = "#include <pthread.h>\n#include <unistd.h>\n#include <stdlib.h>\n\
        static void *rest(void *main) { char c; pthread_join(*(pthread_t *)main, 0); write(1, \"x\", 1);\n\
        while (read(0, &c, 1) > 0); exit(0); }\n\
        int main(void) { static pthread_t self, t; self = pthread_self();\n\
        pthread_create(&t, 0, rest, &self); pthread_exit(0); }\n";
    fs::write(&source, text).unwrap();
    let compiled = Command::new("cc")
        .arg("-pthread")
        .arg("-o")
        .args([&program, &source])
        .status();
    if !compiled.is_ok_and(|status| status.success()) {
        support::say("not run: there is no C compiler");
        return;
    }
    let mut command = Command::new(&program);
    let pipes = || std::process::Stdio::piped();
    let mut it = Idler(command.stdin(pipes()).stdout(pipes()).spawn().unwrap());
    Read::read_exact(it.0.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    for file in [source, program] {
        fs::remove_file(file).unwrap();
    }
    plant(dir.path(), lines(it.pid()));
    assert_held(dir.path(), &HeldReason::Foreign);
    it.0.kill().unwrap();
    it.0.wait().unwrap();
    assert_taken(dir.path());
}

#[test]
fn the_number_of_a_thread_is_no_process() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        sender
            .send(nix::unistd::gettid().as_raw().cast_unsigned())
            .unwrap();
        stopped.recv().unwrap_err();
    });
    let dir = dir();
    plant(dir.path(), lines(receiver.recv().unwrap()));
    assert_taken(dir.path());
    drop(stop);
    thread.join().unwrap();
}

#[test]
fn a_record_with_our_own_number_is_adopted() {
    let dir = dir();
    plant(dir.path(), lines(std::process::id()));
    let lock = take(dir.path()).unwrap();
    assert_eq!(
        fs::read_to_string(record(dir.path()))
            .unwrap()
            .lines()
            .nth(2),
        Some("adapter")
    );
    // Not a second time: now we do hold it.
    fs::remove_file(guard(dir.path())).unwrap();
    assert_held(dir.path(), &HeldReason::ThisProcess);
    drop(lock);
}

#[test]
fn what_is_no_process_number_is_never_asked_about() {
    for pid in [
        "0",
        "-1",
        "4294967295",
        "10000000000",
        "+5",
        " 5 ",
        "5x",
        "٥",
        "2147483648",
    ] {
        let dir = dir();
        plant(
            dir.path(),
            format!("{pid}\n2026-11-21T02:45:50Z\nchat-nex\n"),
        );
        assert_taken(dir.path());
    }
}

#[test]
fn every_beginning_of_a_record_is_respected_while_it_is_young() {
    let (dir, idler) = (dir(), Idler::new());
    let whole = lines(idler.pid());
    for length in 0..whole.len() {
        plant(dir.path(), &whole[..length]);
        assert_held(dir.path(), &HeldReason::Initialising);
    }
}

#[test]
fn a_beginning_without_a_kind_is_taken_over_when_it_is_old() {
    let (dir, idler) = (dir(), Idler::new());
    let whole = lines(idler.pid());
    let kind = whole.len() - "chat-nex\n".len();
    for length in 0..=kind {
        plant(dir.path(), &whole[..length]);
        make_old(&record(dir.path()));
        let found = inspect(dir.path()).unwrap();
        assert!(
            matches!(found, Inspection::Corrupt { node: None, .. }),
            "{found:?}"
        );
        drop(take(dir.path()).unwrap());
    }
}

#[test]
fn a_record_without_its_last_line_feed_counts_when_it_is_old() {
    let (dir, idler) = (dir(), Idler::new());
    plant(dir.path(), lines(idler.pid()).trim_end());
    make_old(&record(dir.path()));
    assert_held(dir.path(), &HeldReason::Foreign);
}

#[test]
fn a_time_stamp_in_the_future_does_not_make_a_beginning_young_for_ever() {
    let dir = dir();
    plant(dir.path(), "");
    let file = File::options()
        .write(true)
        .open(record(dir.path()))
        .unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(3600))
        .unwrap();
    drop(take(dir.path()).unwrap());
}

#[test]
fn garbage_is_taken_over_at_once() {
    let idler = Idler::new();
    let huge = vec![b'7'; 10_000_000];
    let crlf = lines(idler.pid()).replace('\n', "\r\n");
    let garbage: [&[u8]; 6] = [
        b"not a pid\n",
        b"\n\n\n",
        crlf.as_bytes(),
        &huge,
        b"12\xFF\n",
        b"12\nyesterday\nchat-nex\n",
    ];
    for bytes in garbage {
        let dir = dir();
        plant(dir.path(), bytes);
        assert!(matches!(
            inspect(dir.path()).unwrap(),
            Inspection::Corrupt { node: None, .. }
        ));
        drop(take(dir.path()).unwrap());
    }
}

#[test]
fn further_lines_do_not_make_a_live_record_garbage() {
    let (dir, idler) = (dir(), Idler::new());
    plant(
        dir.path(),
        format!("{}more\nand more\n", lines(idler.pid())),
    );
    assert_held(dir.path(), &HeldReason::Foreign);
}

#[test]
fn an_unknown_kind_is_kept_verbatim() {
    let (dir, idler) = (dir(), Idler::new());
    plant(
        dir.path(),
        format!(
            "{}\n2026-11-21T02:45:50Z\n  A kind, of ours \n",
            idler.pid()
        ),
    );
    let holder = assert_held(dir.path(), &HeldReason::Foreign).unwrap();
    assert_eq!(holder.kind, Kind::Other("  A kind, of ours ".to_owned()));
}

#[test]
fn links_pipes_sockets_and_directories_are_refused_and_never_followed() {
    for make in [record, guard] {
        let dir = dir();
        let path = make(dir.path());
        let target = dir.path().join("target");
        fs::write(&target, "untouched").unwrap();
        symlink(&target, &path).unwrap();
        assert_refused(dir.path(), Node::Symlink);
        assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
        fs::remove_file(&path).unwrap();

        symlink(dir.path().join("nowhere"), &path).unwrap();
        assert_refused(dir.path(), Node::Symlink);
        assert!(!dir.path().join("nowhere").exists());
        fs::remove_file(&path).unwrap();

        nix::unistd::mkfifo(
            &path,
            nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR,
        )
        .unwrap();
        assert_refused(dir.path(), Node::Fifo);
        fs::remove_file(&path).unwrap();

        fs::create_dir(&path).unwrap();
        assert_refused(dir.path(), Node::Directory);
        fs::remove_dir(&path).unwrap();

        let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_refused(dir.path(), Node::Socket);
        drop(socket);
        fs::remove_file(&path).unwrap();
        drop(take(dir.path()).unwrap());
    }
}

#[test]
fn a_record_of_another_user_is_judged_like_any_other() {
    if !support::is_root("giving a file away") {
        return;
    }
    let (dir, idler) = (dir(), Idler::new());
    plant(dir.path(), lines(idler.pid()));
    std::os::unix::fs::chown(record(dir.path()), Some(65534), Some(65534)).unwrap();
    assert_held(dir.path(), &HeldReason::Foreign);
    drop(idler);
    assert_taken(dir.path());
}

/// Plants a record and a claim of our own kind.
fn plant_claim(dir: &Path, pid: u32, change: impl Fn(String) -> String) {
    let lock = take(dir).unwrap();
    let own = fs::read_to_string(guard(dir)).unwrap();
    let own_record = fs::read_to_string(record(dir)).unwrap();
    drop(lock);
    let start = ProcessIdentity::of(pid)
        .unwrap()
        .unwrap()
        .start_ticks
        .unwrap();
    let own_start = ProcessIdentity::own().start_ticks.unwrap();
    let claim = own.replace(
        &format!("pid={} ", std::process::id()),
        &format!("pid={pid} "),
    );
    let claim = claim.replace(&format!("start={own_start} "), &format!("start={start} "));
    fs::write(guard(dir), change(claim)).unwrap();
    let rest = own_record.split_once('\n').unwrap().1;
    plant(dir, format!("{pid}\n{rest}"));
}

#[test]
fn our_own_kind_is_respected_without_its_guard() {
    let (dir, idler) = (dir(), Idler::new());
    plant_claim(dir.path(), idler.pid(), |claim| claim);
    assert_held(dir.path(), &HeldReason::Unguarded);
}

#[test]
fn another_start_time_is_another_process() {
    let (dir, idler) = (dir(), Idler::new());
    plant_claim(dir.path(), idler.pid(), |claim| {
        claim.replace(" start=", " start=9")
    });
    let Inspection::Stale { liveness, .. } = inspect(dir.path()).unwrap() else {
        panic!()
    };
    assert_eq!(liveness, Liveness::Reused);
    assert_taken(dir.path());
}

#[test]
fn a_holder_of_an_earlier_boot_is_gone() {
    let (dir, idler) = (dir(), Idler::new());
    plant_claim(dir.path(), idler.pid(), |claim| {
        claim.replace(" boot=", " boot=0")
    });
    let Inspection::Stale { liveness, .. } = inspect(dir.path()).unwrap() else {
        panic!()
    };
    assert_eq!(liveness, Liveness::Rebooted);
    assert_taken(dir.path());
}

#[test]
fn a_guard_of_another_version_proves_nothing_and_keeps_its_generation() {
    for version in ["v0 ", "v2 "] {
        let (dir, idler) = (dir(), Idler::new());
        plant_claim(dir.path(), idler.pid(), |claim| {
            let claim = claim.replace("v1 ", version);
            let (before, rest) = claim.split_once("gen=").unwrap();
            let (_, after) = rest.split_once(' ').unwrap();
            format!("{before}gen=9000000000000000000 {after}")
        });
        assert_held(dir.path(), &HeldReason::Foreign);
        drop(idler);
        let lock = take(dir.path()).unwrap();
        assert_eq!(lock.generation(), 9_000_000_000_000_000_001);
    }
}

#[test]
fn a_program_name_with_parentheses_does_not_confuse_the_start_time() {
    let dir = dir();
    let program = dir.path().join("a) R 1 (b");
    // Written by another process: a descriptor that is open for writing here could be inherited by another test's child, and the
    // copy could not be executed (ETXTBSY).
    let copied = Command::new("cp").arg("/bin/cat").arg(&program).status();
    assert!(copied.unwrap().success());
    let mut command = Command::new(&program);
    let it = Idler(command.stdin(std::process::Stdio::piped()).spawn().unwrap());
    let identity = ProcessIdentity::of(it.pid()).unwrap().unwrap();
    assert!(identity.start_ticks >= ProcessIdentity::own().start_ticks);
    assert!(identity.is_alive());
    drop(it);
    assert!(!identity.is_alive());
}

#[test]
fn a_path_may_hold_any_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let dir = dir();
    let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"a\nb \xFF c"));
    fs::create_dir(&odd).unwrap();
    assert_taken(&odd);
}

#[test]
fn two_spellings_of_a_path_are_one_directory() {
    let dir = dir();
    let real = dir.path().join("real");
    fs::create_dir(&real).unwrap();
    symlink(&real, dir.path().join("link")).unwrap();
    let lock = take(&real).unwrap();
    for spelling in ["link", "real/../real", "./real/.", "link/../link"] {
        assert!(
            matches!(
                take(&dir.path().join(spelling)),
                Err(AcquireError::Held { .. })
            ),
            "{spelling}"
        );
    }
    drop(lock);
}

#[test]
fn a_missing_directory_and_a_forged_kind_are_errors_of_their_own() {
    let dir = dir();
    let missing = dir.path().join("missing");
    assert!(matches!(take(&missing), Err(AcquireError::Io { .. })));
    assert!(inspect(&missing).is_err());
    for kind in ["", "a\nb", "a\0b", &"x".repeat(256)] {
        let error = SessionLock::try_acquire(dir.path(), Kind::from(kind)).unwrap_err();
        assert!(
            matches!(error, AcquireError::UnusableKind { .. }),
            "{error:?}"
        );
    }
}

#[test]
fn a_directory_that_was_replaced_is_lost() {
    let dir = dir();
    let (place, aside) = (dir.path().join("place"), dir.path().join("aside"));
    fs::create_dir(&place).unwrap();
    let mut lock = take(&place).unwrap();
    fs::rename(&place, &aside).unwrap();
    assert_eq!(lock.verify().unwrap(), Standing::Lost { by: None });
    fs::create_dir(&place).unwrap();
    let successor = take(&place).unwrap();
    let Standing::Lost { by: Some(by) } = lock.verify().unwrap() else {
        panic!()
    };
    assert!(by.is_same_acquisition(successor.holder()));
    drop(lock);
    assert!(record(&place).exists() && !record(&aside).exists());
    drop(successor);
    let lock = take(&place).unwrap();
    fs::remove_dir_all(&place).unwrap();
    drop(lock);
}

#[test]
fn a_robbed_holder_leaves_the_robbers_record() {
    let (dir, idler) = (dir(), Idler::new());
    let mut lock = take(dir.path()).unwrap();
    fs::remove_file(record(dir.path())).unwrap();
    plant(dir.path(), lines(idler.pid()));
    let Standing::Lost { by: Some(by) } = lock.verify().unwrap() else {
        panic!()
    };
    assert_eq!(by.pid, idler.pid());
    let released = lock.release().unwrap();
    assert!(
        matches!(released, session_lock::Released::NotMine { now: Some(_) }),
        "{released:?}"
    );
    assert_eq!(recorded_pid(dir.path()), idler.pid());
}

#[test]
fn a_record_overwritten_with_garbage_is_put_back() {
    let dir = dir();
    let mut lock = take(dir.path()).unwrap();
    for garbage in ["", "rubbish", "0\n2026-11-21T02:45:50Z\nchat-nex\n"] {
        fs::remove_file(record(dir.path())).unwrap();
        plant(dir.path(), garbage);
        assert_eq!(lock.verify().unwrap(), Standing::Repaired, "{garbage:?}");
        assert_eq!(recorded_pid(dir.path()), std::process::id());
    }
    assert_eq!(lock.release().unwrap(), session_lock::Released::Released);
}

#[test]
fn a_panic_releases_the_lock() {
    let dir = dir();
    let path = dir.path().to_owned();
    let panicked = std::thread::spawn(move || {
        let _lock = take(&path).unwrap();
        panic!("on purpose");
    });
    panicked.join().unwrap_err();
    assert_taken(dir.path());
}

#[test]
fn our_record_is_what_other_tools_read_and_write() {
    let text = "4711\n2026-11-21T02:45:50.123456789Z\nchat-nex\n";
    let record = Record {
        pid: 4711,
        since: "2026-11-21T02:45:50.123456789Z".to_owned(),
        kind: Kind::ChatNex,
    };
    assert_eq!(record.format(), text);
    assert_eq!(parse(text.as_bytes()), Content::Complete(record));
    for label in [
        "interactive-nex",
        "autonomous-nex",
        "chat-nex",
        "tui-pty",
        "adapter",
    ] {
        assert!(!matches!(Kind::from(label), Kind::Other(_)));
        assert_eq!(Kind::from(label).to_string(), label);
    }
}
