//! What a running task knows about itself.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::handle::TaskHandle;
use super::lane::LaneCell;
use super::slot::TaskTicket;
use super::task::TaskRef;
use crate::config::{DEFAULT_HOLDER_WAIT, Limit, SubmitOptions};
use crate::error::{Close, SubmitError, TaskError};
use crate::id::TaskId;

/// Handed to every task: progress, cancellation, and a way to wait for another lane.
pub struct TaskContext {
    pub(crate) lane: Arc<LaneCell>,
    pub(crate) task: TaskRef,
    pub(crate) seq: u64,
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext")
            .field("id", &self.id())
            .field("lane", &self.lane.name)
            .finish_non_exhaustive()
    }
}

impl TaskContext {
    /// Returns this task's name.
    #[must_use]
    pub fn id(&self) -> TaskId {
        TaskId {
            lane: self.lane.number,
            seq: self.seq,
        }
    }

    /// Returns the lane's name.
    #[must_use]
    pub fn lane(&self) -> &str {
        &self.lane.name
    }

    pub(crate) fn lane_name(&self) -> Arc<str> {
        Arc::clone(&self.lane.name)
    }

    /// Reports progress. Costs a look at the clock and one store.
    pub fn progress(&self) {
        self.task.header().progress();
    }

    /// Returns whether this task was told to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.task.header().is_cancelled()
    }

    /// Waits until this task is told to stop. Returns whether it was.
    #[must_use]
    pub fn wait_cancelled(&self, deadline: Instant) -> bool {
        self.task.wait_cancelled(deadline)
    }

    /// Counts this task as failed when it returns, whatever it returns.
    pub fn mark_failed(&self) {
        self.task.header().mark_failed();
    }

    /// Returns the right to report progress from another thread.
    #[must_use]
    pub fn ticket(&self) -> TaskTicket {
        TaskTicket {
            task: Arc::clone(&self.task),
        }
    }

    /// Runs work in another lane and waits for it. The wait is not a stall of this task.
    ///
    /// Unless the options say otherwise, the work waits at most [`DEFAULT_HOLDER_WAIT`] for its turn; once it
    /// runs, its own limits bound it.
    ///
    /// # Errors
    ///
    /// Returns [`NestedError::Submit`] if the work was refused, with `WouldDeadlock` if this task occupies
    /// the only slot of that lane, and [`NestedError::Task`] if it was accepted and has no result.
    pub fn submit_and_wait<R, F>(
        &self,
        lane: &str,
        mut options: SubmitOptions,
        work: F,
    ) -> Result<R, NestedError>
    where
        F: FnOnce(&TaskContext) -> R + Send + 'static,
        R: Send + 'static,
    {
        if options.queue_limit == Limit::Never {
            options.queue_limit = Limit::After(DEFAULT_HOLDER_WAIT);
        }
        let Some(shared) = self.lane.home() else {
            return Err(NestedError::Submit(SubmitError::Closed {
                reason: Close::Now,
            }));
        };
        let target = shared.lanes.find_or_make(lane);
        if Arc::ptr_eq(&target, &self.lane) && target.lock().core.width() <= 1 {
            return Err(NestedError::Submit(SubmitError::WouldDeadlock {
                lane: self.lane_name(),
            }));
        }
        let handle = TaskHandle::submit(&shared, target, options, work)
            .map_err(|refused| NestedError::Submit(refused.reason))?;
        self.wait_for(handle).map_err(NestedError::Task)
    }

    /// Waits for work that was submitted before. The wait is not a stall of this task.
    ///
    /// # Errors
    ///
    /// As [`TaskHandle::wait`].
    pub fn wait_for<R>(&self, handle: TaskHandle<R>) -> Result<R, TaskError> {
        let _nested = Nested::begin(&self.task);
        handle.wait()
    }
}

/// Why nested work has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NestedError {
    /// It was not accepted.
    Submit(SubmitError),
    /// It was accepted, and has no result.
    Task(TaskError),
}

impl fmt::Display for NestedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submit(_) => f.write_str("nested work was not accepted"),
            Self::Task(_) => f.write_str("nested work has no result"),
        }
    }
}

impl Error for NestedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Submit(cause) => Some(cause),
            Self::Task(cause) => Some(cause),
        }
    }
}

thread_local! {
    /// The number of the lane whose task this thread runs, and nothing while it runs none.
    static CURRENT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Remembers which lane this thread works for, so that waiting for that lane can be refused.
pub(crate) fn set_current_lane(lane: Option<u64>) {
    CURRENT.set(lane);
}

pub(crate) fn current_lane() -> Option<u64> {
    CURRENT.get()
}

/// Keeps a task from looking stalled while it waits for others.
struct Nested<'a>(&'a TaskRef);

impl<'a> Nested<'a> {
    fn begin(task: &'a TaskRef) -> Self {
        task.header().begin_nested();
        Self(task)
    }
}

impl Drop for Nested<'_> {
    fn drop(&mut self) {
        self.0.header().end_nested();
    }
}
