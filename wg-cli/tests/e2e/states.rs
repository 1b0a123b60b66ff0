//! Every state of a chat, brought about end to end, with the words that `wg why` and `wg service status` have for it.
//!
//! `--json` says the same words as the text; what differs from run to run is taken out of both.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::golden;
use crate::process::{Process, wait_gone};
use crate::world::{World, until};

/// An agent that says `busy` by a file and answers once somebody opens `go` for writing, or never.
const PATIENT: &str =
    "[agents.patient]\ncommand = [\"sh\", \"-c\", \": >busy; read line <go; echo done\"]\n";

/// As many turns at once, whatever machine this is.
const TWO_TURNS: &str = "[service]\nmax_turns = 2\n";

/// A workspace with these settings, an agent that waits for a word, and a chat of that agent.
fn world_with(settings: &str) -> World {
    let world = World::with_workspace();
    fs::write(
        world.path(".wg/config.toml"),
        format!("{settings}\n{PATIENT}"),
    )
    .unwrap();
    world.sh("mkfifo go", b"");
    world
        .wg(&["chat", "new", "--agent", "patient", "--name", "alpha"])
        .ok();
    world
}

/// Starts the service and gives the first chat a message; its agent is at work when this returns.
fn busy(world: &World) {
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "send", "alpha", "hello"]).ok();
    world.wait_for_file("busy", |_| true);
}

/// Compares everything that is said about the first chat with the golden text of its state.
#[track_caller]
fn is(world: &World, state: &str) {
    let why = world.wg(&["why", "alpha"]).ok().stdout;
    let document = world.json(&["why", "alpha"])[0].clone();
    assert_eq!(document["state"], state, "{why}");
    let said = golden::normalise(world, &why);
    let words = words(&document);
    assert!(words.len() >= 3, "{document}");
    for text in words {
        let text = golden::normalise(world, &text);
        assert!(said.contains(&text), "`{text}` is only in --json:\n{said}");
    }
    let row = &world.json(&["chat", "list", "--all"])["chats"][0];
    assert_eq!(row["state"], state, "{row}");
    let status = world.wg(&["service", "status"]);
    golden::check(
        world,
        &format!("states/{state}"),
        &format!(
            "--- why\n{why}--- service status (code {})\n{}",
            status.code(),
            status.stdout
        ),
    );
}

/// Everything in the document that a person reads.
fn words(document: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut words: Vec<String> = [&document["headline"], &document["next"]]
        .into_iter()
        .chain([&document["last"]["text"]])
        .filter_map(text)
        .collect();
    for (list, fields) in [
        ("facts", ["label", "text"]),
        ("you_can", ["command", "text"]),
    ] {
        for item in document[list].as_array().unwrap() {
            words.extend(fields.iter().filter_map(|field| text(&item[*field])));
        }
    }
    words
}

/// Lets the agent answer and everything come to its end.
fn let_go(world: &World) {
    world.sh("echo go >go", b"");
    world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| text.ends_with('\n'));
    world.stop();
}

/// The handler of the first chat.
fn handler(world: &World) -> i32 {
    let row = &world.json(&["chat", "list"])["chats"][0];
    let pid = row["pid"].as_i64().unwrap();
    i32::try_from(pid).unwrap()
}

fn kill_handler(world: &World) {
    kill(Pid::from_raw(handler(world)), Signal::SIGKILL).unwrap();
}

fn events(world: &World, kind: &str, at_least: usize) {
    let wanted = format!("\"event\":\"{kind}\"");
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.matches(&wanted).count() >= at_least
    });
}

#[test]
fn dormant_where_no_service_runs() {
    let world = world_with("");
    is(&world, "dormant");
}

#[test]
fn idle_where_nobody_needs_it() {
    let world = world_with("");
    world.wg(&["service", "start"]).ok();
    is(&world, "idle");
    world.stop();
}

#[test]
fn starting_until_its_handler_has_the_session() {
    // A handler that is met too late has the session already.
    assert!((0..50).any(|_| a_handler_that_is_stopped_early_is_starting()));
}

fn a_handler_that_is_stopped_early_is_starting() -> bool {
    let world = world_with("");
    world.wg(&["service", "start"]).ok();
    let handler = caught_early(&world);
    let early = world.json(&["why", "alpha"])[0]["state"] == "starting";
    if early {
        is(&world, "starting");
    }
    kill(Pid::from_raw(handler), Signal::SIGCONT).unwrap();
    world.wait_for_file("busy", |_| true);
    let_go(&world);
    early
}

/// Gives the chat a message and stops its handler as soon as that is the program that it is to be.
fn caught_early(world: &World) -> i32 {
    let daemon = world.daemon_pid();
    let hunter = std::thread::spawn(move || {
        let mut caught = None;
        until("the handler", || {
            caught = children(daemon).into_iter().find(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                line.split(|byte| *byte == 0).any(|word| word == b"nex")
            });
            caught
                .inspect(|pid| kill(Pid::from_raw(*pid), Signal::SIGSTOP).unwrap())
                .is_some()
        });
        caught.unwrap()
    });
    world.wg(&["chat", "send", "alpha", "hello"]).ok();
    hunter.join().unwrap()
}

/// The children of all threads of a process.
fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let lists = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            let pids = list.split_ascii_whitespace();
            pids.filter_map(|pid| pid.parse().ok())
                .collect::<Vec<i32>>()
        })
        .collect()
}

#[test]
fn running_while_it_answers() {
    let world = world_with(TWO_TURNS);
    busy(&world);
    is(&world, "running");
    let_go(&world);
}

