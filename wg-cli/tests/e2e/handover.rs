//! A session that goes from a handler to a person and back.

use std::fs;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::process::{go_on, killed, stand_still};
use crate::world::{Running, World};

/// A chat whose handler has answered and stays; after a release the daemon would keep away for an hour.
fn answered() -> World {
    let world = World::with_workspace();
    fs::write(
        world.path(".wg/config.toml"),
        "[supervisor]\nrelease_pause = \"1h\"\n",
    )
    .unwrap();
    assert_eq!(world.wg(&["up", "hello"]).ok().stdout, "hello\n");
    world
}

/// A handler that a person started, when it has the session.
fn person(world: &World) -> Running {
    let person = world.start(&["nex", "--chat", "0"]);
    let pid = person.pid().to_string();
    world.wait_for_file(".wg/chat/.chat-0/.handler.pid", |text| {
        text.lines().next() == Some(&pid)
    });
    person
}

fn events(world: &World) -> Vec<Value> {
    let text = world.read(".wg/service/events.jsonl");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn the_hold_off_lasts_until_somebody_takes_the_session_and_its_end_brings_the_service_back() {
    let world = answered();
    let handler = world.json(&["session", "status", "0"])["holder"]["pid"].clone();
    world.wg(&["session", "release", "0", "--wait", "60"]).ok();
    let person = person(&world);
    let pid = person.pid();
    let holds = format!("held by live pid {pid} (chat-nex)");
    world.wait_for_file(".wg/service/events.jsonl", |text| text.contains(&holds));
    assert_eq!(world.json(&["chat", "list"])["chats"][0]["state"], "held");
    let told: Vec<(String, Value)> = events(&world)
        .iter()
        .filter(|event| {
            ["release_requested", "taken_over"].contains(&event["event"].as_str().unwrap())
        })
        .map(|event| {
            (
                event["event"].as_str().unwrap().to_owned(),
                event["pid"].clone(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("release_requested".to_owned(), handler),
            ("taken_over".to_owned(), Value::from(pid)),
        ]
    );
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    person.finish();
    assert_eq!(
        world.wg(&["chat", "are you back?"]).ok().stdout,
        "are you back?\n"
    );
    world.stop();
}

#[test]
fn a_released_session_that_nobody_takes_is_kept_free_and_a_message_waits() {
    let world = answered();
    world.wg(&["session", "release", "0", "--wait", "60"]).ok();
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.contains("(release 1)")
    });
    let started = || {
        world
            .read(".wg/service/events.jsonl")
            .matches("\"spawned\"")
            .count()
    };
    assert_eq!(started(), 1);
    world.wg(&["chat", "send", "0", "wait for it"]).ok();
    let why = world.wg(&["why", "0"]).ok().stdout;
    assert!(why.contains("(release 1)"), "{why}");
    assert_eq!(started(), 1);
    // Whoever does not want to wait says so.
    world.wg(&["chat", "resume", "0"]).ok();
    world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
        text.contains("wait for it")
    });
    world.stop();
}

#[test]
fn without_a_terminal_a_held_chat_is_not_waited_for_and_its_holder_is_named() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    let person = person(&world);
    let pid = person.pid();
    let wg = crate::world::WG;
    for stdin in ["</dev/null", "<&-", "| cat | "] {
        let command = match stdin.strip_prefix('|') {
            Some(_) => format!("echo hello | '{wg}' nex --chat 0"),
            None => format!("'{wg}' nex --chat 0 {stdin}"),
        };
        let refused = world.sh_unchecked(&command).with_code(75);
        assert!(
            refused.stderr.contains(&format!("pid={pid}")),
            "{command}: {}",
            refused.stderr
        );
        assert!(
            !world
                .path(".wg/chat/.chat-0/.handler.release-requested")
                .exists(),
            "{command}: nobody is asked to leave for somebody who does not wait"
        );
    }
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    person.finish();
    world.stop();
}

