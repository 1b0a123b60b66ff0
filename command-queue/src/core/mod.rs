//! The rules, without lock, clock or thread. The driver does what they say and decides nothing.

pub(crate) mod active;
pub(crate) mod fifo;
pub(crate) mod lane;
pub(crate) mod phantom;
mod queue;
mod slab;
pub(crate) mod step;
mod throttle;

pub use lane::Outcome;
pub use queue::{Claim, Decision, Queue};
