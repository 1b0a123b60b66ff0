//! Saying something to a chat and waiting for what it says: shared by `up`, `chat MESSAGE` and `chat attach`.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::context::Context;
use super::wait::{self, ReplyWatch};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::ops::{self, SendOptions};
use crate::patience::Patience;
use crate::presence::Presence;
use crate::store::attempt;
use crate::store::files;
use crate::store::graph::ChatId;
use crate::store::messages::{Durability, Message, Role};
use crate::store::workspace::Workspace;

/// One question and its answer, for `--json`.
#[derive(Debug, Serialize)]
struct Exchange<'a> {
    chat_id: u32,
    task_id: String,
    inbox_id: u64,
    request_id: &'a str,
    ok: bool,
    reply: Map<String, Value>,
}

/// How exchanges are printed under `--json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exchanges {
    /// There is one, and it is the document.
    One,
    /// There may be several: a document a line.
    Lines,
}

/// Sends `text` and waits for the reply: it goes to stdout, a failed turn to stderr.
///
/// Returns [`ExitCode::Ok`] for a reply, and for a failed turn the code that tells what kind of failure it was.
pub(super) fn ask(
    cx: &Context<'_>,
    workspace: &Workspace,
    chat: ChatId,
    text: &str,
    patience: Patience,
    exchanges: Exchanges,
) -> Outcome {
    let patience = patience.begun();
    let in_time = |failure| too_late(&chat.to_string(), patience, failure);
    let options = SendOptions {
        request_id: None,
        durability: Durability::Sync,
        user: None,
        patience,
    };
    let mut watch = ReplyWatch::begin(cx, workspace, chat, patience).map_err(in_time)?;
    let sent = ops::send(workspace, chat, text, options).map_err(in_time)?;
    wait::refuse_to_wait_for_nothing(workspace, chat, sent.state)?;
    if let Some(note) = &sent.note {
        cx.report.note(note);
    }
    // Somebody waits here: that keeps a handler from leaving as idle between two messages.
    let presence =
        Presence::announce(workspace, chat, "a waiting message", patience).map_err(in_time)?;
    let mut screen = Stream::new(cx);
    let reply = watch.reply(&sent, patience, &mut screen)?;
    drop(presence);
    let failed = reply.role == Role::SystemError;
    if cx.report.is_json() {
        let exchange = Exchange {
            chat_id: chat.0,
            task_id: chat.task_id(),
            inbox_id: sent.inbox_id,
            request_id: &sent.request_id,
            ok: !failed,
            reply: fields(&reply)?,
        };
        match exchanges {
            Exchanges::One => cx.report.answer(&exchange, String::new)?,
            Exchanges::Lines => cx.report.json_line(&exchange)?,
        }
    } else if !failed {
        screen.finish(&reply.content)?;
    } else {
        screen.give_up()?;
        if let Some((_, details)) = reply.content.split_once('\n') {
            cx.report.aside(details);
        }
    }
    if failed {
        Err(failed_turn(chat, &reply, watch.is_parked_by(&reply)?))
    } else {
        Ok(ExitCode::Ok)
    }
}

/// Who has no time left is told so, and what took it.
pub(super) fn too_late(whom: &str, patience: Patience, failure: Failure) -> Failure {
    if patience.is_over() && matches!(failure.code, ExitCode::Held | ExitCode::Unavailable) {
        Failure::new(
            ExitCode::TimedOut,
            format!("{whom} could not be asked in time"),
        )
        .caused_by(failure)
    } else {
        failure
    }
}

/// The first line of a reply that is none, as the sentence of this verb, and the code that tells a script what kind of failure it was.
fn failed_turn(chat: ChatId, reply: &Message, parked: bool) -> Failure {
    let first = reply
        .content
        .lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches('.');
    let code = if parked {
        ExitCode::Config
    } else {
        ExitCode::Failed
    };
    let retry = reply
        .in_reply_to
        .map(|id| format!(" {id}"))
        .unwrap_or_default();
    let cure = if parked {
        format!("wg why {chat}")
    } else {
        format!("wg chat retry {chat}{retry}")
    };
    Failure::new(code, format!("{chat}: {first}")).with_cure(cure)
}

