//! The verbs one by one: every form of a reference, wishes that last, and what is said about them.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::world::World;

fn state(world: &World, chat: &str) -> String {
    world.json(&["chat", "show", chat])["state"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn every_form_of_a_reference_means_the_same_chat_with_every_verb() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world
        .wg(&["chat", "new", "--id", "chat-3", "--name", "Alpha"])
        .ok();
    for form in [
        "3",
        "chat-3",
        ".chat-3",
        "coordinator-3",
        ".coordinator-3",
        "Alpha",
        "alpha",
    ] {
        for verb in [
            &["chat", "show"][..],
            &["chat", "read"],
            &["chat", "stop"],
            &["chat", "resume"],
            &["chat", "archive"],
            &["chat", "restore"],
            &["session", "status"],
            &["session", "release"],
            &["why"],
            &["service", "stop-chat"],
            &["service", "archive-chat"],
        ] {
            let mut args = verb.to_vec();
            args.push(form);
            let answer = world.json(&args);
            let answer = answer.get(0).unwrap_or(&answer);
            assert_eq!(answer["chat_id"], 3, "{args:?}: {answer}");
            assert_eq!(answer["task_id"], ".chat-3", "{args:?}: {answer}");
        }
        world.wg(&["chat", "restore", form]).ok();
        assert_eq!(world.json(&["chat", "send", form, "hello"])["chat_id"], 3);
        assert_eq!(world.json(&["show", form])["id"], ".chat-3");
    }
    assert!(world.processes().is_empty());
}

#[test]
fn a_stopped_chat_stays_down_over_a_restart_and_answers_after_resume() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "one"]).ok();
    world.wg(&["chat", "stop", "0"]).ok();
    assert!(world.handlers().is_empty());
    let sent = world.json(&["chat", "send", "0", "two"]);
    assert!(
        sent["note"]
            .as_str()
            .is_some_and(|note| note.contains("wg chat resume chat-0")),
        "{sent}"
    );
    world.wg(&["service", "restart"]).ok();
    assert_eq!(state(&world, "0"), "stopped");
    assert!(world.handlers().is_empty());
    world.wg(&["chat", "resume", "0"]).ok();
    let outbox = world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
        text.ends_with('\n') && text.lines().count() == 2
    });
    assert!(outbox.lines().last().unwrap().contains("two"));
    world.stop();
}

#[test]
fn an_archived_chat_is_out_of_the_list_and_comes_back_with_its_history() {
    let world = World::with_workspace();
    world.wg(&["chat", "new", "--name", "docs"]).ok();
    world.wg(&["service", "start"]).ok();
    world
        .wg(&["chat", "remember this", "--coordinator", "docs"])
        .ok();
    world.wg(&["chat", "archive", "docs"]).ok();
    assert!(world.handlers().is_empty());
    assert_eq!(world.json(&["chat", "list"])["chats"], Value::Array(vec![]));
    assert_eq!(
        world.json(&["chat", "list", "--all"])["chats"][0]["state"],
        "archived"
    );
    world.wg(&["chat", "restore", "docs"]).ok();
    let read = world.json(&["chat", "read", "docs"]);
    assert_eq!(read["messages"].as_array().unwrap().len(), 2, "{read}");
    assert_eq!(
        world
            .wg(&["chat", "again", "--coordinator", "docs"])
            .ok()
            .stdout,
        "again\n"
    );
    world.stop();
}

#[test]
fn a_failed_message_is_asked_again_and_an_unanswered_one_is_not_asked_twice() {
    let world = World::with_workspace();
    let agent = world.script(
        "agent.sh",
        "#!/bin/sh\nif [ -e works ]; then tr a-z A-Z; else echo broken >&2; exit 1; fi\n",
    );
    world
        .wg(&["chat", "new", "--command", agent.to_str().unwrap()])
        .ok();
    world.wg(&["chat", "send", "0", "hello"]).ok();
    let early = world.wg(&["chat", "retry", "0"]).with_code(1);
    assert!(
        early.stderr.contains("not answered yet"),
        "{}",
        early.stderr
    );
    world.wg(&["service", "start"]).ok();
    world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
        text.contains("system-error")
    });
    fs::write(world.path("works"), "").unwrap();
    let retried = world.json(&["chat", "retry", "0"]);
    assert_eq!(
        (&retried["retry_of"], &retried["inbox_id"]),
        (&Value::from(1), &Value::from(2)),
        "{retried}"
    );
    let outbox = world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
        text.ends_with('\n') && text.lines().count() == 2
    });
    assert!(outbox.lines().last().unwrap().contains("HELLO"), "{outbox}");
    let nothing = world.wg(&["chat", "retry", "0"]).with_code(1);
    assert!(
        nothing.stderr.contains("no message of chat-0 has failed"),
        "{}",
        nothing.stderr
    );
    world.stop();
}

