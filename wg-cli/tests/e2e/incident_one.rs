//! Incident 1 as its recipe tells it: a live process that is no handler of ours holds the session of a chat that has a message.
//!
//! The starts of handlers are counted by the kernel's notices about the program's file, not by what the daemon says.

#![expect(
    clippy::disallowed_methods,
    reason = "the time from the holder's end to the answer is measured"
)]

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::StartCounter;
use crate::world::{WG, World};

/// From the end of the holder to the answer.
const PROMISED: Duration = Duration::from_secs(1);

/// The recipe from `cd` to the message; prints the holder's pid.
const RECIPE: &str = r#"
"$WG_BINARY" init >&2; "$WG_BINARY" chat new --id chat-99 >&2
CHAT_DIR=.wg/chat/.chat-99; mkdir -p "$CHAT_DIR"
setsid sleep 600 </dev/null >/dev/null 2>&1 & S=$!
printf '%s\n%s\nchat-nex\n' "$S" "$(date -Iseconds)" > "$CHAT_DIR/.handler.pid"
"$WG_BINARY" chat send chat-99 hello >&2
echo "$S"
"#;

#[test]
fn no_handler_is_started_while_a_live_holder_has_the_session_and_one_answers_at_its_end() {
    // One slow round is the machine's fault, three are ours.
    let rounds: Vec<Duration> = (0..3)
        .scan(false, |met, _| {
            (!*met).then(|| {
                let took = one_round();
                *met = took <= PROMISED;
                took
            })
        })
        .collect();
    assert!(
        rounds.iter().any(|took| *took <= PROMISED),
        "from the holder's end to the answer: {rounds:?}"
    );
}

fn one_round() -> Duration {
    let mut world = World::new();
    world.set("WG_BINARY", WG);
    let holder: i32 = world.sh(RECIPE, b"").stdout.trim().parse().unwrap();

    // Only the service and what it starts use this copy.
    let copy = world.copy_of_wg();
    let starts = StartCounter::of(&copy);
    world
        .program(&copy, &["service", "start", "--max-agents", "0"])
        .ok();
    let held = format!("held by live pid {holder} (chat-nex)");
    world.wait_for_file(".wg/service/daemon.log", |log| log.contains(&held));
    // `wg service start` itself and the daemon.
    assert!(starts.count() <= 2, "{} starts of wg", starts.count());
    let before = starts.count();

    // What used to cause an attempt: another message, a question, a consumer.
    world.wg(&["chat", "send", "chat-99", "hello again"]).ok();
    world
        .wg(&[
            "chat",
            "anybody?",
            "--coordinator",
            "99",
            "--timeout",
            "0.2",
        ])
        .with_code(124);
    let why = world.wg(&["why", "chat-99"]).ok().stdout;
    assert!(
        why.contains(&holder.to_string()),
        "the holder is named:\n{why}"
    );
    assert!(
        why.contains("wg session release chat-99"),
        "the cure is named:\n{why}"
    );
    assert_eq!(world.json(&["chat", "list"])["chats"][0]["state"], "held");
    assert_eq!(starts.count(), before, "an attempt while the holder lives");
    assert!(world.handlers().is_empty(), "{:?}", world.handlers());
    let log = world.read(".wg/service/daemon.log");
    assert_eq!(log.matches(&held).count(), 1, "said once:\n{log}");

    world.wg(&["service", "reload"]).ok();
    assert_eq!(starts.count(), before, "an attempt because of a reload");

    kill(Pid::from_raw(holder), Signal::SIGKILL).unwrap();
    let ended = Instant::now();
    world.wait_for_file(".wg/chat/.chat-99/outbox.jsonl", |text| {
        text.ends_with('\n') && text.contains("hello")
    });
    let took = ended.elapsed();
    assert!(starts.count() > before, "the answer came from a handler");
    world.stop();
    took
}

#[test]
fn a_holder_that_leaves_hands_over_and_everything_that_was_said_is_answered_once() {
    let mut world = World::new();
    world.set("WG_BINARY", WG);
    let holder: i32 = world.sh(RECIPE, b"").stdout.trim().parse().unwrap();
    world.wg(&["service", "start"]).ok();
    for n in 2..=5 {
        world
            .wg(&["chat", "send", "chat-99", &format!("message {n}")])
            .ok();
    }
    kill(Pid::from_raw(holder), Signal::SIGTERM).unwrap();
    let outbox = world.wait_for_file(".wg/chat/.chat-99/outbox.jsonl", |text| {
        text.ends_with('\n') && text.lines().count() >= 5
    });
    let replies: Vec<serde_json::Value> = outbox
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let contents: Vec<&str> = replies
        .iter()
        .map(|reply| reply["content"].as_str().unwrap())
        .collect();
    assert_eq!(
        contents,
        ["hello", "message 2", "message 3", "message 4", "message 5"]
    );
    world.stop();
}
