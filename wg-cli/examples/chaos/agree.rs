//! Ledger, inbox and outbox tell the same: each message answered or failed once, executed no more often than is allowed.

use std::collections::{BTreeMap, BTreeSet};

use wg_cli::store::messages::{self, Message, Role, Side};

use crate::Settings;
use crate::ledger::{self, Line, What};
use crate::storm::Done;
use crate::world::World;

/// What was counted.
#[derive(Debug, Default)]
struct Total {
    inbox: u64,
    answered: u64,
    failed: u64,
    executions: u64,
    executed_twice: u64,
}

/// Compares everything that was written, and adds every broken rule.
pub(crate) fn agree(world: &World, settings: &Settings, done: &Done, faults: &mut Vec<String>) {
    let mut total = Total::default();
    for chat in 0..world.chats() {
        let inbox = read(world, chat, Side::Inbox, faults);
        arrived(chat, &inbox, done, faults);
        answered(world, chat, &inbox, faults, &mut total);
        let ledger = ledger::read(&world.ledger(), &format!("chat-{chat}"));
        executed(chat, &inbox, &ledger, settings, faults, &mut total);
    }
    println!("{total:?}");
}

fn read(world: &World, chat: u32, side: Side, faults: &mut Vec<String>) -> Vec<Message> {
    let read = messages::read_after(&world.session(chat), side, 0).unwrap_or_default();
    if read.bad_lines > 0 {
        faults.push(format!(
            "chat {chat}: {} lines of {side:?} are no messages",
            read.bad_lines
        ));
    }
    if read
        .messages
        .windows(2)
        .any(|pair| pair[0].id >= pair[1].id)
    {
        faults.push(format!("chat {chat}: the ids of {side:?} do not rise"));
    }
    read.messages
}

/// What was accepted is there once, and what was refused is not there twice.
fn arrived(chat: u32, inbox: &[Message], done: &Done, faults: &mut Vec<String>) {
    let mut there: BTreeMap<&str, usize> = BTreeMap::new();
    for message in inbox {
        *there.entry(&message.content).or_default() += 1;
    }
    for (_, text) in done.accepted.iter().filter(|(own, _)| *own == chat) {
        match there.get(text.as_str()) {
            Some(1) => {}
            Some(count) => faults.push(format!(
                "chat {chat}: `{text}` is in the inbox {count} times"
            )),
            None => faults.push(format!("chat {chat}: `{text}` was accepted and is lost")),
        }
    }
    for (_, text) in done.refused.iter().filter(|(own, _)| *own == chat) {
        if there.get(text.as_str()).is_some_and(|count| *count > 1) {
            faults.push(format!(
                "chat {chat}: `{text}` was sent once and is there twice"
            ));
        }
    }
}

/// Each message has one reply, and each reply its message.
fn answered(
    world: &World,
    chat: u32,
    inbox: &[Message],
    faults: &mut Vec<String>,
    total: &mut Total,
) {
    let mut replies: BTreeMap<u64, Vec<Role>> = BTreeMap::new();
    for reply in read(world, chat, Side::Outbox, faults) {
        match reply.in_reply_to {
            Some(question) => replies.entry(question).or_default().push(reply.role),
            None => faults.push(format!("chat {chat}: reply {} answers nothing", reply.id)),
        }
    }
    for message in inbox {
        total.inbox += 1;
        let id = message.id;
        match replies.remove(&id).unwrap_or_default().as_slice() {
            [Role::SystemError] => total.failed += 1,
            [_] => total.answered += 1,
            [] => faults.push(format!("chat {chat}: message {id} is not answered")),
            more => faults.push(format!(
                "chat {chat}: message {id} is answered {} times",
                more.len()
            )),
        }
    }
    for question in replies.keys() {
        faults.push(format!(
            "chat {chat}: there is a reply to message {question}, which is not in the inbox"
        ));
    }
}

/// No message is executed more often than it may be, and nothing is executed that nobody asked for.
fn executed(
    chat: u32,
    inbox: &[Message],
    ledger: &[Line],
    settings: &Settings,
    faults: &mut Vec<String>,
    total: &mut Total,
) {
    let asked: BTreeSet<&str> = inbox
        .iter()
        .map(|message| message.request_id.as_str())
        .collect();
    let mut runs: BTreeMap<&str, Vec<&Line>> = BTreeMap::new();
    for line in ledger {
        if line.what == What::Double {
            faults.push(format!(
                "chat {chat}: two agents at once for {}",
                line.request
            ));
        }
        if !asked.contains(line.request.as_str()) {
            faults.push(format!(
                "chat {chat}: executed {}, which nobody asked",
                line.request
            ));
        }
        runs.entry(&line.request).or_default().push(line);
    }
    for (request, lines) in runs {
        let starts: Vec<&&Line> = lines
            .iter()
            .filter(|line| line.what == What::Start)
            .collect();
        total.executions += starts.len() as u64;
        if starts.len() < 2 {
            continue;
        }
        total.executed_twice += 1;
        // The program knows of what it has heard: after that a second run is wrong, as it is where the settings forbid it.
        let heard = |line: &&&Line| line.what == What::Shown && line.pid == starts[0].pid;
        let why = if starts.len() > 2 {
            Some("more than twice")
        } else if settings.on_interrupted == "fail" {
            Some("twice, and on_interrupted is fail")
        } else if settings.on_interrupted == "auto" && lines.iter().any(|line| heard(&line)) {
            Some("twice, although the first run had shown output")
        } else {
            None
        };
        if let Some(why) = why {
            faults.push(format!("chat {chat}: {request} was executed {why}"));
        }
    }
}
