//! The rules of this repository that no compiler knows. Each rule is a function from the workspace and
//! its files to findings, so that each can be shown a broken repository in a test.

mod code;
mod crates;
mod papers;
mod sources;
mod starters;
mod topology;
mod words;

use std::fmt;
use std::path::Path;

use crate::command::{self, Failure};
use crate::files;
use crate::workspace::{Package, Workspace};

/// One broken rule at one place.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// Path relative to the root.
    file: String,
    /// Counted from 1; 0 where the whole file is meant.
    line: usize,
    text: String,
}

impl Finding {
    fn of_file(file: impl Into<String>, text: impl Into<String>) -> Self {
        Self::at(file, 0, text)
    }

    fn at(file: impl Into<String>, line: usize, text: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line,
            text: text.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.file, self.text)
        } else {
            write!(f, "{}:{}: {}", self.file, self.line, self.text)
        }
    }
}

/// Every text file of the repository with its path relative to the root, `/` between the parts.
#[derive(Debug, Default)]
struct Tree {
    files: Vec<(String, String)>,
}

impl Tree {
    fn read(root: &Path) -> Result<Self, Failure> {
        let mut tree = Self::default();
        for path in files::below(root)? {
            let name = path
                .strip_prefix(root)
                .expect("because every path was found below the root");
            let name = name.to_string_lossy().into_owned();
            // What is not UTF-8 has no lines to check.
            if let Ok(text) = std::fs::read_to_string(&path) {
                tree.files.push((name, text));
            }
        }
        Ok(tree)
    }

    fn text(&self, name: &str) -> Option<&str> {
        let found = self.files.iter().find(|(own, _)| own == name);
        found.map(|(_, text)| text.as_str())
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let files = self.files.iter();
        files.map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// Returns the Rust sources, with what is code in them and nothing else.
    fn code(&self) -> impl Iterator<Item = (&str, String)> {
        let rust = self.iter().filter(|(name, _)| is_rust(name));
        rust.map(|(name, text)| (name, code::only(text)))
    }
}

fn is_rust(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end == "rs")
}

fn is_markdown(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end == "md")
}

/// Returns the folder of a package relative to the root.
fn folder(workspace: &Workspace, package: &Package) -> String {
    let dir = package.dir.strip_prefix(&workspace.root);
    dir.unwrap_or(&package.dir).to_string_lossy().into_owned()
}

fn check(workspace: &Workspace, tree: &Tree) -> Vec<Finding> {
    let rules: [fn(&Workspace, &Tree) -> Vec<Finding>; 6] = [
        topology::check,
        crates::check,
        sources::check,
        starters::check,
        words::check,
        papers::check,
    ];
    let mut findings: Vec<Finding> = rules
        .iter()
        .flat_map(|rule| rule(workspace, tree))
        .collect();
    findings.sort();
    findings
}

pub(crate) fn run(workspace: &Workspace) -> Result<(), Failure> {
    let tree = Tree::read(&workspace.root)?;
    let findings = check(workspace, &tree);
    if findings.is_empty() {
        command::say(format_args!("tidy: {} files are fine", tree.files.len()));
        return Ok(());
    }
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    Err(Failure::new(format!(
        "{} rules are broken\n{}",
        lines.len(),
        lines.join("\n")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repository_is_tidy() {
        let workspace = Workspace::load().unwrap();
        if let Err(failure) = run(&workspace) {
            panic!("{failure}");
        }
    }
}

#[cfg(test)]
pub(crate) mod samples {
    //! Small repositories for the tests of the rules.

    use super::{Finding, Tree};
    use crate::json::Json;
    use crate::workspace::{Package, Workspace};
    use std::path::{Path, PathBuf};

    pub(super) fn tree(files: &[(&str, &str)]) -> Tree {
        let files = files.iter();
        Tree {
            files: files
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect(),
        }
    }

    pub(super) fn workspace(packages: Vec<Package>) -> Workspace {
        Workspace {
            root: PathBuf::from("/r"),
            target: PathBuf::from("/r/target"),
            packages,
        }
    }

    pub(crate) fn package(name: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            dir: Path::new("/r").join(name),
            published: true,
            dependencies: Vec::new(),
            targets: Vec::new(),
            record: Json::Null,
        }
    }

    pub(super) fn texts(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(Finding::to_string).collect()
    }
}
