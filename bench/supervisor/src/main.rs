//! Our supervisor beside s6, supervisord and the least that a program can do: the same
//! child, one run, one machine.
//!
//! Measured is what a child sees (its own first line in a pipe) and what the kernel
//! sees (the death of each child through a pidfd), so that no supervisor's word is
//! taken for anything.

mod child;
mod figures;
mod floor;
mod ours;
mod peers;
mod stops;
mod watch;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use figures::Figures;
use ours::Orphans;
use peers::{Peer, Running};
use watch::Births;

const SIZES: [usize; 3] = [1, 100, 1_000];
const BURST: usize = 500;
const PATIENCE: Duration = Duration::from_secs(60);

/// Names what this program is to be, if it is not the bench.
const ROLE: &str = "BENCH_ROLE";

const NOTES: &str = "\
restart: SIGKILL of a child that ran at least a second until its replacement's first line; n rounds
start: from the start of the supervisor until the last child's first line
stop: until the last child is gone, and until the supervisor is; ours has then looked at all processes twice
PSS and voluntary context switches of the supervisor's own processes, a few seconds idle
bare loop, bare threads: posix_spawn and pidfd with epoll on one thread, or a thread that waits for each child, and nothing else
ours: standard policy with pauses of zero, a marker for each unit, every notice written to a file; orphans come to it, as to `wg run` and the daemon
ours, no reaper: the same in a program to which orphans do not come, so that it looks further
not measured: children that do something, other machines, a loaded machine";

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::var(ROLE).as_deref() {
        Ok("ours") => return ours::run(Orphans::ComeHere),
        Ok("elsewhere") => return ours::run(Orphans::GoUp),
        Ok("idle") => return ours::idle(),
        Ok("loop") => return floor::one_thread(),
        Ok("threads") => return floor::thread_per_child(),
        _ => {}
    }
    let given = |name: &str| std::env::args().any(|arg| arg == name);
    let (only_stops, quick) = (given("--stops"), given("--quick"));
    let mut args = std::env::args();
    let only_size: Option<usize> = args
        .find(|arg| arg == "--units")
        .and_then(|_| args.next()?.parse().ok());
    let base = std::env::temp_dir().join(format!("bench-supervisor-{}", std::process::id()));
    fs::create_dir_all(&base)?;
    if !only_stops {
        let sizes = SIZES.into_iter();
        let sizes = sizes.filter(|size| only_size.is_none_or(|only| only == *size));
        compare(&base, &sizes.collect::<Vec<_>>(), quick)?;
    }
    if only_stops || only_size.is_none() {
        stops::show(&base.join("stops"))?;
    }
    fs::remove_dir_all(&base)?;
    Ok(())
}

/// Measures everybody with each number of units, one after the other, and prints it.
fn compare(base: &Path, sizes: &[usize], quick: bool) -> Result<(), Box<dyn Error>> {
    let bin = std::env::current_exe()?;
    let child = child::build(base)?;
    let mut all = Vec::new();
    println!("{}", figures::HEAD);
    for size in sizes {
        for peer in Peer::all(&bin, &child) {
            if quick && !peer.is_quick(*size) {
                continue;
            }
            if let Some(missing) = peer.missing() {
                println!("{:16} {size:6}  not measured: {missing}", peer.name());
                continue;
            }
            let directory = base.join(format!("{}-{size}", peer.name()));
            match measure(&peer, &directory, *size, quick) {
                Ok(figures) => {
                    println!("{figures}");
                    all.push(figures);
                }
                Err(error) => println!("{:16} {size:6}  not measured: {error}", peer.name()),
            }
        }
    }
    println!();
    for line in figures::ratios(&all).iter().chain(&figures::memory(&all)) {
        println!("{line}");
    }
    Command::new(&bin).env(ROLE, "idle").status()?;
    println!("\n{NOTES}");
    Ok(())
}

fn measure(
    peer: &Peer,
    directory: &Path,
    size: usize,
    quick: bool,
) -> Result<Figures, Box<dyn Error>> {
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
    let mut restarts = Vec::new();
    let rounds = match size {
        _ if peer.is_slow() => 5,
        1 => 12,
        _ => 40,
    };
    for round in 0..rounds {
        let victim = children.remove(round % children.len());
        let killed = Instant::now();
        watch::kill(victim)?;
        children.extend(births.wait(1, PATIENCE)?);
        restarts.push(killed.elapsed());
        if size == 1 {
            watch::rest(Duration::from_millis(1_100));
        }
    }
    restarts.sort();

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

    let idle = Duration::from_secs(if quick { 2 } else { 5 });
    watch::rest(Duration::from_millis(500));
    let own = running.own_processes(&children);
    let pss_kib = own.iter().map(|pid| watch::pss_kib(*pid)).sum();
    let before: u64 = own.iter().map(|pid| watch::wakeups(*pid)).sum();
    watch::rest(idle);
    let after: u64 = own.iter().map(|pid| watch::wakeups(*pid)).sum();
    let wakeups = after.saturating_sub(before) as f64 / idle.as_secs_f64();

    let (stop, ended) = stop(&mut running, &children)?;
    Ok(Figures {
        name: peer.name(),
        units: size,
        restarts,
        start,
        stop,
        ended,
        burst,
        pss_kib,
        wakeups,
    })
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
