//! `wg service set-executor`: another agent or model for a chat.

use serde_json::Value;

use crate::cli::args::service::SetExecutor;
use crate::cli::context::Context;
use crate::daemon::local;
use crate::exit_code::ExitCode;
use crate::failure::Outcome;
use crate::ipc::{Client, ConnectError, Request};

pub(in crate::cli) fn run(cx: &Context<'_>, args: &SetExecutor) -> Outcome {
    let (workspace, chat) = cx.own_workspace_and_chat(&args.chat)?;
    let request = Request::SetChatExecutor {
        chat_id: chat.0,
        executor: args.executor.clone(),
        model: args.model.clone(),
    };
    // A service that runs has to hear of it; without one the graph is all there is.
    let change = match Client::connect(&workspace) {
        Ok(mut client) => Value::Object(client.call(&request)?),
        Err(ConnectError::NotRunning) => {
            let change = local::set_executor(
                &workspace,
                chat,
                args.executor.as_deref(),
                args.model.as_deref(),
            )?;
            serde_json::to_value(change).unwrap_or_default()
        }
        Err(error) => return Err(error.into()),
    };
    cx.report.done(&change, || {
        change
            .get("text")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    })?;
    Ok(ExitCode::Ok)
}
