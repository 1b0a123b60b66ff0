//! What a daemon outlives: bad settings, its own end, handlers that leave something behind, the loss of its place.

use std::fs;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use session_lock::{Kind, SessionLock};

use crate::errors::told;
use crate::process::{wait_gone, wait_readable};
use crate::world::{WATCHDOG, World, until};

#[test]
fn a_handler_starts_under_the_settings_in_force_while_the_file_is_wrong() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    fs::write(
        world.path(".wg/config.toml"),
        "[service]\nidle_timeout = \"soon\"\n",
    )
    .unwrap();
    assert_eq!(world.wg(&["chat", "hello"]).ok().stdout, "hello\n");
    // A daemon that could not start again under that file is not stopped.
    told(
        &world.wg(&["service", "restart"]),
        78,
        &["config.toml", "line 2", "idle_timeout"],
    );
    assert_eq!(world.wg(&["chat", "again"]).ok().stdout, "again\n");
    world.stop();
}

#[test]
fn the_end_of_a_service_stops_no_chat_for_good() {
    let world = World::with_workspace();
    for _ in 0..3 {
        world.wg(&["chat", "new"]).ok();
    }
    for round in ["one", "two"] {
        world.wg(&["service", "start"]).ok();
        for chat in ["0", "1", "2"] {
            let done = world.wg(&["chat", round, "--coordinator", chat]).ok();
            assert_eq!(done.stdout, format!("{round}\n"));
        }
        world.wg(&["service", "stop"]).ok();
    }
    world.stop();
}

#[test]
fn what_a_killed_handler_left_with_its_lock_is_ended_although_it_carries_no_marker() {
    let world = World::with_workspace();
    fs::write(
        world.path(".wg/config.toml"),
        "[service]\nstop_grace = \"0.5s\"\n[supervisor]\nbackoff_first = \"100ms\"\n",
    )
    .unwrap();
    // It clears its environment and makes a session of its own; the lent descriptor is all that is left to know it by.
    let agent = "if [ -e second ]; then cat; else touch second; \
                 (env -i setsid sh -c 'echo $$ > escaped; exec sleep 600' &) ; exec sleep 600; fi";
    world.wg(&["chat", "new", "--command", agent]).ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "send", "0", "hello"]).ok();
    let escaped = world.wait_for_file("escaped", |text| text.ends_with('\n'));
    let escaped: i32 = escaped.trim().parse().unwrap();
    world.handlers().first().expect("one handler").end();
    let outbox = world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| text.ends_with('\n'));
    assert!(outbox.contains("hello"), "{outbox}");
    wait_gone(escaped);
    world.stop();
}

#[test]
fn what_a_killed_handler_left_comes_to_the_service_and_is_ended_by_its_place_and_waited_for() {
    let world = World::with_workspace();
    fs::write(
        world.path(".wg/config.toml"),
        "[supervisor]\nbackoff_first = \"1h\"\nbackoff_cap = \"1h\"\n",
    )
    .unwrap();
    // No environment, a session of its own, and the lent descriptor closed.
    let agent = "(env -i setsid sh -c 'exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; echo $$ > escaped; exec sleep 600' &) ; \
                 exec sleep 600";
    world.wg(&["chat", "new", "--command", agent]).ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "send", "0", "hello"]).ok();
    let escaped = world.wait_for_file("escaped", |text| text.ends_with('\n'));
    let escaped: i32 = escaped.trim().parse().unwrap();
    world.handlers().first().expect("one handler").end();
    let events = world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.contains(r#""event":"backoff""#)
    });
    let ended = format!("(pid {escaped}), left behind by");
    assert!(events.contains(&ended), "{events}");
    until("the stray to be waited for", || {
        !Path::new(&format!("/proc/{escaped}")).exists()
    });
    world.stop();
}

#[test]
fn a_daemon_whose_place_was_taken_away_ends_with_its_handlers() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "hello"]).ok();
    let daemon = world.daemon_pid();
    fs::remove_file(world.path(".wg/service/daemon.sock")).unwrap();
    wait_gone(daemon);
    assert!(world.processes().is_empty());
    world.wg(&["service", "start"]).ok();
    assert_eq!(world.wg(&["chat", "again"]).ok().stdout, "again\n");
    world.stop();
}

#[test]
fn a_start_that_meets_a_service_in_its_last_moments_starts_a_new_one() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    let daemon = world.daemon_pid();
    kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
    wait_gone(daemon);
    // What a killed service leaves is all there, and its lock is still held, as it is until the kernel has taken it down.
    let service = world.path(".wg/service");
    let lock = SessionLock::try_acquire(&service, Kind::Adapter).unwrap();
    let looked_at = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap();
    looked_at
        .add_watch(&service.join(".handler.guard"), AddWatchFlags::IN_OPEN)
        .unwrap();
    let start = world.start(&["service", "start"]);
    assert!(
        wait_readable(&looked_at, WATCHDOG),
        "nobody looked at the lock"
    );
    lock.release().unwrap();
    start.finish().ok();
    assert_ne!(world.daemon_pid(), daemon);
    assert_eq!(world.wg(&["chat", "hello"]).ok().stdout, "hello\n");
    world.stop();
}
