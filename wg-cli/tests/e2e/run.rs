//! `wg run`: what it leaves with, what it passes on, and that nothing of a command survives it, however hostile it is.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::process::{Process, wait_gone};
use crate::world::{Running, WG, World};

/// Starts `wg run` of a shell script with these flags and waits for the script's first line.
#[track_caller]
pub(crate) fn running(world: &World, flags: &[&str], script: &str) -> Running {
    let mut running = world.start(&[&["run"], flags, &["--", "sh", "-c", script]].concat());
    assert_eq!(running.line(), "ready");
    running
}

pub(crate) fn tell(running: &Running, signal: Signal) {
    kill(Pid::from_raw(running.pid()), signal).unwrap();
}

/// Processes whose command line has this word, whatever their environment: a number that only this test sleeps for.
fn sleepers(nap: &str) -> Vec<Process> {
    let all = Process::all().into_iter();
    all.filter(|process| process.command_line.iter().any(|word| word == nap))
        .collect()
}

/// Writes a policy under which nothing is waited for.
pub(crate) fn eager(world: &World) {
    let text =
        "[supervisor]\nbackoff_first = \"0s\"\nbackoff_cap = \"0s\"\nunsafe_no_backoff = true\n";
    fs::write(world.path("eager.toml"), text).unwrap();
}

#[test]
fn it_leaves_with_the_last_code_as_a_shell_would_say_it() {
    let world = World::new();
    fs::write(world.path("file"), "").unwrap();
    let never = ["--restart", "never"];
    for (flags, command, code) in [
        (&[][..], &["true"][..], 0),
        (&never, &["sh", "-c", "exit 9"], 9),
        (&never, &["sh", "-c", "kill -SEGV $$"], 139),
        (&["--max-crashes", "1"], &["sh", "-c", "exit 78"], 78),
        (&[], &["/nowhere/at/all"], 127),
        (&[], &[""], 127),
        (&[], &["./file"], 126),
        (&[], &["/"], 126),
        (&["--policy", "/nowhere"], &["true"], 78),
        (&["--max-crashes", "99999999999"], &["true"], 2),
    ] {
        let done = world.wg(&[&["run"], flags, &["--"], command].concat());
        done.with_code(code);
        assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
    }
}

#[test]
fn a_program_that_cannot_be_started_is_named_with_the_reason_and_not_tried_again() {
    let world = World::new();
    let done = world.wg(&["run", "--events", "--", "/nowhere/at/all"]);
    done.with_code(127);
    let events: Vec<Value> = done
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["spawn_failed", "parked", "stopped"]);
    assert!(done.stderr.contains("/nowhere/at/all"), "{}", done.stderr);
}

#[test]
fn a_command_that_is_told_to_end_dies_of_that_signal_and_is_not_started_again() {
    // Its death and the stop come in the same millisecond; whichever is seen first, the reason is the stop.
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        for _ in 0..5 {
            let world = World::new();
            let one = running(&world, &["--events"], "echo ready; exec sleep 600");
            tell(&one, signal);
            let done = one.finish();
            done.with_code(128 + signal as i32);
            assert_eq!(
                done.stderr.matches("\"spawned\"").count(),
                1,
                "{}",
                done.stderr
            );
            assert!(done.stderr.contains("stop_asked"), "{}", done.stderr);
        }
    }
}

#[test]
fn without_a_terminal_that_went_away_a_hang_up_is_the_commands_own() {
    let world = World::new();
    let reads_again =
        "trap 'echo again' HUP; trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done";
    let mut one = running(&world, &["--events"], reads_again);
    for _ in 0..2 {
        tell(&one, Signal::SIGHUP);
        assert_eq!(one.line(), "again");
    }
    tell(&one, Signal::SIGTERM);
    let done = one.finish().with_code(9);
    assert_eq!(
        done.stderr.matches("\"spawned\"").count(),
        1,
        "{}",
        done.stderr
    );
    // Who does not hear it dies of it, and is started again as after any other signal.
    let mut other = running(&world, &[], "echo ready; exec sleep 600");
    tell(&other, Signal::SIGHUP);
    assert_eq!(other.line(), "ready");
    tell(&other, Signal::SIGTERM);
    other.finish().with_code(143);
}

/// A fault, what no program can catch, what stops and continues, what is ignored by default or by this program, and what the C library
/// keeps to itself.
const NOT_PASSED_ON: [i32; 17] = [
    4, 7, 8, 11, 31, // ILL, BUS, FPE, SEGV, SYS
    9, 19, // KILL, STOP
    18, 20, 21, 22, // CONT, TSTP, TTIN, TTOU
    13, 17, 23, 25, // PIPE, CHLD, URG, XFSZ
    32, 33,
];

