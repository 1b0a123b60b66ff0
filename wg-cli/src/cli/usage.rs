//! What is told about a command line that was not understood: one sentence with the nearest verb or flag.

use std::ffi::OsString;
use std::io::Write;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::args::Cli;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::report::{Colour, Report, Voice};

/// Prints help, the version, or what was wrong, and returns the exit code.
pub(super) fn explain(error: &clap::Error, args: &[OsString]) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let text = error.render();
            let shown = if wants_colour(args) {
                text.ansi().to_string()
            } else {
                text.to_string()
            };
            // A reader who has seen enough of the help is no failure.
            drop(std::io::stdout().lock().write_all(shown.as_bytes()));
            ExitCode::Ok
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if !wants_json(args) => {
            drop(
                std::io::stderr()
                    .lock()
                    .write_all(error.render().to_string().as_bytes()),
            );
            ExitCode::Usage
        }
        // Every other kind is a command line that was not understood, those that clap will invent included.
        ErrorKind::InvalidValue | _ => {
            let colour = if wants_colour(args) {
                Colour::Auto
            } else {
                Colour::Never
            };
            Report::new(Voice {
                json: wants_json(args),
                quiet: false,
                verbose: 0,
                colour,
            })
            .failure(
                &Failure::new(ExitCode::Usage, cause(error, args)).with_cure(cure(error, args)),
            );
            ExitCode::Usage
        }
    }
}

/// Whether colours are not ruled out; the command line could not be parsed, so it is searched.
fn wants_colour(args: &[OsString]) -> bool {
    use std::io::IsTerminal;
    let never = args.iter().any(|arg| arg == "--color=never")
        || args
            .windows(2)
            .any(|pair| pair[0] == "--color" && pair[1] == "never");
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !never && !no_colour && std::io::stdout().is_terminal()
}

/// Whether `--json` stands where an option may stand.
fn wants_json(args: &[OsString]) -> bool {
    args.iter()
        .take_while(|arg| *arg != "--")
        .any(|arg| arg == "--json")
}

/// The first paragraph of clap's words, as one sentence.
fn cause(error: &clap::Error, args: &[OsString]) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Its first paragraph is what the verb is for.
        return format!("something is missing after `{}`", verb_of(args));
    }
    let rendered = error.render().to_string();
    let first: Vec<&str> = rendered
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let sentence = first.join(" ");
    let sentence = sentence.strip_prefix("error: ").unwrap_or(&sentence);
    // clap quotes as 'x'; this house quotes as `x`, and says of a number what it should be.
    sentence
        .replace('\'', "`")
        .replace(
            "invalid digit found in string",
            "a whole number is wanted here",
        )
        .replace(
            "cannot parse integer from empty string",
            "a whole number is wanted here",
        )
        .replace(
            "number too large to fit in target type",
            "the number is too large",
        )
}

/// The nearest word that would have been right, and where help stands.
fn cure(error: &clap::Error, args: &[OsString]) -> String {
    let help = format!("{} --help", command_path(error, args));
    let near = [
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedArg,
        ContextKind::SuggestedValue,
    ]
    .into_iter()
    .find_map(|kind| error.get(kind));
    let nearest = match near {
        Some(ContextValue::String(one)) => Some(one),
        // clap puts the most similar one last.
        Some(ContextValue::Strings(several)) => several.last(),
        Some(_) | None => None,
    };
    match nearest {
        Some(word) => format!("did you mean {word}? {help}"),
        None => match command_after(error, args) {
            Some(command) => format!("the command comes after --: {command}; {help}"),
            None => help,
        },
    }
}

/// What was meant by a command that stands where `wg run` and `wg lock run` expect only flags.
fn command_after(error: &clap::Error, args: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let path = command_path(error, args);
    let runs = path.ends_with(" run") && error.kind() == ErrorKind::UnknownArgument;
    (runs && !given.starts_with('-')).then(|| format!("{path} -- {given}"))
}

