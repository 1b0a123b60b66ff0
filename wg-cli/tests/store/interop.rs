//! A workspace that the earlier tool made: it opens, it works, and what is not ours stays byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use wg_cli::store::chat_state::ChatRecord;
use wg_cli::store::config::Config;
use wg_cli::store::graph::{ChatId, Graph, NewChat};
use wg_cli::store::messages::{self, Role, Side};
use wg_cli::store::rename::Dry;
use wg_cli::store::resolve::{self, Make};

use crate::world::{World, ask, unanswered};

const ALPHA: &str = "01a1faa3-51a7-7a72-a9ee-52462dbd11d2";
const BETA: &str = "01a1faa3-6000-7000-8000-0000000000b1";
const GAMMA: &str = "01a1faa3-7000-7000-8000-0000000000c2";

/// Returns every file of a workspace, without what is ours alone.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_none_or(|extension| extension != "lock") {
                files.insert(
                    path.strip_prefix(root).unwrap().to_owned(),
                    fs::read(path).unwrap(),
                );
            }
        }
    }
    files
}

/// Returns the lines of the graph by number, from 1.
fn graph_lines(world: &World) -> BTreeMap<usize, String> {
    let text = fs::read_to_string(world.workspace.graph_path()).unwrap();
    text.split_inclusive('\n')
        .map(str::to_owned)
        .enumerate()
        .map(|(number, line)| (number + 1, line))
        .collect()
}

#[track_caller]
fn only_lines_differ(
    before: &BTreeMap<usize, String>,
    after: &BTreeMap<usize, String>,
    lines: &[usize],
) {
    let differ: Vec<usize> = after
        .keys()
        .filter(|number| before.get(number) != after.get(number))
        .copied()
        .collect();
    assert_eq!(differ, lines);
    assert!(after.len() >= before.len());
}

#[test]
fn reading_everything_changes_nothing() {
    let world = World::earlier();
    let before = snapshot(world.workspace.root());
    let graph = world.graph();
    for chat in graph.chats() {
        let dir = resolve::session_dir(&world.workspace, chat.id, Make::No).unwrap();
        messages::read_after(&dir, Side::Inbox, 0).unwrap();
        messages::unanswered(&dir).unwrap();
        ChatRecord::load(&world.workspace, chat.id).unwrap();
    }
    Config::load(&world.workspace).unwrap();
    assert_eq!(snapshot(world.workspace.root()), before);
}

