//! Lane queues side by side, all in one run: compare within a run, not between runs.
//!
//! `cargo run --release --manifest-path bench/queue/Cargo.toml [tasks] [rounds]`

mod measure;
mod peers;

use std::env;
use std::process::Command;

use measure::{Latency, idle_bytes, latency, submit_cost, throughput};
use peers::{Crossbeam, Lanes, Ours, OursUnheld, OursWithHandles, Plain, Rayon, Rusty};

const MANY: usize = 1_000;
const NAMES: [&str; 6] = [
    "command-queue",
    "command-queue, named, with handles",
    "crossbeam",
    "rusty_pool",
    "threadpool",
    "rayon",
];

struct Row {
    one: Vec<f64>,
    many: Vec<f64>,
    latency: Vec<Latency>,
}

fn main() {
    let args: Vec<String> = env::args().collect();
    if let [_, verb, name] = args.as_slice()
        && verb == "idle"
    {
        println!("{}", idle(name));
        return;
    }
    // For a profiler: `spin WHO LANES TASKS`.
    if let [_, verb, who, lanes, tasks] = args.as_slice()
        && verb == "spin"
        && let (Ok(lanes), Ok(tasks)) = (lanes.parse(), tasks.parse())
    {
        let rate = if who == "crossbeam" {
            throughput(&Crossbeam::new(lanes), lanes, tasks)
        } else {
            throughput(&Ours::new(lanes), lanes, tasks)
        };
        println!("{:.2} M/s", rate / 1e6);
        return;
    }
    if let [_, verb, backlog] = args.as_slice()
        && verb == "backlog"
        && let Ok(backlog) = backlog.parse()
    {
        println!("{:.0}", submit_cost(backlog));
        return;
    }
    let tasks = args
        .get(1)
        .and_then(|arg| arg.parse().ok())
        .unwrap_or(200_000);
    let rounds = args.get(2).and_then(|arg| arg.parse().ok()).unwrap_or(5);
    println!(
        "{tasks} no-op tasks, 1 producer, median of {rounds} rounds; contestants take turns within a round\n"
    );

    let mut rows: Vec<Row> = NAMES
        .iter()
        .map(|_| Row {
            one: vec![],
            many: vec![],
            latency: vec![],
        })
        .collect();
    for _ in 0..rounds {
        for (name, row) in NAMES.iter().zip(&mut rows) {
            match *name {
                "command-queue" => round(row, tasks, Ours::new),
                "command-queue, named, with handles" => round(row, tasks, OursWithHandles::new),
                "crossbeam" => round(row, tasks, Crossbeam::new),
                "rusty_pool" => round(row, tasks, Rusty::new),
                "threadpool" => round(row, tasks, Plain::new),
                _ => round(row, tasks, Rayon::new),
            }
        }
    }

    println!(
        "| | 1 lane, M/s | 1,000 lanes, M/s | dispatch p50 µs | p99 µs | bytes per idle lane |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    let mut figures = Vec::new();
    for (name, row) in NAMES.iter().zip(&mut rows) {
        let (one, many) = (median(&mut row.one) / 1e6, median(&mut row.many) / 1e6);
        let p50 = median(
            &mut row
                .latency
                .iter()
                .map(|latency| latency.p50)
                .collect::<Vec<_>>(),
        );
        let p99 = median(
            &mut row
                .latency
                .iter()
                .map(|latency| latency.p99)
                .collect::<Vec<_>>(),
        );
        let bytes = idle_in_child(name);
        println!("| {name} | {one:.2} | {many:.2} | {p50:.1} | {p99:.1} | {bytes:.0} |");
        figures.push((one, many, p99, bytes));
    }

    let ours = figures[0];
    let peer = figures[2];
    println!("\nsubmit at a backlog of 10^n, ns a task (lane paused, memory never used before):");
    let costs: Vec<_> = (2..=6)
        .map(|power| (power, backlog_in_child(10_usize.pow(power), rounds)))
        .collect();
    for (power, cost) in &costs {
        println!("  10^{power}: {cost:.0}");
    }
    println!();
    claim(
        "1,000 lanes against crossbeam thread-per-lane, at least 1.0",
        ours.1 / peer.1,
        |ratio| ratio >= 1.0,
    );
    claim(
        "1 lane against crossbeam, at least 0.4",
        ours.0 / peer.0,
        |ratio| ratio >= 0.4,
    );
    claim("dispatch p99, at most 100 µs", ours.2, |micros| {
        micros <= 100.0
    });
    claim("bytes per idle lane, at most 512", ours.3, |bytes| {
        bytes <= 512.0
    });
    let cheapest = costs
        .iter()
        .map(|(_, cost)| *cost)
        .fold(f64::INFINITY, f64::min);
    claim(
        "submit at 10^6 against the cheapest backlog, at most 2",
        costs[4].1 / cheapest,
        |ratio| ratio <= 2.0,
    );
}

fn round<L: Lanes>(row: &mut Row, tasks: usize, make: impl Fn(usize) -> L) {
    row.one.push(throughput(&make(1), 1, tasks));
    row.many.push(throughput(&make(MANY), MANY, tasks));
    row.latency.push(latency(&make(1), 5_000));
}

fn idle(name: &str) -> f64 {
    match name {
        "command-queue" => idle_bytes(100_000, |_| OursUnheld::new()),
        "command-queue, named, with handles" => idle_bytes(100_000, OursWithHandles::new),
        "crossbeam" => idle_bytes(MANY, Crossbeam::new),
        "rusty_pool" => idle_bytes(MANY, Rusty::new),
        "threadpool" => idle_bytes(MANY, Plain::new),
        _ => idle_bytes(MANY, Rayon::new),
    }
}

/// Memory is measured in a process that did nothing else.
fn idle_in_child(name: &str) -> f64 {
    in_child(&["idle", name])
}

/// So is a backlog, or the small ones would get memory that larger ones before had paid for: of what a submission to a fresh
/// heap costs, nearly half is the kernel's first touch of a page.
fn backlog_in_child(backlog: usize, rounds: usize) -> f64 {
    let backlog = backlog.to_string();
    let mut costs: Vec<_> = (0..rounds)
        .map(|_| in_child(&["backlog", &backlog]))
        .collect();
    median(&mut costs)
}

fn in_child(args: &[&str]) -> f64 {
    let program = env::current_exe().expect("the program knows its file");
    let output = Command::new(program)
        .args(args)
        .output()
        .expect("the program can be started again");
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap_or(f64::NAN)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn claim(what: &str, value: f64, holds: impl Fn(f64) -> bool) {
    println!(
        "{} {what}: {value:.2}",
        if holds(value) { "holds " } else { "MISSED" }
    );
}
