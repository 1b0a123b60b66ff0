//! A workspace on a disk that is full: every verb that writes says so with path and cure, nothing that was accepted is lost, and all goes
//! on once there is room.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::errors::told;
use crate::world::{World, watch_until};

/// A small disk for the workspace.
struct Disk {
    mounted_on: PathBuf,
}

impl Disk {
    fn filler(&self) -> PathBuf {
        self.mounted_on.join("filler")
    }

    /// Takes every byte that is left.
    fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Where a test has failed something may still run on it.
        umount2(&self.mounted_on, MntFlags::MNT_DETACH).ok();
    }
}

/// Runs a test whose workspace is on a small disk, which only its thread and what that starts can see. Only root can.
fn on_a_small_disk(test: fn(&World, &Disk)) {
    let in_a_thread = move || {
        let nothing = None::<&str>;
        match unshare(CloneFlags::CLONE_NEWNS) {
            Err(Errno::EPERM) => return,
            unshared => unshared.unwrap(),
        }
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(nothing, "/", nothing, private, nothing).unwrap();
        let world = World::new();
        let mounted_on = world.path(".wg");
        fs::create_dir(&mounted_on).unwrap();
        let (kind, size) = (Some("tmpfs"), Some("size=4m,mode=755"));
        mount(kind, &mounted_on, kind, MsFlags::empty(), size).unwrap();
        // Dropped first.
        let disk = Disk { mounted_on };
        world.wg(&["init"]).ok();
        test(&world, &disk);
    };
    if let Err(panic) = thread::spawn(in_a_thread).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Refused with the system's words, the path and the cure.
const FULL: [&str; 3] = [
    "/.wg/",
    "No space left on device",
    "make room and try again",
];

/// What no full disk may change.
fn kept(world: &World) -> [String; 3] {
    [
        ".wg/graph.jsonl",
        ".wg/chat/.chat-0/inbox.jsonl",
        ".wg/chat/.chat-0/outbox.jsonl",
    ]
    .map(|file| world.read(file))
}

fn all_that_writes(world: &World, disk: &Disk, running: bool) {
    world.wg(&["up", "hello"]).ok();
    if !running {
        world.wg(&["service", "stop"]).ok();
    }
    let before = kept(world);
    disk.fill();
    let long = "x".repeat(20_000);
    for verb in [
        &["chat", "send", "0", &long][..],
        &["chat", "--timeout", "60", &long],
        &["up", "--timeout", "60", &long],
        &["chat", "new"],
        &["service", "create-chat"],
        &["service", "set-executor", "0", "--agent", "echo"],
        &["chat", "stop", "0"],
        &["chat", "archive", "0"],
        &["chat", "delete", "0", "--yes"],
        &["service", "restart"],
    ] {
        told(&world.wg(verb), 71, &FULL);
    }
    let purged = world.wg(&["service", "purge-chats"]).with_code(71);
    let said = format!("{}{}", purged.stdout, purged.stderr);
    for words in FULL {
        assert!(said.contains(words), "{said}");
    }
    assert!(!said.contains("held"), "{said}");
    let doctor = world.wg(&["doctor"]).with_code(1).stdout;
    assert!(
        doctor.contains("error disk: failed to write to `"),
        "{doctor}"
    );
    assert!(doctor.contains("No space left on device"), "{doctor}");
    assert!(
        doctor.contains("you can: the disk is full: make room"),
        "{doctor}"
    );
    if running {
        world.wg(&["service", "status", "--check"]).ok();
        // Nothing of it changes, so nothing is written.
        world.wg(&["service", "reload"]).ok();
    } else {
        told(&world.wg(&["service", "start"]), 71, &FULL);
    }
    assert_eq!(kept(world), before);
    disk.empty();
    world.wg(&["service", "start"]).ok();
    assert_eq!(world.wg(&["chat", "again"]).ok().stdout, "again\n");
    world.wg(&["doctor"]).ok();
    world.stop();
    let names = world.sh("find .wg -name '*.tmp.*' -o -name '*.corrupt*'", b"");
    assert_eq!(names.stdout, "");
}

#[test]
fn every_verb_that_writes_says_that_the_disk_is_full_and_changes_nothing() {
    on_a_small_disk(|world, disk| all_that_writes(world, disk, false));
}

#[test]
fn a_service_whose_disk_is_full_refuses_says_why_and_goes_on() {
    on_a_small_disk(|world, disk| all_that_writes(world, disk, true));
}

#[test]
fn why_names_the_full_disk_where_a_handler_cannot_be_started_for_it() {
    on_a_small_disk(|world, disk| {
        world.wg(&["chat", "new"]).ok();
        world.wg(&["service", "start"]).ok();
        world.wg(&["service", "pause"]).ok();
        world.wg(&["chat", "send", "0", "hello"]).ok();
        disk.fill();
        world.wg(&["service", "resume"]).ok();
        // Each attempt makes a file that is gone at once.
        watch_until(&world.path(".wg/service"), "why to name the disk", || {
            let why = world.wg(&["why", "0"]).ok().stdout;
            why.contains("because  the decision to start could not be written down: failed to ")
                && FULL.iter().all(|words| why.contains(words))
        });
        disk.empty();
        world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
            text.contains("\"content\":\"hello\"")
        });
        world.stop();
    });
}
