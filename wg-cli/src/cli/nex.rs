//! `wg nex` and `wg spawn-task`: the handler itself.

use serde::Serialize;

use super::args::{Nex, SpawnTask};
use super::context::Context;
use crate::control_group;
use crate::exit_code::ExitCode;
use crate::failure::Outcome;
use crate::handler::nex::NexOptions;
use crate::handler::{nex, no_fault_of_the_settings, spawn_task};
use crate::store::resolve;

pub(super) fn run(cx: &Context<'_>, args: Nex) -> Outcome {
    let workspace = cx.workspace()?;
    let chat = args
        .chat
        .as_deref()
        .map(|reference| resolve::chat_of(&workspace, reference))
        .transpose()
        .map_err(no_fault_of_the_settings)?;
    nex::run(NexOptions {
        workspace,
        chat,
        autonomous: args.autonomous,
        eval_mode: args.eval_mode,
        message: args.message,
        agent: args.agent,
    })
}

/// The command line that a task's handler would be, for `--json`.
#[derive(Debug, Serialize)]
struct Planned {
    chat_id: u32,
    task_id: String,
    argv: Vec<String>,
}

pub(super) fn spawn_task(cx: &Context<'_>, args: &SpawnTask) -> Outcome {
    if !args.dry_run {
        control_group::enter(std::env::var_os(control_group::VARIABLE).as_deref());
    }
    let workspace = cx.workspace()?;
    let command = spawn_task::command(&workspace, &args.id).map_err(no_fault_of_the_settings)?;
    if !args.dry_run {
        workspace.check_owner()?;
        return Err(command.exec());
    }
    let planned = Planned {
        chat_id: command.chat.0,
        task_id: command.chat.task_id(),
        argv: command.argv(),
    };
    cx.report.answer(&planned, || command.to_text())?;
    Ok(ExitCode::Ok)
}
