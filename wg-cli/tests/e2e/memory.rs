//! The memory watchdog: what a handler and everything below it has, during its turns.

use std::fs;

use serde_json::Value;

use crate::world::{World, until};

/// Asked for `big`, its child takes 200 MiB and waits for ever; asked for `brief`, it takes them and answers at once.
const AGENT: &str = r#"#!/usr/bin/env python3
import os, signal, subprocess, sys
word = sys.stdin.read().strip()
if word == "big":
    subprocess.run([sys.executable, "-c", "import signal; x = b'x' * (200 << 20); signal.pause()"], start_new_session=True)
print(word)
"#;

fn world(cap: &str) -> World {
    let world = World::with_workspace();
    let agent = world.script("agent.py", AGENT);
    let config = format!(
        "[service]\nagent = \"greedy\"\nstop_grace = \"0.5s\"\nmemory_cap = \"{cap}\"\n\
         [supervisor]\nmemory_budget = 1\nmemory_pause = \"1s\"\n\
         [agents.greedy]\ncommand = [\"python3\", \"{}\"]\n",
        agent.display()
    );
    fs::write(world.path(".wg/config.toml"), config).unwrap();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    world
}

fn events(world: &World, kind: &str) -> Vec<Value> {
    let log = world.read(".wg/service/events.jsonl");
    let events = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["event"] == kind).collect()
}

#[test]
fn a_turn_whose_tree_outgrows_the_cap_is_ended_and_told_and_the_chat_goes_on() {
    let world = world("100MiB");
    let asked = world.wg(&["chat", "big"]).with_code(1);
    let said = format!("{}{}", asked.stdout, asked.stderr);
    for part in [
        "more memory than `service.memory_cap` allows",
        "MiB",
        "wg chat retry chat-0 1",
    ] {
        assert!(said.contains(part), "`{part}` is missing in:\n{said}");
    }
    assert_eq!(world.wg(&["chat", "small"]).ok().stdout, "small\n");
    // More often than the account allows.
    world.wg(&["chat", "big"]).with_code(1);
    // The reply comes before its handler leaves.
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.contains("memory_warning")
    });

    let drains = events(&world, "exited");
    let exited = &drains[0];
    assert_eq!(exited["verdict"]["cause"], "memory_drain", "{exited:#}");
    assert_eq!(
        exited["verdict"]["counts"], "memory",
        "it never counts as a crash"
    );
    let number = |exited: &Value, name: &str| {
        let fact = exited["verdict"]["evidence"][name].as_str();
        fact.unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(number(exited, "memory_cap"), 100 << 20);
    assert!(
        number(exited, "memory_peak") > 100 << 20,
        "the child in its own session is counted: {exited:#}"
    );

    let warning = &events(&world, "memory_warning")[0];
    let text = warning["text"].as_str().unwrap();
    // Its child may have been seen before it had all of its memory.
    let peaks = drains.iter().map(|exited| number(exited, "memory_peak"));
    let used = format!("it used up to {} MiB", peaks.max().unwrap() >> 20);
    assert!(
        text.contains(&used) && text.contains("service.memory_cap"),
        "{text}"
    );
    world.stop();
}

#[test]
fn a_cap_that_is_turned_off_ends_no_turn() {
    let world = world("off");
    let mut asking = world.start(&["chat", "big", "--timeout", "100"]);
    world.wait_for_file(".wg/chat/.chat-0/.turn.json", |text| {
        text.contains("message_id")
    });
    // It is given the time to be looked at by being interrupted only when it has its memory.
    let big = || {
        let mut all = world.processes().into_iter();
        all.any(|process| {
            let status =
                fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("RssAnon:"));
            let kib =
                line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
            kib.is_some_and(|kib| kib > 200 << 10)
        })
    };
    until("the agent's memory", big);
    world.wg(&["chat", "interrupt", "0"]).ok();
    asking.hang_up();
    let said = asking.finish();
    assert!(
        format!("{}{}", said.stdout, said.stderr).contains("interrupted"),
        "{said:?}"
    );
    assert_eq!(events(&world, "memory_warning"), Vec::<Value>::new());
    world.stop();
}
