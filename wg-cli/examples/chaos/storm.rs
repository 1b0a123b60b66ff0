//! What happens to the service: messages from one side, kills and verbs from the other, at once.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use wg_cli::store::messages::{self, Durability, NewMessage, Role, Side};

use crate::dice::Dice;
use crate::hands::{self, Kill, Victim};
use crate::ledger::millis;
use crate::world::World;
use crate::{Settings, pause};

/// What was done, for the report and for what the audit may expect.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// What a sender was told is accepted: chat and text.
    pub(crate) accepted: Vec<(u32, String)>,
    /// What a sender was not told is accepted.
    pub(crate) refused: Vec<(u32, String)>,
    pub(crate) kills: Vec<Kill>,
    pub(crate) verbs: Verbs,
    /// From when to when a chat was surely purged, in milliseconds since 1970.
    pub(crate) purged: Vec<(u32, u64, u64)>,
    /// What was seen to be wrong while it happened.
    pub(crate) faults: Vec<String>,
    /// Whether there was no time left for what was asked for.
    pub(crate) out_of_time: bool,
}

/// How often what was done.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Verbs {
    starts: u32,
    stops: u32,
    restarts: u32,
    attaches: u32,
    archives: u32,
    purges: u32,
    half_purges: u32,
    full_disks: u32,
}

impl Done {
    /// How many processes of a kind were killed, and how many of those kills fell into the run of an agent.
    pub(crate) fn killed(&self, victim: Victim) -> (usize, usize) {
        let all: Vec<&Kill> = self
            .kills
            .iter()
            .filter(|kill| kill.victim == victim)
            .collect();
        (all.len(), all.iter().filter(|kill| kill.in_a_run).count())
    }
}

/// Sends and kills until there was enough of both.
pub(crate) fn rage(world: &World, settings: &Settings, done: &mut Done) {
    let mut dice = Dice::new(settings.seed);
    let sender_dice = Dice::new(dice.next());
    let end = Instant::now() + settings.span;
    let over = AtomicBool::new(false);
    let sent = AtomicU32::new(0);
    let told = Mutex::new((Vec::new(), Vec::new()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut dice = sender_dice;
            while !over.load(Ordering::SeqCst) {
                let (chat, text, accepted) = send_one(world, &mut dice);
                let Ok(mut told) = told.lock() else { return };
                if accepted {
                    told.0.push((chat, text));
                    sent.fetch_add(1, Ordering::SeqCst);
                } else {
                    told.1.push((chat, text));
                }
                drop(told);
                pause(Duration::from_millis(dice.below(250)));
            }
        });
        let enough = |done: &Done| {
            sent.load(Ordering::SeqCst) >= settings.messages && done.kills.len() >= settings.kills
        };
        while !enough(done) {
            if Instant::now() >= end {
                done.out_of_time = true;
                break;
            }
            one_thing(world, &mut dice, done);
        }
        over.store(true, Ordering::SeqCst);
    });
    if let Ok((accepted, refused)) = told.into_inner() {
        done.accepted.extend(accepted);
        done.refused.extend(refused);
    }
}

/// One message, mostly by the program, now and then by another tool's hand; returns whether it was accepted.
fn send_one(world: &World, dice: &mut Dice) -> (u32, String, bool) {
    let chat = some_chat(world, dice);
    let text = format!("message {:016x}", dice.next());
    let accepted = if dice.below(5) == 0 {
        let message = NewMessage {
            request_id: Some(format!("foreign-{:016x}", dice.next())),
            ..NewMessage::new(Role::User, text.clone())
        };
        messages::append(&world.session(chat), Side::Inbox, message, Durability::Sync).is_ok()
    } else {
        world.wg(&["chat", "send", &chat.to_string(), &text]) == Some(0)
    };
    (chat, text, accepted)
}

fn some_chat(world: &World, dice: &mut Dice) -> u32 {
    u32::try_from(dice.below(u64::from(world.chats()))).unwrap_or(0)
}

