//! Rules that hold for every verb. They walk the tree of commands, so that a verb which is added later cannot be forgotten.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;

use clap::{Arg, Command, CommandFactory, Parser};
use wg_cli::cli::args::Cli;

use crate::errors::told;
use crate::world::World;

/// A verb that can be run, with its words.
pub(crate) struct Verb {
    /// `["chat", "send"]`.
    pub(crate) path: Vec<String>,
    pub(crate) command: Command,
}

impl Verb {
    pub(crate) fn name(&self) -> String {
        self.path.join(" ")
    }
}

/// Every visible verb that does something itself.
pub(crate) fn verbs() -> Vec<Verb> {
    fn collect(command: &Command, path: &[String], verbs: &mut Vec<Verb>) {
        for sub in command
            .get_subcommands()
            .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
        {
            let mut path = path.to_vec();
            path.push(sub.get_name().to_owned());
            if !sub.has_subcommands() || sub.get_arguments().any(Arg::is_positional) {
                verbs.push(Verb {
                    path: path.clone(),
                    command: sub.clone(),
                });
            }
            collect(sub, &path, verbs);
        }
    }
    let mut verbs = Vec::new();
    collect(&Cli::command(), &[], &mut verbs);
    assert!(verbs.len() > 50, "only {} verbs", verbs.len());
    verbs
}

/// What an argument takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// A chat or a session that is there.
    Reference,
    /// A name for something new.
    NewName,
    /// Something else, for instance this.
    Other(&'static str),
}

/// The one place that knows what stands behind the names of values; a name that is not here fails the tests.
fn takes(verb: &str, arg: &Arg) -> Option<Takes> {
    let name = arg.get_value_names()?.first()?.as_str();
    if !arg.get_action().takes_values() {
        return None;
    }
    Some(match (verb, name) {
        (_, "REF") | ("show" | "spawn-task", "ID") => Takes::Reference,
        ("chat new" | "service create-chat", "NAME") if arg.get_id() == "name" => Takes::NewName,
        ("session new", "ALIAS") => Takes::NewName,
        (_, "MESSAGE" | "CMD" | "TEXT" | "NAME" | "MODEL" | "URL" | "ROLE" | "ALIAS" | "TAG") => {
            Takes::Other("hello")
        }
        (_, "ID" | "N" | "S" | "P" | "TIME") => Takes::Other("1"),
        (_, "D" | "DIR" | "PATH") => Takes::Other("."),
        (_, "FILE") => Takes::Other("no-such-file"),
        (_, "STATUS") => Takes::Other("open"),
        (_, "WHEN") => Takes::Other("never"),
        (_, "SHELL") => Takes::Other("bash"),
        (_, "chat-N") => Takes::Other("chat-9"),
        (_, "E" | "M") => Takes::Other("echo"),
        (_, "VERB") => Takes::Other("chat"),
        _ => panic!("`wg {verb}` takes {name}: say in this table what that is"),
    })
}

/// Arguments without which a verb asks, waits for a person or becomes something else.
fn also(verb: &str) -> &'static [&'static str] {
    match verb {
        "chat delete" | "session rm" => &["--yes"],
        "spawn-task" => &["--dry-run"],
        "nex" => &["--autonomous"],
        "service set-executor" => &["--executor", "echo"],
        _ => &[],
    }
}

/// The command line of a verb with what it needs, and `value` in the place of one argument.
fn line(verb: &Verb, place: &Arg, value: &OsStr) -> Vec<OsString> {
    let name = verb.name();
    let mut line: Vec<OsString> = verb.path.iter().map(OsString::from).collect();
    let wanted = |arg: &&Arg| arg.get_id() == place.get_id() || arg.is_required_set();
    let mut positional: Vec<&Arg> = Vec::new();
    for arg in verb.command.get_arguments().filter(wanted) {
        match arg.get_long() {
            Some(long) if !arg.is_positional() => {
                let mut option = OsString::from(format!("--{long}="));
                option.push(if arg.get_id() == place.get_id() {
                    value
                } else {
                    sample(&name, arg)
                });
                line.push(option);
            }
            _ => positional.push(arg),
        }
    }
    line.extend(also(&name).iter().map(OsString::from));
    if positional.iter().any(|arg| arg.get_id() == place.get_id()) {
        positional.sort_by_key(|arg| arg.get_index());
    }
    for arg in positional {
        line.push(if arg.get_id() == place.get_id() {
            value.to_owned()
        } else {
            sample(&name, arg).to_owned()
        });
    }
    line
}

