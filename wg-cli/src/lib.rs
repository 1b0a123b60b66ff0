#![doc = include_str!("../README.md")]

pub mod agent;
pub mod chat;
pub mod cli;
pub mod clock;
mod columns;
mod control_group;
pub mod daemon;
pub mod dir_registry;
mod ears;
pub mod exit_code;
pub mod failure;
pub mod foreground;
pub mod handler;
pub mod ipc;
mod lock_holders;
pub mod locked_run;
pub mod names;
pub mod notices;
pub mod ops;
pub mod patience;
pub mod presence;
pub mod process_signal;
pub mod process_start;
pub mod report;
#[cfg(feature = "sim")]
pub mod sim;
mod spelling;
pub mod standstill;
pub mod store;
mod strays;
mod sys;
mod unstartable;
pub mod why;
pub mod wire;

use std::path::PathBuf;

/// The program that runs now, to start itself again: a name that also holds after an upgrade has replaced the file.
#[must_use]
pub fn self_exe() -> PathBuf {
    if cfg!(target_os = "linux") {
        PathBuf::from("/proc/self/exe")
    } else {
        std::env::current_exe().unwrap_or_else(|_| PathBuf::from("wg"))
    }
}
