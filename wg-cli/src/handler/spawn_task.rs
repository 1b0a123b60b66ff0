//! `wg spawn-task`: becomes the handler of a task's chat.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::store::graph::{ChatId, Graph};
use crate::store::{Workspace, resolve};

/// The program that this process runs, also after its file was replaced or removed by an upgrade.
const SELF: &str = "/proc/self/exe";

/// Finds the chat that `id` names, in any form of reference, and becomes its handler.
///
/// With `dry_run` the command line is printed on stdout instead.
///
/// # Errors
///
/// Fails with [`ExitCode::Failed`] where no task has this id or it is no chat, and with [`ExitCode::System`] where the
/// program cannot be started again. Returns only then, and after a dry run.
pub fn run(workspace: &Workspace, id: &str, dry_run: bool) -> Result<ExitCode, Failure> {
    let chat = find(workspace, id)?;
    let arguments = arguments(workspace, chat);
    if dry_run {
        let line: Vec<String> = std::iter::once("wg".to_owned())
            .chain(arguments.iter().map(quoted))
            .collect();
        writeln!(std::io::stdout(), "{}", line.join(" ")).map_err(|error| {
            Failure::new(ExitCode::System, "failed to print the command").caused_by(error)
        })?;
        return Ok(ExitCode::Ok);
    }
    crate::limits::restore_open_files();
    let error = Command::new(SELF)
        .arg0("wg")
        .args(arguments)
        .env_remove(crate::limits::FORMER)
        .exec();
    Err(Failure::new(
        ExitCode::System,
        format!("failed to become the handler of {chat}"),
    )
    .caused_by(error))
}

fn find(workspace: &Workspace, id: &str) -> Result<ChatId, Failure> {
    let graph = Graph::load(workspace)?.graph;
    match resolve::chat(workspace, &graph, id) {
        Ok(chat) => Ok(chat),
        // A reference that could not be looked up is not the same as one that names nothing.
        Err(failure) if failure.code != ExitCode::Failed => Err(failure),
        Err(failure) => match graph.task(id) {
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
fn quoted(word: &OsString) -> String {
    let word = word.to_string_lossy();
    if !word.is_empty()
        && word
            .chars()
            .all(|c| c.is_alphanumeric() || "-_./:=@%+,".contains(c))
    {
        return word.into_owned();
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
            assert_eq!(quoted(&OsString::from(word)), expected);
        }
    }
}
