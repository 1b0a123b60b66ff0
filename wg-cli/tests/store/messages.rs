//! Messages: formats, ids, torn lines, what is answered.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use wg_cli::clock::Timestamp;
use wg_cli::store::StoreError;
use wg_cli::store::attempt::{self, Attempt};
use wg_cli::store::messages::{
    self, Cursor, Durability, Message, NewMessage, Role, Side, TurnInfo, advance_cursor,
    advance_handler_cursors, advance_past, append, read_after, read_cursor, read_last,
};

use crate::world::{World, ask, bytes_read, ids, reply, unanswered};

const LINES: [&str; 3] = [
    r#"{"id":1,"timestamp":"2026-11-20T20:26:12.906424761+00:00","role":"user","content":"one","request_id":"a","user":"t"}"#,
    r#"{"id":2,"timestamp":"2026-11-20T20:26:13.906424761+00:00","role":"user","content":"zwei: äöü 🦀","request_id":"b","user":"t"}"#,
    r#"{"id":3,"timestamp":"2026-11-20T20:26:14.906424761+00:00","role":"user","content":"line\nfeed","request_id":"c","user":"t","attachments":[]}"#,
];

#[test]
fn a_line_has_the_fields_that_the_earlier_tool_insists_on_in_its_order() {
    let world = World::new();
    let dir = world.session();
    let message = NewMessage {
        user: Some("tester".to_owned()),
        ..NewMessage::new(Role::User, "hello")
    };
    assert_eq!(
        append(&dir, Side::Inbox, message, Durability::Sync).unwrap(),
        1
    );
    let text = fs::read_to_string(Side::Inbox.path(&dir)).unwrap();
    let line: Map<String, Value> = serde_json::from_str(&text).unwrap();
    let names: Vec<&str> = line.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["id", "timestamp", "role", "content", "request_id", "user"]
    );
    assert_eq!(line["role"], "user");
    assert!(!line["request_id"].as_str().unwrap().is_empty());
    assert!(text.ends_with("}\n"));
}

#[test]
fn a_reply_says_what_it_answers_and_how_the_turn_went() {
    let world = World::new();
    let dir = world.session();
    let at = Timestamp::from_millis(0);
    let turn = TurnInfo {
        started_at: at,
        ended_at: at,
        exit: Some("code 0".to_owned()),
        attempt: 1,
        ended_children: Some(2),
    };
    let reply = NewMessage {
        in_reply_to: Some(7),
        turn: Some(turn.clone()),
        extra: Map::from_iter([("full_response".to_owned(), json!("at length"))]),
        ..NewMessage::new(Role::SystemError, "no")
    };
    append(&dir, Side::Outbox, reply, Durability::NoSync).unwrap();
    let read = read_after(&dir, Side::Outbox, 0)
        .unwrap()
        .messages
        .remove(0);
    assert_eq!(
        (read.in_reply_to, read.turn, read.role),
        (Some(7), Some(turn), Role::SystemError)
    );
    assert_eq!(read.extra["full_response"], "at length");
    assert_eq!(
        read.request_id, "",
        "a name that was made up would part the reply from its message"
    );
}

#[test]
fn ids_start_at_one_and_rise_by_one() {
    let world = World::new();
    let dir = world.session();
    let given: Vec<u64> = (0..5)
        .map(|number| ask(&dir, &number.to_string()))
        .collect();
    assert_eq!(given, [1, 2, 3, 4, 5]);
    assert_eq!(ids(&dir, Side::Inbox, 3), [4, 5]);
    assert_eq!(messages::last_id(&dir, Side::Inbox).unwrap(), 5);
    assert_eq!(messages::last_id(&dir, Side::Outbox).unwrap(), 0);
}

#[test]
fn a_session_without_files_has_no_messages_and_no_error() {
    let world = World::new();
    let dir = world.workspace.chat_root().join("nowhere");
    assert_eq!(ids(&dir, Side::Inbox, 0), [0; 0]);
    assert_eq!(unanswered(&dir), [0; 0]);
    assert_eq!(read_cursor(&dir, Cursor::Nex).unwrap(), 0);
}

