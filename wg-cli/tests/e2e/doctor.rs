//! `wg doctor`: each thing that can be wrong is found, explained, and put right by `--fix` where a program may.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::process::killed;
use crate::world::World;

/// What is found now, as `check: text`.
fn found(world: &World) -> Vec<String> {
    told(world, &["doctor", "--json"])
        .iter()
        .map(|finding| {
            format!(
                "{}: {}",
                finding["check"].as_str().unwrap(),
                finding["text"].as_str().unwrap()
            )
        })
        .collect()
}

fn told(world: &World, args: &[&str]) -> Vec<Value> {
    let document: Value = serde_json::from_str(&world.wg(args).stdout).unwrap();
    document["findings"].as_array().unwrap().clone()
}

/// Each of these words stands in a finding; `--fix` says that it fixed each, and nothing of them is found again.
#[track_caller]
fn finds_and_fixes(world: &World, words: &[&str]) {
    let before = found(world);
    for word in words {
        assert!(
            before.iter().any(|text| text.contains(word)),
            "`{word}` is missing: {before:#?}"
        );
    }
    let fixed = told(world, &["doctor", "--fix", "--json"]);
    for finding in &fixed {
        let text = finding["text"].as_str().unwrap();
        if words.iter().any(|word| text.contains(word)) {
            assert_eq!(finding["fixed"], true, "{finding:#}");
            assert!(!finding["fix"].as_str().unwrap().is_empty());
        }
    }
    let after = found(world);
    for word in words {
        assert!(
            !after.iter().any(|text| text.contains(word)),
            "`{word}` is still there: {after:#?}"
        );
    }
}

fn kill_daemon(world: &World) {
    killed(world.daemon_pid());
}

#[test]
fn what_a_killed_service_left_is_found_and_removed() {
    let world = World::with_workspace();
    world.wg(&["service", "start"]).ok();
    assert_eq!(found(&world), Vec::<String>::new());
    kill_daemon(&world);
    finds_and_fixes(&world, &["ended without tidying up", "nobody listens"]);
    assert!(!world.path(".wg/service/daemon.sock").exists());
    world.wg(&["up", "hello"]).ok();
    world.stop();
}

#[test]
fn a_torn_line_is_moved_aside_and_the_rest_stays() {
    let world = World::with_workspace();
    world.wg(&["up", "hello"]).ok();
    world.wg(&["service", "stop"]).ok();
    let inbox = ".wg/chat/.chat-0/inbox.jsonl";
    let whole = world.read(inbox);
    world.sh(&format!("printf '{{\"id\":2,\"con' >> {inbox}"), b"");
    finds_and_fixes(&world, &["ends in the middle of a line"]);
    assert_eq!(world.read(inbox), whole);
    assert!(world.read(&format!("{inbox}.corrupt")).contains("\"con"));
}

#[test]
fn a_message_after_which_there_is_no_number_is_found_and_put_right_once_nobody_serves_the_chat() {
    let world = World::with_workspace();
    world.wg(&["up", "hello"]).ok();
    let inbox = ".wg/chat/.chat-0/inbox.jsonl";
    let line = r#"{"id":18446744073709551615,"role":"user","content":"theirs","request_id":"t"}"#;
    world.sh(&format!("cat >> {inbox}"), format!("{line}\n").as_bytes());
    world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
        text.contains("theirs")
    });
    let refused = world.wg(&["chat", "send", "0", "more"]);
    assert_ne!(refused.status.code(), Some(0));
    assert!(refused.stderr.contains("(wg doctor)"), "{refused:?}");
    let told = told(&world, &["doctor", "--fix", "--json"]);
    let served = told
        .iter()
        .find(|finding| finding["fixed"] == false)
        .unwrap();
    assert!(
        served["text"]
            .as_str()
            .unwrap()
            .contains("wg chat stop chat-0"),
        "{served}"
    );
    world.wg(&["chat", "stop", "0"]).ok();
    finds_and_fixes(&world, &["after which there is no room"]);
    world.wg(&["chat", "resume", "0"]).ok();
    assert_eq!(world.wg(&["chat", "more"]).ok().stdout, "more\n");
    let replies = world.read(".wg/chat/.chat-0/outbox.jsonl");
    assert_eq!(replies.matches("theirs").count(), 1, "{replies}");
    world.stop();
}

