//! Handlers with control groups of their own, below a group that is delegated to their daemon. Where none can be made, each test says so
//! in a line and shows nothing.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{XattrFlags, setxattr};
use supervisor::tree::{Group, end_with_group, is_alive, start_ticks};

use crate::process::{Process, killed, wait_gone};
use crate::world::{Done, Running, WATCHDOG, WG, World};

/// A control group below that of this test, in which a service is started.
struct Place(Group);

impl Place {
    /// Makes one that says it is delegated, or one that does not.
    fn make(delegated: bool) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wg-e2e-{}-{number}", std::process::id());
        let made = own_group()
            .ok_or_else(|| "no control groups of version 2 can be seen from here".to_owned())
            .and_then(|own| {
                let text = |error| format!("no group can be made in `{}`: {error}", own.display());
                Group::create(own.join(name)).map_err(text)
            });
        let place = match made {
            Ok(group) => Self(group),
            Err(why) => return nothing_is_shown(&why),
        };
        // As systemd marks it: for everybody to read, or for root alone where the file system has no attributes of users.
        let marked = ["user.delegate", "trusted.delegate"]
            .iter()
            .any(|name| setxattr(place.0.dir(), *name, b"1", XattrFlags::empty()).is_ok());
        if !marked {
            return nothing_is_shown("a group takes no attributes");
        }
        if !delegated {
            for name in ["user.delegate", "trusted.delegate"] {
                // One of them was not set.
                rustix::fs::removexattr(place.0.dir(), name).ok();
            }
        }
        Some(place)
    }

    /// Runs `wg` in this group.
    fn wg(&self, world: &World, args: &[&str]) -> Done {
        let mut command = world.command("/bin/sh");
        command
            .args(["-c", "echo 0 >\"$0/cgroup.procs\" && exec \"$@\""])
            .arg(self.0.dir())
            .arg(WG)
            .args(args);
        World::run(command, b"")
    }

    /// The groups that were made below this one.
    fn below(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.dir()).unwrap().flatten();
        let is_group = |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_dir());
        entries.map(|entry| entry.path()).filter(is_group).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Whoever is in it is the test's; it does not end before they do.
        drop(end_with_group(&self.0, None, None, WATCHDOG, &mut |_| {
            false
        }));
        if let Err(error) = self.0.remove()
            && !std::thread::panicking()
        {
            panic!(
                "{}: {error}: {:?}",
                self.0.dir().display(),
                self.0.members()
            );
        }
    }
}

/// Past the capture of what a test prints, which shows nothing of one that passes.
fn nothing_is_shown(why: &str) -> Option<Place> {
    let line = format!("groups: shows nothing: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    None
}

fn own_group() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    let point = Path::new(mount.split(' ').nth(4)?);
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(point.join(own))
}

/// An agent in the middle of a turn, and what it has started: with a session of its own, without parent and environment, and
/// without any descriptor that was lent to it. It says its number.
const AGENT: &str = r#"#!/bin/sh
read -r word
python3 -c '
import os, shutil
sleep = shutil.which("sleep")
ready, tell = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in 0, 1, 2:
        os.dup2(null, fd)
    os.write(tell, str(os.getpid()).encode())
    os.closerange(3, tell)
    os.closerange(tell + 1, 1024)
    os.execve(sleep, ["sleep", "600"], {})
os.close(tell)
os.wait()
with os.fdopen(ready) as pid:
    print("begun", pid.read(), ".")
'
exec sleep 600
"#;

/// A chat in its turn, in a service that runs in `place`. Returns its handler and what its agent left in the dark.
fn in_a_turn(world: &World, place: &Place) -> (i32, i32) {
    fs::write(
        world.path(".wg/config.toml"),
        "[service]\nstop_grace = \"0.2s\"\n[supervisor]\nbackoff_first = \"60s\"\n",
    )
    .unwrap();
    let agent = world.script("agent.sh", AGENT);
    let new = ["chat", "new", "--command", agent.to_str().unwrap()];
    world.wg(&new).ok();
    place.wg(world, &["service", "start"]).ok();
    world.wg(&["chat", "send", "0", "hello"]).ok();
    let said = world.wait_for_file(".wg/chat/.chat-0/.streaming", |text| text.contains('.'));
    let dark: i32 = said.split(' ').nth(1).unwrap().parse().unwrap();
    let shown = Process::look_at(dark).unwrap();
    assert_eq!((shown.environ, lives(dark)), (vec![], true));
    (world.handlers()[0].pid, dark)
}

