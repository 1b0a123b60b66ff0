//! The papers at the root say what is true of the workspace: its commands, its folders, its compiler.

use super::{Finding, Tree, folder, is_markdown};
use crate::examples::EXAMPLES;
use crate::readme;
use crate::workspace::Workspace;
use crate::{VERBS, bench};

const README: &str = "README.md";
const MAP: &str = "ARCHITECTURE.md";
const WORKFLOW: &str = ".github/workflows/ci.yml";

/// Cargo's own subcommands that a document of ours may use.
const CARGO: [&str; 12] = [
    "add", "bench", "build", "check", "clippy", "doc", "fmt", "install", "package", "run", "test",
    "tree",
];

pub(super) fn check(workspace: &Workspace, tree: &Tree) -> Vec<Finding> {
    let mut findings = front(tree);
    findings.extend(commands(workspace, tree));
    findings.extend(compiler(workspace, tree));
    findings.extend(map(tree));
    findings.extend(examples(workspace));
    findings
}

/// The README begins with a title, one sentence and the two commands that show and test everything.
fn front(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.text(README) else {
        return vec![Finding::of_file(README, "is missing")];
    };
    let before: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("```"))
        .filter(|line| !line.is_empty())
        .collect();
    let one_sentence = before.split_first().is_some_and(|(title, rest)| {
        let rest = rest.join(" ");
        title.starts_with("# ") && rest.ends_with(['.', ':']) && !rest.contains(". ")
    });
    let mut findings = Vec::new();
    if !one_sentence {
        let text = "does not begin with a title, one sentence and a command";
        findings.push(Finding::of_file(README, text));
    }
    if readme::front_commands(text).is_none() {
        let text = "its first two shell blocks are not one command each";
        findings.push(Finding::of_file(README, text));
    }
    findings
}

/// Every `cargo` command in a shell block names things that exist; so does every `cargo xtask` anywhere.
fn commands(workspace: &Workspace, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, text) in tree.iter().filter(|(name, _)| is_markdown(name)) {
        for line in readme::shell_blocks(text).iter().flatten() {
            if let Some(fault) = fault_of(line, workspace, tree) {
                findings.push(Finding::of_file(name, format!("`{line}`: {fault}")));
            }
        }
        for (at, before) in text.match_indices("cargo xtask ") {
            let rest = &text[at + before.len()..];
            let verb: String = rest.chars().take_while(char::is_ascii_lowercase).collect();
            if !verb.is_empty() && !VERBS.contains(&verb.as_str()) {
                let text = format!("there is no `cargo xtask {verb}`");
                findings.push(Finding::of_file(name, text));
            }
        }
    }
    findings
}

fn fault_of(line: &str, workspace: &Workspace, tree: &Tree) -> Option<String> {
    let ours = line.split(" -- ").next().unwrap_or_default();
    let mut words = ours.split_whitespace();
    if words.next() != Some("cargo") {
        return None;
    }
    let verb = words.next().unwrap_or_default();
    if verb == "xtask" {
        let rest: Vec<&str> = words.collect();
        return match rest[..] {
            ["bench", name, ..] if !bench::existing(&workspace.root).iter().any(|b| b == name) => {
                Some(format!("there is no bench `{name}`"))
            }
            _ => None,
        };
    }
    if !CARGO.contains(&verb) {
        return Some(format!("`cargo {verb}` is not a command used here"));
    }
    let words: Vec<&str> = words.collect();
    words.windows(2).find_map(|pair| {
        let value = pair[1];
        let kind = match pair[0] {
            "-p" | "--package" => {
                let unknown = workspace.package(value).is_none();
                return unknown.then(|| format!("there is no package `{value}`"));
            }
            "--path" => {
                let manifest = format!("{value}/Cargo.toml");
                let unknown = tree.text(&manifest).is_none();
                return unknown.then(|| format!("there is no `{manifest}`"));
            }
            "--bin" => "bin",
            "--example" => "example",
            "--test" => "test",
            _ => return None,
        };
        let packages = &workspace.packages;
        let known = packages
            .iter()
            .any(|package| package.has_target(kind, value));
        (!known).then(|| format!("there is no {kind} `{value}`"))
    })
}

