//! The graph: what is kept byte for byte, which tasks are chats, and what the verbs change.

use std::fs;

use proptest::prelude::*;
use serde_json::json;
use wg_cli::store::StoreError;
use wg_cli::store::graph::{ChatId, Graph, NewChat};
use wg_cli::store::rename::Dry;
use wg_cli::store::task::Task;

use crate::world::World;

fn parse(text: &str) -> Graph {
    Graph::parse(text.as_bytes(), "graph.jsonl").graph
}

#[track_caller]
fn task_line(id: &str, rest: &str) -> String {
    format!("{{\"kind\":\"task\",\"id\":\"{id}\"{rest}}}\n")
}

#[test]
fn an_edit_that_changes_nothing_writes_nothing() {
    let world = World::new();
    let text = "# a comment\n\nnot json\n";
    world.write_graph(text);
    let inode = |world: &World| {
        std::os::unix::fs::MetadataExt::ino(&fs::metadata(world.workspace.graph_path()).unwrap())
    };
    let before = inode(&world);
    Graph::edit(&world.workspace, |_| Ok(())).unwrap();
    assert_eq!(inode(&world), before);
    assert_eq!(
        fs::read_to_string(world.workspace.graph_path()).unwrap(),
        text
    );
}

#[test]
fn an_edit_that_fails_writes_nothing() {
    let world = World::new();
    let result: Result<(), StoreError> = Graph::edit(&world.workspace, |graph| {
        graph.add_task(Task::new("x"))?;
        Err(StoreError::NotFound {
            what: "reason".to_owned(),
        })
    });
    assert!(result.is_err());
    assert_eq!(fs::read(world.workspace.graph_path()).unwrap(), b"");
}

#[test]
fn a_changed_line_keeps_the_bytes_of_its_other_fields_and_its_line_end() {
    let text = "{ \"kind\": \"task\", \"id\": \"a\", \"n\": 1.10, \"big\": 123456789012345678901234567890, \"status\": \"open\", \"e\": \"\\u00e9\" }\r\n";
    let mut graph = parse(text);
    graph.task_mut("a").unwrap().set("status", json!("done"));
    assert_eq!(
        String::from_utf8(graph.to_bytes()).unwrap(),
        "{\"kind\":\"task\",\"id\":\"a\",\"n\":1.10,\"big\":123456789012345678901234567890,\"status\":\"done\",\"e\":\"\\u00e9\"}\r\n"
    );
}

#[test]
fn a_line_without_a_line_feed_is_never_glued_to_the_next() {
    let text = task_line("a", "");
    let mut graph = parse(text.trim_end());
    graph.add_task(Task::new("b")).unwrap();
    assert_eq!(
        String::from_utf8(graph.to_bytes()).unwrap(),
        format!("{text}{}", task_line("b", ""))
    );
}

#[test]
fn a_bad_line_is_named_and_the_rest_loads() {
    let text = format!(
        "{}{}\u{0}\n[1]\n{{\"id\":\"no kind\"}}\n{{\"kind\":\"task\"}}\n",
        task_line("a", ""),
        "{\"kind\":\"task\",\"id\":\"b\n"
    );
    let loaded = Graph::parse(text.as_bytes(), "graph.jsonl");
    assert_eq!(loaded.graph.tasks().count(), 1);
    assert_eq!(loaded.warnings.len(), 5, "{:?}", loaded.warnings);
    for (warning, line) in loaded.warnings.iter().zip(2..) {
        assert!(
            warning.starts_with(&format!("line {line} of `graph.jsonl` was skipped: ")),
            "{warning}"
        );
    }
    assert_eq!(loaded.graph.to_bytes(), text.as_bytes());
}

#[test]
fn of_two_lines_of_one_id_the_last_counts_and_both_stay() {
    let text = format!(
        "{}{}",
        task_line("a", ",\"title\":\"old\""),
        task_line("a", ",\"title\":\"new\"")
    );
    let loaded = Graph::parse(text.as_bytes(), "g");
    assert_eq!(
        loaded.graph.tasks().map(Task::title).collect::<Vec<_>>(),
        ["new"]
    );
    assert_eq!(
        loaded.warnings,
        ["`a` stands twice in `g`, in lines 1 and 2; the last one counts"]
    );
    assert_eq!(loaded.graph.to_bytes(), text.as_bytes());
}