fn lives(pid: i32) -> bool {
    let pid = u32::try_from(pid).unwrap();
    start_ticks(pid).is_some_and(|start| is_alive(pid, start))
}

/// Nobody is left in the place, and no group.
#[track_caller]
fn is_bare(place: &Place) {
    assert_eq!(place.0.members().unwrap(), [0; 0]);
    assert!(place.below().is_empty(), "{:?}", place.below());
}

/// The members of the one group below.
#[track_caller]
fn members_of_handler(place: &Place) -> Vec<u32> {
    let below = place.below();
    assert_eq!(below.len(), 1, "{below:?}");
    Group::at(&below[0]).members().unwrap()
}

#[test]
fn what_a_killed_handler_left_in_the_dark_is_ended_with_its_group() {
    let Some(place) = Place::make(true) else {
        return;
    };
    let world = World::with_workspace();
    let (handler, dark) = in_a_turn(&world, &place);
    let status = world.json(&["service", "status"]);
    assert_eq!(status["control_groups"], true, "{status}");
    assert_eq!(status["chats"][0]["control_group"], true, "{status}");
    let members = members_of_handler(&place);
    for pid in [handler, dark] {
        assert!(
            members.contains(&u32::try_from(pid).unwrap()),
            "{pid}: {members:?}"
        );
    }
    killed(handler);
    wait_gone(dark);
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.lines()
            .any(|line| line.contains("orphan_ended") && line.contains(&format!("\"pid\":{dark}")))
    });
    world.stop();
    is_bare(&place);
}

#[test]
fn a_stop_that_finds_nobody_to_end_removes_the_empty_groups_of_dead_handlers() {
    let Some(place) = Place::make(true) else {
        return;
    };
    let world = World::with_workspace();
    let (handler, dark) = in_a_turn(&world, &place);
    killed(world.daemon_pid());
    killed(handler);
    killed(dark);
    for process in world.processes() {
        killed(process.pid);
    }
    assert_eq!(place.below().len(), 1, "nobody is left to remove it");
    let stopped = world.json(&["service", "stop"]);
    assert_eq!(stopped["handlers_ended"], 0, "{stopped}");
    assert_eq!(stopped["others_ended"], 0, "{stopped}");
    is_bare(&place);
}

#[test]
fn a_stop_proves_by_the_group_that_nobody_is_left() {
    let Some(place) = Place::make(true) else {
        return;
    };
    let world = World::with_workspace();
    let (_, dark) = in_a_turn(&world, &place);
    let stopped = world.json(&["service", "stop"]);
    assert_eq!(stopped["unreadable"], 0, "{stopped}");
    assert_eq!(stopped["survivors"], serde_json::json!([]), "{stopped}");
    assert!(!lives(dark));
    is_bare(&place);
}

#[test]
fn a_daemon_that_is_killed_leaves_its_groups_to_the_next_one_wherever_that_is_started() {
    let Some(place) = Place::make(true) else {
        return;
    };
    let world = World::with_workspace();
    let (handler, dark) = in_a_turn(&world, &place);
    killed(world.daemon_pid());
    // Not in the place.
    world.wg(&["service", "start"]).ok();
    assert_eq!(world.json(&["service", "status"])["control_groups"], false);
    assert_eq!(
        world.json(&["chat", "show", "0"])["pid"],
        handler,
        "adopted"
    );
    let stopped = world.json(&["service", "stop"]);
    assert_eq!(stopped["unreadable"], 0, "{stopped}");
    assert!(!lives(dark));
    is_bare(&place);
}

/// A service and its handler that were killed: only the group tells what is left.
fn killed_with_its_handler(world: &World, place: &Place) -> i32 {
    let (handler, dark) = in_a_turn(world, place);
    killed(world.daemon_pid());
    killed(handler);
    assert!(lives(dark));
    dark
}

#[test]
fn a_start_ends_what_a_killed_service_left_in_the_dark_and_removes_its_groups() {
    let Some(place) = Place::make(true) else {
        return;
    };
    let world = World::with_workspace();
    let dark = killed_with_its_handler(&world, &place);
    // Of a service that was killed before it could write the name down.
    let former = place.below().remove(0);
    let name = former.file_name().unwrap().to_str().unwrap();
    let (of_workspace, _) = name.rsplit_once('-').unwrap();
    let empty = former.with_file_name(format!("{of_workspace}-0123456789abcdef"));
    let foreign = former.with_file_name("wg-another-0123456789abcdef");
    for group in [&empty, &foreign] {
        Group::create(group).unwrap();
    }
    world.wg(&["service", "start"]).ok();
    assert!(!lives(dark));
    assert_eq!(
        place
            .below()
            .iter()
            .filter(|group| **group == empty)
            .count(),
        0
    );
    assert!(foreign.exists(), "another workspace's");
    Group::at(foreign).remove().unwrap();
    world.stop();
    is_bare(&place);
}

