//! `wg run` at a terminal: what Ctrl-C reaches, and what the end of the terminal means.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::process::wait_gone;
use crate::terminal::{CTRL_C, Terminal};
use crate::world::{WG, World};

/// Starts `wg run` of a script that is about to say that it is ready, as the leader of a terminal's session.
fn running(world: &World, command: &[&str], script: &str) -> Terminal {
    fs::write(world.path("script"), script).unwrap();
    let args = [&["run", "--"], command, &["sh", "script"]].concat();
    let mut terminal = Terminal::start_program(world, WG, &args, 80);
    terminal.shows("ready");
    terminal
}

/// Leaves with 7 at SIGINT, and by it at anything else.
const HEARS_INT: &str = "trap 'exit 7' INT; echo ready; while :; do sleep 0.01; done";

#[test]
fn an_interrupt_of_wg_alone_reaches_its_command_at_a_terminal_too() {
    let world = World::new();
    let terminal = running(&world, &[], HEARS_INT);
    kill(Pid::from_raw(terminal.pid()), Signal::SIGINT).unwrap();
    terminal.ends_with(7);
}

#[test]
fn ctrl_c_reaches_a_command_that_left_the_terminals_group() {
    let world = World::new();
    let mut terminal = running(&world, &["setsid"], HEARS_INT);
    terminal.types(CTRL_C);
    terminal.ends_with(7);
}

#[test]
fn ctrl_c_reaches_a_command_in_the_foreground_once() {
    let world = World::new();
    // The second SIGINT would be heard before the SIGUSR1 that follows it.
    let script = "n=0; trap 'n=$((n+1)); echo heard' INT; trap 'exit $((40+n))' USR1; echo ready
                  while :; do sleep 0.01; done";
    let mut terminal = running(&world, &[], script);
    terminal.types(CTRL_C);
    terminal.shows("heard");
    kill(Pid::from_raw(terminal.pid()), Signal::SIGUSR1).unwrap();
    terminal.ends_with(41);
}

#[test]
fn a_command_that_dies_of_ctrl_c_is_not_started_again_however_soon_it_dies() {
    let world = World::new();
    // Which of the two is faster is a matter of luck, so more than once.
    for _ in 0..5 {
        let mut terminal = running(&world, &[], "echo ready; exec sleep 600");
        terminal.types(CTRL_C);
        terminal.shows("died of SIGINT");
        terminal.shows("it was asked to stop (rule stop_asked)");
        terminal.ends_with(130);
    }
}

/// What a command does that takes a while to tell by a file that it was told of the end, and that is told of it more than once.
const TELLS_HUP: &str = "trap 'trap \"\" HUP TERM; sleep 0.3; echo x >heard; exit 3' HUP TERM
    echo $PPID >wg.pid; echo ready; while :; do sleep 0.01; done";

#[test]
fn the_end_of_its_terminal_is_the_end_of_the_command() {
    let world = World::new();
    let terminal = running(&world, &[], TELLS_HUP);
    let mut wg = terminal.goes_away();
    wait_gone(i32::try_from(wg.id()).unwrap());
    assert_eq!(wg.wait().unwrap().code(), Some(3));
    assert_eq!(world.read("heard"), "x\n");
}

#[test]
fn a_demand_to_end_that_comes_with_the_end_of_the_terminal_is_no_impatience() {
    let world = World::new();
    let terminal = running(&world, &[], TELLS_HUP);
    let wg = Pid::from_raw(terminal.pid());
    // So that it hears of both at once.
    kill(wg, Signal::SIGSTOP).unwrap();
    let stopped = WaitStatus::Stopped(wg, Signal::SIGSTOP);
    assert_eq!(waitpid(wg, Some(WaitPidFlag::WUNTRACED)), Ok(stopped));
    kill(wg, Signal::SIGTERM).unwrap();
    let mut child = terminal.goes_away();
    kill(wg, Signal::SIGCONT).unwrap();
    wait_gone(wg.as_raw());
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert_eq!(world.read("heard"), "x\n");
}

/// Runs the file `script` as a job of an interactive shell, takes the terminal away and returns the events of `wg run`.
fn job_of_a_shell_whose_terminal_goes_away(world: &World, script: &str, place: &str) -> String {
    fs::write(world.path("script"), script).unwrap();
    let shell = ["--norc", "--noprofile", "-i"];
    let mut terminal = Terminal::start_program(world, "bash", &shell, 200);
    terminal.types(&format!(
        "'{WG}' run --events -- sh script 2>events{place}\n"
    ));
    world.wait_for_file("wg.pid", |text| text.ends_with('\n'));
    terminal.shows("ready");
    let wg = world.read("wg.pid").trim().parse().unwrap();
    let mut shell = terminal.goes_away();
    wait_gone(i32::try_from(shell.id()).unwrap());
    shell.wait().unwrap();
    wait_gone(wg);
    world.read("events")
}

#[test]
fn the_end_of_the_terminal_of_a_shell_is_the_end_of_its_jobs_and_no_second_word() {
    for place in ["", " &"] {
        let world = World::new();
        let events = job_of_a_shell_whose_terminal_goes_away(&world, TELLS_HUP, place);
        // Had the second word killed it, it would not have come to this.
        assert!(events.contains("left with code 3"), "{events}");
        assert!(events.contains("stop_asked"), "{events}");
        assert_eq!(world.read("heard"), "x\n", "{events}");
    }
}

#[test]
fn a_job_that_dies_of_its_shells_hang_up_is_not_started_again_however_soon_it_dies() {
    let script = "echo $PPID >wg.pid; echo ready; exec sleep 600";
    for place in ["", " &"] {
        // Which of the two is faster is a matter of luck, so more than once.
        for _ in 0..8 {
            let world = World::new();
            let events = job_of_a_shell_whose_terminal_goes_away(&world, script, place);
            assert_eq!(events.matches("\"spawned\"").count(), 1, "{events}");
            assert!(events.contains("stop_asked"), "{events}");
        }
    }
}
