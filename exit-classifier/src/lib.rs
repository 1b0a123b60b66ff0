#![doc = include_str!("../README.md")]

mod ending;
pub mod errno;
mod label;
pub mod memory;
mod observation;
mod rule;
mod ruleset;
pub mod signal;
mod standard;
mod stderr;
mod verdict;

pub use ending::Ending;
pub use label::UnknownLabel;
pub use observation::{Asked, LockHolder, Observation};
pub use rule::{Condition, Rule, RuleError};
pub use ruleset::RuleSet;
pub use verdict::{Cause, Class, Counts, Verdict};
