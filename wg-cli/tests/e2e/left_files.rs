//! The files that a killed handler leaves in its session: who reads them, who is not misled by them, and when they go.

use std::fs;

use crate::process::killed;
use crate::terminal::Terminal;
use crate::world::{World, until};

const SESSION: &str = ".wg/chat/.chat-0";
const LEFT: [&str; 3] = [".handler.pid", ".turn.json", ".streaming"];

fn left(world: &World) -> Vec<&'static str> {
    let is_there = |file: &&str| world.path(SESSION).join(file).exists();
    LEFT.into_iter().filter(is_there).collect()
}

#[test]
fn what_a_killed_turn_left_is_the_next_handlers_evidence_and_goes_with_its_reply() {
    let world = World::with_workspace();
    let settings = "[service]\nstop_grace = \"0.2s\"\n";
    fs::write(world.path(".wg/config.toml"), settings).unwrap();
    let command = "read -r word; echo so far; exec sleep 600";
    world.wg(&["chat", "new", "--command", command]).ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "send", "0", "hello"]).ok();
    world.wait_for_file(".wg/chat/.chat-0/.streaming", |text| text == "so far\n");
    let handler = world.handlers()[0].pid;
    world.wg(&["service", "stop", "--force"]).ok();
    assert_eq!(left(&world), LEFT);
    // Nobody takes them for a turn, or for somebody who has the session.
    let status = world.json(&["session", "status", "0"]);
    assert_eq!(status["state"], "stale", "{status}");
    let row = &world.json(&["chat", "list"])["chats"][0];
    assert_eq!(
        (&row["state"], &row["pid"]),
        (&"dormant".into(), &serde_json::Value::Null)
    );
    let checked = world.wg(&["doctor", "--fix"]).ok().stdout;
    assert!(
        checked.contains(&format!("was left by pid {handler} ")),
        "{checked}"
    );
    assert_eq!(
        left(&world),
        LEFT[1..],
        "they are of a message without an answer"
    );
    world.wg(&["service", "start"]).ok();
    let outbox = world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| text.ends_with('\n'));
    assert!(outbox.contains("so far"), "{outbox}");
    world.stop();
    assert_eq!(left(&world), [""; 0]);
}

#[test]
fn what_a_handler_left_that_was_killed_after_its_reply_is_shown_to_nobody_and_goes_with_the_next_one()
 {
    let world = World::with_workspace();
    assert_eq!(world.wg(&["up", "hello"]).ok().stdout, "hello\n");
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.contains("turn_finished")
    });
    killed(world.handlers()[0].pid);
    let session = world.path(SESSION);
    let record = r#"{"version":1,"message_id":1,"attempt":1,"started_at":"2026-11-26T07:48:22Z","pid":4711}"#;
    world.wg(&["service", "stop"]).ok();
    fs::write(session.join(".turn.json"), record).unwrap();
    fs::write(session.join(".streaming"), "of yesterday\n").unwrap();
    for with_service in [false, true] {
        if with_service {
            world.wg(&["service", "start"]).ok();
        }
        let mut screen = Terminal::start(&world, &["chat", "attach", "0"], 80);
        let shown = screen.shows("> ");
        assert!(!shown.contains("of yesterday"), "{shown}");
        if with_service {
            // Somebody is there, so a handler comes.
            until("what was left to go", || left(&world) == LEFT[..1]);
        }
        screen.types("\u{4}");
        screen.ends_with(0);
    }
    world.stop();
}
