//! Units whose process enters a control group of its own. Where none can be made, each test says so and shows nothing.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use supervisor::tree::{self, Group};
use supervisor::{Adopted, Machine, Shutdown, clock};

use crate::common::{Bench, LONG, UNIT, eager, reap, wait};

/// A new control group, whose members end with the test.
struct Place(Group);

impl Place {
    /// `None`, said in one line, where there is no hierarchy of version 2 or nothing can be made in it.
    fn make() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Some(parent) = own_group() else {
            say("no control groups of version 2 can be seen from here");
            return None;
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("supervisor-test-{}-{number}", std::process::id());
        match Group::create(parent.join(name)) {
            // To be moved into a group is a right of its own.
            Ok(group) if can_be_entered(&group) => Some(Self(group)),
            Ok(group) => {
                group.remove().unwrap();
                say(&format!(
                    "a group in `{}` cannot be entered",
                    parent.display()
                ));
                None
            }
            Err(error) => {
                say(&format!("no group in `{}`: {error}", parent.display()));
                None
            }
        }
    }

    /// A script whose shell enters the group first.
    fn script(&self, rest: &str) -> String {
        format!(
            "echo 0 >'{}/cgroup.procs' || exit 1; {rest}",
            self.0.dir().display()
        )
    }

    fn wait_empty(&self) {
        let mut events = File::open(self.0.dir().join("cgroup.events")).unwrap();
        loop {
            // A change is told to those who have read what was before.
            let mut text = String::new();
            events.read_to_string(&mut text).unwrap();
            if !self.0.is_populated().unwrap() {
                return;
            }
            let timeout = Timespec::try_from(LONG).unwrap();
            let mut fds = [PollFd::new(&events, PollFlags::PRI)];
            let ready = poll(&mut fds, Some(&timeout)).unwrap();
            assert!(ready > 0, "members do not end: {:?}", self.0.members());
            std::io::Seek::rewind(&mut events).unwrap();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.0.dir().exists() {
            return;
        }
        self.0.kill().unwrap();
        self.wait_empty();
        self.0.remove().unwrap();
    }
}

/// Past the capture of what a test prints, which shows nothing of one that passes.
fn say(why: &str) {
    let line = format!("groups: shows nothing: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// The group of this process, by its mount point.
fn own_group() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    let point = mount.split(' ').nth(4)?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(point).join(own))
}

fn can_be_entered(group: &Group) -> bool {
    let enters = format!("echo 0 >'{}/cgroup.procs'", group.dir().display());
    let mut shell = Command::new("sh");
    shell.args(["-c", &enters]).stderr(Stdio::null());
    shell.status().unwrap().success()
}

/// A unit that runs this script in its group, and is ready.
fn ready(place: &Place, script: &str) -> (Bench, u32) {
    let bench = Bench::new();
    bench.grace(Duration::from_millis(100));
    bench.answers.lock().unwrap().group = Some(place.0.clone());
    bench.add_announced(&place.script(script));
    bench.handle.start(UNIT);
    let pid = bench.spawned(UNIT);
    bench.wait_ready();
    (bench, pid)
}

/// Members that carry nothing of the unit's environment.
fn bare(place: &Place, bench: &Bench, own: u32) -> Vec<u32> {
    let carriers: Vec<u32> = bench.carriers().iter().map(|process| process.pid).collect();
    let mut members = place.0.members().unwrap();
    // The process itself shows nothing for a moment while it becomes another program.
    members.retain(|pid| *pid != own && !carriers.contains(pid));
    members
}

/// Starts a process that has left its parent, its session and its environment when it is ready: it has closed the pipe then, and
/// the shell between them is reaped.
const ORPHAN: &str = "up=$(env -i setsid sh -c 'exec sleep 1000 >/dev/null' &); \
                      trap '' TERM; : >$READY; exec sleep 1000";

#[test]
fn an_orphan_that_shed_session_and_environment_is_ended_after_its_parent_was_killed() {
    let Some(place) = Place::make() else { return };
    let (bench, pid) = ready(&place, ORPHAN);
    let orphan = bare(&place, &bench, pid);
    assert_eq!(orphan.len(), 1);
    let start = tree::start_ticks(orphan[0]).unwrap();
    bench.signal(pid, 9);
    let ended = bench.ended();
    let gone: Vec<u32> = ended.leftovers.ended.iter().map(|p| p.pid).collect();
    assert!(gone.contains(&orphan[0]), "{ended:?}");
    assert!(!ended.leftovers.best_effort());
    assert!(!tree::is_alive(orphan[0], start));
}

#[test]
fn without_a_group_such_an_orphan_is_not_found() {
    let Some(place) = Place::make() else { return };
    let bench = Bench::new();
    bench.add_announced(&place.script(ORPHAN));
    bench.handle.start(UNIT);
    let pid = bench.spawned(UNIT);
    bench.wait_ready();
    let orphan = bare(&place, &bench, pid);
    bench.signal(pid, 9);
    assert_eq!(bench.ended().leftovers.survivors, []);
    assert!(place.0.members().unwrap().contains(&orphan[0]));
    // Whoever knows the group ends it without a driver as well.
    drop(wait(&bench.handle.kill(UNIT)));
    let report = tree::end_with_group(&place.0, None, None, LONG, &mut |_| false).unwrap();
    assert!(report.ended.iter().any(|process| process.pid == orphan[0]));
    place.wait_empty();
}

#[test]
fn a_stop_proves_by_the_group_that_nobody_is_left_of_those_who_went_into_a_group_below() {
    let Some(place) = Place::make() else { return };
    let below = format!("{}/below", place.0.dir().display());
    let up = format!("echo 0 >'{below}/cgroup.procs'; exec sleep 1000 >/dev/null");
    let script = format!(
        "mkdir '{below}'; up=$(env -i setsid sh -c \"{up}\" &); \
         trap '' TERM; : >$READY; exec sleep 1000"
    );
    let (bench, pid) = ready(&place, &script);
    let orphan = bare(&place, &bench, pid);
    assert_eq!(orphan.len(), 1);
    let down = wait(&bench.handle.stop(UNIT));
    assert!(
        down.report
            .ended
            .iter()
            .any(|process| process.pid == orphan[0])
    );
    assert_eq!(down.report.survivors, []);
    assert!(!down.report.best_effort());
    assert!(!place.0.is_populated().unwrap());
    place.0.remove().unwrap();
}

#[test]
fn a_storm_of_forks_is_over_with_one_write() {
    let Some(place) = Place::make() else { return };
    // Each is an orphan that shed everything; the storm does not end by itself.
    let storm = "trap '' TERM; f() { (env -i setsid sleep 1000 &); }; \
                 i=0; while :; do f; i=$((i+1)); [ $i -eq 50 ] && : >$READY; done";
    let (bench, _) = ready(&place, storm);
    let down = wait(&bench.handle.kill(UNIT));
    assert_eq!(down.report.survivors, []);
    assert!(down.report.ended.len() >= 50, "{}", down.report.ended.len());
    assert!(!place.0.is_populated().unwrap());
}

#[test]
fn an_exempt_member_goes_on_and_its_group_stays_for_it() {
    let Some(place) = Place::make() else { return };
    let (bench, pid) = ready(&place, ORPHAN);
    let spared = bare(&place, &bench, pid);
    let start = tree::start_ticks(spared[0]).unwrap();
    bench.answers.lock().unwrap().exempt.extend(&spared);
    let down = wait(&bench.handle.stop(UNIT));
    assert_eq!(down.report.survivors, []);
    assert_eq!(place.0.members().unwrap(), spared);
    assert!(tree::is_alive(spared[0], start));
    let events = fs::read_to_string(place.0.dir().join("cgroup.events")).unwrap();
    assert!(events.contains("frozen 0"), "{events}");
    assert!(!events.contains("populated 0") && place.0.remove().is_err());
}

#[test]
fn a_stranger_who_was_moved_into_the_group_stays() {
    let Some(place) = Place::make() else { return };
    let mut stranger = Stranger::start();
    let (bench, _) = ready(&place, ORPHAN);
    stranger.enters(&place.0);
    let down = wait(&bench.handle.stop(UNIT));
    assert_eq!(down.report.survivors, []);
    assert_eq!(place.0.members().unwrap(), [stranger.0.id()]);
    let events = fs::read_to_string(place.0.dir().join("cgroup.events")).unwrap();
    assert!(events.contains("frozen 0"), "{events}");
}

/// A process that is older than what comes after it.
struct Stranger(Child);

impl Stranger {
    fn start() -> Self {
        let script = "read -r procs; echo 0 >\"$procs\"; echo; read -r end";
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        let child = shell.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = child.spawn().unwrap();
        // Start times have a resolution of a hundredth of a second.
        let start = tree::start_ticks(child.id()).unwrap();
        let younger = || {
            let mut child = Command::new("true").spawn().unwrap();
            let begun = tree::start_ticks(child.id());
            child.wait().unwrap();
            begun.is_some_and(|begun| begun > start)
        };
        while !younger() {}
        Self(child)
    }

