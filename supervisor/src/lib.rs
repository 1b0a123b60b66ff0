#![doc = include_str!("../README.md")]

mod account;
mod event;
mod machine;
mod moment;
mod policy;
mod snapshot;
mod state;

#[cfg(target_os = "linux")]
pub mod clock;
#[cfg(target_os = "linux")]
mod driver;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
pub mod tree;

#[cfg(target_os = "linux")]
pub use driver::{
    Adopted, Completion, CompletionError, Cooperation, Down, Driver, Ended, Foreground, Handle,
    Host, Ladder, Outcome, Prepared, QueryError, Restart, Rung, Shutdown, StartError, UnitId,
    UnitReport,
};
pub use event::{
    Account, Action, Disposition, Epoch, Event, Generation, Holder, Notice, ParkReason,
    SpawnFailure, StartReason, Step, UnparkedBy,
};
pub use machine::Machine;
pub use moment::Moment;
pub use policy::{Policy, PolicyError, ValidPolicy};
pub use snapshot::{RestoreError, Snapshot, Stamp};
pub use state::{
    AfterStop, ContentionFacts, CrashFacts, Explanation, Mover, State, StopReason, WindowFacts,
};
