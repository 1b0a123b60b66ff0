//! Turns that a daemon gives out, and directories that agents do not share.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot do its part is a failed test"
)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use serde_json::{Value, json};
use session_lock::{DirLock, Kind};
use wg_cli::exit_code::ExitCode;
use wg_cli::store::messages::Role;

use crate::world::{LOST, World, wait_readable};

/// The daemon's end of the socket, as far as a handler's turns are concerned.
struct Daemon {
    listener: UnixListener,
}

/// A handler's connection to it.
struct Connection {
    reader: BufReader<UnixStream>,
}

impl Daemon {
    fn of(world: &World) -> Self {
        world.workspace.ensure_service_dir().unwrap();
        Self {
            listener: UnixListener::bind(world.workspace.socket_path().unwrap()).unwrap(),
        }
    }

    fn accept(&self) -> Connection {
        wait_readable(&self.listener);
        let stream = self.listener.accept().unwrap().0;
        stream.set_read_timeout(Some(LOST)).unwrap();
        Connection {
            reader: BufReader::new(stream),
        }
    }
}

impl Connection {
    /// Returns the next request that is not a sign of life.
    ///
    /// As a daemon of an earlier version it does not know how to wake a handler, which then watches for itself.
    fn request(&mut self) -> (String, u64) {
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).unwrap();
            let request: Value = serde_json::from_str(&line).unwrap();
            let verb = request["cmd"].as_str().unwrap().to_owned();
            assert_eq!(request["chat_id"], 0);
            if verb == "listen" {
                self.say(&json!({ "ok": false, "error": "Invalid request: unknown variant" }));
                continue;
            }
            if verb != "turn_progress" {
                return (verb, request["message_id"].as_u64().unwrap());
            }
        }
    }

    fn say(&mut self, line: &Value) {
        writeln!(self.reader.get_mut(), "{line}").unwrap();
    }

    fn grant(&mut self, message: u64) {
        self.say(&json!({ "event": "turn_granted", "chat_id": 0, "message_id": message }));
    }
}

#[test]
fn a_turn_waits_for_the_daemons_leave_and_is_given_back_after_its_answer() {
    let world = World::with_script("test -e $D/granted && exec cat; echo too early");
    let daemon = Daemon::of(&world);
    let (first, second) = (world.send("first"), world.send("second"));
    let handler = world.handler();
    let mut connection = daemon.accept();
    assert_eq!(connection.request(), ("turn_begin".to_owned(), first));
    connection.say(&json!({ "ok": true, "queued": true, "ahead": 0 }));
    assert!(
        !world.session.join(".turn.json").exists(),
        "a turn that waits is no attempt"
    );
    std::fs::write(world.path("granted"), "").unwrap();
    connection.grant(first);
    assert_eq!(connection.request(), ("turn_end".to_owned(), first));
    assert_eq!(world.answer_to(first).content, "first");
    connection.say(&json!({ "ok": true }));

    assert_eq!(connection.request(), ("turn_begin".to_owned(), second));
    connection.grant(second);
    assert_eq!(world.answer_to(second).content, "second");
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
}

#[test]
fn a_daemon_that_goes_away_or_refuses_is_done_without() {
    let world = World::with_agent(&["cat"]);
    let daemon = Daemon::of(&world);
    let id = world.send("first");
    let handler = world.handler();
    let mut connection = daemon.accept();
    assert_eq!(connection.request().0, "turn_begin");
    connection.say(&json!({ "ok": true, "queued": true, "ahead": 3 }));
    drop(connection);
    assert_eq!(world.answer_to(id).content, "first");

    let id = world.send("second");
    let mut connection = daemon.accept();
    while connection.request().0 != "turn_begin" {}
    connection.say(&json!({ "ok": false, "error": "not today" }));
    assert_eq!(world.answer_to(id).content, "second");
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
}

