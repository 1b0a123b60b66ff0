//! The handler as others see it: the `wg` binary, its files, its processes.

mod life;
mod turns;
mod world;
