//! Which chat a text means, and what is refused as a name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::errors::told;
use crate::world::World;

#[test]
fn two_chats_do_not_share_a_name_and_a_retired_one_frees_it() {
    let world = World::with_workspace();
    world.wg(&["chat", "new", "--name", "docs"]).ok();
    let again = |world: &World| {
        for name in ["docs", "DOCS"] {
            told(
                &world.wg(&["chat", "new", "--name", name]),
                1,
                &[
                    name,
                    "is the name of chat-0 already",
                    "wg chat archive chat-0",
                ],
            );
        }
    };
    again(&world);
    world.wg(&["service", "start"]).ok();
    again(&world);
    world.wg(&["chat", "archive", "docs"]).ok();
    world.wg(&["chat", "new", "--name", "docs"]).ok();
    // Both are called so when the first comes back, and nobody guesses.
    world.wg(&["chat", "restore", "chat-0"]).ok();
    told(
        &world.wg(&["chat", "send", "docs", "hello"]),
        1,
        &[
            "`docs` means several chats: chat-0, chat-1",
            "give the number",
        ],
    );
    world.stop();
}

#[test]
fn hostile_references_are_refused_before_anything_is_touched() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    let before = world
        .sh("find .wg -newer .wg/graph.jsonl -type f | sort", b"")
        .stdout;
    let huge = "x".repeat(100_000);
    let references: &[&str] = &[
        "../0",
        "/etc/passwd",
        "..",
        "a/b",
        "",
        "chat-0\n",
        "\u{1b}[2Jchat-0",
        "chat\u{0}-0".trim_end_matches('\0'),
        &huge,
    ];
    for reference in references
        .iter()
        .filter(|reference| !reference.contains('\0'))
    {
        for verb in [
            &["chat", "read"][..],
            &["chat", "stop"],
            &["session", "release"],
            &["session", "status"],
            &["why"],
        ] {
            let mut args = verb.to_vec();
            args.push(reference);
            told(&world.wg(&args), 2, &["is no chat"]);
        }
    }
    let invalid = OsStr::from_bytes(b"chat-\xff");
    told(
        &world.wg(&[OsStr::new("chat"), OsStr::new("read"), invalid]),
        2,
        &["invalid UTF-8"],
    );
    assert_eq!(
        world
            .sh("find .wg -newer .wg/graph.jsonl -type f | sort", b"")
            .stdout,
        before
    );
}

#[test]
fn a_name_of_a_megabyte_is_refused_in_a_short_sentence() {
    let world = World::with_workspace();
    // One argument holds at most 128 KiB on Linux, so the megabyte comes through the name's own length limit or the kernel's.
    let name = "n".repeat(120_000);
    let done = world.wg(&["chat", "new", "--name", &name]);
    assert!(
        done.code() == 1 || done.code() == 2,
        "{}: {}",
        done.code(),
        done.stderr
    );
    assert!(done.stderr.len() < 2_000);
    assert_eq!(
        world.json(&["chat", "list", "--all"])["chats"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
}

#[test]
fn a_chat_with_an_empty_command_is_not_made() {
    let world = World::with_workspace();
    for command in ["", "  "] {
        told(
            &world.wg(&["chat", "new", "--command", command]),
            2,
            &["the command is empty"],
        );
    }
    assert_eq!(world.read(".wg/graph.jsonl"), "");
}

#[test]
fn an_unknown_chat_names_the_chats_that_there_are() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["chat", "new", "--id", "chat-3"]).ok();
    let verbs: &[&[&str]] = &[
        &["chat", "send", "7", "hello"],
        &["chat", "read", "7"],
        &["chat", "show", "7"],
        &["chat", "stop", "7"],
        &["chat", "resume", "7"],
        &["chat", "interrupt", "7"],
        &["chat", "retry", "7"],
        &["chat", "archive", "7"],
        &["chat", "restore", "7"],
        &["chat", "delete", "7", "--yes"],
        &["chat", "hello", "--coordinator", "7"],
        &["chat", "attach", "7"],
        &["session", "status", "7"],
        &["session", "release", "7"],
        &["session", "takeover", "7"],
        &["why", "7"],
        &["nex", "--chat", "7"],
        &["service", "stop-chat", "7"],
        &["service", "archive-chat", "7"],
        &["service", "delete-chat", "7"],
        &["service", "interrupt-chat", "7"],
        &["service", "set-executor", "7", "--executor", "echo"],
        &["service", "events", "--chat", "7"],
        &["show", "chat-7"],
    ];
    for verb in verbs {
        told(
            &world.wg(verb),
            1,
            &["chat 7 does not exist; chats here: 0, 3", "(wg chat list)"],
        );
    }
    assert!(
        !world.path(".wg/chat/.chat-7").exists(),
        "asking made a session"
    );
    assert!(world.processes().is_empty());
}