#[test]
fn an_interrupt_ends_the_turn_and_not_the_chat() {
    let world = World::with_workspace();
    let agent = world.script(
        "agent.sh",
        "#!/bin/sh\nread -r heard\nif [ \"$heard\" = 'take your time' ]; then echo begun; exec sleep 600; fi\necho \"quick $heard\"\n",
    );
    world
        .wg(&["chat", "new", "--command", agent.to_str().unwrap()])
        .ok();
    world.wg(&["service", "start"]).ok();
    let waiting = world.start(&["chat", "take your time", "--timeout", "1h"]);
    world.wait_for_file(".wg/chat/.chat-0/.streaming", |text| text.contains("begun"));
    let handler = world.json(&["chat", "show", "0"])["pid"].clone();
    let told = world.json(&["chat", "interrupt", "0"]);
    // It is said when it has happened.
    let outbox = world.read(".wg/chat/.chat-0/outbox.jsonl");
    assert!(outbox.contains("interrupted"), "{outbox}");
    assert_eq!(told["text"], "interrupted the turn of chat-0");
    assert_eq!(told["changed"], true);
    let told = world.json(&["chat", "interrupt", "0"]);
    assert_eq!(told["changed"], false, "{told}");
    assert_eq!(
        told["text"],
        "chat-0 answers nothing, so nothing was interrupted"
    );
    let done = waiting.finish().with_code(1);
    assert!(done.stderr.contains("interrupted"), "{}", done.stderr);
    assert_eq!(world.wg(&["chat", "next"]).ok().stdout, "quick next\n");
    assert_eq!(
        world.json(&["chat", "show", "0"])["pid"],
        handler,
        "the handler stayed"
    );
    world.stop();
}

#[test]
fn a_restart_of_the_service_does_not_disturb_a_turn_in_flight() {
    let world = World::with_workspace();
    let agent = world.script(
        "agent.sh",
        "#!/bin/sh\nread -r heard\necho begun\nmkfifo go 2>/dev/null; read -r word < go\necho \"$heard $word\"\n",
    );
    world
        .wg(&["chat", "new", "--command", agent.to_str().unwrap()])
        .ok();
    world.wg(&["service", "start"]).ok();
    let waiting = world.start(&["chat", "hello", "--timeout", "1h"]);
    world.wait_for_file(".wg/chat/.chat-0/.streaming", |text| text.contains("begun"));
    let handler = world.json(&["chat", "show", "0"])["pid"].clone();
    world.wg(&["service", "restart"]).ok();
    assert_eq!(state(&world, "0"), "adopted");
    assert_eq!(world.json(&["chat", "show", "0"])["pid"], handler);
    world.sh("echo there > go", b"");
    assert_eq!(waiting.finish().ok().stdout, "begun\nhello there\n");
    world.stop();
}

#[test]
fn a_killed_service_is_replaced_and_the_turn_in_flight_is_answered_once() {
    let world = World::with_workspace();
    let agent = world.script(
        "agent.sh",
        "#!/bin/sh\nread -r heard\necho begun\nmkfifo go 2>/dev/null; read -r word < go\necho \"$heard $word\"\n",
    );
    world
        .wg(&["chat", "new", "--command", agent.to_str().unwrap()])
        .ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "send", "0", "hello"]).ok();
    world.wait_for_file(".wg/chat/.chat-0/.streaming", |text| text.contains("begun"));
    let daemon = world.daemon_pid();
    kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
    crate::process::wait_gone(daemon);
    world.wg(&["service", "start"]).ok();
    world.sh("echo there > go", b"");
    let outbox = world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| text.ends_with('\n'));
    assert_eq!(outbox.lines().count(), 1);
    assert!(outbox.contains("hello there"), "{outbox}");
    world.stop();
}

