//! `wg run`: what it says is true, and no more than is known.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::run::{eager, running, tell};
use crate::world::{Done, World};

fn events(done: &Done) -> Vec<Value> {
    done.stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn who_sent_the_signal_that_ended_a_command_is_said_only_where_it_is_known() {
    let world = World::new();
    let never = ["run", "--restart", "never", "--", "sh", "-c"];
    for (script, code, words) in [
        (
            "kill -9 $$",
            137,
            "who sent that signal is not known (rule killed)",
        ),
        (
            "kill -TERM $$",
            143,
            "who sent that signal is not known (rule external_stop)",
        ),
        (
            "ulimit -c 0; kill -ABRT $$",
            134,
            "that is the signal of a fault (rule aborted)",
        ),
    ] {
        let done = world.wg(&[&never[..], &[script]].concat()).with_code(code);
        assert!(done.stderr.contains(words), "{}", done.stderr);
    }
    // One that was passed on, and one of the same number that was not.
    for (script, words) in [
        (
            "echo ready; exec sleep 600",
            "wg run was sent that signal and passed it on",
        ),
        (
            "trap 'trap - USR1; kill -HUP $$' USR1; echo ready; while :; do sleep 0.01; done",
            "who sent that signal is not known",
        ),
    ] {
        let one = running(&world, &["--restart", "never"], script);
        let number = if words.contains("passed") {
            Signal::SIGHUP
        } else {
            Signal::SIGUSR1
        };
        tell(&one, number);
        let done = one.finish().with_code(128 + Signal::SIGHUP as i32);
        assert!(done.stderr.contains(words), "{}", done.stderr);
    }
}

/// Counts the runs in the file `n` and in a variable.
const COUNTS: &str = "n=0; [ -e n ] && read -r n <n; n=$((n+1)); echo $n >n";

#[test]
fn no_event_says_until_a_moment_that_was_before_it() {
    let world = World::new();
    eager(&world);
    let script = format!("{COUNTS}; [ $n -gt 20 ] && exit 0; exit 1");
    let flags = ["run", "--events", "--policy", "eager.toml"];
    let done = world
        .wg(&[&flags[..], &["--", "sh", "-c", &script]].concat())
        .ok();
    let waits: Vec<Value> = events(&done)
        .into_iter()
        .filter(|event| event["event"] == "backoff")
        .collect();
    assert_eq!(waits.len(), 20, "{}", done.stderr);
    for wait in waits {
        // Of one width, so that they sort as the moments do.
        let moment = |name: &str| wait[name].as_str().unwrap().to_owned();
        assert!(moment("until") >= moment("ts"), "{wait}");
    }
}

#[test]
fn each_restart_of_a_command_that_always_ends_well_has_its_own_number() {
    let world = World::new();
    let policy = "[supervisor]\nclean_budget = 2\nclean_window = \"3600s\"\n";
    fs::write(world.path("policy.toml"), policy).unwrap();
    let script = format!("{COUNTS}; [ $n -gt 5 ] && kill -TERM $PPID; exit 0");
    let flags = ["run", "--restart", "always", "--policy", "policy.toml"];
    let done = world.wg(&[&flags[..], &["--", "sh", "-c", &script]].concat());
    let said: Vec<&str> = done
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix("wg run: "))
        .collect();
    assert_eq!(
        said[..4],
        [
            "3 restarts within 1 h on the clean restart account, 2 are free",
            "starts again in 1 s (clean restart 3)",
            "starts again in 1 s (clean restart 4)",
            "starts again in 1 s (clean restart 5)",
        ],
        "{}",
        done.stderr
    );
}

#[test]
fn a_command_that_cannot_be_started_is_told_in_one_line_with_what_is_wrong() {
    let world = World::new();
    world.script("script", "#!/nowhere/at/all\n");
    world.script("nothing", "echo no first line\n");
    for (program, code, words) in [
        (
            "./script",
            127,
            "(os error 2): it is there, but its interpreter `/nowhere/at/all` is not",
        ),
        ("./missing", 127, "No such file or directory (os error 2)"),
        ("/", 126, "(os error 13): it is a directory"),
        ("./nothing", 126, "no script that begins with #!"),
    ] {
        let done = world.wg(&["run", "--", program]).with_code(code);
        let said: Vec<&str> = done.stderr.lines().collect();
        assert_eq!(said.len(), 1, "{said:?}");
        let start = format!("wg run: no process was started: failed to start `{program}`: ");
        assert!(said[0].starts_with(&start), "{said:?}");
        assert!(said[0].ends_with(words), "{said:?}");
        let locked = world.wg(&["lock", "run", "--", program]).with_code(code);
        assert!(
            locked.stderr.trim_end().ends_with(words),
            "{}",
            locked.stderr
        );
    }
}

#[test]
fn a_last_run_that_failed_is_not_called_done() {
    let world = World::new();
    let flags = ["run", "--events", "--restart", "never", "--", "sh", "-c"];
    let done = world.wg(&[&flags[..], &["exit 3"]].concat()).with_code(3);
    let last = events(&done).pop().unwrap();
    assert_eq!(last["event"], "stopped");
    assert_eq!(last["text"], "down, and not started again");
}
