//! What becomes of a message, whatever its agent does.

use crate::world::{World, kill};
use wg_cli::exit_code::ExitCode;
use wg_cli::store::messages::{Cursor, Role, read_cursor};

/// Sends one message, waits for its answer, stops the handler, and returns the answer.
#[track_caller]
fn one_turn(world: &World, text: &str) -> wg_cli::store::messages::Message {
    let id = world.send(text);
    let handler = world.handler();
    let answer = world.answer_to(id);
    world.wait_until("moved cursor", || {
        [Cursor::Nex, Cursor::Coordinator]
            .iter()
            .all(|cursor| read_cursor(&world.session, *cursor).ok() == Some(id))
    });
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
    assert_eq!(world.unanswered(), Vec::<u64>::new());
    answer
}

/// Sends two messages; the first must be answered by a system error that names all of these, the second by a reply.
#[track_caller]
fn fails_then_goes_on(world: &World, parts: &[&str]) {
    let (first, second) = (world.send("first"), world.send("second"));
    let handler = world.handler();
    let answer = world.answer_to(first);
    assert_eq!(answer.role, Role::SystemError, "{answer:?}");
    for part in parts {
        assert!(
            answer.content.contains(part),
            "`{part}` is missing in:\n{}",
            answer.content
        );
    }
    assert_eq!(world.answer_to(second).role, Role::Coordinator);
    assert_eq!(world.outbox().len(), 2, "one answer each");
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
}

#[test]
fn a_filter_is_an_agent() {
    let world = World::with_agent(&["tr", "a-z", "A-Z"]);
    let answer = one_turn(&world, "hello, wörld");
    assert_eq!(
        (answer.role, answer.content.as_str()),
        (Role::Coordinator, "HELLO, WöRLD")
    );
    let turn = answer.turn.expect("a reply tells of its turn");
    assert_eq!(
        (turn.exit.as_deref(), turn.attempt, turn.ended_children),
        (Some("exit code 0"), 1, None)
    );
    assert!(turn.started_at <= turn.ended_at);
}

#[test]
fn the_built_in_echo_needs_nothing_installed() {
    let world = World::with_config("", "");
    let config = std::fs::read_to_string(world.workspace.config_path()).unwrap();
    std::fs::write(
        world.workspace.config_path(),
        config.replace("\"test\"", "\"echo\""),
    )
    .unwrap();
    assert_eq!(one_turn(&world, "hello").content, "hello");
}

#[test]
fn messages_are_answered_in_their_order_each_once() {
    let world = World::with_agent(&["cat"]);
    let ids: Vec<u64> = (0..20)
        .map(|n| world.send(&format!("message {n}")))
        .collect();
    let handler = world.handler();
    world.answer_to(*ids.last().unwrap());
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
    let outbox = world.outbox();
    let replies: Vec<(Option<u64>, &str)> = outbox
        .iter()
        .map(|reply| (reply.in_reply_to, reply.content.as_str()))
        .collect();
    let texts: Vec<String> = (0..20).map(|n| format!("message {n}")).collect();
    let expected: Vec<(Option<u64>, &str)> = ids
        .iter()
        .zip(&texts)
        .map(|(id, text)| (Some(*id), text.as_str()))
        .collect();
    assert_eq!(replies, expected);
}

#[test]
fn a_message_that_arrives_while_the_handler_waits_is_answered() {
    let world = World::with_agent(&["cat"]);
    let handler = world.handler();
    world.wait_locked_by(handler.pid());
    let first = world.send("one");
    assert_eq!(world.answer_to(first).content, "one");
    let second = world.send("two");
    assert_eq!(world.answer_to(second).content, "two");
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
}

#[test]
fn an_agent_may_keep_a_file_between_its_turns() {
    let program = "import os, sys
path = os.path.join(os.environ['WG_DIR'], 'count')
count = int(open(path).read()) if os.path.exists(path) else 0
open(path, 'w').write(str(count + 1))
print(f'{sys.stdin.read().strip()} {count}')";
    let world = World::with_agent(&["python3", "-c", program]);
    assert_eq!(one_turn(&world, "first").content, "first 0");
    assert_eq!(one_turn(&world, "second").content, "second 1");
}

#[test]
fn a_reply_can_be_watched_while_it_grows() {
    let world = World::with_script("printf one; cat $D/gate >/dev/null; echo two");
    world.fifo("gate");
    let id = world.send("go");
    let handler = world.handler();
    let streaming = world.session.join(".streaming");
    world.wait_until("growing reply", || {
        std::fs::read(&streaming).is_ok_and(|bytes| bytes == b"one")
    });
    assert_eq!(world.outbox(), Vec::new());
    world.open_gate("gate");
    assert_eq!(world.answer_to(id).content, "onetwo");
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
    assert!(
        !streaming.exists(),
        "a reply that is complete no longer grows"
    );
}

#[test]
fn an_agent_that_ends_at_once_gives_an_empty_reply() {
    let world = World::with_agent(&["true"]);
    let answer = one_turn(&world, "hello");
    assert_eq!(
        (answer.role, answer.content.as_str()),
        (Role::Coordinator, "")
    );
}