#[test]
fn what_is_followed_is_printed_as_it_comes() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    let mut read = world.start(&["chat", "read", "0", "--follow", "--json"]);
    world.wg(&["service", "start"]).ok();
    let mut logs = world.start(&["service", "logs", "--follow"]);
    let mut events = world.start(&["service", "events", "--follow", "--json", "--chat", "0"]);
    world.wg(&["chat", "hello"]).ok();
    let said: Value = serde_json::from_str(&read.line()).unwrap();
    assert_eq!(
        (said["side"].as_str(), said["content"].as_str()),
        (Some("inbox"), Some("hello"))
    );
    let answered: Value = serde_json::from_str(&read.line()).unwrap();
    assert_eq!(
        (answered["side"].as_str(), answered["content"].as_str()),
        (Some("outbox"), Some("hello"))
    );
    while !logs
        .line()
        .contains("Coordinator agent 0 spawned successfully")
    {}
    loop {
        let event: Value = serde_json::from_str(&events.line()).unwrap();
        assert_eq!(event["chat_id"], 0);
        if event["event"] == "spawned" {
            break;
        }
    }
    for mut follower in [read, logs, events] {
        follower.child.kill().unwrap();
        follower.child.wait().unwrap();
    }
    world.stop();
}

#[test]
fn attach_through_a_pipe_answers_line_by_line() {
    let world = World::with_workspace();
    world.wg(&["chat", "new", "--command", "tr a-z A-Z"]).ok();
    world.wg(&["service", "start"]).ok();
    let mut attached = world.start(&["chat", "attach", "0"]);
    for line in ["one", "two"] {
        attached.say(&format!("{line}\n"));
        assert_eq!(attached.line(), line.to_uppercase());
    }
    attached.hang_up();
    attached.finish().ok();
    world.stop();
}

#[test]
fn the_flat_form_gives_up_after_its_timeout_and_the_message_stays_accepted() {
    let world = World::with_workspace();
    world.sh("mkfifo go", b"");
    let agent = world.script(
        "agent.sh",
        "#!/bin/sh\nread -r heard\nread -r word < go\necho \"$heard $word\"\n",
    );
    world
        .wg(&["chat", "new", "--command", agent.to_str().unwrap()])
        .ok();
    world.wg(&["service", "start"]).ok();
    let late = world
        .wg(&["chat", "one", "--timeout", "0.2"])
        .with_code(124);
    assert!(
        late.stderr.contains("the message stays accepted"),
        "{}",
        late.stderr
    );
    world
        .wg(&["chat", "two", "--timeout", "0.1", "--exit-zero"])
        .ok();
    for (said, answers) in [("late", 1), ("later", 2)] {
        world.sh(&format!("echo {said} > go"), b"");
        world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
            text.ends_with('\n') && text.lines().count() == answers
        });
    }
    let outbox = world.read(".wg/chat/.chat-0/outbox.jsonl");
    assert!(
        outbox.contains("one late") && outbox.contains("two later"),
        "{outbox}"
    );
    world.stop();
}

#[test]
fn a_word_after_two_dashes_is_sent_as_it_stands() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    assert_eq!(world.wg(&["chat", "--", "lsit"]).ok().stdout, "lsit\n");
    assert_eq!(
        world
            .wg_with(&["chat", "-"], b"from stdin\nand more\n")
            .ok()
            .stdout,
        "from stdin\nand more\n"
    );
    world.stop();
}

#[test]
fn the_graph_of_the_earlier_tool_is_renamed_and_its_other_fields_stay() {
    let world = World::with_workspace();
    let line = r#"{"kind":"task","id":".coordinator-2","title":"Coordinator: old","status":"in-progress","tags":["coordinator-loop"],"unknown":{"kept":[1,2]}}"#;
    fs::write(world.path(".wg/graph.jsonl"), format!("{line}\n")).unwrap();
    let dry = world.json(&["migrate", "chat-rename", "--dry-run"]);
    assert_eq!(
        dry["renamed_ids"][0],
        serde_json::json!([".coordinator-2", ".chat-2"]),
        "{dry}"
    );
    assert_eq!(
        world.read(".wg/graph.jsonl"),
        format!("{line}\n"),
        "a dry run writes nothing"
    );
    world.wg(&["migrate", "chat-rename"]).ok();
    let task: Value = serde_json::from_str(world.read(".wg/graph.jsonl").trim()).unwrap();
    assert_eq!(
        (task["id"].as_str(), task["title"].as_str()),
        (Some(".chat-2"), Some("Chat: old"))
    );
    assert_eq!(task["unknown"], serde_json::json!({"kept": [1, 2]}));
    assert!(
        world
            .wg(&["migrate", "chat-rename"])
            .ok()
            .stdout
            .contains("No legacy coordinator data found")
    );
}

