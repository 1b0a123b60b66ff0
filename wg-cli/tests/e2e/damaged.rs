//! Files of a workspace that are damaged, or are no files: each damage has one name in every verb, and the cure that is named mends it.

use std::fs;

use serde_json::Value;

use crate::process::killed;
use crate::world::World;

/// Files that somebody can put something else in the place of without taking anything from anybody.
const FILES: [&str; 22] = [
    "graph.lock",
    "chat/.chat-0/inbox.jsonl",
    "chat/.chat-0/inbox.jsonl.lock",
    "chat/.chat-0/outbox.jsonl",
    "chat/.chat-0/outbox.jsonl.lock",
    "chat/.chat-0/.cursor",
    "chat/.chat-0/.nex-cursor",
    "chat/.chat-0/.coordinator-cursor",
    "chat/.chat-0/.streaming",
    "chat/.chat-0/.turn.json",
    "chat/.chat-0/exit.json",
    "chat/.chat-0/handler.log",
    "chat/.chat-0/agent-stderr.log",
    "chat/.chat-0/.handler.pid",
    "chat/.chat-0/.handler.guard",
    "chat/.chat-0/.handler.release-requested",
    "service/state.json",
    "service/config.toml",
    "service/daemon.log",
    "service/events.jsonl",
    "service/events.jsonl.lock",
    "service/coordinator-state-0.json.lock",
];

/// A workspace with a chat that has answered once, and no service.
fn rested() -> World {
    let world = World::with_workspace();
    world.wg(&["up", "hello"]).ok();
    world.wg(&["service", "stop"]).ok();
    world
}

fn findings(world: &World, args: &[&str]) -> Vec<Value> {
    let document: Value = serde_json::from_str(&world.wg(args).stdout).unwrap();
    document["findings"].as_array().unwrap().clone()
}

fn text(finding: &Value) -> &str {
    finding["text"].as_str().unwrap()
}

#[test]
fn whatever_stands_in_the_place_of_a_file_is_named_once_and_moved_aside_by_doctor() {
    for (make, name) in [
        ("mkfifo", "a named pipe"),
        ("mkdir", "a directory"),
        ("ln -s /nowhere/at/all", "a symbolic link"),
    ] {
        let world = rested();
        for file in FILES {
            world.sh(&format!("rm -rf .wg/{file}; {make} .wg/{file}"), b"");
        }
        let found = findings(&world, &["doctor", "--json"]);
        for file in FILES {
            let sentence = format!("/{file}` is {name}, not a regular file");
            let named: Vec<&Value> = found
                .iter()
                .filter(|finding| text(finding).contains(&format!("/{file}`")))
                .collect();
            assert_eq!(named.len(), 1, "{file}: {named:#?}");
            assert!(text(named[0]).contains(&sentence), "{named:#?}");
            assert_eq!(named[0]["fixable"], true, "{named:#?}");
        }
        world.wg(&["doctor", "--fix"]).ok();
        for file in FILES {
            let aside = world.path(&format!(".wg/{file}.corrupt"));
            assert!(aside.symlink_metadata().is_ok(), "{file} is gone");
        }
        assert_eq!(world.wg(&["up", "again"]).ok().stdout, "again\n");
        world.wg(&["doctor"]).ok();
        world.stop();
    }
}

#[test]
fn what_stands_in_the_place_of_a_directory_or_of_the_socket_is_moved_aside() {
    for (place, make) in [
        ("chat/.chat-0", "touch"),
        ("chat/.chat-0/consumers", "touch"),
        ("chat", "mkfifo"),
        ("service", "touch"),
        ("service/daemon.sock", "mkdir"),
    ] {
        let world = rested();
        world.sh(&format!("rm -rf .wg/{place}; {make} .wg/{place}"), b"");
        let found = findings(&world, &["doctor", "--json"]);
        let named = found
            .iter()
            .filter(|finding| text(finding).contains(&format!("/{place}` is ")));
        assert_eq!(named.count(), 1, "{place}: {found:#?}");
        world.wg(&["doctor", "--fix"]).ok();
        assert_eq!(world.wg(&["up", "again"]).ok().stdout, "again\n", "{place}");
        world.stop();
    }
}

#[test]
fn a_pipe_among_the_files_of_a_session_has_one_name_in_every_verb() {
    let lock_verbs = [
        (&["session", "status", "0"][..], 0),
        (&["session", "check"], 1),
        (&["doctor"], 1),
        (&["nex", "--chat", "0", "hello"], 78),
    ];
    let inbox_verbs = [
        (&["chat", "show", "0"][..], 78),
        (&["chat", "read", "0"], 78),
        (&["chat", "send", "0", "hello"], 78),
        (&["chat", "hello"], 78),
        (&["doctor"], 1),
    ];
    for (file, verbs) in [
        (".handler.guard", &lock_verbs[..]),
        ("inbox.jsonl", &inbox_verbs[..]),
    ] {
        let world = rested();
        let path = format!(".wg/chat/.chat-0/{file}");
        world.sh(&format!("rm -f {path}; mkfifo {path}"), b"");
        for (verb, code) in verbs {
            let done = world.wg(verb).with_code(*code);
            let said = format!("{}{}", done.stdout, done.stderr);
            let sentence = format!("/{file}` is a named pipe, not a regular file");
            assert!(said.contains(&sentence), "{verb:?}: {said}");
        }
    }
}

