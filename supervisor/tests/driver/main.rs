//! The driver with real processes.
#![cfg(target_os = "linux")]

mod common;
mod hostile;
mod ordinary;