#[test]
fn a_missing_graph_is_an_error_and_never_no_chats() {
    let world = World::new();
    fs::remove_file(world.workspace.graph_path()).unwrap();
    assert!(matches!(
        Graph::load(&world.workspace),
        Err(StoreError::NotFound { .. })
    ));
    assert!(matches!(
        Graph::edit(&world.workspace, |_| Ok(())),
        Err(StoreError::NotFound { .. })
    ));
    nix::unistd::mkfifo(&world.workspace.graph_path(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(
        Graph::load(&world.workspace),
        Err(StoreError::NotARegularFile { .. })
    ));
}

#[track_caller]
fn chat_is(rest: &str, live: bool, archived: bool) {
    let chat = parse(&task_line(".chat-1", rest)).chat(ChatId(1)).unwrap();
    assert_eq!((chat.live, chat.archived), (live, archived), "{rest}");
}

#[test]
fn a_chat_is_live_with_the_loop_tag_unless_it_is_archived_done_or_abandoned() {
    chat_is(
        r#","status":"in-progress","tags":["chat-loop"]"#,
        true,
        false,
    );
    chat_is(
        r#","status":"in-progress","tags":["coordinator-loop"]"#,
        true,
        false,
    );
    chat_is(r#","status":"open","tags":["x","chat-loop"]"#, true, false);
    chat_is(r#","tags":["chat-loop"]"#, true, false);
    chat_is(
        r#","status":"in-progress","tags":["chat-loop","archived"]"#,
        false,
        true,
    );
    chat_is(r#","status":"done","tags":["chat-loop"]"#, false, false);
    chat_is(
        r#","status":"pending-review","tags":["chat-loop"]"#,
        false,
        false,
    );
    chat_is(
        r#","status":"abandoned","tags":["chat-loop"]"#,
        false,
        false,
    );
    chat_is(r#","status":"in-progress","tags":[]"#, false, false);
    chat_is(
        r#","status":"in-progress","tags":"chat-loop""#,
        false,
        false,
    );
    chat_is(r#","status":7"#, false, false);
}

#[test]
fn ids_of_chats_are_read_in_both_forms_and_nothing_else_is_one() {
    for (id, number) in [
        (".chat-0", 0),
        (".coordinator-7", 7),
        (".coordinator", 0),
        (".chat-4294967295", u32::MAX),
    ] {
        assert_eq!(ChatId::from_task_id(id), Some(ChatId(number)), "{id}");
    }
    for id in [
        "chat-1",
        ".chat-",
        ".chat-01",
        ".chat-+1",
        ".chat--1",
        ".chat-1x",
        ".chat-4294967296",
        ".chat-٣",
        "",
        ".coordinator-",
    ] {
        assert_eq!(ChatId::from_task_id(id), None, "{id}");
    }
}

#[test]
fn a_new_chat_has_the_form_of_the_earlier_tool() {
    let world = World::new();
    let id = world.add_chat(NewChat {
        name: Some("alpha".to_owned()),
        argv: Some(vec!["bash".to_owned(), "-lc".to_owned(), "cat".to_owned()]),
        cwd: Some("/tmp".into()),
        user: "tester".to_owned(),
        ..NewChat::default()
    });
    assert_eq!(id, ChatId(0));
    let graph = world.graph();
    let task = graph.task(".chat-0").unwrap().to_json();
    let names: Vec<&str> = task.keys().map(String::as_str).collect();
    let expected = [
        "kind",
        "id",
        "title",
        "description",
        "status",
        "priority",
        "tags",
        "created_at",
        "started_at",
        "last_interaction_at",
        "log",
        "command_argv",
        "working_dir",
        "cycle_config",
    ];
    assert_eq!(names, expected);
    assert_eq!(task["title"], "Chat: alpha");
    assert_eq!(
        task["cycle_config"],
        json!({"max_iterations": 0, "no_converge": true})
    );
    let chat = graph.chat(id).unwrap();
    assert!(chat.live && !chat.legacy);
    assert_eq!(chat.name.as_deref(), Some("alpha"));
    assert!(
        world.path("chat/.chat-0").is_dir(),
        "without a registry the session is called as the task"
    );
}

#[test]
fn a_number_that_was_asked_for_and_is_taken_is_refused_in_either_form() {
    let world = World::new();
    world.write_graph(&task_line(".coordinator-3", ""));
    let new = |id| NewChat {
        id: Some(ChatId(id)),
        ..NewChat::default()
    };
    let add = |id| {
        Graph::edit(&world.workspace, |graph| {
            graph.add_chat(&world.workspace, new(id))
        })
    };
    assert!(matches!(add(3), Err(StoreError::AlreadyExists { what }) if what == "chat-3"));
    assert_eq!(add(99).unwrap(), ChatId(99));
    assert!(matches!(add(99), Err(StoreError::AlreadyExists { .. })));
}

#[track_caller]
fn next_is(world: &World, expected: u32) {
    assert_eq!(
        world.graph().next_chat_id(&world.workspace).unwrap(),
        ChatId(expected)
    );
}

#[test]
fn a_number_is_never_used_again_whatever_is_left_of_its_chat() {
    let world = World::new();
    next_is(&world, 0);
    fs::write(world.path("chat-history-1.jsonl"), "").unwrap();
    next_is(&world, 2);
    fs::create_dir_all(world.path("chat/coordinator-4")).unwrap();
    next_is(&world, 5);
    fs::create_dir_all(world.path("chat/.archive/.chat-6")).unwrap();
    next_is(&world, 7);
    fs::create_dir_all(world.path("service")).unwrap();
    fs::write(world.path("service/coordinator-state-8.json"), "{}").unwrap();
    next_is(&world, 9);
    let registry =
        r#"{"sessions":{"0000-a":{"aliases":["coordinator-10","10"],"archived_at":"x"}}}"#;
    fs::write(world.path("chat/sessions.json"), registry).unwrap();
    next_is(&world, 11);
    world.write_graph(&task_line(".coordinator-12", r#","tags":["archived"]"#));
    next_is(&world, 13);
    fs::create_dir_all(world.path("chat/99999999999")).unwrap();
    next_is(&world, 13);
}

#[test]
fn the_dispatchers_state_file_is_no_chat() {
    let world = World::new();
    fs::create_dir_all(world.path("service")).unwrap();
    fs::write(world.path("service/coordinator-state-0.json"), "{}").unwrap();
    next_is(&world, 0);
}

#[test]
fn a_number_that_another_tool_gave_and_that_leaves_no_room_does_not_end_the_numbering() {
    let world = World::new();
    let too_high = task_line(".chat-4294967295", "");
    world.write_graph(&too_high);
    next_is(&world, 0);
    let others = [".chat-7", ".chat-1000000000"].map(|id| task_line(id, ""));
    world.write_graph(&(too_high + &others.concat()));
    next_is(&world, 8);
}

#[test]
fn chats_made_by_several_threads_at_once_all_get_their_own_number() {
    let world = World::new();
    let ids = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    (0..10)
                        .map(|_| world.add_chat(NewChat::default()).0)
                        .collect::<Vec<u32>>()
                })
            })
            .collect();
        let mut ids: Vec<u32> = makers
            .into_iter()
            .flat_map(|maker| maker.join().unwrap())
            .collect();
        ids.sort_unstable();
        ids
    });
    assert_eq!(ids, (0..40).collect::<Vec<_>>());
    assert_eq!(world.graph().chats().len(), 40);
}

#[test]
fn archive_and_restore_undo_each_other_and_a_second_time_changes_nothing() {
    let world = World::new();
    let id = world.add_chat(NewChat::default());
    let mut graph = world.graph();
    assert!(graph.archive(id, "tester", "done with it").unwrap());
    assert!(!graph.archive(id, "tester", "again").unwrap());
    let chat = graph.chat(id).unwrap();
    assert_eq!(
        (chat.status.as_str(), chat.archived, chat.live),
        ("done", true, false)
    );
    assert!(!graph.task(".chat-0").unwrap().has_tag("chat-loop"));
    let log = graph.task(".chat-0").unwrap().get("log").unwrap();
    assert_eq!(
        log.as_array().unwrap().len(),
        2,
        "one entry for one change: {log}"
    );
    assert_eq!(
        (&log[1]["actor"], &log[1]["message"]),
        (&json!("tester"), &json!("done with it"))
    );
    assert!(graph.restore(id, "tester", "back").unwrap());
    assert!(!graph.restore(id, "tester", "again").unwrap());
    assert!(graph.chat(id).unwrap().live);
    assert!(graph.delete(id, "tester", "away").unwrap());
    assert_eq!(graph.chat(id).unwrap().status, "abandoned");
    assert!(
        matches!(graph.archive(ChatId(7), "t", "m"), Err(StoreError::NotFound { what }) if what == "chat-7")
    );
}

#[test]
fn a_chat_of_both_forms_is_archived_in_both() {
    let mut graph = parse(&format!(
        "{}{}",
        task_line(
            ".coordinator-3",
            r#","status":"open","tags":["coordinator-loop"]"#
        ),
        task_line(".chat-3", r#","status":"open","tags":["chat-loop"]"#)
    ));
    assert_eq!(graph.chats().len(), 1);
    assert_eq!(
        graph.chat(ChatId(3)).unwrap().task_id,
        ".chat-3",
        "the present form wins"
    );
    graph.archive(ChatId(3), "t", "m").unwrap();
    for id in [".chat-3", ".coordinator-3"] {
        assert!(graph.task(id).unwrap().has_tag("archived"), "{id}");
    }
}

#[test]
fn the_move_to_the_present_form_is_idempotent_and_overwrites_nothing() {
    let text = [
        task_line(".coordinator-1", r#","title":"Coordinator: beta","tags":["x","coordinator-loop"],"unknown":1.10"#),
        task_line(".coordinator", r#","title":"Coordinator 0","tags":["coordinator-loop","chat-loop"]"#),
        task_line(".coordinator-3", r#","title":"Coordinator 3","tags":["coordinator-loop"]"#),
        task_line(".chat-3", r#","title":"Chat 3","tags":["chat-loop"]"#),
        task_line("work", r#","title":"Coordinator: not a chat","after":[".coordinator-1",".coordinator-3","other"]"#),
    ]
    .concat();
    let mut graph = parse(&text);
    let would = graph.rename_legacy(Dry::Yes).unwrap();
    assert_eq!(
        graph.to_bytes(),
        text.as_bytes(),
        "a dry run changes nothing"
    );
    let did = graph.rename_legacy(Dry::No).unwrap();
    assert_eq!((would.dry_run, did.dry_run), (true, false));
    assert_eq!(would.renamed_ids, did.renamed_ids);
    let renamed = [(".coordinator-1", ".chat-1"), (".coordinator", ".chat-0")]
        .map(|(old, new)| (old.to_owned(), new.to_owned()));
    assert_eq!(did.renamed_ids, renamed);
    assert_eq!(did.kept, [".coordinator-3"]);
    assert_eq!(
        (did.rewritten_edges, did.renamed_tags, did.renamed_titles),
        (1, 2, 2)
    );

    let graph = Graph::parse(&graph.to_bytes(), "g").graph;
    let beta = graph.task(".chat-1").unwrap();
    assert_eq!(
        (beta.title().as_str(), beta.tags()),
        ("Chat: beta", vec!["x".to_owned(), "chat-loop".to_owned()])
    );
    assert_eq!(graph.task(".chat-0").unwrap().tags(), ["chat-loop"]);
    assert_eq!(
        graph.task(".coordinator-3").unwrap().title(),
        "Coordinator 3"
    );
    assert_eq!(
        graph.task("work").unwrap().texts("after"),
        [".chat-1", ".coordinator-3", "other"]
    );
    assert_eq!(
        graph.task("work").unwrap().title(),
        "Coordinator: not a chat"
    );
    assert!(
        String::from_utf8(graph.to_bytes())
            .unwrap()
            .contains("\"unknown\":1.10")
    );

    let again = graph.clone().rename_legacy(Dry::No).unwrap();
    assert!(again.is_empty(), "{again:?}");
    assert_eq!(again.kept, [".coordinator-3"]);
}

fn any_line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-z]{1,3}".prop_map(|id| task_line(&id, ",\"x\":1.0").into_bytes()),
        "[0-3]".prop_map(
            |id| task_line(&format!(".chat-{id}"), ",\"tags\":[\"chat-loop\"]").into_bytes()
        ),
        Just(b"\n".to_vec()),
        Just(b"# comment\r\n".to_vec()),
        Just(b"{\"kind\":\"resource\"}\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_file_is_kept_byte_for_byte(lines in proptest::collection::vec(any_line(), 0..12)) {
        let bytes = lines.concat();
        prop_assert_eq!(Graph::parse(&bytes, "g").graph.to_bytes(), bytes);
    }

    #[test]
    fn a_change_touches_its_own_line_only(lines in proptest::collection::vec(any_line(), 0..12)) {
        let mut bytes = lines.concat();
        if !bytes.is_empty() && !bytes.ends_with(b"\n") {
            bytes.push(b'\n');
        }
        let own = task_line("target", ",\"status\":\"open\"").into_bytes();
        let file = [&bytes[..], &own, &bytes].concat();
        let mut graph = Graph::parse(&file, "g").graph;
        graph.task_mut("target").unwrap().set("status", json!("done"));
        let changed = task_line("target", ",\"status\":\"done\"").into_bytes();
        prop_assert_eq!(graph.to_bytes(), [&bytes[..], &changed, &bytes].concat());
    }
}

#[test]
fn one_chat_of_the_graph_is_the_same_as_in_the_whole_of_it() {
    let world = World::earlier();
    let text = fs::read_to_string(world.workspace.graph_path()).unwrap();
    // Whoever escapes letters writes an id that no search for it finds.
    let escaped = r#"{"kind":"task","id":"\u002echat-\u0037","title":"Chat: eta","status":"open","tags":["chat-loop"]}"#;
    fs::write(world.workspace.graph_path(), format!("{text}{escaped}\n")).unwrap();
    let whole = world.graph();
    assert!(whole.chat(ChatId(7)).is_some());
    for id in (0..20).map(ChatId) {
        let one = Graph::load_chat(&world.workspace, id).unwrap();
        assert_eq!(format!("{one:?}"), format!("{:?}", whole.chat(id)), "{id}");
    }
}

#[test]
fn a_file_that_is_no_graph_is_told_in_a_few_lines() {
    let loaded = Graph::parse("no graph\n".repeat(1_000).as_bytes(), "graph.jsonl");
    let told = loaded.told();
    assert_eq!((loaded.warnings.len(), told.len()), (1_000, 6));
    assert_eq!(told[5], "995 more line(s) like these were skipped");
    let few = Graph::parse("no graph\n".repeat(5).as_bytes(), "graph.jsonl");
    assert_eq!(few.told(), few.warnings);
}

#[test]
fn the_session_of_a_chat_that_was_not_added_is_taken_away_and_one_that_was_there_stays() {
    let world = World::new();
    let refuse = |id: u32| {
        let refused: Result<(), _> = Graph::edit(&world.workspace, |graph| {
            graph.add_chat(
                &world.workspace,
                NewChat {
                    id: Some(ChatId(id)),
                    ..NewChat::default()
                },
            )?;
            Err(StoreError::NotFound {
                what: "room".to_owned(),
            })
        });
        assert!(refused.is_err());
    };
    refuse(3);
    assert!(!world.workspace.chat_root().join(".chat-3").exists());
    next_is(&world, 0);
    let there = world.workspace.chat_root().join(".chat-4");
    fs::create_dir_all(&there).unwrap();
    refuse(4);
    assert!(there.is_dir());
}
