//! A message on its way into a chat's inbox.

use std::time::Duration;

use super::{SendOptions, Sent, running, typed};
use crate::daemon::local;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::client::CALL_PATIENCE;
use crate::ipc::{CallError, Client, Request};
use crate::store::files::Durability;
use crate::store::graph::ChatId;
use crate::store::messages::{self, Side};
use crate::store::resolve::{self, Make};
use crate::store::workspace::Workspace;

/// Appends a message to a chat's inbox.
///
/// # Errors
///
/// The message could not be made durable; then it was not accepted.
pub fn send(
    workspace: &Workspace,
    chat: ChatId,
    text: &str,
    options: SendOptions,
) -> Result<Sent, Failure> {
    let within = options.patience.begun();
    match running(Client::connect_within(workspace, within))? {
        Some(mut client) if options.durability == Durability::Sync => {
            let left = within.at_most(CALL_PATIENCE);
            let request = Request::UserChat {
                message: text.to_owned(),
                request_id: options.request_id,
                attachments: Vec::new(),
                chat_id: chat.0,
                user: options.user,
                patience_ms: u64::try_from(left.as_millis()).ok(),
            };
            let said = client.call_within(&request, left + SAID_AFTER);
            typed(said.map_err(|error| unknown_fate(workspace, chat, error))?)
        }
        running => local::send(workspace, chat, text, &options, running.is_some()),
    }
}

/// How much later than its own time a service may say that it did not accept a message in time.
const SAID_AFTER: Duration = Duration::from_millis(250);

/// A message whose acceptance was never heard of is neither lost nor safe: saying it again may say it twice.
fn unknown_fate(workspace: &Workspace, chat: ChatId, error: CallError) -> Failure {
    let holder = || {
        let dir = resolve::session_dir(workspace, chat, Make::No).ok()?;
        let holder = messages::lock_holder(&dir, Side::Inbox)?;
        Some(format!("; {holder} has the inbox of {chat}"))
    };
    let look = format!("look with wg chat read {chat} before you send it again");
    match error {
        CallError::Broken(source) => Failure::new(
            ExitCode::Unavailable,
            format!(
                "the service did not answer; the message may have been accepted{}",
                holder().unwrap_or_default()
            ),
        )
        .caused_by(source)
        .with_cure(look),
        CallError::StandsStill(daemon) => Failure::new(
            ExitCode::Unavailable,
            format!("{}; the message may have been accepted", daemon.text),
        )
        .with_cure(format!("{}; {look}", daemon.advice())),
        CallError::Refused { .. } | CallError::Garbled(_) => error.into(),
    }
}
