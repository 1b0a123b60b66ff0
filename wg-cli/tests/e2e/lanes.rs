//! Who may run and who waits for what: turns, commands and starts on their lanes. Where a test is a handler itself, it speaks the
//! daemon's protocol over a connection of its own, so that it knows when each line was understood.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::golden;
use crate::process::{Process, wait_gone};
use crate::world::{WATCHDOG, World};

/// A connection as a handler has one.
struct Connection {
    reader: BufReader<UnixStream>,
    /// Events that came before the reply to what was asked.
    early: VecDeque<Value>,
}

impl Connection {
    fn to(world: &World) -> Self {
        let stream = UnixStream::connect(world.path(".wg/service/daemon.sock")).unwrap();
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        Self {
            reader: BufReader::new(stream),
            early: VecDeque::new(),
        }
    }

    fn send(&mut self, request: &Value) {
        writeln!(self.reader.get_mut(), "{request}").unwrap();
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// Asks for something about message 1 of a chat.
    fn ask(&mut self, verb: &str, chat: u32) -> Value {
        self.send(&json!({ "cmd": verb, "chat_id": chat, "message_id": 1 }));
        let mut reply = self.line();
        while reply.get("event").is_some() {
            self.early.push_back(reply);
            reply = self.line();
        }
        assert_eq!(reply["ok"], true, "{verb}: {reply}");
        reply
    }

    #[track_caller]
    fn is_told(&mut self, event: &str, chat: u32) {
        let line = self.early.pop_front().unwrap_or_else(|| self.line());
        assert_eq!(
            (&line["event"], &line["chat_id"]),
            (&json!(event), &json!(chat))
        );
    }

    fn hang_up(self) {
        self.reader.get_ref().shutdown(Shutdown::Both).unwrap();
    }
}

/// A service with chats of the built-in echo, none of which has anything to do.
fn service(settings: &str, chats: u32) -> World {
    let world = World::with_workspace();
    fs::write(world.path(".wg/config.toml"), settings).unwrap();
    for _ in 0..chats {
        world.wg(&["chat", "new", "--agent", "echo"]).ok();
    }
    world.wg(&["service", "start"]).ok();
    world
}

fn lane<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    let in_use = status["lanes"]["in_use"].as_array().unwrap();
    in_use.iter().find(|lane| lane["lane"] == name)
}

fn turns(status: &Value) -> (u64, u64, u64) {
    let group = &status["lanes"]["groups"][0];
    assert_eq!(group["group"], "turns");
    let number = |key: &str| group[key].as_u64().unwrap();
    (number("taken"), number("width"), number("waiting"))
}

#[test]
fn status_shows_the_lanes_in_use_and_who_waits_for_what() {
    let world = service("[service]\nmax_turns = 1\n", 3);
    let mut first = Connection::to(&world);
    first.ask("turn_begin", 0);
    first.is_told("turn_granted", 0);
    let mut second = Connection::to(&world);
    second.ask("turn_begin", 1);
    // A second turn of the chat that has the place waits for that chat's lane, not for the group.
    let mut third = Connection::to(&world);
    assert_eq!(third.ask("turn_begin", 0)["ahead"], 1);

    let status = world.json(&["service", "status"]);
    golden::check_schema(&world, "json/service-status-lanes", &status);
    assert_eq!(turns(&status), (1, 1, 1));
    let running = lane(&status, "turn:0").unwrap();
    assert_eq!(running["running"][0]["what"], "message 1");
    assert_eq!(running["chat_id"], 0);
    assert_eq!(running["waiting"], 1);
    assert_eq!(running["blocked_by"], "lane");
    assert_eq!(running["behind"], json!(["message 1"]));
    let waiting = lane(&status, "turn:1").unwrap();
    assert_eq!(waiting["running"], json!([]));
    assert_eq!(waiting["waiting"], 1);
    assert_eq!(waiting["blocked_by"], "group");
    assert_eq!(waiting["behind"], json!(["turn:0"]));
    assert_eq!(lane(&status, "turn:2"), None);
    let text = world.wg(&["service", "status"]).ok().stdout;
    golden::check(&world, "text/service-status-lanes", &text);
    for connection in [first, second, third] {
        connection.hang_up();
    }
    world.stop();
}

