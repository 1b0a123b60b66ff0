//! What is told, and with which code, where something is wrong, missing or hostile: one sentence on stderr, nothing on stdout, no panic.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use crate::world::{Done, World};

/// One line on stderr that begins with `error: ` and holds the words; nothing on stdout.
#[track_caller]
pub(crate) fn told(done: &Done, code: i32, words: &[&str]) {
    let done = done.with_code(code);
    assert_eq!(done.stdout, "", "{}", done.stderr);
    let lines: Vec<&str> = done
        .stderr
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(lines.len(), 1, "{}", done.stderr);
    assert!(
        lines[0].chars().count() < 1_200,
        "a flood: {} characters",
        lines[0].len()
    );
    assert!(!lines[0].chars().any(char::is_control), "{:?}", lines[0]);
    for word in words {
        assert!(
            lines[0].contains(word),
            "`{word}` is missing in: {}",
            lines[0]
        );
    }
}

#[test]
fn every_wrong_command_line_is_told_in_one_sentence_with_what_would_be_right() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    let table: &[(&[&str], &[&str])] = &[
        (&["lst"], &["`lst`", "did you mean list?"]),
        (
            &["chat", "lsit"],
            &["`lsit`", "did you mean list?", "wg chat -- lsit"],
        ),
        (&["service", "strat"], &["`strat`", "did you mean start?"]),
        (&["chat", "stop"], &["<REF>", "wg chat stop --help"]),
        (
            &["chat", "list", "--jsno"],
            &["`--jsno`", "did you mean --json?"],
        ),
        (&["chat", "hello", "--timeout", "soon"], &["`soon`", "30s"]),
        (&["chat", "hello", "--timeout=-1"], &["`-1`"]),
        (&["chat", "send", "0", ""], &["the message is empty"]),
        (&["up", "   "], &["the message is empty"]),
        (
            &["list", "--status", "nearly"],
            &["`nearly`", "in-progress"],
        ),
        (&["chat", "new", "--id", "chat-x"], &["`chat-x`", "chat-99"]),
        (
            &["chat", "new", "--id", "chat-4294967296"],
            &["is not a chat's number"],
        ),
        (&["chat", "new", "--cwd", "nowhere"], &["`nowhere`"]),
        (
            &["chat", "new", "--command", "cat", "--agent", "echo"],
            &["cannot be used with"],
        ),
        (&["completions", "csh"], &["`csh`", "bash"]),
        (&["--color", "sometimes", "list"], &["`sometimes`"]),
        (
            &[
                "service",
                "purge-chats",
                "--keep-active",
                "--include-active",
            ],
            &["cannot be used with"],
        ),
        (&["service", "set-executor", "0"], &["--executor"]),
    ];
    for (args, words) in table {
        told(&world.wg(args), 2, words);
    }
    assert!(world.processes().is_empty());
}

#[test]
fn a_verb_of_the_earlier_tool_that_is_not_here_is_refused_by_name_and_says_what_to_use() {
    let world = World::new();
    for verb in ["freeze", "thaw", "tick"] {
        told(
            &world.wg(&["service", verb]),
            2,
            &["is not built", "wg service pause"],
        );
    }
}

#[test]
fn without_a_workspace_every_verb_says_how_to_make_one() {
    let world = World::new();
    for verb in [
        &["which"][..],
        &["list"],
        &["chat", "list"],
        &["service", "start"],
        &["service", "status"],
        &["why"],
        &["session", "list"],
    ] {
        told(&world.wg(verb), 1, &["there is no workspace", "wg init"]);
    }
    assert!(!world.path(".wg").exists());
}

#[test]
fn init_over_a_workspace_is_refused_and_changes_nothing() {
    let world = World::with_workspace();
    let before = world.read(".wg/graph.jsonl");
    told(&world.wg(&["init"]), 1, &["WG already initialized at"]);
    assert_eq!(world.read(".wg/graph.jsonl"), before);
}

