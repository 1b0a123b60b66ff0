//! How an idle handler is woken: by the daemon, over its connection; without one, by a kernel watch of its own.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::wait_gone;
use crate::world::{World, until};

/// Whether a process has an inotify instance.
fn has_inotify(pid: i32) -> bool {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let mut targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.any(|target| target.as_os_str() == "anon_inode:inotify")
}

/// The one process that serves the chat.
fn handler(world: &World) -> i32 {
    let handlers = world.handlers();
    assert_eq!(handlers.len(), 1, "{handlers:?}");
    handlers[0].pid
}

#[test]
fn handlers_have_no_kernel_watch_of_their_own_while_there_is_a_daemon() {
    let world = World::with_workspace();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "new"]).ok();
    assert_eq!(world.wg(&["chat", "one"]).ok().stdout, "one\n");
    let pid = handler(&world);
    until("the end of the watch", || !has_inotify(pid));
    // An append by another tool wakes it all the same.
    let line = r#"{"id":2,"timestamp":"2026-11-20T20:26:12Z","role":"user","content":"two","request_id":"foreign","user":"t"}"#;
    world.sh(
        &format!("printf '%s\\n' '{line}' >> .wg/chat/.chat-0/inbox.jsonl"),
        b"",
    );
    world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
        text.contains("foreign")
    });
    assert_eq!(handler(&world), pid);
    assert!(!has_inotify(pid));
    // And so does a request for its session.
    world
        .wg(&["session", "release", "chat-0", "--wait", "60"])
        .ok();
    world.stop();
}

#[test]
fn a_handler_without_its_daemon_watches_for_itself_until_there_is_one_again() {
    let world = World::with_workspace();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "new"]).ok();
    assert_eq!(world.wg(&["chat", "one"]).ok().stdout, "one\n");
    let pid = handler(&world);
    until("the end of the watch", || !has_inotify(pid));

    let daemon = world.daemon_pid();
    kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
    wait_gone(daemon);
    until("a watch of its own", || has_inotify(pid));
    world.wg(&["chat", "send", "0", "two"]).ok();
    world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
        text.lines().count() == 2
    });
    assert_eq!(
        handler(&world),
        pid,
        "nobody was there to start another one"
    );

    world.wg(&["service", "start"]).ok();
    until("the end of the watch", || !has_inotify(pid));
    assert_eq!(world.wg(&["chat", "three"]).ok().stdout, "three\n");
    assert_eq!(handler(&world), pid, "the same one, adopted");
    world.stop();
}
