//! How a handler comes to its chat, how it leaves, and what its death leaves behind.

use std::process::Stdio;

use crate::world::World;
use wg_cli::clock;
use wg_cli::exit_code::ExitCode;
use wg_cli::patience::Patience;
use wg_cli::presence::Presence;
use wg_cli::store::chat_state::ChatRecord;
use wg_cli::store::exit_record::ExitRecord;
use wg_cli::store::graph::Graph;
use wg_cli::store::messages::Role;

/// An agent that says when it runs and then waits; its second run answers at once.
const WAITS_ONCE: &str = "test -e $D/seen && exec cat; touch $D/seen; echo up > $D/up; cat $D/gate";

#[test]
fn the_lock_names_the_handler_while_it_runs_and_is_gone_after() {
    let world = World::with_agent(&["cat"]);
    let handler = world.handler();
    world.wait_locked_by(handler.pid());
    let record = std::fs::read_to_string(world.session.join(".handler.pid")).unwrap();
    let lines: Vec<&str> = record.lines().collect();
    assert_eq!(
        (lines[0], lines[2]),
        (handler.pid().to_string().as_str(), "chat-nex")
    );
    let at_line2 = lines[1].to_owned();
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
    assert!(!world.session.join(".handler.pid").exists());
    assert_eq!(
        ExitRecord::read(&world.session).unwrap().unwrap().at_line2,
        at_line2
    );
}

#[test]
fn a_second_handler_leaves_at_once_and_names_the_first() {
    let world = World::with_agent(&["cat"]);
    let first = world.handler();
    world.wait_locked_by(first.pid());
    let second = world.handler();
    let (status, errors) = second.ended();
    assert_eq!(
        status.code(),
        Some(i32::from(ExitCode::Held.code())),
        "{errors}"
    );
    assert!(
        errors.contains(&format!("pid={}", first.pid())) && errors.contains("chat-nex"),
        "{errors}"
    );
    first.signal("TERM");
    first.leaves_with(ExitCode::Released);
}

#[test]
fn a_wish_against_it_is_read_after_the_lock_is_taken() {
    for wish in ["stopped", "archived", "purged"] {
        let world = World::with_agent(&["cat"]);
        ChatRecord::update(&world.workspace, world.chat, |record| match wish {
            "stopped" => record.stopped_at = Some(clock::now()),
            "archived" => record.archived_at = Some(clock::now()),
            _ => record.purged_at = Some(clock::now()),
        })
        .unwrap();
        let id = world.send("hello");
        world.handler().leaves_with(ExitCode::Released);
        assert_eq!(
            (world.unanswered(), world.outbox()),
            (vec![id], Vec::new()),
            "{wish}"
        );
    }
}

#[test]
fn a_chat_that_is_archived_in_the_graph_alone_is_not_served() {
    let world = World::with_agent(&["cat"]);
    Graph::edit(&world.workspace, |graph| {
        graph.archive(world.chat, "tester", "archived by another tool")
    })
    .unwrap();
    let id = world.send("hello");
    world.handler().leaves_with(ExitCode::Released);
    assert_eq!(world.unanswered(), [id]);
}

#[test]
fn a_handler_that_nobody_needs_leaves() {
    let world = World::with_script_and("cat", "", "idle_timeout = \"100ms\"");
    let id = world.send("hello");
    let handler = world.handler();
    assert_eq!(world.answer_to(id).content, "hello");
    handler.leaves_with(ExitCode::IdleLeft);
}

#[test]
fn a_consumer_keeps_a_handler_until_it_goes() {
    let world = World::with_script_and("cat", "", "idle_timeout = \"50ms\"");
    let presence =
        Presence::announce(&world.workspace, world.chat, "screen", Patience::Forever).unwrap();
    let handler = world.handler();
    world.wait_locked_by(handler.pid());
    // Twenty turns are many idle times; a handler that counted only messages would have left between two of them.
    for n in 0..20 {
        let id = world.send(&n.to_string());
        world.answer_to(id);
    }
    drop(presence);
    handler.leaves_with(ExitCode::IdleLeft);
}

#[test]
fn an_autonomous_handler_answers_what_is_there_and_leaves() {
    let world = World::with_agent(&["cat"]);
    let (first, second) = (world.send("one"), world.send("two"));
    world
        .start(&mut world.wg(&["nex", "--chat", "chat-0", "--autonomous"]))
        .leaves_with(ExitCode::Ok);
    assert_eq!(world.answer_to(first).content, "one");
    assert_eq!(world.answer_to(second).content, "two");
}

