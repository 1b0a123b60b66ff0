//! Rules about the Rust sources that clippy does not have.

use super::{Finding, Tree, code, is_markdown, is_rust};
use crate::workspace::Workspace;

/// A file longer than this is more than one thought.
const LONG: usize = 700;

/// Files that may be longer, each with the reason why it is one thought all the same.
const LONG_FILES: [(&str, &str); 0] = [];

pub(super) fn check(_: &Workspace, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, code) in tree.code() {
        findings.extend(sleeps(name, &code));
        findings.extend(skipped_tests(name, &code));
        findings.extend(test_only_fields(name, &code));
    }
    findings.extend(skipped_examples(tree));
    findings.extend(long(tree, &LONG_FILES));
    findings
}

/// A sleep is a guess about another process; wait for what it does instead.
fn sleeps(name: &str, code: &str) -> Vec<Finding> {
    const ALWAYS: [&str; 4] = ["sleep_ms", "usleep", "nanosleep", "clock_nanosleep"];
    let sleeps = code::words(code).filter(|(at, word)| {
        let imported = || {
            let line = code[..*at].rsplit('\n').next().unwrap_or_default();
            line.trim_start().starts_with("use ")
        };
        ALWAYS.contains(word) || *word == "sleep" && (code[..*at].ends_with("::") || imported())
    });
    let text = "waits by sleeping; wait for a byte, an exit or a channel, or pass the time in";
    sleeps
        .map(|(at, _)| Finding::at(name, code::line_of(code, at), text))
        .collect()
}

fn skipped_tests(name: &str, code: &str) -> Vec<Finding> {
    let attributes = code.match_indices("#[").filter_map(|(at, _)| {
        let inside = code[at + 2..].trim_start();
        let (_, word) = code::words(inside).next()?;
        ["ignore", "should_panic"]
            .contains(&word)
            .then_some((at, word))
    });
    attributes
        .map(|(at, word)| {
            let text = format!("`#[{word}]`: a test runs, and says what it expects");
            Finding::at(name, code::line_of(code, at), text)
        })
        .collect()
}

/// A type that has other fields under test is another type than the one that users get.
fn test_only_fields(name: &str, code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, word) in code::words(code) {
        if !["struct", "enum", "union"].contains(&word) {
            continue;
        }
        let Some(body) = body(code, at) else { continue };
        let start =
            at + word.len() + (body.as_ptr() as usize - code[at + word.len()..].as_ptr() as usize);
        for (inside, _) in body.match_indices("#[cfg") {
            let attribute = body[inside..].split(']').next().unwrap_or_default();
            if code::words(attribute).any(|(_, word)| word == "test") {
                let text = "a field exists only under test; users get another type than the tests";
                findings.push(Finding::at(name, code::line_of(code, start + inside), text));
            }
        }
    }
    findings
}

/// Returns what stands between the braces (or parentheses) of the type whose keyword is at `at`.
fn body(code: &str, at: usize) -> Option<&str> {
    let open = at + code[at..].find(['{', '(', ';'])?;
    let (opening, closing) = match code[open..].chars().next()? {
        '{' => ('{', '}'),
        '(' => ('(', ')'),
        _ => return None,
    };
    let mut depth = 0_usize;
    for (offset, c) in code[open..].char_indices() {
        if c == opening {
            depth += 1;
        } else if c == closing {
            depth -= 1;
            if depth == 0 {
                return Some(&code[open + 1..open + offset]);
            }
        }
    }
    None
}

/// An example in the docs that nobody compiles stops being true.
fn skipped_examples(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let documents = tree
        .iter()
        .filter(|(name, _)| is_rust(name) || is_markdown(name));
    for (name, text) in documents {
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_start().trim_start_matches(['/', '!', ' ']);
            let Some(words) = line.strip_prefix("```") else {
                continue;
            };
            let skipped = words
                .split(',')
                .any(|word| ["ignore", "should_panic"].contains(&word.trim()));
            if skipped {
                let text = "the example is not run; `no_run` at least compiles it";
                findings.push(Finding::at(name, number, text));
            }
        }
    }
    findings
}

