//! The graph belongs to other tools too: it may be away for a moment, and it may say something else of a chat from one moment to the next.

use std::fs;

use serde_json::Value;

use crate::world::World;

/// A chat that nobody needed yet, with the service up.
fn idle() -> World {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    world
}

/// A message as another tool appends it, without a word to anybody.
fn append(world: &World, id: u32) {
    let line = format!(
        r#"{{"id":{id},"timestamp":"2026-11-20T20:26:12Z","role":"user","content":"message {id}","request_id":"r-{id}","user":"t"}}"#
    );
    world.sh(
        &format!("echo '{line}' >> .wg/chat/.chat-0/inbox.jsonl"),
        b"",
    );
}

fn answered(world: &World, id: u32) {
    world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
        text.contains(&format!("\"message {id}\""))
    });
}

/// Puts a graph in the place of the one that is there, in one step, as every tool does.
fn put(world: &World, graph: &str) {
    fs::write(world.path("graph.new"), graph).unwrap();
    fs::rename(world.path("graph.new"), world.path(".wg/graph.jsonl")).unwrap();
}

/// The graph with a change of the one task in it.
fn changed(graph: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut task = serde_json::from_str(graph.trim()).unwrap();
    change(&mut task);
    format!("{task}\n")
}

fn count(world: &World, event: &str) -> usize {
    let events = world.read(".wg/service/events.jsonl");
    events.matches(&format!("\"event\":\"{event}\"")).count()
}

#[test]
fn a_graph_that_cannot_be_read_pauses_the_starts_says_so_and_ends_nothing() {
    for instead in ["mkdir .wg/graph.jsonl", "mkfifo .wg/graph.jsonl", "true"] {
        let world = idle();
        let graph = world.read(".wg/graph.jsonl");
        world.sh(&format!("rm .wg/graph.jsonl; {instead}"), b"");
        append(&world, 1);
        world.wait_for_file(".wg/service/events.jsonl", |events| {
            events.contains("cannot start just now: the graph cannot be read")
        });
        let log = world.read(".wg/service/daemon.log");
        assert!(
            log.contains("no handler is started until the graph can be read"),
            "{log}"
        );
        assert_eq!(count(&world, "spawned"), 0);
        for verb in [&["why", "0"][..], &["why"], &["service", "status"]] {
            let said = world.wg(verb).ok().stdout;
            assert!(
                said.contains("it cannot be read, so no handler is started"),
                "{instead}, {verb:?}: {said}"
            );
        }
        let status = world.json(&["service", "status"]);
        assert!(status["graph_trouble"].is_string(), "{status}");
        world.sh("rm -rf .wg/graph.jsonl", b"");
        put(&world, &graph);
        answered(&world, 1);
        assert_eq!(count(&world, "parked"), 0);
        world.stop();
    }
}

#[test]
fn a_handler_that_finds_no_graph_to_read_does_not_blame_the_settings() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.sh("rm .wg/graph.jsonl; mkdir .wg/graph.jsonl", b"");
    for handler in [&["spawn-task", ".chat-0"][..], &["nex", "--chat", "0"]] {
        world.wg(handler).with_code(71);
    }
}

#[test]
fn a_chat_whose_own_line_cannot_be_read_waits_for_it() {
    let world = idle();
    let graph = world.read(".wg/graph.jsonl");
    put(&world, &graph[..graph.len() / 2]);
    append(&world, 1);
    world.wait_for_file(".wg/service/events.jsonl", |events| {
        events.contains("its line of the graph cannot be read")
    });
    assert_eq!(count(&world, "spawned"), 0);
    for (verb, words) in [
        (
            &["why", "0"][..],
            "its line cannot be read, so it is not started",
        ),
        (&["why"], "its line cannot be read, so it is not started"),
        (&["service", "status"], "Graph: 1 line(s) were skipped"),
    ] {
        let said = world.wg(verb).ok().stdout;
        assert!(said.contains(words), "{verb:?}: {said}");
    }
    put(&world, &graph);
    answered(&world, 1);
    let status = world.json(&["service", "status"]);
    assert_eq!(status["graph_trouble"], Value::Null);
    world.stop();
}

#[test]
fn a_chat_that_another_tool_retires_leaves_stays_down_and_comes_back_with_its_task() {
    let world = idle();
    append(&world, 1);
    answered(&world, 1);
    let graph = world.read(".wg/graph.jsonl");
    for retire in [
        |task: &mut Value| {
            task["status"] = "done".into();
            task["tags"] = serde_json::json!(["archived"]);
        },
        |task: &mut Value| task["status"] = "abandoned".into(),
    ] {
        let ends = count(&world, "exited");
        put(&world, &changed(&graph, retire));
        world.wait_for_file(".wg/service/events.jsonl", |_| {
            count(&world, "exited") > ends
        });
        let starts = count(&world, "spawned");
        let sent = world.json(&["chat", "send", "0", "anybody?"]);
        assert!(
            sent["note"].as_str().unwrap().contains("wg chat restore"),
            "{sent}"
        );
        let all = world.json(&["chat", "list", "--all"]);
        assert_eq!(all["chats"][0]["state"], "archived", "{all}");
        assert_eq!(count(&world, "spawned"), starts);
        put(&world, &graph);
        world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |_| {
            world.json(&["chat", "list"])["chats"][0]["unread"] == 0
        });
        assert_eq!(count(&world, "spawned"), starts + 1);
    }
    world.stop();
}