#[test]
fn with_the_service_down_what_needs_it_says_how_to_start_it() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    for verb in [
        &["service", "reload"][..],
        &["service", "pause"],
        &["service", "resume"],
    ] {
        told(
            &world.wg(verb),
            69,
            &["the service is not running", "wg service start"],
        );
    }
    world.wg(&["service", "status"]).ok();
    world.wg(&["service", "status", "--check"]).with_code(3);
    world.wg(&["service", "stop"]).ok();
}

#[test]
fn a_wrong_setting_is_named_with_file_line_and_key() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    fs::write(
        world.path(".wg/config.toml"),
        "[service]\nidle_timeout = \"300s\"\nstall_cieling = \"1s\"\n",
    )
    .unwrap();
    told(
        &world.wg(&["service", "start"]),
        78,
        &["config.toml", "3", "stall_cieling"],
    );
    fs::write(
        world.path(".wg/config.toml"),
        "[service]\nidle_timeout = \"later\"\n",
    )
    .unwrap();
    told(
        &world.wg(&["service", "start"]),
        78,
        &["config.toml", "2", "idle_timeout"],
    );
    assert!(world.processes().is_empty());
}

#[test]
fn reload_keeps_the_settings_in_force_where_the_new_ones_are_wrong() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "hello"]).ok();
    fs::write(
        world.path(".wg/config.toml"),
        "[service]\nidle_timeout = \"soon\"\n",
    )
    .unwrap();
    told(
        &world.wg(&["service", "reload"]),
        78,
        &["config.toml", "line 2", "idle_timeout"],
    );
    assert_eq!(
        world.wg(&["up", "still here?"]).ok().stdout,
        "still here?\n"
    );
    world.stop();
}

#[test]
fn an_agent_that_is_not_there_parks_its_chat_and_the_right_settings_free_it() {
    let world = World::with_workspace();
    let settings = |command: &str| {
        format!(
            "[service]\nagent = \"mine\"\n[agents.mine]\ncommand = [\"{command}\"]\nprotocol = \"stdin\"\n"
        )
    };
    fs::write(world.path(".wg/config.toml"), settings("/no/such/agent")).unwrap();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    told(
        &world.wg(&["chat", "hello"]),
        78,
        &["/no/such/agent", "wg why chat-0"],
    );
    told(
        &world.wg(&["chat", "hello again"]),
        78,
        &["chat-0 is parked", "the message waits in its inbox"],
    );
    fs::write(world.path(".wg/config.toml"), settings("cat")).unwrap();
    world.wg(&["service", "reload"]).ok();
    let outbox = world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
        text.lines().count() == 2 && text.ends_with('\n')
    });
    assert!(outbox.contains("hello again"));
    world.stop();
}

#[test]
fn whoever_waits_is_told_when_no_reply_will_come() {
    let world = World::with_workspace();
    fs::write(
        world.path(".wg/config.toml"),
        "[service]\nstop_grace = \"0.5s\"\n",
    )
    .unwrap();
    world
        .wg(&["chat", "new", "--command", "touch started; exec sleep 600"])
        .ok();
    told(
        &world.wg(&["chat", "hello"]),
        69,
        &["the service is not running", "wg service start"],
    );
    for (verb, words) in [
        (
            &["chat", "stop", "0"][..],
            &["chat-0 is stopped", "wg chat resume chat-0"],
        ),
        (
            &["service", "stop"],
            &["the service is not running", "wg service start"],
        ),
    ] {
        world.wg(&["service", "start"]).ok();
        world.wg(&["chat", "resume", "0"]).ok();
        let waiting = world.start(&["chat", "are you there?", "--timeout", "1h"]);
        // The turn has begun.
        world.wait_for_file("started", |_| true);
        world.wg(verb).ok();
        let done = waiting.finish();
        assert!(
            done.code() == 1 || done.code() == 69,
            "{}: {}",
            done.code(),
            done.stderr
        );
        assert!(
            words.iter().all(|word| done.stderr.contains(word))
                || done.stderr.contains("wg chat retry"),
            "{verb:?}: {}",
            done.stderr
        );
        fs::remove_file(world.path("started")).unwrap();
    }
    world.stop();
}