#[test]
fn an_agent_that_fails_is_answered_once_with_evidence_and_the_handler_stays() {
    let script = "read line; case $line in first) echo half; echo the cause >&2; exit 3;; *) echo fine;; esac";
    fails_then_goes_on(
        &World::with_script(script),
        &["exit code 3", "the cause", "half", "wg chat retry chat-0 1"],
    );
}

#[test]
fn an_agent_that_dies_of_a_signal_is_answered_with_its_name() {
    let script = "read line; case $line in first) kill -9 $$;; *) echo fine;; esac";
    fails_then_goes_on(&World::with_script(script), &["SIGKILL"]);
}

#[test]
fn codes_of_a_shell_mean_nothing_special_from_another_program() {
    let script = "read line; case $line in first) exit 127;; *) echo fine;; esac";
    fails_then_goes_on(&World::with_script(script), &["exit code 127"]);
}

#[test]
fn an_agent_that_does_not_exist_is_answered_and_parks_the_chat() {
    let world = World::with_agent(&["/nowhere/agent"]);
    let id = world.send("hello");
    let handler = world.handler();
    handler.leaves_with(ExitCode::Config);
    let answer = world.answer_to(id);
    assert_eq!(answer.role, Role::SystemError);
    assert!(
        answer.content.contains("/nowhere/agent"),
        "{}",
        answer.content
    );
}

#[test]
fn a_working_directory_that_does_not_exist_is_named() {
    let world = World::with_script_and("cat", "cwd = \"/nowhere/dir\"", "");
    let id = world.send("hello");
    world.handler().leaves_with(ExitCode::Config);
    assert!(world.answer_to(id).content.contains("/nowhere/dir"));
}

#[test]
fn a_command_that_a_shell_cannot_run_parks_the_chat() {
    for (command, code) in [("no-such-command-at-all", "127"), ("/", "126")] {
        let world = World::with_agent(&["sh", "-c", command]);
        let id = world.send("hello");
        world.handler().leaves_with(ExitCode::Config);
        let answer = world.answer_to(id);
        assert_eq!(answer.role, Role::SystemError);
        assert!(answer.content.contains(code), "{}", answer.content);
    }
}

#[test]
fn code_78_is_answered_and_parks_the_chat() {
    let world = World::with_script("echo no key >&2; exit 78");
    let id = world.send("hello");
    world.handler().leaves_with(ExitCode::Config);
    assert!(world.answer_to(id).content.contains("no key"));
}

#[test]
fn code_69_leaves_the_message_unread_however_often() {
    let world = World::with_script("test -e $D/up && exec cat; exit 69");
    let id = world.send("hello");
    for _ in 0..3 {
        world.handler().leaves_with(ExitCode::Unavailable);
        assert_eq!((world.unanswered(), world.outbox()), (vec![id], Vec::new()));
    }
    std::fs::write(world.path("up"), "").unwrap();
    let handler = world.handler();
    let answer = world.answer_to(id);
    assert_eq!(
        (answer.content.as_str(), answer.turn.unwrap().attempt),
        ("hello", 1)
    );
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
}

#[test]
fn an_agent_that_never_reads_does_not_block_its_turn() {
    let world = World::with_agent(&["echo", "did not listen"]);
    assert_eq!(
        one_turn(&world, &"x".repeat(1 << 20)).content,
        "did not listen"
    );
}

#[test]
fn a_long_message_arrives_whole_at_a_slow_reader() {
    let world = World::with_agent(&["wc", "-c"]);
    assert_eq!(
        one_turn(&world, &"x".repeat(1 << 20)).content.trim(),
        "1048577"
    );
}

#[test]
fn ten_megabytes_are_bounded_and_the_gap_is_named() {
    let world = World::with_script("head -c 10000000 /dev/zero | tr '\\0' x; echo; echo the end");
    let content = one_turn(&world, "go").content;
    assert!(content.len() < 5 << 20, "{} bytes", content.len());
    assert!(content.starts_with("xxx") && content.ends_with("\nthe end"));
    assert!(content.contains("bytes left out"));
}

#[test]
fn invalid_utf_8_is_replaced_in_the_reply() {
    let world = World::with_script("printf 'a\\377b\\n'");
    assert_eq!(one_turn(&world, "go").content, "a\u{fffd}b");
}

#[test]
fn a_background_process_that_holds_stdout_does_not_delay_the_reply_and_is_ended() {
    let world = World::with_script("sleep 1000 & echo done");
    let answer = one_turn(&world, "go");
    assert_eq!(answer.content, "done");
    assert_eq!(answer.turn.unwrap().ended_children, Some(1));
}

#[test]
fn what_left_its_session_ignores_signals_and_forks_twice_is_ended_too() {
    let world = World::with_script(
        "mkfifo $D/up; (setsid sh -c 'trap \"\" TERM HUP INT; (setsid sleep 1000 &) ; echo up >'$D'/up; sleep 1000' &) ; \
         cat $D/up",
    );
    let answer = one_turn(&world, "go");
    assert_eq!(answer.content, "up");
    assert!(answer.turn.unwrap().ended_children >= Some(2));
}

