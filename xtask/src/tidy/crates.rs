//! What every published crate carries: papers, manifest fields, an example, its own changelog.

use super::{Finding, Tree, folder};
use crate::json::Json;
use crate::workspace::{Package, Workspace};

/// Papers that lie beside each manifest.
const PAPERS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];

pub(super) fn check(workspace: &Workspace, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in workspace.published() {
        let folder = folder(workspace, package);
        findings.extend(papers(package, &folder, tree));
        findings.extend(manifest(package, &folder, tree));
        findings.extend(changelog(package, &folder, tree));
        findings.extend(dependencies(workspace, package, &folder));
    }
    for package in workspace.libraries() {
        if package.targets_of("example").next().is_none() {
            let folder = folder(workspace, package);
            findings.push(Finding::of_file(folder, "the library has no example"));
        }
    }
    findings
}

fn papers(package: &Package, folder: &str, tree: &Tree) -> Vec<Finding> {
    let missing = PAPERS
        .iter()
        .map(|paper| format!("{folder}/{paper}"))
        .filter(|path| tree.text(path).is_none())
        .map(|path| Finding::of_file(path, "is missing"));
    let mut findings: Vec<Finding> = missing.collect();
    let lib = format!("{folder}/src/lib.rs");
    let included = "#![doc = include_str!(\"../README.md\")]";
    if package.targets_of("bin").next().is_none()
        && !tree.text(&lib).is_some_and(|text| text.contains(included))
    {
        let text = format!("the crate docs are not the README: `{included}` is missing");
        findings.push(Finding::of_file(lib, text));
    }
    findings
}

fn manifest(package: &Package, folder: &str, tree: &Tree) -> Vec<Finding> {
    let path = format!("{folder}/Cargo.toml");
    let record = &package.record;
    let mut faults = Vec::new();
    for field in [
        "description",
        "license",
        "repository",
        "readme",
        "rust_version",
    ] {
        if record.get(field).text().is_none() {
            faults.push(format!("`{}` is missing", field.replace('_', "-")));
        }
    }
    if !(1..=5).contains(&record.get("keywords").list().len()) {
        faults.push("there are not 1 to 5 `keywords`".to_owned());
    }
    if record.get("categories").list().is_empty() {
        faults.push("`categories` is missing".to_owned());
    }
    let docs_rs = record.get("metadata").get("docs").get("rs");
    if *docs_rs.get("all-features") != Json::Bool(true) {
        faults.push("`package.metadata.docs.rs.all-features` is not true".to_owned());
    }
    // Cargo does not report these two, so they are looked up in the text.
    let text = tree.text(&path).unwrap_or_default();
    if !text.lines().any(|line| line.starts_with("include = [")) {
        faults.push("`include` does not say which files are packed".to_owned());
    }
    if !text.contains("[lints]\nworkspace = true") {
        faults.push("`[lints]` is not the one of the workspace".to_owned());
    }
    let findings = faults.into_iter();
    findings
        .map(|fault| Finding::of_file(&path, fault))
        .collect()
}

fn changelog(package: &Package, folder: &str, tree: &Tree) -> Vec<Finding> {
    let path = format!("{folder}/CHANGELOG.md");
    let text = tree.text(&path).unwrap_or_default();
    let mut headings = text.lines().filter_map(|line| line.strip_prefix("## "));
    let mut findings = Vec::new();
    if headings.next() != Some("Unreleased") {
        let text = "the first heading is not `## Unreleased`";
        findings.push(Finding::of_file(&path, text));
    }
    // A heading may carry the date: `## 0.1.0 (2026-11-21)`.
    let current =
        |heading: &str| heading.split_whitespace().next() == Some(package.version.as_str());
    if !headings.any(current) {
        let text = format!("there is no heading for the version {}", package.version);
        findings.push(Finding::of_file(&path, text));
    }
    findings
}

