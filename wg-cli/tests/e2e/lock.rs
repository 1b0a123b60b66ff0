//! `wg lock`: one writer per directory, for any program.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use session_lock::{Inspection, inspect};

use crate::golden;
use crate::process::{Process, wait_gone};
use crate::world::{Running, World};

pub(crate) fn world() -> World {
    let world = World::new();
    std::fs::create_dir_all(world.path("d/sub")).unwrap();
    world
}

/// A wrapper whose command has said that it runs.
pub(crate) fn holder(world: &World, dir: &str, script: &str) -> Running {
    let mut holder = world.start(&[
        "lock", "run", "--dir", dir, "--note", "a test", "--", "sh", "-c", script,
    ]);
    assert_eq!(holder.line(), "in");
    holder
}

pub(crate) fn send(process: i32, signal: Signal) {
    kill(Pid::from_raw(process), signal).unwrap();
}

/// The only entry of the registry.
fn entry(world: &World) -> std::path::PathBuf {
    let registry = world.path("../home/.local/state/wg/locks");
    let mut entries = std::fs::read_dir(registry).unwrap();
    entries.next().unwrap().unwrap().path()
}

fn process(world: &World, name: &str) -> Process {
    let found = world.processes().into_iter();
    let mut found = found.filter(|process| process.command_line[0] == name);
    found.next().unwrap_or_else(|| panic!("no `{name}` runs"))
}

#[test]
fn the_code_of_the_command_is_passed_through_and_the_directory_is_free_again() {
    let world = world();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
    ] {
        world
            .wg(&["lock", "run", "--dir", "d", "--", "sh", "-c", script])
            .with_code(code);
    }
    for (program, code) in [("no-such-program", 127), ("/", 126)] {
        let done = world.wg(&["lock", "run", "--dir", "d", "--", program]);
        assert!(done.with_code(code).stderr.contains("failed to start"));
    }
    assert_eq!(world.json(&["lock", "status", "d"])["state"], "free");
    assert!(world.processes().is_empty());
}

#[test]
fn who_is_refused_is_told_who_has_the_directory_and_since_when_and_what_for() {
    let world = world();
    let mut holder = holder(&world, "d", "echo in; read line");
    for (args, code) in [
        (&["--dir", "d"][..], 75),
        (&["--dir", "d/sub"], 75),
        (&["--dir", "."], 75),
        (&["--dir", "d", "--wait", "0.1"], 124),
    ] {
        let all = [&["lock", "run", "--json"], args, &["--", "touch", "ran"]].concat();
        let done = world.wg(&all).with_code(code);
        for word in [&format!("pid {}", holder.pid()), "since", "a test", "here`"] {
            assert!(done.stderr.contains(word), "no `{word}`: {}", done.stderr);
        }
        assert_eq!(done.json()["holder"]["pid"], holder.pid());
    }
    world
        .wg(&[
            "lock",
            "run",
            "--dir",
            "d/sub",
            "--allow-overlap",
            "--",
            "true",
        ])
        .ok();
    assert!(!world.path("ran").exists());
    let list = world.json(&["lock", "list"]);
    assert_eq!(list["locks"].as_array().unwrap().len(), 1);
    assert_eq!(list["locks"][0]["note"]["reason"], "a test");
    holder.say("\n");
    holder.finish().ok();
    assert_eq!(
        world.json(&["lock", "list"])["locks"][0],
        serde_json::Value::Null
    );
    assert!(world.processes().is_empty());
}

#[test]
fn who_waits_gets_the_directory_when_the_holder_has_ended() {
    let world = world();
    let mut first = holder(&world, "d", "echo in; read line; echo one >> log");
    let second = world.start(&[
        "lock",
        "run",
        "--dir",
        "d",
        "--wait",
        "100",
        "--",
        "sh",
        "-c",
        "echo two >> log",
    ]);
    first.say("\n");
    first.finish().ok();
    second.finish().ok();
    assert_eq!(world.read("log"), "one\ntwo\n");
    assert!(world.processes().is_empty());
}

