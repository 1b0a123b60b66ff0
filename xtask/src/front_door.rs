//! Runs the first command of the README as on a fresh machine, and takes the service down again.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::ci;
use crate::command::{self, Failure};
use crate::workspace::Workspace;

/// An answer of the built-in agent takes a moment; a front door that stays shut must not stop the checks for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// What would make `wg` believe that it was started inside another workspace.
const MARKERS: [&str; 4] = ["WG_DIR", "WG_CHAT_REF", "WG_REQUEST_ID", "WG_SESSION"];

/// The command runs in an empty folder, so that it has to make its workspace, and `wg` gets a search path with
/// nothing on it: an agent that happens to be installed here would be asked for a real answer otherwise.
pub(crate) fn run(workspace: &Workspace) -> Result<(), Failure> {
    let (front, _) = ci::front_commands(workspace)?;
    let mut build = command::cargo(&workspace.root);
    command::run(build.args(["build", "--release", "--bin", "wg"]))?;

    let scratch = empty_folder()?;
    let runner = "[target.'cfg(unix)']\nrunner = [\"env\", \"PATH=/nonexistent\"]\n";
    let settings = scratch.join(".cargo");
    fs::create_dir_all(&settings)
        .and_then(|()| fs::write(settings.join("config.toml"), runner))
        .map_err(|error| failed("fill", &scratch, &error))?;

    let manifest = workspace.root.join("Cargo.toml");
    let here = format!("cargo run --manifest-path '{}'", manifest.display());
    let mut first = ci::shell(workspace, &front.replacen("cargo run", &here, 1));
    first.env("CARGO_TARGET_DIR", &workspace.target);
    let mut stop = Command::new(workspace.target.join("release/wg"));
    stop.args(["service", "stop"]).stdin(Stdio::null());
    for command in [&mut first, &mut stop] {
        command.current_dir(&scratch);
        for name in MARKERS {
            command.env_remove(name);
        }
    }

    let answer = answer(&mut first);
    // The service is stopped whether or not there was an answer; the first fault is the one to tell.
    let stopped = command::run(&mut stop);
    let answer = answer?;
    command::say(answer.trim_end());
    let message = front.split('"').nth(1).unwrap_or_default();
    if answer.lines().all(|line| line.trim() != message) {
        return Err(Failure::new(format!(
            "`{front}` did not answer `{message}`"
        )));
    }
    stopped?;
    fs::remove_dir_all(&scratch).map_err(|error| failed("remove", &scratch, &error))
}

/// Makes a folder that nobody has used. A pid alone does not make its name: in a container it is the same each time, and a run that
/// was killed has left its workspace there.
fn empty_folder() -> Result<PathBuf, Failure> {
    let mut number = 0_u32;
    loop {
        let name = format!("wg-front-door-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(failed("make", &folder, &error)),
        }
    }
}

/// Returns what the command prints until it ends, or ends it when the patience does.
fn answer(command: &mut Command) -> Result<String, Failure> {
    let shown = command::show(command);
    command::say(format_args!("$ {shown}"));
    // Its own group, because the shell has started cargo, which has started `wg`. The service is in a session of
    // its own and is stopped by its own command.
    let child = command.process_group(0).stdout(Stdio::piped()).spawn();
    let mut child =
        child.map_err(|error| Failure::new(format!("failed to start `{shown}`: {error}")))?;
    let mut stdout = child.stdout.take().expect("because it was just piped");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.read_to_string(&mut text).map(|_| text);
        // The receiver is gone if the patience ended first; then nobody wants the text.
        drop(sender.send(read));
    });
    let text = receiver.recv_timeout(PATIENCE);
    if text.is_err() {
        let group = format!("-{}", child.id());
        command::run(Command::new("kill").args(["-KILL", "--", &group]))?;
    }
    let status = child
        .wait()
        .map_err(|error| Failure::new(format!("failed to wait for `{shown}`: {error}")))?;
    let seconds = PATIENCE.as_secs();
    let text = text
        .map_err(|_| Failure::new(format!("`{shown}` gave no answer within {seconds} s")))?
        .map_err(|error| Failure::new(format!("failed to read from `{shown}`: {error}")))?;
    if status.success() {
        Ok(text)
    } else {
        Err(Failure::new(format!("`{shown}` ended with {status}")))
    }
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("failed to {doing} `{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_what_the_command_printed() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two"]);
        assert_eq!(answer(&mut command).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_command_that_fails_gave_no_answer() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; exit 69"]);
        let failure = answer(&mut command).unwrap_err();
        assert!(failure.to_string().ends_with("ended with exit status: 69"));
    }
}
