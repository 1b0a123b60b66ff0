//! Chats whose agent is a real program: twenty messages in order, twenty replies in order.

use serde_json::Value;

use crate::world::World;

const MESSAGES: usize = 20;

/// Makes a chat for a shell command, sends everything at once, and returns the replies in the order of the outbox.
fn twenty_replies(world: &World, command: &str) -> Vec<String> {
    let chat = world.json(&["chat", "new", "--command", command])["task_id"]
        .as_str()
        .unwrap()
        .to_owned();
    world.wg(&["service", "start"]).ok();
    for n in 1..=MESSAGES {
        world
            .wg(&["chat", "send", &chat, &format!("message {n}")])
            .ok();
    }
    let outbox = format!(".wg/chat/{chat}/outbox.jsonl");
    world.wait_for_file(&outbox, |text| {
        text.ends_with('\n') && text.lines().count() >= MESSAGES
    });
    let outbox: Vec<Value> = world
        .read(&outbox)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(outbox.len(), MESSAGES, "one reply a message");
    for (index, reply) in outbox.iter().enumerate() {
        let number = u64::try_from(index + 1).unwrap();
        assert_eq!(reply["id"], number);
        assert_eq!(reply["in_reply_to"], number);
        assert_eq!(reply["role"], "coordinator", "{reply}");
    }
    outbox
        .iter()
        .map(|reply| reply["content"].as_str().unwrap().trim_end().to_owned())
        .collect()
}

#[test]
fn a_filter_answers_twenty_messages_in_order() {
    let world = World::with_workspace();
    let expected: Vec<String> = (1..=MESSAGES).map(|n| format!("MESSAGE {n}")).collect();
    assert_eq!(twenty_replies(&world, "tr a-z A-Z"), expected);
    world.stop();
}

#[test]
fn a_program_that_keeps_a_file_between_turns_finds_it_again() {
    let world = World::with_workspace();
    world.script(
        "agent.py",
        "import pathlib, sys\n\
         memory = pathlib.Path('memory')\n\
         heard = memory.read_text().splitlines() if memory.exists() else []\n\
         heard.append(sys.stdin.read().strip())\n\
         memory.write_text('\\n'.join(heard))\n\
         print(f'{len(heard)}: {heard[-1]}, before that {heard[-2] if len(heard) > 1 else None}')\n",
    );
    let expected: Vec<String> = (1..=MESSAGES)
        .map(|n| {
            let before = if n == 1 {
                "None".to_owned()
            } else {
                format!("message {}", n - 1)
            };
            format!("{n}: message {n}, before that {before}")
        })
        .collect();
    assert_eq!(twenty_replies(&world, "python3 agent.py"), expected);
    world.stop();
}

#[test]
fn a_slow_script_streams_and_answers_twenty_messages_in_order() {
    let world = World::with_workspace();
    let agent = world.script(
        "agent.sh",
        "#!/bin/sh\nread -r heard\necho \"heard $heard\"\nsleep 2\necho \"done with $heard\"\n",
    );
    world
        .wg(&[
            "chat",
            "new",
            "--id",
            "chat-7",
            "--command",
            agent.to_str().unwrap(),
        ])
        .ok();
    world.wg(&["service", "start"]).ok();
    // What the script has said is there to read while it still works.
    world.wg(&["chat", "send", "chat-7", "first"]).ok();
    world.wait_for_file(".wg/chat/.chat-7/.streaming", |text| {
        text.contains("heard first")
    });
    assert!(
        !world.path(".wg/chat/.chat-7/outbox.jsonl").exists(),
        "the turn is not over"
    );
    world.wg(&["chat", "archive", "chat-7"]).ok();
    let expected: Vec<String> = (1..=MESSAGES)
        .map(|n| format!("heard message {n}\ndone with message {n}"))
        .collect();
    assert_eq!(twenty_replies(&world, agent.to_str().unwrap()), expected);
    world.stop();
}