#[test]
fn a_damaged_state_of_the_service_is_put_right_by_doctor() {
    let damages: [&[u8]; 5] = [b"", b"{ torn", b"\0\0\0\0", b"[1,2]\n", b"\xff\xfe\n"];
    for damage in damages {
        let world = rested();
        let state = world.path(".wg/service/state.json");
        fs::write(&state, damage).unwrap();
        let found = findings(&world, &["doctor", "--json"]);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(text(&found[0]).contains("state.json` is damaged"));
        assert!(!found[0]["fix"].as_str().unwrap().contains("wg doctor"));
        world.wg(&["doctor", "--fix"]).ok();
        assert!(!state.exists());
        let aside = world.path(".wg/service/state.json.corrupt");
        assert_eq!(fs::read(aside).unwrap(), damage);
        world.wg(&["doctor"]).ok();
    }
    // With a service that runs: it is known who that is.
    let world = World::with_workspace();
    world.wg(&["up", "hello"]).ok();
    let (pid, state) = (world.daemon_pid(), world.path(".wg/service/state.json"));
    fs::write(&state, "{ torn").unwrap();
    world.wg(&["doctor"]).with_code(1);
    world.wg(&["doctor", "--fix"]).ok();
    assert_eq!(world.daemon_pid(), pid);
    world.wg(&["doctor"]).ok();
    assert_eq!(world.wg(&["chat", "again"]).ok().stdout, "again\n");
    world.stop();
    assert!(
        !state.exists(),
        "the service takes back what was written for it"
    );
    // And one that was killed after that is known to be gone.
    world.wg(&["service", "start"]).ok();
    killed(world.daemon_pid());
    world.wg(&["service", "start"]).ok();
    world.stop();
}

#[test]
fn a_state_that_is_no_file_is_moved_aside_with_the_chat_stopped() {
    let world = rested();
    let state = ".wg/service/coordinator-state-0.json";
    world.sh(&format!("rm {state}; mkfifo {state}"), b"");
    let found = findings(&world, &["doctor", "--json"]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(text(&found[0]).contains("is a named pipe, not a regular file; nothing starts"));
    world.wg(&["doctor", "--fix"]).ok();
    world.wg(&["service", "start"]).ok();
    assert!(world.wg(&["why", "0"]).ok().stdout.contains("stopped"));
    world.wg(&["chat", "resume", "0"]).ok();
    assert_eq!(world.wg(&["chat", "again"]).ok().stdout, "again\n");
    world.stop();
}

#[test]
fn an_emptied_graph_retires_no_chat_that_has_a_session() {
    let world = rested();
    world.wg(&["chat", "stop", "0"]).ok();
    let (graph, state) = (".wg/graph.jsonl", ".wg/service/coordinator-state-0.json");
    let before = (world.read(graph), world.read(state));
    fs::write(world.path(graph), "").unwrap();
    let told = world.wg(&["doctor", "--fix"]).with_code(1).stdout;
    assert!(
        told.contains("graph.jsonl` is empty, though there are sessions"),
        "{told}"
    );
    assert!(told.contains("you can: put back a copy of it"), "{told}");
    assert_eq!(world.read(state), before.1);
    fs::write(world.path(graph), &before.0).unwrap();
    world.wg(&["doctor"]).ok();
    assert!(world.wg(&["why", "0"]).ok().stdout.contains("stopped"));
}

#[test]
fn settings_that_are_a_link_to_nothing_are_not_taken_for_none() {
    let world = World::with_workspace();
    world.sh("rm .wg/config.toml; ln -s nowhere .wg/config.toml", b"");
    let refused = world.wg(&["service", "start"]).with_code(78);
    assert!(
        refused
            .stderr
            .contains("/.wg/config.toml` is a link to nothing"),
        "{refused:?}"
    );
    let told = world.wg(&["doctor"]).with_code(1).stdout;
    assert!(
        told.contains("you can: put the settings in its place"),
        "{told}"
    );
    fs::write(world.path(".wg/nowhere"), "[service]\nagent = \"echo\"\n").unwrap();
    assert_eq!(world.wg(&["up", "hello"]).ok().stdout, "hello\n");
    world.stop();
}

#[test]
fn what_only_a_person_can_mend_is_told_once_and_never_by_sending_him_to_doctor() {
    for (file, cure) in [
        ("graph.jsonl", "put back a copy of the graph"),
        ("chat/sessions.json", "put back a copy, or correct it"),
        ("config.toml", "put a file in its place"),
    ] {
        let world = rested();
        world.sh(&format!("rm -f .wg/{file}; mkfifo .wg/{file}"), b"");
        for args in [&["doctor", "--json"][..], &["doctor", "--fix", "--json"]] {
            let found = findings(&world, args);
            assert_eq!(found.len(), 1, "{file}: {found:#?}");
            let told = text(&found[0]);
            assert!(
                told.contains("is a named pipe, not a regular file"),
                "{told}"
            );
            assert!(!told.contains("wg doctor"), "{told}");
            assert!(
                found[0]["fix"].as_str().unwrap().starts_with(cure),
                "{found:#?}"
            );
        }
    }
}

#[test]
fn a_socket_at_which_a_service_listens_is_not_removed_whatever_its_record_says() {
    let world = World::with_workspace();
    world.wg(&["up", "hello"]).ok();
    fs::write(world.path(".wg/service/.handler.pid"), "garbage\n").unwrap();
    world.wg(&["doctor", "--fix"]);
    assert!(world.path(".wg/service/daemon.sock").exists());
    assert_eq!(world.wg(&["chat", "again"]).ok().stdout, "again\n");
    world.stop();
}
