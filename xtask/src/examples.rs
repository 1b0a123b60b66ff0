//! Every example of the workspace and how `cargo xtask ci` runs it. An example without a line here
//! is a finding of `tidy`: what nobody runs stops being true.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::command::{self, Failure};
use crate::workspace::Workspace;

/// How an example is run where nobody is watching.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Run {
    /// With these arguments, empty standard input, until it ends by itself with 0.
    Args(&'static [&'static str]),
    /// Not in `ci`, because it is the long form of a test: `cargo xtask stress` runs it.
    Long,
    /// With these arguments for some seconds; `cargo xtask stress` runs it for longer.
    Short(&'static [&'static str]),
}

/// Package, example, and how it is run.
pub(crate) const EXAMPLES: [(&str, &str, Run); 10] = [
    ("session-lock", "hold", Run::Args(&[])),
    (
        "exit-classifier",
        "explain",
        Run::Args(&["sh", "-c", "exit 75"]),
    ),
    ("command-queue", "two_lanes", Run::Args(&[])),
    ("wg-supervisor", "keep_alive", Run::Args(&["sleep", "5"])),
    ("session-lock", "torture", Run::Long),
    ("wg-supervisor", "sim", Run::Long),
    ("command-queue", "stress", Run::Long),
    ("wg-cli", "sim_chats", Run::Long),
    (
        "wg-cli",
        "chaos",
        Run::Short(&[
            "--chats",
            "8",
            "--messages",
            "60",
            "--kills",
            "40",
            "--rounds",
            "5",
            "--seconds",
            "40",
        ]),
    ),
    ("wg-cli", "attack", Run::Short(&["--seconds", "5"])),
];

/// Runs the short examples. They are built exactly as `cargo test --all-features` builds them, so after
/// the test job this compiles nothing.
pub(crate) fn run(workspace: &Workspace) -> Result<(), Failure> {
    let mut cargo = command::cargo(&workspace.root);
    cargo.args(["build", "--workspace", "--all-features", "--examples"]);
    command::run(&mut cargo)?;

    let mut any = false;
    for (package, example, run) in EXAMPLES {
        let exists = workspace
            .package(package)
            .is_some_and(|package| package.has_target("example", example));
        if let (true, Run::Args(args) | Run::Short(args)) = (exists, run) {
            command::run(&mut built(&workspace.target, example, args))?;
            any = true;
        }
    }
    if any {
        Ok(())
    } else {
        Err(Failure::new("there is no example to run"))
    }
}

fn built(target: &Path, example: &str, args: &[&str]) -> Command {
    let mut command = Command::new(target.join("debug/examples").join(example));
    command.args(args).stdin(Stdio::null());
    command
}
