//! The lock on real directories, between real processes.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test panics where it is wrong, and gives real deadlines"
)]

mod cases;
mod crashes;
mod directories;
mod environment;
mod handover;
mod holding;
mod parts;
mod planted;
mod processes;
mod support;
mod sys;
mod torture;
mod trace;

/// Not a test: where this program is started by a test, it plays its part here.
#[test]
fn part() {
    support::play(parts::play);
}
