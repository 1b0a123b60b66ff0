//! Runs the simulated world of chats for many seeds: `-- --seeds 10000 [--from 0]`, or one again, with all that happened, with `-- --seed SEED`.
#![expect(clippy::print_stdout, reason = "an example says what it saw")]

use std::process::ExitCode;

use wg_cli::names::ChatState;
use wg_cli::sim::{self, AsShipped, Census, EVENTS, Fault, Kind, Plan};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1)?.parse::<u64>().ok()
    };
    if let Some(seed) = number("--seed") {
        let outcome = sim::run(
            Plan {
                log: true,
                ..Plan::of(seed)
            },
            &AsShipped,
        );
        println!("{}", outcome.log.join("\n"));
        return code(outcome.breaches.is_empty());
    }
    let (from, seeds) = (
        number("--from").unwrap_or(0),
        number("--seeds").unwrap_or(10_000),
    );
    let mut census = Census::default();
    for seed in from..from + seeds {
        let outcome = sim::run(Plan::of(seed), &AsShipped);
        census.add(&outcome.census);
        if let Some(breach) = outcome.breaches.first() {
            let told = sim::run(
                Plan {
                    log: true,
                    ..Plan::of(seed)
                },
                &AsShipped,
            );
            println!(
                "{}\nseed {seed}: {breach}\n{}",
                told.log.join("\n"),
                sim::replay_command(seed)
            );
            return code(false);
        }
    }
    // There is no queue of turns in the simulated world.
    let states = ChatState::ALL
        .iter()
        .filter(|state| **state != ChatState::Queued);
    let rare: Vec<&str> = (Fault::ALL.iter().map(|fault| (Kind::Fault, fault.as_str())))
        .chain(EVENTS.map(|event| (Kind::Event, event)))
        .chain(states.map(|state| (Kind::State, state.as_str())))
        .chain(census.all(Kind::Rule).map(|(rule, _)| (Kind::Rule, rule)))
        .filter(|(kind, name)| seeds >= 10_000 && census.of(*kind, name) < 1_000)
        .map(|(_, name)| name)
        .collect();
    if !rare.is_empty() {
        println!("{census}too rare to mean anything: {}", rare.join(", "));
        return code(false);
    }
    println!("{census}{seeds} seeds from {from}: every invariant held after every event");
    code(true)
}

fn code(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
