//! What comes in on stdin.

use std::io::{self, IsTerminal, Read};

use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};

/// The longest message that is taken, in bytes; an agent would choke on it long before the disk does.
const LONGEST_MESSAGE: u64 = 16 * 1024 * 1024;

/// Returns the message, read from stdin where it is `-`.
///
/// # Errors
///
/// An empty message, one that is not UTF-8, one that is too long, or a stdin that cannot be read.
pub(super) fn message(given: &str) -> Outcome<String> {
    let text = if given == "-" {
        whole_stdin()?
    } else {
        given.to_owned()
    };
    if text.trim().is_empty() {
        return Err(Failure::new(ExitCode::Usage, "the message is empty")
            .with_cure("give it as an argument, or - to read stdin"));
    }
    if text.len() as u64 > LONGEST_MESSAGE {
        return Err(too_long());
    }
    Ok(text)
}

fn whole_stdin() -> Outcome<String> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(LONGEST_MESSAGE + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > LONGEST_MESSAGE {
        return Err(too_long());
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        Failure::new(ExitCode::Usage, "the message on stdin is not UTF-8").caused_by(error)
    })?;
    // What an editor or `echo` puts at the end is not part of the message.
    while text.ends_with('\n') || text.ends_with('\r') {
        text.pop();
    }
    Ok(text)
}

fn too_long() -> Failure {
    Failure::new(ExitCode::Usage, "the message is longer than 16 MiB")
        .with_cure("put it into a file and name the file in the message")
}

/// The failure of a stdin that cannot be read.
pub(super) fn unreadable(error: io::Error) -> Failure {
    Failure::new(ExitCode::System, "failed to read standard input").caused_by(error)
}

/// The failure of a wait for changes.
pub(super) fn broken_wait(error: io::Error) -> Failure {
    Failure::new(ExitCode::System, "failed to wait for changes").caused_by(error)
}

/// Whether a person can be asked.
pub(super) fn is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Asks on stderr and returns the answer's line.
pub(super) fn ask(question: &str) -> Outcome<String> {
    use std::io::Write;
    drop(io::stderr().lock().write_all(question.as_bytes()));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(unreadable)?;
    Ok(answer)
}