#[test]
fn the_command_keeps_the_lock_when_its_wrapper_is_killed() {
    let world = world();
    let holder = holder(&world, "d", "echo in; exec sleep 1000 >/dev/null 2>&1");
    send(holder.pid(), Signal::SIGKILL);
    assert_eq!(holder.finish().code(), 1_009);
    assert!(matches!(inspect(&entry(&world)), Ok(Inspection::Held(_))));
    world
        .wg(&["lock", "run", "--dir", "d", "--", "true"])
        .with_code(75);
    let sleeper = process(&world, "sleep");
    world
        .wg(&["lock", "release", "d", "--wait", "0", "--force"])
        .ok();
    wait_gone(sleeper.pid);
    world.wg(&["lock", "run", "--dir", "d", "--", "true"]).ok();
    assert!(world.processes().is_empty());
}

#[test]
fn what_the_command_leaves_in_its_group_is_waited_for() {
    let world = world();
    let holder = holder(&world, "d", "sleep 1000 >/dev/null 2>&1 & echo in");
    let refused = world.wg(&["lock", "run", "--json", "--dir", "d", "--", "true"]);
    assert_eq!(refused.with_code(75).json()["holder"]["pid"], holder.pid());
    let sleeper = process(&world, "sleep");
    send(sleeper.pid, Signal::SIGKILL);
    holder.finish().ok();
    assert_eq!(world.json(&["lock", "status", "d"])["state"], "free");
    assert!(world.processes().is_empty());
}

#[test]
fn a_stranger_in_the_directory_is_told_apart_from_the_holder() {
    let world = world();
    let mut stranger = world.command("/bin/sh");
    stranger
        .args(["-c", "read line"])
        .current_dir(world.path("d"));
    stranger.stdin(std::process::Stdio::piped());
    let mut stranger = stranger.spawn().unwrap();
    let mut holder = holder(&world, "d", "cd d; echo in; read line");
    let status = world.json(&["lock", "status", "d"]);
    let relations: Vec<(u64, String)> = status["occupants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            let relation = it["relation"].as_str().unwrap().to_owned();
            (it["pid"].as_u64().unwrap(), relation)
        })
        .collect();
    assert!(
        relations.contains(&(u64::from(stranger.id()), "stranger".to_owned())),
        "{relations:?}"
    );
    assert!(relations.iter().any(|(_, relation)| relation == "follower"));
    drop(stranger.stdin.take());
    stranger.wait().unwrap();
    holder.say("\n");
    holder.finish().ok();
    assert!(world.processes().is_empty());
}

#[test]
fn what_is_no_directory_is_not_locked() {
    let world = world();
    std::fs::write(world.path("file"), "").unwrap();
    for path in ["file", "file/below", "/dev/null"] {
        let done = world.wg(&["lock", "run", "--dir", path, "--", "true"]);
        let said = done.with_code(1).stderr;
        assert!(said.contains("is no directory"), "{said}");
    }
}

#[test]
fn a_release_asks_and_force_ends_the_command() {
    let world = world();
    let holder = holder(&world, "d", "echo in; exec sleep 1000 >/dev/null 2>&1");
    world
        .wg(&["lock", "release", "d", "--wait", "0.1"])
        .with_code(75);
    let done = world.json(&["lock", "release", "d", "--wait", "0", "--force"]);
    assert_eq!(
        (&done["free"], &done["signalled"]),
        (&true.into(), &true.into())
    );
    assert_eq!(holder.finish().code(), 143);
    assert!(world.processes().is_empty());
}

