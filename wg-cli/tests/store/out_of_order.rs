//! Questions of another tool whose numbers do not rise: each is asked once, under a number that does.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use proptest::prelude::*;
use wg_cli::store::messages::{
    self, Cursor, Durability, Message, NewMessage, Numbers, Role, Side, Which,
    advance_handler_cursors, advance_past, read_cursor,
};
use wg_cli::store::numbering;

use crate::world::{World, ask, bytes_read, ids, reply, unanswered};

fn foreign(id: u64, content: &str, name: &str) -> String {
    format!(
        "{{\"id\":{id},\"timestamp\":\"2026-11-20T20:26:12Z\",\"role\":\"user\",\"content\":\"{content}\",\"request_id\":\"{name}\",\
         \"theirs\":1.50}}\n"
    )
}

/// As another tool does: no lock, one write.
fn add(dir: &Path, side: Side, line: &str) {
    let mut file = (OpenOptions::new().append(true).create(true))
        .open(side.path(dir))
        .unwrap();
    file.write_all(line.as_bytes()).unwrap();
}

fn answer(dir: &Path, question: &Message) {
    let answer = NewMessage {
        in_reply_to: Some(question.id),
        request_id: Some(question.request_id.clone()),
        ..NewMessage::new(Role::Coordinator, format!("re {}", question.content))
    };
    messages::append(dir, Side::Outbox, answer, Durability::NoSync).unwrap();
}

/// As a handler looks for its next message.
fn next(dir: &Path, numbers: &mut Numbers) -> Option<Message> {
    for _ in 0..10 {
        let next = messages::next_unanswered(dir).unwrap();
        if !numbers.look(dir).unwrap() {
            return next;
        }
        messages::renumber(dir, Which::Arrived).unwrap();
    }
    panic!("nobody writes, and still numbers do not rise");
}

/// Answers what waits and returns what it says.
fn drain(dir: &Path, numbers: &mut Numbers) -> Vec<String> {
    let mut said = Vec::new();
    while let Some(question) = next(dir, numbers) {
        answer(dir, &question);
        advance_past(dir, &question).unwrap();
        said.push(question.content);
        assert!(said.len() < 100, "asked without an end: {said:?}");
    }
    said
}

#[test]
fn a_question_under_a_number_that_was_there_is_asked_under_the_next_one_and_its_line_stays() {
    let world = World::new();
    let dir = world.session();
    let mut numbers = Numbers::default();
    ask(&dir, "one");
    ask(&dir, "two");
    assert_eq!(drain(&dir, &mut numbers), ["one", "two"]);
    let before = fs::read_to_string(Side::Inbox.path(&dir)).unwrap();
    let theirs = [
        foreign(2, "the same", "a"),
        foreign(1, "lower", "b"),
        foreign(0, "none", ""),
    ];
    add(&dir, Side::Inbox, &theirs.concat());
    assert_eq!(drain(&dir, &mut numbers), ["the same", "lower", "none"]);
    assert_eq!(drain(&dir, &mut numbers), [] as [&str; 0]);
    assert_eq!(unanswered(&dir), [] as [u64; 0]);
    let inbox = fs::read_to_string(Side::Inbox.path(&dir)).unwrap();
    let again = foreign(3, "the same", "a").replace("1.50}", "1.50,\"renumbered_from\":2}");
    assert!(
        inbox.starts_with(&(before + &theirs.concat() + &again)),
        "{inbox}"
    );
    assert_eq!(ids(&dir, Side::Inbox, 0), [1, 2, 3, 4, 5]);
    assert_eq!(ask(&dir, "more"), 6);
    assert_eq!(read_cursor(&dir, Cursor::Nex).unwrap(), 5);
}

#[test]
fn of_several_lines_that_are_alike_each_is_asked_when_it_comes() {
    let world = World::new();
    let dir = world.session();
    let mut numbers = Numbers::default();
    ask(&dir, "one");
    assert_eq!(drain(&dir, &mut numbers), ["one"]);
    for round in 0..3 {
        add(&dir, Side::Inbox, &foreign(1, "yes", ""));
        assert_eq!(drain(&dir, &mut numbers), ["yes"], "round {round}");
    }
}

#[test]
fn one_that_leaves_no_room_is_asked_once_beside_one_that_does_not_rise() {
    let world = World::new();
    let dir = world.session();
    let mut numbers = Numbers::default();
    ask(&dir, "one");
    assert_eq!(drain(&dir, &mut numbers), ["one"]);
    let theirs = foreign(0, "zero", "z") + &foreign((1 << 53) + 1, "huge", "h");
    add(&dir, Side::Inbox, &theirs);
    let mut said = drain(&dir, &mut numbers);
    said.sort();
    assert_eq!(said, ["huge", "zero"]);
    for content in ["two", "three"] {
        ask(&dir, content);
        assert_eq!(drain(&dir, &mut numbers), [content]);
    }
}

