//! The daemon dies in the middle of a turn, at a random instant, again and again: the handler stays, the reply comes once.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use wg_cli::store::messages::{self, Side};

use crate::dice::Dice;
use crate::hands::{self, Victim};
use crate::ledger::{self, What};
use crate::storm::Done;
use crate::world::World;
use crate::{Settings, pause};

/// How long a step of a round may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kills the daemon once in each of so many turns of chat 0. What is wrong goes into the faults.
pub(crate) fn rounds(world: &World, settings: &Settings, done: &mut Done) {
    let mut dice = Dice::new(settings.seed ^ 0xada0);
    let mut handler = None;
    let mut kept = 0;
    let mut spawned = 0;
    for round in 0..settings.rounds {
        let text = format!("round {round}");
        if world.wg(&["chat", "send", "0", &text]) != Some(0) {
            done.faults
                .push(format!("{text}: the message was not accepted"));
            return;
        }
        done.accepted.push((0, text.clone()));
        let at_work = || hands::working(world).into_iter().find(|at| at.chat == 0);
        let Some(target) = wait_for(at_work) else {
            done.faults.push(format!("{text}: no agent came to work"));
            return;
        };
        let serving = world.handlers(0);
        // Anywhere in the turn, its end and the time after it too.
        pause(Duration::from_millis(dice.below(220)));
        let Some(kill) = hands::kill_around(world, Victim::Daemon, target) else {
            done.faults
                .push(format!("{text}: there was no daemon to kill"));
            return;
        };
        done.kills.extend(kill.in_a_run.then_some(kill));
        let before = spawns(world);
        world.wg(&["service", "start"]);
        if wait_for(|| answered(world, &text).then_some(())).is_none() {
            done.faults.push(format!("{text}: no reply"));
            return;
        }
        if world.handlers(0) == serving && handler.is_none_or(|pid| serving == [pid]) {
            kept += 1;
        } else {
            done.faults.push(format!(
                "{text}: served by {serving:?}, then by {:?}",
                world.handlers(0)
            ));
        }
        handler = serving.first().copied();
        spawned += spawns(world) - before;
    }
    let starts = ledger::read(&world.ledger(), "chat-0")
        .iter()
        .filter(|line| line.what == What::Start)
        .count();
    println!(
        "adoption: {} rounds, the same handler after {kept}, {spawned} further spawns, {starts} agents",
        settings.rounds
    );
    if spawned > 0 || starts != usize::try_from(settings.rounds).unwrap_or(0) {
        done.faults
            .push("adoption: something was started that need not be".to_owned());
    }
}

fn wait_for<T>(mut what: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        match what() {
            Some(found) => return Some(found),
            None if Instant::now() >= until => return None,
            None => pause(Duration::from_millis(2)),
        }
    }
}

/// Whether there is a reply that ends with this text.
fn answered(world: &World, text: &str) -> bool {
    messages::read_last(&world.session(0), Side::Outbox, 1).is_ok_and(|read| {
        read.messages
            .iter()
            .any(|reply| reply.content.ends_with(text))
    })
}

/// How many handlers the daemons say that they started.
fn spawns(world: &World) -> usize {
    let events = fs::read_to_string(world.service().join("events.jsonl")).unwrap_or_default();
    events
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["event"] == "spawned")
        .count()
}
