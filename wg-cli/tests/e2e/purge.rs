//! `wg service purge-chats`: nothing runs, nothing comes back, nothing is lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::process::{StartCounter, wait_gone};
use crate::world::World;

/// Three chats, each with a handler that has answered and stays.
fn three_live_chats() -> World {
    let world = World::with_workspace();
    world.wg(&["service", "start"]).ok();
    for name in ["a", "b", "c"] {
        world.wg(&["chat", "new", "--name", name]).ok();
        assert_eq!(
            world
                .wg(&["chat", "hello", "--coordinator", name])
                .ok()
                .stdout,
            "hello\n"
        );
    }
    assert_eq!(sessions(&world), 3, "{:?}", world.handlers());
    world
}

/// How many sessions have a handler.
fn sessions(world: &World) -> usize {
    let mut sessions: Vec<_> = world
        .handlers()
        .iter()
        .filter_map(crate::process::Process::session)
        .collect();
    sessions.sort();
    sessions.dedup();
    sessions.len()
}

/// The bytes of every `chat/**/*.jsonl`.
fn histories(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(dir: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "jsonl")
            {
                found.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&world.path(".wg/chat"), &mut found);
    assert!(
        found.len() >= 6,
        "an inbox and an outbox for each of three chats: {:?}",
        found.keys()
    );
    found
}

#[track_caller]
fn every_task_is_archived(world: &World) {
    let graph = world.read(".wg/graph.jsonl");
    let chats: Vec<Value> = graph
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|task| {
            task["id"]
                .as_str()
                .is_some_and(|id| id.starts_with(".chat-"))
        })
        .collect();
    assert_eq!(chats.len(), 3, "{graph}");
    for chat in chats {
        let tags: Vec<&str> = chat["tags"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(chat["status"], "done", "{chat}");
        assert!(
            tags.contains(&"archived") && !tags.contains(&"chat-loop"),
            "{chat}"
        );
    }
}

/// Purges and checks the report, the process table, the graph and the histories.
#[track_caller]
fn purge_all_three(world: &World) {
    let before = histories(world);
    let report = world.json(&["service", "purge-chats"]);
    let ids: Vec<u64> = report["purged"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|chat| chat["chat_id"].as_u64())
        .collect();
    assert_eq!(ids, [0, 1, 2], "{report}");
    assert_eq!(
        (&report["skipped"], &report["errors"]),
        (&Value::Array(vec![]), &Value::Array(vec![])),
        "{report}"
    );
    assert_eq!(world.handlers().len(), 0, "{:?}", world.handlers());
    every_task_is_archived(world);
    assert!(histories(world) == before, "a history changed");
}

#[track_caller]
fn a_second_purge_changes_nothing(world: &World) {
    let graph = world.read(".wg/graph.jsonl");
    let report = world.json(&["service", "purge-chats"]);
    assert_eq!(
        report,
        serde_json::json!({"purged": [], "skipped": [], "errors": [], "handlers_ended": 0, "others_ended": 0})
    );
    assert_eq!(world.read(".wg/graph.jsonl"), graph);
}

/// A new service must not start a handler: counted by the kernel.
#[track_caller]
fn a_restart_brings_nothing_back(world: &World) {
    let before = histories(world);
    let copy = world.copy_of_wg();
    let starts = StartCounter::of(&copy);
    world.program(&copy, &["service", "restart"]).ok();
    // Whatever the boot decides is decided when the daemon answers.
    assert_eq!(world.json(&["chat", "list"])["chats"], Value::Array(vec![]));
    assert!(
        starts.count() <= 2,
        "`wg service restart` and the daemon, but there were {} starts",
        starts.count()
    );
    let settled = starts.count();
    for chat in ["0", "1", "2"] {
        let sent = world.json(&["chat", "send", chat, "still there?"]);
        assert!(
            sent["note"]
                .as_str()
                .is_some_and(|note| note.contains("restore")),
            "{sent}"
        );
    }
    assert_eq!(world.json(&["service", "status"])["status"], "running");
    assert_eq!(starts.count(), settled, "a start after the purge");
    assert!(world.handlers().is_empty(), "{:?}", world.handlers());
    let now = histories(world);
    for (path, bytes) in &before {
        assert!(
            now[path].starts_with(bytes),
            "{} lost something",
            path.display()
        );
    }
}

#[test]
fn purge_ends_every_handler_keeps_every_history_and_a_restart_brings_nothing_back() {
    let world = three_live_chats();
    purge_all_three(&world);
    a_second_purge_changes_nothing(&world);
    a_restart_brings_nothing_back(&world);
    a_second_purge_changes_nothing(&world);
    world.stop();
}

#[test]
fn purge_does_the_same_with_the_service_down() {
    let world = three_live_chats();
    world.wg(&["service", "stop", "--keep-handlers"]).ok();
    assert_eq!(sessions(&world), 3, "the handlers were to be kept");
    purge_all_three(&world);
    a_second_purge_changes_nothing(&world);
    a_restart_brings_nothing_back(&world);
    world.stop();
}

#[test]
fn purge_ends_handlers_that_were_orphaned_by_a_kill_of_the_service() {
    let world = three_live_chats();
    let daemon = world.daemon_pid();
    kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
    wait_gone(daemon);
    assert_eq!(sessions(&world), 3, "handlers outlive their daemon");
    purge_all_three(&world);
    a_restart_brings_nothing_back(&world);
    world.stop();
}

