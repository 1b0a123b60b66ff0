//! Runs the long forms of the tests: the same claims, for minutes instead of moments.

pub(crate) mod repeat;

use crate::command::{self, Failure};
use crate::workspace::Workspace;

/// Name, package and example of each long form; a name may stand for several, which run one after the other.
const FORMS: [(&str, &str, &str); 6] = [
    ("lock", "session-lock", "torture"),
    ("sim", "wg-supervisor", "sim"),
    ("sim", "wg-cli", "sim_chats"),
    ("queue", "command-queue", "stress"),
    ("chaos", "wg-cli", "chaos"),
    ("attack", "wg-cli", "attack"),
];

pub(crate) fn run(workspace: &Workspace, name: &str, args: &[&str]) -> Result<(), Failure> {
    let forms: Vec<_> = FORMS.iter().filter(|(own, ..)| *own == name).collect();
    if forms.is_empty() {
        let mut names = FORMS.map(|(own, ..)| own).to_vec();
        names.dedup();
        return Err(Failure::usage(format!(
            "there is no stress form `{name}`; there are: {}, repeat N",
            names.join(", ")
        )));
    }
    for (_, package, example) in forms {
        run_one(workspace, name, package, example, args)?;
    }
    Ok(())
}

fn run_one(
    workspace: &Workspace,
    name: &str,
    package: &str,
    example: &str,
    args: &[&str],
) -> Result<(), Failure> {
    let exists = workspace
        .package(package)
        .is_some_and(|package| package.has_target("example", example));
    if !exists {
        return Err(Failure::usage(format!(
            "the stress form `{name}` is not written yet: `{package}` has no example `{example}`"
        )));
    }
    let mut cargo = command::cargo(&workspace.root);
    cargo.args(["run", "--release", "-p", package, "--all-features"]);
    cargo.args(["--example", example]);
    if !args.is_empty() {
        cargo.arg("--").args(args);
    }
    command::run(&mut cargo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::{EXAMPLES, Run};

    #[test]
    fn the_long_examples_and_the_stress_forms_are_the_same() {
        let mut long: Vec<_> = EXAMPLES
            .iter()
            .filter(|(.., run)| matches!(run, Run::Long | Run::Short(_)))
            .map(|(package, example, _)| (*package, *example))
            .collect();
        let mut forms = FORMS.map(|(_, package, example)| (package, example));
        long.sort_unstable();
        forms.sort_unstable();
        assert_eq!(long, forms);
    }
}
