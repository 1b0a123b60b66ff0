//! Processes that a signal stopped: the service, a handler, an agent, in each of their states. Nobody hangs on one, nobody is silent about
//! one, and the same sentence with the same cure is told everywhere.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde_json::Value;

use crate::held_files::lock;
use crate::process::{Process, go_on, stand_still, wait_gone};
use crate::terminal::Terminal;
use crate::world::{Done, WG, World, until};

/// An agent that says by a file that it is at work, and then sleeps.
const SLEEPY: &str = "read -r word; echo $word >>busy; exec sleep 600";

/// So long that no test sees its end.
const ENDLESS_GRACE: &str = "[service]\nstop_grace = \"1h\"\n";

/// A world with these settings, in which the service runs and the first chat answers `hello` with it.
fn answered(settings: &str) -> World {
    let world = World::with_workspace();
    fs::write(world.path(".wg/config.toml"), settings).unwrap();
    assert_eq!(world.wg(&["up", "hello"]).ok().stdout, "hello\n");
    // The reply is there before its handler has done with it; until then that has files which others want.
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.contains("turn_finished")
    });
    world
}

/// As [`answered`], with an agent that is at its first message.
fn in_a_turn(settings: &str) -> World {
    let world = World::with_workspace();
    fs::write(world.path(".wg/config.toml"), settings).unwrap();
    world.wg(&["chat", "new", "--command", SLEEPY]).ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "send", "0", "hello"]).ok();
    world.wait_for_file("busy", |text| text.ends_with('\n'));
    world
}

fn handler(world: &World) -> i32 {
    let handlers = world.handlers();
    assert_eq!(handlers.len(), 1, "{handlers:?}");
    handlers[0].pid
}

/// The agent once it is the program that it becomes.
fn agent(world: &World) -> i32 {
    let is_it = |process: &Process| process.command_line.first().is_some_and(|it| it == "sleep");
    let mut found = None;
    until("the agent", || {
        found = world.processes().into_iter().find(is_it);
        found.is_some()
    });
    found.unwrap().pid
}

/// What is said of a service that was stopped, and what helps.
fn of_the_service(pid: i32) -> [String; 2] {
    [
        format!("the service (pid {pid}) was stopped by a signal and does not answer"),
        format!("(kill -CONT {pid} lets it go on; wg service stop --force ends it)"),
    ]
}

#[track_caller]
fn told(done: &Done, code: i32, wanted: &[String]) {
    done.with_code(code);
    for text in wanted {
        assert!(done.stderr.contains(text), "{text}: {done:?}");
    }
}

#[test]
fn every_verb_says_of_a_service_that_stands_still_what_lets_it_go_on() {
    let world = answered("");
    let service = world.daemon_pid();
    stand_still(service);
    let said = of_the_service(service);
    for verb in [
        &["up", "again"][..],
        &["service", "status", "--check"],
        &["service", "start"],
        &["service", "restart"],
        &["service", "stop"],
        &["service", "reload"],
        &["service", "pause"],
        &["service", "purge-chats"],
        &["chat", "list"],
        &["chat", "show", "0"],
        &["chat", "new"],
        &["chat", "send", "0", "again"],
        &["chat", "again"],
        &["chat", "stop", "0"],
        &["chat", "interrupt", "0"],
        &["chat", "archive", "0"],
        &["session", "release", "0"],
        &["session", "takeover", "0", "--force"],
        &["why"],
        &["why", "0"],
    ] {
        let done = world.wg(verb);
        told(&done, 69, &said);
        assert!(done.stdout.is_empty(), "{done:?}");
    }
    let checked = world.wg(&["doctor"]).with_code(1);
    assert!(checked.stdout.contains(&said[0]), "{checked:?}");
    let cure = format!("kill -CONT {service}");
    assert!(checked.stdout.contains(&cure), "{checked:?}");
    let finding = &world.wg(&["doctor", "--json"]).with_code(1).json()["findings"][0];
    assert_eq!(finding["text"], said[0], "{finding}");
    // Reading files asks nobody.
    world.wg(&["chat", "read", "0"]).ok();
    world.wg(&["session", "status", "0"]).ok();
    go_on(service);
    assert_eq!(world.wg(&["chat", "again"]).ok().stdout, "again\n");
    // Of all that was refused nothing was done later.
    let row = &world.json(&["chat", "list", "--all"])["chats"];
    assert_eq!(row.as_array().unwrap().len(), 1, "{row}");
    world.stop();
}

#[test]
fn a_timeout_holds_for_everything_that_a_verb_does() {
    let world = answered("");
    let service = world.daemon_pid();
    let soon = ["up", "--timeout", "0.1", "again"];
    stand_still(service);
    told(&world.wg(&soon), 124, &of_the_service(service));
    go_on(service);
    world.stop();
    // One that listens and never says anything.
    let listener = UnixListener::bind(world.path(".wg/service/daemon.sock")).unwrap();
    for verb in [&soon[..], &["chat", "--timeout", "0.1", "again"]] {
        let done = world.wg(verb);
        told(&done, 124, &["could not be asked in time".to_owned()]);
    }
    drop(listener);
}