/// Returns where the last whole line of the first `cut` bytes ends.
fn end_of_whole_lines(full: &str, cut: usize) -> usize {
    let before = &full.as_bytes()[..cut];
    before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1)
}

/// A file cut after `cut` bytes: what was whole stays, what was torn is moved aside, and the next message gets the next id.
#[track_caller]
fn survives_a_tear(full: &str, cut: usize) {
    let world = World::new();
    let dir = world.session();
    let path = Side::Inbox.path(&dir);
    fs::write(&path, &full.as_bytes()[..cut]).unwrap();
    let whole = full[..end_of_whole_lines(full, cut)].lines().count();
    let end_of_whole = end_of_whole_lines(full, cut);
    let torn = &full.as_bytes()[end_of_whole..cut];
    let complete_but_for_its_line_feed = Message::parse(torn, Side::Inbox).is_some();
    let before = if complete_but_for_its_line_feed {
        whole + 1
    } else {
        whole
    };

    assert_eq!(
        ids(&dir, Side::Inbox, 0).len(),
        whole,
        "cut at {cut}: a reader takes whole lines only"
    );
    let id = ask(&dir, "after the tear");
    assert_eq!(id, before as u64 + 1, "cut at {cut}");
    let read = read_after(&dir, Side::Inbox, 0).unwrap();
    assert_eq!(
        read.messages
            .iter()
            .map(|message| message.id)
            .collect::<Vec<_>>(),
        (1..=id).collect::<Vec<_>>(),
        "cut at {cut}"
    );
    assert_eq!(read.bad_lines, 0, "cut at {cut}");
    let kept = fs::read(&path).unwrap();
    assert!(
        kept.starts_with(&full.as_bytes()[..end_of_whole]),
        "cut at {cut}: lines before the tear are as they were"
    );
    let aside = fs::read(dir.join("inbox.jsonl.corrupt")).unwrap_or_default();
    if torn.is_empty() || complete_but_for_its_line_feed {
        assert_eq!(aside, b"", "cut at {cut}: nothing was torn");
    } else {
        assert_eq!(
            aside,
            [torn, b"\n"].concat(),
            "cut at {cut}: what was torn is kept aside"
        );
    }
}

#[test]
fn a_file_cut_at_any_byte_loses_nothing_before_the_tear_and_the_next_append_repairs_it() {
    let full = LINES.map(|line| format!("{line}\n")).concat();
    for cut in 0..=full.len() {
        survives_a_tear(&full, cut);
    }
}

#[test]
fn every_further_tear_is_kept_too() {
    let world = World::new();
    let dir = world.session();
    let path = Side::Inbox.path(&dir);
    for torn in ["{\"id\":", "{\"id\":9"] {
        let mut bytes = fs::read(&path).unwrap_or_default();
        bytes.extend_from_slice(torn.as_bytes());
        fs::write(&path, bytes).unwrap();
        ask(&dir, "next");
    }
    assert_eq!(
        fs::read_to_string(dir.join("inbox.jsonl.corrupt")).unwrap(),
        "{\"id\":\n{\"id\":9\n"
    );
    assert_eq!(ids(&dir, Side::Inbox, 0), [1, 2]);
}

#[test]
fn a_bad_line_in_the_middle_blocks_nothing() {
    let world = World::new();
    let dir = world.session();
    let text = format!(
        "{}\nnot json\n\n{{\"id\":\"text\"}}\n\u{0}\n{}\n",
        LINES[0], LINES[1]
    );
    fs::write(Side::Inbox.path(&dir), text).unwrap();
    let read = read_after(&dir, Side::Inbox, 0).unwrap();
    assert_eq!(read.messages.len(), 2);
    assert_eq!(read.bad_lines, 3);
    assert_eq!(ask(&dir, "three"), 3);
    assert_eq!(unanswered(&dir), [1, 2, 3]);
}