/// `wg chat` of the usage line `Usage: wg chat [OPTIONS] …`, so that the help named is the nearest one.
fn command_path(error: &clap::Error, args: &[OsString]) -> String {
    let rendered = error.render().to_string();
    let Some(usage) = rendered
        .lines()
        .find_map(|line| line.trim().strip_prefix("Usage: "))
    else {
        // A value that is wrong is told without the usage.
        return verb_of(args);
    };
    let words: Vec<&str> = usage
        .split(' ')
        .take_while(|word| {
            word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
        })
        .collect();
    if words.is_empty() {
        "wg".to_owned()
    } else {
        words.join(" ")
    }
}

/// The verb that a command line begins with: `wg chat send`.
fn verb_of(args: &[OsString]) -> String {
    let root = Cli::command();
    let mut verb = &root;
    let mut path = "wg".to_owned();
    let mut words = args.iter().skip(1);
    while let Some(word) = words.next() {
        if word == "--dir" || word == "--color" {
            words.next();
        } else if !word.as_encoded_bytes().starts_with(b"-") {
            let Some(below) = verb.find_subcommand(word) else {
                break;
            };
            path.push(' ');
            path.push_str(below.get_name());
            verb = below;
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::{cause, cure};
    use crate::cli::args::Cli;
    use clap::Parser;
    use std::ffi::OsString;

    #[track_caller]
    fn told(args: &[&str], expected_cause: &str, expected_cure: &str) {
        let error = Cli::try_parse_from(args).expect_err("the command line is wrong");
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        assert_eq!(
            (cause(&error, &args).as_str(), cure(&error, &args).as_str()),
            (expected_cause, expected_cure)
        );
    }

    #[test]
    fn a_wrong_command_line_is_told_in_one_sentence_with_the_nearest_word() {
        told(
            &["wg", "lst"],
            "unrecognized subcommand `lst`",
            "did you mean list? wg --help",
        );
        told(
            &["wg", "service", "strat"],
            "unrecognized subcommand `strat`",
            "did you mean start? wg service --help",
        );
        told(
            &["wg", "chat", "stop"],
            "the following required arguments were not provided: <REF>",
            "wg chat stop --help",
        );
        told(
            &["wg", "list", "--jsn"],
            "unexpected argument `--jsn` found",
            "did you mean --json? wg list --help",
        );
    }

    #[test]
    fn a_command_without_its_dashes_is_told_where_it_belongs() {
        told(
            &["wg", "run", "make", "all"],
            "unexpected argument `make` found",
            "the command comes after --: wg run -- make; wg run --help",
        );
        told(
            &["wg", "lock", "run", "make"],
            "unexpected argument `make` found",
            "the command comes after --: wg lock run -- make; wg lock run --help",
        );
        told(
            &["wg", "run", "--nosuch", "--", "make"],
            "unexpected argument `--nosuch` found",
            "wg run --help",
        );
    }

    #[test]
    fn a_value_that_does_not_parse_names_the_help_of_its_own_verb() {
        told(
            &[
                "wg", "--dir", "chat", "session", "release", "0", "--wait", "soon",
            ],
            "invalid value `soon` for `--wait <TIME>`: a time is a number of seconds such as 10 or 0.5, or has a unit: 500ms, 30s, \
             2m, 1h",
            "wg session release --help",
        );
        told(
            &["wg", "chat", "read", "0", "-n", "abc"],
            "invalid value `abc` for `--last <N>`: a whole number is wanted here",
            "wg chat read --help",
        );
        told(
            &["wg", "--color", "pink", "list"],
            "invalid value `pink` for `--color <WHEN>` [possible values: auto, always, never]",
            "wg list --help",
        );
    }

    #[test]
    fn a_verb_that_needs_another_word_says_so_and_not_what_it_is_for() {
        told(
            &["wg", "--json", "migrate"],
            "something is missing after `wg migrate`",
            "wg migrate --help",
        );
    }
}