#[test]
fn a_hold_lasts_without_a_process_until_it_is_released() {
    let world = world();
    world
        .wg(&["lock", "hold", "d", "--by", "ann", "--reason", "a rebase"])
        .ok();
    let done = world.wg(&["lock", "run", "--dir", "d/sub", "--", "true"]);
    assert!(done.with_code(75).stderr.contains("ann: a rebase"));
    world.wg(&["lock", "release", "d"]).with_code(75);
    world.wg(&["lock", "release", "d", "--force"]).ok();
    world
        .wg(&["lock", "run", "--dir", "d/sub", "--", "true"])
        .ok();
    assert!(world.processes().is_empty());
}

#[test]
fn agents_that_want_their_directory_alone_take_turns_in_it_and_say_who_has_it() {
    let world = World::with_workspace();
    let agent = world.script(
        "agent.sh",
        "#!/bin/sh\nread text\necho \"in $text\" >> log\n\
         if [ \"$text\" = first ]; then read line < gate; fi\n\
         echo \"out $text\" >> log\necho \"answer to $text\"\n",
    );
    let config = format!(
        "[service]\nagent = \"alone\"\nmax_turns = 4\n\n\
         [agents.alone]\ncommand = [\"{}\"]\nprotocol = \"stdin\"\nexclusive = \"dir\"\n",
        agent.display()
    );
    std::fs::write(world.path(".wg/config.toml"), config).unwrap();
    world.sh("mkfifo gate", b"");
    for id in ["chat-2", "chat-3"] {
        let here = world.here();
        let here = here.to_str().unwrap();
        world.wg(&["chat", "new", "--id", id, "--cwd", here]).ok();
    }
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "send", "2", "first"]).ok();
    world.wait_for_file("log", |log| log.contains("in first"));
    world.wg(&["chat", "send", "3", "second"]).ok();
    world.wait_for_file(".wg/service/events.jsonl", |events| {
        events.contains("waits: directory held by chat-2")
    });

    let list = world.wg(&["chat", "list"]).ok().stdout;
    assert!(list.contains("queued: directory held by chat-2"), "{list}");
    let rows = world.json(&["chat", "list"]);
    let row = rows["chats"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["chat_id"] == 3);
    let row = row.unwrap_or_else(|| panic!("{rows}"));
    assert_eq!(row["state"], "queued");
    assert_eq!(row["waits_for"], "directory held by chat-2");
    let why = world.wg(&["why", "3"]).ok().stdout;
    assert!(why.contains("queued: directory held by chat-2"), "{why}");
    let status = world.json(&["lock", "status", "."]);
    assert_eq!(status["note"]["by"], "chat-2");

    world.sh("echo go > gate", b"");
    world.wait_for_file("log", |log| log.contains("out second"));
    assert_eq!(
        world.read("log"),
        "in first\nout first\nin second\nout second\n"
    );
    world.wg(&["service", "stop"]).ok();
    assert_eq!(world.json(&["lock", "status", "."])["state"], "free");
}

#[test]
fn every_lock_verb_keeps_its_schema() {
    let world = world();
    let check = |name: &str, args: &[&str]| {
        golden::check_schema(&world, &format!("json/{name}"), &world.json(args));
    };
    check("lock-status-free", &["lock", "status", "d"]);
    check(
        "lock-hold",
        &["lock", "hold", "d", "--by", "ann", "--reason", "a rebase"],
    );
    check("lock-release-hold", &["lock", "release", "d", "--force"]);
    let mut holder = holder(&world, "d", "cd d; echo in; read line");
    let torn = world.path("../home/.local/state/wg/locks/torn");
    std::fs::create_dir(&torn).unwrap();
    check("lock-status", &["lock", "status", "d"]);
    check("lock-list", &["lock", "list"]);
    std::fs::remove_dir(torn).unwrap();
    let refused = world.wg(&["lock", "run", "--json", "--dir", "d", "--", "true"]);
    golden::check_schema(&world, "json/lock-run-held", &refused.with_code(75).json());
    let asked = world.json(&["lock", "release", "d", "--wait", "0"]);
    golden::check_schema(&world, "json/lock-release", &asked);
    holder.say("\n");
    holder.finish().ok();
}