#[test]
fn a_stop_or_a_release_takes_a_waiting_turn_back() {
    for stop in [true, false] {
        let world = World::with_agent(&["cat"]);
        let daemon = Daemon::of(&world);
        let id = world.send("hello");
        let handler = world.handler();
        let mut connection = daemon.accept();
        assert_eq!(connection.request().0, "turn_begin");
        connection.say(&json!({ "ok": true, "queued": true, "ahead": 1 }));
        if stop {
            handler.signal("TERM");
        } else {
            session_lock::request_release(&world.session).unwrap();
        }
        assert_eq!(connection.request(), ("turn_end".to_owned(), id));
        handler.leaves_with(ExitCode::Released);
        assert_eq!((world.unanswered(), world.outbox()), (vec![id], Vec::new()));
        assert!(!world.session.join(".turn.json").exists());
    }
}

#[test]
fn an_interrupt_takes_a_waiting_message_back_and_says_so() {
    let world = World::with_agent(&["cat"]);
    let daemon = Daemon::of(&world);
    let id = world.send("hello");
    let handler = world.handler();
    let mut connection = daemon.accept();
    assert_eq!(connection.request().0, "turn_begin");
    handler.signal("INT");
    let answer = world.answer_to(id);
    assert_eq!(answer.role, Role::SystemError);
    assert!(answer.content.contains("taken back"), "{}", answer.content);
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
}

#[test]
fn a_daemon_that_comes_back_in_a_turn_is_told_of_it() {
    let world = World::with_script("cat $D/gate");
    world.fifo("gate");
    let id = world.send("hello");
    let daemon = Daemon::of(&world);
    let handler = world.handler();
    let mut connection = daemon.accept();
    assert_eq!(connection.request().0, "turn_begin");
    connection.grant(id);
    world.wait_until("running turn", || world.session.join(".turn.json").exists());
    drop((connection, daemon));
    std::fs::remove_file(world.workspace.socket_path().unwrap()).unwrap();

    let daemon = Daemon::of(&world);
    let mut connection = daemon.accept();
    assert_eq!(connection.request(), ("turn_resume".to_owned(), id));
    connection.say(&json!({ "ok": true, "resumed": true }));
    world.open_gate("gate");
    assert_eq!(connection.request(), ("turn_end".to_owned(), id));
    assert_eq!(world.answer_to(id).content, "go");

    // Between turns it is looked for again, at the latest when the next turn is asked for.
    drop((connection, daemon));
    std::fs::remove_file(world.workspace.socket_path().unwrap()).unwrap();
    let daemon = Daemon::of(&world);
    let id = world.send("again");
    let mut connection = daemon.accept();
    assert_eq!(connection.request(), ("turn_begin".to_owned(), id));
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
}

#[test]
fn a_turn_that_the_daemon_gives_up_is_interrupted() {
    let world = World::with_script("cat $D/gate");
    world.fifo("gate");
    let daemon = Daemon::of(&world);
    let id = world.send("hello");
    let handler = world.handler();
    let mut connection = daemon.accept();
    assert_eq!(connection.request().0, "turn_begin");
    connection.grant(id);
    world.wait_until("running turn", || world.session.join(".turn.json").exists());
    connection.say(&json!({ "event": "turn_cancelled", "chat_id": 0, "message_id": id }));
    assert_eq!(world.answer_to(id).role, Role::SystemError);
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
}

#[test]
fn an_agent_that_shares_its_directory_with_nobody_waits_for_it() {
    let world = World::with_script_and(
        "test -e $D/free && exec cat; echo too early",
        "exclusive = \"dir\"",
        "",
    );
    let registry = world.path("state").join("wg").join("locks");
    std::fs::create_dir_all(&registry).unwrap();
    let lock = DirLock::options(&registry)
        .kind(Kind::Adapter)
        .acquire(&world.path(""))
        .unwrap();
    let id = world.send("hello");
    let mut handler = world.start(
        world
            .wg(&["nex", "--chat", "chat-0"])
            .env("WG_LOG", "info")
            .env("XDG_STATE_HOME", world.path("state")),
    );
    let queued = handler.first_error_line_with("queued: directory held by");
    assert!(
        queued.contains(&format!("held by pid {}", std::process::id())),
        "{queued}"
    );
    std::fs::write(world.path("free"), "").unwrap();
    lock.release().unwrap();
    assert_eq!(world.answer_to(id).content, "hello");
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
}
