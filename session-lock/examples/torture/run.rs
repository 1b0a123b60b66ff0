//! One run: processes that take the lock all the time, and somebody who kills, stops and deletes.

use std::fs;
use std::io;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use session_lock::{AcquireError, Kind, SessionLock, Standing, Wait};

use super::shared::{self, Shared};

/// What happens to the processes and files of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Faults {
    None,
    Kill,
    Stop,
    KillAndStop,
}

/// Which file is deleted all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delete {
    Nothing,
    Record,
    Guard,
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) processes: usize,
    pub(crate) faults: Faults,
    pub(crate) delete: Delete,
    /// Where the locked directory is made.
    pub(crate) place: PathBuf,
    pub(crate) time: Duration,
    pub(crate) seed: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) entries: u64,
    pub(crate) refusals: u64,
    pub(crate) successions: u64,
    pub(crate) kills: u64,
    pub(crate) stops: u64,
    pub(crate) deletions: u64,
    pub(crate) longest_stall: Duration,
    pub(crate) overlaps: u64,
    pub(crate) generation_violations: u64,
    pub(crate) losses: u64,
    pub(crate) errors: u64,
}

impl Outcome {
    pub(crate) fn violations(&self) -> u64 {
        self.overlaps + self.generation_violations + self.losses + self.errors
    }
}

/// Small random numbers (xorshift64); the seed is printed with every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A worker, ended with the run whatever happens.
struct Worker {
    child: Child,
    stopped_until: Option<Instant>,
}