#[test]
fn a_release_request_is_obeyed_between_turns() {
    let world = World::with_agent(&["cat"]);
    let handler = world.handler();
    world.wait_locked_by(handler.pid());
    session_lock::request_release(&world.session).unwrap();
    handler.leaves_with(ExitCode::Released);
}

#[test]
fn a_release_request_in_a_turn_waits_for_its_reply() {
    let world = World::with_script(WAITS_ONCE);
    world.fifo("up");
    world.fifo("gate");
    let (first, second) = (world.send("first"), world.send("second"));
    let handler = world.handler();
    world.wait_at("up");
    session_lock::request_release(&world.session).unwrap();
    world.open_gate("gate");
    handler.leaves_with(ExitCode::Released);
    assert_eq!(world.answer_to(first).content, "go");
    assert_eq!(world.unanswered(), [second]);
}

#[test]
fn a_stop_in_a_turn_that_was_silent_leaves_its_message_unread() {
    let world = World::with_script(WAITS_ONCE);
    world.fifo("up");
    world.fifo("gate");
    let id = world.send("hello");
    let handler = world.handler();
    world.wait_at("up");
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
    assert_eq!((world.unanswered(), world.outbox()), (vec![id], Vec::new()));
    let handler = world.handler();
    let answer = world.answer_to(id);
    assert_eq!(
        (answer.content.as_str(), answer.turn.unwrap().attempt),
        ("hello", 2)
    );
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
}

#[test]
fn a_stop_in_a_turn_that_had_spoken_answers_with_what_there_is() {
    let world = World::with_script("echo half; echo up > $D/up; cat $D/gate");
    world.fifo("up");
    world.fifo("gate");
    let id = world.send("hello");
    let handler = world.handler();
    world.wait_at("up");
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
    let answer = world.answer_to(id);
    assert_eq!(answer.role, Role::SystemError);
    assert!(answer.content.contains("half"), "{}", answer.content);
}

#[test]
fn an_agent_that_ignores_its_stop_signal_is_killed_after_the_grace() {
    let script = "trap '' TERM INT; echo up > $D/up; while :; do cat $D/gate; done";
    let world = World::with_script_and(script, "", "");
    let config = std::fs::read_to_string(world.workspace.config_path()).unwrap();
    std::fs::write(
        world.workspace.config_path(),
        config.replace("\"5s\"", "\"100ms\""),
    )
    .unwrap();
    world.fifo("up");
    world.fifo("gate");
    world.send("hello");
    let handler = world.handler();
    world.wait_at("up");
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
}

#[test]
fn a_second_stop_hurries() {
    // The shell answers the first stop at the FIFO and then goes on as if nothing had happened.
    let script =
        "trap 'echo got > $D/got' TERM; echo up > $D/up; while :; do cat $D/gate & wait; done";
    let world = World::with_script_and(script, "", "");
    let config = std::fs::read_to_string(world.workspace.config_path()).unwrap();
    std::fs::write(
        world.workspace.config_path(),
        config.replace("\"5s\"", "\"1h\""),
    )
    .unwrap();
    for fifo in ["up", "gate", "got"] {
        world.fifo(fifo);
    }
    world.send("hello");
    let handler = world.handler();
    world.wait_at("up");
    handler.signal("TERM");
    world.wait_at("got");
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
}

#[test]
fn a_message_whose_handler_was_killed_in_silence_is_taken_again() {
    let world = World::with_script(WAITS_ONCE);
    world.fifo("up");
    world.fifo("gate");
    let id = world.send("hello");
    let handler = world.handler();
    world.wait_at("up");
    handler.dies();
    // The agent still runs and has the lock that was lent to it; the next handler proves it its own and ends it.
    let handler = world.handler();
    let answer = world.answer_to(id);
    assert_eq!(
        (answer.content.as_str(), answer.turn.unwrap().attempt),
        ("hello", 2)
    );
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
    assert_eq!(world.outbox().len(), 1);
}

#[test]
fn a_message_whose_agent_had_spoken_when_its_handler_was_killed_is_answered_with_what_there_is() {
    let world = World::with_script("echo I pushed; echo up > $D/up; cat $D/gate");
    world.fifo("up");
    world.fifo("gate");
    let id = world.send("hello");
    let handler = world.handler();
    world.wait_at("up");
    world.wait_until("output", || {
        std::fs::read(world.session.join(".streaming")).is_ok_and(|bytes| !bytes.is_empty())
    });
    handler.dies();
    let handler = world.handler();
    let answer = world.answer_to(id);
    assert_eq!(answer.role, Role::SystemError);
    assert!(
        answer.content.contains("I pushed") && answer.content.contains("wg chat retry"),
        "{}",
        answer.content
    );
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
}

