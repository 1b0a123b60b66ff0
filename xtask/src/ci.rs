//! Everything that must hold before a change lands, in an order that finds cheap mistakes first.
//!
//! All jobs share one target folder. The two clippy jobs and the docs share the checked dependencies;
//! the tests, the examples and the packages share the built ones; only the front door builds for release.
#![expect(
    clippy::disallowed_methods,
    reason = "the wall time of each job is part of what this chore reports"
)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::command::{self, Failure};
use crate::workspace::Workspace;
use crate::{examples, files, front_door, package, readme, tidy};

struct Job {
    name: &'static str,
    /// What the job may take on two cores with nothing built yet.
    budget: Duration,
    run: fn(&Workspace) -> Result<(), Failure>,
}

/// The sum of the budgets is the promise of the whole: 15 minutes on two cores.
const JOBS: [Job; 9] = [
    job("fmt", 10, fmt),
    job("tidy", 10, tidy::run),
    job("clippy", 90, clippy),
    job("clippy, no default features", 40, clippy_bare),
    job("docs", 40, docs),
    job("test", 390, test),
    job("examples", 60, examples::run),
    job("package", 90, package::run),
    job("front door", 170, front_door::run),
];

const fn job(name: &'static str, seconds: u64, run: fn(&Workspace) -> Result<(), Failure>) -> Job {
    Job {
        name,
        budget: Duration::from_secs(seconds),
        run,
    }
}

pub(crate) fn run(workspace: &Workspace) -> Result<(), Failure> {
    let begin = Instant::now();
    let mut lines = Vec::new();
    for job in JOBS {
        command::say(format_args!("\n== {} ==", job.name));
        let begin = Instant::now();
        let outcome = (job.run)(workspace);
        let took = begin.elapsed();
        let line = report(job.name, took, job.budget, outcome.is_ok());
        command::say(&line);
        lines.push(line);
        if let Err(failure) = outcome {
            command::say(format_args!("\n{}", lines.join("\n")));
            return Err(Failure::new(format!("job `{}`: {failure}", job.name)));
        }
    }
    let budget = JOBS.iter().map(|job| job.budget).sum();
    lines.push(report("all", begin.elapsed(), budget, true));
    command::say(format_args!("\n{}", lines.join("\n")));
    Ok(())
}

/// A job over its budget is named and not failed: a busy machine is no mistake of the change.
fn report(name: &str, took: Duration, budget: Duration, green: bool) -> String {
    let mark = if green { "ok  " } else { "FAIL" };
    let over = if took > budget {
        ", over its budget"
    } else {
        ""
    };
    format!(
        "{mark} {name:<28} {:>6.1} s of {} s{over}",
        took.as_secs_f64(),
        budget.as_secs()
    )
}

fn fmt(workspace: &Workspace) -> Result<(), Failure> {
    let mut cargo = command::cargo(&workspace.root);
    command::run(cargo.args(["fmt", "--all", "--check"]))
}

fn clippy(workspace: &Workspace) -> Result<(), Failure> {
    clippy_with(workspace, "--all-features")
}

fn clippy_bare(workspace: &Workspace) -> Result<(), Failure> {
    clippy_with(workspace, "--no-default-features")
}

fn clippy_with(workspace: &Workspace, features: &str) -> Result<(), Failure> {
    let mut cargo = command::cargo(&workspace.root);
    cargo.args(["clippy", "--workspace", "--all-targets", features]);
    command::run(cargo.args(["--", "-D", "warnings"]))
}

fn docs(workspace: &Workspace) -> Result<(), Failure> {
    let mut cargo = command::cargo(&workspace.root);
    cargo.env("RUSTDOCFLAGS", "-Dwarnings");
    command::run(cargo.args(["doc", "--workspace", "--no-deps", "--all-features"]))
}

/// Runs the test command of the README, as a reader would.
fn test(workspace: &Workspace) -> Result<(), Failure> {
    let (_, test) = front_commands(workspace)?;
    command::run(&mut shell(workspace, &test))
}

pub(crate) fn front_commands(workspace: &Workspace) -> Result<(String, String), Failure> {
    let text = files::read(&workspace.root.join("README.md"))?;
    readme::front_commands(&text)
        .ok_or_else(|| Failure::new("README.md does not start with two commands"))
}

pub(crate) fn shell(workspace: &Workspace, line: &str) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", line])
        .current_dir(&workspace.root)
        .stdin(Stdio::null());
    shell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budgets_add_up_to_no_more_than_15_minutes() {
        let sum: Duration = JOBS.iter().map(|job| job.budget).sum();
        assert!(sum <= Duration::from_secs(15 * 60), "{sum:?}");
    }

    #[test]
    fn a_job_that_took_too_long_is_named() {
        let line = report(
            "docs",
            Duration::from_secs(61),
            Duration::from_secs(60),
            true,
        );
        assert!(line.starts_with("ok") && line.ends_with("over its budget"));
    }
}
