//! The shape of the workspace: a star of crates that stand alone, and what may never enter it.

use super::{Finding, Tree, folder};
use crate::workspace::Workspace;

/// Threads and channels are enough here; these would bring a second way to wait.
const RUNTIMES: [&str; 8] = [
    "tokio",
    "async-std",
    "smol",
    "async-executor",
    "async-global-executor",
    "futures-executor",
    "actix-rt",
    "glommio",
];

/// Where every dependency comes from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(super) fn check(workspace: &Workspace, tree: &Tree) -> Vec<Finding> {
    let mut findings = star(workspace);
    findings.extend(unpublished(workspace, tree));
    findings.extend(lock_file(tree));
    findings
}

fn star(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in workspace.libraries() {
        let siblings = package
            .dependencies
            .iter()
            .filter(|dependency| workspace.package(&dependency.name).is_some());
        findings.extend(siblings.map(|sibling| {
            Finding::of_file(
                manifest(workspace, package),
                format!(
                    "`{}` depends on its sibling `{}`; only wg-cli joins crates",
                    package.name, sibling.name
                ),
            )
        }));
    }
    if let Some(xtask) = workspace.package("xtask") {
        findings.extend(xtask.dependencies.iter().map(|dependency| {
            Finding::of_file(
                manifest(workspace, xtask),
                format!(
                    "xtask depends on `{}`; it builds with std only",
                    dependency.name
                ),
            )
        }));
    }
    findings
}

fn unpublished(workspace: &Workspace, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(xtask) = workspace.package("xtask").filter(|xtask| xtask.published) {
        let text = "xtask is not `publish = false`";
        findings.push(Finding::of_file(manifest(workspace, xtask), text));
    }
    let benches = tree
        .iter()
        .filter(|(name, _)| name.starts_with("bench/") && name.ends_with("/Cargo.toml"));
    for (name, text) in benches {
        let is_package = text.lines().any(|line| line.trim() == "[package]");
        let kept = text.lines().any(|line| line.trim() == "publish = false");
        if is_package && !kept {
            findings.push(Finding::of_file(name, "a bench is not `publish = false`"));
        }
    }
    findings
}

fn lock_file(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.text("Cargo.lock") else {
        return vec![Finding::of_file("Cargo.lock", "is not in the repository")];
    };
    let value_of = |line: &str, key: &str| {
        let value = line.strip_prefix(key)?.strip_prefix(" = \"")?;
        Some(value.strip_suffix('"')?.to_owned())
    };
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(name) = value_of(line, "name").filter(|name| RUNTIMES.contains(&name.as_str()))
        {
            let text = format!("`{name}` is an async runtime");
            findings.push(Finding::at("Cargo.lock", number, text));
        }
        if let Some(source) = value_of(line, "source").filter(|source| source != REGISTRY) {
            let text = format!("`{source}` is not the public registry");
            findings.push(Finding::at("Cargo.lock", number, text));
        }
    }
    findings
}

fn manifest(workspace: &Workspace, package: &crate::workspace::Package) -> String {
    format!("{}/Cargo.toml", folder(workspace, package))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{package, texts, tree, workspace};
    use super::*;
    use crate::workspace::{Dependency, Target};

    fn on(name: &str) -> Dependency {
        Dependency {
            name: name.to_owned(),
            requirement: "^1".to_owned(),
            default_features: false,
            normal: true,
        }
    }

    #[test]
    fn a_library_that_depends_on_a_sibling_is_found() {
        let mut queue = package("queue");
        queue.dependencies = vec![on("log"), on("lock")];
        let mut program = package("program");
        program.dependencies = vec![on("queue"), on("lock")];
        program.targets = vec![Target {
            name: "p".to_owned(),
            kind: vec!["bin".to_owned()],
        }];
        let found = star(&workspace(vec![package("lock"), queue, program]));
        assert_eq!(
            texts(&found),
            ["queue/Cargo.toml: `queue` depends on its sibling `lock`; only wg-cli joins crates"]
        );
    }

    #[test]
    fn a_chore_with_a_dependency_or_bound_for_the_registry_is_found() {
        let mut xtask = package("xtask");
        xtask.dependencies = vec![on("log")];
        let workspace = workspace(vec![xtask]);
        // It counts as a library too, because it is published here; its dependency is no sibling.
        assert_eq!(
            texts(&star(&workspace)),
            ["xtask/Cargo.toml: xtask depends on `log`; it builds with std only"]
        );
        assert_eq!(
            texts(&unpublished(&workspace, &tree(&[]))),
            ["xtask/Cargo.toml: xtask is not `publish = false`"]
        );
    }

    #[test]
    fn a_bench_bound_for_the_registry_is_found() {
        let tree = tree(&[
            ("bench/lock/Cargo.toml", "[package]\nname = \"b\"\n"),
            ("bench/queue/Cargo.toml", "[package]\npublish = false\n"),
            ("bench/Cargo.toml", "[workspace]\n"),
        ]);
        assert_eq!(
            texts(&unpublished(&workspace(vec![]), &tree)),
            ["bench/lock/Cargo.toml: a bench is not `publish = false`"]
        );
    }

    #[test]
    fn a_runtime_and_a_foreign_registry_in_the_lock_file_are_found() {
        let lock = format!(
            "name = \"tokio\"\nsource = \"{REGISTRY}\"\n\nname = \"log\"\nsource = \"git+https://example.org/log\"\n"
        );
        assert_eq!(
            texts(&lock_file(&tree(&[("Cargo.lock", &lock)]))),
            [
                "Cargo.lock:1: `tokio` is an async runtime",
                "Cargo.lock:5: `git+https://example.org/log` is not the public registry",
            ]
        );
    }
}