#[test]
fn a_takeover_that_comes_to_nothing_delays_no_start_and_its_cure_is_the_one_that_works() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    let holder = "mkdir -p .wg/chat/.chat-0; setsid sleep 600 </dev/null >/dev/null 2>&1 & S=$!
        printf '%s\\n%s\\nchat-nex\\n' $S \"$(date -Iseconds)\" >.wg/chat/.chat-0/.handler.pid; echo $S";
    let holder: i32 = world.sh(holder, b"").stdout.trim().parse().unwrap();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "send", "0", "hello"]).ok();
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.contains("\"event\":\"held\"")
    });
    world.wg(&["session", "takeover", "0"]).with_code(75);
    let why = world.wg(&["why", "0"]).ok().stdout;
    let cure = "wg session takeover chat-0 --allow-unproven";
    assert!(why.contains(cure), "{why}");
    // Its own end, not the cure, which keeps the service away for the person who took the session.
    kill(Pid::from_raw(holder), Signal::SIGKILL).unwrap();
    world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| text.ends_with('\n'));
    let told = world.read(".wg/service/events.jsonl");
    assert!(!told.contains("it was released to a person"), "{told}");
    world.stop();
}

#[test]
fn a_refused_takeover_asks_the_service_nothing_so_that_nobody_elses_release_is_taken_back() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    let holder = "mkdir -p .wg/chat/.chat-0; setsid sleep 600 </dev/null >/dev/null 2>&1 & S=$!
        printf '%s\n%s\nchat-nex\n' $S \"$(date -Iseconds)\" >.wg/chat/.chat-0/.handler.pid; echo $S";
    let holder: i32 = world.sh(holder, b"").stdout.trim().parse().unwrap();
    fs::create_dir_all(world.path(".wg/service")).unwrap();
    let service = UnixListener::bind(world.path(".wg/service/daemon.sock")).unwrap();
    world
        .wg(&["session", "takeover", "0", "--grace", "0"])
        .with_code(75);
    service.set_nonblocking(true).unwrap();
    let nobody = service.accept().map(drop).unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
    killed(holder);
}

/// The handler that serves the chat, which is not `other`.
fn handler_other_than(world: &World, other: i64) -> i64 {
    let text = world.wait_for_file(".wg/chat/.chat-0/.handler.pid", |text| {
        text.lines()
            .next()
            .and_then(|pid| pid.parse::<i64>().ok())
            .is_some_and(|pid| pid != other)
            && text.lines().count() == 3
    });
    text.lines().next().unwrap().parse().unwrap()
}

#[test]
fn a_consumer_of_the_former_daemon_is_one_of_the_next_until_it_goes() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    // As a screen does it: a file whose lock it holds, and a connection.
    let consumers = world.path(".wg/chat/.chat-0/consumers");
    fs::create_dir_all(&consumers).unwrap();
    let file = fs::File::create_new(consumers.join("screen")).unwrap();
    file.lock().unwrap();
    let connection = UnixStream::connect(world.path(".wg/service/daemon.sock")).unwrap();
    writeln!(&connection, r#"{{"cmd":"attach","chat_id":0}}"#).unwrap();
    let first = handler_other_than(&world, 0);
    killed(world.daemon_pid());
    killed(i32::try_from(first).unwrap());
    world.wg(&["service", "start"]).ok();
    let second = handler_other_than(&world, first);
    let is_of_second = |event: &Value| event["event"] == "spawned" && event["pid"] == second;
    // Another thread writes it than the one that starts the handler.
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        let mut lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines.any(|event| is_of_second(&event))
    });
    let spawned = events(&world).into_iter().find(is_of_second).unwrap();
    let text = spawned["text"].as_str().unwrap();
    assert!(text.contains("(consumer)"), "{text}");
    // A purge that spares who is active spares it, with a daemon that never saw it come and without one.
    let spared = serde_json::json!([{"chat_id": 0, "reason": "active"}]);
    let keep = ["service", "purge-chats", "--keep-active", "--dry-run"];
    assert_eq!(world.json(&keep)["skipped"], spared);
    world.wg(&["service", "stop", "--keep-handlers"]).ok();
    let report = world.json(&keep[..3]);
    assert_eq!(report["skipped"], spared, "{report}");
    // Its end is known before anything is decided about the chat again.
    world.wg(&["service", "start"]).ok();
    drop(file);
    fs::remove_file(consumers.join("screen")).unwrap();
    // Told at once.
    let why = world.wg(&["why", "0"]).ok().stdout;
    assert!(!why.contains("1 connected"), "{why}");
    assert_eq!(world.json(&["chat", "show", "0"])["consumers"], 0);
    killed(i32::try_from(second).unwrap());
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.lines()
            .last()
            .is_some_and(|line| line.contains("\"event\":\"idle\""))
    });
    let report = world.json(&keep[..3]);
    assert_eq!(report["purged"][0]["chat_id"], 0, "{report}");
    world.stop();
}

