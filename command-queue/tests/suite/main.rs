//! One program for all tests of this crate, so that it is linked once.

mod basics;
mod closing;
mod common;
mod core;
mod driver;
mod hostile;
mod incident;
mod model;
mod order;
mod slot;
mod world;
