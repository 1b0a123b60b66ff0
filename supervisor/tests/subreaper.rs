//! A driver in a program that is a child subreaper: orphans come to it, so that it looks nowhere else. The only test of its
//! program, because that is a setting of the whole process.
#![cfg(target_os = "linux")]

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};
use supervisor::tree::Marker;
use supervisor::{
    Disposition, Driver, Ended, Generation, Host, Machine, Policy, Prepared, Shutdown, StartReason,
    UnitId, clock,
};

const LONG: Duration = Duration::from_secs(60);
const MARKER: &str = "SUPERVISOR_SUBREAPER_UNIT";
/// Says in the end what it left: a process in a session of its own whose parent is gone, and one below that.
const LEAVES_ORPHANS: &str =
    "(setsid sh -c 'sleep 1000 & echo >\"$READY\"; wait' &); read -r x <\"$READY\"; exit 3";

struct Leaver {
    ready: std::path::PathBuf,
    ended: Sender<Ended>,
}

impl Host for Leaver {
    fn prepare(&mut self, _: UnitId, _: Generation, _: StartReason) -> Prepared {
        let mut command = Command::new("sh");
        command
            .args(["-c", LEAVES_ORPHANS])
            .env("READY", &self.ready)
            .env(MARKER, value())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Prepared::Go(Box::new(command))
    }

    fn judge(&mut self, _: UnitId, ended: &Ended) -> Disposition {
        // The test may have failed already.
        drop(self.ended.send(ended.clone()));
        Disposition::Finished
    }

    fn marker(&mut self, _: UnitId) -> Option<Marker> {
        Some(Marker {
            name: MARKER.into(),
            prefix: value(),
        })
    }
}

fn value() -> String {
    format!("{}/", std::process::id())
}

#[test]
fn orphans_that_left_their_session_come_to_a_subreaper_and_are_ended_there() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let place = tempfile::tempdir().unwrap();
    let ready = place.path().join("ready");
    rustix::fs::mkfifoat(rustix::fs::CWD, &ready, rustix::fs::Mode::RWXU).unwrap();
    let (sender, ended) = unbounded();
    let handle = Driver::start(Leaver {
        ready,
        ended: sender,
    })
    .unwrap();
    let policy = Policy::standard().validate().unwrap();
    handle.add(UnitId(1), Machine::new(policy, 1, clock::now()));
    handle.start(UnitId(1));
    let ended = ended.recv_timeout(LONG);
    handle.shutdown(Shutdown::KillAll).wait(LONG).unwrap();
    handle.join();

    let ended = ended.unwrap();
    assert_eq!(ended.status.map(ExitStatusExt::into_raw), Some(3 << 8));
    assert_eq!(ended.leftovers.ended.len(), 2, "{:?}", ended.leftovers);
    let marker = Marker {
        name: MARKER.into(),
        prefix: value(),
    };
    assert_eq!(supervisor::tree::carriers(&marker).unwrap().0, []);
}