#[test]
fn doctor_finds_explains_and_fixes() {
    let world = World::with_workspace();
    assert_eq!(
        world.json(&["doctor"]),
        serde_json::json!({"ok": true, "findings": []})
    );
    let task = r#"{"kind":"task","id":".coordinator-0","title":"Coordinator 0","status":"in-progress","tags":["coordinator-loop"]}"#;
    fs::write(world.path(".wg/graph.jsonl"), format!("{task}\nnot json\n")).unwrap();
    fs::create_dir_all(world.path(".wg/service")).unwrap();
    fs::set_permissions(
        world.path(".wg/service"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let found = world.wg(&["doctor"]).with_code(1);
    for words in ["line 2", "names of an earlier version", "open to others"] {
        assert!(
            found.stdout.contains(words),
            "`{words}` is missing in\n{}",
            found.stdout
        );
    }
    let fixed = world.wg(&["doctor", "--fix", "--json"]).with_code(1).json();
    let open: Vec<&str> = fixed["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["fixed"] == false)
        .map(|finding| finding["check"].as_str().unwrap())
        .collect();
    assert_eq!(
        open,
        ["graph"],
        "a line that nobody can read is a person's: {fixed}"
    );
    assert!(world.read(".wg/graph.jsonl").contains(".chat-0"));
    assert!(
        world.read(".wg/graph.jsonl").contains("not json"),
        "it was not touched"
    );
}

#[test]
fn colour_is_for_terminals_and_for_those_who_ask() {
    let mut world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    assert!(!world.wg(&["chat", "list"]).ok().stdout.contains('\u{1b}'));
    assert!(
        world
            .wg(&["chat", "list", "--color", "always"])
            .ok()
            .stdout
            .contains('\u{1b}')
    );
    assert!(
        !world
            .wg(&["chat", "list", "--color", "never"])
            .ok()
            .stdout
            .contains('\u{1b}')
    );
    assert!(
        world
            .wg(&["chat", "stop", "7", "--color=always"])
            .with_code(1)
            .stderr
            .starts_with("\u{1b}[31merror:\u{1b}[0m")
    );
    world.set("NO_COLOR", "1");
    assert!(!world.wg(&["chat", "list"]).ok().stdout.contains('\u{1b}'));
}

#[test]
fn completions_know_the_verbs() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = world.wg(&["completions", shell]).ok().stdout;
        assert!(
            script.contains("purge-chats") && script.contains("takeover"),
            "{shell}"
        );
    }
    world.sh(
        "bash -n /dev/stdin",
        world.wg(&["completions", "bash"]).ok().stdout.as_bytes(),
    );
}

#[test]
fn a_person_takes_a_chat_over_and_the_service_gets_it_back() {
    let world = World::with_workspace();
    world.wg(&["up", "hello"]).ok();
    let handler = world.json(&["session", "status", "0"])["holder"]["pid"].clone();
    let released = world.json(&["session", "release", "0"]);
    assert_eq!(released["holder"]["pid"], handler, "{released}");
    assert_eq!(released["free"], true, "{released}");
    // It is this person's for a moment; a message brings the service back in the end.
    assert_eq!(
        world.wg(&["chat", "are you back?"]).ok().stdout,
        "are you back?\n"
    );
    world.stop();
}

#[test]
fn a_session_of_no_chat_is_made_named_and_removed_and_a_chats_is_kept() {
    for with_registry in [false, true] {
        let world = World::with_workspace();
        if with_registry {
            fs::create_dir_all(world.path(".wg/chat")).unwrap();
            fs::write(
                world.path(".wg/chat/sessions.json"),
                r#"{"version":0,"sessions":{},"theirs":1}"#,
            )
            .unwrap();
        }
        world.wg(&["chat", "new", "--name", "docs"]).ok();
        world.wg(&["chat", "send", "docs", "hello"]).ok();
        let made = world.json(&["session", "new", "scratch"]);
        assert_eq!(made["session"], "scratch", "{made}");
        assert_eq!(
            world.json(&["session", "status", "scratch"])["state"],
            "free"
        );
        for taken in ["scratch", "docs", "chat-7", ".hidden"] {
            world.wg(&["session", "new", taken]).with_code(1);
        }
        assert_eq!(
            world.json(&["session", "check"])["ok"],
            true,
            "{}",
            world.json(&["session", "check"])
        );
        if with_registry {
            world
                .wg(&["session", "alias", "add", "docs", "papers"])
                .ok();
            assert_eq!(world.json(&["session", "status", "papers"])["chat_id"], 0);
            world.wg(&["session", "alias", "rm", "papers"]).ok();
            world.wg(&["session", "status", "papers"]).with_code(1);
            world.wg(&["session", "alias", "rm", "chat-0"]).with_code(1);
        } else {
            world
                .wg(&["session", "alias", "add", "docs", "papers"])
                .with_code(1);
        }
        world.wg(&["session", "rm", "docs", "--yes"]).with_code(1);
        world.wg(&["session", "rm", "scratch"]).with_code(2);
        world.wg(&["session", "rm", "scratch", "--yes"]).ok();
        world.wg(&["session", "status", "scratch"]).with_code(1);
        assert_eq!(
            world.json(&["chat", "read", "docs"])["messages"][0]["content"],
            "hello"
        );
        world.wg(&["chat", "delete", "docs", "--yes"]).ok();
        world.wg(&["session", "rm", "0", "--yes"]).ok();
        if with_registry {
            let registry: Value =
                serde_json::from_str(&world.read(".wg/chat/sessions.json")).unwrap();
            assert_eq!(
                registry,
                serde_json::json!({"version": 0, "sessions": {}, "theirs": 1})
            );
        }
    }
}

/// How often the service said that the chat has nothing to do.
fn idle_lines(world: &World) -> usize {
    let events = world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.contains("\"event\":\"idle\"") && text.ends_with('\n')
    });
    events
        .lines()
        .filter(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            event["event"] == "idle"
        })
        .count()
}