fn sample(verb: &str, arg: &Arg) -> &'static OsStr {
    match takes(verb, arg) {
        Some(Takes::Other(sample)) => OsStr::new(sample),
        Some(Takes::Reference | Takes::NewName) | None => OsStr::new("chat-3"),
    }
}

/// Every place of every verb that takes this.
fn places(wanted: Takes) -> Vec<(Verb, Arg)> {
    let mut places = Vec::new();
    for verb in verbs() {
        let name = verb.name();
        for arg in verb.command.get_arguments() {
            if takes(&name, arg) == Some(wanted) {
                places.push((
                    Verb {
                        path: verb.path.clone(),
                        command: verb.command.clone(),
                    },
                    arg.clone(),
                ));
            }
        }
    }
    places
}

const UUID: &str = "01a1faa3-51a7-7a72-a9ee-52462dbd11d2";

/// A workspace with chat 3, called docs, whose session has a uuid.
fn world() -> World {
    let world = World::with_workspace();
    world.wg(&["chat", "new", "--id", "chat-0"]).ok();
    world
        .wg(&["chat", "new", "--id", "chat-3", "--name", "docs"])
        .ok();
    fs::remove_dir(world.path(".wg/chat/.chat-3")).unwrap();
    fs::create_dir(world.path(&format!(".wg/chat/{UUID}"))).unwrap();
    let registry = format!(
        r#"{{"version":0,"sessions":{{"{UUID}":{{"kind":"coordinator","created":"2026-11-20T20:26:09Z",
        "aliases":["chat-3","coordinator-3","3"],"label":"chat 3"}}}}}}"#
    );
    fs::write(world.path(".wg/chat/sessions.json"), registry).unwrap();
    world
}

#[test]
fn every_verb_that_takes_a_chat_takes_every_form_of_its_name() {
    let forms = [
        "3",
        "chat-3",
        ".chat-3",
        "coordinator-3",
        ".coordinator-3",
        "docs",
        "DOCS",
        UUID,
        "01a1faa3",
    ];
    let places = places(Takes::Reference);
    assert!(places.len() > 20, "only {} places", places.len());
    for (verb, arg) in places {
        let world = world();
        for form in forms {
            let line = line(&verb, &arg, OsStr::new(form));
            let done = world.wg(&line);
            assert!(
                ![2, 70].contains(&done.code())
                    && !done.stderr.contains("does not exist")
                    && !done.stderr.contains("no such"),
                "{line:?}: {}: {}",
                done.code(),
                done.stderr
            );
            if let Ok(document) = serde_json::from_str::<serde_json::Value>(&done.stdout) {
                assert_eq!(document["chat_id"], 3, "{line:?}");
            }
        }
        // Whatever was done, it was done to chat 3: the other is as it was.
        let other = world.json(&["chat", "list", "--all"])["chats"][0].clone();
        assert_eq!(
            (&other["chat_id"], &other["state"], &other["unread"]),
            (&0.into(), &"dormant".into(), &0.into()),
            "{}",
            verb.name()
        );
        assert!(world.processes().is_empty(), "{}", verb.name());
    }
}

#[test]
fn every_verb_that_takes_a_name_refuses_what_can_be_none_before_anything_is_touched() {
    let huge = "x".repeat(120_000);
    let hostile: &[&[u8]] = &[
        b"../0",
        b"/etc/passwd",
        b"..",
        b"a/b",
        b"a\\b",
        b"",
        b"chat-3\n",
        b"\x1b[2Jchat-3",
        b"\x07",
        huge.as_bytes(),
        b"chat-\xff",
    ];
    let world = world();
    let before = world.sh("find .wg -type f | sort", b"").stdout;
    for wanted in [Takes::Reference, Takes::NewName] {
        for (verb, arg) in places(wanted) {
            for bytes in hostile {
                let line = line(&verb, &arg, OsStr::from_bytes(bytes));
                told(&world.wg(&line), 2, &[]);
            }
        }
    }
    assert_eq!(world.sh("find .wg -type f | sort", b"").stdout, before);
    assert!(world.processes().is_empty());
}

#[test]
fn every_verb_is_found_from_the_first_help() {
    let root = World::new().wg(&["help"]).ok().stdout;
    for verb in verbs() {
        // The earlier tool's names for what has a better one are found one level deeper.
        if verb.path[0] == "service" && verb.path[1].ends_with("-chat")
            || verb.path[1..] == ["archive-all-chats"]
            || verb.path[1..] == ["set-executor"]
        {
            continue;
        }
        let found = root
            .split(|c: char| !(c.is_alphanumeric() || c == '-'))
            .any(|word| word == verb.path[verb.path.len().min(2) - 1]);
        assert!(found, "wg help does not name `{}`", verb.name());
    }
}

