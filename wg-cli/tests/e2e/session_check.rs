//! `wg session check [--fix]`: each case is explained, and only what is safe is mended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use session_lock::{Kind, ProcessIdentity, Released, SessionLock};

use crate::process::wait_readable;
use crate::world::{WATCHDOG, World};

/// No process has this number: the kernel gives out no higher ones.
const NOBODY: u32 = 4_194_304;

/// A process that does nothing, ended with its test.
struct Sleeper(Child);

impl Sleeper {
    fn new(world: &World) -> Self {
        let mut sleep = world.command("sleep");
        Self(
            sleep
                .arg("1000")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A workspace with one chat, and the directory of its session.
fn workspace() -> (World, PathBuf) {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    let dir = world.json(&["session", "status", "0"])["dir"].clone();
    let dir = PathBuf::from(dir.as_str().unwrap());
    fs::create_dir_all(&dir).unwrap();
    (world, dir)
}

fn plant(dir: &Path, pid: u32, since: &str) {
    fs::write(
        dir.join(".handler.pid"),
        format!("{pid}\n{since}\nchat-nex\n"),
    )
    .unwrap();
}

/// The only finding: its weight and its text.
#[track_caller]
fn only(world: &World, args: &[&str]) -> (String, String, bool) {
    let mut all = vec!["session", "check", "--json"];
    all.extend(args);
    let found = world.wg(&all).json();
    let findings = found["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{found}");
    let text = |key: &str| findings[0][key].as_str().unwrap().to_owned();
    (
        text("weight"),
        text("text"),
        findings[0]["fixed"].as_bool().unwrap(),
    )
}

/// What nobody holds is a note; `--fix` sweeps it, and then there is nothing to find.
#[track_caller]
fn assert_swept(world: &World, dir: &Path, words: &str) {
    let (weight, text, fixed) = only(world, &[]);
    assert_eq!((weight.as_str(), fixed), ("note", false));
    assert!(text.contains(words), "no `{words}` in: {text}");
    assert!(
        dir.join(".handler.pid").exists(),
        "a look has changed something"
    );
    world.wg(&["session", "check"]).ok();
    let (_, _, fixed) = only(world, &["--fix"]);
    assert!(fixed);
    assert!(!dir.join(".handler.pid").exists());
    assert_eq!(
        world.json(&["session", "check"]),
        serde_json::json!({"ok": true, "findings": []})
    );
}

/// What only a person can judge is told and left as it is.
#[track_caller]
fn assert_left(world: &World, weight: &str, words: &[&str]) {
    for args in [&[][..], &["--fix"]] {
        let (seen, text, fixed) = only(world, args);
        assert_eq!((seen.as_str(), fixed), (weight, false), "{text}");
        for word in words {
            assert!(text.contains(word), "no `{word}` in: {text}");
        }
    }
}

#[test]
fn the_lock_of_a_dead_holder_is_explained_and_swept() {
    let (world, dir) = workspace();
    plant(&dir, NOBODY, "2026-01-01T00:00:00Z");
    assert_swept(&world, &dir, "pid 4194304 (chat-nex)");
}

#[test]
fn the_lock_of_a_holder_that_nobody_waited_for_is_explained_and_swept() {
    let (world, dir) = workspace();
    let mut sleeper = Sleeper::new(&world);
    sleeper.0.kill().unwrap();
    if let Some(watch) = session_lock::watch(sleeper.pid()).unwrap() {
        assert!(wait_readable(&watch, WATCHDOG));
    }
    plant(&dir, sleeper.pid(), "2026-01-01T00:00:00Z");
    assert_swept(&world, &dir, "its parent has not noticed yet");
}

#[test]
fn a_recycled_number_is_explained_and_the_innocent_process_is_left_alone() {
    let (world, dir) = workspace();
    let mut sleeper = Sleeper::new(&world);
    let since = "2026-01-01T00:00:00Z";
    plant(&dir, sleeper.pid(), since);
    let boot = ProcessIdentity::own().boot_id.unwrap_or("-".to_owned());
    let claim = format!(
        "v1 held gen=7 pid={} start=1 boot={boot} pidns=- host=- uid=0 at={since} kind=chat-nex\n",
        sleeper.pid()
    );
    fs::write(dir.join(".handler.guard"), claim).unwrap();
    assert_swept(&world, &dir, "given to another process since (sleep)");
    assert!(sleeper.lives());
}

#[test]
fn the_lock_of_an_earlier_boot_is_explained_and_swept() {
    let (world, dir) = workspace();
    let mut sleeper = Sleeper::new(&world);
    let since = "2026-01-01T00:00:00Z";
    plant(&dir, sleeper.pid(), since);
    let claim = format!(
        "v1 held gen=7 pid={} start=1 boot=another pidns=- host=- uid=0 at={since} kind=chat-nex\n",
        sleeper.pid()
    );
    fs::write(dir.join(".handler.guard"), claim).unwrap();
    assert_swept(&world, &dir, "the last start of this machine");
    assert!(sleeper.lives());
}

#[test]
fn a_corrupt_record_is_explained_and_swept() {
    let (world, dir) = workspace();
    fs::write(dir.join(".handler.pid"), "what is this\n").unwrap();
    assert_swept(&world, &dir, "is no record of a lock");
}

#[test]
fn what_is_no_file_at_all_is_an_error_that_a_person_mends() {
    let (world, dir) = workspace();
    std::os::unix::fs::symlink("/etc/passwd", dir.join(".handler.pid")).unwrap();
    assert_left(&world, "error", &["is a symbolic link", "cannot be locked"]);
    world.wg(&["session", "check", "--fix"]).with_code(1);
    assert!(dir.join(".handler.pid").is_symlink());
}

#[test]
fn a_foreign_holder_is_told_and_left() {
    let (world, dir) = workspace();
    let mut sleeper = Sleeper::new(&world);
    // Far enough in the future that no clock makes the process younger than its record.
    plant(&dir, sleeper.pid(), "2999-01-01T00:00:00Z");
    assert_left(&world, "note", &["(sleep)", "another tool's process"]);
    assert!(sleeper.lives() && dir.join(".handler.pid").exists());
}

#[test]
fn a_foreign_record_that_is_older_than_its_process_is_doubted_and_left() {
    let (world, dir) = workspace();
    let mut sleeper = Sleeper::new(&world);
    plant(&dir, sleeper.pid(), "2001-01-01T00:00:00Z");
    assert_left(
        &world,
        "warning",
        &["(sleep)", "started after the record was written"],
    );
    assert!(sleeper.lives() && dir.join(".handler.pid").exists());
}

#[test]
fn an_orphaned_lock_names_who_still_has_it_and_is_left() {
    let (world, dir) = workspace();
    let lock = SessionLock::try_acquire(&dir, Kind::ChatNex).unwrap();
    let mut command = world.command("sleep");
    command.arg("1000").stdin(Stdio::null());
    let mut sleeper = Sleeper(lock.spawn_lent(&mut command).unwrap());
    assert!(matches!(
        lock.release().unwrap(),
        Released::StillLent { .. }
    ));
    let named = format!("pid {} (sleep)", sleeper.pid());
    assert_left(&world, "warning", &["is orphaned", &named]);
    assert!(sleeper.lives());
    world.wg(&["session", "takeover", "0", "--force"]).ok();
    sleeper.0.wait().unwrap();
    drop(SessionLock::try_acquire(&dir, Kind::ChatNex).unwrap());
}

#[test]
fn a_second_directory_of_a_chat_is_a_duplicate() {
    let (world, dir) = workspace();
    let second = dir.with_file_name("coordinator-0");
    fs::create_dir(&second).unwrap();
    assert_left(
        &world,
        "warning",
        &["coordinator-0` is a duplicate: chat-0 keeps its session in"],
    );
    assert!(second.is_dir());
}

#[test]
fn a_holder_whose_chat_is_gone_is_an_orphan() {
    let (world, dir) = workspace();
    let left = dir.with_file_name(".chat-9");
    fs::create_dir(&left).unwrap();
    let sleeper = Sleeper::new(&world);
    plant(&left, sleeper.pid(), "2999-01-01T00:00:00Z");
    let found = world.wg(&["session", "check"]).with_code(1).stdout;
    let orphan = format!("pid {} (chat-nex) is an orphan", sleeper.pid());
    for words in [
        "belongs to a chat that is not in the graph",
        &orphan,
        "wg session takeover .chat-9",
    ] {
        assert!(found.contains(words), "no `{words}` in:\n{found}");
    }
}

#[test]
fn a_holder_whose_chat_is_archived_is_told_of() {
    let (world, dir) = workspace();
    world.wg(&["chat", "archive", "0"]).ok();
    world.wg(&["session", "check"]).ok();
    let sleeper = Sleeper::new(&world);
    plant(&dir, sleeper.pid(), "2999-01-01T00:00:00Z");
    let found = world.wg(&["session", "check"]).with_code(1).stdout;
    let served = format!(
        "chat-0 is archived, and pid {} (chat-nex) still serves it",
        sleeper.pid()
    );
    for words in [&served, "wg session takeover chat-0"] {
        assert!(found.contains(words), "no `{words}` in:\n{found}");
    }
}

#[test]
fn a_name_that_means_two_sessions_is_a_duplicate() {
    let world = World::with_workspace();
    fs::create_dir_all(world.path(".wg/chat")).unwrap();
    let mut sessions = serde_json::Map::new();
    for uuid in [
        "11111111-1111-4111-8111-111111111111",
        "22222222-2222-4222-8222-222222222222",
    ] {
        fs::create_dir(world.path(".wg/chat").join(uuid)).unwrap();
        sessions.insert(uuid.to_owned(), serde_json::json!({"aliases": ["docs"]}));
    }
    let registry = serde_json::json!({"version": 0, "sessions": sessions});
    fs::write(world.path(".wg/chat/sessions.json"), registry.to_string()).unwrap();
    assert_left(&world, "warning", &["`docs` names both session"]);
}
