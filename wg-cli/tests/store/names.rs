//! The closed lists: a change of one is a change of the format, and has to be made here too.

use exit_classifier::{Cause, Class, Counts, Rule, RuleSet};
use wg_cli::daemon::handler_rules;
use wg_cli::names::{ChatState, EventKind, Protocol, StartReason};

#[test]
fn the_lists_are_the_golden_ones() {
    let mut text = String::new();
    let mut section = |title: &str, words: Vec<&str>| {
        text.extend([title, "\n"]);
        for word in words {
            text.extend(["  ", word, "\n"]);
        }
    };
    section(
        "state",
        ChatState::ALL.iter().map(|word| word.as_str()).collect(),
    );
    section(
        "event",
        EventKind::ALL.iter().map(|word| word.as_str()).collect(),
    );
    section(
        "start reason",
        StartReason::ALL.iter().map(|word| word.as_str()).collect(),
    );
    section(
        "protocol",
        Protocol::ALL.iter().map(|word| word.as_str()).collect(),
    );
    // The lists of the crate that judges endings stand in the same files, so their golden copy stands here too.
    section(
        "class",
        Class::ALL.iter().map(|word| word.as_str()).collect(),
    );
    section(
        "cause",
        Cause::ALL.iter().map(|word| word.as_str()).collect(),
    );
    section(
        "counts",
        Counts::ALL.iter().map(|word| word.as_str()).collect(),
    );
    let handler = handler_rules();
    section(
        "rule of a handler",
        handler.rules().map(Rule::name).collect(),
    );
    let agent = RuleSet::agent();
    section("rule of an agent", agent.rules().map(Rule::name).collect());
    let command = RuleSet::command();
    section("rule of wg run", command.rules().map(Rule::name).collect());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write("tests/golden/names.txt", &text).unwrap();
        return;
    }
    assert_eq!(text, include_str!("../golden/names.txt"));
}

#[test]
fn every_word_is_read_as_it_is_written_and_no_other() {
    for state in ChatState::ALL {
        assert_eq!(ChatState::parse(state.as_str()), Some(*state));
        assert_eq!(
            serde_json::from_value::<ChatState>(serde_json::json!(state)).unwrap(),
            *state
        );
    }
    for event in EventKind::ALL {
        assert_eq!(EventKind::parse(event.as_str()), Some(*event));
    }
    assert_eq!(ChatState::parse("Running"), None);
    let error = serde_json::from_str::<StartReason>("\"boredom\"")
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("`boredom` is not one of: message, consumer, resume, retry"),
        "{error}"
    );
    assert_eq!(format!("[{:<8}]", ChatState::Idle), "[idle    ]");
}
