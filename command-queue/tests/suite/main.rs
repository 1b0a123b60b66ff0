//! One program for all tests of this crate, so that it is linked once.

mod basics;
mod common;
mod core;
mod driver;
mod incident;
mod model;
mod slot;
