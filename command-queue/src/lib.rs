#![doc = include_str!("../README.md")]

mod config;
mod core;
mod driver;
mod error;
mod event;
mod id;
mod snapshot;

pub use crate::config::{
    Capacity, DEFAULT_HOLDER_WAIT, DEFAULT_STALL_CEILING, IdleLimit, LaneConfig, Limit, Overrun,
    Priority, Probe, QueueConfig, SubmitOptions,
};
pub use crate::core::{Claim, Decision, Outcome, Queue};
pub use crate::driver::context::{NestedError, TaskContext};
pub use crate::driver::handle::{StillPending, TaskHandle};
pub use crate::driver::queue::{CommandQueue, Drained, LaneHandle, NotDrained, StartError};
pub use crate::driver::slot::{Cancelled, Reservation, Slot, SlotNotice, TaskTicket};
pub use crate::error::{Close, ConfigError, LeaseLost, Refused, SubmitError, TaskError, Timeout};
pub use crate::event::Event;
pub use crate::id::{Lease, TaskId, Ticket};
pub use crate::snapshot::{
    BlockedBy, GroupSnapshot, LaneSnapshot, QueueSnapshot, ResetReport, TaskSnapshot, Totals,
};