#[test]
fn a_mend_of_what_leaves_no_room_has_nobody_asked_twice_who_got_a_number_before_or_gets_one_after()
{
    for (renumbered_first, answered_first) in [(true, true), (true, false), (false, false)] {
        let world = World::new();
        let dir = world.session();
        let mut numbers = Numbers::default();
        ask(&dir, "one");
        assert_eq!(drain(&dir, &mut numbers), ["one"]);
        // A reply to one without a name is known by the number alone, which a mend changes.
        let name = if answered_first { "z" } else { "" };
        let strays = foreign(1, "dup", "d") + &foreign(0, "zero", name);
        add(&dir, Side::Inbox, &foreign(u64::MAX, "huge", "h"));
        add(&dir, Side::Inbox, &strays);
        if renumbered_first {
            messages::renumber(&dir, Which::All).unwrap();
        }
        let mut said = Vec::new();
        if answered_first {
            said = drain(&dir, &mut numbers);
        }
        numbering::mend(&dir).unwrap();
        let inbox = fs::read_to_string(Side::Inbox.path(&dir)).unwrap();
        assert!(inbox.contains(&strays), "{inbox}");
        messages::renumber(&dir, Which::All).unwrap();
        said.extend(drain(&dir, &mut numbers));
        said.sort();
        let case = format!("renumbered {renumbered_first}, answered {answered_first}");
        assert_eq!(said, ["dup", "huge", "zero"], "{case}");
        ask(&dir, "two");
        assert_eq!(drain(&dir, &mut numbers), ["two"], "{case}");
    }
}

#[test]
fn an_accepted_message_is_not_hidden_by_a_lower_number_behind_it() {
    let world = World::new();
    let dir = world.session();
    let mut numbers = Numbers::default();
    for content in ["one", "two", "three"] {
        ask(&dir, content);
    }
    reply(&dir, 1);
    advance_handler_cursors(&dir, 1).unwrap();
    add(&dir, Side::Inbox, &foreign(7, "a gap", "a"));
    add(&dir, Side::Inbox, &foreign(1, "low", "b"));
    assert_eq!(ask(&dir, "after"), 8, "not the number of one that waits");
    assert!(numbers.look(&dir).unwrap());
    assert_eq!(unanswered(&dir), [2, 3, 7, 8, 9]);
    assert_eq!(
        drain(&dir, &mut Numbers::default()),
        ["two", "three", "a gap", "after", "low"]
    );
}

#[test]
fn what_another_tool_has_answered_under_such_a_number_is_not_asked_again() {
    let world = World::new();
    let dir = world.session();
    let mut numbers = Numbers::default();
    ask(&dir, "one");
    drain(&dir, &mut numbers);
    let theirs = [
        foreign(1, "a", "a"),
        foreign(1, "b", "b"),
        foreign(1, "c", ""),
        foreign(1, "d", ""),
    ];
    add(&dir, Side::Inbox, &theirs.concat());
    // By its name alone, and by the number of one without a name.
    for reply in [
        "{\"id\":2,\"role\":\"coordinator\",\"content\":\"!\",\"request_id\":\"a\"}\n",
        "{\"id\":3,\"role\":\"coordinator\",\"content\":\"!\",\"in_reply_to\":1}\n",
    ] {
        add(&dir, Side::Outbox, reply);
    }
    assert_eq!(drain(&dir, &mut numbers), ["b", "d"]);
    assert_eq!(drain(&dir, &mut Numbers::default()), [] as [&str; 0]);
}

#[test]
fn what_another_tool_has_passed_over_is_asked_on_a_persons_wish_only() {
    let world = World::new();
    let dir = world.session();
    let theirs = [
        foreign(1, "answered", "a"),
        foreign(3, "three", "b"),
        foreign(2, "passed over", "c"),
        foreign(4, "four", "d"),
    ];
    add(&dir, Side::Inbox, &theirs.concat());
    fs::write(dir.join(".nex-cursor"), "4").unwrap();
    assert_eq!(drain(&dir, &mut Numbers::default()), [] as [&str; 0]);
    assert_eq!(messages::passed_over(&dir).unwrap(), [2]);
    assert_eq!(messages::renumber(&dir, Which::All).unwrap(), 1);
    assert_eq!(messages::renumber(&dir, Which::All).unwrap(), 0);
    assert_eq!(messages::passed_over(&dir).unwrap(), [0_u64; 0]);
    assert_eq!(drain(&dir, &mut Numbers::default()), ["passed over"]);
}

