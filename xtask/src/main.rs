//! The chores of the project, one subcommand each. Only `std` is used, so that the first
//! `cargo xtask` in a fresh clone builds in a second or two; keep it that way.

mod bench;
mod ci;
mod command;
mod examples;
mod files;
mod front_door;
mod json;
mod package;
mod readme;
mod stress;
mod tidy;
mod workspace;

use std::process::ExitCode;

use command::Failure;
use workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask <command>

  ci                        everything that must hold before a change lands, first failure ends it
  tidy                      the rules of this repository that no compiler knows
  package                   pack and build the published crates from their tarballs, check the contents
  bench [NAME [ARGS...]]    run one bench, or all; the result is kept under target/bench/
  stress NAME [ARGS...]     run the long form of a test: lock, sim, queue, chaos, attack
  stress repeat N           run every integration test binary N times, several at once";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            command::complain(&failure);
            failure.exit_code()
        }
    }
}

fn dispatch(words: &[String]) -> Result<(), Failure> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some((verb, rest)) = words.split_first() else {
        return Err(Failure::usage(format!("which chore?\n\n{USAGE}")));
    };
    match (*verb, rest) {
        ("ci", []) => ci::run(&Workspace::load()?),
        ("tidy", []) => tidy::run(&Workspace::load()?),
        ("package", []) => package::run(&Workspace::load()?),
        ("bench", names) => bench::run(&Workspace::load()?, names),
        ("stress", ["repeat", rounds]) => stress::repeat::run(&Workspace::load()?, rounds),
        ("stress", [name, args @ ..]) if *name != "repeat" => {
            stress::run(&Workspace::load()?, name, args)
        }
        ("help" | "--help" | "-h", []) => {
            command::say(USAGE);
            Ok(())
        }
        _ => Err(Failure::usage(format!(
            "there is no chore `{}`\n\n{USAGE}",
            words.join(" ")
        ))),
    }
}

/// The first words that `cargo xtask` takes; `tidy` compares the documents with it.
pub(crate) const VERBS: [&str; 5] = ["ci", "tidy", "package", "bench", "stress"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_arguments_are_answered_with_the_usage_and_exit_code_2() {
        for words in [
            &[][..],
            &["ship"],
            &["ci", "now"],
            &["stress"],
            &["stress", "repeat"],
        ] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let failure = dispatch(&words).unwrap_err();
            assert_eq!(failure.exit_code(), ExitCode::from(2), "{words:?}");
        }
    }

    #[test]
    fn every_verb_stands_in_the_usage() {
        for verb in VERBS {
            assert!(USAGE.contains(&format!("\n  {verb} ")), "{verb}");
        }
    }
}