#[test]
fn help_of_every_verb_fits_eighty_columns_and_an_alias_is_no_secret() {
    let world = World::new();
    for verb in verbs() {
        let mut line = verb.path.clone();
        line.push("--help".to_owned());
        let help = world.wg(&line).ok().stdout;
        assert!(
            help.contains("Usage:") && help.contains("Examples:"),
            "{line:?}: {help}"
        );
        for text in help.lines() {
            assert!(text.chars().count() <= 80, "{line:?}: {text}");
        }
        for alias in verb.command.get_visible_aliases() {
            line.splice(line.len() - 2..line.len() - 1, [alias.to_owned()]);
            assert_eq!(world.wg(&line).ok().stdout, help, "{line:?}");
            line = verb.path.clone();
            line.push("--help".to_owned());
        }
    }
    for line in world.wg(&["--help"]).ok().stdout.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

/// The command lines of a verb's examples: `wg …`, without what is explained behind them.
fn examples(command: &Command) -> Vec<Vec<String>> {
    let help = command
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let Some((_, examples)) = help.split_once("Examples:\n") else {
        return Vec::new();
    };
    examples
        .lines()
        .take_while(|line| line.starts_with("  "))
        .filter_map(words)
        .collect()
}

/// The words of `… | wg VERB 'two words'   explanation`, from `wg` on.
fn words(line: &str) -> Option<Vec<String>> {
    let from = line.find("wg ")?;
    if !line[..from].trim().is_empty() && !line[..from].ends_with("| ") {
        return None;
    }
    let mut words = vec![String::new()];
    let (mut quote, mut spaces) = (None, 0);
    for c in line[from..].chars() {
        match (quote, c) {
            (None, ' ') => spaces += 1,
            (None, '|' | '>') => break,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (_, c) => {
                if spaces > 1 {
                    break;
                }
                if std::mem::take(&mut spaces) > 0 {
                    words.push(String::new());
                }
                words.last_mut()?.push(c);
            }
        }
    }
    Some(words)
}

#[test]
fn every_example_is_a_command_line_and_those_that_end_by_themselves_are_run() {
    let mut seen = 0;
    for verb in verbs() {
        let world = World::with_workspace();
        for id in ["chat-1", "chat-3"] {
            world
                .wg(&["chat", "new", "--id", id, "--agent", "echo"])
                .ok();
        }
        world
            .wg(&[
                "chat", "new", "--id", "chat-0", "--name", "docs", "--agent", "echo",
            ])
            .ok();
        for example in examples(&verb.command) {
            seen += 1;
            let parsed = Cli::try_parse_from(&example);
            assert!(
                parsed.is_ok(),
                "`wg {}`: {example:?}: {}",
                verb.name(),
                parsed.unwrap_err()
            );
            // What goes on until it is told to end, and what names programs and places of the reader's own.
            let endless = [
                "-f",
                "--follow",
                "--foreground",
                "nex",
                "run",
                "top",
                "up",
                "-",
            ];
            let theirs = [
                "claude",
                "codex",
                "~/src/docs",
                "~/app",
                "~/project",
                "hold",
            ];
            let skipped = example
                .iter()
                .any(|word| endless.contains(&word.as_str()) || theirs.contains(&word.as_str()));
            if !skipped {
                let done = world.wg(&example[1..]);
                assert!(
                    ![2, 70].contains(&done.code()),
                    "`{example:?}`: {}: {}",
                    done.code(),
                    done.stderr
                );
            }
        }
        world.wg(&["service", "stop", "--force"]).ok();
    }
    assert!(seen > 70, "only {seen} examples were found");
}

/// Verbs whose stdout is somebody else's, with the reason why they have no document of their own.
pub(crate) const WITHOUT_A_DOCUMENT: [(&str, &str); 6] = [
    (
        "nex",
        "what it prints is what its agent says; --eval-mode is one JSON line",
    ),
    (
        "run",
        "stdout is the command's; its events are JSON lines on stderr",
    ),
    ("lock run", "stdout is the command's"),
    (
        "top",
        "a screen; it says which verbs print the same as JSON",
    ),
    (
        "chat attach",
        "a conversation: through a pipe it prints the documents of `chat`, a line each",
    ),
    ("service create-chat", "as chat new"),
];
