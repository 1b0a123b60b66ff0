//! What a running task knows about itself.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::handle::TaskHandle;
use super::lane::LaneCell;
use super::shared::Shared;
use super::slot::TaskTicket;
use super::task::TaskRef;
use crate::config::{DEFAULT_HOLDER_WAIT, Limit, SubmitOptions};
use crate::error::{SubmitError, TaskError};
use crate::id::TaskId;

/// Handed to every task: progress, cancellation, and a way to wait for another lane.
pub struct TaskContext {
    pub(crate) shared: Arc<Shared>,
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
        self.task.header().wait_cancelled(deadline)
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
        let target = self.shared.lanes.find_or_make(lane);
        if Arc::ptr_eq(&target, &self.lane) && target.state.lock().core.width() <= 1 {
            return Err(NestedError::Submit(SubmitError::WouldDeadlock {
                lane: self.lane_name(),
            }));
        }
        let handle = TaskHandle::submit(&self.shared, target, options, work)
            .map_err(|refused| NestedError::Submit(refused.reason))?;
        handle.wait().map_err(NestedError::Task)
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

/// The task that this thread runs.
pub(crate) struct Current {
    pub(crate) lane: u64,
    pub(crate) task: TaskRef,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// Remembers which task this thread runs, until the value is dropped.
pub(crate) struct Entered;

impl Entered {
    pub(crate) fn new(lane: u64, task: TaskRef) -> Self {
        CURRENT.set(Some(Current { lane, task }));
        Self
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        drop(CURRENT.take());
    }
}

/// Returns the lane and the task that this thread runs, if it runs one.
pub(crate) fn current() -> Option<(u64, TaskRef)> {
    CURRENT.with_borrow(|current| {
        current
            .as_ref()
            .map(|current| (current.lane, Arc::clone(&current.task)))
    })
}

/// Keeps the task of this thread from looking stalled while it waits for others.
pub(crate) struct Nested(Option<TaskRef>);

impl Nested {
    pub(crate) fn begin() -> Self {
        let task = current().map(|(_, task)| task);
        if let Some(task) = &task {
            task.header().begin_nested();
        }
        Self(task)
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.header().end_nested();
        }
    }
}
