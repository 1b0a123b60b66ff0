//! The files of the repository, found without asking git: the checks also run in an unpacked archive.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::Failure;

/// What git keeps for itself, and what `.gitignore` names: nothing there was written by a person.
const SKIPPED: [&str; 3] = [".git", "target", ".wg"];

/// Reads a file as text; the failure names it.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("failed to read `{}`: {error}", path.display())))
}

/// Returns every regular file below `dir`, sorted. Symbolic links are returned too, never followed.
pub(crate) fn below(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        let entries = fs::read_dir(&dir).map_err(|error| {
            Failure::new(format!("failed to list `{}`: {error}", dir.display()))
        })?;
        for entry in entries {
            let entry = entry.map_err(|error| {
                Failure::new(format!("failed to list `{}`: {error}", dir.display()))
            })?;
            // In a second worktree `.git` is a file.
            if SKIPPED.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}
