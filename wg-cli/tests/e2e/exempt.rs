//! Who is not ended with an agent's leftovers, and who is.

use crate::world::{WG, World};

/// Starts the service of a workspace of its own and a command under the lock of a directory, and is done.
fn agent(world: &World) -> String {
    let script = format!(
        "#!/bin/sh\nread -r word\nmkdir inner && cd inner || exit\nunset WG_DIR\n\
         {{ {WG} init && {WG} chat new && {WG} service start && {WG} chat hello; }} >/dev/null || exit\n\
         mkfifo locked\n\
         setsid {WG} lock run -- sh -c 'echo $PPID >locked; exec sleep 600' </dev/null >/dev/null 2>&1 &\n\
         cat locked\n"
    );
    let agent = world.script("agent.sh", &script);
    agent.to_str().unwrap().to_owned()
}

#[test]
fn a_service_that_a_turn_started_elsewhere_outlives_the_turn_and_its_handler_but_a_lock_of_a_directory_spares_nobody()
 {
    let world = World::with_workspace();
    let inner = world.path("inner/.wg");
    let inner = inner.to_str().unwrap();
    world.wg(&["chat", "new", "--command", &agent(&world)]).ok();
    world.wg(&["service", "start"]).ok();
    let reply = world.wg(&["chat", "hello"]).ok().stdout;
    let locked: i32 = reply.trim().parse().expect("the pid of `wg lock run`");
    let is_there = |pid| world.processes().iter().any(|process| process.pid == pid);
    assert!(!is_there(locked), "the turn is over");
    let before = world.json(&["--dir", inner, "service", "status"]);
    assert_eq!(before["status"], "running", "{before}");
    world.wg(&["service", "stop"]).ok();
    let after = world.json(&["--dir", inner, "service", "status"]);
    assert_eq!(after["pid"], before["pid"]);
    assert_eq!(after["chats"][0]["pid"], before["chats"][0]["pid"]);
    let again = world.wg(&["--dir", inner, "chat", "again"]).ok();
    assert_eq!(again.stdout, "again\n");
    world.wg(&["--dir", inner, "service", "stop"]).ok();
    world.stop();
}
