//! The code that hands tasks, tokens and sleep over, under every interleaving that a scheduler can come up with in
//! some ten thousand runs. What is tested is the code that runs; only the channel and the threads are stand-ins.
//!
//! A lost task, token or wake-up leaves a thread waiting for ever, which the scheduler reports as a deadlock with the
//! schedule that led to it. `RUSTFLAGS="--cfg shuttle" cargo test -p command-queue --lib`

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;

use super::clock;
use super::context::TaskContext;
use super::crew::Crew;
use super::directory::Directory;
use super::lane::{LaneCell, Posted, Token};
use super::task::{Header, Task, TaskRef};
use crate::config::{LaneConfig, Priority};
use crate::core::Outcome;
use crate::core::lane::Claimed;
use crate::core::phantom::PhantomBudget;
use crate::error::TaskError;

const RUNS: usize = 5_000;

/// A task that is nothing but its number.
struct Numbered {
    header: Header,
    number: usize,
    ran: Arc<Mutex<Vec<usize>>>,
}

impl Task for Numbered {
    fn header(&self) -> &Header {
        &self.header
    }

    fn run(&self, _: &TaskContext, _: &mut dyn FnMut(Outcome) -> bool) {}

    fn cancel(&self) {
        self.ran.lock().expect("nobody panics").push(self.number);
    }

    fn wait_cancelled(&self, _: Instant) -> bool {
        false
    }

    fn reject(&self, _: TaskError) {}
}

/// Tokens on their way to workers: the channel.
struct Channel {
    tokens: Mutex<usize>,
    sent: Condvar,
}

struct World {
    lane: LaneCell,
    channel: Channel,
    budget: PhantomBudget,
    left: AtomicUsize,
    now: Instant,
}

impl World {
    fn send(&self) {
        *self.channel.tokens.lock().expect("nobody panics") += 1;
        self.channel.sent.notify_one();
    }

    /// As `Shared::submit`.
    fn submit(&self, number: usize, ran: &Arc<Mutex<Vec<usize>>>) {
        let mut task = Arc::new(Numbered {
            header: Header::new(None, None),
            number,
            ran: Arc::clone(ran),
        });
        if self.lane.is_attended() {
            match self.lane.post(self.now, task, || true) {
                Posted::Left(_) => return,
                Posted::Unattended(_) => {
                    let mut state = self.lane.lock();
                    let after = self.lane.after(&mut state, self.now);
                    drop(state);
                    if after.send {
                        self.send();
                    }
                    return;
                }
                Posted::Not(refused) => task = refused,
            }
        }
        let mut state = self.lane.lock();
        let seq = self.lane.next_seq(&mut state);
        state
            .core
            .submit(self.now, seq, Priority::Normal, None, task);
        let after = self.lane.after(&mut state, self.now);
        drop(state);
        if after.send {
            self.send();
        }
    }

    /// As `Shared::start`.
    fn start(&self) -> Option<Claimed<TaskRef>> {
        let mut state = self.lane.lock_unread();
        self.lane.absorb_if_empty(&mut state);
        state.token = Token::None;
        let claimed = state.core.claim(self.now);
        let after = self.lane.after(&mut state, self.now);
        drop(state);
        if after.send {
            self.send();
        }
        claimed
    }