#[test]
fn a_paused_service_does_not_ask_itself_without_end_about_a_waiting_message() {
    let world = World::with_workspace();
    world.wg(&["chat", "new", "--id", "chat-1"]).ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["service", "pause"]).ok();
    world.wg(&["chat", "send", "chat-1", "hello"]).ok();
    // Each of these is a round trip, in which a loop without a pause writes many lines.
    for _ in 0..10 {
        world.wg(&["service", "status"]).ok();
    }
    let why = world.wg(&["why", "1"]).ok().stdout;
    for words in [
        "idle: the service is paused",
        "it starts when the service is resumed",
    ] {
        assert!(why.contains(words), "no `{words}` in {why}");
    }
    let lines = idle_lines(&world);
    assert!((1..10).contains(&lines), "{lines} lines say idle");
    world.wg(&["service", "resume"]).ok();
    world.wg(&["service", "stop"]).ok();
    assert!(world.processes().is_empty());
}

#[test]
fn somebody_without_a_name_is_called_user_in_the_conversation() {
    let mut world = World::with_workspace();
    world.set("USER", "");
    world.wg(&["chat", "new"]).ok();
    world.wg(&["chat", "send", "0", "hello"]).ok();
    let read = world.wg(&["chat", "read", "0"]).ok();
    assert!(read.stdout.starts_with("user "), "{}", read.stdout);
}

#[test]
fn the_holder_of_a_chat_is_told_with_how_long_ago_it_came() {
    let world = World::new();
    world.wg(&["up", "hello"]).ok();
    world.wg(&["service", "stop"]).ok();
    let person = world.start(&["nex", "--chat", "0"]);
    let pid = person.pid().to_string();
    world.wait_for_file(".wg/chat/.chat-0/.handler.pid", |text| {
        text.lines().next() == Some(&pid)
    });
    let why = world.wg(&["why", "0"]).ok();
    let holder = why.stdout.lines().find(|line| line.contains("holder"));
    let holder = holder.unwrap_or_else(|| panic!("no holder: {}", why.stdout));
    assert!(holder.contains(" ago"), "{holder}");
    assert!(holder.contains(&format!("pid {pid} ")), "{holder}");
    assert_eq!(world.json(&["chat", "list"])["chats"][0]["state"], "held");
    kill(Pid::from_raw(person.pid()), Signal::SIGTERM).unwrap();
    person.finish();
}
