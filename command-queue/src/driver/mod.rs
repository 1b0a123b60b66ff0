//! Threads, locks and the clock. What is decided, the core decides.

pub(crate) mod clock;
pub(crate) mod context;
mod crew;
pub(crate) mod directory;
mod effects;
#[cfg(all(test, shuttle))]
mod explored;
pub(crate) mod group;
pub(crate) mod handle;
mod hash;
pub(crate) mod lane;
mod mailbox;
pub(crate) mod notify;
pub(crate) mod pool;
pub(crate) mod queue;
pub(crate) mod shared;
pub(crate) mod slot;
mod sync;
pub(crate) mod task;
pub(crate) mod watchdog;
mod worker;
