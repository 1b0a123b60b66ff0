//! The log of events.

use std::fs;

use serde_json::json;
use wg_cli::clock::Timestamp;
use wg_cli::names::{ChatState, EventKind};
use wg_cli::store::events::{EventLine, EventLog};
use wg_cli::store::graph::ChatId;

use crate::world::World;

fn log(world: &World, max_size: u64, keep: u32) -> EventLog {
    world.workspace.ensure_service_dir().unwrap();
    EventLog::open(&world.workspace, max_size, keep)
}

fn event(chat: u32, text: &str) -> EventLine {
    EventLine::new(Some(ChatId(chat)), EventKind::Idle, text)
}

fn seqs(events: &[EventLine]) -> Vec<u64> {
    events.iter().map(|event| event.seq).collect()
}

#[test]
fn a_line_has_the_golden_form() {
    let world = World::new();
    let log = log(&world, 1 << 20, 1);
    let at = Timestamp::parse("2026-11-20T20:26:09.758715983Z").unwrap();
    let full = EventLine {
        ts: at,
        state: Some(ChatState::Backoff),
        pid: Some(4711),
        verdict: Some(json!({"class": "crash"})),
        delay_ms: Some(0),
        until: Some(at),
        holder: Some(json!({"pid": 1})),
        crash_count: Some(1),
        budget: Some(json!({"account": "crash", "count": 1, "window": 600})),
        ..EventLine::new(Some(ChatId(3)), EventKind::Backoff, "the handler crashed")
    };
    log.append(full).unwrap();
    log.append(EventLine {
        ts: at,
        ..EventLine::new(None, EventKind::DaemonStarted, "up")
    })
    .unwrap();
    assert_eq!(
        fs::read_to_string(world.workspace.events_path()).unwrap(),
        include_str!("../golden/events.jsonl")
    );
}

#[test]
fn numbers_rise_over_rotations_and_over_writers() {
    let world = World::new();
    let first = log(&world, 600, 2);
    for number in 1..=20 {
        assert_eq!(
            first.append(event(number % 2, "x")).unwrap(),
            u64::from(number)
        );
    }
    let names = [
        "events.jsonl",
        "events.jsonl.1",
        "events.jsonl.2",
        "events.jsonl.3",
    ];
    let there = names.map(|name| world.path("service").join(name).exists());
    assert_eq!(
        there,
        [true, true, true, false],
        "as many as are to be kept"
    );
    let second = log(&world, 600, 2);
    assert_eq!(second.append(event(5, "x")).unwrap(), 21);
    let tail = second.tail(None, 5).unwrap();
    assert_eq!(seqs(&tail), [17, 18, 19, 20, 21], "over the files");
    assert_eq!(seqs(&second.tail(Some(ChatId(0)), 2).unwrap()), [18, 20]);
    assert_eq!(second.last(ChatId(1)).unwrap().unwrap().seq, 19);
    assert_eq!(second.last(ChatId(9)).unwrap(), None);
    assert_eq!(seqs(&second.after(18).unwrap()), [19, 20, 21]);
    let each: Vec<(u32, u64)> = second
        .last_of_each(|_| true)
        .unwrap()
        .into_iter()
        .map(|(chat, event)| (chat.0, event.seq))
        .collect();
    assert_eq!(each, [(0, 20), (1, 19), (5, 21)]);
    fs::remove_file(world.workspace.events_path()).unwrap();
    assert!(
        second.append(event(5, "x")).unwrap() > 17,
        "the rotated files are asked"
    );
}

#[test]
fn a_torn_line_and_a_later_versions_event_are_passed_over() {
    let world = World::new();
    let log = log(&world, 1 << 20, 1);
    log.append(event(1, "one")).unwrap();
    let path = world.workspace.events_path();
    let mut text = fs::read_to_string(&path).unwrap();
    text.push_str("{\"seq\":7,\"event\":\"dreamt\",\"text\":\"of a later version\"}\n{\"seq\":8,");
    fs::write(&path, text).unwrap();
    assert_eq!(log.append(event(1, "two")).unwrap(), 8, "its number counts");
    let texts: Vec<String> = log
        .tail(None, 9)
        .unwrap()
        .into_iter()
        .map(|event| event.text)
        .collect();
    assert_eq!(texts, ["one", "two"]);
    assert_eq!(
        fs::read_to_string(world.path("service/events.jsonl.corrupt")).unwrap(),
        "{\"seq\":8,\n"
    );
}

#[test]
fn text_of_several_lines_stays_one_line() {
    let world = World::new();
    let log = log(&world, 1 << 20, 1);
    log.append(event(1, "a\nb\u{1b}[31m\r\n")).unwrap();
    assert_eq!(
        fs::read_to_string(world.workspace.events_path())
            .unwrap()
            .lines()
            .count(),
        1
    );
    assert_eq!(
        log.last(ChatId(1)).unwrap().unwrap().text,
        "a\nb\u{1b}[31m\r\n"
    );
}
