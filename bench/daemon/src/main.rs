//! The daemon at work: how long its boot, its answers, its starts and its purge take, and what it costs at rest.
//!
//! It is its own `wg` (started under that name it is the program). What is waited for is what the kernel tells: a lock record or a
//! reply that appears in a directory, a process that ends. The agent is the built-in echo, so that no agent's own time is measured.

mod figures;
mod world;

use std::error::Error;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use figures::{Sorted, millis, pss_kib, wakeups};
use wg_cli::presence::Presence;
use world::World;

const SIZES: [u32; 3] = [10, 100, 1_000];
const RESTARTS: [u32; 2] = [10, 100];
const HISTORIES: [u64; 4] = [100, 1_000, 10_000, 100_000];
const BOOTS: usize = 5;
const ROUNDS: usize = 100;
const IDLE: Duration = Duration::from_secs(5);
const SILENT: u32 = 500;

fn main() -> ExitCode {
    if std::env::args().next().as_deref() == Some("wg") {
        return wg_cli::cli::main().into();
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is measured: all of it, or with `--only PART` and `--size N` a part that fits into a few quiet minutes.
struct Wanted {
    part: Option<String>,
    size: Option<u64>,
}

impl Wanted {
    fn of_arguments() -> Result<Self, Box<dyn Error>> {
        let after = |flag: &str| {
            let mut arguments = std::env::args();
            arguments.find(|argument| argument == flag)?;
            arguments.next()
        };
        let size = after("--size").map(|size| size.parse()).transpose()?;
        Ok(Self {
            part: after("--only"),
            size,
        })
    }

    fn sizes<T: Copy + Into<u64>>(&self, part: &str, all: &[T]) -> Vec<T> {
        let is_wanted = |size: &&T| self.size.is_none_or(|wanted| wanted == (**size).into());
        if self.part.as_deref().is_none_or(|wanted| wanted == part) {
            all.iter().filter(is_wanted).copied().collect()
        } else {
            Vec::new()
        }
    }
}

fn measure() -> Result<(), Box<dyn Error>> {
    figures::raise_descriptors();
    let wanted = Wanted::of_arguments()?;
    println!(
        "chats  boot p50/max ms  status p50/p99 ms  wg status ms  PSS KiB  wake-ups/s  idle -> handler p50/p99 ms  idle -> reply p50/p99 ms  send -> reply p50/p99 ms"
    );
    for size in wanted.sizes("rest", &SIZES) {
        at_rest(size)?;
    }
    println!("\nchats  all answered s  handler PSS KiB  purge s  processes ended  left");
    for size in wanted.sizes("purge", &SIZES) {
        purge(size)?;
    }
    println!("\nhistory  send -> reply p50/p99 ms");
    for length in wanted.sizes("history", &HISTORIES) {
        history(length)?;
    }
    println!("\nchats  handler killed -> its successor has the lock p50/p99 ms");
    for size in wanted.sizes("restart", &RESTARTS) {
        restart(size)?;
    }
    println!("\nsilent clients  status p50/p99/max ms");
    for silent in wanted.sizes("silent", &[SILENT]) {
        silent_clients(silent)?;
    }
    println!(
        "\nboot: `wg service start` until it returns, {BOOTS} times, no chat with a message; status: one request on a new connection, {ROUNDS} times;\n\
         idle -> handler: a message is sent to a chat without a process, until its handler's lock record is there, one sample a chat up to {ROUNDS};\n\
         idle -> reply: the same until the reply is in the outbox; send -> reply: to a handler that is there; every message and reply is synced to the disk;\n\
         purge: `wg service purge-chats` with a live handler in every chat, until it returns, its report with proof;\n\
         killed: SIGKILL to the handler of a chat that somebody is attached to, without a turn, {ROUNDS} times in turn over the chats, pauses of zero;\n\
         PSS and voluntary context switches of the daemon, {} s idle; the agent is the built-in echo, which is no process\n\
         not measured: peers (none has a purge or a wake on message), a loaded machine, agents that are programs",
        IDLE.as_secs()
    );
    Ok(())
}

fn at_rest(size: u32) -> Result<(), Box<dyn Error>> {
    let world = World::make(size)?;
    let mut boots = Vec::new();
    for _ in 0..BOOTS {
        let begun = Instant::now();
        world.wg(&["service", "start"])?;
        boots.push(begun.elapsed());
        world.wg(&["service", "stop"])?;
    }
    world.wg(&["service", "start"])?;
    let status = Sorted::times(ROUNDS, || world.status())?;
    let command = Sorted::times(10, || world.wg(&["service", "status", "--json"]).map(drop))?;

    let daemon = world.daemon()?;
    let pss = pss_kib(daemon);
    let before = wakeups(daemon);
    figures::rest(IDLE);
    let idle = wakeups(daemon).saturating_sub(before);

    let (mut handlers, mut replies) = (Vec::new(), Vec::new());
    for chat in 0..size.min(u32::try_from(ROUNDS)?) {
        let begun = Instant::now();
        world.send(chat, "wake up")?;
        world.wait_for_handler(chat)?;
        handlers.push(begun.elapsed());
        world.wait_for_replies(chat, 1)?;
        replies.push(begun.elapsed());
    }
    let mut count = 1;
    let warm = Sorted::times(ROUNDS, || {
        count += 1;
        world.send(0, "and again")?;
        world.wait_for_replies(0, count)
    })?;
    let (boots, handlers, replies) = (Sorted::of(boots), Sorted::of(handlers), Sorted::of(replies));
    println!(
        "{size:5}  {:>6} / {:>6}  {:>7} / {:>7}  {:>12}  {pss:7}  {:10.1}  {:>12} / {:>11}  {:>11} / {:>10}  {:>11} / {:>10}",
        boots.at(0.5),
        boots.at(1.0),
        status.at(0.5),
        status.at(0.99),
        command.at(0.5),
        idle as f64 / IDLE.as_secs_f64(),
        handlers.at(0.5),
        handlers.at(0.99),
        replies.at(0.5),
        replies.at(0.99),
        warm.at(0.5),
        warm.at(0.99),
    );
    world.end()
}

fn purge(size: u32) -> Result<(), Box<dyn Error>> {
    let world = World::make(size)?;
    world.wg(&["service", "start"])?;
    let begun = Instant::now();
    for chat in 0..size {
        world.send(chat, "hello")?;
    }
    for chat in 0..size {
        world.wait_for_replies(chat, 1)?;
    }
    let all = begun.elapsed();
    let handlers = world.handlers();
    let pss = handlers
        .iter()
        .take(20)
        .map(|pid| pss_kib(*pid))
        .sum::<u64>()
        / u64::try_from(handlers.len().clamp(1, 20))?;
    let begun = Instant::now();
    let report = world.wg(&["service", "purge-chats", "--json"])?;
    let took = begun.elapsed();
    let report: serde_json::Value = serde_json::from_str(&report)?;
    println!(
        "{size:5}  {:14.2}  {pss:15}  {:7.2}  {:15}  {:4}",
        all.as_secs_f64(),
        took.as_secs_f64(),
        report["handlers_ended"].as_u64().unwrap_or(0),
        world.handlers().len()
    );
    world.end()
}

fn history(length: u64) -> Result<(), Box<dyn Error>> {
    let world = World::make(1)?;
    world.fill(0, length)?;
    world.wg(&["service", "start"])?;
    let mut count = length + 1;
    world.send(0, "the first")?;
    world.wait_for_replies(0, count)?;
    let warm = Sorted::times(ROUNDS, || {
        count += 1;
        world.send(0, "and again")?;
        world.wait_for_replies(0, count)
    })?;
    println!("{length:7}  {:>6} / {:>6}", warm.at(0.5), warm.at(0.99));
    world.end()
}

fn restart(size: u32) -> Result<(), Box<dyn Error>> {
    let world = World::make(size)?;
    world.set("[supervisor]\nbackoff_first = \"0s\"\nbackoff_cap = \"0s\"\ncrash_hard = 0\nunsafe_no_backoff = true\n")?;
    world.wg(&["service", "start"])?;
    let attached: Vec<Presence> = (0..size)
        .map(|chat| world.attach(chat))
        .collect::<Result<_, _>>()?;
    for chat in 0..size {
        world.wait_for_handler(chat)?;
    }
    let mut round = 0;
    let restarts = Sorted::times(ROUNDS, || {
        let chat = round % size;
        round += 1;
        world.replace_handler(chat)
    })?;
    println!(
        "{size:5}  {:>6} / {:>6}",
        restarts.at(0.5),
        restarts.at(0.99)
    );
    drop(attached);
    world.end()
}

fn silent_clients(count: u32) -> Result<(), Box<dyn Error>> {
    let world = World::make(1)?;
    world.wg(&["service", "start"])?;
    let socket = world.socket()?;
    let silent: Vec<UnixStream> = (0..count)
        .map(|_| UnixStream::connect(&socket))
        .collect::<Result<_, _>>()?;
    let status = Sorted::times(ROUNDS, || world.status())?;
    println!(
        "{:14}  {} / {} / {}",
        silent.len(),
        status.at(0.5),
        status.at(0.99),
        millis(status.longest())
    );
    drop(silent);
    world.end()
}
