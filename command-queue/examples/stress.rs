//! A long random run: 64 submitters, cancels, stalls, panics, resets, resizes. `stress [SECONDS] [SEED]`
//!
//! Checked throughout: every accepted task is in exactly one place; no lane runs more tasks at once than its
//! slots and phantoms allow. Checked at the end: no task ran twice, every caller got exactly the answer that
//! was counted, nothing is left. Exits with 1 and says why if any of it does not hold.
#![expect(
    clippy::print_stdout,
    reason = "the counts are what this program is for"
)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use command_queue::{
    Capacity, Close, CommandQueue, IdleLimit, LaneConfig, Limit, Outcome, Overrun, QueueConfig,
    Slot, SubmitOptions, TaskContext, TaskError, TaskHandle, Timeout, Totals,
};

const SUBMITTERS: u64 = 64;
const LANES: u64 = 24;
const HELD_HANDLES: usize = 16;

/// A small generator of the xorshift family: reproducible and enough for a dice.
struct Dice(u64);

impl Dice {
    fn new(origin: u64) -> Self {
        Self(origin.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the run lasts as long as it was asked to"
)]
fn now() -> Instant {
    Instant::now()
}

fn lane(number: u64) -> String {
    format!("lane-{number}")
}

fn config(number: u64) -> LaneConfig {
    LaneConfig {
        width: usize::try_from(1 + number % 3).unwrap_or(1),
        stall_ceiling: Limit::After(Duration::from_millis(40)),
        cancel_grace: Duration::from_millis(5),
        overrun: if number % 4 == 3 {
            Overrun::Hold
        } else {
            Overrun::Free
        },
        max_phantoms: 2,
        capacity: if number % 5 == 4 {
            Capacity::Bounded(8)
        } else {
            Capacity::Unbounded
        },
        group: (number % 6 == 5).then(|| "group".to_owned()),
        warn_after: Duration::from_millis(50),
        ageing: Duration::from_millis(20),
        ..LaneConfig::serial()
    }
}

/// What the callers saw, to be compared with what the queue counted.
#[derive(Default)]
struct Seen {
    answers: Mutex<BTreeMap<&'static str, u64>>,
    accepted: AtomicU64,
    refused: AtomicU64,
    ran: AtomicU64,
    ran_twice: AtomicU64,
    faults: Mutex<Vec<String>>,
}

impl Seen {
    fn answer(&self, answer: &'static str) {
        *self
            .answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(answer)
            .or_default() += 1;
    }

    fn fault(&self, fault: String) {
        self.faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(fault);
    }

    fn of(&self, answer: &str) -> u64 {
        self.answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(answer)
            .copied()
            .unwrap_or(0)
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args()
        .skip(1)
        .filter_map(|arg| arg.parse::<u64>().ok());
    let seconds = args.next().unwrap_or(20);
    #[expect(
        clippy::disallowed_methods,
        reason = "the seed is printed, so that a run can be repeated"
    )]
    let random = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |since| since.as_secs());
    let origin = args.next().unwrap_or(random);
    println!("stress for {seconds} s, seed {origin}");
    // Thousands of tasks panic on purpose.
    std::panic::set_hook(Box::new(|_| ()));
    let config = QueueConfig {
        max_phantoms: 24,
        max_threads: 48,
        ..QueueConfig::recommended()
    };
    let queue = match CommandQueue::start(config) {
        Ok(queue) => queue,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let seen = Arc::new(Seen::default());
    run(&queue, &seen, seconds, origin);
    report(&queue, &seen)
}

fn run(queue: &CommandQueue, seen: &Arc<Seen>, seconds: u64, origin: u64) {
    queue.configure_group("group", 2);
    for number in 0..LANES {
        if let Err(error) = queue.configure_lane(&lane(number), config(number)) {
            seen.fault(error.to_string());
        }
    }
    let until = now() + Duration::from_secs(seconds);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let submitters: Vec<_> = (0..SUBMITTERS)
            .map(|number| {
                scope.spawn(move || {
                    submit(queue, seen, until, Dice::new(origin ^ (number + 1) << 20));
                })
            })
            .collect();
        let operator = scope.spawn(|| operate(queue, &over, Dice::new(origin)));
        scope.spawn(|| check(queue, seen, &over));
        for submitter in submitters {
            if submitter.join().is_err() {
                seen.fault("a submitter panicked".to_owned());
            }
        }
        over.store(true, Ordering::SeqCst);
        drop(operator.join());
    });
    // The operator may have left lanes paused or narrow.
    for number in 0..LANES {
        queue.resume(&lane(number));
        queue.set_width(&lane(number), 4);
    }
    queue.close(Close::Drain);
    if let Err(left) = queue.wait_idle(now() + Duration::from_secs(60)) {
        seen.fault(left.to_string());
    }
}

