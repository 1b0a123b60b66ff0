//! One task as the driver sees it: what to run, where its result goes, whether it was told to stop.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::clock;
use super::context::TaskContext;
use super::slot::Grant;
use crate::config::{Priority, Probe, SubmitOptions};
use crate::core::Outcome;
use crate::core::active::{Limits, Look};
use crate::error::TaskError;

pub(crate) type TaskRef = Arc<dyn Task>;

/// A task of any type.
pub(crate) trait Task: Send + Sync {
    fn header(&self) -> &Header;

    /// Runs the work. `end` takes the slot back and says whether the result still counts.
    fn run(&self, context: &TaskContext, end: &mut dyn FnMut(Outcome) -> bool);

    /// Tells the work to stop, and wakes whoever waits for that.
    fn cancel(&self);

    /// Waits until the work is told to stop. Returns whether it was.
    fn wait_cancelled(&self, deadline: Instant) -> bool;

    /// Gives the caller an error and drops the work if it never started. Never called under a lane's lock.
    fn reject(&self, error: TaskError);

    /// The work is elsewhere; the slot itself is handed out instead of run.
    fn is_slot(&self) -> bool {
        false
    }

    /// Hands a slot out. Only called if this task [is one](Self::is_slot).
    fn accept(&self, _grant: Grant) {}

    /// Tells the owner of a slot what was decided about it, on the notice thread.
    fn notice(&self, _notice: &super::slot::SlotNotice) {}
}

const PROBE_NONE: u8 = 0;
const PROBE_READY: u8 = 1;
const PROBE_ASKED: u8 = 2;
const PROBE_ANSWERED: u8 = 3;

/// What every task has, whatever it runs. A million of them may wait, so it is small.
pub(crate) struct Header {
    /// Absent for a task that has neither a label nor a probe.
    extra: Option<Box<Extra>>,
    /// The time of the last progress, 0 for none yet.
    progress: AtomicU64,
    /// The task waits for other lanes, this many times over; that is not a stall.
    nested: AtomicU32,
    cancelled: AtomicBool,
    failed: AtomicBool,
    /// Nobody will ask for the result.
    detached: AtomicBool,
    probe_state: AtomicU8,
}

struct Extra {
    label: Option<Box<str>>,
    probe: Option<Probe>,
}

/// Parts what was asked for into what the queue, the lane and the task need of it.
pub(crate) fn part(
    options: SubmitOptions,
    threadless: bool,
) -> (Priority, Option<Box<Limits>>, Header) {
    let SubmitOptions {
        priority,
        budget,
        idle,
        queue_limit,
        label,
        probe,
    } = options;
    let limits = Limits::boxed(budget, idle, queue_limit, threadless);
    (priority, limits, Header::new(label, probe))
}

impl Header {
    fn new(label: Option<Box<str>>, probe: Option<Probe>) -> Self {
        let probe_state = if probe.is_some() {
            PROBE_READY
        } else {
            PROBE_NONE
        };
        let extra = (label.is_some() || probe.is_some()).then(|| Box::new(Extra { label, probe }));
        Self {
            extra,
            progress: AtomicU64::new(0),
            nested: AtomicU32::new(0),
            cancelled: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            detached: AtomicBool::new(false),
            probe_state: AtomicU8::new(probe_state),
        }
    }

    pub(crate) fn label(&self) -> Option<&str> {
        self.extra.as_ref()?.label.as_deref()
    }

    pub(crate) fn progress(&self) {
        self.progress_at(clock::now());
    }

    fn progress_at(&self, at: Instant) {
        self.progress
            .fetch_max(clock::to_nanos(at), Ordering::Relaxed);
    }

    pub(crate) fn last_progress(&self) -> Option<Instant> {
        clock::from_nanos(self.progress.load(Ordering::Relaxed))
    }

    /// Answers the lane's question about progress.
    pub(crate) fn look(&self, now: Instant) -> Look {
        if self.nested.load(Ordering::SeqCst) > 0 {
            return Look::Known(Some(now));
        }
        let asked = self.probe_state.load(Ordering::SeqCst);
        if asked == PROBE_READY || asked == PROBE_ASKED {
            return Look::Ask;
        }
        if asked == PROBE_ANSWERED {
            self.probe_state.store(PROBE_READY, Ordering::SeqCst);
        }
        Look::Known(self.last_progress())
    }