#[test]
fn without_a_service_a_purge_or_a_stop_ends_what_is_left_in_the_dark() {
    for verb in ["purge-chats", "stop"] {
        let Some(place) = Place::make(true) else {
            return;
        };
        let world = World::with_workspace();
        let dark = killed_with_its_handler(&world, &place);
        world.wg(&["service", verb]).ok();
        assert!(!lives(dark), "{verb}");
        is_bare(&place);
        world.stop();
    }
}

#[test]
fn a_group_that_could_not_be_made_is_not_said_to_be_there() {
    let Some(place) = Place::make(true) else {
        return;
    };
    let world = World::with_workspace();
    place.wg(&world, &["service", "start"]).ok();
    // Nothing was tried yet.
    assert_eq!(world.json(&["service", "status"])["control_groups"], true);
    fs::write(place.0.dir().join("cgroup.max.descendants"), "0").unwrap();
    world.wg(&["up", "hello"]).ok();
    let status = world.json(&["service", "status"]);
    assert_eq!(status["control_groups"], false, "{status}");
    assert_eq!(status["chats"][0]["control_group"], false, "{status}");
    world.stop();
    is_bare(&place);
}

#[test]
fn a_handler_whose_pid_was_never_written_down_is_known_by_its_group() {
    let Some(place) = Place::make(true) else {
        return;
    };
    let world = World::with_workspace();
    let dark = killed_with_its_handler(&world, &place);
    let path = ".wg/service/coordinator-state-0.json";
    let mut state: serde_json::Value = serde_json::from_str(&world.read(path)).unwrap();
    let spawn = state["wg_supervisor"]["spawn"].as_object_mut().unwrap();
    for field in ["pid", "start_ticks"] {
        assert!(spawn.remove(field).is_some(), "{spawn:?}");
    }
    fs::write(world.path(path), state.to_string()).unwrap();
    for verb in [&["why", "0"][..], &["doctor"]] {
        let told = world.wg(verb).stdout;
        assert!(told.contains(&format!("(pid {dark})")), "{told}");
    }
    let stopped = world.json(&["service", "stop"]);
    assert!(!lives(dark), "{stopped}");
    assert_eq!(stopped["handlers_ended"], 0, "{stopped}");
    assert!(stopped["others_ended"].as_u64() >= Some(1), "{stopped}");
    is_bare(&place);
}

#[test]
fn doctor_names_what_is_left_in_the_dark_and_ends_it() {
    let Some(place) = Place::make(true) else {
        return;
    };
    let world = World::with_workspace();
    let dark = killed_with_its_handler(&world, &place);
    let told = world.wg(&["doctor"]).stdout;
    assert!(told.contains(&format!("(pid {dark})")), "{told}");
    assert!(lives(dark));
    world.wg(&["doctor", "--fix"]);
    assert!(!lives(dark));
    world.stop();
}

/// Moves a process into the handler's group that a stranger has just started, as somebody with the right to do so may.
fn move_a_stranger_in(world: &World, place: &Place) -> (Running, i32) {
    let mut shell = world.command("/bin/sh");
    shell.args([
        "-c",
        "sleep 600 </dev/null >/dev/null & echo $!; read -r end; kill $!; wait",
    ]);
    let mut shell = Running::of(shell);
    let stranger: i32 = shell.line().parse().unwrap();
    let members = place.below().remove(0).join("cgroup.procs");
    fs::write(members, stranger.to_string()).unwrap();
    (shell, stranger)
}

