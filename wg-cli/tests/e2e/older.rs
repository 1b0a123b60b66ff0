//! A daemon from before the greeting, played on the socket: it is believed if it answers, and any `wg` can tell of it and end it.

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
