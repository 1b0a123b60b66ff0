//! Replacing, locking and moving files.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;
use wg_cli::exit_code::ExitCode;
use wg_cli::failure::Failure;
use wg_cli::store::StoreError;
use wg_cli::store::files;

fn names(dir: &Path) -> Vec<String> {
    let mut names = files::names_in(dir).unwrap();
    names.sort();
    names
}

#[test]
fn a_replaced_file_keeps_its_mode_and_leaves_no_temporary_one() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    files::replace_atomically(&path, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o640
    );
    assert_eq!(names(dir.path()), ["x"]);
}

#[test]
fn several_that_replace_at_once_leave_one_whole_content() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x");
    std::thread::scope(|scope| {
        for letter in b'a'..=b'd' {
            let path = &path;
            scope.spawn(move || {
                for _ in 0..20 {
                    files::replace_atomically(path, &vec![letter; 10_000]).unwrap();
                }
            });
        }
        for _ in 0..100 {
            let seen = files::read(&path).unwrap().unwrap_or_default();
            assert!(
                seen.is_empty()
                    || (seen.len() == 10_000 && seen.iter().all(|byte| *byte == seen[0]))
            );
        }
    });
    assert_eq!(names(dir.path()), ["x"]);
}

#[test]
fn what_is_no_regular_file_is_neither_read_nor_replaced() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("target"), "safe").unwrap();
    symlink("target", at("link")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    fs::create_dir(at("dir")).unwrap();
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    for name in ["link", "dangling", "dir", "pipe", "socket"] {
        let path = at(name);
        assert!(
            matches!(files::read(&path), Err(StoreError::NotARegularFile { .. })),
            "{name}: {:?}",
            files::read(&path)
        );
        assert!(
            matches!(
                files::replace_atomically(&path, b"x"),
                Err(StoreError::NotARegularFile { .. })
            ),
            "{name}"
        );
        let locked = files::locked(&path, || Ok::<(), StoreError>(()));
        assert!(
            matches!(locked, Err(StoreError::NotARegularFile { .. })),
            "{name}: {locked:?}"
        );
    }
    assert_eq!(fs::read(at("target")).unwrap(), b"safe");
    assert_eq!(
        files::read(Path::new("/dev/null")).map_err(|error| error.to_string()),
        Err("`/dev/null` is a device, not a regular file".to_owned())
    );
    assert_eq!(files::read(&at("absent")).unwrap(), None);
    assert_eq!(
        files::read(&at("target").join("below a file")).unwrap(),
        None
    );
}

#[test]
fn of_several_that_create_a_file_one_wins() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x");
    let wins = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| files::create_exclusively(&path, b"x").is_ok()))
            .collect();
        makers
            .into_iter()
            .map(|maker| maker.join().unwrap())
            .filter(|won| *won)
            .count()
    });
    assert_eq!(wins, 1);
    assert_eq!(names(dir.path()), ["x"]);
}

#[test]
fn set_aside_never_replaces_what_was_set_aside_before() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.json");
    for (content, name) in [
        ("1", "x.json.corrupt"),
        ("2", "x.json.corrupt-1"),
        ("3", "x.json.corrupt-2"),
    ] {
        fs::write(&path, content).unwrap();
        assert_eq!(files::set_aside(&path).unwrap(), dir.path().join(name));
        assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), content);
        assert!(!path.exists());
    }
    fs::create_dir(&path).unwrap();
    assert_eq!(
        files::set_aside(&path).unwrap(),
        dir.path().join("x.json.corrupt-3")
    );
    symlink("x", &path).unwrap();
    assert_eq!(
        files::set_aside(&path).unwrap(),
        dir.path().join("x.json.corrupt-4")
    );
    assert!(files::set_aside(&path).is_err());
}

#[test]
fn a_lock_whose_file_is_removed_is_taken_on_the_new_file() {
    let dir = TempDir::new().unwrap();
    let side = dir.path().join("x.lock");
    let first = files::SideLock::acquire(&side).unwrap();
    let (waits, waiting) = mpsc::channel();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            waits.send(()).unwrap();
            files::locked(&side, || Ok::<_, StoreError>(side.exists())).unwrap()
        });
        waiting.recv().unwrap();
        fs::remove_file(&side).unwrap();
        // Whether the other one waits on the removed file or has just opened a new one, it ends with a lock on what is there.
        drop(first);
        assert!(second.join().unwrap());
    });
}

#[test]
fn rotation_keeps_as_many_as_it_is_told() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("log");
    for content in ["1", "2", "3", "4"] {
        fs::write(&path, content).unwrap();
        files::rotate(&path, 2).unwrap();
    }
    assert_eq!(names(dir.path()), ["log.1", "log.2"]);
    assert_eq!(fs::read_to_string(dir.path().join("log.1")).unwrap(), "4");
    files::rotate(&path, 2).unwrap();
    assert_eq!(
        names(dir.path()),
        ["log.2"],
        "a missing file only moves the others on"
    );
    fs::write(&path, "5").unwrap();
    files::rotate(&path, 0).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_lock_that_is_held_too_long_is_told_with_its_holder() {
    let dir = TempDir::new().unwrap();
    let side = dir.path().join("x.lock");
    let held = files::SideLock::acquire(&side).unwrap();
    let refused = files::SideLock::acquire_within(&side, Duration::from_millis(10)).unwrap_err();
    assert!(
        matches!(refused, StoreError::Busy { holder: Some(ref holder), .. } if holder.pid == std::process::id()),
        "{refused:?}"
    );
    assert_eq!(Failure::from(refused).code, ExitCode::Held);
    drop(held);
    drop(files::SideLock::acquire_within(&side, Duration::ZERO).unwrap());
}

#[test]
fn a_lock_that_becomes_free_is_taken_at_once() {
    let dir = TempDir::new().unwrap();
    let side = dir.path().join("x.lock");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    drop(files::SideLock::acquire(&side).unwrap());
                }
            });
        }
    });
}

#[test]
fn only_old_temporary_files_of_dead_processes_are_swept() {
    let dir = TempDir::new().unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let ours = format!(".graph.jsonl.tmp.{}.0", std::process::id());
    let dead = format!(".graph.jsonl.tmp.{}.7", u32::MAX);
    let young = format!(".graph.jsonl.tmp.{}.8", u32::MAX);
    let foreign = [
        ".graph.tmp.4294967295",
        "graph.jsonl.tmp.4294967295.1",
        ".x.tmp.4294967295.y",
        ".nex-cursor",
    ];
    let all = [ours.as_str(), dead.as_str(), young.as_str()]
        .into_iter()
        .chain(foreign);
    for name in all {
        let file = fs::File::create(dir.path().join(name)).unwrap();
        if name != young {
            file.set_modified(long_ago).unwrap();
        }
    }
    assert_eq!(files::sweep_temporaries(dir.path()).unwrap(), 1);
    assert!(!dir.path().join(&dead).exists());
    assert_eq!(names(dir.path()).len(), 2 + foreign.len());
}