#[test]
fn messages_whose_numbers_do_not_rise_are_told_of() {
    let world = World::with_workspace();
    world.wg(&["up", "hello"]).ok();
    world.stop();
    assert_eq!(told(&world, &["doctor", "--json"]), [] as [Value; 0]);
    let line = |id: u32, text: &str| {
        format!(
            r#"{{"id":{id},"timestamp":"2026-11-20T20:26:12Z","role":"user","content":"{text}","request_id":"r-{text}","user":"t"}}"#
        )
    };
    let theirs = [line(2, "a"), line(2, "b"), line(7, "c"), line(3, "d")].join("\n") + "\n";
    world.sh("cat >> .wg/chat/.chat-0/inbox.jsonl", theirs.as_bytes());
    let told = told(&world, &["doctor", "--json"]);
    let text = told[0]["text"].as_str().unwrap();
    assert!(
        text.contains("has 2 message(s) behind one") && text.contains("(number 2, 3)"),
        "{text}"
    );
    assert_eq!(told.len(), 1, "{told:?}");
    finds_and_fixes(&world, &["behind one with the same or a higher number"]);
    world.wg(&["service", "start"]).ok();
    answers_once(&world, &["a", "b", "c", "d"]);
    world.stop();
}

/// Waits until each of these has its reply, and sees that none has two.
fn answers_once(world: &World, contents: &[&str]) {
    let replies =
        |text: &str, content: &str| text.matches(&format!(r#""content":"{content}""#)).count();
    let outbox = ".wg/chat/.chat-0/outbox.jsonl";
    world.wait_for_file(outbox, |text| {
        contents.iter().all(|content| replies(text, content) > 0)
    });
    world.wg(&["chat", "the last"]).ok();
    let text = world.read(outbox);
    for content in contents {
        assert_eq!(replies(&text, content), 1, "{content} in {text}");
    }
}

#[test]
fn a_message_of_another_tool_whose_number_does_not_rise_is_answered_once_without_a_cure() {
    let world = World::with_workspace();
    for content in ["one", "two", "three"] {
        world.wg(&["up", content]).ok();
    }
    let inbox = ".wg/chat/.chat-0/inbox.jsonl";
    let before = world.read(inbox);
    let theirs = [(3, "x", "x"), (1, "y", ""), (1, "z", ""), (0, "zero", "zero")].map(
        |(id, content, name)| {
            format!(
                r#"{{"id":{id},"timestamp":"2026-11-20T20:26:12Z","role":"user","content":"{content}","request_id":"{name}","theirs":1.50}}"#
            ) + "\n"
        },
    );
    for line in &theirs {
        world.sh(&format!("cat >> {inbox}"), line.as_bytes());
    }
    answers_once(&world, &["x", "y", "z", "zero"]);
    let after = world.read(inbox);
    assert!(after.starts_with(&before), "{after}");
    for line in &theirs {
        assert!(after.contains(line), "{line} in {after}");
    }
    // The handler has left, the service is killed, and nobody sees how they come.
    kill_daemon(&world);
    world.stop();
    let late = r#"{"id":2,"role":"user","content":"late","request_id":"late"}"#;
    world.sh(&format!("cat >> {inbox}"), format!("{late}\n").as_bytes());
    world.wg(&["service", "start"]).ok();
    answers_once(&world, &["x", "y", "z", "zero", "late"]);
    assert_eq!(told(&world, &["doctor", "--json"]), [] as [Value; 0]);
    world.stop();
}

#[test]
fn a_state_without_its_task_is_archived_and_a_damaged_one_is_set_aside_with_the_chat_stopped() {
    let world = World::with_workspace();
    world.wg(&["up", "hello"]).ok();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["chat", "stop", "1"]).ok();
    world.wg(&["service", "stop"]).ok();
    let state = |n: u32| format!(".wg/service/coordinator-state-{n}.json");
    fs::copy(world.path(&state(1)), world.path(&state(7))).unwrap();
    fs::write(world.path(&state(0)), "{ torn").unwrap();
    finds_and_fixes(&world, &["a state of chat-7", "chat-0:"]);
    assert!(world.read(&state(7)).contains("archived_at"));
    // A person decides; until then nothing starts.
    world.wg(&["service", "start"]).ok();
    assert!(world.wg(&["why", "0"]).ok().stdout.contains("stopped"));
    world.wg(&["chat", "resume", "0"]).ok();
    assert_eq!(world.wg(&["chat", "again"]).ok().stdout, "again\n");
    world.stop();
}

#[test]
fn a_process_that_a_dead_handler_left_is_found_and_ended() {
    let world = World::with_workspace();
    // In a session of its own, without the lock of its handler: only the marker tells whose it is.
    let agent = world.script(
        "agent.sh",
        "#!/bin/sh\nsetsid sleep 1000 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- </dev/null >/dev/null 2>&1 &\necho $! > left.pid\nsleep 1000\n",
    );
    fs::write(
        world.path(".wg/config.toml"),
        format!("[service]\nagent = \"leaver\"\n[agents.leaver]\ncommand = [\"{}\"]\nleave_children = true\n", agent.display()),
    )
    .unwrap();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "send", "0", "go"]).ok();
    world.wait_for_file("left.pid", |text| text.ends_with('\n'));
    kill_daemon(&world);
    for handler in world.handlers() {
        killed(handler.pid);
    }
    finds_and_fixes(&world, &["left behind by a dead handler of chat-0"]);
    assert_eq!(world.processes().len(), 0);
    world.wg(&["doctor", "--fix"]).ok();
}

