//! `wg nex`: chooses what kind of handler this is, and runs it.

use std::io::{self, IsTerminal};

use session_lock::Kind;

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::store::Workspace;
use crate::store::graph::ChatId;

use super::{private, serve};

/// What `wg nex` was asked to do.
#[derive(Debug)]
pub struct NexOptions {
    /// The workspace.
    pub workspace: Workspace,
    /// The chat to serve; without one the session is private.
    pub chat: Option<ChatId>,
    /// Whether to leave as soon as there is nothing to answer.
    pub autonomous: bool,
    /// Whether to answer one message with one JSON line on stdout.
    pub eval_mode: bool,
    /// A message to begin with.
    pub message: Option<String>,
    /// The name of an agent, in place of the one that the chat or the workspace names.
    pub agent: Option<String>,
}

/// How the handler was called, as far as its lock is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Call {
    chat: bool,
    autonomous: bool,
    eval_mode: bool,
}

/// The one table of what a handler writes into its lock. A kind is a label and never decides who wins.
///
/// `tui-pty` is written by a screen that embeds the handler, `adapter` also by a wrapper of a foreign program; neither is
/// called through here. `None`: no lock is taken.
fn kind(call: Call) -> Option<Kind> {
    match call {
        Call {
            eval_mode: true,
            chat: false,
            ..
        } => None,
        Call {
            eval_mode: true,
            chat: true,
            ..
        } => Some(Kind::Adapter),
        Call { chat: true, .. } => Some(Kind::ChatNex),
        Call {
            autonomous: true, ..
        } => Some(Kind::AutonomousNex),
        Call { .. } => Some(Kind::InteractiveNex),
    }
}

/// Runs a handler to its end and returns the code to exit with.
///
/// # Errors
///
/// Fails with [`ExitCode::Held`] where another handler has the session, with [`ExitCode::Config`] where the chat's agent
/// is not configured well, and with [`ExitCode::System`] where the session cannot be read or written.
pub fn run(options: NexOptions) -> Result<ExitCode, Failure> {
    options.workspace.check_owner()?;
    let call = Call {
        chat: options.chat.is_some(),
        autonomous: options.autonomous,
        eval_mode: options.eval_mode,
    };
    let kind = kind(call);
    let at_terminal = io::stdin().is_terminal();
    match (options.chat, kind) {
        (Some(chat), Some(kind)) => serve::run(serve::Call {
            workspace: options.workspace,
            chat,
            kind,
            autonomous: options.autonomous || options.eval_mode,
            eval_mode: options.eval_mode,
            message: options.message,
            agent: options.agent,
            at_terminal,
        }),
        (_, kind) => private::run(private::Call {
            workspace: options.workspace,
            kind,
            eval_mode: options.eval_mode,
            message: options.message,
            agent: options.agent,
            at_terminal,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_follows_from_how_the_handler_was_called() {
        for (chat, autonomous, eval_mode, expected) in [
            (false, false, false, Some(Kind::InteractiveNex)),
            (false, true, false, Some(Kind::AutonomousNex)),
            (true, false, false, Some(Kind::ChatNex)),
            (true, true, false, Some(Kind::ChatNex)),
            (false, false, true, None),
            (false, true, true, None),
            (true, false, true, Some(Kind::Adapter)),
            (true, true, true, Some(Kind::Adapter)),
        ] {
            let call = Call {
                chat,
                autonomous,
                eval_mode,
            };
            assert_eq!(kind(call), expected, "{call:?}");
        }
    }
}