fn one_thing(world: &World, dice: &mut Dice, done: &mut Done) {
    let chat = some_chat(world, dice);
    let name = chat.to_string();
    match dice.below(100) {
        0..30 => done.kills.extend(hands::kill(world, dice, Victim::Agent)),
        30..62 => done.kills.extend(hands::kill(world, dice, Victim::Handler)),
        62..82 => {
            done.kills.extend(hands::kill(world, dice, Victim::Daemon));
            // Two of three times it is back at once; else the handlers go on alone for a while.
            if dice.below(3) > 0 {
                start(world, done);
            }
        }
        82..88 => start(world, done),
        88..90 => {
            world.wg(&["service", "stop"]);
            done.verbs.stops += 1;
            start(world, done);
        }
        90..92 => {
            world.wg(&["service", "restart"]);
            done.verbs.restarts += 1;
        }
        92..95 => attach(world, dice, &name, done),
        95..97 => {
            // Archived and restored at once: what waited is answered afterwards.
            world.wg(&["chat", "archive", &name]);
            world.wg(&["chat", "restore", &name]);
            done.verbs.archives += 1;
        }
        97..99 => purge(world, dice, done),
        _ => full_disk(world, dice, done),
    }
}

fn start(world: &World, done: &mut Done) {
    world.wg(&["service", "start"]);
    done.verbs.starts += 1;
}

/// A screen that comes, says something and crashes.
fn attach(world: &World, dice: &mut Dice, chat: &str, done: &mut Done) {
    let Ok(mut screen) = world.start(&["chat", "attach", chat], Stdio::piped()) else {
        return;
    };
    pause(Duration::from_millis(dice.below(400)));
    drop(screen.kill());
    drop(screen.wait());
    done.verbs.attaches += 1;
}

/// Every chat is purged, half of the time by a daemon that is killed over it, and restored after a look.
fn purge(world: &World, dice: &mut Dice, done: &mut Done) {
    let Ok(mut purge) = world.start(&["service", "purge-chats"], Stdio::null()) else {
        return;
    };
    if dice.below(2) == 0 {
        pause(Duration::from_millis(dice.below(60)));
        // Wherever it is in its work; agents are at work or not.
        if let Some(daemon) = world.daemon() {
            world.kill(daemon);
            done.verbs.half_purges += 1;
        }
    }
    drop(purge.wait());
    done.verbs.purges += 1;
    start(world, done);
    // Whatever this boot has to finish is finished when it answers this.
    world.wg(&["chat", "list"]);
    let marked: BTreeSet<u32> = (0..world.chats())
        .filter(|chat| is_purged(world, *chat))
        .collect();
    let until = Instant::now() + Duration::from_secs(30);
    let still_served = || -> Vec<u32> {
        let served = |chat: &u32| !world.handlers(*chat).is_empty();
        marked.iter().copied().filter(served).collect()
    };
    while !still_served().is_empty() && Instant::now() < until {
        pause(Duration::from_millis(10));
    }
    for chat in still_served() {
        done.faults
            .push(format!("chat {chat} is purged and still served 30 s later"));
    }
    let from = millis();
    pause(Duration::from_millis(dice.below(500)));
    if dice.below(2) == 0 {
        world.wg(&["service", "restart"]);
        done.verbs.restarts += 1;
    }
    let to = millis();
    done.purged
        .extend(marked.iter().map(|chat| (*chat, from, to)));
    for chat in marked {
        world.wg(&["chat", "restore", &chat.to_string()]);
    }
}

fn is_purged(world: &World, chat: u32) -> bool {
    let path = world
        .service()
        .join(format!("coordinator-state-{chat}.json"));
    let state = std::fs::read(path).ok();
    let state: Option<Value> = state.and_then(|state| serde_json::from_slice(&state).ok());
    state.is_some_and(|state| !state["wg_supervisor"]["purged_at"].is_null())
}

/// There is no room for a while.
fn full_disk(world: &World, dice: &mut Dice, done: &mut Done) {
    let Ok(disk) = world.disk() else { return };
    if let Err(error) = disk.fill() {
        done.faults
            .push(format!("the disk could not be filled: {error}"));
    }
    for _ in 0..3 {
        pause(Duration::from_millis(dice.below(300)));
        let victim = [Victim::Agent, Victim::Handler, Victim::Daemon][hands::index(dice, 3)];
        // Only what is at work already: with a full disk nobody comes.
        let found = hands::working(world);
        if let Some(target) = found.get(hands::index(dice, found.len())) {
            done.kills
                .extend(hands::kill_around(world, victim, *target));
        }
        start(world, done);
    }
    disk.empty();
    done.verbs.full_disks += 1;
}
