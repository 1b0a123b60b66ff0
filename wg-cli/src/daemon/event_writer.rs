//! The thread that writes `events.jsonl`. Whoever has something to tell hands it over and goes on: the lock of that file may be held
//! by another process, and one that was stopped with it must keep nobody here waiting.
//!
//! There is one order, that of handing over, for the file and for whoever is told what stands in it. What is not written yet waits in
//! memory, up to [`MOST`] events; what comes beyond that is counted and given up, since the log has its sentence all the same.

use std::io;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use crate::clock;
use crate::failure::Failure;
use crate::store::StoreError;
use crate::store::events::{EventLine, EventLog};

/// How many events wait at most, a few megabytes of them.
const MOST: usize = 16 * 1024;

/// How many are written under one lock.
const BATCH: usize = 256;

/// After how long a lock that is held by somebody else is told of, and is no longer waited for by those who want to see their
/// events written.
const SOON: Duration = Duration::from_millis(100);

/// How long one wait for the lock lasts from then on; another follows.
const LATER: Duration = Duration::from_secs(30);

/// What the thread is given.
#[derive(Debug)]
enum Job {
    Write(Box<EventLine>),
    /// Dropped when everything before it is done.
    Mark(#[expect(dead_code, reason = "its drop is what is waited for")] Sender<()>),
}

/// What the thread and its users share.
#[derive(Debug, Default)]
struct Shared {
    waiting: AtomicUsize,
    given_up: AtomicUsize,
    /// Somebody else has the lock, and not just for a moment.
    stuck: AtomicBool,
}

/// Hands events to the thread that writes them.
#[derive(Debug)]
pub(super) struct EventWriter {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
}

impl EventWriter {
    /// Starts the thread; it ends with this value. `told` is called with each event that was written, which has its number then.
    ///
    /// # Errors
    ///
    /// The operating system's, where there can be no further thread.
    pub(super) fn start(
        log: EventLog,
        told: impl Fn(&EventLine) + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, taken) = unbounded();
        let shared = Arc::new(Shared::default());
        let of = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("events".into())
            .spawn(move || work(&log, &taken, &of, &told))?;
        Ok(Self { jobs, shared })
    }

    /// Hands an event over.
    pub(super) fn write(&self, event: EventLine) {
        if self.shared.waiting.fetch_add(1, Ordering::Relaxed) >= MOST {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            self.shared.given_up.fetch_add(1, Ordering::Relaxed);
            return;
        }
        drop(self.jobs.send(Job::Write(Box::new(event))));
    }

