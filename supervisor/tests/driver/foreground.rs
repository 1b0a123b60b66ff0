//! One command in the foreground.

use std::io::{PipeWriter, Read};
use std::process::{Command, Stdio};

use supervisor::{
    Disposition, Ended, Foreground, Generation, Host, Ladder, Machine, Outcome, ParkReason, Policy,
    Prepared, Restart, StartReason, UnitId, clock,
};

use crate::common::LONG;

struct Shell {
    script: &'static str,
    /// Where the first run says something.
    says: Option<PipeWriter>,
}

impl Host for Shell {
    fn prepare(&mut self, _: UnitId, generation: Generation, _: StartReason) -> Prepared {
        let mut command = Command::new("sh");
        command
            .args(["-c", self.script])
            .stdin(Stdio::null())
            .env("ATTEMPT", generation.to_string());
        if let Some(pipe) = self.says.take() {
            command.stdout(pipe);
        }
        Prepared::Go(Box::new(command))
    }

    fn judge(&mut self, _: UnitId, ended: &Ended) -> Disposition {
        match ended.status {
            Some(status) if status.success() => Disposition::Clean,
            other => Disposition::Crash {
                reason: format!("{other:?}"),
            },
        }
    }

    fn ladder(&mut self, _: UnitId) -> Ladder {
        Ladder {
            final_grace: LONG,
            ..Ladder::standard()
        }
    }
}

/// A machine with pauses of zero.
fn eager(crash_hard: u32) -> Machine {
    let mut policy = Policy::standard();
    policy.backoff_first = std::time::Duration::ZERO;
    policy.backoff_cap = std::time::Duration::ZERO;
    policy.unsafe_no_backoff = true;
    policy.crash_hard = crash_hard;
    let policy = policy.validate().expect("because it is valid");
    Machine::new(policy, 1, clock::now())
}

/// Runs a script with pauses of zero and `crash_hard = 4`.
#[track_caller]
fn outcome(script: &'static str, restart: Restart) -> Outcome {
    let shell = Shell { script, says: None };
    let foreground = Foreground::start(shell, eager(4), restart).expect("because it starts");
    foreground.wait(LONG).expect("because it ends")
}

#[test]
fn a_success_ends_it_and_a_failure_is_tried_again() {
    let done = outcome("[ $ATTEMPT = 3 ]", Restart::OnFailure);
    assert!(matches!(done, Outcome::Done { .. }), "{done:?}");
    assert_eq!(done.shell_code(), Some(0));
}

#[test]
fn giving_up_returns_the_last_code_and_a_signal_as_a_shell_would() {
    for (script, code) in [("exit $((10 + ATTEMPT))", 14), ("kill -9 $$", 137)] {
        let gave_up = outcome(script, Restart::OnFailure);
        let Outcome::GaveUp {
            reason: ParkReason::CrashLimit { crashes: 4, .. },
            ..
        } = &gave_up
        else {
            panic!("{gave_up:?}");
        };
        assert_eq!(gave_up.shell_code(), Some(code));
    }
}

#[test]
fn what_is_never_restarted_runs_once() {
    assert_eq!(
        outcome("exit $((10 + ATTEMPT))", Restart::Never).shell_code(),
        Some(11)
    );
}

#[test]
fn what_is_always_restarted_is_restarted_after_a_success_too() {
    let script = "[ $ATTEMPT -lt 6 ] && exit 0; exit 9";
    let gave_up = outcome(script, Restart::Always);
    assert_eq!(gave_up.shell_code(), Some(9));
}

#[test]
fn a_signal_is_passed_on_real_time_or_not() {
    for (script, signal) in [
        ("trap 'exit 7' USR1; echo; while :; do sleep 0.01; done", 10),
        ("trap 'exit 7' 40; echo; while :; do sleep 0.01; done", 40),
    ] {
        let (mut ready, says) = std::io::pipe().unwrap();
        let shell = Shell {
            script,
            says: Some(says),
        };
        let foreground = Foreground::start(shell, eager(4), Restart::Never).unwrap();
        ready.read_exact(&mut [0]).unwrap();
        foreground.signal(signal);
        let ended = foreground.wait(LONG);
        assert_eq!(ended.and_then(|ended| ended.shell_code()), Some(7));
    }
}
