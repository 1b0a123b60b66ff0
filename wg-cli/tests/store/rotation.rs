//! Moving what is done with to the archive: what stays, what readers see of it, and what it costs.

use std::fs;

use wg_cli::store::messages::{self, Side, Tail, advance_handler_cursors, read_last};

use crate::world::{World, ask, bytes_written, ids, reply, unanswered};

const ONE: &str = r#"{"id":1,"timestamp":"2026-11-20T20:26:12.906424761+00:00","role":"user","content":"one","request_id":"a","user":"t"}"#;

#[test]
fn rotation_keeps_ids_rising_and_readers_go_on_into_the_archive() {
    let world = World::new();
    let dir = world.session();
    for number in 1..=10 {
        let id = ask(&dir, &number.to_string());
        if number <= 7 {
            reply(&dir, id);
            advance_handler_cursors(&dir, id).unwrap();
        }
    }
    assert_eq!(
        messages::rotate(&dir, Side::Inbox, 1 << 20).unwrap(),
        None,
        "it is not over the limit"
    );
    for side in [Side::Inbox, Side::Outbox] {
        let archive = messages::rotate(&dir, side, 0).unwrap().unwrap();
        assert!(archive.starts_with(dir.join("archive")), "{archive:?}");
    }
    let live = |side: Side| fs::read_to_string(side.path(&dir)).unwrap().lines().count();
    assert_eq!(live(Side::Inbox), 3, "what is not answered stays");
    assert_eq!(
        live(Side::Outbox),
        1,
        "the last line stays: it bears the id"
    );
    assert_eq!(unanswered(&dir), [8, 9, 10]);
    assert_eq!(ids(&dir, Side::Inbox, 0), (1..=10).collect::<Vec<_>>());
    assert_eq!(ids(&dir, Side::Inbox, 5), [6, 7, 8, 9, 10]);
    assert_eq!(ask(&dir, "eleven"), 11);
    for id in 8..=11 {
        reply(&dir, id);
        advance_handler_cursors(&dir, id).unwrap();
    }
    for side in [Side::Inbox, Side::Outbox] {
        messages::rotate(&dir, side, 0).unwrap().unwrap();
        assert_eq!(ids(&dir, side, 0), (1..=11).collect::<Vec<_>>());
    }
    let last: Vec<u64> = read_last(&dir, Side::Outbox, 4)
        .unwrap()
        .messages
        .iter()
        .map(|message| message.id)
        .collect();
    assert_eq!(last, [8, 9, 10, 11]);
    assert_eq!(
        messages::rotate(&dir, Side::Inbox, 0).unwrap(),
        None,
        "one line is left, and it stays"
    );
    assert_eq!(ask(&dir, "twelve"), 12);
}

#[test]
fn a_rotation_that_died_before_its_last_step_shows_each_message_once() {
    let world = World::new();
    let dir = world.session();
    for number in 1..=4 {
        let id = ask(&dir, &number.to_string());
        reply(&dir, id);
        advance_handler_cursors(&dir, id).unwrap();
    }
    let before = fs::read(Side::Inbox.path(&dir)).unwrap();
    messages::rotate(&dir, Side::Inbox, 0).unwrap().unwrap();
    fs::write(Side::Inbox.path(&dir), before).unwrap();
    assert_eq!(ids(&dir, Side::Inbox, 0), [1, 2, 3, 4]);
    assert_eq!(ids(&dir, Side::Inbox, 2), [3, 4]);
}

#[test]
fn a_tail_returns_each_message_once_over_rotations() {
    let world = World::new();
    let dir = world.session();
    ask(&dir, "one");
    let mut tail = Tail::new(&dir, Side::Inbox, 1);
    let mut next = || {
        tail.read_new()
            .unwrap()
            .iter()
            .map(|message| message.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(next(), [0; 0]);
    ask(&dir, "two");
    ask(&dir, "three");
    assert_eq!(next(), [2, 3]);
    advance_handler_cursors(&dir, 3).unwrap();
    messages::rotate(&dir, Side::Inbox, 0).unwrap().unwrap();
    assert_eq!(next(), [0; 0]);
    ask(&dir, "four");
    assert_eq!(next(), [4]);
    // Another tool's rotation.
    fs::write(Side::Inbox.path(&dir), format!("{ONE}\n")).unwrap();
    assert_eq!(next(), [1]);
}

#[test]
fn a_long_backlog_over_the_limit_is_not_written_again_for_each_message_of_it() {
    for backlog in [100, 800] {
        let world = World::new();
        let dir = world.session();
        let text = "x".repeat(500);
        for _ in 0..backlog {
            ask(&dir, &text);
        }
        let mut written = 0;
        for id in 1..=backlog {
            reply(&dir, id);
            advance_handler_cursors(&dir, id).unwrap();
            let before = bytes_written();
            messages::rotate_history(&dir, 10_000, messages::Keep::All).unwrap();
            written += bytes_written() - before;
        }
        let whole = backlog * 1000;
        assert!(
            written < 3 * whole,
            "{written} bytes were written to move less than {whole}"
        );
        for side in [Side::Inbox, Side::Outbox] {
            assert_eq!(ids(&dir, side, 0), (1..=backlog).collect::<Vec<_>>());
            let left = fs::metadata(side.path(&dir)).unwrap().len();
            assert!(left <= 10_000, "{left} bytes stay when all is done");
        }
        assert_eq!(unanswered(&dir), [0; 0]);
    }
}