fn submit(queue: &CommandQueue, seen: &Arc<Seen>, until: Instant, mut dice: Dice) {
    let mut held = Vec::new();
    while now() < until {
        let name = lane(dice.roll(LANES));
        if dice.roll(16) == 0 {
            reserve(queue, seen, &name, dice.roll(8));
            continue;
        }
        let options = options(&mut dice);
        let kind = dice.roll(1000);
        let ran = AtomicBool::new(false);
        let counts = Arc::clone(seen);
        let submitted = queue.submit(&name, options, move |task| {
            counts.ran.fetch_add(1, Ordering::Relaxed);
            if ran.swap(true, Ordering::Relaxed) {
                counts.ran_twice.fetch_add(1, Ordering::Relaxed);
            }
            act(task, kind);
        });
        match submitted {
            Ok(handle) => {
                seen.accepted.fetch_add(1, Ordering::Relaxed);
                held.push(handle);
            }
            Err(_) => {
                seen.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        if dice.roll(8) == 0
            && let Some(handle) = held.last()
        {
            handle.cancel();
        }
        if held.len() >= HELD_HANDLES {
            settle(seen, &mut held);
        }
    }
    settle(seen, &mut held);
}

fn options(dice: &mut Dice) -> SubmitOptions {
    let mut options = match dice.roll(4) {
        0 => SubmitOptions::foreground(),
        1 => SubmitOptions::background(),
        _ => SubmitOptions::normal(),
    };
    if dice.roll(8) == 0 {
        options.budget = Limit::After(Duration::from_millis(dice.roll(20)));
    }
    if dice.roll(8) == 0 {
        options.idle = IdleLimit::After(Duration::from_millis(1 + dice.roll(20)));
    }
    if dice.roll(8) == 0 {
        options.queue_limit = Limit::After(Duration::from_millis(dice.roll(30)));
    }
    options
}

/// What a task does: mostly nothing, sometimes something bad.
fn act(task: &TaskContext, kind: u64) {
    match kind {
        0..900 => {}
        900..950 => panic!("on purpose"),
        950..970 => task.mark_failed(),
        970..990 => {
            // Works for a while and reports progress.
            for _ in 0..10 {
                task.progress();
                if task.wait_cancelled(now() + Duration::from_millis(1)) {
                    return;
                }
            }
        }
        // Waits in silence until it is told to stop, and stops.
        990..996 => {
            let _told: bool = task.wait_cancelled(now() + Duration::from_secs(5));
        }
        // Does not listen: it outlasts the ceiling and the grace.
        _ => {
            let until = now() + Duration::from_millis(100);
            let never = task.ticket();
            while now() < until {
                thread::yield_now();
                let _told: bool = never.is_cancelled();
            }
        }
    }
}

/// A slot for work elsewhere, which is given back, dropped, or kept for too long.
fn reserve(queue: &CommandQueue, seen: &Arc<Seen>, name: &str, kind: u64) {
    let on_grant = move |slot: Slot| match kind {
        0 => drop(slot),
        1 => {
            // Kept until it is told to stop by its ticket, by a thread of its own.
            let ticket = slot.ticket();
            thread::spawn(move || {
                let _told: bool = ticket.wait_cancelled(now() + Duration::from_secs(5));
                slot.finish(Outcome::Finished).unwrap_or_default();
            });
        }
        _ => slot.finish(Outcome::Finished).unwrap_or_default(),
    };
    match queue.reserve(name, SubmitOptions::normal(), on_grant, |_| ()) {
        Ok(_) => seen.answer("slot"),
        Err(_) => {
            seen.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Waits for the answers of all handles.
fn settle(seen: &Seen, held: &mut Vec<TaskHandle<()>>) {
    for handle in held.drain(..) {
        match handle.wait_until(now() + Duration::from_secs(60)) {
            Ok(Ok(())) => seen.answer("value"),
            Ok(Err(error)) => seen.answer(kind(&error)),
            Err(pending) => seen.fault(format!("a caller never got an answer: {pending}")),
        }
    }
}

fn kind(error: &TaskError) -> &'static str {
    if let TaskError::TimedOut { kind, .. } = error {
        return if *kind == Timeout::Budget {
            "timed out"
        } else {
            "timed out, idle"
        };
    }
    let kinds = [
        (matches!(error, TaskError::Stalled { .. }), "stalled"),
        (
            matches!(error, TaskError::QueuedTooLong { .. }),
            "timed out, queued",
        ),
        (matches!(error, TaskError::Panicked { .. }), "panicked"),
        (matches!(error, TaskError::Cancelled { .. }), "cancelled"),
        (matches!(error, TaskError::Cleared { .. }), "cleared"),
        (matches!(error, TaskError::Reset { .. }), "cancelled, reset"),
    ];
    kinds
        .iter()
        .find(|(is, _)| *is)
        .map_or("something else", |(_, name)| name)
}

/// Somebody who turns every knob.
fn operate(queue: &CommandQueue, over: &AtomicBool, mut dice: Dice) {
    let (_never, pause) = std::sync::mpsc::channel::<()>();
    while !over.load(Ordering::SeqCst) {
        let name = lane(dice.roll(LANES));
        match dice.roll(16) {
            0 => queue.pause(&name),
            1..4 => queue.resume(&name),
            4 => queue.set_width(&name, 0),
            5..8 => queue.set_width(&name, usize::try_from(1 + dice.roll(4)).unwrap_or(1)),
            8 => drop(queue.clear(&name)),
            9 => drop(queue.reset_lane(&name)),
            10 => queue.configure_group("group", usize::try_from(1 + dice.roll(3)).unwrap_or(1)),
            _ => {
                // Whatever was paused goes on, or soon nothing would run.
                for number in 0..LANES {
                    queue.resume(&lane(number));
                    queue.set_width(&lane(number), config(number).width);
                }
            }
        }
        pause
            .recv_timeout(Duration::from_millis(1))
            .unwrap_or_default();
    }
}

/// Looks at everything all the time.
fn check(queue: &CommandQueue, seen: &Seen, over: &AtomicBool) {
    let mut looks = 0_u64;
    while !over.load(Ordering::SeqCst) {
        let snapshot = queue.snapshot();
        looks += 1;
        for lane in &snapshot.lanes {
            if !lane.is_conserved() {
                seen.fault(format!("a task is lost or in two places: {lane:?}"));
            }
            let slots = lane.active + lane.cancelling;
            // The widest that a lane ever was; what runs in a lane that was made narrower may go on.
            if slots > 4 || lane.occupied > 4 || lane.abandoned > lane.occupied + 2 {
                seen.fault(format!("more than the slots and phantoms allow: {lane:?}"));
            }
        }
        if !snapshot.is_conserved() {
            seen.fault("the sums do not agree".to_owned());
        }
        if snapshot.phantoms > 24 {
            seen.fault(format!("{} phantoms", snapshot.phantoms));
        }
        thread::yield_now();
    }
    println!("{looks} consistent snapshots");
}

fn report(queue: &CommandQueue, seen: &Seen) -> ExitCode {
    let snapshot = queue.snapshot();
    let totals = snapshot.totals;
    println!("{totals:?}");
    println!(
        "threads {}, phantoms {}",
        snapshot.threads, snapshot.phantoms
    );
    let answers = seen
        .answers
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    println!(
        "callers saw {answers:?}, {} ran, {} refused",
        seen.ran.load(Ordering::Relaxed),
        seen.refused.load(Ordering::Relaxed)
    );
    compare(seen, &totals);
    let faults = seen.faults.lock().unwrap_or_else(PoisonError::into_inner);
    for fault in faults.iter().take(10) {
        println!("VIOLATION: {fault}");
    }
    if faults.is_empty() {
        println!("every task in exactly one place, every caller answered once, nothing left");
        ExitCode::SUCCESS
    } else {
        println!("{} violations", faults.len());
        ExitCode::FAILURE
    }
}

/// What callers saw and what was counted must be the same, task for task. Slots have no caller that waits, so
/// sums that they take part in are bounds.
fn compare(seen: &Seen, totals: &Totals) {
    let slots = seen.of("slot");
    let accepted = seen.accepted.load(Ordering::Relaxed);
    let expect = |what: &str, found: u64, least: u64, most: u64| {
        if !(least..=most).contains(&found) {
            seen.fault(format!(
                "{what}: counted {found}, callers saw {least} to {most}"
            ));
        }
    };
    expect(
        "submitted",
        totals.submitted,
        accepted + slots,
        accepted + slots,
    );
    expect(
        "settled",
        totals.settled(),
        accepted + slots,
        accepted + slots,
    );
    let refused = seen.refused.load(Ordering::Relaxed);
    expect("refused", totals.refused, refused, refused);
    let panicked = seen.of("panicked");
    expect("panicked", totals.panicked, panicked, panicked);
    let bounded = |what: &str, found: u64, least: u64| expect(what, found, least, least + slots);
    bounded("values", totals.finished + totals.failed, seen.of("value"));
    bounded("stalled", totals.stalled, seen.of("stalled"));
    bounded("cleared", totals.cleared, seen.of("cleared"));
    bounded(
        "cancelled",
        totals.cancelled,
        seen.of("cancelled") + seen.of("cancelled, reset"),
    );
    let timed_out =
        seen.of("timed out") + seen.of("timed out, idle") + seen.of("timed out, queued");
    bounded("timed out", totals.timed_out, timed_out);
    expect("ran twice", seen.ran_twice.load(Ordering::Relaxed), 0, 0);
    expect("something else", seen.of("something else"), 0, 0);
}
