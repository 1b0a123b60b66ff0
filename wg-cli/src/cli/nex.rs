//! `wg nex` and `wg spawn-task`: the handler itself.

use super::args::{Nex, SpawnTask};
use super::context::Context;
use super::not_built;
use crate::failure::Outcome;

pub(super) fn run(_cx: &Context<'_>, _args: Nex) -> Outcome {
    Err(not_built(
        "wg nex",
        "nothing serves a chat until the handler is part of this build",
    ))
}

pub(super) fn spawn_task(_cx: &Context<'_>, _args: &SpawnTask) -> Outcome {
    Err(not_built(
        "wg spawn-task",
        "nothing serves a chat until the handler is part of this build",
    ))
}