    /// As a worker: takes tokens, starts, runs and ends tasks, until all have run.
    fn work(&self, stay: bool) {
        loop {
            {
                let mut tokens = self.channel.tokens.lock().expect("nobody panics");
                while *tokens == 0 {
                    if self.left.load(Ordering::SeqCst) == 0 {
                        return;
                    }
                    tokens = self.channel.sent.wait(tokens).expect("nobody panics");
                }
                *tokens -= 1;
            }
            let mut claimed = self.start();
            while let Some(task) = claimed {
                task.item.cancel();
                if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
                    // Whoever sleeps at the channel may go home.
                    drop(self.channel.tokens.lock().expect("nobody panics"));
                    self.channel.sent.notify_all();
                }
                let mut steps = Vec::new();
                let mut state = self.lane.lock_unread();
                let place = (task.seq, task.index);
                if stay && let Some(next) = self.lane.succeed(&mut state, place, self.now) {
                    claimed = Some(next);
                    continue;
                }
                state.core.finish(
                    task.seq,
                    task.index,
                    Outcome::Finished,
                    self.now,
                    &self.budget,
                    &mut steps,
                );
                self.lane.absorb_if_empty(&mut state);
                let go_on = stay && state.token == Token::None && state.core.is_dispatchable();
                claimed = if go_on {
                    state.core.claim(self.now)
                } else {
                    None
                };
                let lingers = stay
                    && claimed.is_none()
                    && state.token == Token::None
                    && state.core.queued() == 0;
                if lingers {
                    state.token = Token::Ready;
                }
                let after = self.lane.after(&mut state, self.now);
                drop(state);
                if after.send {
                    self.send();
                }
                if lingers {
                    for _ in 0..2 {
                        if self.lane.has_mail() {
                            break;
                        }
                        thread::yield_now();
                    }
                    claimed = self.start();
                }
            }
        }
    }
}

/// Half of the runs switch threads at random, half change priorities at few places, which finds what needs a thread
/// to stand still for long.
fn explore(test: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_random(test, RUNS / 2);
    shuttle::check_pct(test, RUNS / 2, 3);
}

fn explore_lane(width: usize, submitters: usize, each: usize, workers: usize, stay: bool) {
    explore(move || {
        let config = LaneConfig {
            width,
            ..LaneConfig::serial()
        };
        let world = Arc::new(World {
            lane: LaneCell::new(Weak::new(), 0, 0, "lane".into(), Arc::new(config)),
            channel: Channel {
                tokens: Mutex::new(0),
                sent: Condvar::new(),
            },
            budget: PhantomBudget::new(0),
            left: AtomicUsize::new(submitters * each),
            now: clock::now(),
        });
        let ran = Arc::new(Mutex::new(Vec::new()));
        let mut threads = Vec::new();
        for submitter in 0..submitters {
            let (world, ran) = (Arc::clone(&world), Arc::clone(&ran));
            threads.push(thread::spawn(move || {
                for n in 0..each {
                    world.submit(submitter * each + n, &ran);
                }
            }));
        }
        for _ in 0..workers {
            let world = Arc::clone(&world);
            threads.push(thread::spawn(move || world.work(stay)));
        }
        for thread in threads {
            thread.join().expect("nobody panics");
        }
        let ran = ran.lock().expect("nobody panics").clone();
        let mut sorted = ran.clone();
        sorted.sort_unstable();
        assert_eq!(
            sorted,
            (0..submitters * each).collect::<Vec<_>>(),
            "each task runs once"
        );
        if width == 1 {
            for submitter in 0..submitters {
                let own: Vec<_> = ran.iter().filter(|n| *n / each == submitter).collect();
                assert!(own.is_sorted(), "each submitter's order is kept: {ran:?}");
            }
        }
        let state = world.lane.lock();
        assert_eq!((state.core.queued(), state.core.occupied()), (0, 0));
        assert_eq!(state.core.totals().finished, (submitters * each) as u64);
    });
}

#[test]
fn no_task_and_no_token_is_lost_in_a_serial_lane() {
    explore_lane(1, 1, 2, 1, true);
    explore_lane(1, 2, 3, 1, true);
    explore_lane(1, 2, 3, 2, false);
}

#[test]
fn no_task_and_no_token_is_lost_in_a_wide_lane() {
    explore_lane(2, 3, 2, 2, true);
    explore_lane(2, 2, 3, 3, false);
}