    /// Waits for the last time until everything is written, for at most `within` whoever has the file; returns how many events were
    /// not.
    pub(super) fn finish(&self, within: Duration) -> usize {
        let (mark, passed) = bounded::<()>(0);
        if self.jobs.send(Job::Mark(mark)).is_ok()
            && passed.recv_timeout(within) != Err(RecvTimeoutError::Timeout)
        {
            return 0;
        }
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Waits until everything that was handed over before is written, for at most `within`, and not at all where somebody else has
    /// the file; returns whether it is.
    pub(super) fn settle(&self, within: Duration) -> bool {
        if self.shared.stuck.load(Ordering::Relaxed) {
            return false;
        }
        let (mark, passed) = bounded(0);
        if self.jobs.send(Job::Mark(mark)).is_err() {
            return false;
        }
        let deadline = clock::steady() + within;
        loop {
            let next = deadline.min(clock::steady() + SOON);
            // Nothing is ever sent: it ends when the mark is dropped.
            match passed.recv_deadline(next) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if clock::steady() >= deadline || self.shared.stuck.load(Ordering::Relaxed) {
                return false;
            }
        }
    }
}

fn work(log: &EventLog, jobs: &Receiver<Job>, shared: &Shared, told: &impl Fn(&EventLine)) {
    while let Ok(first) = jobs.recv() {
        let mut events = Vec::new();
        let mut marks = Vec::new();
        for job in iter::once(first).chain(jobs.try_iter().take(BATCH - 1)) {
            match job {
                Job::Write(event) => events.push(*event),
                mark @ Job::Mark(_) => marks.push(mark),
            }
        }
        append(log, &mut events, shared);
        shared.waiting.fetch_sub(events.len(), Ordering::Relaxed);
        for event in events.iter().filter(|event| event.seq > 0) {
            told(event);
        }
        let given_up = shared.given_up.swap(0, Ordering::Relaxed);
        if given_up > 0 {
            log::error!("{given_up} events were not written: too many waited for their file");
        }
        drop(marks);
    }
}

/// Writes the events, however long their file is in somebody else's hands; those that are written have a number then.
fn append(log: &EventLog, events: &mut [EventLine], shared: &Shared) {
    let mut patience = SOON;
    loop {
        match log.append_all(events, patience) {
            Err(busy @ StoreError::Busy { .. }) => {
                if !shared.stuck.swap(true, Ordering::Relaxed) {
                    log::warn!("events wait to be written: {}", Failure::from(busy));
                }
                patience = LATER;
            }
            written => {
                shared.stuck.store(false, Ordering::Relaxed);
                if let Err(e) = written {
                    log::error!("an event could not be written: {}", Failure::from(e));
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::EventKind;
    use crate::store::files::{self, SideLock};
    use crate::store::workspace::Workspace;

    fn event(text: &str) -> EventLine {
        EventLine::new(None, EventKind::Idle, text)
    }

    /// A writer, its log, the lock that another process would have, and what is told.
    fn world(dir: &std::path::Path) -> (EventWriter, EventLog, SideLock, Receiver<u64>) {
        let workspace = Workspace::init(dir).unwrap();
        workspace.ensure_service_dir().unwrap();
        let log = EventLog::open(&workspace, 1 << 30, 1);
        let lock =
            SideLock::acquire(&files::with_suffix(&workspace.events_path(), ".lock")).unwrap();
        let (tell, told) = unbounded();
        let writer = EventWriter::start(log.clone(), move |event| {
            tell.send(event.seq).unwrap();
        });
        (writer.unwrap(), log, lock, told)
    }

    #[test]
    fn whoever_has_an_event_to_tell_never_waits_for_the_process_that_has_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, log, lock, told) = world(dir.path());
        // More than one lock's worth, and all of it handed over while the file is in other hands.
        for number in 0..2 * BATCH {
            writer.write(event(&number.to_string()));
        }
        assert!(!writer.settle(Duration::ZERO));
        assert_eq!(log.tail(None, 1).unwrap(), []);
        drop(lock);
        let seqs: Vec<u64> = told.iter().take(2 * BATCH).collect();
        assert!(seqs.iter().copied().eq(1..=2 * BATCH as u64), "{seqs:?}");
        let texts: Vec<String> = log.after(0).unwrap().into_iter().map(|e| e.text).collect();
        let in_order: Vec<String> = (0..2 * BATCH).map(|number| number.to_string()).collect();
        assert_eq!(texts, in_order);
    }

    #[test]
    fn events_that_wait_for_their_file_are_bounded_and_the_earliest_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, log, lock, told) = world(dir.path());
        for number in 0..MOST + 10 {
            writer.write(event(&number.to_string()));
        }
        drop(lock);
        assert_eq!(told.iter().take(MOST).count(), MOST);
        writer.write(event("after"));
        let last = told.recv().unwrap();
        assert_eq!(last, MOST as u64 + 1);
        let kept = log.tail(None, 2).unwrap();
        assert_eq!(kept[0].text, (MOST - 1).to_string());
        assert_eq!(kept[1].text, "after");
    }

    #[test]
    fn the_last_events_are_waited_for_also_while_another_process_has_their_file_and_counted_if_they_are_lost()
     {
        let dir = tempfile::tempdir().unwrap();
        let (writer, log, lock, told) = world(dir.path());
        for number in 0..3 {
            writer.write(event(&number.to_string()));
        }
        assert_eq!(writer.finish(Duration::ZERO), 3);
        std::thread::scope(|scope| {
            let finishes = scope.spawn(|| writer.finish(Duration::from_secs(100)));
            drop(lock);
            assert_eq!(finishes.join().unwrap(), 0);
        });
        assert_eq!(told.iter().take(3).count(), 3);
        assert_eq!(log.tail(None, 10).unwrap().len(), 3);
    }

    #[test]
    fn what_was_handed_over_before_is_written_when_it_has_settled() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, log, lock, _told) = world(dir.path());
        drop(lock);
        for number in 1..=20 {
            writer.write(event("an event"));
            assert!(writer.settle(Duration::from_secs(100)));
            assert_eq!(log.tail(None, 100).unwrap().len(), number);
        }
    }
}
