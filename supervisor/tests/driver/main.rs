//! The driver with real processes.
#![cfg(target_os = "linux")]

mod common;
mod foreground;
mod hostile;
mod ordinary;
mod trees;