#[test]
fn a_bad_last_line_does_not_make_ids_start_again() {
    let world = World::new();
    let dir = world.session();
    fs::write(
        Side::Inbox.path(&dir),
        format!("{}\n\u{fffd}garbage\n", LINES[2]),
    )
    .unwrap();
    assert_eq!(ask(&dir, "next"), 4);
}

#[test]
fn an_unknown_role_is_the_usual_speaker_of_its_file() {
    let line = LINES[0].replace("\"user\",\"content\"", "\"moderator\",\"content\"");
    assert_eq!(
        Message::parse(line.as_bytes(), Side::Inbox).unwrap().role,
        Role::User
    );
    assert_eq!(
        Message::parse(line.as_bytes(), Side::Outbox).unwrap().role,
        Role::Coordinator
    );
}

#[test]
fn a_reply_takes_its_message_off_the_list_before_the_cursor_moves() {
    let world = World::new();
    let dir = world.session();
    for content in ["one", "two", "three"] {
        ask(&dir, content);
    }
    assert_eq!(unanswered(&dir), [1, 2, 3]);
    reply(&dir, 1);
    assert_eq!(
        unanswered(&dir),
        [2, 3],
        "a handler that died between reply and cursor answers nothing twice"
    );
    advance_handler_cursors(&dir, 1).unwrap();
    assert_eq!(unanswered(&dir), [2, 3]);
    reply(&dir, 3);
    assert_eq!(
        unanswered(&dir),
        [2],
        "out of order, and still none is lost"
    );
}

#[test]
fn replies_of_the_earlier_tool_count_by_their_request_id() {
    let world = World::new();
    let dir = world.session();
    let question = NewMessage {
        request_id: Some("r-1".to_owned()),
        ..NewMessage::new(Role::User, "?")
    };
    append(&dir, Side::Inbox, question, Durability::NoSync).unwrap();
    let answer = NewMessage {
        request_id: Some("r-1".to_owned()),
        ..NewMessage::new(Role::Coordinator, "!")
    };
    append(&dir, Side::Outbox, answer, Durability::NoSync).unwrap();
    assert_eq!(unanswered(&dir), [0; 0]);
}

#[test]
fn a_lost_or_damaged_cursor_answers_nothing_twice_and_loses_nothing() {
    for cursor in [
        None,
        Some(""),
        Some("garbage"),
        Some("-3"),
        Some("18446744073709551615"),
        Some("99999999999999999999999"),
    ] {
        let world = World::new();
        let dir = world.session();
        for content in ["one", "two", "three"] {
            ask(&dir, content);
        }
        reply(&dir, 1);
        reply(&dir, 2);
        if let Some(cursor) = cursor {
            fs::write(dir.join(".nex-cursor"), cursor).unwrap();
        }
        assert_eq!(unanswered(&dir), [3], "{cursor:?}");
        assert_eq!(ask(&dir, "four"), 4, "{cursor:?}");
        advance_handler_cursors(&dir, 3).unwrap();
        assert_eq!(read_cursor(&dir, Cursor::Nex).unwrap(), 3, "{cursor:?}");
        assert_eq!(unanswered(&dir), [4], "{cursor:?}");
    }
}

#[test]
fn the_earlier_tools_rotation_hides_no_message() {
    // That tool starts again at 1 after a rotation and leaves the cursor where it was.
    let world = World::new();
    let dir = world.session();
    for content in ["one", "two", "three"] {
        let id = ask(&dir, content);
        let named = NewMessage {
            in_reply_to: Some(id),
            request_id: Some(format!("first {id}")),
            ..NewMessage::new(Role::Coordinator, "!")
        };
        append(&dir, Side::Outbox, named, Durability::NoSync).unwrap();
        advance_handler_cursors(&dir, id).unwrap();
    }
    fs::write(Side::Inbox.path(&dir), format!("{}\n", LINES[0])).unwrap();
    assert_eq!(
        unanswered(&dir),
        [1],
        "the old reply to another message 1 does not count: its request id differs"
    );
    advance_handler_cursors(&dir, 1).unwrap();
    assert_eq!(read_cursor(&dir, Cursor::Nex).unwrap(), 1);
}

