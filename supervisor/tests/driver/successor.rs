//! A driver is killed in the middle of everything, and another one takes over.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

use supervisor::{Adopted, State, tree};

use crate::common::{Answer, Bench, LONG, Seen, UNIT};

const ROLE: &str = "SUPERVISOR_TEST_ROLE";
const ROUNDS: u32 = 3;

/// Not a test of its own: what the test below starts in a process that it kills.
#[test]
fn the_driver_that_will_be_killed() {
    if env::var_os(ROLE).is_none() {
        return;
    }
    let bench = Bench::new();
    bench.add_aloud("trap 'exit 42' USR1; echo up; while :; do sleep 0.02; done");
    println!("marker {}", bench.marker);
    bench.handle.start(UNIT);
    println!("pid {}", bench.spawned(UNIT));
    let (_sender, receiver) = channel::<()>();
    // Until it is killed, or the test that wanted it is no more.
    assert!(receiver.recv_timeout(LONG).is_err());
}

struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        // It is dead already unless the test failed.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_driver_that_is_killed_is_succeeded_without_a_second_copy_and_the_status_is_known() {
    for round in 0..ROUNDS {
        let mut first = Victim(
            Command::new(env::current_exe().unwrap())
                .args([
                    "--exact",
                    "successor::the_driver_that_will_be_killed",
                    "--nocapture",
                ])
                .env(ROLE, "first")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        let (mut pid, mut marker, mut up) = (None, None, false);
        let mut lines = BufReader::new(first.0.stdout.take().unwrap()).lines();
        while pid.is_none() || marker.is_none() || !up {
            let line = lines.next().expect("because it says so first").unwrap();
            pid = pid.or(line
                .strip_prefix("pid ")
                .and_then(|pid| pid.parse::<u32>().ok()));
            marker = marker.or(line.strip_prefix("marker ").map(str::to_owned));
            up |= line == "up";
        }
        let (pid, marker) = (pid.unwrap(), marker.unwrap());
        let start = tree::start_ticks(pid).unwrap();
        drop(first);
        assert!(
            tree::is_alive(pid, start),
            "round {round}: the child outlives its driver"
        );

        let second = Bench::new();
        second.answers.lock().unwrap().marker = Some(marker);
        second.add("exit 3");
        second.answer(UNIT, Answer::NotNeeded);
        assert_eq!(
            second.handle.adopt(UNIT, pid, start, LONG),
            Ok(Adopted::Alive)
        );
        let state = second.handle.state(UNIT, LONG).unwrap().unwrap();
        assert!(matches!(state, State::Running { adopted: true, .. }));
        second.handle.signal(UNIT, 10);
        let ended = loop {
            match second.next() {
                Seen::Ended(ended) => break ended,
                Seen::Asked | Seen::Spawned(..) => panic!("round {round}: a second copy"),
                Seen::Notice(_) => {}
            }
        };
        assert_eq!(ended.pid, pid);
        println!("round {round}: {:?}", ended.status);
        // Before Linux 6.15, or below a first process that does not reap, nobody
        // can know.
        assert!(ended.status.is_none_or(|status| status.code() == Some(42)));
        assert!(ended.adopted);
    }
}