#[test]
fn a_process_that_somebody_moved_into_a_handlers_group_is_not_ended_with_it() {
    for (are_killed, verb) in [
        (false, ["chat", "stop", "0"]),
        (true, ["service", "stop", "--json"]),
        (true, ["doctor", "--fix", "--json"]),
        (true, ["service", "purge-chats", "--json"]),
        (true, ["service", "start", "--json"]),
    ] {
        let Some(place) = Place::make(true) else {
            return;
        };
        let world = World::with_workspace();
        let (handler, dark) = in_a_turn(&world, &place);
        let (mut shell, stranger) = move_a_stranger_in(&world, &place);
        if are_killed {
            killed(world.daemon_pid());
            killed(handler);
        }
        world.wg(&verb).ok();
        assert!(!lives(dark), "{verb:?}");
        assert!(lives(stranger), "{verb:?}");
        let group = Group::at(place.below().remove(0));
        assert!(!is_told_to_stand_still(&group), "{verb:?}");
        shell.hang_up();
        shell.finish();
        wait_gone(stranger);
        world.wg(&["service", "stop"]).ok();
        place.wg(&world, &["service", "start"]).ok();
        world.stop();
        is_bare(&place);
    }
}

/// What ends the rest of a service that is dead.
const WITHOUT_A_SERVICE: [[&str; 2]; 3] = [
    ["doctor", "--fix"],
    ["service", "purge-chats"],
    ["service", "stop"],
];

/// Takes the handler's process out of the record, as if its service had been killed before it could write it down.
fn forget_the_process(world: &World) {
    let state = ".wg/service/coordinator-state-0.json";
    let mut record: serde_json::Value = serde_json::from_str(&world.read(state)).unwrap();
    let spawn = record["wg_supervisor"]["spawn"].as_object_mut().unwrap();
    assert!(spawn.remove("pid").is_some() && spawn.remove("start_ticks").is_some());
    fs::write(world.path(state), record.to_string()).unwrap();
}

#[test]
fn what_a_handler_left_whose_process_was_never_written_down_is_ended_without_a_service_too() {
    for verb in WITHOUT_A_SERVICE {
        let Some(place) = Place::make(true) else {
            return;
        };
        let world = World::with_workspace();
        let dark = killed_with_its_handler(&world, &place);
        forget_the_process(&world);
        world.wg(&verb).ok();
        assert!(!lives(dark), "{verb:?}");
        is_bare(&place);
        world.stop();
    }
}

#[test]
fn an_empty_group_of_a_dead_service_is_removed_without_a_service_too() {
    for verb in WITHOUT_A_SERVICE {
        let Some(place) = Place::make(true) else {
            return;
        };
        let world = World::with_workspace();
        let dark = killed_with_its_handler(&world, &place);
        killed(dark);
        let handlers = place.below().remove(0);
        wait_until_empty(&Group::at(&handlers));
        let name = handlers.file_name().unwrap().to_str().unwrap();
        let (of_workspace, _) = name.rsplit_once('-').unwrap();
        // Of a start whose service was killed before it could write the name down.
        let nameless = handlers.with_file_name(format!("{of_workspace}-0123456789abcdef"));
        Group::create(&nameless).unwrap();
        world.wg(&verb).ok();
        if verb[1] == "stop" {
            // It found nothing to end, so it did not look further.
            world.wg(&["doctor", "--fix"]).ok();
        }
        is_bare(&place);
        world.stop();
    }
}

/// The processes of a killed handler leave their group one by one.
fn wait_until_empty(group: &Group) {
    for member in group.members().unwrap() {
        killed(i32::try_from(member).unwrap());
    }
}

#[test]
fn nobody_is_left_standing_still_by_a_service_that_was_killed_while_it_ended_them() {
    for verb in [
        &["doctor", "--fix"][..],
        &["chat", "stop", "1"],
        &["service", "start"],
    ] {
        let Some(place) = Place::make(true) else {
            return;
        };
        let world = World::with_workspace();
        let (handler, _) = in_a_turn(&world, &place);
        world.wg(&["chat", "new"]).ok();
        killed(world.daemon_pid());
        let group = Group::at(place.below().remove(0));
        group.freeze().unwrap();
        let told = world.wg(&["doctor"]).stdout;
        assert!(told.contains("stands still"), "{told}");
        world.wg(verb).ok();
        assert!(lives(handler), "{verb:?}");
        assert!(!is_told_to_stand_still(&group), "{verb:?}");
        world.wg(&["service", "stop"]).ok();
        is_bare(&place);
    }
}

fn is_told_to_stand_still(group: &Group) -> bool {
    let told = fs::read_to_string(group.dir().join("cgroup.freeze")).unwrap();
    told.trim() == "1"
}

/// The pid of the daemon as one of the group's members.
#[track_caller]
fn is_inside(place: &Place, status: &serde_json::Value) {
    let members = members_of_handler(place);
    let pid = u32::try_from(status["pid"].as_u64().unwrap()).unwrap();
    assert!(members.contains(&pid), "{pid}: {members:?}");
}

