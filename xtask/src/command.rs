//! Running other programs: each command is printed before it runs, and gets no standard input.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Why a chore did not succeed, in one text for a person.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            code: 1,
            text: text.into(),
        }
    }

    /// The caller wrote something that no chore understands.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self {
            code: 2,
            text: text.into(),
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Prints one line (or a text of several) for the person at the terminal.
#[expect(
    clippy::print_stdout,
    reason = "printing is what a chore does; this is the one place"
)]
pub(crate) fn say(text: impl fmt::Display) {
    println!("{text}");
}

/// Prints a failure on the error stream.
#[expect(
    clippy::print_stderr,
    reason = "printing is what a chore does; this is the one place"
)]
pub(crate) fn complain(failure: &Failure) {
    eprintln!("error: {failure}");
}

/// Returns a `cargo` command that runs in `root`.
///
/// The variables that `cargo run` set for this very program are taken out: they describe `xtask`,
/// and build scripts that look at them would be built anew for nothing.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let described = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_CRATE_",
            "CARGO_BIN_",
        ]
        .iter()
        .any(|prefix| name.to_string_lossy().starts_with(prefix));
        if described {
            command.env_remove(name);
        }
    }
    command
}

/// Prints the command, runs it with its output on our own, and fails unless it exits with 0.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let shown = show(command);
    say(format_args!("$ {shown}"));
    let status = command
        .status()
        .map_err(|error| Failure::new(format!("failed to start `{shown}`: {error}")))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("`{shown}` ended with {status}")))
    }
}

/// Runs the command quietly and returns what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String, Failure> {
    let shown = show(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::new(format!("failed to start `{shown}`: {error}")))?;
    if !output.status.success() {
        return Err(Failure::new(format!(
            "`{shown}` ended with {}",
            output.status
        )));
    }
    String::from_utf8(output.stdout)
        .map_err(|_| Failure::new(format!("`{shown}` wrote something that is not UTF-8")))
}

/// Returns the command as a person would type it: set variables first, odd words quoted.
pub(crate) fn show(command: &Command) -> String {
    let lossy = |word: &OsStr| quote(&word.to_string_lossy());
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), lossy(value?))));
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = variables.chain(words.map(lossy)).collect();
    words.join(" ")
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo it's $X", ""]).env("X", "a b");
        assert_eq!(show(&command), r"X='a b' sh -c 'echo it'\''s $X' ''");
    }

    #[test]
    fn a_command_that_fails_is_named_in_the_failure() {
        let failure = run(Command::new("sh").args(["-c", "exit 7"])).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "`sh -c 'exit 7'` ended with exit status: 7"
        );
    }

    #[test]
    fn a_program_that_does_not_exist_is_named_in_the_failure() {
        let failure = run(&mut Command::new("no-such-program-here")).unwrap_err();
        assert!(
            failure
                .to_string()
                .starts_with("failed to start `no-such-program-here`: ")
        );
    }
}
