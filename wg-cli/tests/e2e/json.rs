//! One schema for each verb's `--json`, kept as golden files: the keys, their order and the types of their values.

use serde_json::Value;

use crate::golden;
use crate::tree;
use crate::world::World;

/// A verb, its golden file and a command line, in an order in which one follows from the other.
type Row = (&'static str, &'static str, &'static [&'static str]);

const DOCUMENTS: &[Row] = &[
    ("init", "init", &["init"]),
    ("which", "which", &["which"]),
    (
        "service status",
        "service-status-down",
        &["service", "status"],
    ),
    (
        "chat new",
        "chat-new",
        &["chat", "new", "--name", "alpha", "--agent", "echo"],
    ),
    (
        "spawn-task",
        "spawn-task",
        &["spawn-task", "alpha", "--dry-run"],
    ),
    ("chat list", "chat-list-down", &["chat", "list"]),
    (
        "session status",
        "session-status-free",
        &["session", "status", "alpha"],
    ),
    (
        "chat send",
        "chat-send-down",
        &["chat", "send", "alpha", "one"],
    ),
    ("why", "why-down", &["why", "alpha"]),
    ("service start", "service-start", &["service", "start"]),
    (
        "service start",
        "service-start-again",
        &["service", "start"],
    ),
    (
        "service start",
        "service-start-again",
        &["service", "start", "--foreground"],
    ),
    (
        "chat",
        "chat-message",
        &["chat", "two", "--coordinator", "alpha"],
    ),
    ("up", "up", &["up", "hello"]),
    (
        "chat send",
        "chat-send",
        &["chat", "send", "alpha", "three"],
    ),
    ("list", "list", &["list"]),
    ("show", "show", &["show", ".chat-0"]),
    ("chat list", "chat-list", &["chat", "list"]),
    ("chat show", "chat-show", &["chat", "show", "alpha"]),
    ("chat read", "chat-read", &["chat", "read", "alpha"]),
    ("why", "why", &["why", "alpha"]),
    ("session list", "session-list", &["session", "list"]),
    (
        "session status",
        "session-status",
        &["session", "status", "alpha"],
    ),
    ("service status", "service-status", &["service", "status"]),
    (
        "chat interrupt",
        "chat-interrupt",
        &["chat", "interrupt", "alpha"],
    ),
    (
        "service interrupt-chat",
        "chat-interrupt",
        &["service", "interrupt-chat", "alpha"],
    ),
    (
        "session release",
        "session-release",
        &["session", "release", "alpha"],
    ),
    ("chat retry", "chat-retry", &["chat", "retry", "alpha", "1"]),
    ("chat stop", "chat-stop", &["chat", "stop", "alpha"]),
    (
        "service stop-chat",
        "chat-stop",
        &["service", "stop-chat", "alpha"],
    ),
    ("chat resume", "chat-resume", &["chat", "resume", "alpha"]),
    (
        "service set-executor",
        "service-set-executor",
        &["service", "set-executor", "alpha", "--executor", "echo"],
    ),
    ("service reload", "service-reload", &["service", "reload"]),
    ("service pause", "service-pause", &["service", "pause"]),
    ("service resume", "service-resume", &["service", "resume"]),
    (
        "service install",
        "service-install",
        &["service", "install"],
    ),
    (
        "service install",
        "service-install",
        &["service", "install", "--print"],
    ),
    (
        "chat archive",
        "chat-archive",
        &["chat", "archive", "alpha"],
    ),
    (
        "service archive-chat",
        "chat-archive",
        &["service", "archive-chat", "alpha"],
    ),
    (
        "chat restore",
        "chat-restore",
        &["chat", "restore", "alpha"],
    ),
    (
        "service purge-chats",
        "service-purge-chats",
        &["service", "purge-chats"],
    ),
    (
        "service archive-all-chats",
        "service-purge-again",
        &["service", "archive-all-chats"],
    ),
    (
        "chat delete",
        "chat-delete",
        &["chat", "delete", "alpha", "--yes"],
    ),
    (
        "service delete-chat",
        "chat-delete",
        &["service", "delete-chat", "alpha", "--yes"],
    ),
    (
        "migrate chat-rename",
        "migrate-chat-rename",
        &["migrate", "chat-rename"],
    ),
    (
        "service restart",
        "service-restart",
        &["service", "restart"],
    ),
    (
        "session takeover",
        "session-takeover",
        &["session", "takeover", "alpha"],
    ),
    ("session new", "session-new", &["session", "new", "scratch"]),
    ("session check", "session-check", &["session", "check"]),
    (
        "session rm",
        "session-rm",
        &["session", "rm", "scratch", "--yes"],
    ),
    ("doctor", "doctor", &["doctor"]),
    ("service stop", "service-stop", &["service", "stop"]),
    ("service stop", "service-stop-again", &["service", "stop"]),
    ("lock hold", "lock-hold", &["lock", "hold", "."]),
    (
        "lock status",
        "lock-status-of-a-hold",
        &["lock", "status", "."],
    ),
    ("lock list", "lock-list-of-a-hold", &["lock", "list"]),
    (
        "lock release",
        "lock-release-of-a-hold",
        &["lock", "release", "."],
    ),
    ("completions", "completions", &["completions", "bash"]),
    ("man", "man", &["man", "chat", "send"]),
    ("man", "man-to", &["man", "--to", "pages"]),
];