impl Worker {
    fn start(start: &dyn Fn() -> Command) -> io::Result<Self> {
        let mut command = start();
        // The worker ends when the other end of this pipe is closed, so none survives this process.
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self {
            child,
            stopped_until: None,
        })
    }

    fn signal(&self, name: &str) -> io::Result<()> {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let signal = name.parse::<nix::sys::signal::Signal>()?;
        Ok(nix::sys::signal::kill(pid, signal)?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Performs a run. `start` makes the command that calls [`work`] with the run's folder.
pub(crate) fn run(plan: &Plan, start: impl Fn(&Path) -> Command) -> io::Result<Outcome> {
    let folder = tempfile::Builder::new()
        .prefix("torture")
        .tempdir_in(&plan.place)?;
    let dir = folder.path().join("dir");
    fs::create_dir(&dir)?;
    let shared = shared::open(&folder.path().join("shared"))?;
    let start = || start(folder.path());
    let mut random = Random(plan.seed | 1);
    let mut outcome = Outcome::default();
    let mut workers = Vec::new();
    for _ in 0..plan.processes {
        workers.push(Worker::start(&start)?);
    }

    let mut dying = Vec::new();
    // Nobody ever sends: this channel is the clock.
    let (_never, clock) = mpsc::channel::<()>();
    let begin = Instant::now();
    let (mut seen, mut since) = (0, begin);
    while begin.elapsed() < plan.time {
        match clock.recv_timeout(Duration::from_micros(200 + random.below(1000))) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
        let entries = shared.entries.load(Ordering::Relaxed);
        if entries != seen {
            (seen, since) = (entries, Instant::now());
        }
        outcome.longest_stall = outcome.longest_stall.max(since.elapsed());
        // A run starts when the first worker is in.
        if entries > 0 {
            disturb(
                plan,
                &mut workers,
                &mut dying,
                &start,
                &mut random,
                &mut outcome,
            )?;
            delete(plan, &dir, &mut random, &mut outcome);
        }
    }
    shared.stop.store(1, Ordering::Relaxed);
    for worker in &mut workers {
        worker.signal("SIGCONT")?;
        worker.child.wait()?;
    }
    outcome.entries = shared.entries.load(Ordering::Relaxed);
    outcome.refusals = shared.refusals.load(Ordering::Relaxed);
    outcome.successions = shared.successions.load(Ordering::Relaxed);
    outcome.overlaps = shared.overlaps.load(Ordering::Relaxed);
    outcome.generation_violations = shared.generation_violations.load(Ordering::Relaxed);
    outcome.losses = shared.losses.load(Ordering::Relaxed);
    outcome.errors = shared.errors.load(Ordering::Relaxed);
    Ok(outcome)
}

/// Kills or stops somebody, and lets those go on whose time has come.
fn disturb(
    plan: &Plan,
    workers: &mut [Worker],
    dying: &mut Vec<Worker>,
    start: &dyn Fn() -> Command,
    random: &mut Random,
    outcome: &mut Outcome,
) -> io::Result<()> {
    for worker in workers.iter_mut() {
        if worker
            .stopped_until
            .is_some_and(|until| until <= Instant::now())
        {
            worker.stopped_until = None;
            worker.signal("SIGCONT")?;
        }
    }
    let kill = match plan.faults {
        Faults::None => return Ok(()),
        Faults::Kill => true,
        Faults::Stop => false,
        Faults::KillAndStop => random.below(2) == 0,
    };
    let count = workers.len() as u64;
    let whom = usize::try_from(random.below(count)).unwrap_or(0);
    let worker = &mut workers[whom];
    if kill {
        worker.child.kill()?;
        let killed = std::mem::replace(worker, Worker::start(start)?);
        outcome.kills += 1;
        // Its end takes longer than the time to the next fault.
        dying.push(killed);
        dying.retain_mut(|worker| !matches!(worker.child.try_wait(), Ok(Some(_))));
    } else if worker.stopped_until.is_none() {
        worker.signal("SIGSTOP")?;
        worker.stopped_until = Some(Instant::now() + Duration::from_millis(random.below(20)));
        outcome.stops += 1;
    }
    Ok(())
}

fn delete(plan: &Plan, dir: &Path, random: &mut Random, outcome: &mut Outcome) {
    let name = match plan.delete {
        Delete::Nothing => return,
        Delete::Record => ".handler.pid",
        Delete::Guard => ".handler.guard",
    };
    if random.below(6) == 0 && fs::remove_file(dir.join(name)).is_ok() {
        outcome.deletions += 1;
    }
}

/// What a worker does, in the folder of its run: takes the lock, looks whether it is alone, releases it.
pub(crate) fn work(folder: &Path) -> io::Result<()> {
    let shared = shared::open(&folder.join("shared"))?;
    let dir = folder.join("dir");
    let abandoned = std::sync::Arc::new(AtomicBool::new(false));
    std::thread::spawn({
        let abandoned = abandoned.clone();
        move || {
            // It ends, one way or the other, when whoever started this process is gone.
            drop(io::stdin().read(&mut [0]));
            abandoned.store(true, Ordering::Relaxed);
        }
    });
    let own = u64::from(std::process::id());
    let mut random = Random(own << 20 | 1);
    while shared.stop.load(Ordering::Relaxed) == 0 && !abandoned.load(Ordering::Relaxed) {
        let wait = match random.below(2) {
            0 => Wait::Never,
            _ => Wait::Until(Instant::now() + Duration::from_millis(200)),
        };
        match SessionLock::options()
            .kind(Kind::Adapter)
            .wait(wait)
            .acquire(&dir)
        {
            Ok(lock) => inside(shared, lock, own, &mut random),
            Err(AcquireError::Held { .. }) => {
                shared.refusals.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                complain(&error);
                shared.errors.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

fn inside(shared: &Shared, mut lock: SessionLock, own: u64, random: &mut Random) {
    let before = shared.generation.swap(lock.generation(), Ordering::SeqCst);
    if before >= lock.generation() {
        complain(&format!("generation {} after {before}", lock.generation()));
        shared.generation_violations.fetch_add(1, Ordering::SeqCst);
    }
    let previous = shared.owner.swap(own, Ordering::SeqCst);
    if previous != 0 {
        if is_alive(previous) {
            complain(&format!("{previous} was inside when {own} came"));
            shared.overlaps.fetch_add(1, Ordering::SeqCst);
        } else {
            shared.successions.fetch_add(1, Ordering::Relaxed);
        }
    }
    let until = Instant::now() + Duration::from_micros(random.below(150));
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    if random.below(4) == 0 {
        match lock.verify() {
            Ok(Standing::Held | Standing::Repaired) => {}
            Ok(lost) => {
                complain(&format!("{lost:?}"));
                shared.losses.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => {
                complain(&error);
                shared.errors.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
    let left = shared
        .owner
        .compare_exchange(own, 0, Ordering::SeqCst, Ordering::SeqCst);
    if let Err(other) = left {
        complain(&format!("{other} was inside when {own} left"));
        shared.overlaps.fetch_add(1, Ordering::SeqCst);
    }
    shared.entries.fetch_add(1, Ordering::Relaxed);
    if let Err(error) = lock.release() {
        complain(&error);
        shared.errors.fetch_add(1, Ordering::SeqCst);
    }
}

/// Returns whether a process runs on, from the kernel's own words: one that was killed may be tidied up after for
/// 20 ms when its lock is long free, and counts as ended from the moment the kernel marks it so (`PF_EXITING`).
fn is_alive(pid: u64) -> bool {
    const EXITING: u64 = 4;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields);
    // Field 9 of proc(5); the name before the parenthesis is field 2.
    let flags = fields.and_then(|fields| fields.split_ascii_whitespace().nth(6));
    let flags = flags.and_then(|flags| flags.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & EXITING == 0)
}

#[expect(clippy::print_stderr, reason = "whoever runs this wants to know")]
fn complain(what: &dyn std::fmt::Debug) {
    eprintln!("process {}: {what:?}", std::process::id());
}