#[test]
fn a_reply_that_ends_after_the_inbox_was_removed_hides_none_of_the_messages_that_came_since() {
    let world = World::new();
    let dir = world.session();
    let inbox = Side::Inbox.path(&dir);
    for content in ["one", "two", "three"] {
        ask(&dir, content);
    }
    reply(&dir, 1);
    advance_handler_cursors(&dir, 1).unwrap();
    let in_turn = messages::next_unanswered(&dir).unwrap().unwrap();
    fs::remove_file(&inbox).unwrap();
    assert_eq!(ask(&dir, "four"), 2, "nothing says that 2 was taken");
    let answer = NewMessage {
        in_reply_to: Some(in_turn.id),
        request_id: Some(in_turn.request_id.clone()),
        ..NewMessage::new(Role::Coordinator, "!")
    };
    append(&dir, Side::Outbox, answer, Durability::NoSync).unwrap();
    advance_past(&dir, &in_turn).unwrap();
    assert_eq!(unanswered(&dir), [2], "it is another 2");
    assert_eq!(
        messages::next_unanswered(&dir).unwrap().unwrap().content,
        "four"
    );
    let four = messages::next_unanswered(&dir).unwrap().unwrap();
    advance_past(&dir, &four).unwrap();
    assert_eq!(read_cursor(&dir, Cursor::Nex).unwrap(), 2);
}

#[test]
fn a_message_after_the_removal_of_the_inbox_is_numbered_after_the_one_that_is_being_answered() {
    let world = World::new();
    let dir = world.session();
    for content in ["one", "two", "three"] {
        ask(&dir, content);
    }
    let attempt = Attempt {
        message: 2,
        formerly: None,
        attempt: 1,
        started_at: Timestamp::from_millis(0),
        pid: 1,
    };
    attempt::write(&dir, &attempt).unwrap();
    fs::remove_file(Side::Inbox.path(&dir)).unwrap();
    assert_eq!(ask(&dir, "four"), 3);
    let damaged = Attempt {
        message: u64::MAX,
        ..attempt
    };
    attempt::write(&dir, &damaged).unwrap();
    fs::remove_file(Side::Inbox.path(&dir)).unwrap();
    assert_eq!(
        ask(&dir, "five"),
        1,
        "no record is a reason to have no numbers left"
    );
}

#[test]
fn cursors_are_written_as_the_earlier_tool_reads_them_and_never_move_back() {
    let world = World::new();
    let dir = world.session();
    for content in ["one", "two", "three"] {
        let id = ask(&dir, content);
        reply(&dir, id);
    }
    advance_handler_cursors(&dir, 2).unwrap();
    advance_cursor(&dir, Cursor::Consumer, 3).unwrap();
    advance_handler_cursors(&dir, 1).unwrap();
    advance_cursor(&dir, Cursor::Consumer, 2).unwrap();
    let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!(
        (
            text(".nex-cursor"),
            text(".coordinator-cursor"),
            text(".cursor")
        ),
        ("2".into(), "2\n".into(), "3\n".into())
    );
}

#[test]
fn an_emptied_file_goes_on_above_what_its_readers_have_seen() {
    let world = World::new();
    let dir = world.session();
    for content in ["one", "two", "three"] {
        ask(&dir, content);
    }
    advance_handler_cursors(&dir, 3).unwrap();
    fs::remove_file(Side::Inbox.path(&dir)).unwrap();
    assert_eq!(ask(&dir, "four"), 4);
    assert_eq!(unanswered(&dir), [4]);
}