#[test]
fn no_token_is_left_while_everybody_sleeps() {
    explore(|| {
        const TOKENS: usize = 2;
        let crew = Arc::new(Crew::new(3));
        let tokens = Arc::new(Mutex::new(VecDeque::new()));
        let taken = Arc::new(AtomicUsize::new(0));
        let workers: Vec<_> = (0..2)
            .map(|_| {
                assert!(crew.join());
                let (crew, tokens, taken) =
                    (Arc::clone(&crew), Arc::clone(&tokens), Arc::clone(&taken));
                thread::spawn(move || {
                    // As `Pool::next`.
                    loop {
                        let token: Option<usize> =
                            tokens.lock().expect("nobody panics").pop_front();
                        match token {
                            Some(usize::MAX) => {
                                crew.leave();
                                tokens.lock().expect("nobody panics").push_back(usize::MAX);
                                crew.call_all();
                                return;
                            }
                            Some(_) => {
                                taken.fetch_add(1, Ordering::SeqCst);
                            }
                            None => {
                                let empty = || tokens.lock().expect("nobody panics").is_empty();
                                assert!(crew.sleep(empty, Duration::MAX));
                            }
                        }
                    }
                })
            })
            .collect();
        let senders: Vec<_> = (0..2)
            .map(|_| {
                let (crew, tokens) = (Arc::clone(&crew), Arc::clone(&tokens));
                thread::spawn(move || {
                    for token in 0..TOKENS {
                        // As `Pool::send`, with nobody to help out later: a token that is left to a worker
                        // that is awake must be taken by it.
                        tokens.lock().expect("nobody panics").push_back(token);
                        if crew.awake() == 0 {
                            // Nobody to call means that somebody got up in the meantime.
                            drop(crew.call());
                        }
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.join().expect("nobody panics");
        }
        // Waits until all tokens are taken, and only then lets the workers go.
        while taken.load(Ordering::SeqCst) < 2 * TOKENS {
            thread::yield_now();
        }
        tokens.lock().expect("nobody panics").push_back(usize::MAX);
        crew.call_all();
        for worker in workers {
            worker.join().expect("nobody panics");
        }
        assert_eq!((crew.threads(), crew.asleep()), (0, 0));
    });
}

#[test]
fn a_lane_that_is_being_forgotten_is_counted_once() {
    explore(|| {
        const TASKS: usize = 3;
        let directory = Arc::new(Directory::new(Weak::new(), LaneConfig::serial()));
        let now = clock::now();
        let user = {
            let directory = Arc::clone(&directory);
            thread::spawn(move || {
                let budget = PhantomBudget::new(0);
                for number in 0..TASKS {
                    let lane = directory.find_or_make("lane");
                    let task = Arc::new(Numbered {
                        header: Header::new(None, None),
                        number,
                        ran: Arc::default(),
                    });
                    let mut state = lane.lock();
                    let seq = lane.next_seq(&mut state);
                    state.core.submit(now, seq, Priority::Normal, None, task);
                    let claimed = state.core.claim(now).expect("nothing else is there");
                    let place = (claimed.seq, claimed.index);
                    let outcome = Outcome::Finished;
                    let mut steps = Vec::new();
                    state
                        .core
                        .finish(place.0, place.1, outcome, now, &budget, &mut steps);
                }
            })
        };
        let sweeper = {
            let directory = Arc::clone(&directory);
            thread::spawn(move || {
                for _ in 0..TASKS {
                    directory.sweep(now, Duration::ZERO);
                }
            })
        };
        let count = || {
            let census = directory.census();
            let mut totals = census.forgotten;
            for lane in census.lanes {
                totals.add(&lane.lock().core.totals());
            }
            assert_eq!(totals.submitted, totals.settled());
            totals.finished
        };
        let mut seen = 0;
        for _ in 0..TASKS {
            let finished = count();
            assert!(finished >= seen, "{finished} after {seen}");
            seen = finished;
        }
        user.join().expect("nobody panics");
        sweeper.join().expect("nobody panics");
        assert_eq!(count(), TASKS as u64);
    });
}
