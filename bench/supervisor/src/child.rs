//! The child: a small program in C, so that its own start is as little of each figure as can be.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = include_str!("child.c");

/// Makes the child in this directory and returns its path.
pub(crate) fn build(directory: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let source = directory.join("child.c");
    let child = directory.join("child");
    fs::write(&source, SOURCE)?;
    let mut compile = Command::new("cc");
    compile
        .args(["-O2", "-static", "-o"])
        .arg(&child)
        .arg(&source);
    match compile.status() {
        Ok(status) if status.success() => Ok(child),
        Ok(status) => Err(format!("`cc` made no static program of {}: {status}", source.display()).into()),
        Err(error) => Err(format!(
            "this bench needs a C compiler and the C library to link with, as `cc` (Debian: apt install gcc libc6-dev): {error}"
        )
        .into()),
    }
}
