//! `wg lock run`: which signals it passes on, and to whom.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lock::{holder, send, world};
use crate::run::{SENDS_VALUES, SHOWS_VALUES};
use crate::terminal::{CTRL_C, Terminal};
use crate::world::{WG, World};

#[test]
fn a_signal_is_passed_on_and_the_lock_lasts_until_the_command_has_heeded_it() {
    let world = world();
    let script = "trap 'echo out; exit 9' TERM; echo in; while :; do sleep 0.1; done";
    let mut holder = holder(&world, "d", script);
    send(holder.pid(), Signal::SIGTERM);
    assert_eq!(holder.line(), "out");
    assert_eq!(holder.finish().code(), 9);
    world.wg(&["lock", "run", "--dir", "d", "--", "true"]).ok();
    assert!(world.processes().is_empty());
}

#[test]
fn a_signal_that_would_end_the_wrapper_alone_is_passed_on_as_by_run() {
    let world = world();
    // TRAP, ABRT, ALRM, STKFLT, XCPU, VTALRM, PROF, IO, PWR
    let numbers = [5, 6, 14, 16, 24, 26, 27, 29, 30];
    let script = format!(
        "for n in {}; do trap \"echo $n\" $n; done; trap 'exit 9' TERM; echo in; while :; do sleep 0.01; done",
        numbers.map(|number| number.to_string()).join(" ")
    );
    let mut holder = holder(&world, "d", &script);
    for number in numbers {
        send(holder.pid(), Signal::try_from(number).unwrap());
        assert_eq!(holder.line(), number.to_string());
    }
    send(holder.pid(), Signal::SIGTERM);
    assert_eq!(holder.finish().code(), 9);
}

#[test]
fn a_real_time_signal_is_passed_on_as_by_run_as_often_as_it_came_and_with_its_value() {
    let world = world();
    fs::write(world.path("shows.py"), SHOWS_VALUES).unwrap();
    fs::write(world.path("sends.py"), SENDS_VALUES).unwrap();
    let mut one = world.start(&["lock", "run", "--dir", "d", "--", "python3", "shows.py"]);
    assert_eq!(one.line(), "ready");
    world.sh(&format!("python3 sends.py {}", one.pid()), b"");
    let values: Vec<String> = (0..20).map(|value| value.to_string()).collect();
    assert_eq!(one.line(), values.join(" "));
    one.finish().ok();
    // Who does not hear it dies of it, and that ending is seen as any other.
    let one = holder(&world, "d", "echo in; exec sleep 1000");
    world.sh(&format!("kill -40 {}", one.pid()), b"");
    one.finish().with_code(128 + 40);
    assert_eq!(world.json(&["lock", "status", "d"])["state"], "free");
}

#[test]
fn what_does_not_ask_for_the_end_reaches_the_command_alone() {
    let world = world();
    // A child that hears nothing would die of it.
    let script = "sleep 1000 & child=$!
        trap 'echo heard; kill -0 $child && echo alive' USR1
        trap 'kill $child; exit 9' TERM
        echo in; while :; do sleep 0.01 & wait $!; done";
    let mut one = holder(&world, "d", script);
    send(one.pid(), Signal::SIGUSR1);
    assert_eq!(one.line(), "heard");
    assert_eq!(one.line(), "alive");
    send(one.pid(), Signal::SIGTERM);
    assert_eq!(one.finish().code(), 9);
}

#[test]
fn what_a_command_left_hears_every_signal_in_its_place() {
    let world = world();
    // It says so when the command was waited for, whose signal it would be before that.
    let script =
        "(trap 'echo heard; exit 0' USR1; while kill -0 $$ 2>/dev/null; do sleep 0.01; done
        echo in; while :; do sleep 0.01; done) & exit 5";
    let mut one = holder(&world, "d", script);
    send(one.pid(), Signal::SIGUSR1);
    assert_eq!(one.line(), "heard");
    assert_eq!(one.finish().code(), 5);
}

/// Starts `wg lock run` of a script that is about to say that it is ready, as the leader of a terminal's session.
fn at_a_terminal(world: &World, command: &[&str], script: &str) -> Terminal {
    fs::write(world.path("script"), script).unwrap();
    let args = [
        &["lock", "run", "--dir", "d", "--"],
        command,
        &["sh", "script"],
    ]
    .concat();
    let mut terminal = Terminal::start_program(world, WG, &args, 80);
    terminal.shows("ready");
    terminal
}

/// Leaves with 7 at SIGINT, and by it at anything else.
const HEARS_INT: &str = "trap 'exit 7' INT; echo ready; while :; do sleep 0.01; done";

#[test]
fn an_interrupt_of_the_wrapper_alone_reaches_its_command_at_a_terminal_too() {
    let world = world();
    let terminal = at_a_terminal(&world, &[], HEARS_INT);
    kill(Pid::from_raw(terminal.pid()), Signal::SIGINT).unwrap();
    terminal.ends_with(7);
}

#[test]
fn ctrl_c_reaches_a_locked_command_once_and_one_that_left_the_group_too() {
    let world = world();
    let mut terminal = at_a_terminal(&world, &["setsid"], HEARS_INT);
    terminal.types(CTRL_C);
    terminal.ends_with(7);
    // The second SIGINT would be heard before the SIGUSR1 that follows it.
    let script = "n=0; trap 'n=$((n+1)); echo heard' INT; trap 'exit $((40+n))' USR1; echo ready
                  while :; do sleep 0.01; done";
    let mut terminal = at_a_terminal(&world, &[], script);
    terminal.types(CTRL_C);
    terminal.shows("heard");
    send(terminal.pid(), Signal::SIGUSR1);
    terminal.ends_with(41);
}
