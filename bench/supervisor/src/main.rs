//! Our supervisor beside s6 and supervisord: the same child, one run, one machine.
//!
//! Measured is what a child sees (its own first line in a pipe) and what the kernel
//! sees (the death of each child through a pidfd), so that no supervisor's word is
//! taken for anything. Peers are looked for on `PATH` and left out if they are not
//! there.

mod child;
mod ours;
mod peers;
mod stops;
mod watch;

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use peers::{Peer, Running};
use watch::Births;

const SIZES: [usize; 3] = [1, 100, 1_000];
const ROUNDS: usize = 40;
const BURST: usize = 500;
const IDLE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);

/// Names what this program is to be: nothing, `ours` or `child`.
const ROLE: &str = "BENCH_ROLE";

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::var(ROLE).as_deref() {
        Ok("child") => {
            child::run();
            return Ok(());
        }
        Ok("ours") => return ours::run(),
        _ => {}
    }
    let only_stops = std::env::args().any(|arg| arg == "--stops");
    let quick = std::env::args().any(|arg| arg == "--quick");
    let mut args = std::env::args();
    let only_size: Option<usize> = args
        .find(|arg| arg == "--units")
        .and_then(|_| args.next()?.parse().ok());
    let bin = std::env::current_exe()?;
    let base = std::env::temp_dir().join(format!("bench-supervisor-{}", std::process::id()));
    fs::create_dir_all(&base)?;
    let mut report = String::new();
    writeln!(
        report,
        "peer            units  restart p50/p99 ms  start ms  stop ms  and itself ms  500 killed ms  PSS KiB  wake-ups/s"
    )?;
    let sizes = SIZES.into_iter().filter(|_| !only_stops);
    for size in sizes.filter(|size| only_size.is_none_or(|only| only == *size)) {
        for peer in Peer::all(&bin) {
            if quick && (size == 1_000 && peer.name() != "ours" || peer.is_slow()) {
                continue;
            }
            let directory = base.join(format!("{}-{size}", peer.name()));
            match measure(&peer, &directory, size) {
                Ok(line) => {
                    println!("{line}");
                    writeln!(report, "{line}")?;
                }
                Err(error) => println!("{:14} {size:6}  not measured: {error}", peer.name()),
            }
        }
    }
    stops::show(&base.join("stops"))?;
    fs::remove_dir_all(&base)?;
    println!("\n{report}");
    println!(
        "restart: SIGKILL of a child that ran at least a second until its replacement's first line, {ROUNDS} rounds"
    );
    println!(
        "PSS and voluntary context switches of the supervisor's own processes, {} s idle",
        IDLE.as_secs()
    );
    println!(
        "ours: standard policy with pauses of zero, a marker for each unit, every notice written to a file"
    );
    println!(
        "stop: until the last child is gone, and until the supervisor is; ours has looked at all processes twice by then"
    );
    println!("not measured: children that do something, other machines, a loaded machine");
    Ok(())
}

fn measure(peer: &Peer, directory: &Path, size: usize) -> Result<String, Box<dyn Error>> {
    fs::create_dir_all(directory)?;
    let fifo = directory.join("births");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)?;
    let mut births = Births::open(&fifo)?;
    peer.prepare(directory, &fifo, size)?;

    let begun = Instant::now();
    let mut running = peer.start(directory, &fifo, size)?;
    let mut children = births.wait(size, PATIENCE)?;
    let start = begun.elapsed();

    watch::rest(Duration::from_millis(1_200));
    let mut latencies = Vec::new();
    for round in 0..if peer.is_slow() { 5 } else { ROUNDS } {
        let victim = children.remove(round % children.len());
        let killed = Instant::now();
        watch::kill(victim)?;
        children.extend(births.wait(1, PATIENCE)?);
        latencies.push(killed.elapsed());
        if size == 1 {
            watch::rest(Duration::from_millis(1_100));
        }
    }
    latencies.sort();

    let burst = (size >= BURST).then(|| -> Result<Duration, Box<dyn Error>> {
        watch::rest(Duration::from_millis(1_200));
        let victims: Vec<u32> = children.drain(..BURST).collect();
        let killed = Instant::now();
        for victim in victims {
            watch::kill(victim)?;
        }
        children.extend(births.wait(BURST, PATIENCE)?);
        Ok(killed.elapsed())
    });
    let burst = burst.transpose()?;

    watch::rest(Duration::from_millis(500));
    let own = running.own_processes(&children);
    let pss: u64 = own.iter().map(|pid| watch::pss_kib(*pid)).sum();
    let before: u64 = own.iter().map(|pid| watch::wakeups(*pid)).sum();
    watch::rest(IDLE);
    let after: u64 = own.iter().map(|pid| watch::wakeups(*pid)).sum();
    let wakeups = after.saturating_sub(before) as f64 / IDLE.as_secs_f64();

    let (stopped, ended) = stop(&mut running, &children)?;
    let at = |share: f64| {
        let index = ((latencies.len() - 1) as f64 * share).round() as usize;
        latencies[index].as_secs_f64() * 1_000.0
    };
    Ok(format!(
        "{:14} {size:6}  {:8.2} / {:7.2}  {:8.0}  {:7.0}  {:13.0}  {:>13}  {pss:7}  {wakeups:10.1}",
        peer.name(),
        at(0.5),
        at(0.99),
        start.as_secs_f64() * 1_000.0,
        stopped.as_secs_f64() * 1_000.0,
        ended.as_secs_f64() * 1_000.0,
        burst.map_or("-".into(), |burst| format!(
            "{:.0}",
            burst.as_secs_f64() * 1_000.0
        )),
    ))
}

/// Ends the supervisor and returns how long it took until the last child was gone,
/// and until it had ended itself.
fn stop(running: &mut Running, children: &[u32]) -> Result<(Duration, Duration), Box<dyn Error>> {
    let watched = watch::Deaths::of(children)?;
    let begun = Instant::now();
    running.stop()?;
    watched.wait(PATIENCE)?;
    let gone = begun.elapsed();
    running.join()?;
    Ok((gone, begun.elapsed()))
}
