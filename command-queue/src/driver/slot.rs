//! A slot for work that runs somewhere else, in another process for instance. No worker waits for it.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::clock;
use super::context::TaskContext;
use super::lane::LaneCell;
use super::shared::{Accepted, Shared};
use super::task::{Bell, Header, Task, TaskRef, discard, part};
use crate::config::SubmitOptions;
use crate::core::Outcome;
use crate::error::{LeaseLost, Refused, TaskError};
use crate::id::TaskId;

/// What was decided about work that holds a [`Slot`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotNotice {
    /// Four fifths of the ceiling passed without progress.
    Suspected,
    /// The work has to stop: it stalled, overran a limit, or its lane was reset. After the grace the slot
    /// is freed, or kept in a lane with overrun `Hold`.
    Stop(TaskError),
    /// Somebody asked the work to stop; the slot stays until it does.
    CancelRequested,
    /// The wait ended without a slot: cancelled, cleared, queued too long, or the queue closed.
    Rejected(TaskError),
}

/// A running place in a lane, as the worker found it.
pub(crate) struct Grant {
    pub(crate) lane: Arc<LaneCell>,
    pub(crate) task: TaskRef,
    pub(crate) seq: u64,
    pub(crate) index: u32,
}

pub(crate) struct SlotTask<G, N> {
    header: Header,
    bell: Bell,
    /// Gone once it was called, or will not be.
    on_grant: Mutex<Option<G>>,
    on_notice: N,
}

impl<N> SlotTask<fn(Slot), N> {
    /// A slot that is handed out at once: nobody waits to be called.
    pub(crate) fn adopted(header: Header, on_notice: N) -> Self {
        Self {
            header,
            bell: Bell::default(),
            on_grant: Mutex::new(None),
            on_notice,
        }
    }
}

impl<G, N> Task for SlotTask<G, N>
where
    G: FnOnce(Slot) + Send,
    N: Fn(SlotNotice) + Send + Sync,
{
    fn header(&self) -> &Header {
        &self.header
    }

    fn run(&self, _context: &TaskContext, end: &mut dyn FnMut(Outcome) -> bool) {
        // A slot is accepted, not run; were it run, it would be over at once.
        end(Outcome::Cancelled);
    }

    fn cancel(&self) {
        self.bell.cancel(&self.header);
    }

    fn wait_cancelled(&self, deadline: Instant) -> bool {
        self.bell.wait_cancelled(&self.header, deadline)
    }

    fn reject(&self, _error: TaskError) {
        // The notice thread tells the owner; here only the closure goes.
        let on_grant = self.on_grant.lock().take();
        discard(on_grant);
    }

    fn is_slot(&self) -> bool {
        true
    }

    fn accept(&self, grant: Grant) {
        let slot = Slot { grant: Some(grant) };
        let on_grant = self.on_grant.lock().take();
        match on_grant {
            // A panic drops the slot on its way out, which frees it.
            Some(on_grant) => discard(std::panic::catch_unwind(std::panic::AssertUnwindSafe(
                || on_grant(slot),
            ))),
            // Rejected between the claim and this line.
            None => drop(slot),
        }
    }

    fn notice(&self, notice: &SlotNotice) {
        (self.on_notice)(notice.clone());
    }
}

/// The right to one place in a lane (and in its group), held by work that the queue does not run itself.
///
/// It is not `Clone`; it is given back by [`finish`](Self::finish) or by dropping it. It falls under the
/// lane's stall ceiling like any task: whoever does the work reports progress through a
/// [`TaskTicket`], and learns by a [`SlotNotice`] that it was suspected or given up.
#[must_use = "dropping a slot gives it back, and the next task starts"]
pub struct Slot {
    grant: Option<Grant>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("id", &self.id())
            .field("lane", &self.lane())
            .finish_non_exhaustive()
    }
}

impl Slot {
    pub(crate) fn adopted(grant: Grant) -> Self {
        Self { grant: Some(grant) }
    }

    fn grant(&self) -> &Grant {
        self.grant
            .as_ref()
            .expect("because only finish and drop take it, and both consume the slot")
    }

    /// Returns the name of the task that this slot belongs to.
    #[must_use]
    pub fn id(&self) -> TaskId {
        let grant = self.grant();
        TaskId {
            lane: grant.lane.number,
            seq: grant.seq,
        }
    }

    /// Returns the lane's name.
    #[must_use]
    pub fn lane(&self) -> &str {
        &self.grant().lane.name
    }

