//! `wg why`: the state of a chat, what led to it, what comes next and what helps.

use super::args::Why;
use super::context::Context;
use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::Outcome;
use crate::ops;
use crate::store::graph::ChatId;
use crate::store::workspace::Workspace;
use crate::why::{self, Explanation};

pub(super) fn run(cx: &Context<'_>, args: &Why) -> Outcome {
    let workspace = cx.workspace()?;
    let explanations = match args.chat.as_deref() {
        Some(reference) => one(cx, &workspace, reference)?,
        None => why::explain(&workspace, None)?,
    };
    let now = clock::now();
    cx.report.answer(&explanations, || {
        if explanations.is_empty() {
            return "nothing needs an explanation: every chat is running or idle".to_owned();
        }
        let width = crate::columns::available();
        let texts: Vec<String> = explanations
            .iter()
            .map(|one| one.to_text_within(width, now))
            .collect();
        texts.join("\n")
    })?;
    Ok(ExitCode::Ok)
}

/// Explains the chat that is meant. One that cannot be found in the graph, by its number, may be known to the service all the same: then it
/// is the graph that is at fault, and that is told.
fn one(cx: &Context<'_>, workspace: &Workspace, reference: &str) -> Outcome<Vec<Explanation>> {
    match cx.chat(workspace, reference) {
        Ok(chat) => why::explain(workspace, Some(chat)),
        Err(failure) => {
            let known = ChatId::from_any_form(reference)
                .and_then(|chat| ops::explain_by_service(workspace, chat).ok().flatten());
            known.map(|known| vec![known]).ok_or(failure)
        }
    }
}