#[test]
fn a_chat_whose_task_is_gone_is_told_of_once_and_started_no_more() {
    let world = idle();
    let graph = world.read(".wg/graph.jsonl");
    put(&world, "# nothing left\n");
    world.wait_for_file(".wg/service/daemon.log", |log| {
        log.contains("orphan supervisor")
    });
    append(&world, 1);
    put(&world, "# nothing left still\n");
    assert_eq!(
        world.json(&["chat", "list"])["chats"],
        serde_json::json!([])
    );
    world.wg(&["chat", "send", "0", "anybody?"]).with_code(1);
    let log = world.read(".wg/service/daemon.log");
    assert_eq!(log.matches("no restart loop").count(), 1, "{log}");
    assert_eq!(count(&world, "spawned"), 0);
    // Somebody took it out by mistake, and puts it back.
    put(&world, &graph);
    answered(&world, 1);
    world.stop();
}

#[test]
fn a_chat_that_another_tool_puts_into_the_graph_is_served() {
    let world = idle();
    let graph = world.read(".wg/graph.jsonl");
    let other = graph
        .replace(".chat-0", ".chat-7")
        .replace("Chat 0", "Chat 7");
    world.sh("mkdir -p .wg/chat/.chat-7", b"");
    let line = r#"{"id":1,"timestamp":"2026-11-20T20:26:12Z","role":"user","content":"hello","request_id":"r","user":"t"}"#;
    fs::write(
        world.path(".wg/chat/.chat-7/inbox.jsonl"),
        format!("{line}\n"),
    )
    .unwrap();
    put(&world, &format!("{graph}{other}"));
    world.wait_for_file(".wg/chat/.chat-7/outbox.jsonl", |text| {
        text.contains("hello")
    });
    world.stop();
}

#[test]
fn a_state_without_its_task_archives_itself_once_and_the_dispatchers_is_left_alone() {
    let world = World::with_workspace();
    let dispatchers = r#"{"enabled":true,"max_agents":8,"ticks":3}"#;
    fs::create_dir_all(world.path(".wg/service")).unwrap();
    fs::write(
        world.path(".wg/service/coordinator-state-0.json"),
        dispatchers,
    )
    .unwrap();
    fs::write(
        world.path(".wg/service/coordinator-state-7.json"),
        r#"{"model_override":"theirs","wg_supervisor":{"version":1,"state":"idle"}}"#,
    )
    .unwrap();
    for _ in 0..2 {
        world.wg(&["service", "start"]).ok();
        world.stop();
    }
    let log = world.read(".wg/service/daemon.log");
    assert_eq!(log.matches("orphan supervisor").count(), 1, "{log}");
    assert!(log.contains("Coordinator-7: orphan supervisor"), "{log}");
    let state: Value =
        serde_json::from_str(&world.read(".wg/service/coordinator-state-7.json")).unwrap();
    assert!(state["wg_supervisor"]["archived_at"].is_string(), "{state}");
    assert_eq!(state["model_override"], "theirs");
    assert_eq!(
        world.read(".wg/service/coordinator-state-0.json"),
        dispatchers
    );
    assert!(
        !world
            .read(".wg/service/events.jsonl")
            .contains("\"spawned\"")
    );
}

#[test]
fn a_handler_whose_chat_was_cut_out_of_the_graph_at_the_start_is_adopted_when_the_graph_is_whole_again()
 {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "hello"]).ok();
    let handler = world.json(&["chat", "show", "0"])["pid"].clone();
    let graph = fs::read(world.path(".wg/graph.jsonl")).unwrap();
    fs::write(world.path(".wg/graph.jsonl"), &graph[..60]).unwrap();
    world.wg(&["service", "restart"]).ok();
    fs::write(world.path(".wg/graph.jsonl"), &graph).unwrap();
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.contains("\"adopted\"")
    });
    assert_eq!(world.json(&["chat", "show", "0"])["pid"], handler);
    assert_eq!(world.wg(&["chat", "again"]).ok().stdout, "again\n");
    world.stop();
}

#[test]
fn an_empty_graph_at_the_start_archives_no_chat_that_has_a_session() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "hello"]).ok();
    world.wg(&["service", "stop"]).ok();
    let graph = fs::read(world.path(".wg/graph.jsonl")).unwrap();
    fs::write(world.path(".wg/graph.jsonl"), "").unwrap();
    world.wg(&["service", "start"]).ok();
    fs::write(world.path(".wg/graph.jsonl"), &graph).unwrap();
    assert_eq!(world.wg(&["chat", "again"]).ok().stdout, "again\n");
    world.stop();
}
