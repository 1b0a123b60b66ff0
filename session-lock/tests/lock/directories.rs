//! Locks on any directory, and who is in it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use session_lock::{
    DirLock, DirLockError, HeldReason, Kind, Note, Overlap, Relation, Released, Wait, occupants,
};

struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(root.path().join("work/above/below")).expect("a tree");
        Self { root }
    }

    fn registry(&self) -> std::path::PathBuf {
        self.root.path().join("registry")
    }

    fn dir(&self, below: &str) -> std::path::PathBuf {
        self.root.path().join("work").join(below)
    }

    fn try_lock(&self, below: &str) -> Result<DirLock, DirLockError> {
        let note = Note::new("ann", "a migration").expect("one line");
        DirLock::options(&self.registry())
            .kind(Kind::Adapter)
            .note(note)
            .acquire(&self.dir(below))
    }
}

#[track_caller]
fn assert_held(outcome: Result<DirLock, DirLockError>, through: &Path) {
    let error = outcome.expect_err("it is held");
    let DirLockError::Held {
        held,
        holder: Some(holder),
        reason: Some(reason),
        note: Some(note),
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(held, through.canonicalize().expect("a path"));
    assert_eq!(holder.pid, std::process::id());
    assert_eq!(reason, HeldReason::Guarded);
    assert_eq!(
        (note.by.as_str(), note.reason.as_str()),
        ("ann", "a migration")
    );
}

#[test]
fn a_directory_is_locked_without_a_file_in_it() {
    let place = Place::new();
    let lock = place.try_lock("above/below").unwrap();
    assert_eq!(fs::read_dir(place.dir("above/below")).unwrap().count(), 0);
    assert_held(place.try_lock("above/below"), &place.dir("above/below"));
    assert_eq!(lock.release().unwrap(), Released::Released);
    drop(place.try_lock("above/below").unwrap());
}

#[test]
fn a_link_leads_to_the_same_lock() {
    let place = Place::new();
    std::os::unix::fs::symlink(place.dir("above"), place.dir("link")).unwrap();
    let _lock = place.try_lock("above").unwrap();
    assert_held(
        place.try_lock("link/../above/./below/.."),
        &place.dir("above"),
    );
    assert_held(place.try_lock("link"), &place.dir("above"));
}

#[test]
fn a_lock_above_or_below_is_a_conflict_unless_it_is_allowed() {
    let place = Place::new();
    let below = place.try_lock("above/below").unwrap();
    assert_held(place.try_lock("above"), &place.dir("above/below"));
    let options = DirLock::options(&place.registry()).overlap(Overlap::Allow);
    let above = options.acquire(&place.dir("above")).unwrap();
    drop(below);
    drop(above);
    let _above = place.try_lock("above").unwrap();
    assert_held(place.try_lock("above/below"), &place.dir("above"));
    fs::create_dir(place.dir("above-not")).unwrap();
    drop(place.try_lock("above-not").unwrap());
}

#[test]
fn a_person_holds_a_directory_until_the_hold_is_ended() {
    let place = Place::new();
    let note = Note::new("ann", "").unwrap();
    DirLock::hold(&place.registry(), &place.dir("above"), &note).unwrap();
    for below in ["above", "above/below", ""] {
        let error = place.try_lock(below).unwrap_err();
        let DirLockError::Held {
            holder: None,
            note: Some(note),
            ..
        } = error
        else {
            panic!("{error:?}");
        };
        assert_eq!(note.by, "ann");
    }
    let listed = DirLock::list(&place.registry()).unwrap().held;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].hold.as_ref().unwrap().by, "ann");
    let ended = DirLock::end_hold(&place.registry(), &place.dir("above")).unwrap();
    assert_eq!(ended.unwrap().by, "ann");
    assert_eq!(
        DirLock::end_hold(&place.registry(), &place.dir("above")).unwrap(),
        None
    );
    drop(place.try_lock("above").unwrap());
}

