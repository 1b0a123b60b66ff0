//! References: what is refused, what is not found, and where a session is.

use std::fs;
use std::path::Path;

use wg_cli::exit_code::ExitCode;
use wg_cli::store::StoreError;
use wg_cli::store::graph::{ChatId, NewChat};
use wg_cli::store::resolve::{self, Make};

use crate::world::World;

#[track_caller]
fn refused(reference: &str, code: ExitCode, says: &str) {
    let world = World::new();
    world.add_chat(NewChat {
        name: Some("alpha".to_owned()),
        ..NewChat::default()
    });
    let failure = resolve::chat(&world.workspace, &world.graph(), reference).unwrap_err();
    assert_eq!((failure.code, failure.to_string().as_str()), (code, says));
}

#[test]
fn a_hostile_reference_gets_one_short_sentence() {
    let cure = "(a chat is meant by its number, its name or its session's uuid; wg chat list)";
    let usage = |reference: &str, says: &str| {
        refused(reference, ExitCode::Usage, &format!("{says} {cure}"));
    };
    usage("", "`` is no chat: it is empty");
    usage(
        "../../etc/passwd",
        "`../../etc/passwd` is no chat: it contains a path separator",
    );
    usage("a\\b", "`a\\\\b` is no chat: it contains a path separator");
    usage("..", "`..` is no chat: it contains `..`");
    usage("chat-0..", "`chat-0..` is no chat: it contains `..`");
    usage(
        "a\nb",
        "`a\\nb` is no chat: it contains a control character",
    );
    usage(
        "\u{1b}[2J",
        "`\\u{1b}[2J` is no chat: it contains a control character",
    );
    usage("a\0", "`a\\0` is no chat: it contains a control character");
    usage(
        &"x".repeat(1 << 20),
        &format!(
            "`{}…` is no chat: it is longer than 255 bytes",
            "x".repeat(40)
        ),
    );
}

#[test]
fn an_unknown_chat_is_told_with_those_that_are_here() {
    let here = "does not exist; chats here: 0 (wg chat list)";
    refused("7", ExitCode::Failed, &format!("chat 7 {here}"));
    refused(
        ".coordinator-7",
        ExitCode::Failed,
        &format!("chat 7 {here}"),
    );
    refused("007", ExitCode::Failed, &format!("chat `007` {here}"));
    refused(
        "99999999999999999999",
        ExitCode::Failed,
        &format!("chat `99999999999999999999` {here}"),
    );
    refused("beta", ExitCode::Failed, &format!("chat `beta` {here}"));
    refused("-1", ExitCode::Failed, &format!("chat `-1` {here}"));
    let world = World::new();
    let failure = resolve::chat(&world.workspace, &world.graph(), "0").unwrap_err();
    assert_eq!(
        failure.to_string(),
        "chat 0 does not exist; there is no chat here yet (wg chat list)"
    );
}

#[test]
fn a_name_of_several_chats_means_the_one_that_is_served_or_none() {
    let world = World::new();
    let named = |name: &str| NewChat {
        name: Some(name.to_owned()),
        ..NewChat::default()
    };
    let first = world.add_chat(named("same"));
    let second = world.add_chat(named("other"));
    // The earlier tool let several have one.
    let text = fs::read_to_string(world.workspace.graph_path()).unwrap();
    world.write_graph(&text.replace("other", "same"));
    let mut graph = world.graph();
    let failure = resolve::chat(&world.workspace, &graph, "same").unwrap_err();
    assert_eq!(
        failure.to_string(),
        "`same` means several chats: chat-0, chat-1 (give the number)"
    );
    graph.archive(first, "t", "m").unwrap();
    assert_eq!(
        resolve::chat(&world.workspace, &graph, "same").unwrap(),
        second
    );
}

