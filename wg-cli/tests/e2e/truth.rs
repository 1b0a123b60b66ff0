//! What is said of a chat is true, and the same everywhere, whoever of service, handler and agent was killed with SIGKILL.
//!
//! What is true is asked of the kernel.

use std::fs;

use serde_json::Value;

use crate::process::{Process, killed, wait_gone};
use crate::world::World;

/// A chat in a situation, and who of it is killed.
struct Case {
    chat: u32,
    agent: &'static str,
    kills_handler: bool,
    kills_agent: bool,
    /// None is left of a chat that is parked.
    handler: Option<i32>,
    at_work: Option<i32>,
}

impl Case {
    fn handler_lives(&self) -> bool {
        self.handler.is_some_and(lives)
    }
}

/// A chat's agent, and whether its handler and its agent are killed.
const CASES: [(&str, bool, bool); 9] = [
    // At rest: its handler has answered and stays.
    ("quick", false, false),
    ("quick", true, false),
    // In a turn.
    ("patient", false, false),
    ("patient", true, false),
    ("patient", false, true),
    ("patient", true, true),
    // In a back-off, needed and not.
    ("patient", true, true),
    ("quick", true, false),
    // Parked.
    ("gone", false, false),
];

/// Those that are in their back-off before anything else happens.
const PAUSING: [u32; 2] = [6, 7];

const SETTINGS: &str = "[service]\nmax_turns = 16\nmax_starts = 16\non_interrupted = \"retry\"\n\
    [supervisor]\nbackoff_first = \"1h\"\nbackoff_cap = \"1h\"\n\
    [agents.quick]\ncommand = [\"cat\"]\n\
    [agents.patient]\ncommand = [\"sh\", \"-c\", \": >busy-$WG_CHAT_REF; read line <go\"]\n\
    [agents.gone]\ncommand = [\"/nowhere/agent\"]\n";

/// Whether a process is there, and more than its number.
fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

fn event(world: &World, kind: &str, chat: u32) {
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.lines().any(|line| {
            serde_json::from_str::<Value>(line)
                .is_ok_and(|event| event["event"] == kind && event["chat_id"] == chat)
        })
    });
}

/// Every chat in its situation, with the service up and nobody killed but by those that are to be in a back-off.
fn situations(world: &World) -> Vec<Case> {
    fs::write(world.path(".wg/config.toml"), SETTINGS).unwrap();
    world.sh("mkfifo go", b"");
    for (agent, _, _) in CASES {
        world.wg(&["chat", "new", "--agent", agent]).ok();
    }
    world.wg(&["service", "start"]).ok();
    let number = |chat: usize| u32::try_from(chat).unwrap();
    for chat in 0..CASES.len() {
        world.wg(&["chat", "send", &chat.to_string(), "hello"]).ok();
    }
    let mut cases = Vec::new();
    for (chat, (agent, kills_handler, kills_agent)) in CASES.into_iter().enumerate() {
        let outbox = format!(".wg/chat/.chat-{chat}/outbox.jsonl");
        match agent {
            "quick" => drop(world.wait_for_file(&outbox, |text| text.ends_with('\n'))),
            "patient" => drop(world.wait_for_file(&format!("busy-chat-{chat}"), |_| true)),
            _ => written_down(world, "parked", number(chat)),
        }
        let handler = (agent != "gone").then(|| holder_by_the_record(world, chat));
        let mark = format!("/chat-{chat}/");
        let at_work = world.processes().into_iter().find(|process: &Process| {
            process.session().is_some_and(|of| of.contains(&mark))
                && process.command_line[0] == "sh"
        });
        cases.push(Case {
            chat: number(chat),
            agent,
            kills_handler,
            kills_agent,
            handler,
            at_work: at_work.map(|process| process.pid),
        });
    }
    for case in cases.iter().filter(|case| PAUSING.contains(&case.chat)) {
        killed(case.handler.unwrap());
        written_down(world, "backoff", case.chat);
    }
    cases
}

