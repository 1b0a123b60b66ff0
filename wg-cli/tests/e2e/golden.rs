//! Golden texts: what people and scripts see, kept in files so that a change of it is seen in the diff.
//!
//! `UPDATE_GOLDEN=1 cargo test -p wg-cli` writes them anew.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::world::World;

/// Compares a text with `tests/golden/<name>` after taking out what differs from run to run.
#[track_caller]
pub(crate) fn check(world: &World, name: &str, text: &str) {
    let seen = normalise(world, text);
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &seen).unwrap();
        return;
    }
    let kept = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDEN=1 makes it", path.display()));
    assert!(
        kept == seen,
        "{name} differs; UPDATE_GOLDEN=1 writes it anew\n--- kept\n{kept}\n--- seen\n{seen}"
    );
}

/// Compares the shape of a JSON document: its keys, in order, and the types of their values.
#[track_caller]
pub(crate) fn check_schema(world: &World, name: &str, document: &Value) {
    let mut shape = String::new();
    describe(document, 0, &mut shape);
    shape.push('\n');
    check(world, name, &shape);
}

fn describe(value: &Value, depth: usize, shape: &mut String) {
    let indent = "  ".repeat(depth + 1);
    match value {
        Value::Null => shape.push_str("null"),
        Value::Bool(_) => shape.push_str("bool"),
        Value::Number(number) => shape.push_str(if number.is_f64() { "float" } else { "integer" }),
        Value::String(_) => shape.push_str("string"),
        Value::Array(items) => {
            shape.push('[');
            if let Some(first) = items.first() {
                describe(first, depth, shape);
            }
            shape.push(']');
        }
        Value::Object(fields) => {
            shape.push_str("{\n");
            for (key, value) in fields {
                shape.extend([indent.as_str(), key.as_str(), ": "]);
                describe(value, depth + 1, shape);
                shape.push('\n');
            }
            shape.push_str(&"  ".repeat(depth));
            shape.push('}');
        }
    }
}

/// Takes out paths, pids, times and spans.
pub(crate) fn normalise(world: &World, text: &str) -> String {
    let mut text = text.to_owned();
    for (path, name) in [
        (world.here(), "[HERE]"),
        (world.here().parent().unwrap().to_owned(), "[WORLD]"),
    ] {
        let canonical: PathBuf = fs::canonicalize(&path).unwrap();
        text = text
            .replace(canonical.to_str().unwrap(), name)
            .replace(path.to_str().unwrap(), name);
    }
    let words = replace_counts_before_units(&replace_numbers_after(&replace_times(&text)));
    let words = words.replace("a moment ago", "[SPAN] ago");
    squeeze(&replace_live_pids(world, &words))
}

/// Numbers of processes that run now, in tables, where no word says what they are.
fn replace_live_pids(world: &World, text: &str) -> String {
    let pids: Vec<String> = world
        .processes()
        .iter()
        .map(|process| process.pid.to_string())
        .collect();
    let replace = |word: &str| {
        if pids.iter().any(|pid| pid == word) {
            "[PID]".to_owned()
        } else {
            word.to_owned()
        }
    };
    text.split_inclusive('\n')
        .map(|line| line.split(' ').map(replace).collect::<Vec<_>>().join(" "))
        .collect()
}

/// Columns are as wide as what is in them: runs of spaces become two.
fn squeeze(text: &str) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let indent = line.len() - line.trim_start_matches(' ').len();
        out.push_str(&line[..indent]);
        let mut spaces = 0;
        for c in line[indent..].chars() {
            spaces = if c == ' ' { spaces + 1 } else { 0 };
            if spaces <= 2 {
                out.push(c);
            }
        }
    }
    out
}

/// `2026-11-20T20:26:12.906424761Z` becomes `[TIME]`.
fn replace_times(text: &str) -> String {
    let bytes = text.as_bytes();
    let pattern = b"dddd-dd-ddTdd:dd:dd";
    let mut out = String::new();
    let mut at = 0;
    while at < bytes.len() {
        let fits = bytes.len() - at >= pattern.len()
            && pattern.iter().zip(&bytes[at..]).all(|(want, have)| {
                if *want == b'd' {
                    have.is_ascii_digit()
                } else {
                    want == have
                }
            });
        if fits {
            at += pattern.len();
            while at < bytes.len()
                && (bytes[at].is_ascii_digit() || matches!(bytes[at], b'.' | b'Z' | b'+' | b':'))
            {
                at += 1;
            }
            out.push_str("[TIME]");
        } else {
            let c = text[at..].chars().next().unwrap();
            out.push(c);
            at += c.len_utf8();
        }
    }
    out
}

/// Numbers that name a process: `pid 4711`, `PID 4711`, `handler 4711`, `"pid": 4711`.
fn replace_numbers_after(text: &str) -> String {
    let mut out = text.to_owned();
    for label in ["pid ", "PID ", "pid=", "handler ", "\"pid\": ", "was "] {
        let mut done = String::new();
        let mut rest = out.as_str();
        while let Some(found) = rest.find(label) {
            let (head, tail) = rest.split_at(found + label.len());
            done.push_str(head);
            let digits = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            if digits > 0 {
                done.push_str("[PID]");
            }
            rest = &tail[digits..];
        }
        done.push_str(rest);
        out = done;
    }
    out
}

/// `12 min`, `0 s`, `31 ms` become `[SPAN]`.
fn replace_counts_before_units(text: &str) -> String {
    let units = ["ms", "min", "s", "h", "d"];
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (head, tail) = rest.split_at(start);
        out.push_str(head);
        let whole = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let fraction = tail[whole..].strip_prefix('.').map_or(0, |part| {
            part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len()
        });
        let digits = if fraction > 0 {
            whole + 1 + fraction
        } else {
            whole
        };
        let after = &tail[digits..];
        let standalone =
            !head.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_'));
        let unit = after.strip_prefix(' ').and_then(|after| {
            units.iter().find(|unit| {
                after
                    .strip_prefix(**unit)
                    .is_some_and(|end| !end.starts_with(|c: char| c.is_alphanumeric()))
            })
        });
        if let Some(unit) = unit.filter(|_| standalone) {
            out.push_str("[SPAN]");
            rest = &after[1 + unit.len()..];
        } else {
            out.push_str(&tail[..digits]);
            rest = after;
        }
    }
    out.push_str(rest);
    out
}
