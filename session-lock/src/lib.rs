#![doc = include_str!("../README.md")]

mod attempt;
mod claim;
mod dir_lock;
mod draft;
mod error;
mod files;
mod filesystem;
mod holder;
mod identity;
mod inherit;
mod inspect;
mod judge;
mod kind;
mod lend;
mod lock;
mod marker;
mod notify;
mod occupants;
mod options;
mod probe;
mod process_facts;
pub mod protocol;
mod readable;
pub mod record;
mod registry;
mod sys;
mod takeover;
mod time;
mod wait;
mod watch;

pub use dir_lock::{
    DirLock, DirLockError, DirLockOptions, DirStatus, Listing, Note, Overlap, Relation, Unreadable,
    UnusableNote,
};
pub use error::{
    AcquireError, HeldReason, InspectError, Node, ReleaseError, RequestError, WatchError,
};
pub use holder::Holder;
pub use identity::ProcessIdentity;
pub use inspect::{Held, Inspection, inspect};
pub use judge::{Claimant, Facts, Liveness, Probe, Surroundings, judge};
pub use kind::Kind;
pub use lock::{Released, SessionLock, Standing, VerifyError};
pub use marker::{ReleaseRequest, ReleaseWatch, request_release};
pub use occupants::{Occupant, occupants};
pub use options::{LockOptions, Wait};
pub use probe::SystemProbe;
pub use process_facts::ProcessFacts;
pub use takeover::{
    RefusedBecause, TakenOver, TakeoverError, TakeoverPolicy, Unproven, check_takeover, takeover,
};
pub use wait::{Freed, WaitError, wait_free};
pub use watch::{PidWatch, watch};
