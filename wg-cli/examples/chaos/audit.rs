//! What must be true when the storm is over.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use wg_cli::store::messages;

use crate::agree;
use crate::ledger::{self, What};
use crate::storm::Done;
use crate::world::World;
use crate::{Settings, pause};

/// How long the service may take to answer what is left.
const CALM: Duration = Duration::from_secs(120);

/// Lets the service answer what is left, stops it, and returns every broken rule.
pub(crate) fn audit(world: &World, settings: &Settings, done: &mut Done) -> Vec<String> {
    let mut faults = Vec::new();
    calm_down(world, done, &mut faults);
    for chat in 0..world.chats() {
        explained(world, chat, &mut faults);
    }
    world.wg(&["service", "stop"]);
    for pid in world.own_processes() {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        faults.push(format!("process {pid} is left: {line}"));
    }
    if let Ok(verb) = fs::read_to_string(world.root().join("hung")) {
        faults.push(format!("a verb hung: {verb}"));
    }
    for chat in 0..world.chats() {
        match session_lock::inspect(&world.session(chat)) {
            Ok(session_lock::Inspection::Free) => {}
            found => faults.push(format!("chat {chat}: the lock is {found:?}")),
        }
    }
    purged_stayed_down(world, done, &mut faults);
    killed_is_no_clean_end(world, done, &mut faults);
    agree::agree(world, settings, done, &mut faults);
    faults
}

/// Every chat is wanted again, is asked once more, and answers all that was asked.
fn calm_down(world: &World, done: &mut Done, faults: &mut Vec<String>) {
    if let Ok(disk) = world.disk() {
        disk.empty();
    }
    world.wg(&["service", "start"]);
    for chat in 0..world.chats() {
        let name = chat.to_string();
        world.wg(&["chat", "restore", &name]);
        world.wg(&["chat", "resume", &name]);
        let text = format!("calm {chat}");
        if world.wg(&["chat", "send", &name, &text]) == Some(0) {
            done.accepted.push((chat, text));
        } else {
            faults.push(format!("chat {chat} takes no message after the storm"));
        }
    }
    let until = Instant::now() + CALM;
    while open_messages(world) > 0 && Instant::now() < until {
        pause(Duration::from_millis(50));
    }
    let open = open_messages(world);
    if open > 0 {
        let seconds = CALM.as_secs();
        faults.push(format!(
            "{open} messages are not answered {seconds} s after the storm"
        ));
    }
}

fn open_messages(world: &World) -> usize {
    (0..world.chats())
        .map(|chat| messages::unanswered(&world.session(chat)).map_or(1, |open| open.len()))
        .sum()
}

/// `wg why` and the kernel tell the same about who serves the chat.
fn explained(world: &World, chat: u32, faults: &mut Vec<String>) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let before = world.handlers(chat);
        let said = world.ask(&["why", &chat.to_string(), "--json"]);
        let why: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        let why = &why[0];
        let state = why["state"].as_str().unwrap_or_default().to_owned();
        let facts = why["facts"].to_string();
        let is_true = match before.as_slice() {
            [] => state == "idle",
            [pid] => {
                matches!(state.as_str(), "running" | "adopted")
                    && facts.contains(&format!("pid {pid}"))
            }
            _ => false,
        };
        // One that leaves or comes just now is told of a moment later.
        if said.code == Some(0) && is_true {
            return;
        }
        if Instant::now() >= until {
            faults.push(format!(
                "`wg why {chat}` tells `{state}` {facts}, but its handlers are {before:?}"
            ));
            return;
        }
        pause(Duration::from_millis(50));
    }
}

/// No agent and no handler came up in a chat while it was purged.
fn purged_stayed_down(world: &World, done: &Done, faults: &mut Vec<String>) {
    let mut starts: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for chat in 0..world.chats() {
        let lines = ledger::read(&world.ledger(), &format!("chat-{chat}"));
        let began = lines.iter().filter(|line| line.what == What::Start);
        starts
            .entry(chat)
            .or_default()
            .extend(began.map(|line| line.at));
    }
    for event in events(world) {
        if event["event"] == "spawned"
            && let Some(chat) = chat_of(&event)
            && let Some(at) = event["ts"]
                .as_str()
                .and_then(wg_cli::clock::Timestamp::parse)
        {
            starts
                .entry(chat)
                .or_default()
                .extend(u64::try_from(at.millis()));
        }
    }
    for (chat, from, to) in &done.purged {
        let inside = |at: &&u64| (from..to).contains(at);
        let count = starts
            .get(chat)
            .map_or(0, |starts| starts.iter().filter(inside).count());
        if count > 0 {
            faults.push(format!(
                "chat {chat} was started {count} times while it was purged"
            ));
        }
    }
}

/// Whoever was killed is not told to have ended well.
fn killed_is_no_clean_end(world: &World, done: &Done, faults: &mut Vec<String>) {
    let killed: Vec<(u32, u32)> = done
        .kills
        .iter()
        .filter(|kill| kill.victim == crate::hands::Victim::Handler)
        .map(|kill| (kill.chat, kill.pid))
        .collect();
    for event in events(world) {
        let pid = event["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok());
        let about = chat_of(&event).zip(pid);
        if event["event"] == "exited"
            && about.is_some_and(|about| killed.contains(&about))
            && event["verdict"]["class"] == "planned"
        {
            faults.push(format!(
                "a handler that was killed is told to have ended well: {event}"
            ));
        }
    }
}

fn events(world: &World) -> Vec<Value> {
    let files = ["events.jsonl.2", "events.jsonl.1", "events.jsonl"];
    let texts =
        files.map(|file| fs::read_to_string(world.service().join(file)).unwrap_or_default());
    let lines = texts.iter().flat_map(|text| text.lines());
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// The chat of an event, by its number or its name.
fn chat_of(event: &Value) -> Option<u32> {
    let chat = &event["chat"];
    match chat.as_u64() {
        Some(number) => u32::try_from(number).ok(),
        None => chat.as_str()?.rsplit('-').next()?.parse().ok(),
    }
}
