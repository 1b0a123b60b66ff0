//! The service under systemd: what it tells its manager, and the unit that `install` writes. The manager is played by a socket.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::errors::told;
use crate::process::wait_readable;
use crate::world::{WATCHDOG, WG, World, on_path};

/// What the service says next.
#[track_caller]
fn hears(manager: &UnixDatagram) -> String {
    assert!(
        wait_readable(manager, WATCHDOG),
        "the manager hears nothing"
    );
    let mut bytes = [0; 256];
    let read = manager.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..read].to_vec()).unwrap()
}

#[test]
fn a_service_manager_hears_when_the_service_is_ready_that_it_lives_and_that_it_ends() {
    let world = World::with_workspace();
    let place = world.path("notify");
    let manager = UnixDatagram::bind(&place).unwrap();
    let mut command = world.command(WG);
    command
        .args(["service", "start", "--foreground"])
        .env("NOTIFY_SOCKET", &place)
        .env("WATCHDOG_USEC", "200000")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut service = command.spawn().unwrap();
    assert!(hears(&manager).starts_with("READY=1"));
    // Ready means ready.
    assert_eq!(world.wg(&["up", "hello"]).ok().stdout, "hello\n");
    while hears(&manager) != "WATCHDOG=1" {}
    let handlers = world.handlers();
    assert_eq!(handlers.len(), 1);
    let environment = String::from_utf8_lossy(&handlers[0].environ).into_owned();
    assert!(!environment.contains("NOTIFY_SOCKET") && !environment.contains("WATCHDOG"));
    // What the unit sends at a restart.
    let pid = Pid::from_raw(i32::try_from(service.id()).unwrap());
    kill(pid, Signal::SIGUSR1).unwrap();
    while hears(&manager) != "STOPPING=1" {}
    assert!(service.wait().unwrap().success());
    assert_eq!(world.handlers().len(), 1, "the handler was to stay");
    world.wg(&["service", "start"]).ok();
    assert_eq!(world.wg(&["up", "again"]).ok().stdout, "again\n");
    world.stop();
}

#[test]
fn a_service_in_the_background_speaks_to_nobodys_manager() {
    let mut world = World::with_workspace();
    let place = world.path("notify");
    let manager = UnixDatagram::bind(&place).unwrap();
    world.set("NOTIFY_SOCKET", place.to_str().unwrap());
    world.wg(&["service", "start"]).ok();
    world.stop();
    manager.set_nonblocking(true).unwrap();
    assert!(manager.recv(&mut [0; 16]).is_err());
}

#[test]
fn a_service_that_runs_already_is_said_in_the_foreground_too() {
    let world = World::with_workspace();
    world.wg(&["service", "start"]).ok();
    let again = world.wg(&["service", "start", "--foreground"]).ok();
    assert!(
        again.stdout.starts_with(&format!(
            "Service already running (PID {})",
            world.daemon_pid()
        )),
        "{}",
        again.stdout
    );
    world.stop();
}

#[test]
fn the_unit_is_written_once_says_what_comes_next_and_replaces_nobody_elses() {
    let world = World::with_workspace();
    let printed = world.wg(&["service", "install", "--print"]).ok().stdout;
    for line in [
        "Type=notify",
        "KillMode=process",
        "Delegate=yes",
        "RestartKillSignal=SIGUSR1",
        "WatchdogSec=60",
        "WantedBy=default.target",
    ] {
        assert!(
            printed.lines().any(|there| there == line),
            "{line}: {printed}"
        );
    }
    let units = Path::new("../home/.config/systemd/user");
    assert!(
        !world.here().join(units).exists(),
        "--print wrote something"
    );
    let installed = world.wg(&["service", "install"]).ok().stdout;
    assert!(
        installed.starts_with("Wrote ") && installed.contains("enable --now wg-here-"),
        "{installed}"
    );
    let unit = fs::read_dir(world.here().join(units))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    assert_eq!(fs::read_to_string(&unit).unwrap(), printed);
    assert!(
        world
            .wg(&["service", "install"])
            .ok()
            .stdout
            .starts_with("Already there: ")
    );
    if let Some(analyze) = on_path("systemd-analyze") {
        let checked = world.program(
            &analyze,
            &[
                std::ffi::OsStr::new("verify"),
                "--user".as_ref(),
                unit.as_os_str(),
            ],
        );
        assert_eq!(
            checked
                .stderr
                .lines()
                .filter(|line| line.contains("wg-here-"))
                .count(),
            0,
            "{}",
            checked.stderr
        );
    }
    fs::write(&unit, "[Service]\nExecStart=/bin/true\n").unwrap();
    told(
        &world.wg(&["service", "install"]),
        1,
        &["is not ours", "--print"],
    );
}
