//! The built `wg`, end to end: each test in a world of its own, and nothing left running at its end.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed, and says where"
)]

mod daemon;
mod damaged;
mod doctor;
mod earlier_failures;
mod endings;
mod endurance;
mod errors;
mod exempt;
mod front_door;
mod full_disk;
mod golden;
mod graph;
mod groups;
mod handover;
mod held_files;
mod history;
mod hostile_ipc;
mod incident_one;
mod interop;
mod json;
mod lanes;
mod leave_children;
mod left_files;
mod lock;
mod lock_signals;
mod memory;
mod older;
mod process;
mod purge;
mod purge_others;
mod real_agents;
mod references;
mod run;
mod run_policy;
mod run_terminal;
mod run_words;
mod service_manager;
mod session_check;
mod standstill;
mod states;
mod succession;
mod surroundings;
mod terminal;
mod tree;
mod truth;
mod tui_driven;
mod verbs;
mod waking;
mod world;
