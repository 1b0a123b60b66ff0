//! The file that `wg run --policy` names: a restart policy under `[supervisor]`, and nothing that nobody would read.

use std::path::Path;
use std::time::Duration;

use supervisor::Policy;
use toml::de::DeTable;

use super::config::{Config, SECTIONS};
use super::toml_section::Source;
use super::{StoreError, config, handed_over};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::spelling;

/// The one section that has to be there.
const POLICY: &str = "supervisor";

/// The sections by which the settings of the earlier tool are known, and those of its others whose names are near ours. It shares the
/// file with this one, and nobody but itself looks at them.
const EARLIER: [&str; 4] = ["dispatcher", "coordinator", "agent", "chat"];
const EARLIER_FOR_SURE: [&str; 2] = ["dispatcher", "coordinator"];

/// How long a pipe, such as a shell makes of `<(…)`, has to come to its end.
const PIPE_ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Reads the policy. `[service]` and `[agents.NAME]` may stand beside it, as in a workspace's `config.toml`, and what the earlier tool has
/// there; any other name is a slip.
///
/// # Errors
/// Code 78: a file that cannot be read, is none or is too large, or what is wrong with it, naming file, line, key and what is allowed.
pub fn read(path: &Path) -> Result<Policy, Failure> {
    let bytes = handed_over::read(path, config::LARGEST, PIPE_ENDS_WITHIN).map_err(unreadable)?;
    let Some(bytes) = bytes else {
        let what = format!("`{}` does not exist", path.display());
        return Err(Failure::new(ExitCode::Config, what));
    };
    let text = config::text_of(&bytes, path)?;
    refuse_strangers(Source { path, text })?;
    Ok(Config::parse(text, path)?.supervisor)
}

fn unreadable(error: StoreError) -> Failure {
    let message = error.to_string();
    match error {
        StoreError::Io { source, .. } => Failure::new(ExitCode::Config, message).caused_by(source),
        StoreError::NotARegularFile { .. } | StoreError::TooLarge { .. } => {
            Failure::new(ExitCode::Config, message)
                .with_cure("a policy is a file of a few lines, with a section [supervisor]")
        }
        StoreError::Corrupt { .. }
        | StoreError::AlreadyExists { .. }
        | StoreError::NameTaken { .. }
        | StoreError::OtherQuestion { .. }
        | StoreError::NotFound { .. }
        | StoreError::Busy { .. } => Failure::new(ExitCode::Config, message),
    }
}

fn refuse_strangers(source: Source<'_>) -> Result<(), Failure> {
    let root = source.root()?;
    let root = root.get_ref();
    let earlier = earlier_section(root);
    let strangers = root.iter().filter(|(key, value)| {
        let key = key.get_ref().as_ref();
        let is_theirs = earlier.is_some()
            && value.get_ref().is_table()
            && (EARLIER.contains(&key) || spelling::nearest(key, SECTIONS).is_none());
        !is_theirs && !SECTIONS.contains(&key)
    });
    if let Some((key, value)) = strangers.min_by_key(|(key, _)| key.span().start) {
        let name: String = key.get_ref().chars().take(40).collect();
        let (what, cure) = if value.get_ref().is_table() {
            let nearest = spelling::nearest(&name, SECTIONS).unwrap_or(POLICY);
            (
                "is no section of a policy",
                format!("did you mean [{nearest}]?"),
            )
        } else {
            (
                "stands in no section",
                "its place is below a line [supervisor]".to_owned(),
            )
        };
        let what = format!(
            "`{}` {what}, allowed are: {}",
            name.escape_debug(),
            SECTIONS.join(", ")
        );
        return Err(source.failure(key.span().start, &what).with_cure(cure));
    }
    if root.iter().any(|(key, _)| key.get_ref().as_ref() == POLICY) {
        return Ok(());
    }
    let what = format!("`{}` has no section [{POLICY}]", source.path.display());
    Err(match earlier {
        Some(section) => Failure::new(
            ExitCode::Config,
            format!("{what}; by its [{section}] it is the config.toml of an earlier wg, which had no restart policy"),
        )
        .with_cure("add that section to it, or name a file that has it"),
        None => Failure::new(ExitCode::Config, what),
    })
}

/// The section that shows whose settings these are.
fn earlier_section(root: &DeTable<'_>) -> Option<&'static str> {
    EARLIER_FOR_SURE.into_iter().find(|name| {
        root.iter()
            .any(|(key, value)| key.get_ref() == name && value.get_ref().is_table())
    })
}
