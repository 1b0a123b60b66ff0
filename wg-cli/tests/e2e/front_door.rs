//! `wg up` on a fresh machine.

use nix::unistd::geteuid;

use crate::world::{WG, World, on_path};

#[test]
fn up_in_an_empty_directory_answers_and_answers_again() {
    let world = World::new();
    let first = world.wg(&["up", "hello"]).ok();
    assert_eq!(first.stdout, "hello\n", "{}", first.stderr);
    let second = world.wg(&["up", "hello again"]).ok();
    assert_eq!(second.stdout, "hello again\n");
    assert_eq!(second.stderr, "", "nothing had to be set up");
    assert_eq!(
        world.json(&["chat", "list"])["chats"]
            .as_array()
            .unwrap()
            .len(),
        1,
        "one chat serves both"
    );
    world.stop();
}

#[test]
fn a_piped_line_is_answered_before_the_next_one_is_written() {
    let world = World::new();
    let mut up = world.start(&["up"]);
    for line in ["one", "two words", "größe", "four"] {
        up.say(&format!("{line}\n"));
        assert_eq!(up.line(), line);
    }
    up.hang_up();
    up.finish().ok();
    world.stop();
}

#[test]
fn piped_lines_are_answered_in_order_and_blank_ones_are_no_messages() {
    let world = World::new();
    let done = world
        .wg_with(&["up"], b"one\n\n  \ntwo\r\nlast line without its end")
        .ok();
    assert_eq!(done.stdout, "one\ntwo\nlast line without its end\n");
    world.stop();
}

#[test]
fn up_with_nothing_to_say_and_nobody_there_sets_up_and_leaves() {
    let world = World::new();
    let done = world.wg(&["up"]).ok();
    assert_eq!(done.stdout, "");
    assert_eq!(world.json(&["service", "status"])["status"], "running");
    world.stop();
}

#[test]
fn service_stop_leaves_no_process_and_a_second_one_has_nothing_to_do() {
    let world = World::new();
    world.wg(&["up", "hello"]).ok();
    assert!(
        world.processes().len() >= 2,
        "a daemon and a handler: {:?}",
        world.processes()
    );
    let stopped = world.wg(&["service", "stop"]).ok();
    assert!(
        stopped.stdout.starts_with("Service stopped (PID "),
        "{}",
        stopped.stdout
    );
    assert!(world.processes().is_empty(), "{:?}", world.processes());
    assert_eq!(
        world.wg(&["service", "stop"]).ok().stdout,
        "Service not running\n"
    );
}

#[test]
fn a_second_start_says_that_the_service_runs_already() {
    let world = World::with_workspace();
    world.wg(&["service", "start"]).ok();
    let again = world.wg(&["service", "start"]).ok();
    assert!(
        again.stdout.starts_with(&format!(
            "Service already running (PID {})",
            world.daemon_pid()
        )),
        "{}",
        again.stdout
    );
    world.stop();
}

#[test]
fn a_message_that_was_sent_while_nothing_ran_is_answered_once_the_service_is_up() {
    let world = World::with_workspace();
    world.wg(&["chat", "new", "--name", "docs"]).ok();
    let sent = world.json(&["chat", "send", "docs", "are you there?"]);
    assert_eq!(
        (sent["inbox_id"].as_u64(), sent["service_running"].as_bool()),
        (Some(1), Some(false))
    );
    assert!(world.processes().is_empty(), "sending starts nothing");
    world.wg(&["service", "start"]).ok();
    world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
        text.contains("are you there?") && text.ends_with('\n')
    });
    world.stop();
}

#[test]
fn reading_verbs_start_nothing() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["chat", "send", "0", "hello"]).ok();
    for verb in [
        &["which"][..],
        &["list"],
        &["chat", "list"],
        &["chat", "read", "0"],
        &["chat", "show", "0"],
        &["session", "status", "0"],
        &["session", "list"],
        &["service", "status"],
        &["why"],
        &["why", "0"],
    ] {
        world.wg(verb).ok();
        assert!(
            world.processes().is_empty(),
            "{verb:?} started {:?}",
            world.processes()
        );
    }
    assert!(!world.path(".wg/service/daemon.sock").exists());
}

#[test]
fn several_up_at_once_in_an_empty_directory_make_one_workspace_and_one_chat() {
    let world = World::new();
    let messages = ["one", "two", "three", "four", "five", "six"];
    let all: Vec<_> = messages
        .iter()
        .map(|message| world.start(&["up", message]))
        .collect();
    for (up, message) in all.into_iter().zip(messages) {
        assert_eq!(up.finish().ok().stdout, format!("{message}\n"));
    }
    let list = world.json(&["chat", "list"]);
    assert_eq!(list["chats"].as_array().unwrap().len(), 1, "{list}");
    world.stop();
}

#[test]
fn up_makes_whole_what_was_killed_while_it_was_being_made() {
    for files in [&[][..], &[".gitignore"], &[".gitignore", "config.toml"]] {
        let world = World::new();
        std::fs::create_dir(world.path(".wg")).unwrap();
        for file in files {
            std::fs::write(world.path(".wg").join(file), "").unwrap();
        }
        let done = world.wg(&["up", "hello"]).ok();
        assert_eq!(done.stdout, "hello\n", "with {files:?}: {}", done.stderr);
        world.stop();
    }
}

#[test]
fn up_makes_its_workspace_in_the_directory_that_it_was_given() {
    for (there, by_flag) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut world = World::new();
        let given = world.path("project");
        let given = given.to_str().unwrap().to_owned();
        if there {
            std::fs::create_dir(&given).unwrap();
        }
        let done = if by_flag {
            world.wg(&["up", "hello", "--dir", &given]).ok()
        } else {
            world.set("WG_DIR", &given);
            world.wg(&["up", "hello"]).ok()
        };
        assert_eq!(done.stdout, "hello\n", "{}", done.stderr);
        assert!(!world.path(".wg").exists(), "it was made elsewhere");
        assert!(world.path("project/.wg/graph.jsonl").is_file());
        world.set("WG_DIR", &given);
        world.stop();
    }
}

#[test]
fn a_workspace_of_any_name_is_served_by_its_own_path() {
    let world = World::with_workspace();
    std::fs::rename(world.path(".wg"), world.path("data")).unwrap();
    world.wg(&["--dir", "data", "chat", "new"]).ok();
    world.wg(&["--dir", "data", "service", "start"]).ok();
    let done = world.wg(&["--dir", "data", "chat", "hello"]).ok();
    assert_eq!(done.stdout, "hello\n");
    assert!(!world.path(".wg").exists());
    world.wg(&["--dir", "data", "service", "stop"]).ok();
}

/// In a container, and on a build machine, the session's leader and the group's may be outside the pid namespace: the kernel
/// then gives 0 for both.
#[test]
fn a_chat_is_answered_where_the_session_leader_is_outside_the_pid_namespace() {
    let world = World::new();
    let script = format!("'{WG}' up hello && '{WG}' service stop >/dev/null");
    let isolated = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    let mut command = match on_path("unshare") {
        Some(unshare) if geteuid().is_root() => {
            let mut command = world.command(unshare);
            command.args(isolated).arg("/bin/sh");
            command
        }
        // Without the right to make a namespace the plain case remains.
        _ => world.command("/bin/sh"),
    };
    command.args(["-c", &script]);
    let done = World::run(command, b"").ok();
    assert_eq!(done.stdout, "hello\n", "{}", done.stderr);
}
