//! `wg service set-executor`: another agent or model for a chat.

use crate::cli::args::service::SetExecutor;
use crate::cli::context::Context;
use crate::exit_code::ExitCode;
use crate::failure::Outcome;
use crate::ops;

pub(in crate::cli) fn run(cx: &Context<'_>, args: &SetExecutor) -> Outcome {
    let (workspace, chat) = cx.own_workspace_and_chat(&args.chat)?;
    let (agent, model) = (args.executor.as_deref(), args.model.as_deref());
    let change = ops::set_executor(&workspace, chat, agent, model)?;
    cx.report.done(&change, || change.text.clone())?;
    Ok(ExitCode::Ok)
}
