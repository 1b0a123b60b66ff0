//! Clients that are silent, endless, wrong or strangers: the others are answered all the same.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use nix::unistd::geteuid;
use serde_json::Value;

use crate::world::{WATCHDOG, World};

fn connect(world: &World) -> UnixStream {
    let stream = UnixStream::connect(world.path(".wg/service/daemon.sock")).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    stream.set_write_timeout(Some(WATCHDOG)).unwrap();
    stream
}

/// Others are answered: a verb over a new connection, and a message with its reply.
#[track_caller]
fn others_are_answered(world: &World, message: &str) {
    assert_eq!(world.json(&["service", "status"])["status"], "running");
    assert_eq!(
        world.wg(&["chat", message]).ok().stdout,
        format!("{message}\n")
    );
}

#[test]
fn five_hundred_silent_clients_keep_nobody_waiting() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    let silent: Vec<UnixStream> = (0..500).map(|_| connect(&world)).collect();
    others_are_answered(&world, "hello");
    // Half a request is as silent as none.
    for mut stream in &silent {
        stream.write_all(b"{\"cmd\":\"sta").unwrap();
    }
    others_are_answered(&world, "again");
    drop(silent);
    others_are_answered(&world, "and again");
    world.stop();
}

#[test]
fn a_line_without_an_end_is_cut_off_and_the_others_are_answered() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    let mut endless = connect(&world);
    let block = vec![b'x'; 1 << 20];
    let mut refused_after = None;
    for megabytes in 0..1_024 {
        if endless.write_all(&block).is_err() {
            refused_after = Some(megabytes);
            break;
        }
    }
    assert!(
        refused_after.is_some_and(|megabytes| megabytes < 64),
        "a gigabyte was taken in"
    );
    others_are_answered(&world, "hello");
    world.stop();
}

#[test]
fn what_is_no_request_is_refused_line_by_line_and_the_connection_goes_on() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    let stream = connect(&world);
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let wrong = [
        "{",
        "[]",
        "null",
        "{}",
        r#"{"cmd":7}"#,
        r#"{"cmd":"unheard of"}"#,
        r#"{"cmd":"user_chat"}"#,
        r#"{"cmd":"user_chat","chat_id":-1,"message":"x"}"#,
        r#"{"cmd":"user_chat","chat_id":99,"message":"x"}"#,
        r#"{"cmd":"archive_chat","chat_id":"../../etc"}"#,
    ];
    for line in wrong {
        writeln!(&stream, "{line}").unwrap();
        // Whatever else is told in between, such as a greeting, is no answer.
        let answer = loop {
            let answer: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            if answer.get("ok").is_some() {
                break answer;
            }
        };
        assert_eq!(answer["ok"], false, "{line}: {answer}");
        assert!(answer["error"].is_string(), "{line}: {answer}");
    }
    writeln!(&stream, r#"{{"cmd":"status"}}"#).unwrap();
    let answer: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(answer["ok"], true, "{answer}");
    others_are_answered(&world, "hello");
    world.stop();
}

/// Another user that somehow reaches the socket is not served. Only root can be another user.
#[test]
fn a_client_of_another_user_is_turned_away_and_the_others_are_answered() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    let socket = world.path(".wg/service/daemon.sock");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    assert_eq!(mode(&world.path(".wg/service")), 0o700);
    if geteuid().is_root() {
        // Every door is opened, so that only the look at the peer is left.
        let mut dir = socket.parent();
        while let Some(path) = dir.filter(|path| path.starts_with(world.here().parent().unwrap())) {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
            dir = path.parent();
        }
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
        let script = "import os, socket, sys\n\
            os.setgroups([]); os.setgid(65534); os.setuid(65534)\n\
            s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
            try:\n    s.sendall(b'{\"cmd\":\"status\"}\\n')\n    got = s.recv(65536)\n\
            except OSError:\n    got = b''\n\
            print('served' if b'\"running\"' in got else 'turned away')\n";
        let python = world.path("../bin/python3");
        let done = world
            .program(&python, &["-c", script, socket.to_str().unwrap()])
            .ok();
        assert_eq!(done.stdout, "turned away\n", "{}", done.stderr);
    }
    let mut own = connect(&world);
    own.write_all(b"{\"cmd\":\"status\"}\n").unwrap();
    let mut first = [0];
    own.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"{");
    others_are_answered(&world, "hello");
    world.stop();
}

