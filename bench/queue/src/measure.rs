//! What is measured, the same way for everybody.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Instant;

use crate::peers::{Lanes, Ours};
use command_queue::SubmitOptions;

/// Microseconds from submission to the task's first instruction.
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
}

/// Returns tasks per second, lanes taking turns. The clock stops when the last task has run.
pub fn throughput<L: Lanes>(lanes: &L, width: usize, tasks: usize) -> f64 {
    // Warm: every lane has run something.
    run_all(lanes, width, width.max(1_000));
    let start = Instant::now();
    run_all(lanes, width, tasks);
    tasks as f64 / start.elapsed().as_secs_f64()
}

/// What a task touches: as little as a closure can that is not empty.
struct Count {
    left: AtomicUsize,
    main: Thread,
}

fn run_all<L: Lanes>(lanes: &L, width: usize, tasks: usize) {
    run(lanes, |task| task % width, tasks);
}

/// Runs one task in each of some neighbouring lanes.
fn run_some<L: Lanes>(lanes: &L, first: usize, count: usize) {
    run(lanes, |task| first + task, count);
}

fn run<L: Lanes>(lanes: &L, lane_of: impl Fn(usize) -> usize, tasks: usize) {
    let count: &'static Count = Box::leak(Box::new(Count {
        left: AtomicUsize::new(tasks),
        main: thread::current(),
    }));
    for task in 0..tasks {
        lanes.run(lane_of(task), move || {
            if count.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                count.main.unpark();
            }
        });
    }
    while count.left.load(Ordering::Acquire) > 0 {
        thread::park();
    }
}

/// Measures one task at a time, each submitted when the one before has answered.
pub fn latency<L: Lanes>(lanes: &L, tasks: usize) -> Latency {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    let mut micros: Vec<f64> = (0..tasks)
        .map(|_| {
            let sender = sender.clone();
            let submitted = Instant::now();
            lanes.run(0, move || {
                sender
                    .send(submitted.elapsed())
                    .expect("the main thread waits")
            });
            receiver.recv().expect("every task runs").as_secs_f64() * 1e6
        })
        .collect();
    micros.sort_by(f64::total_cmp);
    Latency {
        p50: micros[tasks / 2],
        p99: micros[tasks * 99 / 100],
    }
}

/// Returns the growth of resident memory per lane, each of which has run one task.
pub fn idle_bytes<L: Lanes>(lanes: usize, make: impl Fn(usize) -> L) -> f64 {
    let small = make(1);
    run_all(&small, 1, 1);
    let before = resident();
    let many = make(lanes);
    // Few at a time, or the peak of waiting tasks would be counted as if it were lanes.
    for first in (0..lanes).step_by(100) {
        run_some(&many, first, 100.min(lanes - first));
    }
    let after = resident();
    drop(many);
    (after - before) / lanes as f64
}

/// Returns nanoseconds per submission to a lane in which this many tasks wait already.
pub fn submit_cost(backlog: usize) -> f64 {
    let ours = Ours::new(1);
    let submit = || {
        let handle = ours
            .queue
            .submit("session:0", SubmitOptions::normal(), |_| ());
        drop(handle.expect("the queue is open and unbounded"));
    };
    ours.queue.pause("session:0");
    (0..backlog).for_each(|_| submit());
    // The median of many short stretches: on a machine that does other work, too, one long one measures that.
    let each = (backlog / 200).clamp(20, 500);
    let mut stretches: Vec<f64> = (0..21)
        .map(|_| {
            let start = Instant::now();
            (0..each).for_each(|_| submit());
            start.elapsed().as_secs_f64() * 1e9 / each as f64
        })
        .collect();
    stretches.sort_by(f64::total_cmp);
    stretches[10]
}

fn resident() -> f64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("this is Linux");
    let pages: f64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .expect("statm has two fields");
    pages * 4096.0
}