#[test]
fn a_turn_goes_back_by_its_end_and_by_the_end_of_its_connection() {
    let world = service("[service]\nmax_turns = 1\n", 3);
    let mut connections: Vec<_> = (0..3).map(|_| Connection::to(&world)).collect();
    for (chat, connection) in (0..).zip(&mut connections) {
        connection.ask("turn_begin", chat);
    }
    let [mut first, mut second, mut third] = <[Connection; 3]>::try_from(connections)
        .unwrap_or_else(|_| unreachable!("three were made"));
    first.is_told("turn_granted", 0);
    first.ask("turn_end", 0);
    second.is_told("turn_granted", 1);
    // No word of its end: the connection is gone, and with it the turn.
    second.hang_up();
    third.is_told("turn_granted", 2);
    third.ask("turn_end", 2);
    assert_eq!(turns(&world.json(&["service", "status"])), (0, 1, 0));
    first.hang_up();
    third.hang_up();
    world.stop();
}

#[test]
fn a_turn_whose_handler_hangs_goes_back_at_the_ceiling() {
    let world = World::with_workspace();
    fs::write(
        world.path(".wg/config.toml"),
        "[service]\nmax_turns = 1\nstop_grace = \"0.3s\"\nstall_ceiling = \"1s\"\n\
         [supervisor]\nbackoff_first = \"100ms\"\n",
    )
    .unwrap();
    world
        .wg(&[
            "chat",
            "new",
            "--command",
            "echo begun > begun; exec sleep 600",
        ])
        .ok();
    world.wg(&["chat", "new", "--agent", "echo"]).ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "send", "0", "hang"]).ok();
    world.wait_for_file("begun", |text| text.ends_with('\n'));
    let handlers = world.handlers();
    let handler = handlers.first().expect("one handler").pid;
    kill(Pid::from_raw(handler), Signal::SIGSTOP).unwrap();
    // The only place is taken by a handler that cannot even hear that its time is over.
    let done = world.wg(&["chat", "hello", "--coordinator", "1"]).ok();
    assert_eq!(done.stdout, "hello\n");
    wait_gone(handler);
    world.wait_for_file(".wg/service/events.jsonl", |events| {
        events.contains("turn_interrupted")
    });
    world.wg(&["service", "stop", "--force"]).ok();
    assert!(world.processes().is_empty());
}

#[test]
fn turns_that_a_new_daemon_finds_running_keep_their_places_even_over_the_width() {
    let world = service("[service]\nmax_turns = 2\n", 3);
    let mut before: Vec<_> = (0..2).map(|_| Connection::to(&world)).collect();
    for (chat, connection) in (0..).zip(&mut before) {
        connection.ask("turn_begin", chat);
        connection.is_told("turn_granted", chat);
    }
    fs::write(world.path(".wg/config.toml"), "[service]\nmax_turns = 1\n").unwrap();
    world.wg(&["service", "restart"]).ok();
    let mut first = Connection::to(&world);
    assert_eq!(first.ask("turn_resume", 0)["resumed"], true);
    let mut second = Connection::to(&world);
    assert_eq!(second.ask("turn_resume", 1)["resumed"], true);
    let mut third = Connection::to(&world);
    third.ask("turn_begin", 2);
    let status = world.json(&["service", "status"]);
    assert_eq!(turns(&status), (2, 1, 1));
    let waiting = lane(&status, "turn:2").unwrap();
    assert_eq!(waiting["behind"], json!(["turn:0", "turn:1"]));

    // The first end only brings the group back to its width; the second frees a place.
    first.ask("turn_end", 0);
    assert_eq!(turns(&world.json(&["service", "status"])), (1, 1, 1));
    second.ask("turn_end", 1);
    third.is_told("turn_granted", 2);
    for connection in [first, second, third] {
        connection.hang_up();
    }
    world.stop();
}

