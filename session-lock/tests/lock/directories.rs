//! Locks on any directory, and who is in it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use session_lock::{
    DirLock, DirLockError, DirLockOptions, HeldReason, Kind, Note, Overlap, Relation, Released,
    Wait, occupants,
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

#[test]
fn a_folder_in_the_place_of_a_note_that_is_being_written_goes_or_is_named() {
    let place = Place::new();
    drop(place.try_lock("above").expect("free"));
    let entry = DirLock::status(&place.registry(), &place.dir("above"))
        .expect("an entry")
        .entry;
    let in_the_way = entry.join("note.new");
    fs::create_dir(&in_the_way).expect("a folder");
    drop(place.try_lock("above").expect("an empty folder is removed"));
    fs::create_dir(&in_the_way).expect("a folder");
    fs::write(in_the_way.join("somebodys"), "work").expect("a file");
    let refused = place.try_lock("above").expect_err("it is in the way");
    assert!(
        matches!(&refused, DirLockError::Corrupt { path } if *path == in_the_way),
        "{refused:?}"
    );
    assert_eq!(
        fs::read(in_the_way.join("somebodys")).expect("it stays"),
        b"work"
    );
    fs::remove_dir_all(&in_the_way).expect("removed by a person");
    drop(place.try_lock("above").expect("free"));
    // In the place of the note itself: whether one is to be written there or taken away.
    let in_the_way = entry.join("note");
    fs::remove_file(&in_the_way).expect("the note of the last holder");
    fs::create_dir(&in_the_way).expect("a folder");
    for note in [None, Some(Note::new("ann", "").expect("one line"))] {
        let options = DirLock::options(&place.registry()).kind(Kind::Adapter);
        let options = note.into_iter().fold(options, DirLockOptions::note);
        let refused = options
            .acquire(&place.dir("above"))
            .expect_err("it is in the way");
        assert!(
            matches!(&refused, DirLockError::Corrupt { path } if *path == in_the_way),
            "{refused:?}"
        );
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
fn what_is_no_directory_is_not_locked() {
    let place = Place::new();
    fs::write(place.dir("file"), "").unwrap();
    for path in ["file", "file/below", "nothing"] {
        let error = place.try_lock(path).unwrap_err();
        assert!(matches!(error, DirLockError::Io { .. }), "{error:?}");
    }
    assert!(!place.registry().exists());
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
fn a_pipe_in_the_place_of_any_file_of_an_entry_keeps_nobody_waiting() {
    let place = Place::new();
    drop(place.try_lock("above").unwrap());
    let (registry, dir) = (place.registry(), place.dir("above"));
    let entry = DirLock::status(&registry, &dir).unwrap().entry;
    let mine = format!(".handler.release-requested.{}", std::process::id());
    let note = Note::new("ann", "a rebase").unwrap();
    for name in [
        ".handler.pid",
        ".handler.guard",
        ".handler.release-requested",
        &mine,
        "note",
        "note.new",
        "hold",
        "hold.new",
        "directory",
    ] {
        let path = entry.join(name);
        let plant = || {
            drop(fs::remove_file(&path));
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        };
        let kept = fs::read(&path).ok();
        // What each says is the business of other tests; here it is that it comes back.
        plant();
        drop(DirLock::hold(&registry, &dir, &note));
        plant();
        drop(DirLock::end_hold(&registry, &dir));
        plant();
        drop(place.try_lock("above"));
        plant();
        drop(DirLock::list(&registry).unwrap());
        drop(DirLock::status(&registry, &dir));
        drop(session_lock::request_release(&entry));
        drop(session_lock::wait_free(&entry, Instant::now()));
        drop(fs::remove_file(&path));
        if let (Some(bytes), true) = (kept, name == "directory") {
            fs::write(&path, bytes).unwrap();
        }
        DirLock::end_hold(&registry, &dir).unwrap();
        let lock = place.try_lock("above").unwrap();
        plant();
        drop(session_lock::request_release(&entry));
        drop(lock.release());
        drop(fs::remove_file(&path));
        if name == "directory" {
            let text = format!("v1\n{}\n", dir.canonicalize().unwrap().display());
            fs::write(&path, text).unwrap();
        }
    }
    drop(place.try_lock("above").unwrap());
}

#[test]
fn a_link_in_the_place_of_an_unfinished_file_is_replaced_and_never_written_through() {
    let place = Place::new();
    drop(place.try_lock("above").unwrap());
    let (registry, dir) = (place.registry(), place.dir("above"));
    let entry = DirLock::status(&registry, &dir).unwrap().entry;
    let precious = place.dir("precious");
    fs::write(&precious, "kept").unwrap();
    let mine = format!(".handler.release-requested.{}", std::process::id());
    for name in ["note.new", "hold.new", &mine] {
        std::os::unix::fs::symlink(&precious, entry.join(name)).unwrap();
    }
    let lock = place.try_lock("above").unwrap();
    session_lock::request_release(&entry).unwrap();
    lock.release().unwrap();
    DirLock::hold(&registry, &dir, &Note::new("ann", "").unwrap()).unwrap();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "kept");
    let hold = DirLock::end_hold(&registry, &dir).unwrap();
    assert_eq!(hold.unwrap().by, "ann");
}

/// The names in the registry.
fn names(place: &Place) -> Vec<String> {
    let listed = fs::read_dir(place.registry()).unwrap();
    let names = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn the_entry_of_a_directory_that_is_gone_is_swept_unless_somebody_has_it() {
    let place = Place::new();
    let all = ["free", "locked", "held", "torn"];
    for name in all {
        fs::create_dir(place.dir(name)).unwrap();
    }
    let entry = |name| {
        let status = DirLock::status(&place.registry(), &place.dir(name));
        status.unwrap().entry
    };
    let note = Note::new("ann", "").unwrap();
    drop(place.try_lock("free").unwrap());
    let locked = place.try_lock("locked").unwrap();
    DirLock::hold(&place.registry(), &place.dir("held"), &note).unwrap();
    drop(place.try_lock("torn").unwrap());
    let entries = all.map(entry);
    fs::write(entries[3].join(".handler.pid"), "noise\n").unwrap();
    for name in all {
        fs::remove_dir(place.dir(name)).unwrap();
    }
    drop(place.try_lock("above").unwrap());
    assert_eq!(
        entries.each_ref().map(|entry| entry.is_dir()),
        [false, true, true, true]
    );
    assert_eq!(names(&place).len(), 4);

    // Free by now, it goes with the next sweep.
    assert_eq!(locked.release().unwrap(), Released::Released);
    drop(place.try_lock("above/below").unwrap());
    assert!(!entries[1].is_dir());
}

#[test]
fn a_half_made_entry_is_swept_once_its_maker_is_gone() {
    const NOBODY: u32 = 4_194_304;
    let place = Place::new();
    drop(place.try_lock("above").unwrap());
    let make = |pid: u32, old: bool| {
        let folder = place.registry().join(format!("x-0.{pid}-7.new"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("directory"), "v1\n/no").unwrap();
        if old {
            let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
            let folder = fs::File::open(&folder).unwrap();
            folder.set_modified(long_ago).unwrap();
        }
        folder
    };
    let (young, own) = (make(NOBODY - 1, false), make(std::process::id(), true));
    let abandoned = make(NOBODY, true);
    drop(place.try_lock("above/below").unwrap());
    assert_eq!(
        [&young, &own, &abandoned].map(|folder| folder.is_dir()),
        [true, true, false]
    );
    assert_eq!(names(&place).len(), 4);
}

#[test]
fn a_directory_that_comes_and_goes_is_locked_by_one_at_a_time_whoever_sweeps() {
    const THREADS: usize = 4;
    const TURNS: usize = 40;
    let place = Place::new();
    let dir = place.dir("coming");
    let inside = std::sync::Mutex::new(());
    let wait = Wait::Until(Instant::now() + Duration::from_secs(60));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (place, dir, inside) = (&place, &dir, &inside);
            scope.spawn(move || {
                for turn in 0..TURNS {
                    drop(fs::create_dir(dir));
                    let locked = DirLock::options(&place.registry()).wait(wait).acquire(dir);
                    match locked {
                        Ok(lock) => {
                            let alone = inside.try_lock().expect("nobody else is inside");
                            if turn % 2 == 0 {
                                drop(fs::remove_dir(dir));
                            }
                            drop(alone);
                            drop(lock);
                        }
                        // Another thread has removed it.
                        Err(error) => {
                            assert!(
                                matches!(
                                    &error,
                                    DirLockError::Io {
                                        doing: "resolve",
                                        ..
                                    }
                                ),
                                "{error:?}"
                            );
                        }
                    }
                    // A new entry sweeps.
                    let other = place.dir(&format!("other-{thread}-{turn}"));
                    fs::create_dir(&other).unwrap();
                    drop(DirLock::options(&place.registry()).acquire(&other).unwrap());
                    fs::remove_dir(&other).unwrap();
                }
            });
        }
    });
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