/// As a sender does who did not hear that its message was accepted.
#[test]
fn a_question_that_is_sent_again_under_its_name_is_one_question() {
    let world = World::new();
    let dir = world.session();
    let named = |name: &str, text: &str| NewMessage {
        request_id: Some(name.to_owned()),
        ..NewMessage::new(Role::User, text)
    };
    let send = |message| append(&dir, Side::Inbox, message, Durability::Sync).unwrap();
    let first = send(named("mine", "one"));
    let other = send(named("mine too", "two"));
    assert_eq!(send(named("mine", "one")), first);
    assert_eq!(ids(&dir, Side::Inbox, 0), [first, other]);
    let taken = append(&dir, Side::Inbox, named("mine", "three"), Durability::Sync).unwrap_err();
    assert!(
        matches!(&taken, StoreError::OtherQuestion { name, id } if name == "mine" && *id == first),
        "{taken}"
    );
    assert_eq!(ids(&dir, Side::Inbox, 0), [first, other]);
    // Answered or not, it is the same question; asked again on purpose, it is a new one.
    reply(&dir, first);
    assert_eq!(send(named("mine", "one")), first);
    let again = NewMessage {
        retry_of: Some(first),
        ..named("mine", "one")
    };
    assert_eq!(send(again), other + 1);
    // Two replies may carry the name of one question: an attempt that failed, and the answer.
    let answer = |role| NewMessage {
        request_id: Some("mine".to_owned()),
        ..NewMessage::new(role, "answer")
    };
    let replies = [Role::SystemError, Role::Coordinator]
        .map(|role| append(&dir, Side::Outbox, answer(role), Durability::Sync).unwrap());
    assert_ne!(replies[0], replies[1]);
}

#[test]
fn a_long_history_is_not_read_for_an_append_or_for_what_is_unanswered() {
    let world = World::new();
    let dir = world.session();
    // 5 MB of history in front; the test would also pass with a slow reader, so it counts what the kernel says was read.
    let line = |id: usize, name: &str, reply: &str| {
        format!(
            "{{\"id\":{id},\"timestamp\":\"2026-11-20T20:26:12Z\",\"role\":\"{name}\",\"content\":\"{}\",\"request_id\":\"r{id}\",\"user\":\"t\"{reply}}}\n",
            "x".repeat(400)
        )
    };
    let inbox: String = (1..=10_000).map(|id| line(id, "user", "")).collect();
    let outbox: String = (1..=10_000)
        .map(|id| line(id, "coordinator", &format!(",\"in_reply_to\":{id}")))
        .collect();
    fs::write(Side::Inbox.path(&dir), inbox).unwrap();
    fs::write(Side::Outbox.path(&dir), outbox).unwrap();
    advance_handler_cursors(&dir, 10_000).unwrap();
    let before = bytes_read();
    let id = ask(&dir, "one more");
    assert_eq!(unanswered(&dir), [10_001]);
    reply(&dir, id);
    assert_eq!(unanswered(&dir), [0; 0]);
    assert_eq!(read_last(&dir, Side::Outbox, 3).unwrap().messages.len(), 3);
    let read = bytes_read() - before;
    assert!(read < 1_000_000, "{read} bytes were read of ten million");
}

#[test]
fn a_link_or_a_pipe_in_the_place_of_a_file_is_refused_and_hangs_nobody() {
    for plant in [plant_link as fn(&Path), plant_pipe, plant_directory] {
        for name in ["inbox.jsonl", "inbox.jsonl.lock", ".nex-cursor"] {
            let world = World::new();
            let dir = world.session();
            plant(&dir.join(name));
            let results = [
                append(
                    &dir,
                    Side::Inbox,
                    NewMessage::new(Role::User, "x"),
                    Durability::NoSync,
                )
                .map(drop),
                read_after(&dir, Side::Inbox, 0).map(drop),
                messages::unanswered(&dir).map(drop),
            ];
            let refused = results
                .iter()
                .filter(|result| matches!(result, Err(StoreError::NotARegularFile { .. })))
                .count();
            assert!(refused >= 1, "{name}: {results:?}");
            assert!(
                results.iter().flatten().count() + refused == 3,
                "{name}: {results:?}"
            );
            assert!(
                !dir.join("elsewhere").exists(),
                "nothing was written through the link"
            );
        }
    }
}