#[test]
fn a_dry_run_says_what_a_purge_would_do_and_does_nothing() {
    let world = three_live_chats();
    let graph = world.read(".wg/graph.jsonl");
    let report = world.json(&["service", "purge-chats", "--dry-run"]);
    assert_eq!(report["purged"].as_array().unwrap().len(), 3, "{report}");
    assert_eq!(world.read(".wg/graph.jsonl"), graph);
    assert_eq!(sessions(&world), 3);
    world.stop();
}

#[test]
fn a_purge_from_inside_a_chat_spares_that_chat_and_says_so() {
    let mut world = three_live_chats();
    for reference in [
        "1",
        ".chat-1",
        "coordinator-1",
        ".coordinator-1",
        "b",
        "chat-1",
    ] {
        world.set("WG_CHAT_REF", reference);
        let report = world.json(&["service", "purge-chats", "--dry-run"]);
        let spared = serde_json::json!([{"chat_id": 1, "reason": "caller chat"}]);
        assert_eq!(report["skipped"], spared, "{reference}");
    }
    let report = world.json(&["service", "purge-chats"]);
    assert_eq!(report["skipped"][0]["chat_id"], 1, "{report}");
    assert_eq!(report["purged"].as_array().unwrap().len(), 2, "{report}");
    assert_eq!(sessions(&world), 1);
    let report = world.json(&["service", "purge-chats", "--include-self"]);
    assert_eq!(report["purged"][0]["chat_id"], 1, "{report}");
    assert!(world.handlers().is_empty());
    world.stop();
}

/// Somebody serves a chat although it was retired before he came: a purge that has nothing left to retire ends him all the same.
#[test]
fn a_purge_ends_who_serves_a_retired_chat_too() {
    for service in [true, false] {
        let world = World::with_workspace();
        world.wg(&["chat", "new"]).ok();
        let mut handler = world.start(&["nex", "--chat", "0"]);
        let pid = handler.pid().to_string();
        world.wait_for_file(".wg/chat/.chat-0/.handler.pid", |text| {
            text.lines().next() == Some(&pid)
        });
        // Until it has answered it may still look whether the chat is retired, and leave.
        world.wg(&["chat", "send", "0", "hello"]).ok();
        world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
            text.contains("hello")
        });
        // As another tool retires it: the graph alone tells.
        let graph = world
            .read(".wg/graph.jsonl")
            .replace("chat-loop", "archived");
        fs::write(
            world.path(".wg/graph.jsonl"),
            graph.replace("in-progress", "done"),
        )
        .unwrap();
        if service {
            world.wg(&["service", "start"]).ok();
        }
        let report = world.json(&["service", "purge-chats"]);
        assert_eq!(report["purged"], serde_json::json!([]), "{report}");
        assert_eq!(report["errors"], serde_json::json!([]), "{report}");
        assert_eq!(report["handlers_ended"], 1, "{report}");
        handler.hang_up();
        handler.finish();
        world.stop();
    }
}

#[test]
fn a_purged_chat_comes_back_when_a_person_restores_it() {
    let world = three_live_chats();
    world.wg(&["service", "purge-chats"]).ok();
    world.wg(&["chat", "restore", "b"]).ok();
    assert_eq!(
        world
            .wg(&["chat", "back again", "--coordinator", "chat-1"])
            .ok()
            .stdout,
        "back again\n"
    );
    world.stop();
}

#[test]
fn whoever_has_no_more_time_leaves_and_a_second_purge_waits_for_the_rest() {
    let world = World::with_workspace();
    fs::write(
        world.path(".wg/config.toml"),
        "[service]\nstop_grace = \"1s\"\n",
    )
    .unwrap();
    world
        .wg(&[
            "chat",
            "new",
            "--command",
            "trap '' INT TERM; echo begun; sleep 600; sleep 600",
        ])
        .ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "send", "0", "hello"]).ok();
    world.wait_for_file(".wg/chat/.chat-0/.streaming", |text| text.contains("begun"));
    let left = world
        .wg(&["service", "purge-chats", "--wait", "0"])
        .with_code(124);
    assert!(
        left.stderr.contains("has not ended in time"),
        "{}",
        left.stderr
    );
    world.wg(&["service", "purge-chats"]).ok();
    assert!(world.handlers().is_empty(), "{:?}", world.handlers());
    world.stop();
}

#[test]
fn a_purged_chat_has_its_date_after_a_restart_and_why_does_not_call_it_running() {
    let world = World::with_workspace();
    assert_eq!(
        world.wg(&["why"]).ok().stdout,
        "nothing needs an explanation: there are no chats (wg chat new)\n"
    );
    for name in ["alpha", "beta", "gamma"] {
        world.wg(&["chat", "new", "--name", name]).ok();
    }
    world.wg(&["service", "start"]).ok();
    world.wg(&["service", "archive-chat", "1"]).ok();
    let some = "every chat is running or idle, but for 1 archived or purged";
    let why = world.wg(&["why"]).ok().stdout;
    assert!(why.contains(some), "{why}");
    world.wg(&["chat", "stop", "2"]).ok();
    let why = world.wg(&["why"]).ok().stdout;
    assert!(why.starts_with("chat-2"), "{why}");
    world.wg(&["service", "purge-chats"]).ok();
    let dates = || -> Vec<Value> {
        let rows = world.json(&["service", "status"])["chats"].clone();
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| row["since"].clone()).collect()
    };
    let before = dates();
    assert_eq!(before.len(), 3);
    assert!(before.iter().all(Value::is_string), "{before:?}");
    for verb in ["restart", "stop"] {
        world.wg(&["service", verb]).ok();
        assert_eq!(dates(), before, "after {verb}");
        let why = world.wg(&["why"]).ok().stdout;
        assert!(why.contains("all 3 chats are archived or purged"), "{why}");
    }
}
