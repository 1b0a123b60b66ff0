//! Older daemons, played on the socket: one from before the greeting is believed if it answers, one of an earlier protocol has the lock and
//! greets with less. Any `wg` can tell of either and end it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;

use serde_json::Value;

use crate::process::wait_gone;
use crate::world::{Running, World};

/// Answers as the earlier tool's daemon does: one connection at a time, no greeting, a status of its own shape, no lock.
const DAEMON: &str = r"
import json, os, socket, sys
path = os.path.abspath('.wg/service/daemon.sock')
os.makedirs('.wg/service', mode=0o700, exist_ok=True)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(8)
with open('.wg/service/state.json', 'w') as state:
    json.dump({'pid': os.getpid(), 'socket_path': path, 'started_at': '2026-11-20T20:26:12.906424761+00:00'}, state)
print('up', flush=True)
while True:
    client, _ = listener.accept()
    for line in client.makefile('r'):
        verb = json.loads(line)['cmd']
        answer = {'ok': False, 'error': 'Invalid request: unknown variant `%s`' % verb}
        if verb == 'status':
            answer = {'ok': True, 'pid': os.getpid(), 'uptime': '1m', 'log': {'path': 'daemon.log', 'exists': False}}
        if verb == 'shutdown':
            answer = {'ok': True}
        client.sendall((json.dumps(answer) + '\n').encode())
        if verb == 'shutdown':
            os.unlink(path)
            sys.exit(0)
";

fn older_daemon(world: &World) -> Running {
    let mut command = world.command("python3");
    command.args(["-u", "-c", DAEMON]);
    let mut daemon = Running::of(command);
    assert_eq!(daemon.line(), "up");
    daemon
}

#[test]
fn an_older_daemon_that_answers_is_told_of_is_not_doubled_and_ends_when_it_is_asked() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    let daemon = older_daemon(&world);
    let pid = daemon.pid();
    let status = world.json(&["service", "status"]);
    assert_eq!(
        (status["status"].as_str(), status["pid"].as_i64()),
        (Some("running"), Some(i64::from(pid))),
        "{status:#}"
    );
    assert_eq!(status["chats"][0]["chat_id"], 0, "{status:#}");
    let start = world.wg(&["service", "start"]).ok();
    let said = format!("Service already running (PID {pid})");
    assert!(start.stdout.contains(&said), "{}", start.stdout);
    let stop = world.wg(&["service", "stop"]).ok();
    let said = format!("Service stopped (PID {pid})");
    assert!(stop.stdout.contains(&said), "{}", stop.stdout);
    daemon.finish().ok();
    // Its place is free, whatever file it left.
    assert_eq!(world.wg(&["up", "hello"]).ok().stdout, "hello\n");
    assert_ne!(world.daemon_pid(), pid);
    world.stop();
}

#[test]
fn the_state_file_of_an_older_daemon_that_is_gone_is_not_believed() {
    let world = World::with_workspace();
    let daemon = older_daemon(&world);
    let pid = daemon.pid();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    wait_gone(pid);
    daemon.finish().with_code(1_009);
    // Its number belongs to somebody else by now, who does not answer at the socket and is left alone.
    let other = world.sh("setsid sleep 600 </dev/null >/dev/null 2>&1 & echo $!", b"");
    let other: i32 = other.stdout.trim().parse().unwrap();
    let state = world
        .read(".wg/service/state.json")
        .replace(&format!("\"pid\": {pid},"), &format!("\"pid\": {other},"));
    assert!(state.contains(&other.to_string()), "{state}");
    std::fs::write(world.path(".wg/service/state.json"), state).unwrap();
    assert_eq!(world.json(&["service", "status"])["status"], "not_running");
    world.wg(&["service", "stop"]).ok();
    assert_eq!(world.wg(&["up", "hello"]).ok().stdout, "hello\n");
    world.wg(&["service", "stop"]).ok();
    let left: Vec<i32> = world
        .processes()
        .iter()
        .map(|process| process.pid)
        .collect();
    assert_eq!(left, [other]);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(other),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    wait_gone(other);
}

