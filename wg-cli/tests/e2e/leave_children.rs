//! An agent whose settings say `leave_children = true` may leave something running.

use std::fs;

use crate::world::World;

#[test]
fn what_an_agent_may_leave_stays_has_no_lock_and_is_named_by_why_and_ends_with_its_handler() {
    let world = World::with_workspace();
    let agent = world.script(
        "leaver",
        "#!/bin/sh\nread -r word\nsleep 600 </dev/null >/dev/null 2>&1 &\necho $!\n",
    );
    fs::write(
        world.path(".wg/config.toml"),
        format!(
            "[service]\nagent = \"leaver\"\n[agents.leaver]\ncommand = [\"{}\"]\nleave_children = true\n",
            agent.display()
        ),
    )
    .unwrap();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "new"]).ok();
    let kept = world.wg(&["chat", "hello"]).ok().stdout;
    let kept = kept.trim();
    let why = world.wg(&["why", "0"]).ok().stdout;
    assert!(why.contains(&format!("sleep (pid {kept})")), "{why}");
    let open = fs::read_dir(format!("/proc/{kept}/fd")).unwrap().flatten();
    let guards = open
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|target| target.ends_with(".handler.guard"));
    assert_eq!(guards.count(), 0);
    world.stop();
}