    /// Asks the owner for the time of the last progress. Blocks for as long as the owner does.
    /// Returns whether the answer made sense.
    pub(crate) fn ask_probe(&self) -> bool {
        let asks = self.probe_state.compare_exchange(
            PROBE_READY,
            PROBE_ASKED,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        if asks.is_err() {
            // Declared silent before this thread came to its turn.
            return true;
        }
        let probe = self.extra.as_ref().and_then(|extra| extra.probe.as_ref());
        let answer = probe.and_then(|probe| catch_unwind(AssertUnwindSafe(|| (probe.0)())).ok());
        let sensible = answer.filter(|at| *at <= clock::now());
        if let Some(at) = sensible {
            self.progress_at(at);
        }
        let next = if sensible.is_some() {
            PROBE_ANSWERED
        } else {
            PROBE_NONE
        };
        // A task that was declared silent in the meantime stays so.
        let answered = self
            .probe_state
            .compare_exchange(PROBE_ASKED, next, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        sensible.is_some() || !answered
    }

    pub(crate) fn silence_probe(&self) {
        self.probe_state.store(PROBE_NONE, Ordering::SeqCst);
    }

    /// Sets the flag only; whoever waits for it has to be woken by the task.
    fn set_cancelled(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Nobody will ask for the result. If the worker does not see this in time, the result is kept for nobody.
    pub(crate) fn detach(&self) {
        self.detached.store(true, Ordering::Relaxed);
    }

    pub(crate) fn mark_failed(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    fn outcome<R>(&self, result: &std::thread::Result<R>) -> Outcome {
        match result {
            Ok(_) if self.failed.load(Ordering::Relaxed) => Outcome::Failed,
            Ok(_) => Outcome::Finished,
            Err(_) => Outcome::Panicked,
        }
    }

    pub(crate) fn begin_nested(&self) {
        self.nested.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn end_nested(&self) {
        // Coming back is progress; stored before the exemption ends, or the watchdog might see neither.
        self.progress();
        self.nested.fetch_sub(1, Ordering::SeqCst);
    }
}

enum Work<F, R> {
    Waiting(F),
    Running,
    /// The error is boxed: it is rare, and larger than most closures and results.
    Done(Result<R, Box<TaskError>>),
    Taken,
}

/// A closure, and the place for its result.
pub(crate) struct Cell<F, R> {
    header: Header,
    work: Mutex<Work<F, R>>,
    done: Condvar,
}

impl<F, R> Cell<F, R>
where
    F: FnOnce(&TaskContext) -> R + Send,
    R: Send,
{
    pub(crate) fn new(header: Header, work: F) -> Self {
        Self {
            header,
            work: Mutex::new(Work::Waiting(work)),
            done: Condvar::new(),
        }
    }

    /// Takes the work back from a task that was refused.
    pub(crate) fn into_work(self) -> Option<F> {
        match self.work.into_inner() {
            Work::Waiting(work) => Some(work),
            Work::Running | Work::Done(_) | Work::Taken => None,
        }
    }

    fn publish(&self, result: Result<R, Box<TaskError>>) {
        let mut work = self.work.lock();
        let before = match &*work {
            Work::Waiting(_) | Work::Running => std::mem::replace(&mut *work, Work::Done(result)),
            // Whoever came first decided.
            Work::Done(_) | Work::Taken => Work::Done(result),
        };
        drop(work);
        self.done.notify_all();
        discard(before);
    }
}

/// The end that the caller waits at.
pub(crate) trait Awaited<R>: Send + Sync {
    /// Nobody will ask for the result.
    fn detach(&self);
    fn wait(&self) -> Result<R, TaskError>;
    fn wait_until(&self, deadline: Instant) -> Option<Result<R, TaskError>>;
    fn is_done(&self) -> bool;
}

impl<F, R> Awaited<R> for Cell<F, R>
where
    F: FnOnce(&TaskContext) -> R + Send,
    R: Send,
{
    fn detach(&self) {
        self.header.detach();
    }

    fn wait(&self) -> Result<R, TaskError> {
        let mut work = self.work.lock();
        loop {
            // A handle waits once, so the result is taken once; while it is not there, this sleeps.
            match std::mem::replace(&mut *work, Work::Taken) {
                Work::Done(result) => return result.map_err(|error| *error),
                before @ (Work::Waiting(_) | Work::Running | Work::Taken) => *work = before,
            }
            self.done.wait(&mut work);
        }
    }

    fn wait_until(&self, deadline: Instant) -> Option<Result<R, TaskError>> {
        let mut work = self.work.lock();
        let mut in_time = true;
        loop {
            match std::mem::replace(&mut *work, Work::Taken) {
                Work::Done(result) => return Some(result.map_err(|error| *error)),
                before @ (Work::Waiting(_) | Work::Running | Work::Taken) => *work = before,
            }
            if !in_time {
                return None;
            }
            in_time = !self.done.wait_until(&mut work, deadline).timed_out();
        }
    }

    fn is_done(&self) -> bool {
        matches!(&*self.work.lock(), Work::Done(_) | Work::Taken)
    }
}

impl<F, R> Task for Cell<F, R>
where
    F: FnOnce(&TaskContext) -> R + Send,
    R: Send,
{
    fn header(&self) -> &Header {
        &self.header
    }

    fn run(&self, context: &TaskContext, end: &mut dyn FnMut(Outcome) -> bool) {
        let work = {
            let mut place = self.work.lock();
            match &*place {
                Work::Waiting(_) => std::mem::replace(&mut *place, Work::Running),
                // A reset came between the claim and this line; its caller has the error already.
                Work::Running | Work::Done(_) | Work::Taken => Work::Running,
            }
        };
        let Work::Waiting(work) = work else {
            end(Outcome::Cancelled);
            return;
        };
        let result = catch_unwind(AssertUnwindSafe(|| work(context)));
        let outcome = self.header.outcome(&result);
        if end(outcome) && !self.header.detached.load(Ordering::Relaxed) {
            self.publish(result.map_err(|panic| {
                Box::new(TaskError::Panicked {
                    lane: context.lane_name(),
                    message: panic_message(panic),
                })
            }));
        } else {
            discard(result);
        }
    }

    fn cancel(&self) {
        self.header.set_cancelled();
        // Taking the lock orders this after a waiter's check and before its sleep.
        drop(self.work.lock());
        self.done.notify_all();
    }

    fn wait_cancelled(&self, deadline: Instant) -> bool {
        wait_cancelled(&self.header, &self.work, &self.done, deadline)
    }

    fn reject(&self, error: TaskError) {
        self.publish(Err(Box::new(error)));
    }
}

/// A closure whose result nobody asks for: no place for it, and nobody waits at this.
pub(crate) struct Errand<F> {
    header: Header,
    work: Mutex<Option<F>>,
}

/// Where errands wait to be told to stop. Few do, so all of them share one bell.
static ERRANDS: Bell = Bell {
    lock: Mutex::new(()),
    rung: Condvar::new(),
};

impl<F> Errand<F> {
    pub(crate) fn new(header: Header, work: F) -> Self {
        Self {
            header,
            work: Mutex::new(Some(work)),
        }
    }

    /// Takes the work back from a task that was refused.
    pub(crate) fn into_work(self) -> Option<F> {
        self.work.into_inner()
    }
}

impl<F, R> Task for Errand<F>
where
    F: FnOnce(&TaskContext) -> R + Send,
{
    fn header(&self) -> &Header {
        &self.header
    }

    fn run(&self, context: &TaskContext, end: &mut dyn FnMut(Outcome) -> bool) {
        let Some(work) = self.work.lock().take() else {
            // A reset came between the claim and this line.
            end(Outcome::Cancelled);
            return;
        };
        let result = catch_unwind(AssertUnwindSafe(|| work(context)));
        end(self.header.outcome(&result));
        discard(result);
    }

    fn cancel(&self) {
        ERRANDS.cancel(&self.header);
    }

    fn wait_cancelled(&self, deadline: Instant) -> bool {
        ERRANDS.wait_cancelled(&self.header, deadline)
    }

    fn reject(&self, _error: TaskError) {
        let work = self.work.lock().take();
        discard(work);
    }
}

/// Waits on a condition variable that is notified after the flag was set under or before its lock.
fn wait_cancelled<V>(header: &Header, lock: &Mutex<V>, rung: &Condvar, deadline: Instant) -> bool {
    let mut guard = lock.lock();
    while !header.is_cancelled() {
        if rung.wait_until(&mut guard, deadline).timed_out() {
            return header.is_cancelled();
        }
    }
    true
}

/// Where work that is elsewhere waits to be told to stop.
#[derive(Default)]
pub(crate) struct Bell {
    lock: Mutex<()>,
    rung: Condvar,
}

impl Bell {
    pub(crate) fn cancel(&self, header: &Header) {
        header.set_cancelled();
        drop(self.lock.lock());
        self.rung.notify_all();
    }

    pub(crate) fn wait_cancelled(&self, header: &Header, deadline: Instant) -> bool {
        wait_cancelled(header, &self.lock, &self.rung, deadline)
    }
}

/// Drops a value of the caller's, whose `Drop` may panic; that is not the lane's problem.
pub(crate) fn discard<V>(value: V) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        log::debug!("a dropped task panicked: {}", panic_message(panic));
    }
}

pub(crate) fn panic_message(panic: Box<dyn Any + Send>) -> String {
    let message = match panic.downcast::<String>() {
        Ok(text) => return *text,
        Err(panic) => match panic.downcast::<&'static str>() {
            Ok(text) => return (*text).to_owned(),
            Err(other) => other,
        },
    };
    // The payload may be anything, including something whose Drop panics in turn.
    if catch_unwind(AssertUnwindSafe(|| drop(message))).is_err() {
        return "a panic that panicked when it was dropped".to_owned();
    }
    "a panic without a message".to_owned()
}
