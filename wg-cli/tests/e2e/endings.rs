//! What the ending of an agent means: the exit code of the verb that waited, the reply, the state of the chat and the words of `wg why`,
//! each kept as a golden text.

use std::fs;

use serde_json::Value;

use crate::golden;
use crate::world::World;

/// Asks a chat whose agent ends in a certain way, and keeps everything that can be seen of it.
#[track_caller]
fn ending(name: &str, settings: &str, chat: &[&str], code: i32) {
    let world = World::new();
    world.wg(&["init"]).ok();
    let settings = format!("[service]\nstop_grace = \"0.3s\"\n{settings}");
    fs::write(world.path(".wg/config.toml"), settings).unwrap();
    let mut new = vec!["chat", "new"];
    new.extend(chat);
    world.wg(&new).ok();
    world.wg(&["service", "start"]).ok();
    let asked = world.wg(&["chat", "hello"]).with_code(code);
    let replies =
        fs::read_to_string(world.path(".wg/chat/.chat-0/outbox.jsonl")).unwrap_or_default();
    let replies: Vec<String> = replies
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|reply| {
            format!(
                "{}: {}",
                reply["role"].as_str().unwrap(),
                reply["content"].as_str().unwrap().trim_end()
            )
        })
        .collect();
    let state = world.json(&["chat", "list"])["chats"][0]["state"]
        .as_str()
        .unwrap()
        .to_owned();
    let why = world.wg(&["why", "0"]).ok().stdout;
    golden::check(
        &world,
        &format!("endings/{name}"),
        &format!(
            "exit code {code}\n--- stdout\n{}--- stderr\n{}--- replies\n{}\n--- state\n{state}\n--- why\n{why}",
            asked.stdout,
            asked.stderr,
            replies.join("\n")
        ),
    );
    world.stop();
}

/// As [`ending`], for an agent that is a shell script.
#[track_caller]
fn script(name: &str, script: &str, code: i32) {
    ending(
        name,
        &format!("[agents.script]\ncommand = [\"sh\", \"-c\", \"{script}\"]\n"),
        &["--agent", "script"],
        code,
    );
}

#[test]
fn an_agent_that_ends_with_0_has_answered_whatever_it_said() {
    script("exit-0", "echo fine", 0);
    script("exit-0-silent", "true", 0);
}

#[test]
fn an_agent_that_ends_with_1_or_by_a_signal_fails_this_message_and_nothing_else() {
    script("exit-1", "echo half; echo 'it broke' >&2; exit 1", 1);
    script("signal", "echo half; kill -SEGV $$", 1);
}

#[test]
fn an_agent_that_is_not_there_or_says_that_its_settings_are_wrong_parks_the_chat() {
    ending(
        "missing-program",
        "[agents.gone]\ncommand = [\"/nowhere/agent\"]\n",
        &["--agent", "gone"],
        78,
    );
    script("exit-127", "echo 'not found' >&2; exit 127", 78);
    script("exit-126", "echo 'not a program' >&2; exit 126", 78);
    script("exit-78", "echo 'no key' >&2; exit 78", 78);
}

#[test]
fn an_agent_that_says_it_is_unavailable_leaves_the_message_and_is_tried_again() {
    script("exit-69", "echo 'the endpoint is down' >&2; exit 69", 69);
}

#[test]
fn an_agent_that_makes_no_progress_and_ignores_every_signal_is_ended() {
    let stubborn = "trap '' INT TERM HUP; echo half; sleep 600; sleep 600";
    ending(
        "stalled",
        &format!(
            "[agents.stubborn]\ncommand = [\"sh\", \"-c\", \"{stubborn}\"]\nstall_ceiling = \"2s\"\n"
        ),
        &["--agent", "stubborn"],
        1,
    );
}