/// What needs the registry of the earlier tool.
const REGISTERED: &[Row] = &[
    (
        "session new",
        "session-new-registered",
        &["session", "new", "notes"],
    ),
    (
        "session alias add",
        "session-alias",
        &["session", "alias", "add", "notes", "other"],
    ),
    (
        "session alias rm",
        "session-alias",
        &["session", "alias", "rm", "other"],
    ),
];

#[test]
fn every_verb_has_one_schema_under_json() {
    let world = World::new();
    let check = |table: &[Row]| {
        for (_, name, args) in table {
            if *name == "service-status" {
                // Every turn has given its place back, which is a moment after its reply.
                world.wait_for_file(".wg/service/events.jsonl", |text| {
                    text.matches("turn_finished").count() == 4
                });
            }
            golden::check_schema(&world, &format!("json/{name}"), &world.json(args));
        }
    };
    check(DOCUMENTS);
    std::fs::write(
        world.path(".wg/chat/sessions.json"),
        r#"{"version":0,"sessions":{}}"#,
    )
    .unwrap();
    check(REGISTERED);
    assert!(world.processes().is_empty());

    let streams = ["service logs", "service events"];
    for verb in tree::verbs() {
        let name = verb.name();
        let mut documents = DOCUMENTS.iter().chain(REGISTERED);
        let told = documents.any(|(verb, _, _)| *verb == name)
            || streams.contains(&name.as_str())
            || tree::WITHOUT_A_DOCUMENT
                .iter()
                .any(|(known, _)| *known == name);
        assert!(told, "`wg {name}` has no schema here");
    }
}

#[test]
fn streams_are_one_document_a_line_and_each_keeps_its_schema() {
    let world = World::with_workspace();
    world.wg(&["up", "hello"]).ok();
    let check = |name: &str, text: &str| {
        assert!(text.lines().count() > 0, "{name} printed nothing");
        for line in text.lines() {
            let document = serde_json::from_str::<Value>(line)
                .unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
            golden::check_schema(&world, &format!("json/{name}"), &document);
        }
    };
    check(
        "up-line",
        &world.wg_with(&["up", "--json"], b"one\ntwo\n").ok().stdout,
    );
    check(
        "up-line",
        &world
            .wg_with(&["chat", "attach", "0", "--json"], b"one\n\ntwo\n")
            .ok()
            .stdout,
    );
    check(
        "service-logs-line",
        &world.wg(&["service", "logs", "--json"]).ok().stdout,
    );
    let mut follower = world.start(&["chat", "read", "0", "--follow", "--json"]);
    check("chat-read-line", &follower.line());
    drop(follower.child.kill());
    follower.finish();
    world.stop();
    let events = world.wg(&["service", "events", "--json"]).ok().stdout;
    // What an event has beyond these depends on its kind, and is in `events.jsonl`'s own golden file.
    for line in events.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        for key in ["ts", "seq", "event", "text"] {
            assert!(event.get(key).is_some(), "{key} is missing: {line}");
        }
    }
}

