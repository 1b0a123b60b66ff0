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
    // Nothing is tried again while it is looked at.
    let settings = format!(
        "[service]\nstop_grace = \"0.3s\"\n[supervisor]\ndependency_first = \"60s\"\n{settings}"
    );
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

#[test]
fn a_message_that_fits_no_command_line_fails_alone() {
    let world = World::with_workspace();
    fs::write(
        world.path(".wg/config.toml"),
        "[agents.arg]\ncommand = [\"printf\", \"%s\", \"{message}\"]\nprotocol = \"arg\"\n",
    )
    .unwrap();
    world.wg(&["chat", "new", "--agent", "arg"]).ok();
    world.wg(&["service", "start"]).ok();
    let long = "x".repeat(200_000);
    let asked = world.wg_with(&["chat", "-"], long.as_bytes()).with_code(1);
    let why = world.wg(&["why", "0"]).ok().stdout;
    golden::check(
        &world,
        "endings/e2big",
        &format!("--- stderr\n{}--- why\n{why}", asked.stderr),
    );
    assert_eq!(world.wg(&["chat", "short"]).ok().stdout, "short\n");
    world.stop();
}

#[test]
fn an_endpoint_that_stays_down_is_asked_more_and_more_rarely() {
    let world = World::with_workspace();
    fs::write(
        world.path(".wg/config.toml"),
        "[supervisor]\ndependency_first = \"100ms\"\n",
    )
    .unwrap();
    world
        .wg(&["chat", "new", "--command", "sh -c 'exit 69'"])
        .ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "send", "0", "hello"]).ok();
    let events = world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.contains("(dependency 4)")
    });
    let pauses: Vec<u64> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["event"] == "backoff")
        .map(|event| event["delay_ms"].as_u64().unwrap())
        .take(4)
        .collect();
    assert!(pauses.is_sorted() && pauses[3] > 400, "{pauses:?}");
    world.stop();
}

/// The limit is set by the agent of the first turn on its handler, so that nothing else of the world feels it. Root has no such limit:
/// there the world belongs to somebody else.
#[test]
fn an_agent_that_cannot_be_started_because_the_machine_is_full_is_tried_again() {
    let world = World::new();
    let world = if nix::unistd::geteuid().is_root() {
        world.of_user(65_533)
    } else {
        world
    };
    world.wg(&["init"]).ok();
    let agent = "[ -e limited ] || { touch limited; prlimit --pid $PPID --nproc=1:; }; echo done";
    fs::write(
        world.path(".wg/config.toml"),
        format!(
            "[supervisor]\nbackoff_first = \"60s\"\n[agents.full]\ncommand = [\"sh\", \"-c\", \"{agent}\"]\n"
        ),
    )
    .unwrap();
    world.wg(&["chat", "new", "--agent", "full"]).ok();
    world.wg(&["service", "start"]).ok();
    assert_eq!(world.wg(&["chat", "hello"]).ok().stdout, "done\n");
    world.wg(&["chat", "send", "0", "again"]).ok();
    let events = world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.lines().any(|line| line.contains("\"backoff\""))
    });
    let verdict: Value = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|event| event["event"] == "exited")
        .unwrap();
    let state = world.json(&["chat", "list"])["chats"][0]["state"].clone();
    let why = world.wg(&["why", "0"]).ok().stdout;
    golden::check(
        &world,
        "endings/eagain",
        &format!(
            "--- verdict\n{}\n{}\n{}\n--- state\n{}\n--- why\n{why}",
            verdict["text"].as_str().unwrap(),
            verdict["verdict"]["class"].as_str().unwrap(),
            verdict["verdict"]["evidence"]["stderr"].as_str().unwrap(),
            state.as_str().unwrap(),
        ),
    );
    // A new handler has no such limit: the message was not lost, and is answered once.
    world.wg(&["chat", "resume", "0"]).ok();
    let outbox = world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
        text.lines().count() == 2 && text.ends_with('\n')
    });
    assert!(
        outbox
            .lines()
            .all(|line| line.contains("\"content\":\"done\"")),
        "{outbox}"
    );
    world.stop();
}