#[test]
fn a_handler_or_holder_that_was_stopped_by_a_signal_is_told_of_with_the_cure() {
    let world = World::with_workspace();
    assert_eq!(world.wg(&["up", "hello"]).ok().stdout, "hello\n");
    let stop = |pid: i32| {
        stand_still(pid);
        let why = world.wg(&["why", "0"]).ok().stdout;
        assert!(
            why.contains(&format!("pid {pid} was stopped by a signal")),
            "{why}"
        );
        assert!(why.contains(&format!("kill -CONT {pid}")), "{why}");
        go_on(pid);
    };
    stop(i32::try_from(handler_other_than(&world, 0)).unwrap());
    assert_eq!(world.wg(&["chat", "again"]).ok().stdout, "again\n");
    world.wg(&["service", "stop"]).ok();
    // With the service down and somebody else there.
    let person = person(&world);
    stop(person.pid());
    kill(Pid::from_raw(person.pid()), Signal::SIGTERM).unwrap();
    person.finish();
    world.stop();
}

#[test]
fn a_session_that_a_person_takes_and_gives_back_forgives_no_crash() {
    let world = World::with_workspace();
    let settings = "[service]\nmax_turns = 2\non_interrupted = \"retry\"\n\
        [supervisor]\nbackoff_first = \"100ms\"\nbackoff_cap = \"1h\"\ncrash_soft = 1\n\
        [agents.patient]\ncommand = [\"sh\", \"-c\", \": >busy; read line <go\"]\n";
    fs::write(world.path(".wg/config.toml"), settings).unwrap();
    world.sh("mkfifo go", b"");
    world.wg(&["chat", "new", "--agent", "patient"]).ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "send", "0", "hello"]).ok();
    let kill_handler = || {
        world.wait_for_file("busy", |_| true);
        fs::remove_file(world.path("busy")).unwrap();
        let handler = world.json(&["session", "status", "0"])["holder"]["pid"].clone();
        killed(i32::try_from(handler.as_i64().unwrap()).unwrap());
    };
    kill_handler();
    world.wait_for_file("busy", |_| true);
    // It is asked to leave at the end of its turn, and crashes instead.
    world.wg(&["session", "release", "0", "--wait", "0"]).ok();
    kill_handler();
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.contains("\"event\":\"degraded\"")
    });
    let person = world.start(&["nex", "--chat", "0", "--agent", "echo"]);
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.contains("\"event\":\"taken_over\"")
    });
    kill(Pid::from_raw(person.pid()), Signal::SIGKILL).unwrap();
    person.finish();
    world.wg(&["chat", "send", "0", "are you back?"]).ok();
    let why = world.json(&["why", "0"])[0].clone();
    assert_eq!(why["state"], "degraded", "{why}");
    let told = world.read(".wg/service/events.jsonl");
    assert_eq!(told.matches("\"event\":\"spawned\"").count(), 2, "{told}");
    assert!(!told.contains("\"event\":\"held\""), "{told}");
    world.stop();
}
