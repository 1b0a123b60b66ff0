//! Threads, locks and the clock. What is decided, the core decides.

pub(crate) mod clock;
pub(crate) mod context;
pub(crate) mod directory;
mod effects;
pub(crate) mod group;
pub(crate) mod handle;
mod hash;
pub(crate) mod lane;
pub(crate) mod notify;
pub(crate) mod pool;
pub(crate) mod queue;
pub(crate) mod shared;
pub(crate) mod slot;
pub(crate) mod task;
pub(crate) mod watchdog;
mod worker;
