//! `wg why`: the state of a chat, what led to it, what comes next and what helps.

use super::args::Why;
use super::context::Context;
use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::Outcome;
use crate::why;

pub(super) fn run(cx: &Context<'_>, args: &Why) -> Outcome {
    let workspace = cx.workspace()?;
    let chat = args
        .chat
        .as_deref()
        .map(|reference| cx.chat(&workspace, reference))
        .transpose()?;
    let explanations = why::explain(&workspace, chat)?;
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
