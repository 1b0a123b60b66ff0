//! What in `config.toml` is read by nobody, though it was probably meant for `wg`.

use crate::cli::finding::{Finding, Weight};
use crate::store::config;
use crate::store::workspace::Workspace;

/// Sections that are one slip away from one of ours. Sections of others are theirs, so this is no error.
pub(super) fn misspelt_sections(workspace: &Workspace) -> Vec<Finding> {
    // A file that cannot be read is a finding already.
    let near = config::misspelt_sections(&workspace.config_path()).unwrap_or_default();
    near.into_iter()
        .map(|slip| {
            let text = format!(
                "`{}` line {}: nobody reads the section [{}]",
                workspace.config_path().display(),
                slip.line,
                slip.name
            );
            Finding::new("settings", Weight::Warning, text).with_advice(format!(
                "if [{}] was meant, call it that, then wg service reload",
                slip.meant
            ))
        })
        .collect()
}