#[test]
fn commands_of_one_chat_wait_for_each_other_and_delay_nobody_else() {
    let world = World::with_workspace();
    fs::write(
        world.path(".wg/config.toml"),
        "[service]\nstop_grace = \"60s\"\n",
    )
    .unwrap();
    // Its turn ends when the test lets it, and its stop waits for that.
    let agent = "mkfifo go; echo > begun; read -r word < go; echo $word";
    world.wg(&["chat", "new", "--command", agent]).ok();
    world.wg(&["chat", "new", "--agent", "echo"]).ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "send", "0", "work"]).ok();
    world.wait_for_file("begun", |text| text.ends_with('\n'));
    let mut stop = Connection::to(&world);
    stop.send(&json!({ "cmd": "stop_chat", "chat_id": 0 }));
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.contains("release_requested")
    });
    let mut resume = Connection::to(&world);
    resume.send(&json!({ "cmd": "resume_chat", "chat_id": 0 }));
    // Another chat is served, and this one's state is told, while its stop waits for the agent.
    let done = world.wg(&["chat", "hello", "--coordinator", "1"]).ok();
    assert_eq!(done.stdout, "hello\n");
    let status = world.json(&["service", "status"]);
    let commands = lane(&status, "command:0").unwrap();
    assert_eq!(commands["running"][0]["what"], "stop");
    assert_eq!(commands["waiting"], 1);
    assert_eq!(commands["behind"], json!(["stop"]));
    world.sh("echo now > go", b"");
    assert_eq!(stop.line()["ok"], true);
    assert_eq!(resume.line()["ok"], true);
    world.stop();
}

/// How many handlers were alive at one instant before they had their sessions, at the least: all that are listed were there before the
/// first record was read, and who has no record then had none before.
fn starting(world: &World) -> usize {
    let handlers = world.handlers();
    let is_starting = |handler: &&Process| {
        let Some(chat) = handler.session().and_then(|mark| chat_of(&mark)) else {
            return false;
        };
        let record = world.path(&format!(".wg/chat/.chat-{chat}/.handler.pid"));
        let record = fs::read_to_string(record).unwrap_or_default();
        let has_session = record
            .split_whitespace()
            .any(|word| word == handler.pid.to_string());
        !has_session && Process::look_at(handler.pid).is_some()
    };
    handlers.iter().filter(is_starting).count()
}

/// The number of the chat whose mark this is (`<workspace>/chat-<n>/<nonce>`).
fn chat_of(mark: &str) -> Option<u32> {
    let chat = mark.rsplit('/').nth(1)?;
    chat.strip_prefix("chat-")?.parse().ok()
}

#[test]
fn boot_starts_no_more_handlers_at_a_time_than_it_may() {
    const CHATS: usize = 12;
    let settings = "[service]\nmax_starts = 1\n";
    let world = service(settings, u32::try_from(CHATS).unwrap());
    world.wg(&["service", "stop"]).ok();
    for chat in 0..CHATS {
        world.wg(&["chat", "send", &chat.to_string(), "hi"]).ok();
    }
    let daemon = world.start(&["service", "start"]);
    let mut most = 0;
    // Each start is written down here when its process is there.
    world.wait_for_file(".wg/service/events.jsonl", |events| {
        most = most.max(starting(&world));
        events.matches(r#""event":"turn_finished""#).count() == CHATS
    });
    daemon.finish().ok();
    // A start that takes ten seconds gives its place away, and says so.
    let log = world.read(".wg/service/daemon.log");
    let given_away = log
        .lines()
        .filter(|line| line.contains("lane slot reclaimed") && line.contains("lane=starts"))
        .count();
    assert!(
        (1..=1 + given_away).contains(&most),
        "{most} handlers started at a time, {given_away} gave their places away"
    );
    world.stop();
}
