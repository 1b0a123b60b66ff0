//! What endings mean, and what memory figures say: one program, so that the helpers are compiled and used once.
#![cfg(unix)]

// The attributes tell the linter that these helpers are test code, in which `unwrap` is allowed.
#[cfg(test)]
mod common;
mod labels;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod out_of_memory;
#[cfg(test)]
mod real_endings;
mod rules;
mod sentences;
#[cfg(feature = "serde")]
mod serde;
#[cfg(test)]
mod walk;