#[test]
fn the_events_of_run_are_the_lines_of_its_stderr() {
    let world = World::new();
    for flag in ["--events", "--json"] {
        let done = world.wg(&[
            "run",
            "--restart",
            "never",
            flag,
            "--",
            "sh",
            "-c",
            "echo out; exit 3",
        ]);
        assert_eq!(
            (done.code(), done.stdout.as_str()),
            (3, "out\n"),
            "{}",
            done.stderr
        );
        let kinds: Vec<String> = done
            .stderr
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .inspect(|event| {
                if event["event"] == "exited" {
                    golden::check_schema(&world, "json/run-event-exited", event);
                }
            })
            .map(|event| event["event"].as_str().unwrap().to_owned())
            .collect();
        assert!(kinds.iter().any(|kind| kind == "exited"), "{kinds:?}");
    }
}

#[test]
fn under_json_every_line_of_stderr_is_a_document_and_an_error_has_its_code() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    let errors: &[(&[&str], i32)] = &[
        (&["lst", "--json"], 2),
        (&["chat", "--json"], 2),
        (&["--json", "chat", "send"], 2),
        (&["chat", "read", "7", "--json"], 1),
        (&["chat", "read", "../x", "--json"], 2),
        (&["chat", "hello", "--json"], 69),
        (&["service", "reload", "--json"], 69),
        (&["chat", "delete", "0", "--json"], 2),
        (&["top", "--json"], 2),
        (&["man", "nosuch", "--json"], 1),
        (&["lock", "status", "nowhere", "--json"], 1),
    ];
    for (args, code) in errors {
        let done = world.wg(args).with_code(*code);
        assert_eq!(done.stdout, "", "{args:?}");
        let lines: Vec<Value> = done
            .stderr
            .lines()
            .map(|line| {
                serde_json::from_str(line)
                    .unwrap_or_else(|error| panic!("{args:?}: {error}: {line}"))
            })
            .collect();
        let error = lines.last().unwrap();
        assert_eq!(error["code"], *code, "{args:?}: {error}");
        assert!(error["error"].as_str().unwrap().len() > 5, "{error}");
        assert!(
            error["causes"].is_array() && error["meaning"].is_string(),
            "{error}"
        );
    }
    golden::check_schema(
        &world,
        "json/error",
        &serde_json::from_str(&world.wg(&["chat", "read", "7", "--json"]).stderr).unwrap(),
    );
    // What is said beside a result is a document too.
    let told = world.wg(&["up", "hello", "--json"]).ok().stderr;
    assert!(!told.is_empty());
    for line in told.lines() {
        let note: Value = serde_json::from_str(line).unwrap();
        assert!(note["note"].is_string(), "{line}");
    }
    // Behind two dashes it is not ours.
    let done = world
        .wg(&["run", "--restart", "nevr", "--", "x", "--json"])
        .with_code(2);
    assert!(done.stderr.starts_with("error: "), "{}", done.stderr);
    world.stop();
}

#[test]
fn quiet_prints_what_was_asked_for_and_nothing_else() {
    let world = World::new();
    let quiet = |args: &[&str]| {
        let mut all = vec!["-q"];
        all.extend(args);
        let done = world.wg(&all).ok();
        assert_eq!(done.stderr, "", "{args:?}");
        done.stdout
    };
    assert_eq!(quiet(&["init"]), "");
    assert_eq!(quiet(&["chat", "new", "--name", "docs"]), "chat-0\n");
    assert_eq!(quiet(&["service", "start"]), "");
    assert_eq!(quiet(&["chat", "send", "docs", "hello"]), "");
    assert_eq!(quiet(&["up", "hello"]), "hello\n");
    assert_eq!(quiet(&["chat", "stop", "docs"]), "");
    assert_eq!(quiet(&["chat", "resume", "docs"]), "");
    assert!(quiet(&["chat", "list"]).contains("chat-0"));
    assert!(quiet(&["service", "purge-chats", "--dry-run"]).contains("Would purge 1"));
    assert_eq!(quiet(&["service", "purge-chats"]), "");
    assert_eq!(quiet(&["service", "stop"]), "");
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
    // There is a handler again, which the purge ends.
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.matches("\"event\":\"spawned\"").count() == 2
    });
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
