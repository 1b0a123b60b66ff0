//! A process that has ended is looked at, and reaped only when all that it left behind
//! is gone.

use std::process::{Command, Stdio};

use crossbeam_channel::{Receiver, Sender, unbounded};
use supervisor::tree::{self, Marker};
use supervisor::{
    Disposition, Ended, Foreground, Generation, Host, Ladder, Machine, Outcome, Policy, Prepared,
    Restart, StartReason, UnitId, clock,
};

use crate::common::{LONG, reap};

/// What a sweep does when it meets what the process left behind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    /// Something else in this program reaps the process.
    Reap,
}

/// Runs a script that leaves somebody behind, and says whether the process was a zombie
/// whenever a sweep met that one.
struct LeavesSomebody {
    leader: Option<(u32, u64)>,
    meanwhile: Meanwhile,
    zombie: Sender<bool>,
    mark: String,
}

impl Host for LeavesSomebody {
    fn prepare(&mut self, _: UnitId, _: Generation, _: StartReason) -> Prepared {
        let mut command = Command::new("sh");
        command
            .args(["-c", "sleep 1000 & exit 7"])
            .env("SUPERVISOR_PINNED", &self.mark)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Prepared::Go(Box::new(command))
    }

    fn spawned(&mut self, _: UnitId, _: Generation, pid: u32, start_ticks: u64) {
        self.leader = Some((pid, start_ticks));
    }

    fn is_exempt(&mut self, _: u32) -> bool {
        let (pid, start) = self.leader.expect("because it was started");
        let is_zombie = tree::start_ticks(pid) == Some(start) && !tree::is_alive(pid, start);
        self.zombie
            .send(is_zombie)
            .expect("because the test listens");
        if is_zombie && self.meanwhile == Meanwhile::Reap {
            self.meanwhile = Meanwhile::Nothing;
            reap(pid);
        }
        false
    }

    fn judge(&mut self, _: UnitId, ended: &Ended) -> Disposition {
        assert_eq!(ended.leftovers.survivors, []);
        Disposition::Finished
    }

    fn marker(&mut self, _: UnitId) -> Option<Marker> {
        Some(Marker {
            name: "SUPERVISOR_PINNED".into(),
            prefix: self.mark.clone(),
        })
    }

    fn ladder(&mut self, _: UnitId) -> Ladder {
        Ladder {
            final_grace: LONG,
            ..Ladder::standard()
        }
    }
}

#[track_caller]
fn run(meanwhile: Meanwhile) -> (Outcome, Receiver<bool>) {
    let (zombie, zombies) = unbounded();
    let host = LeavesSomebody {
        leader: None,
        meanwhile,
        zombie,
        mark: format!("{}-{}", std::process::id(), clock::now().as_nanos()),
    };
    let policy = Policy::standard().validate().expect("because it is valid");
    let machine = Machine::new(policy, 1, clock::now());
    let foreground = Foreground::start(host, machine, Restart::Never).expect("because it starts");
    let outcome = foreground.wait(LONG).expect("because it ends");
    (outcome, zombies)
}

#[test]
fn a_process_that_ended_keeps_its_pid_until_what_it_left_behind_is_gone() {
    let (outcome, zombies) = run(Meanwhile::Nothing);
    assert_eq!(outcome.shell_code(), Some(7));
    let met: Vec<bool> = zombies.iter().collect();
    assert!(!met.is_empty(), "a sweep met what was left behind");
    assert!(met.iter().all(|is_zombie| *is_zombie), "{met:?}");
}

#[test]
fn an_ending_that_somebody_else_reaps_was_seen_before_and_is_known() {
    let (outcome, zombies) = run(Meanwhile::Reap);
    assert!(zombies.iter().any(|is_zombie| is_zombie));
    assert_eq!(outcome.shell_code(), Some(7));
}