/// Who has the session, by the record that lies there as long as somebody does.
fn holder_by_the_record(world: &World, chat: usize) -> i32 {
    let record = format!(".wg/chat/.chat-{chat}/.handler.pid");
    let text = world.wait_for_file(&record, |text| text.lines().count() >= 3);
    text.lines().next().unwrap().parse().unwrap()
}

/// Waits until the service has written down that the chat is in this state, a moment after it is.
fn written_down(world: &World, state: &str, chat: u32) {
    world.wait_for_file(
        &format!(".wg/service/coordinator-state-{chat}.json"),
        |text| {
            serde_json::from_str::<Value>(text)
                .is_ok_and(|record| record["wg_supervisor"]["state"] == state)
        },
    );
}

/// Kills whom the cases name, and waits until what follows by itself has happened.
fn kill_all(world: &World, cases: &[Case], service_runs: bool) {
    for case in cases.iter().filter(|case| !PAUSING.contains(&case.chat)) {
        if case.kills_handler {
            killed(case.handler.unwrap());
        }
        if case.kills_agent {
            killed(case.at_work.unwrap());
        }
        if case.kills_handler && service_runs {
            event(world, "backoff", case.chat);
        } else if case.kills_agent && !case.kills_handler {
            // It is done with its only message.
            let cursor = format!(".wg/chat/.chat-{}/.nex-cursor", case.chat);
            world.wait_for_file(&cursor, |text| text.trim() == "1");
        }
    }
}

/// What has to be said of a case: its state, and a part of what comes next.
fn expected(case: &Case, service_runs: bool) -> (&'static str, &'static str) {
    let is_needed = case.agent == "patient";
    match (case.agent, case.kills_handler, service_runs) {
        ("gone", _, true) => ("parked", "nothing, until it is resumed"),
        ("gone", _, false) => ("parked", "the service is not running, and leaves it parked"),
        (_, false, true) => ("running", "its handler leaves when nobody"),
        (_, false, false) => ("running", "its handler answers what comes"),
        (_, true, true) if is_needed => ("backoff", "starts again in "),
        (_, true, true) => ("backoff", "nobody needs it, so nothing is started"),
        (_, true, false) if case.at_work.is_some_and(lives) => {
            ("dormant", "nothing, until the service runs and has ended")
        }
        (_, true, false) if PAUSING.contains(&case.chat) && is_needed => {
            ("dormant", "then it starts in ")
        }
        (_, true, false) => ("dormant", "nothing, until the service runs"),
    }
}

/// The element of a list that is this chat's.
fn of(list: &Value, chat: u32) -> &Value {
    let all = list.as_array().unwrap();
    all.iter().find(|one| one["chat_id"] == chat).unwrap()
}

/// Whether these words are said, and the number at their end ends there.
fn says(said: &str, words: &str) -> bool {
    let is_digit = |after: &str| after.starts_with(|next: char| next.is_ascii_digit());
    said.match_indices(words)
        .any(|(at, _)| !is_digit(&said[at + words.len()..]))
}

fn pid_of(value: &Value) -> Option<i32> {
    value.as_i64().map(|pid| i32::try_from(pid).unwrap())
}

