//! One schema for each verb's `--json`, kept as golden files: the keys, their order and the types of their values.

use crate::golden;
use crate::world::World;

#[test]
fn every_read_and_every_summary_keeps_its_schema() {
    let world = World::new();
    let check = |name: &str, args: &[&str]| {
        golden::check_schema(&world, &format!("json/{name}"), &world.json(args));
    };

    check("init", &["init"]);
    check("which", &["which"]);
    check("service-status-down", &["service", "status"]);
    check(
        "chat-new",
        &["chat", "new", "--name", "alpha", "--agent", "echo"],
    );
    check("chat-list-down", &["chat", "list"]);
    check("session-status-free", &["session", "status", "alpha"]);
    check("chat-send-down", &["chat", "send", "alpha", "one"]);
    check("service-start", &["service", "start"]);
    check("service-start-again", &["service", "start"]);
    check("chat-message", &["chat", "two", "--coordinator", "alpha"]);
    check("list", &["list"]);
    check("show", &["show", ".chat-0"]);
    check("chat-list", &["chat", "list"]);
    check("chat-show", &["chat", "show", "alpha"]);
    check("chat-read", &["chat", "read", "alpha"]);
    check("why", &["why", "alpha"]);
    check("session-list", &["session", "list"]);
    check("session-status", &["session", "status", "alpha"]);
    // Both turns have given their place back, which is a moment after their replies.
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.matches("turn_finished").count() == 2
    });
    check("service-status", &["service", "status"]);
    check("chat-interrupt", &["chat", "interrupt", "alpha"]);
    check("session-release", &["session", "release", "alpha"]);
    check("chat-stop", &["chat", "stop", "alpha"]);
    check("chat-resume", &["chat", "resume", "alpha"]);
    check(
        "service-set-executor",
        &["service", "set-executor", "alpha", "--executor", "echo"],
    );
    check("service-reload", &["service", "reload"]);
    check("service-pause", &["service", "pause"]);
    check("service-resume", &["service", "resume"]);
    check("chat-archive", &["chat", "archive", "alpha"]);
    check("chat-restore", &["chat", "restore", "alpha"]);
    check("service-purge-chats", &["service", "purge-chats"]);
    check("chat-delete", &["chat", "delete", "alpha", "--yes"]);
    check("migrate-chat-rename", &["migrate", "chat-rename"]);
    check("service-restart", &["service", "restart"]);
    check("session-takeover", &["session", "takeover", "alpha"]);
    check("session-new", &["session", "new", "scratch"]);
    check("session-check", &["session", "check"]);
    check("session-rm", &["session", "rm", "scratch", "--yes"]);
    check("doctor", &["doctor"]);
    check("service-stop", &["service", "stop"]);
    check("service-stop-again", &["service", "stop"]);
    assert!(world.processes().is_empty());
}

#[test]
fn streams_are_one_document_a_line() {
    let world = World::with_workspace();
    world.wg(&["up", "hello"]).ok();
    for args in [
        &["service", "events", "--json"][..],
        &["service", "logs", "--json"],
    ] {
        let lines = world.wg(args).ok().stdout;
        assert!(lines.lines().count() > 0, "{args:?} printed nothing");
        for line in lines.lines() {
            serde_json::from_str::<serde_json::Value>(line)
                .unwrap_or_else(|error| panic!("{args:?}: {error}: {line}"));
        }
    }
    world.stop();
}

#[test]
fn texts_for_people_fit_eighty_columns_and_keep_their_words() {
    let world = World::new();
    let check = |name: &str, args: &[&str]| {
        let done = world.wg(args).ok();
        // A path is as long as it is, and `why` quotes whole sentences.
        for line in done
            .stdout
            .lines()
            .filter(|line| !line.contains('/') && args[0] != "why")
        {
            assert!(line.chars().count() <= 80, "{args:?}: {line}");
        }
        golden::check(&world, &format!("text/{name}"), &done.stdout);
    };
    check("init", &["init"]);
    check("which", &["which"]);
    check("chat-list-empty", &["chat", "list"]);
    check("list-empty", &["list"]);
    check("service-status-down", &["service", "status"]);
    check(
        "chat-new",
        &["chat", "new", "--name", "alpha", "--agent", "echo"],
    );
    check("chat-list-down", &["chat", "list"]);
    check("chat-send-down", &["chat", "send", "alpha", "one"]);
    check("why-down", &["why", "alpha"]);
    check("service-start", &["service", "start"]);
    world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| text.ends_with('\n'));
    check("chat-message", &["chat", "two", "--coordinator", "alpha"]);
    check("chat-list", &["chat", "list"]);
    check("list", &["list"]);
    check("chat-read", &["chat", "read", "alpha"]);
    check("why-nothing", &["why"]);
    // Both turns have given their place back, which is a moment after their replies.
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.matches("turn_finished").count() == 2
    });
    check("service-status", &["service", "status"]);
    check("session-status", &["session", "status", "alpha"]);
    check("session-list", &["session", "list"]);
    check("chat-stop", &["chat", "stop", "alpha"]);
    check("why-stopped", &["why", "alpha"]);
    check("chat-resume", &["chat", "resume", "alpha"]);
    check("service-purge-chats", &["service", "purge-chats"]);
    check("service-stop", &["service", "stop"]);
}

#[test]
fn a_long_title_is_cut_where_the_table_would_be_too_wide() {
    let world = World::with_workspace();
    world
        .wg(&[
            "chat",
            "new",
            "--name",
            "a very long name ".repeat(10).trim_end(),
            "--agent",
            "echo",
        ])
        .ok();
    for args in [&["chat", "list"][..], &["list"], &["service", "status"]] {
        let done = world.wg(args).ok();
        assert!(done.stdout.contains('…'), "{}", done.stdout);
        assert!(
            done.stdout
                .lines()
                .all(|line| line.contains('/') || line.chars().count() <= 80),
            "{}",
            done.stdout
        );
    }
}

#[test]
fn help_of_every_verb_fits_eighty_columns() {
    let world = World::new();
    let mut waiting: Vec<Vec<String>> = vec![Vec::new()];
    let mut seen = 0;
    while let Some(verb) = waiting.pop() {
        let mut args = verb.clone();
        args.push("--help".to_owned());
        let help = world.wg(&args).ok().stdout;
        seen += 1;
        assert!(help.contains("Usage:"), "{args:?}");
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{args:?}: {line}");
        }
        let commands = help.split("Commands:\n").nth(1).unwrap_or_default();
        for line in commands.lines().take_while(|line| line.starts_with("  ")) {
            let name = line.trim_start().split(' ').next().unwrap_or_default();
            // A line that goes on with a description is indented further.
            if line.starts_with("   ") || name == "help" {
                continue;
            }
            let mut next = verb.clone();
            next.push(name.to_owned());
            waiting.push(next);
        }
    }
    assert!(seen > 50, "only {seen} verbs were found");
}