#[test]
fn a_section_that_is_one_slip_from_one_of_ours_is_told_and_another_tools_is_not() {
    let world = World::with_workspace();
    let text = "[dispatcher]\nx = 1\n[agent]\ny = 2\n[servcie]\nlog_keep = 1\n";
    fs::write(world.path(".wg/config.toml"), text).unwrap();
    let told = found(&world);
    let settings: Vec<&String> = told
        .iter()
        .filter(|text| text.contains("section"))
        .collect();
    assert_eq!(settings.len(), 1, "{told:#?}");
    assert!(
        settings[0].ends_with("config.toml` line 5: nobody reads the section [servcie]"),
        "{told:#?}"
    );
    // It is nobody's fault that cannot be lived with.
    world.wg(&["chat", "new"]).ok();
}

#[test]
fn one_file_that_cannot_be_read_hides_no_other_finding() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    fs::write(
        world.path(".wg/config.toml"),
        "[service]\nidle_timeout = \"soon\"\n",
    )
    .unwrap();
    fs::create_dir_all(world.path(".wg/chat")).unwrap();
    fs::write(world.path(".wg/chat/sessions.json"), "{ torn").unwrap();
    fs::create_dir_all(world.path(".wg/service")).unwrap();
    fs::write(world.path(".wg/service/state.json"), "{ torn").unwrap();
    fs::set_permissions(
        world.path(".wg/graph.jsonl"),
        fs::Permissions::from_mode(0o666),
    )
    .unwrap();
    let found = found(&world);
    for word in [
        "`service.idle_timeout`",
        "no chat is served",
        "state.json",
        "can be written by others",
    ] {
        assert!(
            found.iter().any(|text| text.contains(word)),
            "`{word}` is missing: {found:#?}"
        );
    }
    world.wg(&["doctor"]).with_code(1);
    world.wg(&["doctor", "--fix"]).with_code(1);
    assert_eq!(
        fs::metadata(world.path(".wg/graph.jsonl"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o644
    );
    assert_eq!(
        world.read(".wg/chat/sessions.json"),
        "{ torn",
        "what is a person's stays"
    );
}
