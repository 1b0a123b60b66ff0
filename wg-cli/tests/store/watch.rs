//! Waiting for a change of a directory.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tempfile::TempDir;
use wg_cli::clock;
use wg_cli::store::watch::{DirWatch, Woke};

#[test]
fn a_file_that_comes_or_grows_or_goes_is_a_change() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x");
    let mut watch = DirWatch::new(dir.path()).unwrap();
    assert_eq!(watch.polling(), None);
    let changes: [&dyn Fn(); 4] = [
        &|| fs::write(&path, "x").unwrap(),
        &|| {
            fs::OpenOptions::new()
                .append(true)
                .open(&path)
                .unwrap()
                .write_all(b"y")
                .unwrap();
        },
        &|| fs::rename(&path, path.with_extension("y")).unwrap(),
        &|| fs::remove_file(path.with_extension("y")).unwrap(),
    ];
    for change in changes {
        change();
        assert_eq!(watch.wait(None, &[]).unwrap(), Woke::Changed);
        assert_eq!(
            watch.wait(Some(clock::steady()), &[]).unwrap(),
            Woke::Deadline,
            "each change wakes once"
        );
    }
}

#[test]
fn a_descriptor_goes_before_the_directory_and_a_deadline_ends_the_wait() {
    let dir = TempDir::new().unwrap();
    let mut watch = DirWatch::new(dir.path()).unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let (_quiet, silent) = UnixStream::pair().unwrap();
    fs::write(dir.path().join("x"), "x").unwrap();
    ours.write_all(b"!").unwrap();
    let extra = [silent.as_fd(), theirs.as_fd()];
    assert_eq!(watch.wait(None, &extra).unwrap(), Woke::Ready(1));
    assert_eq!(watch.wait(None, &extra[..1]).unwrap(), Woke::Changed);
    let soon = clock::steady() + Duration::from_millis(20);
    assert_eq!(watch.wait(Some(soon), &extra[..1]).unwrap(), Woke::Deadline);
    assert!(clock::steady() >= soon);
    drop(ours);
    assert_eq!(
        watch.wait(None, &[theirs.as_fd()]).unwrap(),
        Woke::Ready(0),
        "a closed end is readable"
    );
}

#[test]
fn a_directory_that_goes_away_and_comes_back_is_watched_again() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("session");
    fs::create_dir(&dir).unwrap();
    let mut watch = DirWatch::new(&dir).unwrap();
    fs::remove_dir(&dir).unwrap();
    assert_eq!(watch.wait(None, &[]).unwrap(), Woke::Changed);
    assert!(watch.polling().is_some());
    fs::create_dir(&dir).unwrap();
    assert_eq!(
        watch.wait(None, &[]).unwrap(),
        Woke::Changed,
        "by looking every second"
    );
    assert_eq!(watch.polling(), None);
    fs::write(dir.join("x"), "x").unwrap();
    assert_eq!(watch.wait(None, &[]).unwrap(), Woke::Changed);
}

#[test]
fn a_directory_that_is_not_there_cannot_be_watched() {
    let dir = TempDir::new().unwrap();
    assert!(DirWatch::new(&dir.path().join("nowhere")).is_err());
}
