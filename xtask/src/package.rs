//! Packs the published crates, builds each from its tarball, and looks at what would be uploaded.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

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

/// Where the tarballs are unpacked and built, below the target folder.
const UNPACKED: &str = "packed";

pub(crate) fn run(workspace: &Workspace) -> Result<(), Failure> {
    let mut cargo = command::cargo(&workspace.root);
    cargo.args(["package", "--workspace", "--no-verify"]);
    cargo.args(["--allow-dirty", "--locked"]);
    for package in &workspace.packages {
        if !package.published {
            cargo.args(["--exclude", &package.name]);
        }
    }
    command::run(&mut cargo)?;
    let unpacked = unpack(workspace)?;
    build(workspace, &unpacked)?;

    let mut faults = Vec::new();
    for package in workspace.published() {
        let folder = folder(package);
        let unpacked = unpacked.join(&folder);
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

/// The folder inside a package's tarball, which bears the name of the file as well.
fn folder(package: &Package) -> String {
    format!("{}-{}", package.name, package.version)
}

/// Unpacks every tarball into a folder that holds nothing else, and returns the folder.
fn unpack(workspace: &Workspace) -> Result<PathBuf, Failure> {
    let unpacked = workspace.target.join(UNPACKED);
    let failed = |error: io::Error| {
        Failure::new(format!("failed to empty `{}`: {error}", unpacked.display()))
    };
    match fs::remove_dir_all(&unpacked) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => fs::create_dir_all(&unpacked).map_err(failed)?,
    }
    for package in workspace.published() {
        let tarball = format!("{}.crate", folder(package));
        let mut tar = Command::new("tar");
        // In a tarball all files are of one instant in 2006, which cargo would take for "built already".
        tar.args(["--extract", "--gzip", "--touch", "--file"]);
        tar.arg(workspace.target.join("package").join(tarball));
        tar.arg("--directory").arg(&unpacked);
        command::run(&mut tar)?;
    }
    Ok(unpacked)
}

/// Builds the unpacked crates, each against the others.
///
/// Cargo's own check of a tarball takes the other crates of the workspace from `CARGO_HOME`, where it unpacks
/// a version once and for ever. After a change without a new version it builds against what an earlier run
/// left there, if that run was in the same folder.
fn build(workspace: &Workspace, unpacked: &Path) -> Result<(), Failure> {
    let published: Vec<&Package> = workspace.published().collect();
    let manifest = unpacked.join("Cargo.toml");
    let failed = |error: io::Error| {
        Failure::new(format!(
            "failed to prepare `{}`: {error}",
            manifest.display()
        ))
    };
    fs::write(&manifest, manifest_of(&published)).map_err(failed)?;
    fs::copy(
        workspace.root.join("Cargo.lock"),
        unpacked.join("Cargo.lock"),
    )
    .map_err(failed)?;

    // One at a time: together, each would be built with the features that only another one asks for.
    for package in published {
        let mut cargo = command::cargo(&workspace.root);
        cargo.args(["build", "--package", &package.name, "--manifest-path"]);
        cargo.arg(&manifest);
        cargo.arg("--target-dir").arg(&workspace.target);
        // The unpacked crates have left the workspace and its profile behind; with the same debug setting
        // they find the dependencies already built. If the two drift apart, this job only takes longer.
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
        command::run(&mut cargo)?;
    }
    Ok(())
}

/// The manifest of a workspace in which the packages, asked for by version, find each other.
fn manifest_of(packages: &[&Package]) -> String {
    let members: Vec<String> = packages
        .iter()
        .map(|package| format!("{:?}", folder(package)))
        .collect();
    let patches: Vec<String> = packages
        .iter()
        .map(|package| format!("{} = {{ path = {:?} }}", package.name, folder(package)))
        .collect();
    format!(
        "[workspace]\nresolver = \"3\"\nmembers = [{}]\n\n[patch.crates-io]\n{}\n",
        members.join(", "),
        patches.join("\n")
    )
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
    fn packages_that_ask_for_each_other_by_version_find_the_unpacked_ones() {
        let packages = ["one", "two"].map(crate::tidy::samples::package);
        assert_eq!(
            manifest_of(&[&packages[0], &packages[1]]),
            concat!(
                "[workspace]\n",
                "resolver = \"3\"\n",
                "members = [\"one-0.1.0\", \"two-0.1.0\"]\n",
                "\n",
                "[patch.crates-io]\n",
                "one = { path = \"one-0.1.0\" }\n",
                "two = { path = \"two-0.1.0\" }\n",
            )
        );
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
