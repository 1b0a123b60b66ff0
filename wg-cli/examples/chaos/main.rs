//! Kills what can be killed while messages are answered, then counts: every message answered or failed exactly once, none
//! executed twice where that is not allowed, nothing left running, no stale lock.
//!
//! ```sh
//! cargo run --release -p wg-cli --example chaos -- --seconds 120 --chats 20 --seed 7
//! ```
//!
//! It is its own `wg` (started under that name it is the program) and its own agent, so that it needs nothing but itself. It
//! prints its seed, what it did and what it found, and leaves with 1 where a rule was broken, the world kept for a look.
#![expect(clippy::print_stdout, reason = "a stress run tells what it does")]
#![expect(
    clippy::disallowed_methods,
    reason = "it is a driver: it reads the clock"
)]

mod agent;
mod audit;
mod dice;
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use dice::Dice;
use world::World;

fn main() -> ExitCode {
    let mut args = std::env::args();
    match args.next().as_deref() {
        Some("wg") => return wg_cli::cli::main().into(),
        Some("chaos-agent") => return agent::main(),
        _ => {}
    }
    let args: Vec<String> = args.collect();
    let number = |name: &str, default: u64| -> u64 {
        args.iter()
            .position(|arg| arg == name)
            .and_then(|at| args.get(at + 1))
            .and_then(|value| value.parse().ok())
            .unwrap_or(default)
    };
    let seed = number("--seed", u64::from(std::process::id()));
    let chats = u32::try_from(number("--chats", 20)).unwrap_or(20).max(1);
    let span = Duration::from_secs(number("--seconds", 120));
    println!(
        "chaos: --seed {seed} --chats {chats} --seconds {}",
        span.as_secs()
    );

    let world = match World::make(chats) {
        Ok(world) => world,
        Err(error) => {
            println!("the world could not be made: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut dice = Dice::new(seed);
    let mut done = Done::default();
    let end = Instant::now() + span;
    while Instant::now() < end {
        one_thing(&world, &mut dice, &mut done);
        pause(Duration::from_millis(dice.below(120)));
    }
    println!("{done:?}");
    let faults = audit::audit(&world, &done);
    for fault in &faults {
        println!("BROKEN: {fault}");
    }
    if faults.is_empty() {
        println!("nothing is broken");
        world.remove();
        ExitCode::SUCCESS
    } else {
        println!(
            "seed {seed}; the world is kept in {}",
            world.root().display()
        );
        ExitCode::FAILURE
    }
}

/// What was done, for the report and for what the audit may expect.
#[derive(Debug, Default)]
pub(crate) struct Done {
    sent: u32,
    killed_daemons: u32,
    killed_handlers: u32,
    killed_agents: u32,
    stops: u32,
    starts: u32,
    restarts: u32,
    attaches: u32,
    archives: u32,
    refused: u32,
}

/// Lets some time pass.
pub(crate) fn pause(span: Duration) {
    let (keep, never) = std::sync::mpsc::channel::<()>();
    // Nobody sends, so this waits for as long as it may.
    if never.recv_timeout(span).is_err() {
        drop(keep);
    }
}

fn one_thing(world: &World, dice: &mut Dice, done: &mut Done) {
    let chat = u32::try_from(dice.below(u64::from(world.chats()))).unwrap_or(0);
    match dice.below(100) {
        0..50 => match world.wg(&[
            "chat",
            "send",
            &chat.to_string(),
            &format!("message {}", dice.next()),
        ]) {
            Some(0) => done.sent += 1,
            _ => done.refused += 1,
        },
        50..60 => done.killed_agents += world.kill_agent(dice),
        60..72 => done.killed_handlers += world.kill_handler(dice),
        72..80 => done.killed_daemons += world.kill_daemon(),
        80..90 => {
            world.wg(&["service", "start"]);
            done.starts += 1;
        }
        90..92 => {
            world.wg(&["service", "stop"]);
            done.stops += 1;
        }
        92..94 => {
            world.wg(&["service", "restart"]);
            done.restarts += 1;
        }
        94..96 => {
            world.attach(chat);
            done.attaches += 1;
        }
        _ => {
            // Archived and restored at once: what waited is answered afterwards.
            world.wg(&["chat", "archive", &chat.to_string()]);
            world.wg(&["chat", "restore", &chat.to_string()]);
            done.archives += 1;
        }
    }
}
