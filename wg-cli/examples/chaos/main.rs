//! Kills what can be killed while messages are answered, then counts: every message answered or failed exactly once, none
//! executed twice where that is not allowed, nothing left running, no stale lock, no purged chat started.
//!
//! ```sh
//! cargo xtask stress chaos --seed 7
//! ```
//!
//! It is its own `wg` (started under that name it is the program) and its own agent, so that it needs nothing but itself. As root
//! the workspace lies on a small disk of its own, which is filled now and then. It prints its seed, what it did and what it found,
//! keeps the logs, events and ledgers, and leaves with 1 where a rule was broken.
#![expect(clippy::print_stdout, reason = "a stress run tells what it does")]
#![expect(
    clippy::disallowed_methods,
    reason = "it is a driver: it reads the clock"
)]

mod adoption;
mod agent;
mod agree;
mod audit;
mod dice;
mod disk;
mod hands;
mod ledger;
mod storm;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use hands::Victim;
use storm::Done;
use world::World;

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) chats: u32,
    /// How many messages must be accepted, at least.
    pub(crate) messages: u32,
    /// How many processes must be killed, at least.
    pub(crate) kills: usize,
    /// How many daemons are killed in a turn before the storm.
    pub(crate) rounds: u32,
    /// How long the storm may last.
    pub(crate) span: Duration,
    pub(crate) on_interrupted: String,
}

impl Settings {
    fn read(args: &[String]) -> Self {
        let word = |name: &str| {
            let at = args.iter().position(|arg| arg == name)?;
            args.get(at + 1)
        };
        let number = |name: &str, default: u64| -> u64 {
            word(name)
                .and_then(|value| value.parse().ok())
                .unwrap_or(default)
        };
        let small = |name: &str, default: u32| {
            u32::try_from(number(name, u64::from(default))).unwrap_or(default)
        };
        Self {
            seed: number("--seed", ledger::millis()),
            chats: small("--chats", 20).max(1),
            messages: small("--messages", 500),
            kills: usize::try_from(small("--kills", 200)).unwrap_or(200),
            rounds: small("--rounds", 100),
            span: Duration::from_secs(number("--seconds", 1_500)),
            on_interrupted: word("--on-interrupted")
                .map_or("auto", String::as_str)
                .to_owned(),
        }
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args();
    match args.next().as_deref() {
        Some("wg") => return wg_cli::cli::main().into(),
        Some("chaos-agent") => return agent::main(),
        _ => {}
    }
    let settings = Settings::read(&args.collect::<Vec<_>>());
    println!(
        "chaos: --seed {} --chats {} --messages {} --kills {} --rounds {} --seconds {} --on-interrupted {}",
        settings.seed,
        settings.chats,
        settings.messages,
        settings.kills,
        settings.rounds,
        settings.span.as_secs(),
        settings.on_interrupted
    );
    let world = match World::make(&settings) {
        Ok(world) => world,
        Err(error) => {
            println!("the world could not be made: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = world.disk() {
        println!("a full disk is not tried, because none could be mounted: {error}");
    }

    let mut done = Done::default();
    adoption::rounds(&world, &settings, &mut done);
    for fault in &done.faults {
        println!("adoption: {fault}");
    }
    storm::rage(&world, &settings, &mut done);
    let mut faults = std::mem::take(&mut done.faults);
    tell(&done, &settings, &mut faults);
    faults.extend(audit::audit(&world, &settings, &mut done));
    for fault in &faults {
        println!("BROKEN: {fault}");
    }
    let kept = kept_in(&settings);
    match world.keep(&kept) {
        Ok(()) => println!("logs, events and ledgers are kept in {}", kept.display()),
        Err(error) => println!("not everything could be kept: {error}"),
    }
    world.remove();
    if faults.is_empty() {
        println!("nothing is broken");
        ExitCode::SUCCESS
    } else {
        println!("seed {}", settings.seed);
        ExitCode::FAILURE
    }
}

/// Prints what was done; what is not enough of it is a fault.
fn tell(done: &Done, settings: &Settings, faults: &mut Vec<String>) {
    let (mut kills, mut in_a_run) = (0, 0);
    for victim in [Victim::Daemon, Victim::Handler, Victim::Agent] {
        let (all, hit) = done.killed(victim);
        println!("killed {victim:?}: {all}, {hit} of them while an agent ran");
        kills += all;
        in_a_run += hit;
    }
    println!(
        "{} messages accepted, {} refused; {:?}",
        done.accepted.len(),
        done.refused.len(),
        done.verbs
    );
    if in_a_run * 10 < kills * 9 {
        faults.push(format!(
            "only {in_a_run} of {kills} kills fell into the run of an agent"
        ));
    }
    if done.out_of_time {
        let seconds = settings.span.as_secs();
        println!("there was no time for more: {seconds} s");
        if kills * 4 < settings.kills {
            faults.push(format!("only {kills} kills in {seconds} s"));
        }
    }
}

/// Beside the built program, where a clean takes it away.
fn kept_in(settings: &Settings) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let built = own.parent().and_then(std::path::Path::parent);
    let built = built.map_or_else(std::env::temp_dir, std::path::Path::to_owned);
    built.join(format!("chaos-{}", settings.seed))
}

/// Lets some time pass.
pub(crate) fn pause(span: Duration) {
    let (keep, never) = std::sync::mpsc::channel::<()>();
    // Nobody sends, so this waits for as long as it may.
    if never.recv_timeout(span).is_err() {
        drop(keep);
    }
}
