//! One daemon after another: upgrades, SIGUSR1, many starts at once, and handlers that go on in the middle of a turn.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::wait_gone;
use crate::world::{Running, WG, World};

/// A chat whose turn has begun and waits for a word in the file `go`.
fn in_a_turn(world: &World, wg: &std::path::Path) -> i32 {
    let agent = world.script(
        "agent.sh",
        "#!/bin/sh\nread -r heard\necho begun\nmkfifo go 2>/dev/null; read -r word < go\necho \"$heard $word\"\n",
    );
    world
        .wg(&["chat", "new", "--command", agent.to_str().unwrap()])
        .ok();
    world.program(wg, &["service", "start"]).ok();
    world.wg(&["chat", "send", "0", "hello"]).ok();
    world.wait_for_file(".wg/chat/.chat-0/.streaming", |text| text.contains("begun"));
    handler(world)
}

/// The process that serves the chat.
fn handler(world: &World) -> i32 {
    let shown = world.json(&["chat", "show", "0"]);
    i32::try_from(shown["pid"].as_i64().unwrap()).unwrap()
}

/// Lets the turn end; there is exactly one reply.
#[track_caller]
fn is_answered_once(world: &World) {
    world.sh("echo there > go", b"");
    let outbox = world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| text.ends_with('\n'));
    assert_eq!(outbox.lines().count(), 1, "{outbox}");
    assert!(outbox.contains("hello there"), "{outbox}");
}

#[test]
fn an_upgraded_program_takes_over_from_the_former_one_in_the_middle_of_a_turn() {
    let world = World::with_workspace();
    let former = world.copy_of_wg();
    let pid = in_a_turn(&world, &former);
    // The upgrade: the file is another one from here on, under the same name.
    world.sh(
        &format!("rm '{0}' && cp '{WG}' '{0}'", former.display()),
        b"",
    );
    let daemon = world.daemon_pid();
    world.program(&former, &["service", "restart"]).ok();
    assert_ne!(world.daemon_pid(), daemon);
    assert_eq!(handler(&world), pid, "adopted in its turn");
    is_answered_once(&world);
    world.stop();
}

#[test]
fn a_program_whose_file_is_gone_still_starts_its_handlers() {
    let world = World::with_workspace();
    let copy = world.copy_of_wg();
    world.program(&copy, &["service", "start"]).ok();
    world.wg(&["chat", "new"]).ok();
    world.sh(&format!("rm '{}'", copy.display()), b"");
    assert_eq!(world.wg(&["chat", "hello"]).ok().stdout, "hello\n");
    world.stop();
}

#[test]
fn a_daemon_that_is_told_by_usr1_leaves_its_handlers_to_the_next_one() {
    let world = World::with_workspace();
    let pid = in_a_turn(&world, std::path::Path::new(WG));
    let daemon = world.daemon_pid();
    kill(Pid::from_raw(daemon), Signal::SIGUSR1).unwrap();
    wait_gone(daemon);
    assert!(world.handlers().iter().any(|process| process.pid == pid));
    world.wg(&["service", "start"]).ok();
    assert_eq!(handler(&world), pid);
    is_answered_once(&world);
    world.stop();
}

#[test]
fn of_twenty_starts_at_once_one_daemon_comes_and_every_one_ends_well() {
    let world = World::with_workspace();
    let starts: Vec<Running> = (0..20)
        .map(|_| world.start(&["service", "start", "--json"]))
        .collect();
    let pids: Vec<String> = starts
        .into_iter()
        .map(|start| start.finish().ok().json()["pid"].to_string())
        .collect();
    let daemon = world.daemon_pid().to_string();
    assert!(pids.iter().all(|pid| *pid == daemon), "{daemon}: {pids:?}");
    assert_eq!(world.processes().len(), 1, "{:?}", world.processes());
    world.stop();
}

#[test]
fn a_stop_gives_the_turn_its_grace_and_a_forced_one_does_not() {
    for force in [false, true] {
        let world = World::with_workspace();
        std::fs::write(
            world.path(".wg/config.toml"),
            "[service]\nstop_grace = \"60s\"\n",
        )
        .unwrap();
        in_a_turn(&world, std::path::Path::new(WG));
        if force {
            world.wg(&["service", "stop", "--force"]).ok();
            assert_eq!(world.processes().len(), 0);
        } else {
            let mut stop = world.start(&["service", "stop"]);
            stop.hang_up();
            // It is asked for its session and finishes its turn first.
            world.wait_for_file(".wg/service/events.jsonl", |text| {
                text.contains("release_requested")
            });
            is_answered_once(&world);
            stop.finish().ok();
            assert_eq!(world.processes().len(), 0);
        }
        world.stop();
    }
}

#[test]
fn a_signal_ends_the_service_as_a_stop_does_and_a_second_one_hurries() {
    for (first, second) in [
        (Signal::SIGTERM, None),
        (Signal::SIGINT, None),
        (Signal::SIGTERM, Some(Signal::SIGINT)),
        (Signal::SIGINT, Some(Signal::SIGTERM)),
    ] {
        let world = World::with_workspace();
        std::fs::write(
            world.path(".wg/config.toml"),
            "[service]\nstop_grace = \"600s\"\n",
        )
        .unwrap();
        in_a_turn(&world, std::path::Path::new(WG));
        let daemon = world.daemon_pid();
        kill(Pid::from_raw(daemon), first).unwrap();
        world.wait_for_file(".wg/service/events.jsonl", |text| {
            text.contains("release_requested")
        });
        match second {
            None => is_answered_once(&world),
            Some(second) => kill(Pid::from_raw(daemon), second).unwrap(),
        }
        wait_gone(daemon);
        assert_eq!(world.processes().len(), 0, "{first}, {second:?}");
        world.stop();
    }
}

#[test]
fn while_the_service_ends_no_chat_is_said_to_be_stopped_by_a_person() {
    let world = World::with_workspace();
    std::fs::write(
        world.path(".wg/config.toml"),
        "[service]\nstop_grace = \"600s\"\n",
    )
    .unwrap();
    in_a_turn(&world, std::path::Path::new(WG));
    world.wg(&["chat", "new", "--agent", "echo"]).ok();
    let daemon = world.daemon_pid();
    kill(Pid::from_raw(daemon), Signal::SIGTERM).unwrap();
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.contains("release_requested")
    });
    let chats = world.json(&["chat", "list"])["chats"].clone();
    assert_eq!(chats[1]["state"], "dormant", "{chats}");
    let sent = world.json(&["chat", "send", "1", "too late?"]);
    let note = sent["note"].as_str().unwrap();
    assert!(note.contains("wg service start"), "{note}");
    is_answered_once(&world);
    wait_gone(daemon);
    world.wg(&["service", "start"]).ok();
    world.wait_for_file(".wg/chat/.chat-1/outbox.jsonl", |text| {
        text.contains("too late?")
    });
    world.stop();
}