#[test]
fn one_message_cannot_kill_a_chat_for_ever() {
    let world = World::with_script(
        "read line; test $line = fine && echo fine; echo up > $D/up; cat $D/gate",
    );
    world.fifo("up");
    world.fifo("gate");
    let id = world.send("deadly");
    for _ in 0..2 {
        let handler = world.handler();
        world.wait_at("up");
        handler.dies();
    }
    let handler = world.handler();
    let answer = world.answer_to(id);
    assert_eq!(answer.role, Role::SystemError);
    assert!(answer.content.contains("2 turns"), "{}", answer.content);
    assert_eq!(world.outbox().len(), 1);
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
}

#[test]
fn a_handler_that_cannot_read_its_configuration_says_so_and_leaves_a_note() {
    let world = World::with_agent(&["cat"]);
    std::fs::write(
        world.workspace.config_path(),
        "[service]\nidle_timeout = \"soon\"\n",
    )
    .unwrap();
    let errors = world.handler().leaves_with(ExitCode::Config);
    assert!(errors.contains("idle_timeout"), "{errors}");
}

#[test]
fn spawn_task_becomes_the_handler_whatever_form_the_reference_has() {
    let world = World::with_agent(&["cat"]);
    for reference in [".chat-0", "chat-0", "0", ".coordinator-0"] {
        let handler = world.start(&mut world.wg(&["spawn-task", reference]));
        world.wait_locked_by(handler.pid());
        handler.signal("TERM");
        handler.leaves_with(ExitCode::Released);
    }
}

#[test]
fn spawn_task_of_an_unknown_task_says_so() {
    let world = World::with_agent(&["cat"]);
    let output = world.wg(&["spawn-task", ".chat-9"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("no such task: .chat-9"),
        "{output:?}"
    );
}

#[test]
fn spawn_task_can_print_what_it_would_run() {
    let world = World::with_agent(&["cat"]);
    let output = world
        .wg(&["spawn-task", ".chat-0", "--dry-run"])
        .output()
        .unwrap();
    let expected = format!(
        "wg --dir {} nex --chat chat-0\n",
        world.workspace.root().display()
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert!(output.status.success());
}

#[test]
fn one_message_on_the_command_line_is_answered_on_stdout() {
    let world = World::with_agent(&["tr", "a-z", "A-Z"]);
    let output = world.wg(&["nex", "hello"]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "HELLO\n",
        "{output:?}"
    );
    assert!(output.status.success());
}

#[test]
fn lines_of_stdin_are_answered_one_by_one_until_its_end() {
    let world = World::with_agent(&["tr", "a-z", "A-Z"]);
    let mut handler = world.start(world.wg(&["nex"]).stdin(Stdio::piped()));
    handler.say("one\ntwo\n\nthree");
    let output = handler.output();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "ONE\nTWO\nTHREE\n",
        "{output:?}"
    );
    assert!(output.status.success());
}

#[test]
fn eval_mode_prints_one_json_line_and_takes_no_lock() {
    let world = World::with_script(
        "read line; test $line = bad && { echo half; echo why >&2; exit 4; }; echo fine",
    );
    let output = world.wg(&["nex", "--eval-mode", "good"]).output().unwrap();
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&line["ok"], &line["reply"]),
        (&true.into(), &"fine".into())
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1);
    assert_eq!(output.status.code(), Some(0));

    let output = world.wg(&["nex", "--eval-mode", "bad"]).output().unwrap();
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["ok"], false);
    assert_eq!(output.status.code(), Some(1));
    let sessions = std::fs::read_dir(world.workspace.chat_root())
        .unwrap()
        .count();
    assert_eq!(sessions, 1, "only the chat's own");
}

#[test]
fn eval_mode_with_a_chat_goes_through_its_history() {
    let world = World::with_agent(&["cat"]);
    let output = world
        .wg(&["nex", "--chat", "chat-0", "--eval-mode", "hello"])
        .output()
        .unwrap();
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&line["ok"], &line["reply"]),
        (&true.into(), &"hello".into())
    );
    assert_eq!(world.outbox().len(), 1);
}