    /// Returns the right to report progress, for whoever sees it.
    #[must_use]
    pub fn ticket(&self) -> TaskTicket {
        TaskTicket {
            task: Arc::clone(&self.grant().task),
        }
    }

    /// Reports progress.
    pub fn progress(&self) {
        self.grant().task.header().progress();
    }

    /// Gives the slot back and says how the work ended. A dropped slot counts as failed.
    ///
    /// # Errors
    ///
    /// Returns [`LeaseLost`] if the work had been given up before: its end was counted then, as stalled,
    /// timed out or cancelled. If the lane held the slot for it, that is freed now all the same.
    pub fn finish(mut self, outcome: Outcome) -> Result<(), LeaseLost> {
        let id = self.id();
        if self.end(outcome) {
            Ok(())
        } else {
            Err(LeaseLost { id })
        }
    }

    fn end(&mut self, outcome: Outcome) -> bool {
        let Some(grant) = self.grant.take() else {
            return true;
        };
        // Without the queue nobody counts and nobody waits.
        let Some(shared) = grant.lane.home() else {
            return true;
        };
        let place = (grant.seq, grant.index);
        shared
            .finish(&grant.lane, place, outcome, clock::now(), None)
            .counted
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.end(Outcome::Failed);
    }
}

/// The right to report progress of one task and to learn that it was cancelled. Anyone may have it, on any
/// thread, for as long as they like; it cannot end the task.
#[derive(Clone)]
pub struct TaskTicket {
    pub(crate) task: TaskRef,
}

impl fmt::Debug for TaskTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskTicket")
            .field("label", &self.task.header().label())
            .finish_non_exhaustive()
    }
}

impl TaskTicket {
    /// Reports progress. Costs a look at the clock and one store; has no effect once the task is over.
    pub fn progress(&self) {
        self.task.header().progress();
    }

    /// Returns whether the task was told to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.task.header().is_cancelled()
    }

    /// Waits until the task is told to stop. Returns whether it was.
    #[must_use]
    pub fn wait_cancelled(&self, deadline: Instant) -> bool {
        self.task.wait_cancelled(deadline)
    }
}

/// A place in the queue for a [`Slot`] that has not been granted yet. Dropping it changes nothing.
#[must_use = "the place in the queue can only be given up through this"]
pub struct Reservation {
    pub(crate) lane: Arc<LaneCell>,
    pub(crate) seq: u64,
    pub(crate) ahead: usize,
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("id", &self.id())
            .field("ahead", &self.ahead)
            .finish_non_exhaustive()
    }
}

impl Reservation {
    pub(crate) fn submit<G, N>(
        shared: &Arc<Shared>,
        lane: Arc<LaneCell>,
        options: SubmitOptions,
        on_grant: G,
        on_notice: N,
    ) -> Result<Self, Refused<G>>
    where
        G: FnOnce(Slot) + Send + 'static,
        N: Fn(SlotNotice) + Send + Sync + 'static,
    {
        let (priority, limits, header) = part(options, true);
        let waiting = Arc::new(SlotTask {
            header,
            bell: Bell::default(),
            on_grant: Mutex::new(Some(on_grant)),
            on_notice,
        });
        match shared.submit(&lane, priority, limits, waiting) {
            Ok(Accepted { seq, ahead }) => Ok(Self { lane, seq, ahead }),
            Err((reason, waiting)) => {
                let on_grant = waiting.on_grant.lock().take();
                let task = on_grant.expect("because a refused reservation was never granted");
                Err(Refused { reason, task })
            }
        }
    }

    /// Returns the task's name.
    #[must_use]
    pub fn id(&self) -> TaskId {
        TaskId {
            lane: self.lane.number,
            seq: self.seq,
        }
    }

    /// Returns how many tasks of the lane were waiting or running when this one arrived.
    #[must_use]
    pub fn ahead(&self) -> usize {
        self.ahead
    }

    /// Gives the place up, or asks the work to stop if it was granted in the meantime.
    #[expect(clippy::must_use_candidate, reason = "it is called for its effect")]
    pub fn cancel(&self) -> Cancelled {
        self.lane.cancel(self.seq)
    }
}

/// What a cancellation found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cancelled {
    /// It was waiting, and is gone; it never ran.
    Removed,
    /// It was running and was told to stop. What it returns still counts.
    Requested,
    /// It was over, or given up.
    TooLate,
}
