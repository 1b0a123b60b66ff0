//! `wg completions`: scripts for the shells.

use clap::CommandFactory;
use clap_complete::Shell as Target;
use serde::Serialize;

use super::args::{Cli, Completions, Shell};
use super::context::Context;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};

/// A script, for `--json`.
#[derive(Debug, Serialize)]
struct Script {
    shell: String,
    script: String,
}

pub(super) fn run(cx: &Context<'_>, args: &Completions) -> Outcome {
    let target = match args.shell {
        Shell::Bash => Target::Bash,
        Shell::Zsh => Target::Zsh,
        Shell::Fish => Target::Fish,
        Shell::Elvish => Target::Elvish,
        Shell::Powershell => Target::PowerShell,
    };
    let mut script = Vec::new();
    clap_complete::generate(target, &mut Cli::command(), "wg", &mut script);
    let script = String::from_utf8(script).map_err(|error| {
        Failure::new(ExitCode::Bug, "the completion script is not UTF-8").caused_by(error)
    })?;
    let script = Script {
        shell: target.to_string(),
        script,
    };
    cx.report.answer(&script, || script.script.clone())?;
    Ok(ExitCode::Ok)
}