#[test]
fn a_service_that_stands_still_in_a_turn_is_ended_by_force_without_any_grace() {
    let world = in_a_turn(ENDLESS_GRACE);
    let before = world.handlers();
    stand_still(world.daemon_pid());
    let stopped = world.json(&["service", "stop", "--force"]);
    assert_eq!(stopped["handlers_ended"], 1, "{stopped}");
    assert_eq!(stopped["survivors"], serde_json::json!([]), "{stopped}");
    assert!(world.processes().is_empty(), "{:?}", world.processes());
    for handler in before {
        wait_gone(handler.pid);
    }
    for file in ["daemon.sock", "state.json"] {
        assert!(!world.path(".wg/service").join(file).exists(), "{file}");
    }
}

#[test]
fn a_service_that_is_stopped_while_it_ends_is_told_of_and_ended_by_force() {
    let world = in_a_turn(ENDLESS_GRACE);
    let service = world.daemon_pid();
    let stop = world.start(&["service", "stop"]);
    world.wait_for_file(".wg/chat/.chat-0/.handler.release-requested", |_| true);
    stand_still(service);
    told(&stop.finish(), 69, &of_the_service(service)[..1]);
    world.wg(&["service", "stop", "--force"]).ok();
    assert!(world.processes().is_empty(), "{:?}", world.processes());
}

#[test]
fn whoever_has_the_workspace_and_stands_still_before_it_listens_is_no_service_that_is_down() {
    let world = answered("");
    world.stop();
    // It has the service's lock, and waits for a file.
    let mut file = lock(&world, ".wg/service/coordinator-state-0.json.lock");
    let purge = world.start(&["service", "purge-chats"]);
    let pid = purge.pid().to_string();
    world.wait_for_file(".wg/service/.handler.pid", |text| {
        text.lines().next() == Some(&pid)
    });
    stand_still(purge.pid());
    let said = of_the_service(purge.pid());
    for verb in [
        &["up", "hello"][..],
        &["service", "status"],
        &["service", "start"],
        &["service", "stop"],
        &["chat", "list"],
        &["chat", "stop", "0"],
        &["why", "0"],
    ] {
        told(&world.wg(verb), 69, &said);
    }
    go_on(purge.pid());
    file.hang_up();
    file.finish().ok();
    // Its own time for the file may be over.
    purge.finish();
}

#[test]
fn a_service_whose_queue_of_connections_is_full_keeps_nobody() {
    let world = answered("");
    let service = world.daemon_pid();
    stand_still(service);
    let place = UnixAddr::new(&world.path(".wg/service/daemon.sock")).unwrap();
    let mut waiting = Vec::new();
    loop {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        match connect(fd.as_raw_fd(), &place) {
            Ok(()) => waiting.push(UnixStream::from(fd)),
            Err(error) => {
                assert_eq!(error, Errno::EAGAIN);
                break;
            }
        }
    }
    told(&world.wg(&["chat", "list"]), 69, &of_the_service(service));
    world.wg(&["service", "stop", "--force"]).ok();
    drop(waiting);
}

/// Everything that tells of chats tells of this process, in the same words and with what lets it go on.
#[track_caller]
fn is_told_everywhere(world: &World, pid: i32, who: &str) {
    let sentence = format!("{who} was stopped by a signal and does nothing");
    let cure = format!("kill -CONT {pid}");
    for verb in [
        &["service", "status"][..],
        &["chat", "list"],
        &["chat", "show", "0"],
        &["why"],
        &["why", "0"],
    ] {
        let text = world.wg(verb).ok().stdout;
        assert!(text.contains(&sentence), "{verb:?}: {text}");
        assert!(text.contains(&cure), "{verb:?}: {text}");
    }
    let checked = world.wg(&["doctor"]).with_code(1).stdout;
    assert!(
        checked.contains(&sentence) && checked.contains(&cure),
        "{checked}"
    );
    for document in [
        world.json(&["service", "status"])["chats"][0].clone(),
        world.json(&["chat", "list"])["chats"][0].clone(),
        world.json(&["chat", "show", "0"]),
    ] {
        let found = document["stands_still"].as_array().unwrap();
        let is_it = |one: &&Value| one["pid"] == pid;
        let one = found
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("{document}"));
        assert_eq!(one["text"], sentence, "{one}");
        assert_eq!(one["cure"], cure, "{one}");
    }
    let why = &world.json(&["why"])[0];
    let facts = why["facts"].as_array().unwrap();
    assert!(facts.iter().any(|fact| fact["text"] == sentence), "{why}");
    let findings = world.wg(&["doctor", "--json"]).with_code(1).json();
    let found = findings["findings"].as_array().unwrap();
    let of_chat = format!("chat-0: {sentence}");
    assert!(found.iter().any(|one| one["text"] == of_chat), "{findings}");
}

