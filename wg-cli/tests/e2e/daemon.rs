//! What the daemon writes down, and what it does when it cannot.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::held_files::lock;
use crate::process::StartCounter;
use crate::world::{WATCHDOG, World, until};

fn state_of(world: &World) -> Value {
    let state = ".wg/service/coordinator-state-0.json";
    let text = fs::read_to_string(world.path(state)).unwrap_or_else(|_| "{}".to_owned());
    serde_json::from_str::<Value>(&text).unwrap()["wg_supervisor"].clone()
}

#[test]
fn a_wish_that_the_graph_cannot_take_stands_in_neither_file() {
    for running in [true, false] {
        let world = World::with_workspace();
        world.wg(&["up", "hello"]).ok();
        if !running {
            world.wg(&["service", "stop"]).ok();
        }
        world.sh("rm -f .wg/graph.lock && mkdir .wg/graph.lock", b"");
        let refused = world.wg(&["chat", "archive", "0"]);
        assert_ne!(refused.status.code(), Some(0), "{refused:?}");
        assert_eq!(
            state_of(&world)["archived_at"],
            Value::Null,
            "running: {running}"
        );
        world.sh("rm -r .wg/graph.lock", b"");
        let listed = world.json(&["chat", "list"]);
        assert_ne!(listed["chats"][0]["state"], "archived", "{listed:#}");
        if running {
            assert_eq!(world.wg(&["chat", "again"]).ok().stdout, "again\n");
        }
        world.wg(&["chat", "archive", "0"]).ok();
        assert_ne!(state_of(&world)["archived_at"], Value::Null);
        world.stop();
    }
}

#[test]
fn a_process_that_was_stopped_with_the_lock_of_the_events_keeps_no_chat_waiting_and_no_event_is_lost()
 {
    let world = World::with_workspace();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "new"]).ok();
    let mut holder = lock(&world, ".wg/service/events.jsonl.lock");
    let before = world.read(".wg/service/events.jsonl");
    // A start, a turn, a stop and a resume, each with its events.
    assert_eq!(world.wg(&["chat", "first"]).ok().stdout, "first\n");
    world.wg(&["chat", "stop", "0"]).ok();
    world.wg(&["chat", "resume", "0"]).ok();
    assert_eq!(world.wg(&["chat", "second"]).ok().stdout, "second\n");
    assert_eq!(world.read(".wg/service/events.jsonl"), before);
    holder.hang_up();
    holder.finish().ok();
    let events = world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.matches("\"event\":\"spawned\"").count() == 2 && text.ends_with('\n')
    });
    let events = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let seqs: Vec<u64> = events.map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "{seqs:?}");
    let said = world.read(".wg/service/daemon.log");
    assert!(said.contains("events wait to be written"), "{said}");
    world.stop();
}

#[test]
fn a_wish_for_one_chat_that_cannot_be_written_yet_delays_no_other_chats_wish() {
    let world = World::with_workspace();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["chat", "new"]).ok();
    let mut holder = lock(&world, ".wg/service/coordinator-state-0.json.lock");
    let mut slow = world.start(&["chat", "stop", "0"]);
    // Until it has come as far as the file.
    until("its place in the lane", || {
        let status = world.json(&["service", "status"]);
        let lanes = status["lanes"]["in_use"].as_array().unwrap();
        lanes.iter().any(|lane| lane["lane"] == "command:0")
    });
    for verb in ["stop", "resume", "archive", "restore"] {
        world.wg(&["chat", verb, "1"]).ok();
    }
    assert!(
        slow.child.try_wait().unwrap().is_none(),
        "the others waited for it"
    );
    holder.hang_up();
    holder.finish().ok();
    slow.finish().ok();
    world.stop();
}

#[test]
fn a_process_that_was_stopped_with_the_lock_of_one_chats_state_keeps_no_other_chat_waiting() {
    let world = World::with_workspace();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["chat", "new"]).ok();
    let mut holder = lock(&world, ".wg/service/coordinator-state-0.json.lock");
    // Its start has to be written down first, and cannot be; the other chat is answered meanwhile.
    world.wg(&["chat", "send", "0", "first"]).ok();
    assert_eq!(
        world
            .wg(&["chat", "second", "--coordinator", "1"])
            .ok()
            .stdout,
        "second\n"
    );
    assert!(
        !world.path(".wg/chat/.chat-0/outbox.jsonl").exists(),
        "no start without its record"
    );
    holder.hang_up();
    holder.finish().ok();
    world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
        text.contains("first")
    });
    world.stop();
}

/// More than the threads that run requests.
const MANY: usize = 6;

#[test]
fn requests_that_wait_for_a_stopped_holder_of_a_file_keep_no_other_client_waiting() {
    let world = World::with_workspace();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["chat", "new"]).ok();
    let state = ".wg/service/coordinator-state-0.json.lock";
    let locked = [".wg/chat/.chat-0/inbox.jsonl.lock", state, ".wg/graph.lock"];
    let requests = [
        r#"{"cmd":"user_chat","chat_id":0,"message":"hello"}"#,
        r#"{"cmd":"attach","chat_id":0}"#,
        r#"{"cmd":"create_chat"}"#,
    ];
    for (file, request) in locked.iter().zip(requests) {
        let mut holder = lock(&world, file);
        let clients: Vec<UnixStream> = (0..MANY)
            .map(|_| {
                let mut client =
                    UnixStream::connect(world.path(".wg/service/daemon.sock")).unwrap();
                client.set_read_timeout(Some(WATCHDOG)).unwrap();
                writeln!(client, "{request}").unwrap();
                client
            })
            .collect();
        let status = world.json(&["service", "status"]);
        assert_eq!(status["status"], "running");
        let other = world.wg(&["chat", "second", "--coordinator", "1"]).ok();
        assert_eq!(other.stdout, "second\n");
        holder.hang_up();
        holder.finish().ok();
        for client in clients {
            let mut line = String::new();
            BufReader::new(client).read_line(&mut line).unwrap();
            let answer: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(answer["ok"], true, "{request}: {line}");
        }
    }
    world.stop();
}

#[test]
fn where_the_sessions_are_is_read_once_for_all_chats_at_boot_and_for_a_status() {
    const CHATS: usize = 20;
    let world = World::with_workspace();
    let registry = world.path(".wg/chat/sessions.json");
    fs::create_dir_all(registry.parent().unwrap()).unwrap();
    fs::write(&registry, "{\"version\":0,\"sessions\":{}}").unwrap();
    for _ in 0..CHATS {
        world.wg(&["chat", "new"]).ok();
    }
    let reads = StartCounter::of(&registry);
    world.wg(&["service", "start"]).ok();
    let at_boot = reads.count();
    let status = world.json(&["service", "status"]);
    let all = reads.count();
    assert_eq!(status["chats"].as_array().unwrap().len(), CHATS);
    // A few of each are nobody's concern; one for each chat is, since each is as long as there are chats.
    assert!(at_boot < CHATS / 2, "{at_boot} at boot");
    assert!(all - at_boot < CHATS / 2, "{} for a status", all - at_boot);
    world.stop();
}