#[test]
fn every_chat_of_either_form_is_found_and_the_bad_line_is_named() {
    let world = World::earlier();
    let loaded = Graph::load(&world.workspace).unwrap();
    let chats: Vec<(u32, &str, bool, bool)> = loaded
        .graph
        .chats()
        .iter()
        .map(|chat| (chat.id.0, "", chat.live, chat.legacy))
        .collect();
    // Chat 0 has a task `.chat-0` and the very old `.coordinator`.
    let expected = [
        (0, "", true, false),
        (1, "", true, true),
        (2, "", false, false),
        (3, "", true, false),
        (4, "", false, false),
        (5, "", false, false),
    ];
    assert_eq!(chats, expected);
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(
        loaded.warnings[0].starts_with("line 7 of ")
            && loaded.warnings[0]
                .ends_with("graph.jsonl` was skipped: EOF while parsing a string at column 52"),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn sessions_are_found_through_the_registry_and_nothing_leads_out_of_the_workspace() {
    let world = World::earlier();
    let dir = |id| resolve::session_dir(&world.workspace, ChatId(id), Make::No).unwrap();
    let chat = world.workspace.chat_root();
    assert_eq!(dir(0), chat.join(ALPHA));
    assert_eq!(
        dir(1),
        chat.join(BETA),
        "an old session has the alias of its old name only"
    );
    assert_eq!(dir(2), chat.join(".archive").join(GAMMA));
    assert_eq!(dir(12), chat.join("12"), "made before it was registered");
    assert_eq!(
        dir(9),
        chat.join(".chat-9"),
        "the registry's `../../outside` is no session"
    );
}

#[test]
fn a_chat_is_meant_by_every_form_of_reference() {
    let world = World::earlier();
    let graph = world.graph();
    let means = |reference: &str| {
        resolve::chat(&world.workspace, &graph, reference)
            .map(|id| id.0)
            .map_err(|failure| failure.to_string())
    };
    for reference in [
        "0",
        "chat-0",
        ".chat-0",
        "coordinator-0",
        ".coordinator-0",
        "alpha",
        "Alpha",
        ALPHA,
        "01a1faa3-51",
        "01A1FAA3-51",
    ] {
        assert_eq!(means(reference), Ok(0), "{reference}");
    }
    for (reference, id) in [
        ("beta", 1),
        ("1", 1),
        (BETA, 1),
        (".coordinator-1", 1),
        ("gamma", 2),
        (GAMMA, 2),
        ("3", 3),
    ] {
        assert_eq!(means(reference), Ok(id), "{reference}");
    }
    assert_eq!(
        means("01a1faa3").unwrap_err(),
        "`01a1faa3` means several chats: chat-0, chat-1, chat-2 (give the number)"
    );
    assert_eq!(
        means("7").unwrap_err(),
        "chat 7 does not exist; chats here: 0, 1, 3, 4, 5 (wg chat list)"
    );
    assert_eq!(
        means("scratch").unwrap_err(),
        "chat `scratch` does not exist; chats here: 0, 1, 3, 4, 5 (wg chat list)"
    );
}

#[test]
fn unanswered_messages_are_found_although_the_cursor_is_behind() {
    let world = World::earlier();
    let dir = resolve::session_dir(&world.workspace, ChatId(0), Make::No).unwrap();
    assert_eq!(unanswered(&dir), [3], "2 was answered, by its request id");
    let read = messages::read_after(&dir, Side::Outbox, 0).unwrap();
    assert_eq!(read.messages[1].role, Role::SystemError);
    assert_eq!(read.messages[0].extra["full_response"], "hi, at length");
}

#[test]
fn an_append_leaves_every_earlier_byte_where_it_was() {
    let world = World::earlier();
    let before = snapshot(world.workspace.root());
    let dir = resolve::session_dir(&world.workspace, ChatId(0), Make::Yes).unwrap();
    assert_eq!(ask(&dir, "from the new one"), 4);
    let after = snapshot(world.workspace.root());
    let inbox = Path::new("chat").join(ALPHA).join("inbox.jsonl");
    assert!(after[&inbox].starts_with(&before[&inbox]));
    let others = |files: &BTreeMap<PathBuf, Vec<u8>>| {
        files
            .iter()
            .filter(|(path, _)| **path != inbox)
            .map(|(path, bytes)| (path.clone(), bytes.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(others(&after), others(&before));
}

#[test]
fn archiving_and_restoring_touch_the_line_of_the_chat_only() {
    let world = World::earlier();
    let before = graph_lines(&world);
    Graph::edit(&world.workspace, |graph| {
        graph.archive(ChatId(1), "tester", "enough")
    })
    .unwrap();
    let archived = graph_lines(&world);
    only_lines_differ(&before, &archived, &[5]);
    assert!(
        archived[&5].contains("\"unknown_of_chat_1\":\"kept\"")
            && archived[&5].contains("\"archived\"")
    );
    Graph::edit(&world.workspace, |graph| {
        graph.archive(ChatId(0), "tester", "enough")
    })
    .unwrap();
    let both = graph_lines(&world);
    only_lines_differ(&archived, &both, &[4, 14]);
    for kept in [
        "\"weight\":1.10,\"huge\":123456789012345678901234567890",
        "\"nested\":{\"b\": 1, \"a\": [1e3, null]}",
        "\"archived\"",
        "café",
    ] {
        assert!(both[&4].contains(kept), "{kept} is not in {}", both[&4]);
    }
    Graph::edit(&world.workspace, |graph| {
        graph.restore(ChatId(0), "tester", "back")
    })
    .unwrap();
    assert!(world.graph().chat(ChatId(0)).unwrap().live);
}

#[test]
fn a_new_chat_is_added_at_the_end_and_registered_as_the_earlier_tool_does() {
    let world = World::earlier();
    let before = graph_lines(&world);
    let id = world.add_chat(NewChat {
        name: Some("zeta".to_owned()),
        ..NewChat::default()
    });
    assert_eq!(id, ChatId(13), "chat/12 is there, though no task names it");
    let after = graph_lines(&world);
    only_lines_differ(&before, &after, &[before.len() + 1]);

    let dir = resolve::session_dir(&world.workspace, id, Make::No).unwrap();
    assert!(dir.is_dir());
    let uuid = dir.file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(uuid.len(), 36);
    assert_eq!(&uuid[14..15], "7", "{uuid} sorts by time");
    let registry: Value =
        serde_json::from_slice(&fs::read(world.workspace.registry_path()).unwrap()).unwrap();
    let entry = &registry["sessions"][&uuid];
    assert_eq!(
        entry["aliases"],
        serde_json::json!(["chat-13", "coordinator-13", "13"])
    );
    assert_eq!(
        (&entry["kind"], &entry["label"]),
        (&"coordinator".into(), &"chat 13".into())
    );
    assert_eq!(registry["sessions"][ALPHA]["mood"], "of a later version");
    assert_eq!(registry["written_by"], "of a later version");
    assert_eq!(registry["version"], 0);
    let again = resolve::session_dir(&world.workspace, id, Make::Yes).unwrap();
    assert_eq!(again, dir, "it is registered once");
}

#[test]
fn an_archived_session_comes_back_to_where_the_earlier_tool_looks_for_it() {
    let world = World::earlier();
    let there = world.workspace.chat_root().join(GAMMA);
    assert!(resolve::unarchive_session(&world.workspace, ChatId(2)).unwrap());
    assert_eq!(
        resolve::session_dir(&world.workspace, ChatId(2), Make::No).unwrap(),
        there
    );
    assert!(there.join("inbox.jsonl").is_file());
    let registry: Value =
        serde_json::from_slice(&fs::read(world.workspace.registry_path()).unwrap()).unwrap();
    let entry = registry["sessions"][GAMMA].as_object().unwrap();
    assert!(!entry.contains_key("archived_at") && entry.contains_key("forked_from"));
    assert!(!resolve::unarchive_session(&world.workspace, ChatId(2)).unwrap());
    assert!(!resolve::unarchive_session(&world.workspace, ChatId(4)).unwrap());
}

#[test]
fn the_move_to_the_present_form_touches_the_legacy_lines_only() {
    let world = World::earlier();
    let before = graph_lines(&world);
    let report = Graph::edit(&world.workspace, |graph| graph.rename_legacy(Dry::No)).unwrap();
    assert_eq!(
        report.renamed_ids,
        [(".coordinator-1".to_owned(), ".chat-1".to_owned())]
    );
    assert_eq!(report.kept, [".coordinator-3", ".coordinator"]);
    let after = graph_lines(&world);
    only_lines_differ(&before, &after, &[5, 6]);
    assert!(after[&6].contains("\"loop_edges\":[{\"to\":\"x\"}]"));
    assert!(after[&6].contains("[\".chat-1\",\".coordinator-3\"]"));
}

#[test]
fn the_dispatchers_state_keeps_every_field() {
    let world = World::earlier();
    let path = world.workspace.chat_state_path(ChatId(0));
    let before = fs::read_to_string(&path).unwrap();
    ChatRecord::update(&world.workspace, ChatId(0), |record| {
        record.reason = Some("a test".to_owned());
    })
    .unwrap();
    let after = fs::read_to_string(&path).unwrap();
    let squeeze = |text: &str| text.split_whitespace().collect::<String>();
    let fields = squeeze(&before);
    assert!(
        squeeze(&after).starts_with(fields.trim_end_matches('}')),
        "{after}"
    );
    let read: Value = serde_json::from_str(&after).unwrap();
    assert_eq!(read["wg_supervisor"]["reason"], "a test");
    assert_eq!(read["wg_supervisor"]["version"], 1);
}

#[test]
fn earlier_sections_of_the_settings_are_nobodys_business() {
    let world = World::earlier();
    let config = Config::load(&world.workspace).unwrap();
    assert_eq!(config.service.idle_timeout.as_secs(), 120);
}
