//! What a purge meets beside its own handlers: those of the earlier tool, processes that nobody can vouch for, and its own end.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::process::{Process, wait_gone};
use crate::world::World;

/// A process that looks like a handler of the earlier tool, with the record that such a one writes; prints its pid.
const EARLIER: &str = r#"
setsid bash -c 'exec -a wg sh -c "sleep 600; :" nex' </dev/null >/dev/null 2>&1 & S=$!
mkdir -p .wg/chat/.chat-0
printf '%s\n%s\nchat-nex\n' "$S" "$(date -Iseconds)" > .wg/chat/.chat-0/.handler.pid
echo "$S"
"#;

/// The same by a process that is nothing of the kind.
const STRANGER: &str = r#"
setsid sleep 600 </dev/null >/dev/null 2>&1 & S=$!
mkdir -p .wg/chat/.chat-0
printf '%s\n%s\nchat-nex\n' "$S" "$(date -Iseconds)" > .wg/chat/.chat-0/.handler.pid
echo "$S"
"#;

fn held_by(recipe: &str, service: bool) -> (World, i32) {
    let world = World::with_workspace();
    fs::write(
        world.path(".wg/config.toml"),
        "[service]\nstop_grace = \"0.2s\"\n",
    )
    .unwrap();
    world.wg(&["chat", "new"]).ok();
    let holder = world.sh(recipe, b"").stdout.trim().parse().unwrap();
    if service {
        world.wg(&["service", "start"]).ok();
    }
    (world, holder)
}

/// The task of chat 0, as the graph has it.
fn task(world: &World) -> Value {
    let graph = world.read(".wg/graph.jsonl");
    let mut tasks = graph
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    tasks.find(|task| task["id"] == ".chat-0").unwrap()
}

#[track_caller]
fn is_retired(world: &World) {
    let task = task(world);
    assert_eq!(task["status"], "done", "{task}");
    assert_eq!(task["tags"], serde_json::json!(["archived"]), "{task}");
}

#[test]
fn a_purge_ends_a_handler_of_the_earlier_tool_with_the_service_up_or_down() {
    for service in [true, false] {
        let (world, handler) = held_by(EARLIER, service);
        let report = world.json(&["service", "purge-chats"]);
        assert_eq!(report["purged"][0]["chat_id"], 0, "{report}");
        assert_eq!(report["errors"], serde_json::json!([]), "{report}");
        assert!(report["handlers_ended"].as_u64().unwrap() >= 1, "{report}");
        wait_gone(handler);
        is_retired(&world);
        world.stop();
    }
}

#[test]
fn a_holder_that_nobody_can_vouch_for_is_asked_listed_and_left_alone() {
    let mut shapes = Vec::new();
    for service in [true, false] {
        let (world, stranger) = held_by(STRANGER, service);
        let done = world
            .wg(&["service", "purge-chats", "--json"])
            .with_code(75);
        let report = done.json();
        assert_eq!(report["purged"][0]["chat_id"], 0, "{report}");
        assert_eq!(report["errors"][0]["pid"], stranger, "{report}");
        shapes.push(
            report["errors"][0]["error"]
                .as_str()
                .unwrap()
                .replace(&stranger.to_string(), "N"),
        );
        assert!(
            Process::look_at(stranger).is_some(),
            "it is nobody's to signal"
        );
        assert!(
            world
                .path(".wg/chat/.chat-0/.handler.release-requested")
                .exists()
        );
        is_retired(&world);
        let report = world.json(&["service", "purge-chats", "--force-unproven"]);
        assert_eq!(report["errors"], serde_json::json!([]), "{report}");
        wait_gone(stranger);
        world.stop();
    }
    assert_eq!(
        shapes[0], shapes[1],
        "told alike with the service up and down"
    );
}

/// Three chats whose agents heed no polite signal.
fn three_stubborn_chats() -> World {
    let world = World::with_workspace();
    fs::write(
        world.path(".wg/config.toml"),
        "[service]\nstop_grace = \"2s\"\nmax_turns = 3\n",
    )
    .unwrap();
    world.wg(&["service", "start"]).ok();
    for chat in ["0", "1", "2"] {
        let agent = "trap '' INT TERM; echo begun; sleep 600; sleep 600";
        world.wg(&["chat", "new", "--command", agent]).ok();
        world.wg(&["chat", "send", chat, "hello"]).ok();
    }
    for chat in 0..3 {
        world.wait_for_file(&format!(".wg/chat/.chat-{chat}/.streaming"), |text| {
            text.contains("begun")
        });
    }
    world
}

#[test]
fn a_purge_whose_service_is_killed_half_way_is_finished_by_the_next_one() {
    let world = three_stubborn_chats();
    let handlers = world.handlers();
    let purge = world.start(&["service", "purge-chats"]);
    for chat in 0..3 {
        world.wait_for_file(
            &format!(".wg/service/coordinator-state-{chat}.json"),
            |text| text.contains("purged_at"),
        );
    }
    let daemon = world.daemon_pid();
    kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
    wait_gone(daemon);
    assert_ne!(purge.finish().code(), 0, "it cannot say that all is done");
    world.wg(&["service", "start"]).ok();
    for handler in handlers {
        wait_gone(handler.pid);
    }
    is_retired(&world);
    assert_eq!(
        world.json(&["chat", "list"])["chats"],
        serde_json::json!([])
    );
    world.stop();
}

#[test]
fn a_chat_that_was_marked_and_not_yet_archived_is_archived_by_the_next_start() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    let before = world.read(".wg/graph.jsonl");
    world.wg(&["service", "purge-chats"]).ok();
    // As a purge that was killed between its marks and the graph leaves it.
    fs::write(world.path(".wg/graph.jsonl"), before).unwrap();
    assert_eq!(task(&world)["status"], "in-progress");
    world.wg(&["service", "start"]).ok();
    is_retired(&world);
    world.wg(&["chat", "restore", "0"]).ok();
    assert_eq!(world.wg(&["chat", "hello"]).ok().stdout, "hello\n");
    world.stop();
}