#[test]
fn a_corrupt_entry_blocks_and_names_the_file() {
    let place = Place::new();
    drop(place.try_lock("above").unwrap());
    let entry = DirLock::status(&place.registry(), &place.dir("above"))
        .unwrap()
        .entry;
    for name in ["hold", ".handler.pid"] {
        fs::write(entry.join(name), "nonsense\n").unwrap();
        let DirLockError::Corrupt { path } = place.try_lock("above").unwrap_err() else {
            panic!()
        };
        assert_eq!(path, entry.join(name));
        fs::remove_file(path).unwrap();
    }
    fs::write(entry.join("directory"), "nonsense\n").unwrap();
    assert!(matches!(
        place.try_lock("above"),
        Err(DirLockError::Corrupt { .. })
    ));
}

#[test]
fn an_entry_that_cannot_be_read_hides_no_other_and_is_named() {
    let place = Place::new();
    fs::create_dir(place.dir("apart")).unwrap();
    let (torn, lost) = (
        place.try_lock("above").unwrap(),
        place.try_lock("above/below"),
    );
    assert_held(lost, &place.dir("above"));
    let entry = |below| {
        DirLock::status(&place.registry(), &place.dir(below))
            .unwrap()
            .entry
    };
    let (torn_entry, lost_entry) = (entry("above"), entry("above/below"));
    torn.release().unwrap();
    let _other = place.try_lock("apart").unwrap();
    fs::write(torn_entry.join(".handler.pid"), "nonsense\n").unwrap();
    fs::remove_file(lost_entry.join("directory")).unwrap();

    let listed = DirLock::list(&place.registry()).unwrap();
    let held: Vec<_> = listed.held.iter().map(|held| &held.directory).collect();
    assert_eq!(held, [&place.dir("apart").canonicalize().unwrap()]);
    let named: Vec<_> = listed
        .unreadable
        .iter()
        .map(|it| (&it.entry, it.directory.clone(), it.because.to_string()))
        .collect();
    let above = place.dir("above").canonicalize().unwrap();
    let says = |path: &Path| {
        format!(
            "`{}` says nothing sensible; look at it and remove it",
            path.display()
        )
    };
    let mut expected = vec![
        (
            &torn_entry,
            Some(above),
            says(&torn_entry.join(".handler.pid")),
        ),
        (&lost_entry, None, says(&lost_entry.join("directory"))),
    ];
    expected.sort();
    assert_eq!(named, expected);
}

#[test]
fn a_lost_path_blocks_others_only_while_somebody_may_hold_it() {
    let place = Place::new();
    fs::create_dir(place.dir("apart")).unwrap();
    let lost = place.try_lock("above").unwrap();
    let status = DirLock::status(&place.registry(), &place.dir("above")).unwrap();
    fs::remove_file(status.entry.join("directory")).unwrap();
    // Nobody knows what it is the lock of, so it may be of anything.
    assert!(matches!(
        place.try_lock("apart"),
        Err(DirLockError::Corrupt { .. })
    ));
    lost.release().unwrap();
    drop(place.try_lock("apart").unwrap());
    fs::write(status.entry.join("hold"), "").unwrap();
    assert!(place.try_lock("apart").is_err());
}

#[test]
fn of_two_overlapping_locks_that_are_taken_at_once_one_is_given() {
    let place = Place::new();
    for _round in 0..50 {
        let start = Barrier::new(2);
        let taken: Vec<_> = std::thread::scope(|scope| {
            let takers = ["above", "above/below"].map(|below| {
                let (place, start) = (&place, &start);
                scope.spawn(move || {
                    start.wait();
                    place.try_lock(below)
                })
            });
            takers.map(|taker| taker.join().unwrap()).into()
        });
        assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 1);
    }
}

#[test]
fn two_overlapping_waiters_both_come_to_their_turn() {
    let place = Place::new();
    let wait = Wait::Until(Instant::now() + Duration::from_secs(60));
    std::thread::scope(|scope| {
        for below in ["above", "above/below"] {
            let place = &place;
            scope.spawn(move || {
                for _turn in 0..20 {
                    let options = DirLock::options(&place.registry()).wait(wait);
                    drop(options.acquire(&place.dir(below)).unwrap());
                }
            });
        }
    });
}