#[test]
fn a_question_that_nobody_can_answer_is_not_asked() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    told(
        &world.wg(&["chat", "delete", "0"]),
        2,
        &["confirmation", "--yes"],
    );
    world.wg(&["chat", "delete", "0", "--yes"]).ok();
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let world = World::with_workspace();
    for _ in 0..3 {
        world.wg(&["chat", "new"]).ok();
    }
    let mut command = world.command("/bin/sh");
    // The reader of the pipe is gone before anything is written.
    command.args([
        "-c",
        "exec 3>&1; { \"$0\" chat list --json; echo $? >&3; } | true",
        crate::world::WG,
    ]);
    let output = command.output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "0\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn an_output_that_cannot_be_written_is_an_error() {
    let world = World::with_workspace();
    let done = world.sh_unchecked(&format!("'{}' which > /dev/full", crate::world::WG));
    assert_eq!(done.code(), 71, "{}", done.stderr);
    assert!(
        done.stderr
            .starts_with("error: failed to write to standard output"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_held_session_that_is_not_released_in_time_is_told_with_75_and_its_holder() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    let planted = world.sh(
        "mkdir -p .wg/chat/.chat-0; setsid sleep 600 </dev/null >/dev/null 2>&1 & S=$!; \
         printf '%s\\n%s\\nadapter\\n' \"$S\" \"$(date -Iseconds)\" > .wg/chat/.chat-0/.handler.pid; echo $S",
        b"",
    );
    let pid = planted.stdout.trim().to_owned();
    let done = world
        .wg(&["session", "release", "chat-0", "--wait", "0.2"])
        .with_code(75);
    assert!(
        done.stderr.contains(&pid) && done.stderr.contains("wg session takeover chat-0"),
        "{}",
        done.stderr
    );
    assert_eq!(
        world.json(&["session", "status", ".chat-0"])["holder"]["pid"].to_string(),
        pid
    );
    // It cannot be proven to be the holder, and is not signalled unless that is asked for by name.
    assert!(done.stderr.contains("--allow-unproven"), "{}", done.stderr);
    for takeover in [
        &["session", "takeover", "0", "--force"][..],
        &["session", "takeover", "0"],
    ] {
        fs::remove_file(world.path(".wg/chat/.chat-0/.handler.release-requested")).ok();
        let done = world.wg(takeover).with_code(75);
        assert!(done.stderr.contains("--allow-unproven"), "{}", done.stderr);
        // Nobody waited to hear of it.
        assert!(
            !world
                .path(".wg/chat/.chat-0/.handler.release-requested")
                .exists()
        );
    }
    world
        .wg(&["session", "takeover", "0", "--force", "--allow-unproven"])
        .ok();
    assert_eq!(
        world.json(&["session", "status", "coordinator-0"])["state"],
        "stale"
    );
    assert!(world.processes().is_empty(), "{:?}", world.processes());
}

#[test]
fn somebody_elses_workspace_is_not_served() {
    if !nix::unistd::geteuid().is_root() {
        // Only root can give a file away.
        return;
    }
    let world = World::with_workspace();
    std::os::unix::fs::chown(world.path(".wg"), Some(4_242), None).unwrap();
    told(
        &world.wg(&["service", "start"]),
        77,
        &["belongs to user 4242"],
    );
    assert!(world.processes().is_empty());
}

#[test]
fn a_workspace_that_cannot_be_written_to_can_still_be_read() {
    if !nix::unistd::geteuid().is_root() {
        // Root is not kept out by modes, and others cannot become somebody else.
        return;
    }
    let world = World::with_workspace();
    world.wg(&["chat", "new", "--name", "docs"]).ok();
    world.wg(&["chat", "send", "docs", "hello"]).ok();
    let wg = world.copy_of_wg();
    world.sh("chmod 755 . .. ../bin", b"");
    let as_nobody = |args: &[&str]| {
        let mut command = world.command(&wg);
        std::os::unix::process::CommandExt::uid(&mut command, 65_534);
        command.args(args);
        World::run(command, b"")
    };
    for verb in [
        &["which"][..],
        &["list"],
        &["chat", "list"],
        &["chat", "show", "0"],
        &["chat", "read", "0"],
        &["why"],
        &["session", "list"],
    ] {
        assert!(!as_nobody(verb).ok().stdout.is_empty(), "{verb:?}");
    }
    for verb in [
        &["chat", "new"][..],
        &["chat", "send", "0", "hello"],
        &["chat", "hello"],
        &["chat", "stop", "0"],
        &["chat", "archive", "0"],
        &["up", "hello"],
        &["service", "start"],
        &["service", "purge-chats"],
        &["migrate", "chat-rename"],
    ] {
        told(&as_nobody(verb), 77, &[".wg"]);
    }
    assert!(world.processes().is_empty());
}

#[test]
fn a_service_that_was_stopped_by_a_signal_is_told_of_and_ended_by_force() {
    let world = World::new();
    world.wg(&["up", "hello"]).ok();
    let daemon = nix::unistd::Pid::from_raw(world.daemon_pid());
    nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGSTOP).unwrap();
    told(
        &world.wg(&["chat", "send", "0", "are you there?"]),
        69,
        &[
            "was stopped by a signal and does not answer",
            &format!("(kill -CONT {daemon} lets it go on; wg service stop --force ends it)"),
        ],
    );
    let stopped = world.wg(&["service", "stop", "--force"]).ok();
    assert!(
        stopped.stdout.starts_with("Service stopped (PID "),
        "{}",
        stopped.stdout
    );
    assert!(world.processes().is_empty(), "{:?}", world.processes());
    world.wg(&["up", "again"]).ok();
    world.stop();
}

