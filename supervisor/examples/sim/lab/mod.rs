//! Processes and time, simulated: a machine, the world that it lives in, and rules
//! that must hold after everything that happens.

mod computer;
mod dice;
pub(crate) mod faults;
pub(crate) mod names;
pub(crate) mod rules;
pub(crate) mod world;