    fn enters(&mut self, group: &Group) {
        let procs = format!("{}/cgroup.procs\n", group.dir().display());
        let stdin = self.0.stdin.as_mut().unwrap();
        stdin.write_all(procs.as_bytes()).unwrap();
        self.0
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut [0])
            .unwrap();
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // Closes its input, which ends it.
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}

#[test]
fn a_group_that_stands_still_hears_a_polite_stop() {
    let Some(place) = Place::make() else { return };
    let bench = Bench::new();
    bench.answers.lock().unwrap().group = Some(place.0.clone());
    let polite = "trap 'exit 7' TERM; : >$READY; while :; do sleep 0.01; done";
    bench.add_announced(&place.script(polite));
    bench.handle.start(UNIT);
    bench.spawned(UNIT);
    bench.wait_ready();
    // As a supervisor leaves it that is killed in the middle of a stop.
    place.0.freeze().unwrap();
    let down = wait(&bench.handle.stop(UNIT));
    assert_eq!(down.status.and_then(|status| status.code()), Some(7));
}

#[test]
fn an_adopted_process_is_stopped_with_its_group() {
    let Some(place) = Place::make() else { return };
    let (former, pid) = ready(&place, ORPHAN);
    let start = tree::start_ticks(pid).unwrap();
    let orphan = bare(&place, &former, pid);
    wait(&former.handle.shutdown(Shutdown::LeaveRunning));
    former.handle.join();
    let bench = Bench::new();
    bench.grace(Duration::from_millis(100));
    bench.answers.lock().unwrap().group = Some(place.0.clone());
    bench.share_marker(&former);
    bench
        .handle
        .add(UNIT, Machine::new(eager(), 7, clock::now()));
    let adopted = bench.handle.adopt(UNIT, pid, start, LONG).unwrap();
    assert_eq!(adopted, Adopted::Alive);
    let completion = bench.handle.stop(UNIT);
    reap(pid);
    let down = wait(&completion);
    assert!(
        down.report
            .ended
            .iter()
            .any(|process| process.pid == orphan[0])
    );
    assert!(!down.report.best_effort());
    assert!(!place.0.is_populated().unwrap());
}

#[test]
fn a_process_that_did_not_enter_its_group_is_stopped_as_without_one() {
    let Some(place) = Place::make() else { return };
    let bench = Bench::new();
    bench.answers.lock().unwrap().group = Some(place.0.clone());
    bench.add_announced("sleep 1000 & : >$READY; wait");
    bench.handle.start(UNIT);
    bench.spawned(UNIT);
    bench.wait_ready();
    let down = wait(&bench.handle.stop(UNIT));
    assert_eq!(
        (down.report.ended.len(), down.report.survivors.len()),
        (1, 0)
    );
    assert_eq!(bench.carriers(), []);
}
