//! A screen of the earlier tool that drives a chat itself says so in `.tui-driven`.

use crate::process::killed;
use crate::world::World;

/// A chat with a waiting message whose `.tui-driven` names a live process since `since` (words of `date`), and that process.
fn driven(since: &str) -> (World, i32) {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    let screen = world.sh(
        &format!(
            "setsid sleep 600 </dev/null >/dev/null 2>&1 & S=$!; mkdir -p .wg/chat/.chat-0\n\
             printf '%s\\n%s\\n' $S \"$(date -Iseconds -d '{since}')\" > .wg/chat/.chat-0/.tui-driven; echo $S"
        ),
        b"",
    );
    let screen = screen.stdout.trim().parse().unwrap();
    world.wg(&["chat", "send", "0", "hello"]).ok();
    (world, screen)
}

#[test]
fn a_chat_that_a_live_screen_of_the_earlier_tool_drives_is_held_until_that_ends() {
    let (world, screen) = driven("now");
    let held = format!("held by live pid {screen} (tui-driven)");
    world.wait_for_file(".wg/service/daemon.log", |text| text.contains(&held));
    let why = world.wg(&["why", "0"]).ok().stdout;
    assert!(why.contains(&format!("pid {screen}  tui-driven")), "{why}");
    assert!(world.handlers().is_empty(), "{:?}", world.handlers());
    killed(screen);
    world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
        text.contains("hello")
    });
    world.stop();
}

#[test]
fn a_number_that_was_given_to_a_later_process_drives_no_chat() {
    let (world, other) = driven("2020-01-01");
    world.wait_for_file(".wg/chat/.chat-0/outbox.jsonl", |text| {
        text.contains("hello")
    });
    killed(other);
    world.stop();
}
