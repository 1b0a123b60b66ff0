#![doc = include_str!("../README.md")]

pub mod agent;
pub mod clock;
pub mod exit_code;
pub mod failure;
pub mod names;
pub mod store;
