//! The record of a chat beside what is not ours in its file.

use std::fs;

use serde_json::{Value, json};
use wg_cli::clock::Timestamp;
use wg_cli::names::{ChatState, StartReason};
use wg_cli::store::StoreError;
use wg_cli::store::chat_state::{ChatRecord, SpawnRecord};
use wg_cli::store::graph::ChatId;

use crate::world::World;

const CHAT: ChatId = ChatId(3);

#[test]
fn a_chat_without_a_file_has_an_empty_record() {
    let world = World::new();
    assert_eq!(
        ChatRecord::load(&world.workspace, CHAT).unwrap(),
        ChatRecord::default()
    );
    assert!(!world.workspace.chat_state_path(CHAT).exists());
}

#[test]
fn a_record_reads_as_it_was_written_and_its_form_is_the_golden_one() {
    let world = World::new();
    let at = Timestamp::parse("2026-11-20T20:26:09.758715983Z");
    let written = ChatRecord::update(&world.workspace, CHAT, |record| {
        record.state = Some(ChatState::Backoff);
        record.reason = Some("crash 2 of 3".to_owned());
        record.since = at;
        record.machine = Some(json!({"version": 1}));
        record.last_consumer_at = at;
        record.stopped_at = at;
        record.archived_at = at;
        record.purged_at = at;
        record.wish_actor = Some("tester".to_owned());
        record.wish_reason = Some("enough".to_owned());
        record.spawn = Some(SpawnRecord {
            nonce: "0123456789abcdef".to_owned(),
            generation: 7,
            reason: StartReason::Message,
            actor: "tester".to_owned(),
            at: at.unwrap(),
            pid: Some(4711),
            start_ticks: Some(99),
            boot_id: Some("boot".to_owned()),
            log_from: 0,
            group: Some("/sys/fs/cgroup/a.scope/wg-b-0123456789abcdef".into()),
        });
    })
    .unwrap();
    assert_eq!(ChatRecord::load(&world.workspace, CHAT).unwrap(), written);
    let text = fs::read_to_string(world.workspace.chat_state_path(CHAT)).unwrap();
    assert_eq!(text, include_str!("../golden/chat-record.json"));
}

#[test]
fn fields_of_others_and_of_later_versions_stay() {
    let world = World::new();
    let path = world.workspace.chat_state_path(CHAT);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text = r#"{"enabled":true,"cost":1.10,"wg_supervisor":{"version":2,"state":"dreaming","mood":"good"},"last":[1e3]}"#;
    fs::write(&path, text).unwrap();
    let record = ChatRecord::load(&world.workspace, CHAT).unwrap();
    assert_eq!(
        record.state, None,
        "a state of a later version is none that we know"
    );
    ChatRecord::update(&world.workspace, CHAT, |record| {
        record.reason = Some("r".to_owned());
    })
    .unwrap();
    let after = fs::read_to_string(&path).unwrap();
    for kept in [
        "\"enabled\": true",
        "\"cost\": 1.10",
        "\"mood\":\"good\"",
        "\"version\":2",
        "[1e3]",
    ] {
        assert!(after.contains(kept), "{kept} is not in {after}");
    }
    let names: Vec<String> = serde_json::from_str::<serde_json::Map<String, Value>>(&after)
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(names, ["enabled", "cost", "wg_supervisor", "last"]);
}

#[test]
fn a_damaged_file_is_never_taken_for_empty_and_is_set_aside_by_the_next_change() {
    let world = World::new();
    let path = world.workspace.chat_state_path(CHAT);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    for (text, aside) in [
        ("", ".corrupt"),
        ("{\"wg_supervisor\":", ".corrupt-1"),
        ("{\"wg_supervisor\":{\"purged_at\":7}}", ".corrupt-2"),
    ] {
        fs::write(&path, text).unwrap();
        let loaded = ChatRecord::load(&world.workspace, CHAT);
        assert!(
            matches!(loaded, Err(StoreError::Corrupt { .. })),
            "{text:?}: {loaded:?}"
        );
        ChatRecord::update(&world.workspace, CHAT, |record| {
            record.reason = Some("again".to_owned());
        })
        .unwrap();
        assert_eq!(
            ChatRecord::load(&world.workspace, CHAT)
                .unwrap()
                .reason
                .as_deref(),
            Some("again")
        );
        let moved = path.with_file_name(format!("coordinator-state-3.json{aside}"));
        assert_eq!(fs::read_to_string(moved).unwrap(), text);
    }
}

#[test]
fn changes_by_several_threads_at_once_all_count() {
    let world = World::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    ChatRecord::update(&world.workspace, CHAT, |record| {
                        let count = record.machine.as_ref().and_then(Value::as_u64).unwrap_or(0);
                        record.machine = Some(json!(count + 1));
                    })
                    .unwrap();
                }
            });
        }
    });
    assert_eq!(
        ChatRecord::load(&world.workspace, CHAT).unwrap().machine,
        Some(json!(100))
    );
}

#[test]
fn a_wish_withdraws_a_chat() {
    let at = Some(Timestamp::EPOCH);
    assert!(!ChatRecord::default().is_withdrawn());
    for record in [
        ChatRecord {
            stopped_at: at,
            ..ChatRecord::default()
        },
        ChatRecord {
            archived_at: at,
            ..ChatRecord::default()
        },
        ChatRecord {
            purged_at: at,
            ..ChatRecord::default()
        },
    ] {
        assert!(record.is_withdrawn());
    }
}