const PLAYER: &str = "older::as_a_child_plays_a_daemon_of_an_earlier_protocol";
const PLACE: &str = "WG_TEST_OLDER_DAEMON";
const HANGS: &str = "WG_TEST_OLDER_DAEMON_HANGS";

/// Runs only as a child of the test below: has the service's lock, greets with a lower version and knows two verbs.
#[test]
fn as_a_child_plays_a_daemon_of_an_earlier_protocol() {
    let Some(place) = std::env::var_os(PLACE).map(std::path::PathBuf::from) else {
        return;
    };
    let kind = session_lock::Kind::Other("wg-daemon".to_owned());
    let lock = session_lock::SessionLock::try_acquire(&place, kind).unwrap();
    let listener = UnixListener::bind(place.join("daemon.sock")).unwrap();
    println!("\nup");
    for client in listener.incoming() {
        let mut client = client.unwrap();
        for line in BufReader::new(client.try_clone().unwrap()).lines() {
            let request: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let pid = std::process::id();
            let answer = match request["cmd"].as_str().unwrap() {
                "hello" => serde_json::json!({"ok": true, "version": 0, "pid": pid}),
                "status" => serde_json::json!({"ok": true, "pid": pid, "version": "0.0.9"}),
                // One that hangs says nothing more and stays.
                "shutdown" if std::env::var_os(HANGS).is_some() => continue,
                "shutdown" => serde_json::json!({"ok": true}),
                verb => {
                    serde_json::json!({"ok": false, "code": 2, "error": format!("Invalid request: unknown variant `{verb}`, expected one of `status`, `shutdown`")})
                }
            };
            writeln!(client, "{answer}").unwrap();
            if request["cmd"] == "shutdown" {
                std::fs::remove_file(place.join("daemon.sock")).unwrap();
                lock.release().unwrap();
                return;
            }
        }
    }
}

fn played(world: &World, hangs: bool) -> Running {
    let mut command = world.command(std::env::current_exe().unwrap());
    command
        .args(["--exact", PLAYER, "--nocapture", "--test-threads=1"])
        .env(PLACE, world.path(".wg/service"));
    if hangs {
        command.env(HANGS, "1");
    }
    let mut daemon = Running::of(command);
    while daemon.line() != "up" {}
    daemon
}

#[test]
fn a_daemon_that_answers_and_does_not_end_is_ended_by_force() {
    let world = World::with_workspace();
    world.wg(&["service", "start"]).ok();
    world.stop();
    let daemon = played(&world, true);
    let pid = daemon.pid();
    let stop = world.wg(&["service", "stop", "--force"]).ok();
    let said = format!("Service stopped (PID {pid})");
    assert!(stop.stdout.contains(&said), "{}", stop.stdout);
    daemon.finish().with_code(1_009);
    assert_eq!(world.wg(&["up", "hello"]).ok().stdout, "hello\n");
    world.stop();
}

#[test]
fn a_daemon_of_an_earlier_protocol_is_told_of_and_ends_when_it_is_asked() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    world.stop();
    let daemon = played(&world, false);
    let pid = daemon.pid();
    let status = world.json(&["service", "status"]);
    assert_eq!(
        (
            status["status"].as_str(),
            status["pid"].as_i64(),
            status["version"].as_str()
        ),
        (Some("running"), Some(i64::from(pid)), Some("0.0.9")),
        "{status:#}"
    );
    assert_eq!(status["chats"][0]["chat_id"], 0, "{status:#}");
    // What it does not know is said in words that help.
    for verb in [
        &["why", "0"][..],
        &["chat", "list"],
        &["chat", "send", "0", "hello"],
    ] {
        let refused = world.wg(verb).with_code(69);
        assert!(
            refused.stderr.contains("wg service restart"),
            "{}",
            refused.stderr
        );
        assert!(!refused.stderr.contains("variant"), "{}", refused.stderr);
    }
    let stop = world.wg(&["service", "stop"]).ok();
    let said = format!("Service stopped (PID {pid})");
    assert!(stop.stdout.contains(&said), "{}", stop.stdout);
    daemon.finish().ok();
    assert_eq!(world.wg(&["up", "hello"]).ok().stdout, "hello\n");
    world.stop();
}
