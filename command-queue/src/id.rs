//! Names of tasks.

use std::fmt;

/// The name of one task, unique for the life of the queue.
///
/// It is made of the number of its lane and its place in that lane's order of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    pub(crate) lane: u64,
    pub(crate) seq: u64,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.lane, self.seq)
    }
}

/// The right to end a running task, once. The worker has it.
///
/// It is not `Clone`. A lease of a task that was reclaimed in the meantime ends nothing.
#[derive(Debug)]
#[must_use = "a lease that is dropped leaves its slot taken until the stall ceiling passes"]
pub struct Lease {
    pub(crate) id: TaskId,
    pub(crate) index: u32,
}

impl Lease {
    /// Returns the right to report progress for this task.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket {
            id: self.id,
            index: self.index,
        }
    }

    /// Returns the task's name.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.id
    }
}

/// The right to report progress for a running task. Anyone may have it; it cannot end the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(crate) id: TaskId,
    pub(crate) index: u32,
}

impl Ticket {
    /// Returns the task's name.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.id
    }
}
