//! What the daemon writes down, and what it does when it cannot.

use std::fs;

use serde_json::Value;

use crate::world::World;

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
fn a_process_that_was_stopped_with_the_lock_of_one_chats_state_keeps_no_other_chat_waiting() {
    let world = World::with_workspace();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["chat", "new"]).ok();
    let mut holder = world.command("python3");
    holder.args(["-u", "-c", "import fcntl, sys\nf = open('.wg/service/coordinator-state-0.json.lock', 'w')\nfcntl.flock(f, fcntl.LOCK_EX)\nprint('locked')\nsys.stdin.read()"]);
    let mut holder = crate::world::Running::of(holder);
    assert_eq!(holder.line(), "locked");
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
