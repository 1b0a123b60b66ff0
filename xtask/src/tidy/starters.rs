//! Who starts processes. There is one loop that starts a process, waits for it and starts it again; every other place that
//! starts one does so once, and is known here by name.

use super::{Finding, Tree};
use crate::workspace::Workspace;

/// The files of the product that start processes, each with what it starts. A new one is a decision: what has to be started
/// again is a unit of `supervisor`.
const STARTERS: [(&str, &str); 7] = [
    (
        "session-lock/src/dir_lock.rs",
        "the same, for the lock of any directory",
    ),
    (
        "session-lock/src/lend.rs",
        "the caller's command, once, with a lock lent to it",
    ),
    (
        "supervisor/src/driver/starting.rs",
        "the processes of all units, again and again",
    ),
    ("wg-cli/src/daemon/start.rs", "the daemon, once"),
    (
        "wg-cli/src/handler/answering.rs",
        "an agent, once for a message",
    ),
    ("wg-cli/src/handler/private.rs", "an agent, once for a line"),
    (
        "wg-cli/src/locked_run.rs",
        "the command of `wg lock run`, once",
    ),
];

pub(super) fn check(_: &Workspace, tree: &Tree) -> Vec<Finding> {
    starters(tree, &STARTERS)
}

fn starters(tree: &Tree, known: &[(&str, &str)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let product = |name: &str| {
        let mut parts = name.split('/');
        let folder = parts.next();
        folder != Some("xtask") && folder != Some("bench") && parts.next() == Some("src")
    };
    for (name, code) in tree.code().filter(|(name, _)| product(name)) {
        // What tests start ends with the test.
        let code = code.split("#[cfg(test)]").next().unwrap_or_default();
        let starts = [".spawn()", ".spawn_lent(", ".output()"]
            .iter()
            .any(|call| code.contains(call));
        let is_known = known.iter().any(|(own, _)| *own == name);
        if starts && !is_known {
            findings.push(Finding::of_file(
                name,
                "starts a process; what is started again is a unit of `supervisor`, anything else stands in the list of `tidy`",
            ));
        }
        if is_known && !starts {
            findings.push(Finding::of_file(
                name,
                "is in the list of those that start processes and starts none",
            ));
        }
    }
    for (name, _) in known.iter().filter(|(name, _)| tree.text(name).is_none()) {
        findings.push(Finding::of_file(
            *name,
            "is in the list of those that start processes and does not exist",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::samples::{texts, tree};
    use super::*;

    #[test]
    fn a_process_is_started_only_where_that_is_known() {
        let starts = "fn f() {\n    Command::new(\"x\").spawn()?;\n}\n";
        let tree = tree(&[
            ("a/src/known.rs", starts),
            ("a/src/new.rs", starts),
            ("a/src/idle.rs", "fn f() {}\n"),
            (
                "a/src/tested.rs",
                "#[cfg(test)]\nmod tests {\n    fn f() { c.spawn(); }\n}\n",
            ),
            ("a/tests/t.rs", starts),
            ("xtask/src/x.rs", starts),
        ]);
        let known = [
            ("a/src/known.rs", "r"),
            ("a/src/idle.rs", "r"),
            ("a/src/gone.rs", "r"),
        ];
        let found = texts(&starters(&tree, &known));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("a/src/new.rs: starts a process"));
        assert!(found[1].starts_with("a/src/idle.rs: is in the list"));
        assert!(found[2].starts_with("a/src/gone.rs: is in the list"));
    }
}
