//! Words that say something only where they were written: the folders of somebody's machine, papers
//! that are not in the repository, numbers of a tracker that a reader does not have.

use super::{Finding, Tree, is_markdown, is_rust};
use crate::workspace::Workspace;

/// Top-level folders in which people and build machines keep their own things.
const PRIVATE: [&str; 4] = ["home", "root", "work", "Users"];

/// Cargo writes it; its contents have rules of their own in `topology`.
const GENERATED: &str = "Cargo.lock";

pub(super) fn check(_: &Workspace, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, text) in tree.iter().filter(|(name, _)| !name.ends_with(GENERATED)) {
        for (number, line) in (1..).zip(text.lines()) {
            let found = private_folder(line)
                .into_iter()
                .chain(missing_paper(name, line, tree))
                .chain(tracker_number(line));
            findings.extend(found.map(|text| Finding::at(name, number, text)));
        }
    }
    findings
}

/// Finds an absolute path into a private folder. `/proc/1/root/` and `target/work/` are none.
fn private_folder(line: &str) -> Option<String> {
    PRIVATE.iter().find_map(|folder| {
        let path = format!("/{folder}/");
        let inside_a_path = |c: char| c.is_alphanumeric() || "._-~}*".contains(c);
        line.match_indices(&path)
            .any(|(at, _)| !line[..at].ends_with(inside_a_path))
            .then(|| format!("`{path}…` is a folder of somebody's machine"))
    })
}

/// Finds the name of a Markdown file that the reader of the repository does not have.
fn missing_paper(file: &str, line: &str, tree: &Tree) -> Option<String> {
    // A string in a program may well name a file that the program makes; a comment refers the reader to it.
    let line = if is_rust(file) {
        line.split_once("//")?.1
    } else {
        line
    };
    let part = |c: char| c.is_alphanumeric() || "_./-".contains(c);
    line.split(|c| !part(c))
        .map(|token| token.trim_end_matches('.'))
        .filter(|token| is_markdown(token))
        // Two slashes begin the rest of a web address.
        .filter(|token| !token.starts_with("//"))
        .find(|token| !paper_exists(file, token, tree))
        .map(|token| format!("`{token}` is no file of this repository"))
}

/// A paper may be named from the folder of the file, from any folder above it, or from the root.
fn paper_exists(file: &str, named: &str, tree: &Tree) -> bool {
    let mut folders: Vec<&str> = file.split('/').collect();
    loop {
        folders.pop();
        let mut path = folders.clone();
        for part in named.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(path.pop()),
                part => path.push(part),
            }
        }
        if tree.text(&path.join("/")).is_some() {
            return true;
        }
        if folders.is_empty() {
            return false;
        }
    }
}

/// Finds the number of an issue without an address: which tracker would that be?
fn tracker_number(line: &str) -> Option<String> {
    let lower = line.to_ascii_lowercase();
    let followed = |(at, word): (usize, &str)| {
        let rest = lower[at + word.len()..].trim_start_matches(['#', ' ']);
        let apart = lower[at + word.len()..].starts_with(' ');
        apart && rest.starts_with(|c: char| c.is_ascii_digit())
    };
    lower
        .match_indices("issue")
        .any(followed)
        .then(|| "the number of an issue says nothing without its address".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::samples::tree;
    use super::*;

    #[test]
    fn an_absolute_path_into_a_private_folder_is_found() {
        for folder in PRIVATE {
            let line = format!("see /{folder}/me/notes");
            assert!(private_folder(&line).is_some(), "{line}");
            let line = format!("PATH=\"/{folder}/me\"");
            assert!(private_folder(&line).is_some(), "{line}");
        }
    }

    #[test]
    fn the_same_folder_inside_another_path_is_fine() {
        for folder in PRIVATE {
            for before in ["/proc/1", "target", "~", "{dir}", "../.."] {
                let line = format!("see {before}/{folder}/x");
                assert!(private_folder(&line).is_none(), "{line}");
            }
        }
    }

    #[test]
    fn a_paper_that_the_reader_does_not_have_is_found() {
        let tree = tree(&[("README.md", ""), ("lock/README.md", "")]);
        let is_missing = |line: &str| missing_paper("lock/src/lib.rs", line, &tree).is_some();
        let absent = concat!("// As formats", ".md says.");
        assert!(is_missing(absent));
        assert!(!is_missing("write(\"notes.md\")"));
        assert!(!is_missing("/// Look at README.md and ../README.md."));
        assert!(!is_missing("// every .md and *.md"));
        let in_a_paper = |line: &str| missing_paper("lock/README.md", line, &tree).is_some();
        assert!(in_a_paper(concat!("[a](docs/README", ".md)")));
        assert!(!in_a_paper(concat!("https://example.org/other", ".md")));
    }

    #[test]
    fn a_number_of_a_tracker_is_found() {
        assert!(tracker_number(concat!("see issue", " 2")).is_some());
        assert!(tracker_number(concat!("Fixes Issue", " #14.")).is_some());
        assert!(tracker_number("the issues of incident 1").is_none());
    }
}