/// The oldest compiler is the same in the manifest, in every README and in the workflow.
fn compiler(workspace: &Workspace, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut oldest: Option<&str> = None;
    for package in &workspace.packages {
        let manifest = format!("{}/Cargo.toml", folder(workspace, package));
        let own = package.record.get("rust_version").text();
        match (own, oldest) {
            (None, _) => findings.push(Finding::of_file(manifest, "`rust-version` is missing")),
            (Some(own), Some(other)) if own != other => findings.push(Finding::of_file(
                manifest,
                format!("`rust-version` is {own} here and {other} elsewhere"),
            )),
            (Some(own), _) => oldest = Some(own),
        }
    }
    let Some(oldest) = oldest else {
        return findings;
    };
    let papers = workspace
        .published()
        .map(|package| format!("{}/{README}", folder(workspace, package)))
        .chain([README.to_owned(), WORKFLOW.to_owned()]);
    for paper in papers {
        let Some(text) = tree.text(&paper) else {
            findings.push(Finding::of_file(paper, "is missing"));
            continue;
        };
        let stated: Vec<String> = if paper == WORKFLOW {
            versions(text)
        } else {
            about_rust(text).flat_map(versions).collect()
        };
        if stated.is_empty() {
            let text = format!("does not say that Rust {oldest} is needed");
            findings.push(Finding::of_file(&paper, text));
        }
        for other in stated.iter().filter(|own| *own != oldest) {
            let text = format!("says Rust {other}; the manifest says {oldest}");
            findings.push(Finding::of_file(&paper, text));
        }
    }
    findings
}

/// Returns the lines that speak of Rust, or stand under a heading that does; others may hold figures.
fn about_rust(text: &str) -> impl Iterator<Item = &str> {
    let mut heading = "";
    text.lines().filter(move |line| {
        if line.starts_with('#') {
            heading = line;
        }
        heading.contains("Rust") || line.contains("Rust") || line.contains("MSRV")
    })
}

/// Returns every version `1.NN` that is not part of something longer.
fn versions(text: &str) -> Vec<String> {
    let found = text.match_indices("1.").filter_map(|(at, before)| {
        let rest = &text[at + before.len()..];
        let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let apart = !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '.');
        let whole = !rest[minor.len()..].starts_with(|c: char| c.is_ascii_alphanumeric());
        (minor.len() == 2 && apart && whole).then(|| format!("1.{minor}"))
    });
    found.collect()
}

/// The map of the house shows every room: the folders at the root and the modules of the program.
fn map(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.text(MAP) else {
        return vec![Finding::of_file(MAP, "is missing")];
    };
    let mut rooms: Vec<String> = tree
        .iter()
        .filter_map(|(name, _)| {
            let inside = name.strip_prefix("wg-cli/src/").unwrap_or(name);
            let (room, _) = inside.split_once('/')?;
            (!room.starts_with('.')).then(|| format!("{room}/"))
        })
        .collect();
    rooms.push("wg-cli/".to_owned());
    rooms.sort();
    rooms.dedup();
    rooms
        .into_iter()
        .filter(|room| !text.contains(room.as_str()))
        .map(|room| Finding::of_file(MAP, format!("does not mention `{room}`")))
        .collect()
}