#[test]
fn every_other_signal_is_passed_on_and_ends_nothing() {
    let world = World::new();
    let ends = [2, 3, 15];
    let passed: Vec<String> = (1..=64)
        .filter(|number| !NOT_PASSED_ON.contains(number) && !ends.contains(number))
        .map(|number| number.to_string())
        .collect();
    let script = format!(
        "for n in {}; do trap \"echo heard $n\" $n; done; echo ready; while :; do sleep 0.01; done",
        passed.join(" ")
    );
    let mut one = running(&world, &[], &script);
    for number in &passed {
        world.sh(&format!("kill -{number} {}", one.pid()), b"");
        assert_eq!(one.line(), format!("heard {number}"));
    }
    tell(&one, Signal::SIGTERM);
    one.finish().with_code(143);
}

/// Blocks a real-time signal, says so, and shows the values with which it came, in their order.
pub(crate) const SHOWS_VALUES: &str = "\
import ctypes, signal
libc = ctypes.CDLL(None)
signal.pthread_sigmask(signal.SIG_BLOCK, [40])
print('ready', flush=True)
mask, info = (ctypes.c_ulong * 16)(), (ctypes.c_ubyte * 128)()
libc.sigemptyset(mask), libc.sigaddset(mask, 40)
values = []
for _ in range(20):
    assert libc.sigwaitinfo(mask, info) == 40
    values.append(ctypes.c_int.from_buffer(info, 24).value)
print(*values, flush=True)
";

pub(crate) const SENDS_VALUES: &str = "\
import ctypes, sys
libc = ctypes.CDLL(None)
for value in range(20):
    assert libc.sigqueue(int(sys.argv[1]), 40, ctypes.c_void_p(value)) == 0
";

#[test]
fn a_real_time_signal_is_passed_on_as_often_as_it_came_and_with_its_value() {
    let world = World::new();
    fs::write(world.path("shows.py"), SHOWS_VALUES).unwrap();
    fs::write(world.path("sends.py"), SENDS_VALUES).unwrap();
    let mut one = world.start(&["run", "--", "python3", "shows.py"]);
    assert_eq!(one.line(), "ready");
    world.sh(&format!("python3 sends.py {}", one.pid()), b"");
    let values: Vec<String> = (0..20).map(|value| value.to_string()).collect();
    assert_eq!(one.line(), values.join(" "));
    one.finish().ok();
}

#[test]
fn a_command_that_was_stopped_hears_what_ends_it() {
    let world = World::new();
    // SIGTERM, which comes after the grace, would be the death of it before it could heed SIGINT.
    let script = "pid=$$
        (until read -r _ _ state _ </proc/$pid/stat && [ $state = T ]; do sleep 0.01; done; echo stopped) &
        trap 'exit 7' INT; echo ready; kill -STOP $$; while :; do sleep 0.01; done";
    let mut one = running(&world, &[], script);
    assert_eq!(one.line(), "stopped");
    tell(&one, Signal::SIGINT);
    one.finish().with_code(7);
}

#[test]
fn each_event_has_its_number_and_the_state_after_it() {
    let world = World::new();
    eager(&world);
    let script = "[ -e second ] && exit 0; touch second; exit 3";
    let flags = ["run", "--events", "--policy", "eager.toml"];
    let done = world.wg(&[&flags[..], &["--", "sh", "-c", script]].concat());
    let events: Vec<Value> = done
        .ok()
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<(u64, &str, &str)> = events
        .iter()
        .map(|event| {
            let text = |name: &str| event[name].as_str().unwrap();
            (event["seq"].as_u64().unwrap(), text("event"), text("state"))
        })
        .collect();
    assert_eq!(
        told,
        [
            (1, "spawned", "running"),
            (2, "exited", "stopping"),
            (3, "backoff", "backoff"),
            (4, "spawned", "running"),
            (5, "exited", "stopping"),
            (6, "stopped", "stopped"),
        ]
    );
}

#[test]
fn what_the_caller_ignores_stays_ignored() {
    let world = World::new();
    let mut shell = world.command("sh");
    let script = format!(
        "trap '' HUP; exec '{WG}' run -- sh -c 'trap \"echo heard\" USR1; echo ready; while :; do sleep 0.01; done'"
    );
    shell.args(["-c", &script]);
    let mut one = Running::of(shell);
    assert_eq!(one.line(), "ready");
    tell(&one, Signal::SIGHUP);
    tell(&one, Signal::SIGUSR1);
    assert_eq!(one.line(), "heard", "it runs on, as under nohup");
    tell(&one, Signal::SIGTERM);
    one.finish().with_code(143);
}

