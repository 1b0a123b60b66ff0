//! Runs each integration test binary many times, several at once: what fails once in a hundred runs
//! on a busy machine fails here.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::command::{self, Failure};
use crate::json::Json;
use crate::workspace::Workspace;

/// How many test binaries run at the same time: more than there are cores, on purpose.
const AT_ONCE: usize = 8;

struct TestBinary {
    name: String,
    program: PathBuf,
    /// Cargo runs a test in the folder of its package; so does this.
    dir: PathBuf,
}

pub(crate) fn run(workspace: &Workspace, rounds: &str) -> Result<(), Failure> {
    let Ok(rounds @ 1..) = rounds.parse::<usize>() else {
        return Err(Failure::usage(format!(
            "`{rounds}` is no number of rounds; `stress repeat 20` runs each test binary 20 times"
        )));
    };
    let binaries = build(workspace)?;
    if binaries.is_empty() {
        return Err(Failure::new("there is no integration test binary to run"));
    }
    command::say(format_args!(
        "{} test binaries, {rounds} times each, {AT_ONCE} at once",
        binaries.len()
    ));

    // Round by round, so that different binaries meet each other.
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(vec![0_usize; binaries.len()]);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= rounds * binaries.len() {
                        return;
                    }
                    let which = turn % binaries.len();
                    if let Err(text) = once(&binaries[which]) {
                        // The lock is also what keeps two reports from mixing.
                        let mut failed = failed.lock().expect("because no holder panics");
                        failed[which] += 1;
                        command::say(text);
                    }
                }
            });
        }
    });

    let failed = failed
        .into_inner()
        .expect("because no holder of the lock panics");
    for (binary, failed) in binaries.iter().zip(&failed) {
        let mark = if *failed == 0 { "ok  " } else { "FAIL" };
        command::say(format_args!(
            "{mark} {:<40} {failed} of {rounds} failed",
            binary.name
        ));
    }
    match failed.iter().sum() {
        0 => Ok(()),
        sum => Err(Failure::new(format!("{sum} runs failed"))),
    }
}

/// Builds the integration tests and returns where each of them is.
fn build(workspace: &Workspace) -> Result<Vec<TestBinary>, Failure> {
    let mut cargo = command::cargo(&workspace.root);
    cargo.args(["test", "--workspace", "--all-features", "--no-run"]);
    cargo.arg("--message-format=json-render-diagnostics");
    command::say(format_args!("$ {}", command::show(&cargo)));
    let text = command::output(&mut cargo)?;
    Ok(text.lines().filter_map(read).collect())
}

/// Reads one line of what cargo writes; `None` unless it is a built integration test.
fn read(line: &str) -> Option<TestBinary> {
    let message = Json::parse(line)?;
    let target = message.get("target");
    let package = PathBuf::from(message.get("manifest_path").text()?);
    let dir = package.parent()?.to_owned();
    let folder = dir.file_name()?.to_string_lossy().into_owned();
    target
        .get("kind")
        .texts()
        .contains(&"test".to_owned())
        .then_some(())?;
    Some(TestBinary {
        name: format!("{folder}::{}", target.get("name").text()?),
        program: PathBuf::from(message.get("executable").text()?),
        dir,
    })
}

/// Runs one binary once; the error is everything that it printed, the seed of a random test included.
fn once(binary: &TestBinary) -> Result<(), String> {
    let output = Command::new(&binary.program)
        .current_dir(&binary.dir)
        .env("CARGO_MANIFEST_DIR", &binary.dir)
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|error| format!("{}: failed to start: {error}", binary.name))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "== {} ended with {} ==\n{}{}",
        binary.name,
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integration_test_is_found_in_the_messages_of_cargo() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/p/session-lock/Cargo.toml",
            "target":{"kind":["test"],"name":"hand_over"},"executable":"/t/hand_over-1"}"#;
        let binary = read(line).unwrap();
        assert_eq!(binary.name, "session-lock::hand_over");
        assert_eq!(binary.dir, PathBuf::from("/p/session-lock"));
    }

    #[test]
    fn unit_tests_and_other_messages_are_left_out() {
        let unit = r#"{"manifest_path":"/p/a/Cargo.toml","target":{"kind":["lib"],"name":"a"},"executable":"/t/a"}"#;
        assert!(read(unit).is_none());
        assert!(read(r#"{"reason":"build-finished","success":true}"#).is_none());
        assert!(read("Compiling a v1").is_none());
    }

    #[test]
    fn a_run_that_fails_gives_back_what_it_printed() {
        let binary = TestBinary {
            name: "p::t".to_owned(),
            program: PathBuf::from("false"),
            dir: PathBuf::from("."),
        };
        let text = once(&binary).unwrap_err();
        assert!(text.starts_with("== p::t ended with exit status: 1 =="));
    }

    #[test]
    fn a_number_of_rounds_that_is_none_is_a_usage_error() {
        let workspace = Workspace {
            root: PathBuf::new(),
            target: PathBuf::new(),
            packages: Vec::new(),
        };
        for rounds in ["0", "-1", "many"] {
            assert!(run(&workspace, rounds).is_err(), "{rounds}");
        }
    }
}
