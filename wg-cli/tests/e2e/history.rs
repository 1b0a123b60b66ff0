//! Messages that are done with move to the archive while a chat is in use, and nobody notices but the files.

use std::collections::BTreeSet;
use std::fs;

use crate::world::World;

const SESSION: &str = ".wg/chat/.chat-0";

fn world(settings: &str) -> World {
    let world = World::with_workspace();
    fs::write(
        world.path(".wg/config.toml"),
        format!("[service]\nhistory_max_size = \"4KiB\"\n{settings}"),
    )
    .unwrap();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "new"]).ok();
    world
}

/// Says this many things and gets an answer to each.
fn talk(world: &World, from: usize, to: usize) {
    for n in from..to {
        let said = format!("{n} {}", "x".repeat(500));
        assert_eq!(world.wg(&["chat", &said]).ok().stdout, format!("{said}\n"));
    }
}

fn archived(world: &World, side: &str) -> usize {
    let names = fs::read_dir(world.path(SESSION).join("archive"))
        .unwrap()
        .flatten();
    names
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(side))
        .count()
}

#[test]
fn rotation_keeps_the_files_short_the_ids_rising_and_every_message_readable() {
    let world = world("");
    talk(&world, 0, 30);
    for side in ["inbox", "outbox"] {
        let live = fs::metadata(world.path(SESSION).join(format!("{side}.jsonl"))).unwrap();
        assert!(live.len() < 6 << 10, "{side} has {} bytes", live.len());
        assert!(archived(&world, side) >= 3, "{side}");
    }
    let all = world.json(&["chat", "read", "0"]);
    let messages = all["messages"].as_array().unwrap();
    let ids = |role: &str| -> Vec<u64> {
        let of = messages.iter().filter(|message| message["role"] == role);
        of.map(|message| message["id"].as_u64().unwrap()).collect()
    };
    assert_eq!(ids("user"), (1..=30).collect::<Vec<_>>());
    assert_eq!(ids("coordinator"), (1..=30).collect::<Vec<_>>());
    let last = world.json(&["chat", "read", "0", "-n", "5"]);
    let last: Vec<&str> = last["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| {
            message["content"]
                .as_str()
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
        })
        .collect();
    assert_eq!(last, ["27", "28", "28", "29", "29"]);
    // An old message is still found by whoever asks for it again.
    world.wg(&["chat", "retry", "0", "3"]).ok();
    world.wait_for_file(&format!("{SESSION}/outbox.jsonl"), |text| {
        text.contains("\"in_reply_to\":31")
    });
    world.stop();
}

#[test]
fn a_cursor_lost_after_a_rotation_answers_nothing_again() {
    let world = world("");
    talk(&world, 0, 12);
    assert!(archived(&world, "outbox") >= 1);
    world.wg(&["service", "stop"]).ok();
    for cursor in [".nex-cursor", ".coordinator-cursor"] {
        fs::remove_file(world.path(SESSION).join(cursor)).unwrap();
    }
    world.wg(&["service", "start"]).ok();
    talk(&world, 12, 13);
    let all = world.json(&["chat", "read", "0"]);
    let answered: Vec<u64> = all["messages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|message| message["in_reply_to"].as_u64())
        .collect();
    assert_eq!(answered, (1..=13).collect::<Vec<_>>());
    world.stop();
}

#[test]
fn only_as_many_archived_files_stay_as_the_settings_say_and_what_waits_is_never_among_them() {
    let world = world("history_keep = 2\n");
    talk(&world, 0, 30);
    for side in ["inbox", "outbox"] {
        assert!(
            archived(&world, side) <= 3,
            "{side}: {}",
            archived(&world, side)
        );
    }
    let all = world.json(&["chat", "read", "0"]);
    let ids: BTreeSet<u64> = all["messages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|message| message["role"] == "user")
        .map(|message| message["id"].as_u64().unwrap())
        .collect();
    assert!(ids.len() < 30 && ids.contains(&30), "{ids:?}");
    assert_eq!(
        ids.len() as u64,
        31 - ids.first().unwrap(),
        "the newest stay: {ids:?}"
    );
    // Many long messages wait at once: none of them is moved before it is answered.
    for n in 0..10 {
        world
            .wg(&[
                "chat",
                "send",
                "0",
                &format!("waits {n} {}", "y".repeat(600)),
            ])
            .ok();
    }
    world.wait_for_file(&format!("{SESSION}/outbox.jsonl"), |text| {
        text.contains("\"in_reply_to\":40")
    });
    world.stop();
}
