//! What comes in on stdin.

use std::io::{self, IsTerminal, Read};

use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};

/// The longest message that is taken, in bytes of its JSON form, with and without a service: what the service takes of one request,
/// less a little for what stands around the message.
const LONGEST_MESSAGE: u64 = (4 << 20) - (64 << 10);

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
    if json_length(&text) > LONGEST_MESSAGE {
        return Err(too_long());
    }
    Ok(text)
}

/// How many bytes the text takes as a JSON string, its quotes left out.
fn json_length(text: &str) -> u64 {
    let of_byte = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(of_byte).sum()
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
    Failure::new(
        ExitCode::Usage,
        "the message is longer than 3.9 MiB (as JSON), which is the most that a chat takes",
    )
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

#[cfg(test)]
mod tests {
    use super::{LONGEST_MESSAGE, json_length, message};
    use crate::exit_code::ExitCode;
    use crate::ipc::server::Limits;

    #[test]
    fn the_length_of_a_message_is_that_of_its_json_form() {
        let every: String = (0..0x300).filter_map(char::from_u32).collect();
        let json = serde_json::to_string(&every).unwrap();
        assert_eq!(json_length(&every), json.len() as u64 - 2);
    }

    #[test]
    fn what_is_longer_than_the_service_takes_is_refused_before_it_is_sent() {
        let longest = usize::try_from(LONGEST_MESSAGE).unwrap();
        assert!(longest < Limits::standard().line);
        assert!(message(&"y".repeat(longest)).is_ok());
        for text in ["y".repeat(longest + 1), "\"".repeat(longest / 2 + 1)] {
            let failure = message(&text).unwrap_err();
            assert_eq!(failure.code, ExitCode::Usage);
            assert!(failure.to_string().contains("longer than 3.9 MiB"));
        }
    }
}
