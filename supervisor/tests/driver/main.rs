//! The driver with real processes.
#![cfg(target_os = "linux")]

mod chaos;
mod common;
mod dark;
mod foreground;
mod groups;
mod hostile;
mod ordinary;
mod pinned;
mod successor;
mod trees;
