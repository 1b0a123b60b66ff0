//! What an agent finds in its environment, and what it must not find there.

use std::ffi::{OsStr, OsString};

/// Variables by which an outer agent marks the processes that it starts.
///
/// An agent that finds one believes that it runs inside another agent and refuses to start, attaches to the wrong session
/// or hides its output. They say who started this handler and nothing about the chat that it serves.
const OUTER_MARKERS: [&str; 8] = [
    "AI_AGENT",
    "CLAUDECODE",
    "CODEX_SANDBOX",
    "CODEX_THREAD_ID",
    "GEMINI_CLI",
    "OPENCODE",
    "OPENCODE_PID",
    "PI_CODING_AGENT",
];

/// One agent marks with a whole family of names, in which it also keeps settings.
const OUTER_FAMILY: &str = "CLAUDE_CODE_";

/// Names of that family that are a person's settings or credentials and not marks; taking them would log the agent out.
const SETTINGS: [&str; 9] = [
    "CLAUDE_CODE_API_",
    "CLAUDE_CODE_CLIENT_",
    "CLAUDE_CODE_DISABLE_",
    "CLAUDE_CODE_ENABLE_",
    "CLAUDE_CODE_MAX_",
    "CLAUDE_CODE_OAUTH_",
    "CLAUDE_CODE_SKIP_",
    "CLAUDE_CODE_SUBAGENT_",
    "CLAUDE_CODE_USE_",
];

/// Returns whether this variable is an outer agent's mark.
#[must_use]
pub fn is_outer_marker(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    OUTER_MARKERS.contains(&name)
        || name.starts_with(OUTER_FAMILY)
            && !SETTINGS.iter().any(|setting| name.starts_with(setting))
}

/// Returns the marks that stand in this process's environment.
pub(crate) fn outer_markers() -> Vec<OsString> {
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| is_outer_marker(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_outer_agents_are_known() {
        for name in [
            "CLAUDECODE",
            "CLAUDE_CODE_SESSION_ID",
            "CLAUDE_CODE_ENTRYPOINT",
            "CODEX_THREAD_ID",
            "GEMINI_CLI",
        ] {
            assert!(is_outer_marker(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn settings_and_credentials_of_a_person_are_left_alone() {
        for name in [
            "CLAUDE_CODE_USE_BEDROCK",
            "CLAUDE_CODE_OAUTH_TOKEN",
            "CLAUDE_CONFIG_DIR",
            "CODEX_HOME",
            "PATH",
        ] {
            assert!(!is_outer_marker(OsStr::new(name)), "{name}");
        }
    }
}
