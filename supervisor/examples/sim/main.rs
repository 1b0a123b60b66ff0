//! Simulates many units for long times and checks every step.
//!
//! `cargo run --release -p wg-supervisor --example sim -- --seeds 10000`

mod lab;

use std::env;
use std::process::ExitCode;

use lab::faults::Fault;
use lab::names;
use lab::world::{self, Tally};

/// So many seeds are run where no number is given.
const MANY: u64 = 10_000;
/// Each event, state and notice occurs at least so often in a run of [`MANY`] seeds.
const MEANS_SOMETHING: u64 = 1_000;

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let (mut seeds, mut first, mut happenings, mut tell) = (MANY, 1_u64, 2_000_u32, false);
    while let Some(flag) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse::<u64>().ok());
        match flag.as_str() {
            "--seeds" => seeds = number().unwrap_or(seeds),
            "--seed" => {
                first = number().unwrap_or(first);
                (seeds, tell) = (1, true);
            }
            "--faults" => return show_faults(happenings),
            "--steps" => {
                happenings = number()
                    .and_then(|n| u32::try_from(n).ok())
                    .unwrap_or(happenings);
            }
            other => {
                report(&format!("unknown argument `{other}`"));
                return ExitCode::from(2);
            }
        }
    }
    let mut tally = Tally::default();
    for seed in first..first + seeds {
        let (outcome, story) = world::run(seed, happenings, None, None, tell, &mut tally);
        if let Err(violation) = outcome {
            for line in story.iter().rev().take(30).rev() {
                report(line);
            }
            report(&format!(
                "seed {seed} breaks {:?}: {}",
                violation.rule, violation.text
            ));
            report(&format!(
                "again: cargo run --release -p wg-supervisor --example sim -- --seed {seed} --steps {happenings}"
            ));
            return ExitCode::FAILURE;
        }
    }
    let mut rare = Vec::new();
    let years = tally.simulated.as_secs_f64() / (365.25 * 86_400.0);
    report(&format!(
        "{seeds} seeds, {} events, {years:.1} simulated years, no rule broken",
        tally.steps
    ));
    for (kind, all, counts) in [
        ("event", &names::EVENTS[..], &tally.events),
        ("state", &names::STATES[..], &tally.states),
        ("notice", &names::NOTICES[..], &tally.notices),
    ] {
        for name in all {
            let count = counts.get(name).copied().unwrap_or(0);
            report(&format!("{kind:7} {name:20} {count:>12}"));
            if count < MEANS_SOMETHING {
                rare.push(*name);
            }
        }
    }
    // A thing that hardly ever happened is a thing about which nothing was shown.
    if rare.is_empty() || seeds < MANY {
        return ExitCode::SUCCESS;
    }
    report(&format!("too rare to mean anything: {}", rare.join(", ")));
    ExitCode::FAILURE
}

/// Shows that each rule has a machine that breaks it, and who catches that.
fn show_faults(happenings: u32) -> ExitCode {
    let mut missed = false;
    for (fault, rule) in Fault::ALL {
        let mut tally = Tally::default();
        let found = (1..=200).find_map(|seed| {
            let (outcome, _) = world::run(seed, happenings, Some(fault), None, false, &mut tally);
            outcome.err().map(|violation| (seed, violation))
        });
        match found {
            Some((seed, violation)) if violation.rule == rule => report(&format!(
                "{fault:?}: seed {seed} breaks {rule:?}: {}",
                violation.text
            )),
            other => {
                missed = true;
                report(&format!("{fault:?}: expected {rule:?}, found {other:?}"));
            }
        }
    }
    if missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

#[expect(
    clippy::print_stdout,
    reason = "this program is for people at a terminal"
)]
fn report(line: &str) {
    println!("{line}");
}
