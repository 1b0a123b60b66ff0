//! Several processes that append to one file at once, and one that is killed while it does.

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use wg_cli::store::Workspace;
use wg_cli::store::graph::{Graph, NewChat};
use wg_cli::store::messages::{self, Durability, NewMessage, Role, Side};

use crate::world::{World, ask};

const APPENDS: &str = "appends::as_a_child_appends_messages_and_prints_their_ids";
const MAKES: &str = "appends::as_a_child_makes_chats_and_prints_their_numbers";
const DIR: &str = "WG_TEST_APPEND_TO";
const COUNT: &str = "WG_TEST_APPEND_COUNT";

/// Runs only as a child of the tests below: appends, and prints each id once it is accepted.
#[test]
fn as_a_child_appends_messages_and_prints_their_ids() {
    let Some(dir) = env::var_os(DIR).map(PathBuf::from) else {
        return;
    };
    let count: usize = env::var(COUNT).unwrap().parse().unwrap();
    for number in 0..count {
        let message = NewMessage::new(Role::User, format!("{} says {number}", std::process::id()));
        let id = messages::append(&dir, Side::Inbox, message, Durability::NoSync).unwrap();
        println!("\nid {id}");
    }
}

/// Runs only as a child of the test below: makes chats, and prints the number of each once it is made.
#[test]
fn as_a_child_makes_chats_and_prints_their_numbers() {
    let Some(dir) = env::var_os(DIR).map(PathBuf::from) else {
        return;
    };
    let workspace = Workspace::open(&dir).unwrap();
    let count: usize = env::var(COUNT).unwrap().parse().unwrap();
    for _ in 0..count {
        let made = Graph::edit(&workspace, |graph| {
            graph.add_chat(&workspace, NewChat::default())
        });
        println!("\nid {}", made.unwrap().0);
    }
}

/// A child that is killed when this is dropped.
struct Appender(Child);

impl Appender {
    fn start(test: &str, dir: &Path, count: usize) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(DIR, dir)
            .env(COUNT, count.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn ids(&mut self) -> impl Iterator<Item = u64> + use<> {
        let lines = BufReader::new(self.0.stdout.take().unwrap()).lines();
        lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("id ")?.parse().ok())
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn appends_by_several_processes_lose_nothing_and_ids_are_dense() {
    const EACH: usize = 100;
    let world = World::new();
    let dir = world.session();
    let mut children: Vec<Appender> = (0..4)
        .map(|_| Appender::start(APPENDS, &dir, EACH))
        .collect();
    let readers: Vec<_> = children
        .iter_mut()
        .map(|child| {
            let ids = child.ids();
            std::thread::spawn(move || ids.collect::<Vec<u64>>())
        })
        .collect();
    let given: Vec<Vec<u64>> = readers
        .into_iter()
        .map(|reader| reader.join().unwrap())
        .collect();
    for ids in &given {
        assert_eq!(ids.len(), EACH);
        assert!(ids.is_sorted(), "the ids of one sender rise");
    }
    let all: BTreeSet<u64> = given.concat().into_iter().collect();
    assert_eq!(
        all,
        (1..=4 * EACH as u64).collect(),
        "no id twice, none left out"
    );
    let read = messages::read_after(&dir, Side::Inbox, 0).unwrap();
    assert_eq!(read.bad_lines, 0);
    assert_eq!(
        read.messages
            .iter()
            .map(|message| message.id)
            .collect::<BTreeSet<_>>(),
        all
    );
}

#[test]
fn a_sender_that_is_killed_at_any_moment_loses_no_accepted_message() {
    let world = World::new();
    let dir = world.session();
    let mut accepted = BTreeSet::new();
    for round in 1..=8 {
        let mut child = Appender::start(APPENDS, &dir, 1_000_000);
        let mut ids = child.ids();
        accepted.extend(ids.by_ref().take(round * 7));
        child.0.kill().unwrap();
        // What was printed before the kill reached it was accepted too.
        accepted.extend(ids);
        accepted.insert(ask(&dir, "between the rounds"));
    }
    let read = messages::read_after(&dir, Side::Inbox, 0).unwrap();
    let there: BTreeSet<u64> = read.messages.iter().map(|message| message.id).collect();
    assert!(
        accepted.is_subset(&there),
        "lost: {:?}",
        accepted.difference(&there)
    );
    assert_eq!(there, (1..=there.len() as u64).collect(), "ids are dense");
    assert_eq!(read.messages.len(), there.len(), "no id twice");
}

#[test]
fn a_maker_of_chats_that_is_killed_at_any_moment_leaves_a_whole_graph() {
    let world = World::new();
    world.write_graph("# by hand\n{\"kind\":\"resource\"}\n");
    let mut made = BTreeSet::new();
    for round in 1..=6 {
        let mut child = Appender::start(MAKES, world.workspace.root(), 1_000_000);
        let mut numbers = child.ids();
        made.extend(numbers.by_ref().take(round * 3));
        child.0.kill().unwrap();
        made.extend(numbers);
        made.insert(u64::from(world.add_chat(NewChat::default()).0));
    }
    let loaded = Graph::load(&world.workspace).unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    let there: BTreeSet<u64> = loaded
        .graph
        .chats()
        .iter()
        .map(|chat| u64::from(chat.id.0))
        .collect();
    assert!(
        made.is_subset(&there),
        "lost: {:?}",
        made.difference(&there)
    );
    assert!(
        loaded
            .graph
            .to_bytes()
            .starts_with(b"# by hand\n{\"kind\":\"resource\"}\n")
    );
}