#[test]
fn leave_children_leaves_them() {
    let world = World::with_script_and("sleep 1000 & echo done", "leave_children = true", "");
    let answer = one_turn(&world, "go");
    assert_eq!(
        (answer.content.as_str(), answer.turn.unwrap().ended_children),
        ("done", None)
    );
    assert_eq!(world.sweep(), 1);
}

#[test]
fn the_message_is_an_argument_under_protocol_arg_and_stdin_is_empty() {
    let world = World::with_config(
        "[agents.test]\ncommand = [\"sh\", \"-c\", \"echo \\\"$1\\\"; cat\", \"agent\", \"{message}\"]\nprotocol = \"arg\"\n",
        "",
    );
    assert_eq!(one_turn(&world, "a 'b' \"c\" $D").content, "a 'b' \"c\" $D");
}

#[test]
fn a_message_too_long_for_a_command_line_fails_alone() {
    let world = World::with_config(
        "[agents.test]\ncommand = [\"echo\", \"{message}\"]\nprotocol = \"arg\"\n",
        "",
    );
    let (long, short) = (world.send(&"x".repeat(4 << 20)), world.send("short"));
    let handler = world.handler();
    assert_eq!(world.answer_to(long).role, Role::SystemError);
    assert_eq!(world.answer_to(short).content, "short");
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
}

#[test]
fn an_agent_finds_its_chat_in_its_environment_and_no_mark_of_an_outer_agent() {
    let world = World::with_agent(&["env"]);
    let id = world.send("go");
    let handler = world.start(
        world
            .wg(&["nex", "--chat", "chat-0"])
            .env("CLAUDECODE", "1")
            .env("CLAUDE_CODE_SESSION_ID", "x")
            .env("CODEX_THREAD_ID", "x")
            .env("CLAUDE_CODE_USE_BEDROCK", "1"),
    );
    let content = world.answer_to(id).content;
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
    let has = |line: &str| content.lines().any(|found| found.starts_with(line));
    assert!(has("WG_CHAT_REF=chat-0"), "{content}");
    assert!(has(&format!("WG_DIR={}", world.workspace.root().display())));
    assert!(has(&format!("WG_SESSION={}/chat-0/", world.workspace.id())));
    assert!(has("WG_REQUEST_ID=chat-"));
    assert!(has("CLAUDE_CODE_USE_BEDROCK=1"));
    assert!(
        !has("CLAUDECODE=") && !has("CLAUDE_CODE_SESSION_ID=") && !has("CODEX_THREAD_ID="),
        "{content}"
    );
}

#[test]
fn error_output_is_kept_in_a_file_of_its_own() {
    let world = World::with_script("echo thinking >&2; echo fine");
    assert_eq!(one_turn(&world, "go").content, "fine");
    let kept = std::fs::read_to_string(world.session.join("agent-stderr.log")).unwrap();
    assert_eq!(kept, "thinking\n");
}

#[test]
fn an_agent_without_output_or_cpu_time_is_ended_at_its_ceiling() {
    let script = "read line; case $line in first) cat $D/gate;; *) echo fine;; esac";
    let world = World::with_script_and(script, "stall_ceiling = \"200ms\"", "");
    world.fifo("gate");
    fails_then_goes_on(&world, &["no progress"]);
}

#[test]
fn an_interrupt_ends_the_turn_and_not_the_chat() {
    let script = "read line; case $line in first) echo half; cat $D/gate;; *) echo fine;; esac";
    let world = World::with_script(script);
    world.fifo("gate");
    let first = world.send("first");
    let handler = world.handler();
    world.wait_until("running turn", || {
        std::fs::read(world.session.join(".streaming")).is_ok_and(|b| b == b"half\n")
    });
    handler.signal("INT");
    let answer = world.answer_to(first);
    assert_eq!(answer.role, Role::SystemError);
    assert!(
        answer.content.contains("interrupted") && answer.content.contains("half"),
        "{}",
        answer.content
    );
    let second = world.send("second");
    assert_eq!(world.answer_to(second).content, "fine");
    handler.signal("TERM");
    handler.leaves_with(ExitCode::Released);
}

#[test]
fn a_daemonised_service_of_another_lock_is_no_leftover_of_its_agent() {
    // What has a lock of its own in this workspace is a daemon or another handler that was started from inside the chat.
    let world = World::with_script(
        "mkfifo $D/up; (setsid sh -c 'echo $$ > '$D'/pid; echo up > '$D'/up; exec sleep 1000' >/dev/null 2>&1 &); cat $D/up; \
         mkdir -p $D/.wg/service; \
         printf '%s\\n2026-01-01T00:00:00Z\\nother\\n' $(cat $D/pid) > $D/.wg/service/.handler.pid",
    );
    let answer = one_turn(&world, "go");
    assert_eq!(
        (answer.content.as_str(), answer.turn.unwrap().ended_children),
        ("up", None)
    );
    let pid: u32 = std::fs::read_to_string(world.path("pid"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert_eq!(world.processes().into_iter().collect::<Vec<_>>(), [pid]);
    kill(pid, "KILL");
    world.sweep();
}
