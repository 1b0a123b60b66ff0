//! The process that serves a chat: `wg nex`, and `wg spawn-task`, which becomes it.
//!
//! | module | thought |
//! |---|---|
//! | `core` | what to do next, without I/O |
//! | `ladder` | when and how a running turn is ended, without I/O |
//! | `serve`, `drive`, `answering` | the driver for a chat: its life, its loop, one message |
//! | `private`, `prompt`, `lines` | the driver without a chat; a person at a terminal |
//! | `admission`, `gate`, `directory` | what a turn waits for: the daemon's leave, its directory |
//! | `turn`, `command`, `running` | one agent for one message |
//! | `verdict`, `wording` | what an ending means, and what a person reads then |
//! | `claim`, `settings` | how the session lock and the settings are come by |
//! | `exit_note` | what is on disk beside the messages |
//! | `tree`, `exempt`, `process`, `mark`, `environment`, `ears`, `output` | processes, signals and bytes |

mod admission;
mod answering;
mod claim;
mod command;
pub mod core;
pub mod directory;
mod drive;
mod ears;
pub mod environment;
mod evaluation;
mod exempt;
mod exit_note;
mod gate;
pub mod ladder;
mod lines;
pub mod mark;
pub mod nex;
pub mod output;
mod private;
mod process;
mod prompt;
mod running;
mod serve;
mod settings;
pub mod spawn_task;
pub(crate) mod tree;
mod turn;
pub mod verdict;
mod waking;
mod wording;

use crate::exit_code::ExitCode;
use crate::failure::Failure;

/// A graph that cannot be read keeps a handler from its work for now: other tools write it, and no change of the settings mends it, so the
/// codes that park a chat are not for it.
pub(crate) fn no_fault_of_the_settings(mut failure: Failure) -> Failure {
    if let ExitCode::Config | ExitCode::NotPermitted = failure.code {
        failure.code = ExitCode::System;
    }
    failure
}
