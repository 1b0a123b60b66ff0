//! What the tests share: children that cannot outlive their test, and one way to check a verdict.

use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Once};
use std::time::Duration;

use exit_classifier::{Cause, Counts, Ending, Observation, RuleSet};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use signal_hook::flag::register_conditional_shutdown;

/// A shell in a process group of its own, which is ended with everything in it when the test lets go.
pub(crate) struct Shell(Child);

impl Shell {
    pub(crate) fn start(script: &str) -> Self {
        Self::start_in(script, "/")
    }

    pub(crate) fn start_in(script: &str, dir: impl AsRef<std::path::Path>) -> Self {
        heed_signals();
        let child = Command::new("/bin/sh")
            .args(["-c", script])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        Self(child)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Closes its standard input, which ends every `cat` in it.
    pub(crate) fn close(&mut self) -> Option<ChildStdin> {
        self.0.stdin.take()
    }

    /// Looks at its ending without reaping it, then reaps it; both must say the same.
    pub(crate) fn end(mut self) -> Ending {
        drop(self.close());
        let looked = look(self.0.id());
        let reaped = Ending::from(self.0.wait().unwrap());
        assert_eq!(looked, reaped, "the look and the reaping disagree");
        reaped
    }
}

/// Lets what is started here heed these signals, as from a terminal.
///
/// Whoever starts these tests in the background of a script, or under `nohup`, has them ignored, which every program inherits. A handler
/// it does not inherit, and has the default instead.
fn heed_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [Signal::HUP, Signal::INT, Signal::QUIT].map(Signal::as_raw) {
            let end = Arc::new(AtomicBool::new(true));
            register_conditional_shutdown(signal, 128 + signal, end).unwrap();
        }
    });
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Until it is reaped below, its id and its group belong to it, so this can hit nobody else. Once it was waited for,
        // `try_wait` says so and nothing is sent.
        if matches!(self.0.try_wait(), Ok(None)) {
            let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
            kill_process_group(pid, Signal::KILL).ok();
            self.0.wait().ok();
        }
    }
}

/// Waits until a child has ended and says how, but leaves it there.
pub(crate) fn look(pid: u32) -> Ending {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let status = waitid(
        WaitId::Pid(pid),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    )
    .unwrap()
    .unwrap();
    let value = status
        .exit_status()
        .or_else(|| status.terminating_signal())
        .unwrap();
    Ending::from_wait(status.raw_code(), value)
}

/// Runs a script in a shell to its end.
pub(crate) fn run(script: &str) -> Ending {
    Shell::start(script).end()
}

/// An observation of this ending and nothing else.
pub(crate) fn seen(ending: Ending) -> Observation<'static> {
    Observation::new(ending, Duration::from_secs(5))
}

pub(crate) const fn signal(number: i32) -> Ending {
    Ending::Signal {
        number,
        core: false,
    }
}

pub(crate) const fn never_started(errno: i32) -> Ending {
    Ending::NeverStarted { errno }
}

/// Checks what an observation is classified as.
#[track_caller]
pub(crate) fn check(
    rules: &RuleSet,
    seen: &Observation<'_>,
    cause: Cause,
    counts: Counts,
    rule: &str,
) {
    let verdict = rules.classify(seen);
    assert_eq!(
        (verdict.cause, verdict.counts, verdict.rule.as_ref()),
        (cause, counts, rule),
        "{seen:?}"
    );
    assert_eq!(verdict.class, counts.class());
}
