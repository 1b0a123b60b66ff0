//! The command line and the environment with which an agent is started.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::agent::PLACE;
use crate::names::Protocol;

use super::environment;
use super::turn::Turn;

/// Builds the command. Nothing here may need code between fork and exec: that would cost the fast way to spawn.
pub(crate) fn command(turn: &Turn<'_>, argv: &[OsString]) -> Command {
    let (program, arguments) = argv
        .split_first()
        .map_or((OsStr::new(""), &[][..]), |(p, a)| (p.as_os_str(), a));
    let mut command = Command::new(program);
    match turn.agent.protocol {
        Protocol::Stdin => {
            command.args(arguments).stdin(Stdio::piped());
        }
        Protocol::Arg => {
            command
                .args(fill_in(arguments, turn.message))
                .stdin(Stdio::null());
        }
    }
    for marker in environment::outer_markers() {
        command.env_remove(marker);
    }
    command.envs(&turn.agent.env);
    command.envs(turn.variables.iter().map(|(name, value)| (name, value)));
    command
        .current_dir(turn.cwd)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    command
}

/// Puts the message in its place; where no place is named it is the last argument.
fn fill_in(arguments: &[OsString], message: &str) -> Vec<OsString> {
    // An argument ends at its first NUL byte, so that none may be in it.
    let message = message.replace('\0', "\u{fffd}");
    let mut filled: Vec<OsString> = Vec::with_capacity(arguments.len() + 1);
    let mut found = false;
    for argument in arguments {
        let mut rest = argument.as_bytes();
        let mut bytes = Vec::with_capacity(rest.len());
        while let Some(at) = rest
            .windows(PLACE.len())
            .position(|window| window == PLACE.as_bytes())
        {
            bytes.extend_from_slice(&rest[..at]);
            bytes.extend_from_slice(message.as_bytes());
            rest = &rest[at + PLACE.len()..];
            found = true;
        }
        bytes.extend_from_slice(rest);
        filled.push(OsString::from_vec(bytes));
    }
    if !found {
        filled.push(OsString::from(message));
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn filled(arguments: &[&str], message: &str, expected: &[&str]) {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let expected: Vec<OsString> = expected.iter().map(OsString::from).collect();
        assert_eq!(fill_in(&arguments, message), expected);
    }

    #[test]
    fn the_message_takes_the_place_that_is_named_for_it() {
        filled(
            &["-p", "{message}", "--json"],
            "hello",
            &["-p", "hello", "--json"],
        );
        filled(&["say:{message}!{message}"], "hi", &["say:hi!hi"]);
    }

    #[test]
    fn a_message_without_a_place_is_the_last_argument() {
        filled(&["-p"], "hello", &["-p", "hello"]);
    }

    #[test]
    fn a_message_that_names_the_placeholder_is_not_filled_in_twice() {
        filled(
            &["{message}"],
            "what is {message}?",
            &["what is {message}?"],
        );
    }

    #[test]
    fn a_nul_byte_cannot_cut_an_argument_short() {
        filled(&["{message}"], "a\0b", &["a\u{fffd}b"]);
    }
}
