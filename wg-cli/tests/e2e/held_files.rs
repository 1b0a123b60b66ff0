//! Files whose lock another process has, and keeps: who waits for it, who does not, and what is told.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::process::wait_gone;
use crate::world::{Done, Running, World};

/// Another process that has the lock of a file until it is hung up on.
pub(crate) fn lock(world: &World, file: &str) -> Running {
    let script = format!(
        "import fcntl, sys\nf = open('{file}', 'a')\nfcntl.flock(f, fcntl.LOCK_EX)\nprint('locked')\nsys.stdin.read()"
    );
    let mut holder = world.command("python3");
    holder.args(["-u", "-c", &script]);
    let mut holder = Running::of(holder);
    assert_eq!(holder.line(), "locked");
    holder
}

/// As [`lock`], and then it was stopped.
fn stopped_with(world: &World, file: &str) -> Running {
    let holder = lock(world, file);
    signal(&holder, Signal::SIGSTOP);
    holder
}

fn signal(process: &Running, signal: Signal) {
    kill(Pid::from_raw(process.pid()), signal).unwrap();
}

fn let_go(mut holder: Running) {
    signal(&holder, Signal::SIGCONT);
    holder.hang_up();
    holder.finish().ok();
}

const STATE: &str = ".wg/service/coordinator-state-0.json.lock";
const INBOX: &str = ".wg/chat/.chat-0/inbox.jsonl.lock";
const OUTBOX: &str = ".wg/chat/.chat-0/outbox.jsonl.lock";

fn served() -> World {
    let world = World::with_workspace();
    world.wg(&["service", "start"]).ok();
    for chat in ["0", "1"] {
        world.wg(&["chat", "new"]).ok();
        let hello = world.wg(&["chat", "hello", "--coordinator", chat]).ok();
        assert_eq!(hello.stdout, "hello\n");
    }
    world
}

/// The sentence names who has the file, by number and by command.
#[track_caller]
fn names(done: &Done, holder: &Running) {
    let wanted = format!("process {} (`", holder.pid());
    assert!(done.stderr.contains(&wanted), "{wanted}: {done:?}");
    assert!(done.stderr.contains("python3"), "{done:?}");
}

#[test]
fn whoever_waits_for_a_reply_does_not_wait_for_the_file_that_says_when_he_was_there() {
    let world = served();
    let holder = stopped_with(&world, STATE);
    assert_eq!(world.wg(&["chat", "again"]).ok().stdout, "again\n");
    let log = world.read(".wg/service/daemon.log");
    assert!(!log.contains("could not be written down"), "{log}");
    let_go(holder);
    world.wait_for_file(".wg/service/coordinator-state-0.json", |text| {
        text.contains("last_consumer_at")
    });
    world.stop();
}

#[test]
fn a_timeout_bounds_the_wait_for_the_inbox_and_what_was_not_accepted_in_time_is_not_accepted_later()
{
    let world = served();
    for running in [true, false] {
        if !running {
            world.wg(&["service", "stop"]).ok();
        }
        let holder = lock(&world, INBOX);
        let late = world.wg(&["chat", "--timeout", "1", "late"]).with_code(124);
        names(&late, &holder);
        let_go(holder);
        world.wg(&["chat", "send", "0", "after"]).ok();
        let inbox = world.read(".wg/chat/.chat-0/inbox.jsonl");
        assert!(!inbox.contains("late"), "{inbox}");
    }
}

#[test]
fn a_stopped_holder_is_named_with_what_lets_it_go_on_and_the_chat_stays_as_it_was() {
    let world = served();
    for running in [true, false] {
        if !running {
            world.wg(&["service", "stop"]).ok();
        }
        let holder = stopped_with(&world, STATE);
        let refused = world.wg(&["chat", "stop", "0"]).with_code(75);
        names(&refused, &holder);
        let cure = format!("kill -CONT {}", holder.pid());
        assert!(refused.stderr.contains(&cure), "{refused:?}");
        let_go(holder);
        assert_ne!(world.json(&["chat", "show", "0"])["state"], "stopped");
    }
    world.wg(&["chat", "stop", "0"]).ok();
}