fn dependencies(workspace: &Workspace, package: &Package, folder: &str) -> Vec<Finding> {
    let path = format!("{folder}/Cargo.toml");
    let mut findings = Vec::new();
    for dependency in package.dependencies.iter().filter(|own| own.normal) {
        let name = &dependency.name;
        let sibling = workspace.package(name).is_some();
        if !sibling && dependency.default_features {
            let text = format!("`{name}` is taken with its default features");
            findings.push(Finding::of_file(&path, text));
        }
        if dependency.requirement == "*" {
            let text = format!("`{name}` is taken in any version");
            findings.push(Finding::of_file(&path, text));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::samples::{package, texts, tree, workspace};
    use super::*;
    use crate::workspace::{Dependency, Target};

    const MANIFEST: &str = "include = [\"/src\"]\n\n[lints]\nworkspace = true\n";
    const LIB: &str = "#![doc = include_str!(\"../README.md\")]\n";
    const LOG: &str = "# Changelog\n\n## Unreleased\n\n## 0.1.0 (2026-11-21)\n";

    fn whole() -> Package {
        let mut package = package("lock");
        let record = r#"{"description": "d", "license": "l", "repository": "r", "readme": "README.md",
            "rust_version": "1.89", "keywords": ["k"], "categories": ["c"],
            "metadata": {"docs": {"rs": {"all-features": true}}}}"#;
        package.record = Json::parse(record).unwrap();
        package.targets = vec![Target {
            name: "hold".to_owned(),
            kind: vec!["example".to_owned()],
        }];
        package
    }

    fn files(log: &'static str) -> Vec<(&'static str, &'static str)> {
        vec![
            ("lock/Cargo.toml", MANIFEST),
            ("lock/src/lib.rs", LIB),
            ("lock/README.md", ""),
            ("lock/CHANGELOG.md", log),
            ("lock/LICENSE-APACHE", ""),
            ("lock/LICENSE-MIT", ""),
        ]
    }

    #[test]
    fn a_whole_crate_has_no_findings() {
        let found = check(&workspace(vec![whole()]), &tree(&files(LOG)));
        assert_eq!(texts(&found), Vec::<String>::new());
    }

    #[test]
    fn a_crate_without_anything_is_told_everything_that_it_lacks() {
        let found = check(&workspace(vec![package("lock")]), &tree(&[]));
        let found = texts(&found).join("\n");
        for needle in [
            "lock/README.md: is missing",
            "lock/CHANGELOG.md: is missing",
            "lock/LICENSE-APACHE: is missing",
            "lock/LICENSE-MIT: is missing",
            "the crate docs are not the README",
            "`description` is missing",
            "`license` is missing",
            "`repository` is missing",
            "`readme` is missing",
            "`rust-version` is missing",
            "`keywords`",
            "`categories` is missing",
            "all-features` is not true",
            "`include` does not say",
            "`[lints]` is not",
            "not `## Unreleased`",
            "no heading for the version 0.1.0",
            "lock: the library has no example",
        ] {
            assert!(found.contains(needle), "{needle}\n{found}");
        }
    }

    #[test]
    fn the_current_version_stands_in_the_changelog_under_unreleased() {
        let late = "# Changelog\n\n## 0.1.0\n\n## Unreleased\n";
        let found = check(&workspace(vec![whole()]), &tree(&files(late)));
        assert_eq!(
            texts(&found),
            [
                "lock/CHANGELOG.md: the first heading is not `## Unreleased`",
                "lock/CHANGELOG.md: there is no heading for the version 0.1.0",
            ]
        );
    }

    #[test]
    fn a_dependency_with_default_features_or_without_a_version_is_found() {
        let mut package = whole();
        package.dependencies = vec![Dependency {
            name: "log".to_owned(),
            requirement: "*".to_owned(),
            default_features: true,
            normal: true,
        }];
        let found = check(&workspace(vec![package]), &tree(&files(LOG)));
        assert_eq!(
            texts(&found),
            [
                "lock/Cargo.toml: `log` is taken with its default features",
                "lock/Cargo.toml: `log` is taken in any version",
            ]
        );
    }
}