/// Reads everything that is said of the cases and holds it against what is so.
fn all_is_true(world: &World, cases: &[Case], service_runs: bool) {
    let status = world.json(&["service", "status"]);
    let status_text = world.wg(&["service", "status"]).ok().stdout;
    let rows = world.json(&["chat", "list"]);
    let sessions = world.json(&["session", "list"]);
    let sessions_text = world.wg(&["session", "list"]).ok().stdout;
    let doctor = world.wg(&["doctor", "--json"]).json().to_string();
    let doctor_text = world.wg(&["doctor"]).stdout;
    let expected_status = if service_runs {
        "running"
    } else {
        "not_running"
    };
    assert_eq!(status["status"], expected_status, "{status}");
    for case in cases {
        let chat = case.chat.to_string();
        let why_text = world.wg(&["why", &chat]).ok().stdout;
        let why = world.json(&["why", &chat])[0].clone();
        let row = of(&status["chats"], case.chat);
        let session = of(&sessions["sessions"], case.chat);
        let context = format!("chat-{chat}, service {service_runs}\n{why_text}\n{row}\n{session}");

        // One state, one next, in every place.
        let (state, next) = expected(case, service_runs);
        for place in [&why, row, of(&rows["chats"], case.chat)] {
            assert_eq!(place["state"], state, "{context}");
        }
        let line = status_text
            .lines()
            .find(|line| line.starts_with(&format!("chat-{chat} ")))
            .unwrap();
        assert!(line.split_whitespace().nth(1) == Some(state), "{line}");
        assert!(why["next"].as_str().unwrap().contains(next), "{context}");
        assert!(why_text.contains(next), "{context}");

        // Its handler is named if it lives, and only then.
        let handler = case.handler.filter(|handler| lives(*handler));
        assert_eq!(pid_of(&row["pid"]), handler, "{context}");
        let named = handler.is_none_or(|pid| says(&why_text, &format!("handler  pid {pid}")));
        assert!(named, "{context}");
        let names_one = why_text.contains("handler  pid ");
        assert_eq!(names_one, handler.is_some(), "{context}");

        // Whoever has the session lives.
        let left = case
            .at_work
            .filter(|agent| handler.is_none() && lives(*agent));
        let holder = pid_of(&session["holder"]["pid"]).filter(|_| session["state"] == "held");
        assert_eq!(holder, handler.or(left), "{context}");
        assert_eq!(pid_of(&row["holder"]["pid"]), left, "{context}");
        let by = left.and(case.handler);
        assert_eq!(pid_of(&row["holder"]["left_by"]), by, "{context}");
        assert_eq!(pid_of(&session["left_by"]["pid"]), by, "{context}");
        let orphan = case.at_work.map(|agent| format!("pid {agent}"));
        for said in [&doctor, &doctor_text] {
            let tells = orphan.as_ref().is_some_and(|orphan| says(said, orphan));
            assert_eq!(tells, left.is_some(), "{context}\n{doctor_text}");
        }
        let Some(left) = left else { continue };
        let one = world.json(&["session", "status", &chat]);
        assert_eq!(&one, session, "{context}");
        for said in [
            &why_text,
            &sessions_text,
            &world.wg(&["session", "status", &chat]).stdout,
        ] {
            assert!(said.contains(&format!("pid {left} (sh)")), "{said}");
            let by = format!("left behind by handler {}", case.handler.unwrap());
            assert!(says(said, &by), "{said}");
        }
    }
}

#[test]
fn whoever_was_killed_what_is_said_of_a_chat_is_true_and_the_same_everywhere() {
    for service_runs in [true, false] {
        let world = World::with_workspace();
        let cases = situations(&world);
        for (chat, words) in PAUSING.into_iter().zip(["starts again", "nobody needs it"]) {
            // It is written by another thread than the books are.
            event(&world, "backoff", chat);
            let events = world.read(".wg/service/events.jsonl");
            let told = events.lines().find(|line| {
                serde_json::from_str::<Value>(line)
                    .is_ok_and(|event| event["event"] == "backoff" && event["chat_id"] == chat)
            });
            assert!(told.unwrap().contains(words), "{chat}: {events}");
        }
        if !service_runs {
            killed(world.daemon_pid());
        }
        kill_all(&world, &cases, service_runs);
        all_is_true(&world, &cases, service_runs);
        // Without a service no chat is simply well.
        let told = world.wg(&["why"]).ok().stdout;
        for case in &cases {
            let head = format!("chat-{}  ", case.chat);
            let is_well = expected(case, service_runs).0 == "running" && service_runs;
            assert_eq!(told.contains(&head), !is_well, "{head}: {told}");
        }

        // Who is ended is counted as what it was.
        let handlers = cases.iter().filter(|case| case.handler_lives()).count();
        let of_the_dead = |case: &&Case| !case.handler_lives() && case.at_work.is_some_and(lives);
        let left = cases.iter().filter(of_the_dead).count();
        let stopped = world.json(&["service", "stop", "--force"]);
        assert_eq!(stopped["handlers_ended"], handlers, "{stopped}");
        assert!(
            stopped["others_ended"].as_u64().unwrap() >= u64::try_from(left).unwrap(),
            "{stopped}"
        );
        world.stop();
    }
}