#[test]
fn a_purge_ends_every_other_chat_while_one_chats_file_is_held_and_names_the_holder() {
    for running in [true, false] {
        let world = served();
        if !running {
            // The handlers stay, without a service.
            world.wg(&["service", "stop", "--keep-handlers"]).ok();
        }
        let before: Vec<i32> = world.handlers().iter().map(|handler| handler.pid).collect();
        assert_eq!(before.len(), 2);
        let holder = stopped_with(&world, STATE);
        let done = world.wg(&["service", "purge-chats", "--json"]);
        let report = done.with_code(75).json();
        assert_eq!(report["purged"].as_array().unwrap().len(), 1, "{report:#}");
        assert_eq!(report["purged"][0]["chat_id"], 1, "{report:#}");
        assert_eq!(report["errors"][0]["chat_id"], 0, "{report:#}");
        assert_eq!(report["errors"][0]["pid"], holder.pid(), "{report:#}");
        assert_eq!(
            world.handlers().len(),
            1,
            "only the one that was not purged"
        );
        let_go(holder);
        let report = world.json(&["service", "purge-chats"]);
        assert_eq!(report["purged"][0]["chat_id"], 0, "{report:#}");
        assert_eq!(report["errors"], serde_json::json!([]), "{report:#}");
        before.into_iter().for_each(wait_gone);
        world.stop();
    }
}

#[test]
fn a_stop_by_force_ends_the_handlers_first_and_says_what_it_could_not_write() {
    let world = served();
    let handlers = world.handlers();
    let holder = lock(&world, STATE);
    let stopped = world.wg(&["service", "stop", "--force"]).ok();
    names(&stopped, &holder);
    assert!(stopped.stderr.contains("chat-0"), "{stopped:?}");
    for handler in handlers {
        wait_gone(handler.pid);
    }
    let_go(holder);
}

#[test]
fn the_last_save_of_a_service_waits_for_no_file() {
    let world = served();
    let holder = lock(&world, STATE);
    let stopped = world.wg(&["service", "stop"]).ok();
    names(&stopped, &holder);
    // How long it was waited for is only told from a second on.
    assert!(!stopped.stderr.contains("for over"), "{stopped:?}");
    let_go(holder);
}

#[test]
fn a_reply_waits_for_its_file_and_what_the_agent_did_is_not_done_again() {
    let world = World::with_workspace();
    let agent = world.script(
        "agent.sh",
        "#!/bin/sh\nread -r word\necho \"$word\" >> ledger\necho \"$word, done\"\n",
    );
    let new = ["chat", "new", "--command", agent.to_str().unwrap()];
    world.wg(&new).ok();
    world.wg(&["service", "start"]).ok();
    assert_eq!(world.wg(&["chat", "first"]).ok().stdout, "first, done\n");
    let holder = stopped_with(&world, OUTBOX);
    world.wg(&["chat", "send", "0", "second"]).ok();
    world.wait_for_file(".wg/chat/.chat-0/handler.log", |text| {
        text.contains("the reply waits to be written")
    });
    let_go(holder);
    let outbox = world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
        text.matches("\"id\":").count() == 2 && text.ends_with('\n')
    });
    let last: Value = serde_json::from_str(outbox.lines().last().unwrap()).unwrap();
    assert_eq!(last["content"], "second, done", "{last}");
    assert_eq!(last["role"], "coordinator", "{last}");
    assert_eq!(world.read("ledger"), "first\nsecond\n");
    world.stop();
}

#[test]
fn a_handler_whose_reply_waits_for_its_file_can_be_stopped() {
    let world = served();
    let holder = stopped_with(&world, OUTBOX);
    world.wg(&["chat", "send", "0", "again"]).ok();
    world.wait_for_file(".wg/chat/.chat-0/handler.log", |text| {
        text.contains("the reply waits to be written")
    });
    world.wg(&["chat", "stop", "0"]).ok();
    let_go(holder);
    world.wg(&["chat", "resume", "0"]).ok();
    world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
        text.lines()
            .any(|line| line.contains("\"in_reply_to\":2") && line.ends_with('}'))
    });
    world.stop();
}

#[test]
fn the_service_says_that_it_has_started_before_it_says_what_it_found() {
    let world = served();
    let service = Pid::from_raw(world.daemon_pid());
    kill(service, Signal::SIGKILL).unwrap();
    wait_gone(service.as_raw());
    world.wg(&["service", "start"]).ok();
    world.stop();
    let events = world.read(".wg/service/events.jsonl");
    let kinds: Vec<String> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].to_string())
        .collect();
    let started = kinds.iter().rposition(|kind| kind == "\"daemon_started\"");
    let adopted = kinds.iter().position(|kind| kind == "\"adopted\"");
    assert!(adopted.is_some() && started < adopted, "{kinds:?}");
}
