//! Packs the published crates, builds each from its tarball, and looks at what would be uploaded.

use std::fs;
use std::path::Path;

use crate::command::{self, Failure};
use crate::files;
use crate::workspace::{Package, Workspace};

/// Files that a user of the crate needs, whatever the crate is.
const NEEDED: [&str; 6] = [
    "Cargo.toml",
    "README.md",
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "src/lib.rs",
];

/// Files that cargo adds by itself.
const ADDED: [&str; 3] = ["Cargo.toml.orig", "Cargo.lock", ".cargo_vcs_info.json"];

/// Folders that may be packed; everything in them must be one of `ENDINGS`.
const FOLDERS: [&str; 3] = ["src", "examples", "tests"];

/// Below these folders anything is packed: expected outputs, and samples of what lies on a user's disk, which
/// look as they do there, without an ending and in hidden folders.
const SAMPLES: [&str; 2] = ["tests/fixtures/", "tests/golden/"];

/// What source, tests and their golden files end in.
const ENDINGS: [&str; 8] = ["rs", "md", "json", "jsonl", "txt", "toml", "py", "sh"];

pub(crate) fn run(workspace: &Workspace) -> Result<(), Failure> {
    let mut cargo = command::cargo(&workspace.root);
    cargo.args(["package", "--workspace", "--allow-dirty", "--locked"]);
    // A packed crate has left the workspace and its profile behind; with the same debug setting it finds
    // the dependencies already built. If the two drift apart, this job only takes longer.
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    for package in &workspace.packages {
        if !package.published {
            cargo.args(["--exclude", &package.name]);
        }
    }
    command::run(&mut cargo)?;

    let mut faults = Vec::new();
    for package in workspace.published() {
        // Cargo has unpacked each tarball here in order to build it.
        let folder = format!("{}-{}", package.name, package.version);
        let unpacked = workspace.target.join("package").join(&folder);
        let names = names(&unpacked)?;
        command::say(format_args!("{folder}.crate: {} files", names.len()));
        for name in &names {
            command::say(format_args!("  {name}"));
        }
        let found = faults_of(&names).into_iter().chain(links(&unpacked)?);
        let found = found.chain(licences(workspace, package, &unpacked));
        faults.extend(found.map(|fault| format!("{folder}.crate: {fault}")));
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(faults.join("\n")))
    }
}

fn names(unpacked: &Path) -> Result<Vec<String>, Failure> {
    let files = files::below(unpacked)?;
    let names = files.iter().filter_map(|path| {
        let path = path.strip_prefix(unpacked).ok()?;
        Some(path.to_string_lossy().into_owned())
    });
    Ok(names.collect())
}

/// Compares the names in a tarball with what belongs there.
fn faults_of(names: &[String]) -> Vec<String> {
    let missing = NEEDED
        .iter()
        .filter(|needed| !names.iter().any(|name| name == *needed))
        .map(|needed| format!("`{needed}` is missing"));
    let junk = names
        .iter()
        .filter(|name| !belongs(name))
        .map(|name| format!("`{name}` does not belong there"));
    missing.chain(junk).collect()
}

fn belongs(name: &str) -> bool {
    if NEEDED.contains(&name) || ADDED.contains(&name) {
        return true;
    }
    if SAMPLES.iter().any(|folder| name.starts_with(folder)) {
        return true;
    }
    let folder = name.split('/').next().unwrap_or_default();
    let ending = Path::new(name).extension().and_then(|e| e.to_str());
    let hidden = name.split('/').any(|part| part.starts_with('.'));
    FOLDERS.contains(&folder) && ENDINGS.contains(&ending.unwrap_or_default()) && !hidden
}

/// A symbolic link in a tarball points to nothing once it is unpacked somewhere else.
fn links(unpacked: &Path) -> Result<Vec<String>, Failure> {
    let files = files::below(unpacked)?;
    let links = files.iter().filter(|path| path.is_symlink());
    Ok(links
        .map(|path| format!("`{}` is a symbolic link", path.display()))
        .collect())
}

fn licences(workspace: &Workspace, package: &Package, unpacked: &Path) -> Vec<String> {
    let same = |name: &str| {
        let ours = fs::read(workspace.root.join(name)).ok();
        ours.is_some() && ours == fs::read(unpacked.join(name)).ok()
    };
    ["LICENSE-APACHE", "LICENSE-MIT"]
        .into_iter()
        .filter(|name| !same(name))
        .map(|name| format!("`{name}` of {} is not the project's", package.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(extra: &[&str]) -> Vec<String> {
        let all = NEEDED.iter().chain(extra);
        all.map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_plain_crate_has_no_faults() {
        let names = names(&[
            "Cargo.lock",
            "src/sys.rs",
            "tests/golden/text/why",
            "tests/fixtures/earlier/.chat-0/.cursor",
        ]);
        assert_eq!(faults_of(&names), Vec::<String>::new());
    }

    #[test]
    fn a_missing_file_and_every_piece_of_junk_is_named() {
        let mut names = names(&["notes.txt", "src/.main.rs.swp", "tests/core.1234"]);
        names.retain(|name| name != "LICENSE-MIT");
        assert_eq!(
            faults_of(&names),
            [
                "`LICENSE-MIT` is missing",
                "`notes.txt` does not belong there",
                "`src/.main.rs.swp` does not belong there",
                "`tests/core.1234` does not belong there",
            ]
        );
    }
}
