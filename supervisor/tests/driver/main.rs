//! The driver with real processes.
#![cfg(target_os = "linux")]

#[expect(dead_code, reason = "the tests of hostile children come next")]
mod common;
mod ordinary;