/// Starts the service with one chat that waits in a turn, and returns its handler.
fn in_a_turn(world: &World) -> i32 {
    world.sh("mkfifo go", b"");
    world.wg(&["chat", "new", "--agent", "patient"]).ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "send", "0", "hello"]).ok();
    world.wait_for_file("busy-chat-0", |_| true);
    pid_of(&world.json(&["chat", "show", "0"])["pid"]).unwrap()
}

#[test]
fn what_a_dead_handler_left_cannot_be_asked_to_leave_and_is_ended_by_the_cure() {
    let world = World::with_workspace();
    fs::write(world.path(".wg/config.toml"), SETTINGS).unwrap();
    let handler = in_a_turn(&world);
    killed(world.daemon_pid());
    killed(handler);
    let left = pid_of(&world.json(&["session", "status", "0"])["holder"]["pid"]).unwrap();
    // Nobody is asked, and that is said; the one who is gone is not said to be still there.
    let refused = world
        .wg(&["session", "release", "0", "--wait", "0"])
        .with_code(75);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    for words in [&format!("held by pid {left} (sh)"), "nobody can be asked"] {
        assert!(said.contains(words), "no `{words}` in {said}");
    }
    assert!(!says(&said, &format!("asked pid {handler}")), "{said}");
    let marker = world.path(".wg/chat/.chat-0/.handler.release-requested");
    assert!(!marker.exists());
    // Whoever waits for a reply is told at once that none comes.
    world.wg(&["chat", "anybody?"]).with_code(69);
    let why = world.json(&["why", "0"])[0].clone();
    let cures = why["you_can"].as_array().unwrap();
    let cure = cures
        .iter()
        .find_map(|cure| cure["command"].as_str()?.strip_prefix("wg session "))
        .unwrap_or_else(|| panic!("{why}"));
    let words: Vec<&str> = std::iter::once("session").chain(cure.split(' ')).collect();
    let ended = world.wg(&words).ok().stdout;
    assert!(ended.contains(&format!("pid {left} (sh)")), "{ended}");
    assert!(!lives(left));
    assert!(!marker.exists());
    world.stop();
}

#[test]
fn a_handler_that_was_withdrawn_is_stopping_until_it_is_gone_with_or_without_the_service() {
    let world = World::with_workspace();
    let settings = SETTINGS.replace("[service]", "[service]\nstop_grace = \"1h\"");
    fs::write(world.path(".wg/config.toml"), settings).unwrap();
    let handler = in_a_turn(&world);
    let stop = world.start(&["chat", "stop", "0"]);
    world.wait_for_file(".wg/service/coordinator-state-0.json", |text| {
        text.contains("\"stopped_at\":\"")
    });
    for service_runs in [true, false] {
        let why = world.json(&["why", "0"])[0].clone();
        assert_eq!(why["state"], "stopping", "{service_runs}: {why}");
        let row = &world.json(&["service", "status"])["chats"][0];
        assert_eq!(
            (row["state"].as_str(), pid_of(&row["pid"])),
            (Some("stopping"), Some(handler))
        );
        if service_runs {
            killed(world.daemon_pid());
        }
    }
    stop.finish().with_code(69);
    world.sh("echo go >go", b"");
    wait_gone(handler);
    let why = world.json(&["why", "0"])[0].clone();
    assert_eq!(why["state"], "stopped", "{why}");
    world.stop();
}