#[test]
fn adopted_by_the_daemon_after_the_one_that_started_it() {
    let world = world_with(TWO_TURNS);
    busy(&world);
    let daemon = world.daemon_pid();
    kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
    wait_gone(daemon);
    world.wg(&["service", "start"]).ok();
    // The handler asks the new daemon for the turn that it has as soon as it has found it.
    until("the turn that the handler tells of", || {
        let status = world.wg(&["service", "status"]).ok();
        status.stdout.contains("turn:0")
    });
    is(&world, "adopted");
    let_go(&world);
}

#[test]
fn queued_while_another_chat_has_the_only_turn() {
    let world = world_with("[service]\nmax_turns = 1\n");
    world
        .wg(&["chat", "new", "--agent", "patient", "--name", "beta"])
        .ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "send", "beta", "first"]).ok();
    world.wait_for_file("busy", |_| true);
    world.wg(&["chat", "send", "alpha", "second"]).ok();
    // Its handler is up as soon as it has the session, and asks for a turn a moment later.
    world.wait_for_file(".wg/chat/.chat-0/.handler.pid", |_| true);
    until("the turn to be queued", || {
        world.json(&["why", "alpha"])[0]["state"] == "queued"
    });
    is(&world, "queued");
    world.sh("echo go >go", b"");
    world.wait_for_file(".wg/chat/.chat-1/outbox.jsonl", |text| text.ends_with('\n'));
    let_go(&world);
}

#[test]
fn held_while_a_live_process_has_the_session() {
    let world = world_with("");
    let holder = "mkdir -p .wg/chat/.chat-0; setsid sleep 600 </dev/null >/dev/null 2>&1 & S=$!
        printf '%s\\n%s\\nchat-nex\\n' $S \"$(date -Iseconds)\" >.wg/chat/.chat-0/.handler.pid; echo $S";
    let holder: i32 = world.sh(holder, b"").stdout.trim().parse().unwrap();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "send", "alpha", "hello"]).ok();
    events(&world, "held", 1);
    is(&world, "held");
    kill(Pid::from_raw(holder), Signal::SIGKILL).unwrap();
    world.wait_for_file("busy", |_| true);
    let_go(&world);
}

#[test]
fn backoff_after_its_handler_was_killed() {
    let world = world_with("[supervisor]\nbackoff_first = \"1h\"\nbackoff_cap = \"1h\"\n");
    busy(&world);
    kill_handler(&world);
    events(&world, "backoff", 1);
    is(&world, "backoff");
    world.stop();
}

#[test]
fn degraded_after_too_many_crashes() {
    let settings = "[service]\non_interrupted = \"retry\"\n[supervisor]\nbackoff_first = \"100ms\"\nbackoff_cap = \"1h\"\ncrash_soft = 1\n";
    let world = world_with(settings);
    busy(&world);
    fs::remove_file(world.path("busy")).unwrap();
    kill_handler(&world);
    world.wait_for_file("busy", |_| true);
    kill_handler(&world);
    events(&world, "degraded", 1);
    is(&world, "degraded");
    world.stop();
}

#[test]
fn parked_where_its_agent_cannot_be_started() {
    let world = World::with_workspace();
    let settings = "[agents.gone]\ncommand = [\"/nowhere/agent\"]\n";
    fs::write(world.path(".wg/config.toml"), settings).unwrap();
    world
        .wg(&["chat", "new", "--agent", "gone", "--name", "alpha"])
        .ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "send", "alpha", "hello"]).ok();
    events(&world, "parked", 1);
    is(&world, "parked");
    world.stop();
}

#[test]
fn stopping_until_nobody_is_left() {
    let world = world_with(
        "[service]\nmax_turns = 2\nstop_grace = \"1h\"\n[agents.stubborn]\ncommand = [\"sh\", \"-c\", \"trap '' INT TERM HUP; : >busy; sleep 600; sleep 600\"]\n",
    );
    world
        .wg(&["service", "set-executor", "alpha", "--executor", "stubborn"])
        .ok();
    busy(&world);
    let stop = world.start(&["chat", "stop", "alpha"]);
    world.wait_for_file(".wg/service/coordinator-state-0.json", |text| {
        text.contains("\"stopped_at\":\"")
    });
    is(&world, "stopping");
    for agent in stubborn(&world) {
        agent.end();
    }
    stop.finish().ok();
    is(&world, "stopped");
    world.stop();
}

/// The processes of the agent that hears no signal.
fn stubborn(world: &World) -> Vec<Process> {
    let all = world.processes().into_iter();
    all.filter(|process| {
        process
            .command_line
            .iter()
            .any(|word| word.contains("trap ''") || word == "sleep")
    })
    .collect()
}

#[test]
fn archived_and_purged_by_a_person() {
    let world = world_with("");
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "archive", "alpha"]).ok();
    is(&world, "archived");
    world.wg(&["chat", "restore", "alpha"]).ok();
    world.wg(&["service", "purge-chats"]).ok();
    is(&world, "purged");
    world.stop();
}

#[test]
fn the_daemon_raises_its_limit_of_open_files_and_its_agents_keep_the_former_one() {
    let world = World::with_workspace();
    let settings = "[agents.limit]\ncommand = [\"sh\", \"-c\", \"ulimit -S -n; cat >rest\"]\n";
    fs::write(world.path(".wg/config.toml"), settings).unwrap();
    world.wg(&["chat", "new", "--agent", "limit"]).ok();
    let start = format!("ulimit -S -n 256; '{}' service start", crate::world::WG);
    world.sh(&start, b"");
    assert_eq!(world.wg(&["chat", "how many?"]).ok().stdout, "256\n");
    let limits = fs::read_to_string(format!("/proc/{}/limits", world.daemon_pid())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words: Vec<&str> = line.unwrap().split_ascii_whitespace().collect();
    assert_eq!(words[3], words[4], "{limits}");
    assert_ne!(words[3], "256");
    world.stop();
}
