//! `wg man`: the manual, one page a verb, made from the same words as the help.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use serde::Serialize;

use super::args::{Cli, Man};
use super::context::Context;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};

/// One page, for `--json`.
#[derive(Debug, Serialize)]
struct Page {
    name: String,
    roff: String,
}

/// Where the pages were written, for `--json`.
#[derive(Debug, Serialize)]
struct Written {
    dir: PathBuf,
    files: Vec<String>,
}

pub(super) fn run(cx: &Context<'_>, args: &Man) -> Outcome {
    // Built, so that each verb knows the options which it takes from above, and its whole name.
    let mut root = Cli::command();
    root.build();
    if let Some(dir) = &args.to {
        let written = write_all(&root, dir)?;
        cx.report.done(&written, || {
            format!(
                "Wrote {} pages to {}",
                written.files.len(),
                written.dir.display()
            )
        })?;
        return Ok(ExitCode::Ok);
    }
    let mut command = &root;
    for verb in &args.verb {
        command = command
            .find_subcommand(verb)
            .filter(|found| !found.is_hide_set())
            .ok_or_else(|| unknown(verb, command))?;
    }
    let page = Page {
        name: page_name(command),
        roff: page(command)?,
    };
    cx.report.answer(&page, || page.roff.clone())?;
    Ok(ExitCode::Ok)
}

fn unknown(verb: &str, within: &clap::Command) -> Failure {
    let known: Vec<&str> = within
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(clap::Command::get_name)
        .collect();
    let name = within.get_bin_name().unwrap_or("wg");
    let cure = if known.is_empty() {
        format!("wg man {}", name.trim_start_matches("wg "))
    } else {
        format!("one of: {}", known.join(", "))
    };
    Failure::new(
        ExitCode::Failed,
        format!("`{name}` has no verb `{}`", verb.escape_debug()),
    )
    .with_cure(cure)
}

/// The page of `wg chat send` is `wg-chat-send`.
fn page_name(command: &clap::Command) -> String {
    command.get_bin_name().unwrap_or("wg").replace(' ', "-")
}

fn page(command: &clap::Command) -> Outcome<String> {
    let mut bytes = Vec::new();
    let named = command
        .clone()
        .display_name(page_name(command))
        .disable_help_subcommand(true);
    clap_mangen::Man::new(named)
        .render(&mut bytes)
        .map_err(|error| {
            Failure::new(ExitCode::Bug, "failed to write the page").caused_by(error)
        })?;
    String::from_utf8(bytes)
        .map_err(|error| Failure::new(ExitCode::Bug, "the page is not UTF-8").caused_by(error))
}

fn write_all(root: &clap::Command, dir: &Path) -> Outcome<Written> {
    let failed = |path: &Path, error: std::io::Error| {
        Failure::new(
            ExitCode::System,
            format!("failed to write `{}`", path.display()),
        )
        .caused_by(error)
    };
    std::fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
    let mut files = Vec::new();
    let mut waiting = vec![root];
    while let Some(command) = waiting.pop() {
        let file = format!("{}.1", page_name(command));
        let path = dir.join(&file);
        std::fs::write(&path, page(command)?).map_err(|error| failed(&path, error))?;
        files.push(file);
        waiting.extend(
            command
                .get_subcommands()
                .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help"),
        );
    }
    files.sort();
    Ok(Written {
        dir: dir.to_owned(),
        files,
    })
}