fn examples(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &workspace.packages {
        for example in package.targets_of("example") {
            let listed = EXAMPLES
                .iter()
                .any(|(of, name, _)| *of == package.name && *name == example.name);
            if !listed {
                let file = format!(
                    "{}/examples/{}.rs",
                    folder(workspace, package),
                    example.name
                );
                let text = "has no line in `xtask/src/examples.rs`, so nobody runs it";
                findings.push(Finding::of_file(file, text));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::samples::{package, texts, tree, workspace};
    use super::*;
    use crate::json::Json;
    use crate::workspace::Target;

    const FRONT: &str =
        "# wg\n\nKeeps agents alive.\n\n```sh\ncargo run --bin wg\n```\n\n```sh\ncargo test\n```\n";

    fn program() -> Workspace {
        let mut package = package("wg-cli");
        package.targets = vec![Target {
            name: "wg".to_owned(),
            kind: vec!["bin".to_owned()],
        }];
        package.record = Json::parse(r#"{"rust_version": "1.89"}"#).unwrap();
        workspace(vec![package])
    }

    #[test]
    fn a_readme_begins_with_one_sentence_and_two_commands() {
        assert_eq!(
            texts(&front(&tree(&[(README, FRONT)]))),
            Vec::<String>::new()
        );
        let talk = FRONT.replace("alive.", "alive. And more.");
        assert_eq!(front(&tree(&[(README, &talk)])).len(), 1);
        let both = FRONT.replace("cargo test", "cargo build\ncargo test");
        assert_eq!(front(&tree(&[(README, &both)])).len(), 1);
    }

    #[track_caller]
    fn check_command(line: &str, expected: Option<&str>) {
        let tree = tree(&[("wg-cli/Cargo.toml", "")]);
        let fault = fault_of(line, &program(), &tree);
        assert_eq!(fault.as_deref(), expected, "{line}");
    }

    #[test]
    fn a_command_names_things_that_exist() {
        check_command("cargo run --release --bin wg -- up -p x", None);
        check_command("cargo install --path wg-cli", None);
        check_command("wg service stop", None);
        check_command("cargo run --bin wgg", Some("there is no bin `wgg`"));
        check_command("cargo test -p wg", Some("there is no package `wg`"));
        check_command("cargo run --example e", Some("there is no example `e`"));
        check_command(
            "cargo install --path wg",
            Some("there is no `wg/Cargo.toml`"),
        );
        check_command("cargo rnu", Some("`cargo rnu` is not a command used here"));
        check_command("cargo xtask bench disk", Some("there is no bench `disk`"));
    }

    #[test]
    fn a_chore_that_does_not_exist_is_found_in_any_sentence() {
        let text = concat!("Run `cargo xtask", " ship`, then `cargo xtask ci`.");
        let found = commands(&program(), &tree(&[("STYLE.md", text)]));
        assert_eq!(texts(&found), ["STYLE.md: there is no `cargo xtask ship`"]);
    }

    #[test]
    fn the_oldest_compiler_is_the_same_everywhere() {
        let tree = tree(&[
            (README, "Rust 1.89 or later\n1.50 ms"),
            (
                "wg-cli/README.md",
                "## Minimum supported Rust version\n\n1.88.\n\n## Speed\n\n1.50 ms",
            ),
            (WORKFLOW, "run: rustup toolchain install stable"),
        ]);
        assert_eq!(
            texts(&compiler(&program(), &tree)),
            [
                "wg-cli/README.md: says Rust 1.88; the manifest says 1.89",
                ".github/workflows/ci.yml: does not say that Rust 1.89 is needed",
            ]
        );
    }

    #[test]
    fn a_version_is_not_cut_out_of_a_longer_number() {
        assert_eq!(
            versions("\"1.89\" 1.890 11.89 1.89.0 v1.2"),
            ["1.89", "1.89"]
        );
    }

    #[test]
    fn the_map_shows_every_folder() {
        let tree = tree(&[
            (MAP, "`wg-cli/` has `store/`."),
            ("wg-cli/src/store/graph.rs", ""),
            ("wg-cli/src/daemon/mod.rs", ""),
            ("session-lock/src/lib.rs", ""),
            (".ci/run", ""),
        ]);
        assert_eq!(
            texts(&map(&tree)),
            [
                "ARCHITECTURE.md: does not mention `daemon/`",
                "ARCHITECTURE.md: does not mention `session-lock/`",
            ]
        );
    }

    #[test]
    fn an_example_that_nobody_runs_is_found() {
        let mut lock = package("session-lock");
        lock.targets = ["hold", "show"]
            .map(|name| Target {
                name: name.to_owned(),
                kind: vec!["example".to_owned()],
            })
            .into();
        assert_eq!(
            texts(&examples(&workspace(vec![lock]))),
            [
                "session-lock/examples/show.rs: has no line in `xtask/src/examples.rs`, so nobody runs it"
            ]
        );
    }
}