#[test]
fn told_twice_it_ends_everything_at_once_and_nobody_survives() {
    let world = World::new();
    let nap = format!("600.{}", std::process::id());
    // Fifty children, a session of its own, a double fork, and one that scrubbed its environment as well; none hears SIGTERM.
    let script = format!(
        "trap '' TERM HUP INT
         i=0; while [ $i -lt 50 ]; do sleep {nap} & i=$((i+1)); done
         setsid sh -c 'sleep {nap} & : >a; sleep {nap}' &
         (setsid sh -c 'sleep {nap} & : >b; sleep {nap}' &)
         (env -i setsid sh -c 'sleep {nap} & : >c; sleep {nap}' >/dev/null 2>&1 </dev/null &)
         while ! [ -e a -a -e b -a -e c ]; do sleep 0.01; done
         echo ready; while :; do sleep {nap}; done"
    );
    let one = running(&world, &[], &script);
    tell(&one, Signal::SIGTERM);
    tell(&one, Signal::SIGINT);
    one.finish().with_code(137);
    let left = sleepers(&nap);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_a_run_leaves_behind_is_gone_before_the_next_run_and_named() {
    let world = World::new();
    eager(&world);
    let nap = format!("601.{}", std::process::id());
    // The second run counts what it finds of the first, whose children left their parent, their session and their environment.
    let script = format!(
        "[ -e second ] && exit 0; touch second
         (env -i setsid sh -c 'echo up >up; exec sleep {nap}' >/dev/null 2>&1 </dev/null &)
         (setsid sleep {nap} >/dev/null 2>&1 </dev/null &)
         while [ ! -e up ]; do sleep 0.01; done; exit 3"
    );
    let done = world.wg(&["run", "--policy", "eager.toml", "--", "sh", "-c", &script]);
    done.ok();
    assert!(sleepers(&nap).is_empty(), "{:?}", sleepers(&nap));
    assert!(done.stderr.contains("left behind by"), "{}", done.stderr);
}

#[test]
fn many_leftovers_are_told_in_a_few_lines_and_each_as_an_event() {
    let world = World::new();
    let script = "i=0; while [ $i -lt 20 ]; do sleep 600 & i=$((i+1)); done";
    let told = world.wg(&["run", "--", "sh", "-c", script]).ok().stderr;
    assert_eq!(told.matches("left behind by").count(), 3, "{told}");
    assert!(
        told.ends_with("wg run: ended 17 more that it left behind\n"),
        "{told}"
    );
    let events = world
        .wg(&["run", "--events", "--", "sh", "-c", script])
        .ok()
        .stderr;
    assert_eq!(events.matches("\"orphan_ended\"").count(), 20, "{events}");
}

#[test]
fn a_grandchild_that_holds_standard_output_keeps_nobody_waiting() {
    let world = World::new();
    let done = world.wg(&["run", "--", "sh", "-c", "sleep 600 & echo done"]);
    assert_eq!(done.ok().stdout, "done\n");
}

#[test]
fn a_child_that_was_there_before_is_not_its_own() {
    let world = World::new();
    let script = format!("sleep 600 & echo $!; exec '{WG}' run -- true");
    let mut shell = world.command("sh");
    shell.args(["-c", &script]);
    let mut one = Running::of(shell);
    let pid: i32 = one.line().parse().unwrap();
    let wg = one.pid();
    wait_gone(wg);
    assert!(Process::look_at(pid).is_some_and(|it| it.command_line[0] == "sleep"));
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait_gone(pid);
    one.finish().ok();
}

#[test]
fn a_reader_of_the_events_who_does_not_read_delays_nothing_that_is_supervised() {
    let world = World::new();
    eager(&world);
    let script = "echo x >>runs; exit 1";
    let flags = ["--events", "--max-crashes", "0", "--policy", "eager.toml"];
    let one = world.start(&[&["run"], &flags[..], &["--", "sh", "-c", script]].concat());
    // More than a pipe holds, and more than are kept for the reader.
    world.wait_for_file("runs", |text| text.len() > 2 * 1_500);
    tell(&one, Signal::SIGTERM);
    // Its end is waited for before anything is read.
    wait_gone(one.pid());
    assert!(one.finish().code() < 256);
}

#[test]
fn a_signal_that_ends_a_wait_between_two_runs_is_what_it_leaves_with() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let world = World::new();
        let policy = "[supervisor]\nbackoff_first = \"600s\"\nbackoff_cap = \"600s\"\n";
        fs::write(world.path("patient.toml"), policy).unwrap();
        let mut command = world.command("/bin/sh");
        let run = format!("exec '{WG}' run --policy patient.toml --events -- false 2> events");
        command.args(["-c", &run]);
        let waiting = Running::of(command);
        world.wait_for_file("events", |text| text.contains("\"event\":\"backoff\""));
        tell(&waiting, signal);
        waiting.finish().with_code(128 + signal as i32);
    }
}
