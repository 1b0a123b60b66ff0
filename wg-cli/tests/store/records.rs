//! The records of processes: the daemon's and a handler's end.

use std::fs;
use std::process::{Command, Stdio};

use wg_cli::clock::Timestamp;
use wg_cli::store::StoreError;
use wg_cli::store::exit_record::{AgentEnd, ExitRecord, MemoryEnd, VERSION};
use wg_cli::store::service_state::{Alive, ServiceState, start_ticks};

use crate::world::World;

#[test]
fn an_exit_record_has_the_golden_form_and_is_keyed_by_pid_and_line_two() {
    let world = World::new();
    let dir = world.session();
    assert_eq!(ExitRecord::read(&dir).unwrap(), None);
    let record = ExitRecord {
        version: VERSION,
        pid: 4711,
        at_line2: "2026-11-20T20:26:09.758715983Z".to_owned(),
        nonce: Some("0123456789abcdef".to_owned()),
        code: Some(75),
        signal: None,
        cause: "held by another".to_owned(),
        agent: Some(AgentEnd {
            ending: "signal 9 (KILL)".to_owned(),
        }),
        memory: None,
        at: Timestamp::parse("2026-11-20T20:27:00Z").unwrap(),
    };
    record.write(&dir).unwrap();
    assert_eq!(
        fs::read_to_string(ExitRecord::path(&dir)).unwrap(),
        include_str!("../golden/exit.json")
    );
    assert_eq!(ExitRecord::read(&dir).unwrap().as_ref(), Some(&record));
    assert!(record.is_of(4711, "2026-11-20T20:26:09.758715983Z"));
    assert!(
        !record.is_of(4711, "2026-11-20T20:26:10.758715983Z")
            && !record.is_of(4712, &record.at_line2)
    );
    let drained = ExitRecord {
        agent: None,
        memory: Some(MemoryEnd {
            peak: 300 << 20,
            cap: 256 << 20,
        }),
        ..record
    };
    drained.write(&dir).unwrap();
    assert_eq!(ExitRecord::read(&dir).unwrap().as_ref(), Some(&drained));
    fs::write(ExitRecord::path(&dir), "{").unwrap();
    assert!(matches!(
        ExitRecord::read(&dir),
        Err(StoreError::Corrupt { .. })
    ));
}

#[test]
fn a_daemon_is_believed_alive_only_with_its_own_start_time() {
    let world = World::new();
    world.workspace.ensure_service_dir().unwrap();
    let state = ServiceState::of_this_process("/run/x.sock".into());
    state.write(&world.workspace).unwrap();
    assert_eq!(
        ServiceState::read(&world.workspace).unwrap().as_ref(),
        Some(&state)
    );
    assert!(state.is_alive());
    let other = |change: fn(&mut ServiceState)| {
        let mut other = state.clone();
        change(&mut other);
        other.alive()
    };
    assert_eq!(
        other(|state| state.start = state.start.map(|start| start + 1)),
        Alive::No,
        "the number was used again"
    );
    assert_eq!(
        other(|state| state.boot = Some("another boot".to_owned())),
        Alive::No
    );
    assert_eq!(other(|state| state.boot = None), Alive::No);
    assert_eq!(
        other(|state| state.start = None),
        Alive::Unproven,
        "the earlier tool's file"
    );
    assert_eq!(other(|state| state.pid = u32::MAX), Alive::No);
}

#[test]
fn only_its_own_state_is_removed() {
    let world = World::new();
    world.workspace.ensure_service_dir().unwrap();
    let ours = ServiceState::of_this_process("/run/x.sock".into());
    let successor = ServiceState {
        pid: ours.pid + 1,
        ..ours.clone()
    };
    successor.write(&world.workspace).unwrap();
    ours.remove(&world.workspace).unwrap();
    assert!(ServiceState::read(&world.workspace).unwrap().is_some());
    successor.remove(&world.workspace).unwrap();
    assert_eq!(ServiceState::read(&world.workspace).unwrap(), None);
    successor.remove(&world.workspace).unwrap();
}

#[test]
fn the_earlier_tools_state_is_read() {
    let world = World::new();
    world.workspace.ensure_service_dir().unwrap();
    let text = r#"{"pid":1,"socket_path":"/x/daemon.sock","started_at":"2026-11-20T20:26:09.758715983+00:00"}"#;
    fs::write(world.workspace.state_path(), text).unwrap();
    let state = ServiceState::read(&world.workspace).unwrap().unwrap();
    assert_eq!((state.pid, state.start), (1, None));
}

#[test]
fn a_zombie_has_no_start_time_and_a_live_process_keeps_its_own() {
    let mut child = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let first = start_ticks(child.id());
    assert!(first.is_some());
    assert_eq!(start_ticks(child.id()), first);
    drop(child.stdin.take());
    // Its end of file says that it has closed everything; waitid without reaping says that it is a zombie.
    let id = nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(
        i32::try_from(child.id()).unwrap(),
    ));
    nix::sys::wait::waitid(
        id,
        nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT,
    )
    .unwrap();
    assert_eq!(start_ticks(child.id()), None);
    child.wait().unwrap();
}
