//! The handler as others see it: the `wg` binary, its files, its processes.

mod gate;
mod life;
mod terminal;
mod turns;
mod world;