#[test]
fn a_service_that_was_started_inside_a_chat_outlives_that_chats_group() {
    let Some(place) = Place::make(true) else {
        return;
    };
    let world = World::with_workspace();
    // Another workspace's, with a handler of its own.
    let inner = world.path("inner/.wg");
    let inner = inner.to_str().unwrap();
    let agent = format!(
        "#!/bin/sh\nread -r word\nmkdir inner && cd inner && unset WG_DIR\n\
         {WG} init && {WG} chat new && {WG} service start && {WG} chat hello && echo begun\nexec sleep 600\n"
    );
    let agent = world.script("agent.sh", &agent);
    let new = ["chat", "new", "--command", agent.to_str().unwrap()];
    world.wg(&new).ok();
    fs::write(
        world.path(".wg/config.toml"),
        "[supervisor]\nbackoff_first = \"60s\"\n",
    )
    .unwrap();
    place.wg(&world, &["service", "start"]).ok();
    world.wg(&["chat", "send", "0", "hello"]).ok();
    world.wait_for_file(".wg/chat/.chat-0/.streaming", |text| text.contains("begun"));
    let before = world.json(&["--dir", inner, "service", "status"]);
    is_inside(&place, &before);
    let handler = world.json(&["chat", "show", "0"])["pid"].as_i64().unwrap();
    killed(i32::try_from(handler).unwrap());
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.contains("\"exited\"")
    });
    // It goes on with its handler, and answers: it does not stand still.
    let after = world.json(&["--dir", inner, "service", "status"]);
    assert_eq!(after["pid"], before["pid"]);
    assert_eq!(after["chats"][0]["pid"], before["chats"][0]["pid"]);
    let again = world.wg(&["--dir", inner, "chat", "again"]).ok();
    assert_eq!(again.stdout, "again\n");
    world.wg(&["service", "stop"]).ok();
    let former = place.below();
    assert_eq!(former.len(), 1, "it stays for those who are in it");
    world.wg(&["--dir", inner, "service", "stop"]).ok();
    place.wg(&world, &["service", "start"]).ok();
    assert!(!former[0].exists(), "a later start removes it");
    world.stop();
    is_bare(&place);
}

#[test]
fn a_service_that_was_restarted_from_inside_a_chat_stops_that_chat_and_goes_on() {
    let Some(place) = Place::make(true) else {
        return;
    };
    let world = World::with_workspace();
    let agent = AGENT.replace("exec sleep", &format!("{WG} service restart\nexec sleep"));
    let agent = world.script("restarting.sh", &agent);
    let new = ["chat", "new", "--command", agent.to_str().unwrap()];
    world.wg(&new).ok();
    fs::write(
        world.path(".wg/config.toml"),
        "[service]\nstop_grace = \"0.2s\"\n",
    )
    .unwrap();
    place.wg(&world, &["service", "start"]).ok();
    let first = world.daemon_pid();
    world.wg(&["chat", "send", "0", "hello"]).ok();
    world.wait_for_file(".wg/service/events.jsonl", |text| text.contains("adopted"));
    let status = world.json(&["service", "status"]);
    assert_ne!(status["pid"], first);
    is_inside(&place, &status);
    assert_eq!(
        status["control_groups"], false,
        "its own group is no place for others"
    );
    world.wg(&["chat", "stop", "0"]).ok();
    let members = members_of_handler(&place);
    assert_eq!(
        serde_json::json!(members),
        serde_json::json!([status["pid"]])
    );
    world.stop();
    place.wg(&world, &["service", "start"]).ok();
    assert!(place.below().is_empty());
    world.stop();
}

#[test]
fn where_nothing_is_delegated_no_group_is_made_and_what_is_in_the_dark_is_found_as_a_child_of_the_service()
 {
    let Some(place) = Place::make(false) else {
        return;
    };
    let world = World::with_workspace();
    let (handler, dark) = in_a_turn(&world, &place);
    assert_eq!(world.json(&["service", "status"])["control_groups"], false);
    assert!(
        world
            .read(".wg/service/daemon.log")
            .contains("is not delegated")
    );
    assert!(place.below().is_empty(), "{:?}", place.below());
    killed(handler);
    world.wait_for_file(".wg/service/events.jsonl", |text| {
        text.contains("\"exited\"")
    });
    world.stop();
    assert!(!lives(dark));
    assert!(place.0.members().unwrap().is_empty());
}
