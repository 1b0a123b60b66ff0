//! What must be true when the storm is over.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use wg_cli::store::messages::{self, Role, Side};

use crate::world::World;
use crate::{Done, pause};

/// How long the service may take to answer what is left.
const CALM: Duration = Duration::from_secs(120);

/// Lets the service answer what is left, stops it, and returns every broken rule.
pub(crate) fn audit(world: &World, done: &Done) -> Vec<String> {
    let mut faults = Vec::new();
    world.wg(&["service", "start"]);
    for chat in 0..world.chats() {
        let name = chat.to_string();
        world.wg(&["chat", "restore", &name]);
        world.wg(&["chat", "resume", &name]);
    }
    let until = Instant::now() + CALM;
    while open_messages(world) > 0 && Instant::now() < until {
        pause(Duration::from_millis(50));
    }
    let open = open_messages(world);
    if open > 0 {
        faults.push(format!(
            "{open} messages are not answered {} s after the storm",
            CALM.as_secs()
        ));
    }
    for chat in 0..world.chats() {
        if world.wg(&["why", &chat.to_string()]) != Some(0) {
            faults.push(format!("`wg why {chat}` does not answer"));
        }
    }
    world.wg(&["service", "stop"]);
    let left = world.own_processes();
    for pid in left {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        faults.push(format!(
            "process {pid} is left: {}",
            String::from_utf8_lossy(&line).replace('\0', " ")
        ));
    }
    if world.root().join("hung").exists() {
        let verb = fs::read_to_string(world.root().join("hung")).unwrap_or_default();
        faults.push(format!("a verb hung: {verb}"));
    }
    let mut total = Total::default();
    for chat in 0..world.chats() {
        one_chat(world, chat, &mut faults, &mut total);
    }
    println!("{total:?}");
    if total.inbox < u64::from(done.sent) {
        faults.push(format!(
            "{} messages were accepted, {} are in the inboxes",
            done.sent, total.inbox
        ));
    }
    faults
}

#[derive(Debug, Default)]
struct Total {
    inbox: u64,
    answered: u64,
    failed: u64,
    executions: u64,
    executed_twice: u64,
}

fn open_messages(world: &World) -> usize {
    (0..world.chats())
        .map(|chat| messages::unanswered(&world.session(chat)).map_or(1, |open| open.len()))
        .sum()
}

fn one_chat(world: &World, chat: u32, faults: &mut Vec<String>, total: &mut Total) {
    let dir = world.session(chat);
    let read = |side| {
        messages::read_after(&dir, side, 0)
            .map(|read| read.messages)
            .unwrap_or_default()
    };
    let (inbox, outbox) = (read(Side::Inbox), read(Side::Outbox));
    let mut replies: BTreeMap<u64, Vec<Role>> = BTreeMap::new();
    for reply in &outbox {
        if let Some(question) = reply.in_reply_to {
            replies.entry(question).or_default().push(reply.role);
        }
    }
    for side in [Side::Inbox, Side::Outbox] {
        let ids: Vec<u64> = read(side).iter().map(|message| message.id).collect();
        if ids.windows(2).any(|pair| pair[0] >= pair[1]) {
            faults.push(format!("chat {chat}: the ids of {side:?} do not rise"));
        }
    }
    let ledger =
        fs::read_to_string(world.ledger().join(format!("chat-{chat}.ledger"))).unwrap_or_default();
    let mut started: BTreeMap<&str, u64> = BTreeMap::new();
    for line in ledger.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            (Some("start"), Some(request)) => *started.entry(request).or_default() += 1,
            (Some("DOUBLE"), Some(request)) => {
                faults.push(format!("chat {chat}: two agents at once for {request}"));
            }
            _ => {}
        }
    }
    for message in &inbox {
        total.inbox += 1;
        let answers = replies.remove(&message.id).unwrap_or_default();
        match answers.as_slice() {
            [Role::SystemError] => total.failed += 1,
            [_] => total.answered += 1,
            [] => faults.push(format!(
                "chat {chat}: message {} is not answered",
                message.id
            )),
            more => faults.push(format!(
                "chat {chat}: message {} is answered {} times",
                message.id,
                more.len()
            )),
        }
        let executions = started
            .get(message.request_id.as_str())
            .copied()
            .unwrap_or(0);
        total.executions += executions;
        if executions > 1 {
            total.executed_twice += 1;
        }
        if executions > 2 {
            faults.push(format!(
                "chat {chat}: message {} was executed {executions} times",
                message.id
            ));
        }
    }
    for question in replies.keys() {
        faults.push(format!(
            "chat {chat}: there is a reply to message {question}, which is not in the inbox"
        ));
    }
    match session_lock::inspect(&dir) {
        Ok(session_lock::Inspection::Free | session_lock::Inspection::Stale { .. }) => {}
        found => faults.push(format!("chat {chat}: the lock is {found:?}")),
    }
}
