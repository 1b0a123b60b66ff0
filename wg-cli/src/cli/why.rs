//! `wg why`: the state of a chat, what led to it, what comes next and what helps.

use super::args::Why;
use super::context::Context;
use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::Outcome;
use crate::names::ChatState;
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
    let retired = if explanations.is_empty() {
        Retired::count(&workspace)?
    } else {
        Retired::default()
    };
    let now = clock::now();
    cx.report.answer(&explanations, || {
        if explanations.is_empty() {
            return format!("nothing needs an explanation: {}", retired.words());
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

/// How many chats nobody asks about, because a person retired them.
#[derive(Debug, Default)]
struct Retired {
    chats: usize,
    of: usize,
}

impl Retired {
    fn count(workspace: &Workspace) -> Outcome<Self> {
        let rows = ops::list_chats(workspace, true)?;
        let retired =
            |row: &&ops::ChatRow| matches!(row.state, ChatState::Archived | ChatState::Purged);
        Ok(Self {
            chats: rows.iter().filter(retired).count(),
            of: rows.len(),
        })
    }

    /// What the chats do that nothing has to be said about.
    fn words(&self) -> String {
        let Self { chats, of } = self;
        let how = "(wg chat list --all; wg chat restore REF brings one back)";
        match *chats {
            0 if *of == 0 => "there are no chats (wg chat new)".to_owned(),
            0 => "every chat is running or idle".to_owned(),
            1 if *of == 1 => format!("the only chat is archived or purged {how}"),
            all if all == *of => format!("all {all} chats are archived or purged {how}"),
            some => {
                format!("every chat is running or idle, but for {some} archived or purged {how}")
            }
        }
    }
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