fn plant_link(path: &Path) {
    std::os::unix::fs::symlink(path.with_file_name("elsewhere"), path).unwrap();
}

fn plant_pipe(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
}

fn plant_directory(path: &Path) {
    fs::create_dir(path).unwrap();
}

fn any_message() -> impl Strategy<Value = Message> {
    let role = prop_oneof![
        Just(Role::User),
        Just(Role::Coordinator),
        Just(Role::SystemError)
    ];
    let time = any::<i32>().prop_map(|seconds| Timestamp::from_millis(i64::from(seconds) * 1000));
    let turn = (
        time.clone(),
        time.clone(),
        any::<Option<String>>(),
        any::<u32>(),
        any::<Option<u32>>(),
    )
        .prop_map(
            |(started_at, ended_at, exit, attempt, ended_children)| TurnInfo {
                started_at,
                ended_at,
                exit,
                attempt,
                ended_children,
            },
        );
    let extra = proptest::collection::btree_map(
        "x_[a-z]{1,4}",
        any::<Option<u64>>().prop_map(|number| json!(number)),
        0..3,
    );
    (
        (
            any::<u64>(),
            time,
            role,
            any::<String>(),
            any::<String>(),
            any::<String>(),
        ),
        (
            any::<Option<u64>>(),
            any::<Option<u64>>(),
            proptest::option::of(turn),
            extra,
        ),
    )
        .prop_map(
            |(
                (id, timestamp, role, content, request_id, user),
                (in_reply_to, retry_of, turn, extra),
            )| Message {
                id,
                timestamp,
                role,
                content,
                request_id,
                user,
                in_reply_to,
                retry_of,
                turn,
                extra: extra.into_iter().collect(),
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_message_reads_as_it_was_written(message in any_message()) {
        let line = message.format();
        prop_assert!(!line.contains(&b'\n'));
        prop_assert_eq!(Message::parse(&line, Side::Inbox), Some(message));
    }

    #[test]
    fn any_bytes_after_whole_lines_lose_none_of_them(garbage in proptest::collection::vec(any::<u8>(), 0..60), lines in 0_usize..=3) {
        let world = World::new();
        let dir = world.session();
        let whole = LINES[..lines].iter().flat_map(|line| [*line, "\n"]).collect::<String>();
        fs::write(Side::Inbox.path(&dir), [whole.as_bytes(), &garbage].concat()).unwrap();
        let id = ask(&dir, "after");
        let read = read_after(&dir, Side::Inbox, 0).unwrap();
        prop_assert_eq!(read.messages.iter().filter(|message| message.id <= lines as u64).count(), lines);
        prop_assert_eq!(read.messages.last().map(|message| (message.id, message.content.as_str())), Some((id, "after")));
    }
}

#[test]
fn the_next_of_a_hundred_thousand_waiting_messages_is_found_without_reading_the_rest() {
    let world = World::new();
    let dir = world.session();
    let line = |id: u64| {
        format!(
            r#"{{"id":{id},"timestamp":"2026-11-20T20:26:12Z","role":"user","content":"message {id}","request_id":"r{id}","user":"t"}}"#
        )
    };
    let mut text = String::new();
    for id in 1..=100_000 {
        text.push_str(&line(id));
        text.push('\n');
    }
    fs::write(Side::Inbox.path(&dir), &text).unwrap();
    for done in [0, 1, 50_000, 99_999] {
        advance_handler_cursors(&dir, done).unwrap();
        let before = bytes_read();
        let next = messages::next_unanswered(&dir).unwrap().unwrap();
        let found = messages::find_unanswered(&dir, done + 1).unwrap();
        let read = bytes_read() - before;
        assert_eq!(next.id, done + 1);
        assert_eq!(found, Some(next));
        assert!(read < text.len() as u64 / 10, "{read} bytes read");
    }
    advance_handler_cursors(&dir, 100_000).unwrap();
    assert_eq!(messages::next_unanswered(&dir).unwrap(), None);
}