#[test]
fn a_turn_that_is_not_given_back_stops_nobody() {
    let place = Place::new();
    drop(place.try_lock("above").unwrap());
    let stopped = fs::File::open(place.registry()).unwrap();
    stopped.lock().unwrap();
    drop(place.try_lock("above").unwrap());
}

#[test]
fn a_pipe_or_a_link_in_an_entry_is_corrupt_and_nobody_waits_at_it() {
    let place = Place::new();
    drop(place.try_lock("above").unwrap());
    let status = DirLock::status(&place.registry(), &place.dir("above")).unwrap();
    for name in ["hold", "directory"] {
        let path = status.entry.join(name);
        let kept = fs::read(&path).ok();
        for plant in ["pipe", "link"] {
            drop(fs::remove_file(&path));
            if plant == "pipe" {
                nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            } else {
                std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
            }
            let error = place.try_lock("above").unwrap_err();
            assert!(
                matches!(&error, DirLockError::Corrupt { path: named } if *named == path),
                "{error:?}"
            );
            let listed = DirLock::list(&place.registry()).unwrap();
            assert_eq!(listed.unreadable.len(), 1);
        }
        fs::remove_file(&path).unwrap();
        if let Some(bytes) = kept {
            fs::write(&path, bytes).unwrap();
        }
    }
    drop(place.try_lock("above").unwrap());
}

#[test]
fn a_note_of_two_lines_is_refused() {
    assert!(Note::new("ann\nforged", "").is_err());
    assert!(Note::new("", "nobody").is_err());
    assert!(Note::new("ann", "one\nforged").is_err());
}

#[test]
fn occupants_are_told_apart_by_what_they_have_to_do_with_the_lock() {
    let place = Place::new();
    let lock = place.try_lock("above").unwrap();
    let mut sitter = Command::new("cat");
    sitter
        .current_dir(place.dir("above/below"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let mut borrower = lock.spawn_lent(&mut sitter).unwrap();
    // A child of this process is no stranger, so another process starts it.
    let mut shell = Command::new("setsid");
    shell.args(["--fork", "sh", "-c", "echo $$; exec cat >&2"]);
    shell
        .current_dir(place.dir("above"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut setsid = shell.spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(setsid.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    let stranger: u32 = line.trim().parse().unwrap();
    let stdin = setsid.stdin.take();
    setsid.wait().unwrap();

    let found = occupants(&place.dir("above")).unwrap();
    let pids: Vec<u32> = found.iter().map(|occupant| occupant.pid).collect();
    assert!(
        pids.contains(&borrower.id()) && pids.contains(&stranger),
        "{found:?}"
    );
    let status = DirLock::status(&place.registry(), &place.dir("above")).unwrap();
    let relations = status.occupants().unwrap();
    let relation = |pid| {
        relations
            .iter()
            .find(|(it, _)| it.pid == pid)
            .map(|(_, relation)| *relation)
    };
    assert_eq!(relation(borrower.id()), Some(Relation::Follower));
    assert_eq!(relation(stranger), Some(Relation::Stranger));

    drop(stdin);
    drop(borrower.stdin.take());
    borrower.wait().unwrap();
}

#[test]
fn a_lock_above_is_waited_for() {
    let place = Place::new();
    let above = place.try_lock("above").unwrap();
    let wait = Wait::Until(Instant::now() + Duration::from_secs(60));
    let options = DirLock::options(&place.registry()).wait(wait);
    let dir = place.dir("above/below");
    let waiter = std::thread::spawn(move || {
        options
            .acquire(&dir)
            .map(|lock| lock.directory().to_owned())
    });
    above.release().unwrap();
    assert_eq!(
        waiter.join().unwrap().unwrap(),
        place.dir("above/below").canonicalize().unwrap()
    );
}

#[test]
fn a_deadline_that_has_passed_is_told_who_is_in_the_way() {
    let place = Place::new();
    let _above = place.try_lock("above").unwrap();
    let options = DirLock::options(&place.registry()).wait(Wait::Until(Instant::now()));
    assert_held(
        options.acquire(&place.dir("above/below")),
        &place.dir("above"),
    );
}
