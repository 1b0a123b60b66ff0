//! Messages whose number leaves no room, as another tool may have written them.

use std::fs;
use std::path::Path;

use wg_cli::store::StoreError;
use wg_cli::store::attempt::{self, Attempt};
use wg_cli::store::messages::{
    self, Cursor, Durability, NewMessage, Role, Side, advance_handler_cursors, read_cursor,
};
use wg_cli::store::numbering;

use crate::world::{World, ask, ids, reply, unanswered};

/// A line of another tool's, with a field that is not ours.
fn foreign(id: u64, request_id: &str) -> String {
    format!(
        "{{\"id\":{id},\"timestamp\":\"2026-11-20T20:26:12Z\",\"role\":\"user\",\"content\":\"{request_id}\",\
         \"request_id\":\"{request_id}\",\"user\":\"t\",\"theirs\":1.50}}\n"
    )
}

fn add(dir: &Path, side: Side, line: &str) {
    let path = side.path(dir);
    let before = fs::read_to_string(&path).unwrap_or_default();
    fs::write(path, before + line).unwrap();
}

fn refused(dir: &Path) -> bool {
    let message = NewMessage::new(Role::User, "more");
    let said = messages::append(dir, Side::Inbox, message, Durability::NoSync);
    matches!(said, Err(StoreError::Corrupt { .. }))
}

#[test]
fn a_message_after_which_there_is_no_number_gets_a_usable_one_and_nothing_is_lost() {
    let world = World::new();
    let dir = world.session();
    for content in ["one", "two"] {
        ask(&dir, content);
    }
    reply(&dir, 1);
    assert_eq!(numbering::too_high(&dir, Side::Inbox).unwrap(), None);
    let line = foreign(u64::MAX, "theirs");
    add(&dir, Side::Inbox, &line);
    assert!(refused(&dir), "none can follow");
    assert_eq!(
        numbering::too_high(&dir, Side::Inbox).unwrap(),
        Some(u64::MAX)
    );
    let begun = Attempt {
        message: u64::MAX,
        formerly: None,
        attempt: 1,
        started_at: wg_cli::clock::now(),
        pid: 1,
    };
    attempt::write(&dir, &begun).unwrap();

    numbering::mend(&dir).unwrap();
    assert_eq!(numbering::too_high(&dir, Side::Inbox).unwrap(), None);
    assert_eq!(ids(&dir, Side::Inbox, 0), [1, 2, 3]);
    assert_eq!(unanswered(&dir), [2, 3]);
    assert_eq!(attempt::read(&dir).unwrap().message, 3);
    let inbox = fs::read_to_string(Side::Inbox.path(&dir)).unwrap();
    let expected = foreign(3, "theirs");
    assert_eq!(inbox.lines().last(), Some(expected.trim_end()));
    let kept = fs::read_to_string(dir.join("inbox.jsonl.corrupt")).unwrap();
    assert_eq!(kept, line);
    assert_eq!(ask(&dir, "four"), 4);
    numbering::mend(&dir).unwrap();
    assert_eq!(ids(&dir, Side::Inbox, 0), [1, 2, 3, 4], "once is enough");
}

#[test]
fn what_was_answered_under_a_number_that_leaves_no_room_is_not_asked_again() {
    let world = World::new();
    let dir = world.session();
    reply(&dir, ask(&dir, "one"));
    add(&dir, Side::Inbox, &foreign(u64::MAX, "theirs"));
    let last = messages::next_unanswered(&dir).unwrap().unwrap();
    let answer = NewMessage {
        in_reply_to: Some(last.id),
        request_id: Some(last.request_id.clone()),
        ..NewMessage::new(Role::Coordinator, "re theirs")
    };
    messages::append(&dir, Side::Outbox, answer, Durability::NoSync).unwrap();
    advance_handler_cursors(&dir, last.id).unwrap();
    // Another tool went on below it, and was not answered yet.
    add(&dir, Side::Inbox, &foreign(2, "after"));

    numbering::mend(&dir).unwrap();
    assert_eq!(ids(&dir, Side::Inbox, 0), [1, 2, 3]);
    assert_eq!(unanswered(&dir), [3]);
    let waits = messages::next_unanswered(&dir).unwrap().unwrap();
    assert_eq!(waits.content, "after");
    assert_eq!(read_cursor(&dir, Cursor::Nex).unwrap(), 1);
    let replies = messages::read_after(&dir, Side::Outbox, 0)
        .unwrap()
        .messages;
    assert_eq!(replies.last().unwrap().in_reply_to, Some(2));
    assert_eq!(replies.len(), 2);
}

#[test]
fn a_reply_after_which_there_is_no_number_gets_a_usable_one_too() {
    let world = World::new();
    let dir = world.session();
    reply(&dir, ask(&dir, "one"));
    ask(&dir, "two");
    let line = format!(
        "{{\"id\":{},\"role\":\"coordinator\",\"content\":\"re two\",\"in_reply_to\":2}}\n",
        u64::MAX
    );
    add(&dir, Side::Outbox, &line);
    assert_eq!(unanswered(&dir), [] as [u64; 0]);
    numbering::mend(&dir).unwrap();
    assert_eq!(ids(&dir, Side::Outbox, 0), [1, 2]);
    assert_eq!(unanswered(&dir), [] as [u64; 0]);
    assert_eq!(reply(&dir, ask(&dir, "three")), 3);
}
