//! The caller's end of a task.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock;
use super::context::{TaskContext, current_lane};
use super::lane::LaneCell;
use super::shared::{Accepted, Shared};
use super::slot::Cancelled;
use super::task::{Awaited, Cell, Errand, discard, part};
use crate::config::SubmitOptions;
use crate::error::{Refused, TaskError};
use crate::id::TaskId;

/// A task that was accepted. Dropping the handle lets the task go on; its result is dropped.
#[must_use = "the result, or the reason why there is none, comes through this"]
pub struct TaskHandle<R> {
    lane: Arc<LaneCell>,
    /// There until this is dropped.
    cell: Option<Arc<dyn Awaited<R>>>,
    seq: u64,
    ahead: usize,
}

impl<R> fmt::Debug for TaskHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle")
            .field("id", &self.id())
            .field("lane", &self.lane.name)
            .finish_non_exhaustive()
    }
}

impl<R: Send + 'static> TaskHandle<R> {
    pub(crate) fn submit<F>(
        shared: &Arc<Shared>,
        lane: Arc<LaneCell>,
        options: SubmitOptions,
        work: F,
    ) -> Result<Self, Refused<F>>
    where
        F: FnOnce(&TaskContext) -> R + Send + 'static,
    {
        let (priority, limits, header) = part(options, false);
        let cell = Arc::new(Cell::new(header, work));
        match shared.submit(&lane, priority, limits, Arc::clone(&cell)) {
            Ok(Accepted { seq, ahead }) => Ok(Self {
                lane,
                cell: Some(cell),
                seq,
                ahead,
            }),
            Err((reason, second)) => {
                drop(second);
                let cell = Arc::into_inner(cell).expect("because a refused task was never shared");
                let task = cell.into_work().expect("because a refused task never ran");
                Err(Refused { reason, task })
            }
        }
    }
}

/// Submits without a handle: no place for the result, one reference less to count, nothing to drop.
pub(crate) fn submit_detached<R, F>(
    shared: &Arc<Shared>,
    lane: &Arc<LaneCell>,
    options: SubmitOptions,
    work: F,
) -> Result<TaskId, Refused<F>>
where
    F: FnOnce(&TaskContext) -> R + Send + 'static,
    R: Send + 'static,
{
    let (priority, limits, header) = part(options, false);
    let errand = Arc::new(Errand::new(header, work));
    match shared.submit(lane, priority, limits, errand) {
        Ok(Accepted { seq, .. }) => Ok(TaskId {
            lane: lane.number,
            seq,
        }),
        Err((reason, errand)) => {
            let errand = Arc::into_inner(errand).expect("because a refused task was never shared");
            let task = errand
                .into_work()
                .expect("because a refused task never ran");
            Err(Refused { reason, task })
        }
    }
}

impl<R> TaskHandle<R> {
    /// Returns the task's name.
    #[must_use]
    pub fn id(&self) -> TaskId {
        TaskId {
            lane: self.lane.number,
            seq: self.seq,
        }
    }

    fn cell(&self) -> &dyn Awaited<R> {
        self.cell.as_deref().expect("because only drop takes it")
    }

    /// Returns the lane's name.
    #[must_use]
    pub fn lane(&self) -> &str {
        &self.lane.name
    }

    /// Returns how many tasks of the lane were waiting or running when this one arrived.
    #[must_use]
    pub fn ahead(&self) -> usize {
        self.ahead
    }

    /// Returns whether the result, or the error, is there.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.cell().is_done()
    }

    /// Removes the task if it waits, or tells it to stop if it runs.
    #[expect(clippy::must_use_candidate, reason = "it is called for its effect")]
    pub fn cancel(&self) -> Cancelled {
        self.lane.cancel(self.seq)
    }

    /// Waits for the result.
    ///
    /// A running task is bounded by its lane's stall ceiling; a waiting one only by its `queue_limit`. A
    /// task that waits for another should do so by [`TaskContext::wait_for`], which does not look like a stall.
    ///
    /// # Errors
    ///
    /// Returns why there is no result; `WouldDeadlock` if this thread occupies the lane's only slot.
    pub fn wait(self) -> Result<R, TaskError> {
        if self.would_deadlock() {
            return Err(TaskError::WouldDeadlock {
                lane: Arc::clone(&self.lane.name),
            });
        }
        self.cell().wait()
    }

    /// Waits for the result until a deadline.
    ///
    /// # Errors
    ///
    /// Returns [`StillPending`] with the handle in it if the deadline passed first.
    pub fn wait_until(self, deadline: Instant) -> Result<Result<R, TaskError>, StillPending<R>> {
        let since = clock::now();
        let answer = self.cell().wait_until(deadline);
        answer.ok_or_else(|| StillPending {
            waited: clock::now().saturating_duration_since(since),
            handle: self,
        })
    }

    fn would_deadlock(&self) -> bool {
        if current_lane() != Some(self.lane.number) || self.cell().is_done() {
            return false;
        }
        self.lane.lock().core.width() <= 1
    }
}

impl<R> Drop for TaskHandle<R> {
    fn drop(&mut self) {
        self.cell().detach();
        // This may be the last to know a result whose Drop panics.
        discard(self.cell.take());
    }
}

/// The deadline of a wait passed before the task ended. The task goes on.
pub struct StillPending<R> {
    /// The handle, to wait again or to cancel.
    pub handle: TaskHandle<R>,
    /// Measured time of this wait.
    pub waited: Duration,
}

impl<R> fmt::Debug for StillPending<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StillPending")
            .field("handle", &self.handle)
            .field("waited", &self.waited)
            .finish()
    }
}

impl<R> fmt::Display for StillPending<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "waited {:.1?} for task {} in lane `{}`",
            self.waited,
            self.handle.id(),
            self.handle.lane()
        )
    }
}

impl<R> Error for StillPending<R> {}
