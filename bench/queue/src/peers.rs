//! Every contestant behind the same three verbs: make lanes, run a task in a lane, keep its order.

use command_queue::{CommandQueue, LaneConfig, LaneHandle, QueueConfig, SubmitOptions};
use std::thread::{self, JoinHandle};

/// Lanes that run tasks one at a time, in order.
pub trait Lanes {
    fn run<F: FnOnce() + Send + 'static>(&self, lane: usize, task: F);
}

/// This project's queue as the others are used: a lane is found once, and nobody asks for results. Stall
/// ceilings, counters, ageing and events are on, as always.
pub struct Ours {
    pub queue: CommandQueue,
    lanes: Vec<LaneHandle>,
}

fn start() -> CommandQueue {
    CommandQueue::start(QueueConfig::recommended()).expect("a thread can be started")
}

fn name(queue: &CommandQueue, lane: usize) -> String {
    let name = format!("session:{lane}");
    queue
        .configure_lane(&name, LaneConfig::serial())
        .expect("no group is named");
    name
}

impl Ours {
    pub fn new(lanes: usize) -> Self {
        let queue = start();
        let lanes = (0..lanes)
            .map(|lane| queue.lane(&name(&queue, lane)))
            .collect();
        Self { queue, lanes }
    }
}

impl Lanes for Ours {
    fn run<F: FnOnce() + Send + 'static>(&self, lane: usize, task: F) {
        let accepted = self.lanes[lane].submit_detached(SubmitOptions::normal(), move |_| task());
        accepted.expect("the queue is open and unbounded");
    }
}

/// The lanes alone, configured and used once, without anything that their user keeps about them.
pub struct OursUnheld(CommandQueue);

impl OursUnheld {
    pub fn new() -> Self {
        Self(start())
    }
}

impl Lanes for OursUnheld {
    fn run<F: FnOnce() + Send + 'static>(&self, lane: usize, task: F) {
        let name = name(&self.0, lane);
        let accepted = self
            .0
            .submit_detached(&name, SubmitOptions::normal(), move |_| task());
        accepted.expect("the queue is open and unbounded");
    }
}

/// The same with a lookup by name for each task and a handle to its result, which none of the others gives.
pub struct OursWithHandles {
    queue: CommandQueue,
    names: Vec<String>,
}

impl OursWithHandles {
    pub fn new(lanes: usize) -> Self {
        let queue = start();
        let names = (0..lanes).map(|lane| name(&queue, lane)).collect();
        Self { queue, names }
    }
}

impl Lanes for OursWithHandles {
    fn run<F: FnOnce() + Send + 'static>(&self, lane: usize, task: F) {
        let handle = self
            .queue
            .submit(&self.names[lane], SubmitOptions::normal(), move |_| task());
        drop(handle.expect("the queue is open and unbounded"));
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// One thread and one channel per lane.
pub struct Crossbeam {
    senders: Vec<crossbeam_channel::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Crossbeam {
    pub fn new(lanes: usize) -> Self {
        let (senders, threads) = (0..lanes)
            .map(|_| {
                let (sender, receiver) = crossbeam_channel::unbounded::<Job>();
                let thread = thread::spawn(move || receiver.into_iter().for_each(|job| job()));
                (sender, thread)
            })
            .unzip();
        Self { senders, threads }
    }
}

impl Drop for Crossbeam {
    fn drop(&mut self) {
        self.senders.clear();
        for thread in self.threads.drain(..) {
            thread.join().expect("no task panics");
        }
    }
}

impl Lanes for Crossbeam {
    fn run<F: FnOnce() + Send + 'static>(&self, lane: usize, task: F) {
        self.senders[lane]
            .send(Box::new(task))
            .expect("the lane's thread lives");
    }
}

/// One single-threaded `rusty_pool` per lane.
pub struct Rusty(Vec<rusty_pool::ThreadPool>);

impl Rusty {
    pub fn new(lanes: usize) -> Self {
        let pool = |lane| {
            rusty_pool::Builder::new()
                .core_size(1)
                .max_size(1)
                .name(format!("rusty-{lane}"))
                .build()
        };
        Self((0..lanes).map(pool).collect())
    }
}

impl Lanes for Rusty {
    fn run<F: FnOnce() + Send + 'static>(&self, lane: usize, task: F) {
        self.0[lane].execute(task);
    }
}

/// One single-threaded `threadpool` per lane.
pub struct Plain(Vec<threadpool::ThreadPool>);

impl Plain {
    pub fn new(lanes: usize) -> Self {
        Self((0..lanes).map(|_| threadpool::ThreadPool::new(1)).collect())
    }
}

impl Lanes for Plain {
    fn run<F: FnOnce() + Send + 'static>(&self, lane: usize, task: F) {
        self.0[lane].execute(task);
    }
}

/// One single-threaded rayon pool per lane, with `spawn_fifo` for the order.
pub struct Rayon(Vec<rayon::ThreadPool>);

impl Rayon {
    pub fn new(lanes: usize) -> Self {
        let pool = |_| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(1)
                .build()
                .expect("a thread can be started")
        };
        Self((0..lanes).map(pool).collect())
    }
}

impl Lanes for Rayon {
    fn run<F: FnOnce() + Send + 'static>(&self, lane: usize, task: F) {
        self.0[lane].spawn_fifo(task);
    }
}