#[test]
fn a_number_means_the_chat_of_that_number_and_not_one_of_that_name() {
    let world = World::new();
    world.add_chat(NewChat {
        name: Some("1".to_owned()),
        ..NewChat::default()
    });
    assert_eq!(
        resolve::chat(&world.workspace, &world.graph(), "1").unwrap(),
        ChatId(0),
        "there is no chat 1 yet"
    );
    world.add_chat(NewChat::default());
    assert_eq!(
        resolve::chat(&world.workspace, &world.graph(), "1").unwrap(),
        ChatId(1)
    );
}

#[test]
fn a_name_under_which_nobody_could_refer_to_a_chat_is_refused() {
    for name in [
        "",
        "3",
        "chat-3",
        ".coordinator-3",
        "a/b",
        "..",
        " x",
        "x ",
        "a\tb",
        &"x".repeat(256),
    ] {
        assert!(resolve::check_name(name).is_err(), "{name:?}");
    }
    for name in ["alpha", "a b", "Ünïcode", "a: b", "-x"] {
        assert!(resolve::check_name(name).is_ok(), "{name:?}");
    }
}

#[test]
fn a_session_is_the_first_directory_that_exists_of_the_names_it_ever_had() {
    for name in ["3", "coordinator-3", ".coordinator-3", "chat-3", ".chat-3"] {
        let world = World::new();
        let dir = world.workspace.chat_root().join(name);
        fs::create_dir_all(&dir).unwrap();
        for make in [Make::No, Make::Yes] {
            assert_eq!(
                resolve::session_dir(&world.workspace, ChatId(3), make).unwrap(),
                dir
            );
        }
        assert_eq!(
            fs::read_dir(world.workspace.chat_root()).unwrap().count(),
            1,
            "no second one is made"
        );
    }
}

#[test]
fn asking_where_a_session_would_be_makes_nothing() {
    let world = World::new();
    let dir = resolve::session_dir(&world.workspace, ChatId(3), Make::No).unwrap();
    assert_eq!(dir, world.workspace.chat_root().join(".chat-3"));
    assert!(!world.workspace.chat_root().exists());
    assert_eq!(
        resolve::session_dir(&world.workspace, ChatId(3), Make::Yes).unwrap(),
        dir
    );
    assert!(dir.is_dir());
}

#[test]
fn a_link_of_an_older_version_leads_to_its_session() {
    let world = World::new();
    let root = world.workspace.chat_root();
    fs::create_dir_all(root.join("0000-aaaa")).unwrap();
    std::os::unix::fs::symlink(Path::new("0000-aaaa"), root.join("coordinator-3")).unwrap();
    assert_eq!(
        resolve::session_dir(&world.workspace, ChatId(3), Make::Yes).unwrap(),
        root.join("coordinator-3")
    );
}

#[test]
fn a_registry_that_cannot_be_read_is_an_error_and_stays_as_it_is() {
    for text in ["", "{", "[]", "{\"sessions\":7}", "\u{0}"] {
        let world = World::new();
        let path = world.workspace.registry_path();
        fs::create_dir_all(world.workspace.chat_root()).unwrap();
        fs::write(&path, text).unwrap();
        for make in [Make::No, Make::Yes] {
            let result = resolve::session_dir(&world.workspace, ChatId(3), make);
            assert!(
                matches!(result, Err(StoreError::Corrupt { .. })),
                "{text:?}: {result:?}"
            );
        }
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            text,
            "guessing would split the history"
        );
    }
}

#[test]
fn several_that_register_a_session_at_once_find_the_same_one() {
    let world = World::new();
    fs::create_dir_all(world.workspace.chat_root()).unwrap();
    fs::write(
        world.workspace.registry_path(),
        "{\"version\":0,\"sessions\":{}}",
    )
    .unwrap();
    let dirs = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..4)
            .map(|_| {
                scope
                    .spawn(|| resolve::session_dir(&world.workspace, ChatId(3), Make::Yes).unwrap())
            })
            .collect();
        makers
            .into_iter()
            .map(|maker| maker.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert!(dirs.windows(2).all(|pair| pair[0] == pair[1]), "{dirs:?}");
}
