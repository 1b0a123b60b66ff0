//! A person who serves a chat at a terminal: what is typed becomes a message, what is answered is shown.
//!
//! Everything goes through the chat's history, as it would from anywhere else, so that nothing said here is missing there.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use crate::failure::Failure;
use crate::store::messages::{self, Durability, NewMessage, Role, Side};

use super::lines::Lines;

/// The person's end of a chat.
#[derive(Debug)]
pub(super) struct Prompt {
    lines: Lines,
    /// Only a terminal is written to: anything else that reads stdout expects nothing but protocol.
    shows: bool,
}

impl Prompt {
    /// Greets the person.
    pub(super) fn open(chat: &str) -> Self {
        tell(&format!(
            "{chat} is yours here: type a message, Ctrl-D gives the chat back"
        ));
        Self {
            lines: Lines::default(),
            shows: io::stdout().is_terminal(),
        }
    }

    /// Puts what was typed into the inbox; returns whether the person is still there.
    pub(super) fn take_in(&mut self, session: &Path) -> Result<bool, Failure> {
        self.lines.read()?;
        while let Some(line) = self.lines.take() {
            if !line.trim().is_empty() {
                messages::append(
                    session,
                    Side::Inbox,
                    NewMessage::new(Role::User, line),
                    Durability::Sync,
                )?;
            }
        }
        Ok(!self.lines.is_at_end())
    }

    /// Shows an answer.
    pub(super) fn show(&self, content: &str) {
        if self.shows
            && let Err(error) = writeln!(io::stdout(), "{content}")
        {
            log::debug!("the terminal is gone: {error}");
        }
    }
}

fn tell(text: &str) {
    if let Err(error) = writeln!(io::stderr(), "{text}") {
        log::debug!("nobody reads stderr: {error}");
    }
}