/// A message as it stands in its file.
///
/// # Errors
///
/// None that can be caused from outside.
pub(super) fn fields(message: &Message) -> Outcome<Map<String, Value>> {
    serde_json::from_slice(&message.format()).map_err(|error| {
        Failure::new(ExitCode::Bug, "a message is not written as an object").caused_by(error)
    })
}

/// The reply in the making, without half a character at its end, which is whole at the next look.
pub(super) fn streamed(session: &Path) -> Option<String> {
    let bytes = files::read(&session.join(".streaming")).ok().flatten()?;
    Some(
        String::from_utf8_lossy(&bytes)
            .trim_end_matches('\u{fffd}')
            .to_owned(),
    )
}

/// A reply that appears while it is made, on a terminal; elsewhere it is printed once, whole.
#[derive(Debug)]
pub(super) struct Stream<'a> {
    cx: &'a Context<'a>,
    live: bool,
    /// The reply in the making, as far as it is on the screen.
    shown: String,
    /// Whether the cursor stands behind the last of it.
    mid_line: bool,
}

impl<'a> Stream<'a> {
    pub(super) fn new(cx: &'a Context<'a>) -> Self {
        Self {
            cx,
            live: cx.report.out_is_terminal() && !cx.report.is_json(),
            shown: String::new(),
            mid_line: false,
        }
    }

    /// A stream that is shown as it comes, whatever stdout is.
    pub(super) fn live(cx: &'a Context<'a>) -> Self {
        Self {
            cx,
            live: true,
            shown: String::new(),
            mid_line: false,
        }
    }

    /// What of `so_far` is not on the screen yet; nothing where it is not the reply that was begun there.
    pub(super) fn news_of<'t>(&self, so_far: &'t str) -> Option<&'t str> {
        so_far
            .strip_prefix(self.shown.as_str())
            .filter(|news| !news.is_empty())
    }

    /// Shows what the file of the reply in the making holds beyond what is on the screen, unless it is another message's; its turn's end
    /// empties or removes it.
    pub(super) fn show_file(&mut self, session: &Path, message: u64) {
        // An earlier tool's handler does not say which turn it is.
        if attempt::read(session).is_some_and(|begun| begun.message != message) {
            return;
        }
        let Some(so_far) = streamed(session) else {
            return;
        };
        if let Some(news) = self.news_of(&so_far) {
            let news = news.to_owned();
            self.piece(&news);
        }
    }

    /// Shows the next piece.
    pub(super) fn piece(&mut self, piece: &str) {
        if self.live {
            self.shown.push_str(piece);
            self.mid_line = !piece.ends_with('\n');
            // A terminal that went away is noticed when the reply itself is printed.
            drop(self.cx.report.speech(piece));
        }
    }

    /// Shows what is missing of the whole reply and ends its line; what comes next is another reply.
    pub(super) fn finish(&mut self, whole: &str) -> Outcome<()> {
        let rest = match whole.strip_prefix(self.shown.as_str()) {
            Some(rest) => rest.to_owned(),
            None if whole.trim_end() == self.shown.trim_end() => String::new(),
            // The agent took something back (it rewrote its output): the whole reply stands below what was seen.
            None => {
                self.end_line()?;
                whole.to_owned()
            }
        };
        self.cx.report.speech(&rest)?;
        if !rest.is_empty() {
            self.mid_line = !rest.ends_with('\n');
        }
        self.give_up()
    }

    /// Ends the line of a reply that does not come; what comes next is another one.
    pub(super) fn give_up(&mut self) -> Outcome<()> {
        self.shown.clear();
        self.end_line()
    }

    /// Goes to a new line for other words; the reply goes on below them.
    pub(super) fn end_line(&mut self) -> Outcome<()> {
        if std::mem::take(&mut self.mid_line) {
            self.cx.report.speech("\n")
        } else {
            Ok(())
        }
    }
}
