//! The built `wg`, end to end: each test in a world of its own, and nothing left running at its end.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed, and says where"
)]

mod endings;
mod endurance;
mod errors;
mod front_door;
mod golden;
mod history;
mod incident_one;
mod json;
mod lanes;
mod lock;
mod memory;
mod process;
mod purge;
mod real_agents;
mod run;
mod states;
mod verbs;
mod waking;
mod world;