#[test]
fn a_look_at_a_long_inbox_reads_what_was_appended() {
    let world = World::new();
    let dir = world.session();
    let long: String = (1..=10_000)
        .map(|id| foreign(id, "x", &format!("r{id}")))
        .collect();
    add(&dir, Side::Inbox, &long);
    let mut numbers = Numbers::default();
    assert!(!numbers.look(&dir).unwrap());
    let before = bytes_read();
    for id in 10_001..=10_010 {
        add(&dir, Side::Inbox, &foreign(id, "y", "r"));
        assert!(!numbers.look(&dir).unwrap());
    }
    let read = bytes_read() - before;
    assert!(read < 20_000, "{read} bytes were read");
    add(&dir, Side::Inbox, &foreign(10_010, "z", "r"));
    assert!(numbers.look(&dir).unwrap());
    // Another file in its place is read from its start.
    fs::write(Side::Inbox.path(&dir), foreign(1, "new", "n")).unwrap();
    assert!(!numbers.look(&dir).unwrap());
}

/// What may happen to a session.
#[derive(Debug, Clone)]
enum Happening {
    /// Another tool appends a question under this number, with a name of its own or without one.
    Foreign {
        id: u64,
        named: bool,
    },
    /// A torn write of another tool, whose line no reader takes for one.
    Torn,
    Asked,
    /// A handler looks, and is killed after so many steps: the new numbers, the reply, the cursors.
    Handled {
        steps: u8,
    },
    /// The handler goes on where it is.
    Served,
    Rotated,
    /// The daemon sees the change.
    Noticed,
    /// A person has the doctor ask what was passed over.
    Doctored,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (0_u64..8, any::<bool>()).prop_map(|(id, named)| Happening::Foreign { id, named }),
        1 => Just(Happening::Torn),
        2 => Just(Happening::Asked),
        3 => (0_u8..5).prop_map(|steps| Happening::Handled { steps }),
        1 => Just(Happening::Served),
        1 => Just(Happening::Rotated),
        1 => Just(Happening::Noticed),
        1 => Just(Happening::Doctored),
    ]
}

/// Does the first steps of a handler's way with one message; a killed one has no memory.
fn handle(dir: &Path, steps: u8) {
    let mut numbers = Numbers::default();
    if steps == 0 {
        numbers.look(dir).unwrap();
        return;
    }
    let Some(question) = next(dir, &mut numbers) else {
        return;
    };
    if steps >= 2 {
        answer(dir, &question);
    }
    if steps == 3 {
        fs::write(
            dir.join(".coordinator-cursor"),
            format!("{}\n", question.id),
        )
        .unwrap();
    }
    if steps >= 4 {
        advance_past(dir, &question).unwrap();
    }
}

/// Every line that was ever appended, in the archive and in the file, is there as it was written.
fn every_byte_is_there(dir: &Path, written: &[String]) {
    let mut all = String::new();
    if let Ok(archive) = fs::read_dir(dir.join("archive")) {
        for entry in archive {
            all.push_str(&fs::read_to_string(entry.unwrap().path()).unwrap());
        }
    }
    all.push_str(&fs::read_to_string(Side::Inbox.path(dir)).unwrap_or_default());
    for line in written {
        assert!(all.contains(line.as_str()), "{line} is not in\n{all}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn whoever_writes_which_number_each_question_is_answered_once(
        happenings in proptest::collection::vec(happening(), 0..25),
    ) {
        let world = World::new();
        let dir = world.session();
        let mut serving = Numbers::default();
        let mut noticing = Numbers::default();
        let mut asked = Vec::new();
        let mut written = Vec::new();
        for (turn, happening) in happenings.into_iter().enumerate() {
            let content = format!("q{turn};");
            match happening {
                Happening::Foreign { id, named } => {
                    let name = if named { format!("r{turn}") } else { String::new() };
                    let line = foreign(id, &content, &name);
                    add(&dir, Side::Inbox, &line);
                    asked.push(content);
                    written.push(line);
                }
                Happening::Torn => add(&dir, Side::Inbox, "{\"id\":3,\"content\":\"half\n"),
                Happening::Asked => {
                    ask(&dir, &content);
                    asked.push(content);
                }
                Happening::Handled { steps } => handle(&dir, steps),
                Happening::Served => drop(drain(&dir, &mut serving)),
                Happening::Rotated => {
                    messages::rotate(&dir, Side::Inbox, 0).unwrap();
                    messages::rotate(&dir, Side::Outbox, 0).unwrap();
                }
                Happening::Noticed => {
                    noticing.look(&dir).unwrap();
                    messages::unanswered(&dir).unwrap();
                }
                Happening::Doctored => drop(messages::renumber(&dir, Which::All).unwrap()),
            }
        }
        drain(&dir, &mut Numbers::default());
        let replies = messages::read_after(&dir, Side::Outbox, 0).unwrap().messages;
        let mut answered: BTreeMap<String, usize> = BTreeMap::new();
        for reply in replies {
            *answered.entry(reply.content["re ".len()..].to_owned()).or_default() += 1;
        }
        for question in &asked {
            prop_assert_eq!(answered.remove(question), Some(1), "{}", question);
        }
        prop_assert!(answered.is_empty(), "{:?}", answered);
        prop_assert_eq!(messages::passed_over(&dir).unwrap(), Vec::<u64>::new());
        every_byte_is_there(&dir, &written);
    }
}