/// Fills the daemon with connections; says how many of the idle ones were closed, and whether they were the oldest.
const CROWD: &str = r"
import json, resource, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
def connect(line):
    client = socket.socket(socket.AF_UNIX)
    client.connect('.wg/service/daemon.sock')
    client.sendall((json.dumps(line) + '\n').encode())
    assert json.loads(client.makefile('r').readline())['ok'], line
    return client
def is_closed(client):
    try:
        return client.recv(1 << 16, socket.MSG_DONTWAIT) == b''
    except BlockingIOError:
        return False
watchers = [connect({'cmd': 'subscribe'}), connect({'cmd': 'attach', 'chat_id': 0})]
idle = [connect({'cmd': 'hello', 'version': 1}) for _ in range(1200)]
closed = [is_closed(client) for client in idle]
print(json.dumps({
    'closed': sum(closed),
    'oldest': closed == sorted(closed, reverse=True),
    'watchers': not any(is_closed(client) for client in watchers[1:]),
}), flush=True)
sys.stdin.read()
";

#[test]
fn of_more_than_1024_connections_the_oldest_idle_ones_go_and_no_handler_and_no_consumer() {
    let world = World::with_workspace();
    world.wg(&["service", "start"]).ok();
    assert_eq!(world.wg(&["up", "hello"]).ok().stdout, "hello\n");
    let handler = world.handlers()[0].pid;
    let mut command = world.command("python3");
    command.args(["-c", CROWD]);
    let mut crowd = crate::world::Running::of(command);
    let told: Value = serde_json::from_str(&crowd.line()).unwrap();
    // Two who watch and the handler are connected beside them.
    assert_eq!(told["closed"], 1_200 + 2 + 1 - 1_024, "{told}");
    assert_eq!(
        (&told["oldest"], &told["watchers"]),
        (&Value::Bool(true), &Value::Bool(true)),
        "{told}"
    );
    others_are_answered(&world, "in the crowd");
    assert_eq!(
        world.handlers()[0].pid,
        handler,
        "its connection wakes it still"
    );
    crowd.hang_up();
    crowd.finish().ok();
    world.stop();
}

#[test]
fn a_client_of_any_age_is_told_the_status_and_can_stop_the_service() {
    for greeting in [
        "",
        r#"{"cmd":"hello"}"#,
        r#"{"cmd":"hello","version":0,"capabilities":[]}"#,
        r#"{"cmd":"hello","version":99,"capabilities":["unheard of"],"more":{"of":"it"}}"#,
    ] {
        let world = World::with_workspace();
        world.wg(&["chat", "new"]).ok();
        world.wg(&["service", "start"]).ok();
        let daemon = world.daemon_pid();
        let stream = connect(&world);
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut ask = |line: &str| -> Value {
            writeln!(&stream, "{line}").unwrap();
            serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap()
        };
        if !greeting.is_empty() {
            let hello = ask(greeting);
            assert_eq!(
                (&hello["ok"], &hello["pid"]),
                (&Value::Bool(true), &Value::from(daemon)),
                "{hello}"
            );
            assert!(
                hello["version"].is_u64() && hello["capabilities"].is_array(),
                "{hello}"
            );
        }
        let status = ask(r#"{"cmd":"status","more":1}"#);
        assert_eq!(
            (&status["ok"], &status["pid"]),
            (&Value::Bool(true), &Value::from(daemon)),
            "{status}"
        );
        let bye = ask(r#"{"cmd":"shutdown"}"#);
        assert_eq!(bye["ok"], true, "{bye}");
        crate::process::wait_gone(daemon);
        assert_eq!(world.json(&["service", "status"])["status"], "not_running");
    }
}