#[test]
fn a_workspace_whose_path_is_no_text_is_refused_in_one_sentence() {
    let world = World::new();
    let odd = world.here().join(OsStr::from_bytes(b"\xff\xfe"));
    fs::create_dir(&odd).unwrap();
    let here = |args: &[&str]| {
        let mut command = world.command(crate::world::WG);
        let done = command.args(args).current_dir(&odd).output().unwrap();
        (
            done.status.code(),
            String::from_utf8_lossy(&done.stderr).into_owned(),
        )
    };
    let refused = |args: &[&str]| {
        let (code, stderr) = here(args);
        assert_eq!(code, Some(1), "{args:?}: {stderr}");
        assert!(
            stderr.starts_with("error: the path of the workspace is not UTF-8: "),
            "{stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    };
    refused(&["init"]);
    refused(&["up", "hello"]);
    assert_eq!(fs::read_dir(&odd).unwrap().count(), 0);
    fs::create_dir(odd.join(".wg")).unwrap();
    for verb in [
        &["which"][..],
        &["up", "hello"],
        &["chat", "list"],
        &["service", "start"],
    ] {
        refused(verb);
    }
}

#[test]
fn a_pipe_a_link_or_a_directory_in_the_place_of_the_events_is_told_of_and_nobody_hangs() {
    for (place, node) in [
        ("mkfifo .wg/service/events.jsonl", "a named pipe"),
        ("mkdir .wg/service/events.jsonl", "a directory"),
        (
            "ln -s /dev/zero .wg/service/events.jsonl",
            "a symbolic link",
        ),
    ] {
        let world = World::with_workspace();
        world.wg(&["chat", "new"]).ok();
        world.sh(
            &format!("mkdir -p .wg/service; rm -f .wg/service/events.jsonl; {place}"),
            b"",
        );
        for verb in [&["chat", "hello"][..], &["service", "events"]] {
            told(
                &world.wg(verb),
                78,
                &[
                    &format!("events.jsonl` is {node}, not a regular file"),
                    "move it away",
                ],
            );
        }
    }
}

#[test]
fn a_line_of_the_graph_that_cannot_be_read_is_named_by_the_list_with_and_without_a_service() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.sh("printf '{\"id\": \\n' >> .wg/graph.jsonl", b"");
    let warned = || {
        let listed = world.wg(&["chat", "list"]).ok();
        let warning: Vec<&str> = listed.stderr.lines().collect();
        assert_eq!(warning.len(), 1, "{}", listed.stderr);
        assert!(
            warning[0].starts_with("warning: line 2 of `"),
            "{warning:?}"
        );
        assert!(listed.stdout.contains("chat-0"), "{}", listed.stdout);
    };
    warned();
    world.wg(&["service", "start"]).ok();
    warned();
    world.stop();
}

#[test]
fn up_with_an_agent_that_nobody_knows_starts_no_service() {
    let world = World::with_workspace();
    told(
        &world.wg(&["up", "--agent", "nosuch", "hello"]),
        78,
        &["`nosuch`"],
    );
    assert!(world.processes().is_empty(), "{:?}", world.processes());
}

#[test]
fn a_list_of_a_folder_that_is_no_workspace_writes_nothing_into_it() {
    let mut world = World::new();
    fs::create_dir(world.path("plain")).unwrap();
    let plain = world.path("plain").to_str().unwrap().to_owned();
    world.set("WG_DIR", &plain);
    told(&world.wg(&["chat", "list"]), 1, &["does not exist"]);
    assert_eq!(fs::read_dir(&plain).unwrap().count(), 0);
}

#[test]
fn a_number_of_a_chat_that_would_leave_none_after_it_is_refused() {
    let world = World::with_workspace();
    for running in [false, true] {
        if running {
            world.wg(&["service", "start"]).ok();
        }
        for id in ["4294967295", "1000000000"] {
            let refused = world.wg(&["chat", "new", "--id", id]).with_code(2);
            assert!(
                refused.stderr.contains("at most 999999999"),
                "{}",
                refused.stderr
            );
        }
    }
    world.wg(&["chat", "new", "--id", "chat-999999999"]).ok();
    let next = world.json(&["chat", "new"]);
    assert_eq!(next["chat_id"], 1_000_000_000);
    world.stop();
}

#[test]
fn a_negative_time_is_told_for_what_it_is_wherever_a_time_is_taken() {
    let world = World::with_workspace();
    for command in [
        &["chat", "hello", "--timeout", "-1"][..],
        &["chat", "hello", "--timeout=-1"],
        &["session", "release", "0", "--wait", "-1"],
        &["session", "takeover", "0", "--grace", "-0.5"],
        &["lock", "run", "--wait", "-1", "--", "true"],
    ] {
        let refused = world.wg(command).with_code(2);
        assert!(
            refused.stderr.contains("a time is not negative"),
            "{}",
            refused.stderr
        );
    }
}

#[test]
fn a_cap_on_memory_into_which_no_process_fits_is_refused_with_the_unit() {
    let world = World::with_workspace();
    for cap in ["\"1\"", "1", "\"1023KiB\""] {
        let text = format!("[service]\nmemory_cap = {cap}\n");
        fs::write(world.path(".wg/config.toml"), text).unwrap();
        let refused = world.wg(&["service", "start"]).with_code(78);
        assert!(
            refused
                .stderr
                .contains("from 1MiB on; a number without a unit is bytes"),
            "{}",
            refused.stderr
        );
    }
}

#[test]
fn a_chat_that_could_not_be_made_leaves_nothing_and_its_number_is_free() {
    for registry in [false, true] {
        let world = World::with_workspace();
        // The line of another tool makes the graph longer than what may be written below; the registry of sessions is not.
        let other = format!(
            "{{\"kind\":\"task\",\"id\":\"other\",\"title\":\"{}\",\"status\":\"open\"}}\n",
            "x".repeat(5_000)
        );
        fs::write(world.path(".wg/graph.jsonl"), other).unwrap();
        fs::create_dir_all(world.path(".wg/chat")).unwrap();
        if registry {
            let none = "{\"version\":0,\"sessions\":{}}";
            fs::write(world.path(".wg/chat/sessions.json"), none).unwrap();
        }
        let sessions = || {
            let names = fs::read_dir(world.path(".wg/chat")).unwrap();
            let mut names: Vec<String> = names
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| !name.starts_with("sessions.json"))
                .collect();
            names.sort();
            names
        };
        let refused = world.sh_unchecked(&format!(
            "prlimit --fsize=4000 '{}' chat new",
            crate::world::WG
        ));
        refused.with_code(71);
        assert_eq!(sessions(), [""; 0], "registry: {registry}");
        assert_eq!(world.json(&["chat", "new"])["chat_id"], 0);
        assert_eq!(sessions().len(), 1, "registry: {registry}");
    }
}
