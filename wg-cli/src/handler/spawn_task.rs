//! `wg spawn-task`: becomes the handler of a task's chat.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::control_group;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::store::graph::{ChatId, Graph};
use crate::store::{Workspace, resolve};

/// The program that this process runs, also after its file was replaced or removed by an upgrade.
const SELF: &str = "/proc/self/exe";

/// What a task's handler is: the command line that this process becomes.
#[derive(Debug)]
pub struct HandlerCommand {
    /// The chat of the task.
    pub chat: ChatId,
    arguments: Vec<OsString>,
}

/// Finds the chat that `id` names, in any form of reference, and returns the command line of its handler.
///
/// # Errors
///
/// Fails with [`ExitCode::Failed`] where no task has this id or it is no chat.
pub fn command(workspace: &Workspace, id: &str) -> Result<HandlerCommand, Failure> {
    let chat = find(workspace, id)?;
    Ok(HandlerCommand {
        chat,
        arguments: arguments(workspace, chat),
    })
}

impl HandlerCommand {
    /// Becomes the handler. Returns only where that failed.
    #[must_use = "this process goes on only where it could not become another"]
    pub fn exec(&self) -> Failure {
        let error = Command::new(SELF)
            .arg0("wg")
            .args(&self.arguments)
            // It has been entered, and what is started from here on has no say in it.
            .env_remove(control_group::VARIABLE)
            .exec();
        Failure::new(
            ExitCode::System,
            format!("failed to become the handler of {}", self.chat),
        )
        .caused_by(error)
    }

    /// Returns the words of the command line.
    #[must_use]
    pub fn argv(&self) -> Vec<String> {
        let words = self
            .arguments
            .iter()
            .map(|word| word.to_string_lossy().into_owned());
        std::iter::once("wg".to_owned()).chain(words).collect()
    }

    /// Returns the command line in a form that can be pasted into a shell.
    #[must_use]
    pub fn to_text(&self) -> String {
        let words: Vec<String> = self.argv().iter().map(|word| quoted(word)).collect();
        words.join(" ")
    }
}

fn find(workspace: &Workspace, id: &str) -> Result<ChatId, Failure> {
    match resolve::chat_of(workspace, id) {
        Ok(chat) => Ok(chat),
        // A reference that could not be looked up is not the same as one that names nothing.
        Err(failure) if failure.code != ExitCode::Failed => Err(failure),
        Err(failure) => match Graph::load(workspace)?.graph.task(id) {
            Some(_) => Err(Failure::new(
                ExitCode::Failed,
                format!("task {id} is not a chat"),
            )),
            None => Err(
                Failure::new(ExitCode::Failed, format!("no such task: {id}")).caused_by(failure),
            ),
        },
    }
}

fn arguments(workspace: &Workspace, chat: ChatId) -> Vec<OsString> {
    let dir = workspace.root().as_os_str().to_owned();
    vec![
        "--dir".into(),
        dir,
        "nex".into(),
        "--chat".into(),
        chat.to_string().into(),
    ]
}

/// Quotes a word where a shell would take it apart.
fn quoted(word: &str) -> String {
    if !word.is_empty()
        && word
            .chars()
            .all(|c| c.is_alphanumeric() || "-_./:=@%+,".contains(c))
    {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_a_shell_would_take_apart_is_quoted() {
        for (word, expected) in [
            ("nex", "nex"),
            ("/a b", "'/a b'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