#[test]
fn a_handler_that_stands_still_is_told_of_everywhere_and_cannot_be_interrupted() {
    for with_service in [true, false] {
        let world = in_a_turn("");
        if !with_service {
            world.wg(&["service", "stop", "--keep-handlers"]).ok();
        }
        let handler = handler(&world);
        stand_still(handler);
        let who = format!("pid {handler}");
        is_told_everywhere(&world, handler, &who);
        let sentence = format!("{who} was stopped by a signal and does nothing");
        for verb in [&["session", "status", "0"][..], &["session", "list"]] {
            let text = world.wg(verb).ok().stdout;
            assert!(text.contains(&sentence), "{text}");
        }
        let released = world.wg(&["session", "release", "0", "--wait", "0.1"]);
        told(&released, 75, std::slice::from_ref(&sentence));
        told(
            &world.wg(&["chat", "interrupt", "0"]),
            69,
            &[
                sentence,
                format!("(kill -CONT {handler} lets it go on, and the turn ends then)"),
            ],
        );
        go_on(handler);
        world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
            text.contains("interrupted")
        });
        world.stop();
    }
}

#[test]
fn an_agent_that_stands_still_is_told_of_everywhere_and_its_turn_can_be_interrupted() {
    let world = in_a_turn(ENDLESS_GRACE);
    let agent = agent(&world);
    stand_still(agent);
    let who = format!("pid {agent} (sleep), below its handler,");
    is_told_everywhere(&world, agent, &who);
    let interrupted = world.json(&["chat", "interrupt", "0"]);
    assert_eq!(interrupted["changed"], true, "{interrupted}");
    wait_gone(agent);
    world.stop();
}

#[test]
fn a_handler_that_stands_still_hears_that_its_chat_is_to_stop() {
    let world = answered(ENDLESS_GRACE);
    let idle = handler(&world);
    stand_still(idle);
    world.wg(&["chat", "stop", "0"]).ok();
    wait_gone(idle);
    world.wg(&["chat", "resume", "0"]).ok();
    assert_eq!(world.wg(&["chat", "again"]).ok().stdout, "again\n");
    stand_still(handler(&world));
    world.stop();
}

#[test]
fn whoever_waits_for_a_reply_is_told_who_stands_still() {
    let world = answered("");
    let handler = handler(&world);
    stand_still(handler);
    let mut asking = world.command(WG);
    asking
        .args(["chat", "again"])
        .stdout(File::create(world.path("reply")).unwrap())
        .stderr(File::create(world.path("notes")).unwrap());
    let mut asking = asking.spawn().unwrap();
    let line = format!(
        "chat-0: pid {handler} was stopped by a signal and does nothing (kill -CONT {handler} lets it go on)\n"
    );
    world.wait_for_file("notes", |text| text == line);
    let late = world.wg(&["chat", "--timeout", "0.1", "late"]);
    told(
        &late,
        124,
        &[
            format!("not answered in time: pid {handler} was stopped by a signal"),
            format!("(kill -CONT {handler} lets it go on; wg chat read chat-0)"),
        ],
    );
    go_on(handler);
    assert!(asking.wait().unwrap().success());
    assert_eq!(world.read("reply"), "again\n");
    // Once, however long it stood still.
    assert_eq!(world.read("notes"), line);
    world.stop();
}

#[test]
fn whoever_is_attached_is_told_who_stands_still() {
    let world = answered("");
    let handler = handler(&world);
    let mut screen = Terminal::start(&world, &["chat", "attach", "0"], 120);
    screen.shows("> ");
    stand_still(handler);
    screen.types("again\n");
    screen.shows(&format!("kill -CONT {handler} lets it go on"));
    go_on(handler);
    screen.shows("again");
    screen.shows("> ");
    screen.types("\x04");
    screen.ends_with(0);
    world.stop();
}

#[test]
fn whoever_is_kept_out_by_a_holder_that_stands_still_is_told_what_lets_that_one_go_on() {
    let world = answered("");
    let stopped = |pid: i32| {
        format!(
            "; pid {pid} was stopped by a signal and does nothing (kill -CONT {pid} lets it go on)"
        )
    };
    let handler = handler(&world);
    stand_still(handler);
    told(
        &world.wg(&["nex", "--chat", "0", "hi"]),
        75,
        &[stopped(handler)],
    );
    go_on(handler);
    let command = ["sh", "-c", ": >begun; read -r word"];
    let run = ["lock", "run", "--dir", "home-of-work", "--"];
    fs::create_dir(world.path(run[3])).unwrap();
    let mut holder = world.start(&[&run[..], &command].concat());
    world.wait_for_file("begun", |_| true);
    stand_still(holder.pid());
    let sentence = stopped(holder.pid());
    let status = world.wg(&["lock", "status", run[3]]).ok();
    assert!(status.stdout.contains(&sentence), "{status:?}");
    let kept_out = world.wg(&[&run[..], &["true"]].concat());
    told(&kept_out, 75, std::slice::from_ref(&sentence));
    let asked = world.wg(&["lock", "release", run[3], "--wait", "0.1"]);
    told(&asked, 75, &[sentence]);
    go_on(holder.pid());
    holder.hang_up();
    holder.finish();
    world.stop();
}
