//! What the tests of this crate share: a far deadline, a stuck task, and a log that can be waited for.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use command_queue::{
    CommandQueue, IdleLimit, LaneConfig, Limit, QueueConfig, SubmitOptions, TaskHandle,
};

/// Long enough that only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a deadline that a test reaches only when it fails.
pub(crate) fn far() -> Instant {
    now() + PATIENCE
}

/// Returns the present, to start a manual clock from or to wait until.
#[expect(clippy::disallowed_methods, reason = "a test is a driver, too")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn queue() -> CommandQueue {
    CommandQueue::start(QueueConfig::recommended()).expect("a thread can be started")
}

/// A lane whose tasks stall within milliseconds.
pub(crate) fn hasty() -> LaneConfig {
    LaneConfig {
        stall_ceiling: Limit::After(Duration::from_millis(20)),
        cancel_grace: Duration::from_millis(5),
        warn_after: Duration::from_millis(5),
        ..LaneConfig::serial()
    }
}

/// A task that is never held to the lane's ceiling: on a busy machine a healthy thread may not run for longer.
pub(crate) fn patient() -> SubmitOptions {
    SubmitOptions {
        idle: IdleLimit::Never,
        ..SubmitOptions::normal()
    }
}

/// A task that neither ends nor listens until it is let go. Letting go happens on drop at the latest.
pub(crate) struct Stuck<R> {
    pub(crate) handle: Option<TaskHandle<R>>,
    let_go: Option<Sender<()>>,
    ended: Receiver<()>,
}

impl Stuck<()> {
    /// Submits it and waits until it runs.
    pub(crate) fn start(queue: &CommandQueue, lane: &str) -> Self {
        let stuck = Self::submit(queue, lane);
        stuck.0.recv_timeout(PATIENCE).expect("the task starts");
        stuck.1
    }

    /// Submits it. The receiver hears when it runs.
    pub(crate) fn submit(queue: &CommandQueue, lane: &str) -> (Receiver<()>, Self) {
        let (started, starts) = mpsc::channel();
        let (let_go, held) = mpsc::channel::<()>();
        let (ends, ended) = mpsc::channel();
        let handle = queue
            .submit(lane, SubmitOptions::normal(), move |_| {
                started.send(()).ok();
                held.recv().ok();
                // Dropping the sender says that this line was reached.
                drop(ends);
            })
            .expect("the lane takes it");
        (
            starts,
            Self {
                handle: Some(handle),
                let_go: Some(let_go),
                ended,
            },
        )
    }
}

impl<R> Stuck<R> {
    /// Lets the task go and waits until its closure has ended.
    pub(crate) fn release(mut self) {
        self.let_go = None;
        let ended = self.ended.recv_timeout(PATIENCE);
        assert_eq!(
            ended,
            Err(mpsc::RecvTimeoutError::Disconnected),
            "the task ends once it is let go"
        );
    }

    pub(crate) fn take_handle(&mut self) -> TaskHandle<R> {
        self.handle.take().expect("the handle is taken once")
    }
}

/// Lines that this program logged at debug and above.
pub(crate) struct Journal {
    lines: Mutex<Vec<String>>,
    written: Condvar,
}

static JOURNAL: Journal = Journal {
    lines: Mutex::new(Vec::new()),
    written: Condvar::new(),
};
static INSTALL: Once = Once::new();

pub(crate) fn journal() -> &'static Journal {
    INSTALL.call_once(|| {
        log::set_logger(&JOURNAL).expect("no test installs another logger");
        log::set_max_level(log::LevelFilter::Debug);
    });
    &JOURNAL
}

impl log::Log for Journal {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.lock().push(record.args().to_string());
        self.written.notify_all();
    }

    fn flush(&self) {}
}

impl Journal {
    /// One test that waits in vain must not take the journal from the others.
    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the lines of one lane that contain a phrase.
    pub(crate) fn of(&self, lane: &str, phrase: &str) -> Vec<String> {
        self.lock()
            .iter()
            .filter(|line| is_of(line, lane, phrase))
            .cloned()
            .collect()
    }

    /// Waits for a line of one lane that contains a phrase.
    pub(crate) fn wait_for(&self, lane: &str, phrase: &str) -> String {
        self.wait_until(|line| is_of(line, lane, phrase))
    }

    /// Waits for a line that contains a phrase, of whatever lane.
    pub(crate) fn wait_for_any(&self, phrase: &str) -> String {
        self.wait_until(|line| line.contains(phrase))
    }

    fn wait_until(&self, is_it: impl Fn(&str) -> bool) -> String {
        let deadline = far();
        let mut lines = self.lock();
        loop {
            if let Some(line) = lines.iter().find(|line| is_it(line)) {
                return line.clone();
            }
            let left = deadline
                .checked_duration_since(now())
                .expect("the line comes");
            lines = self
                .written
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

fn is_of(text: &str, lane: &str, phrase: &str) -> bool {
    text.contains(phrase)
        && (text.contains(&format!("lane={lane} ")) || text.contains(&format!("`{lane}`")))
}
