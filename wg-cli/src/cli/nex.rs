//! `wg nex` and `wg spawn-task`: the handler itself.

use super::args::{Nex, SpawnTask};
use super::context::Context;
use crate::failure::Outcome;
use crate::handler::nex::NexOptions;
use crate::handler::{nex, spawn_task};

pub(super) fn run(cx: &Context<'_>, args: Nex) -> Outcome {
    let workspace = cx.workspace()?;
    let chat = args
        .chat
        .as_deref()
        .map(|reference| cx.chat(&workspace, reference))
        .transpose()?;
    nex::run(NexOptions {
        workspace,
        chat,
        autonomous: args.autonomous,
        eval_mode: args.eval_mode,
        message: args.message,
        agent: args.agent,
    })
}

pub(super) fn spawn_task(cx: &Context<'_>, args: &SpawnTask) -> Outcome {
    spawn_task::run(&cx.workspace()?, &args.id, args.dry_run)
}