fn long(tree: &Tree, allowed: &[(&str, &str)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, text) in tree.iter().filter(|(name, _)| is_rust(name)) {
        let lines = text.lines().count();
        let reason = allowed.iter().find(|(file, _)| *file == name);
        match (lines > LONG, reason) {
            (true, None) => findings.push(Finding::of_file(
                name,
                format!("has {lines} lines, more than {LONG}: split it, or say why not in the list of `tidy`"),
            )),
            (true, Some((_, ""))) => findings.push(Finding::of_file(
                name,
                "is in the list of long files without a reason",
            )),
            (false, Some(_)) => findings.push(Finding::of_file(
                name,
                "is in the list of long files and is not long any more",
            )),
            (true, Some(_)) | (false, None) => {}
        }
    }
    for (name, _) in allowed.iter().filter(|(name, _)| tree.text(name).is_none()) {
        findings.push(Finding::of_file(
            *name,
            "is in the list of long files and does not exist",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::samples::{texts, tree};
    use super::*;

    #[track_caller]
    fn lines(rule: fn(&str, &str) -> Vec<Finding>, source: &str, expected: &[usize]) {
        let found = rule("a.rs", &code::only(source));
        let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, expected, "{source}");
    }

    #[test]
    fn every_way_to_sleep_is_found() {
        lines(sleeps, "fn f() {\n    thread::sleep(d);\n}", &[2]);
        lines(sleeps, "use std::thread::{self, sleep};\nsleep(d);", &[1]);
        lines(
            sleeps,
            "std::thread::sleep_ms(1); libc::usleep(1);",
            &[1, 1],
        );
    }

    #[test]
    fn a_sentence_or_a_program_about_sleeping_is_no_sleep() {
        lines(
            sleeps,
            "// thread::sleep\nCommand::new(\"sleep\"); let sleep = 1;",
            &[],
        );
    }

    #[test]
    fn a_test_that_is_skipped_or_wants_a_panic_is_found() {
        lines(
            skipped_tests,
            "#[test]\n#[ignore = \"slow\"]\nfn f() {}\n#[should_panic]\nfn g() {}",
            &[2, 4],
        );
        lines(skipped_tests, "#[test]\nfn ignore() {}", &[]);
    }

    #[test]
    fn a_field_that_exists_only_under_test_is_found() {
        lines(
            test_only_fields,
            "struct A {\n    a: u8,\n    #[cfg(test)]\n    b: u8,\n}",
            &[3],
        );
        lines(
            test_only_fields,
            "enum A {\n    #[cfg(any(test, unix))]\n    B,\n}",
            &[2],
        );
        lines(
            test_only_fields,
            "struct A(u8, #[cfg(not(test))] u8);",
            &[1],
        );
    }

    #[test]
    fn other_conditions_and_test_modules_are_fine() {
        lines(
            test_only_fields,
            "struct A {\n    #[cfg(unix)]\n    a: u8,\n}\n#[cfg(test)]\nmod tests {}\nstruct B;\n",
            &[],
        );
    }

    #[test]
    fn an_example_that_is_not_compiled_is_found() {
        let tree = tree(&[
            ("a.rs", "/// ```ignore\n/// x\n/// ```\n"),
            ("b.md", "```rust,should_panic\n```\n```no_run\n```\n"),
        ]);
        let found = skipped_examples(&tree);
        let places: Vec<_> = found.iter().map(|f| (f.file.as_str(), f.line)).collect();
        assert_eq!(places, [("a.rs", 1), ("b.md", 1)]);
    }

    #[test]
    fn a_long_file_needs_a_reason_and_a_reason_needs_a_long_file() {
        let text = "x\n".repeat(LONG + 1);
        let tree = tree(&[("a.rs", &text), ("b.rs", "x\n"), ("c.rs", &text)]);
        let found = long(&tree, &[("b.rs", "r"), ("c.rs", "r"), ("d.rs", "r")]);
        let found = texts(&found);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("a.rs: has 701 lines"));
        assert!(found[1].starts_with("b.rs: is in the list"));
        assert!(found[2].starts_with("d.rs: is in the list"));
    }
}
