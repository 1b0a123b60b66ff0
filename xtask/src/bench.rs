//! Runs the benches and keeps each result beside the machine it was measured on.
#![expect(
    clippy::disallowed_methods,
    reason = "a result carries the date on which it was measured"
)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use crate::command::{self, Failure};
use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace, words: &[&str]) -> Result<(), Failure> {
    let existing = existing(&workspace.root);
    let Some((name, args)) = words.split_first() else {
        for name in &existing {
            one(workspace, name, &[])?;
        }
        return if existing.is_empty() {
            Err(Failure::new("there is no bench yet (bench/README.md)"))
        } else {
            Ok(())
        };
    };
    if existing.iter().any(|own| own == name) {
        one(workspace, name, args)
    } else {
        Err(Failure::usage(unknown(name, &existing)))
    }
}

fn unknown(name: &str, existing: &[String]) -> String {
    if existing.is_empty() {
        format!("there is no bench `{name}`; no bench is written yet")
    } else {
        format!(
            "there is no bench `{name}`; there are: {}",
            existing.join(", ")
        )
    }
}

/// Every folder of `bench/` with a manifest is one bench.
pub(crate) fn existing(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.join("bench")).into_iter().flatten();
    let benches = entries.flatten().filter(|entry| {
        let manifest = entry.path().join("Cargo.toml");
        manifest.is_file()
    });
    let mut names: Vec<String> = benches
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn one(workspace: &Workspace, name: &str, args: &[&str]) -> Result<(), Failure> {
    let mut cargo = command::cargo(&workspace.root);
    cargo.args(["run", "--release", "--manifest-path"]);
    cargo.arg(Path::new("bench").join(name).join("Cargo.toml"));
    if !args.is_empty() {
        cargo.arg("--").args(args);
    }
    let shown = command::show(&cargo);
    command::say(format_args!("$ {shown}"));

    let seconds = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let path = workspace
        .target
        .join("bench")
        .join(format!("{name}-{}.txt", stamp(seconds)));
    let kept = Kept::create(&path)?;
    kept.line(&format!(
        "{}\n$ {shown}\n",
        machine(&workspace.root, seconds)
    ))?;

    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::new(format!("failed to start `{shown}`: {error}")))?;
    let stdout = child.stdout.take().expect("because it was just piped");
    let mut written = Ok(());
    for line in BufReader::new(stdout).lines() {
        // A line that is not UTF-8 ends the copy, and the child with it, by its closed pipe.
        let Ok(line) = line else { break };
        command::say(&line);
        written = written.and_then(|()| kept.line(&line));
    }
    let status = child
        .wait()
        .map_err(|error| Failure::new(format!("failed to wait for `{shown}`: {error}")))?;
    written?;
    command::say(format_args!("kept in {}", path.display()));
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("`{shown}` ended with {status}")))
    }
}

struct Kept {
    path: PathBuf,
    file: File,
}

impl Kept {
    fn create(path: &Path) -> Result<Self, Failure> {
        let folder = path.parent().expect("because the path ends in a file name");
        let file = fs::create_dir_all(folder).and_then(|()| File::create(path));
        let file = file.map_err(|error| {
            Failure::new(format!("failed to create `{}`: {error}", path.display()))
        })?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    fn line(&self, line: &str) -> Result<(), Failure> {
        writeln!(&self.file, "{line}").map_err(|error| {
            Failure::new(format!(
                "failed to write `{}`: {error}",
                self.path.display()
            ))
        })
    }
}

/// The machine in a few lines; a figure without them says nothing.
fn machine(root: &Path, seconds: u64) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let lines = [
        ("date", stamp(seconds)),
        ("cpu", format!("{} ({cores} cores)", cpu())),
        ("kernel", ask("uname", &["-srm"])),
        ("file system", file_system(root)),
        ("load", ask("uptime", &[])),
        ("rustc", ask("rustc", &["--version"])),
        ("commit", commit(root)),
    ];
    let lines = lines.map(|(name, value)| format!("{name:<12} {value}"));
    lines.join("\n")
}

fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim().to_owned())
    });
    model.unwrap_or_else(|| ask("sysctl", &["-n", "machdep.cpu.brand_string"]))
}

fn commit(root: &Path) -> String {
    let root = root.to_string_lossy();
    ask("git", &["-C", &root, "describe", "--always", "--dirty"])
}

/// Returns type and mount point of the file system that holds `path`: the longest mount point above it.
fn file_system(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let holding = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        path.starts_with(point).then_some((point, kind))
    });
    holding
        .max_by_key(|(point, _)| point.len())
        .map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

/// Returns the first line that a program prints, `unknown` where it cannot be asked.
fn ask(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let line = text.ok().and_then(|text| {
        let line = text.lines().next()?.trim();
        (!line.is_empty()).then(|| line.to_owned())
    });
    line.unwrap_or_else(|| "unknown".to_owned())
}

/// Formats seconds since 1970 as `2026-11-21T03-04-05Z`; no colons, because it is part of a file name.
fn stamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Counted in years that begin in March, so that the leap day is the last day of a year; the
    // arithmetic is the well-known one over eras of 400 years (146,097 days).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}-{:02}-{:02}Z",
        rest / 3_600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_the_date_in_utc() {
        // The expected texts are those of `date -u -d @SECONDS`.
        assert_eq!(stamp(0), "1970-01-01T00-00-00Z");
        assert_eq!(stamp(951_782_399), "2000-02-28T23-59-59Z");
        assert_eq!(stamp(951_782_400), "2000-02-29T00-00-00Z");
        assert_eq!(stamp(951_868_800), "2000-03-01T00-00-00Z");
        assert_eq!(stamp(1_795_230_000), "2026-11-21T03-00-00Z");
    }

    #[test]
    fn an_unknown_bench_is_refused_with_the_names_that_exist() {
        let both = ["lock".to_owned(), "queue".to_owned()];
        assert_eq!(
            unknown("disk", &both),
            "there is no bench `disk`; there are: lock, queue"
        );
        assert_eq!(
            unknown("disk", &[]),
            "there is no bench `disk`; no bench is written yet"
        );
    }
}
