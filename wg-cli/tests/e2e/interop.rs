//! A workspace that the earlier tool made, used with every verb: what is not ours stays where it is, byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::world::World;

const ALPHA: &str = "01a1faa3-51a7-7a72-a9ee-52462dbd11d2";
const GAMMA: &str = "01a1faa3-7000-7000-8000-0000000000c2";

fn earlier() -> World {
    let world = World::new();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/earlier");
    world.sh(&format!("cp -r '{}' .wg", fixture.display()), b"");
    world
}

/// Every file below the workspace.
fn files(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    let root = world.path(".wg");
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.is_file() {
                let below = path.strip_prefix(&root).unwrap().to_owned();
                found.insert(below, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// What both tools write to: the graph by lines, messages at their ends, the registry and the state files by fields.
fn is_shared(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap();
    let state = name.starts_with("coordinator-state-");
    state
        || [
            "graph.jsonl",
            "sessions.json",
            "inbox.jsonl",
            "outbox.jsonl",
            ".cursor",
            ".nex-cursor",
            ".coordinator-cursor",
            "daemon.log",
            ".gitignore",
        ]
        .contains(&name)
}

/// Every field of `before` is in `after` with its value.
#[track_caller]
fn every_field_is_kept(before: &Value, after: &Value) {
    match (before, after) {
        (Value::Object(fields), Value::Object(now)) => {
            for (name, value) in fields {
                let there = now.get(name);
                every_field_is_kept(value, there.unwrap_or_else(|| panic!("{name} is gone")));
            }
        }
        _ => assert_eq!(before, after),
    }
}

#[track_caller]
fn nothing_of_theirs_changed(
    before: &BTreeMap<PathBuf, Vec<u8>>,
    after: &BTreeMap<PathBuf, Vec<u8>>,
) {
    for (path, bytes) in before {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap();
        // Records of processes that are gone, and whoever comes next takes their place.
        if matches!(name, ".handler.pid" | "state.json") {
            continue;
        }
        let now = after
            .get(path)
            .unwrap_or_else(|| panic!("{} is gone", path.display()));
        if !is_shared(path) {
            assert!(now == bytes, "{} changed", path.display());
        } else if matches!(name, "inbox.jsonl" | "outbox.jsonl" | "daemon.log") {
            assert!(now.starts_with(bytes), "{} lost something", path.display());
        } else if name == "sessions.json" || name.starts_with("coordinator-state-") {
            every_field_is_kept(
                &serde_json::from_slice(bytes).unwrap(),
                &serde_json::from_slice(now).unwrap(),
            );
        }
    }
}

fn lines(files: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<String> {
    let graph = String::from_utf8(files[Path::new("graph.jsonl")].clone()).unwrap();
    graph.lines().map(str::to_owned).collect()
}

/// Lines that are no chats are the same text at the same place; those of chats keep every field that is not the chat's own state.
#[track_caller]
fn the_graph_keeps_lines_and_fields(before: &[String], after: &[String]) {
    for (number, line) in before.iter().enumerate() {
        let now = &after[number];
        let parsed = |line: &str| serde_json::from_str::<Value>(line).ok();
        let Some(was) = parsed(line).filter(|was| {
            let tags = was["tags"].to_string();
            tags.contains("chat-loop") || tags.contains("coordinator-loop")
        }) else {
            // An edge to a chat that was renamed is renamed with it.
            assert_eq!(now, &line.replace("\".coordinator-1\"", "\".chat-1\""));
            continue;
        };
        let is = parsed(now).unwrap();
        for (name, value) in was.as_object().unwrap() {
            if ![
                "id",
                "title",
                "status",
                "tags",
                "log",
                "last_interaction_at",
                "executor_preset_name",
            ]
            .contains(&name.as_str())
            {
                assert_eq!(&is[name], value, "{name} of line {}", number + 1);
            }
        }
        let log = was["log"].as_array().map_or(0, Vec::len);
        assert!(
            log == 0 || is["log"].as_array().unwrap()[..log] == was["log"].as_array().unwrap()[..],
            "the log of line {} lost something",
            number + 1
        );
    }
}

fn ids(list: &Value) -> Vec<u64> {
    let chats = list["chats"].as_array().unwrap();
    chats
        .iter()
        .filter_map(|chat| chat["chat_id"].as_u64())
        .collect()
}

#[test]
fn reading_a_workspace_of_the_earlier_tool_changes_no_byte() {
    let world = earlier();
    let before = files(&world);
    assert_eq!(ids(&world.json(&["chat", "list"])), [0, 1, 3]);
    for verb in [
        &["chat", "list", "--all"][..],
        &["list"],
        &["chat", "read", "0"],
        &["chat", "read", "coordinator-1"],
        &["chat", "read", GAMMA],
        &["chat", "show", "alpha"],
        &["session", "list"],
        &["session", "status", "0"],
        &["service", "status"],
        &["why", "0"],
    ] {
        world.wg(verb).ok();
    }
    let after = files(&world);
    for (path, bytes) in &before {
        assert!(after.get(path) == Some(bytes), "{} changed", path.display());
    }
    assert!(world.processes().is_empty());
}

#[test]
fn a_workspace_of_the_earlier_tool_is_served_purged_restored_and_migrated_and_keeps_what_is_not_ours()
 {
    let world = earlier();
    let before = files(&world);
    // The agent that they had is not installed here.
    world
        .wg(&["service", "set-executor", "0", "--executor", "echo"])
        .ok();
    world.wg(&["service", "start"]).ok();

    // What its cursors and its replies left open is answered, and nothing else.
    let outbox = format!(".wg/chat/{ALPHA}/outbox.jsonl");
    world.wait_for_file(&outbox, |text| {
        text.lines().count() >= 3 && text.ends_with('\n')
    });
    let told = world.wg(&["chat", "hello", "--coordinator", "alpha"]).ok();
    assert_eq!(told.stdout, "hello\n");
    let replies: Vec<Value> = world
        .read(&outbox)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        replies.len(),
        4,
        "two of theirs, one that was open, one new: {replies:?}"
    );
    assert_eq!(replies[2]["in_reply_to"], 3);
    assert_eq!(replies[3]["in_reply_to"], 4);
    for cursor in [".nex-cursor", ".coordinator-cursor"] {
        // Their idle rule looks there. It moves right after the reply was written.
        world.wait_for_file(&format!(".wg/chat/{ALPHA}/{cursor}"), |place| {
            place.trim() == "4"
        });
    }

    // Their old names are ours now, and the old ones still mean the same.
    assert!(world.read(".wg/graph.jsonl").contains("\"id\":\".chat-1\""));
    let told = world
        .wg(&["chat", "to beta", "--coordinator", "coordinator-1"])
        .ok();
    assert_eq!(told.stdout, "to beta\n");
    let migrated = world.json(&["migrate", "chat-rename"]);
    assert_eq!(migrated["renamed_ids"], json!([]), "{migrated}");
    nothing_of_theirs_changed(&before, &files(&world));
    the_graph_keeps_lines_and_fields(&lines(&before), &lines(&files(&world)));

    let at_purge = files(&world);
    let report = world.json(&["service", "purge-chats"]);
    assert_eq!(report["errors"], json!([]), "{report}");
    assert!(world.handlers().is_empty());
    let purged = files(&world);
    nothing_of_theirs_changed(&before, &purged);
    the_graph_keeps_lines_and_fields(&lines(&before), &lines(&purged));
    for (path, bytes) in &at_purge {
        if path
            .extension()
            .is_some_and(|extension| extension == "jsonl")
            && path.starts_with("chat")
        {
            assert!(
                purged[path] == *bytes,
                "a purge wrote to {}",
                path.display()
            );
        }
    }

    for chat in ["alpha", "chat-1"] {
        world.wg(&["chat", "restore", chat]).ok();
    }
    let told = world.wg(&["chat", "back", "--coordinator", ALPHA]).ok();
    assert_eq!(told.stdout, "back\n");
    world.stop();
    let after = files(&world);
    nothing_of_theirs_changed(&before, &after);
    the_graph_keeps_lines_and_fields(&lines(&before), &lines(&after));
}
