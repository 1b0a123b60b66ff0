//! `wg run`: one command in the foreground, under the same machine and driver as the chats.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use exit_classifier::{Asked, Ending, Observation, RuleSet};
use session_lock::ProcessIdentity;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;
use supervisor::tree::Marker;
use supervisor::{
    Cooperation, Disposition, Driver, Ended, Generation, Host, Ladder, Machine, Notice, Prepared,
    Rung, SpawnFailure, StartReason, UnitId, ValidPolicy,
};

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::names::EventKind;
use crate::notices;
use crate::process_signal::{self, Signal};
use crate::store::events::EventLine;
use crate::store::registry;
use crate::why::LastVerdict;
use crate::wire;

/// The environment variable that everything below the command carries.
const MARKER: &str = "WG_RUN";

const UNIT: UnitId = UnitId(1);

/// When the command is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Unless it leaves with 0.
    OnFailure,
    /// However it ends.
    Always,
    /// Never.
    Never,
}

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// When it is started again.
    pub restart: Restart,
    /// The restart policy.
    pub policy: ValidPolicy,
}

/// Runs the command until it is done, given up or told to end, and returns the code to exit with: that of its last ending,
/// 128 + n for a signal, 127 or 126 for a program that cannot be started.
///
/// `tell` gets every event.
///
/// # Errors
///
/// The operating system refuses what a supervisor needs.
pub fn run(
    options: &RunOptions,
    tell: impl Fn(&EventLine) + Send + 'static,
) -> Result<u8, Failure> {
    let system = |what: &'static str| {
        move |e: std::io::Error| Failure::new(ExitCode::System, what).caused_by(e)
    };
    // What loses its parent below the command comes to us and is found by its place, whatever it did to its environment.
    #[cfg(target_os = "linux")]
    if let Err(e) = nix::sys::prctl::set_child_subreaper(true) {
        log::debug!("not a subreaper: {e}");
    }
    let (over, overs) = unbounded();
    let asked = Arc::new(AtomicI32::new(0));
    let host = Foreground {
        command: options.command.clone(),
        restart: options.restart,
        rules: RuleSet::command(),
        nonce: registry::nonce()?,
        child: None,
        asked: Arc::clone(&asked),
        last: 0,
        tell: Box::new(tell),
        over: over.clone(),
    };
    let mut signals = Signals::new([
        SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH, SIGCHLD,
    ])
    .map_err(system("failed to handle signals"))?;
    let stopper = signals.handle();
    let handle = Driver::start(host).map_err(|e| {
        Failure::new(ExitCode::System, "failed to start the supervisor").caused_by(e)
    })?;
    handle.add(
        UNIT,
        Machine::new(
            options.policy.clone(),
            u64::from(std::process::id()),
            supervisor::clock::now(),
        ),
    );
    handle.start(UNIT);
    let ears = std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for number in &mut signals {
                if over.send(Word::Signal(number)).is_err() {
                    return;
                }
            }
        })
        .map_err(system("failed to start a thread"))?;
    let code = attend(&handle, &overs, &asked);
    stopper.close();
    if ears.join().is_err() {
        log::error!("the signal thread panicked");
    }
    handle.join();
    Ok(code)
}

/// What the main thread is told.
#[derive(Debug)]
enum Word {
    /// A process is running, or none is.
    Child(Option<ProcessIdentity>),
    /// Nothing follows any more: exit with this code.
    Over(u8),
    Signal(i32),
}

fn attend(handle: &supervisor::Handle, words: &Receiver<Word>, asked: &AtomicI32) -> u8 {
    let mut child = None;
    let mut code = 0;
    let mut told_to_end = false;
    while let Ok(word) = words.recv() {
        match word {
            Word::Child(now) => child = now,
            Word::Over(with) => {
                code = with;
                break;
            }
            Word::Signal(SIGCHLD) => reap_strays(child.as_ref().map(|child| child.pid)),
            Word::Signal(number) => {
                let ends = matches!(number, SIGINT | SIGTERM | SIGQUIT | SIGHUP);
                if !was_told_by_the_terminal(number)
                    && let Some(child) = &child
                {
                    forward(child, number);
                }
                if ends {
                    asked.store(number, Ordering::SeqCst);
                    drop(if told_to_end {
                        handle.kill(UNIT)
                    } else {
                        handle.stop(UNIT)
                    });
                    told_to_end = true;
                }
            }
        }
    }
    drop(handle.shutdown(supervisor::Shutdown::StopAll));
    code
}

/// Whether the command has this signal already: the terminal sends these two to its whole foreground group, ours and the
/// command's. (A `kill -INT` of ours alone looks the same; the ladder's next rung makes up for it.)
fn was_told_by_the_terminal(number: i32) -> bool {
    let is_foreground = || {
        // Not one of the three: each may be a file.
        let terminal = std::fs::File::open("/dev/tty").ok()?;
        let group = nix::unistd::tcgetpgrp(&terminal).ok()?;
        Some(group == nix::unistd::getpgrp())
    };
    matches!(number, SIGINT | SIGQUIT) && is_foreground() == Some(true)
}

fn forward(child: &ProcessIdentity, number: i32) {
    let Some(signal) = Signal::from_named_raw(number) else {
        return;
    };
    match process_signal::send(child, signal) {
        Ok(_) => {}
        Err(e) => log::warn!("signal {number} could not be passed on: {e}"),
    }
}

/// Waits for what came to us as a subreaper and has ended: the kernel lists that under the main thread, which calls this.
///
/// The command itself is the driver's to wait for, and is listed under the driver's thread.
fn reap_strays(own: Option<u32>) {
    let list = format!("/proc/self/task/{}/children", nix::unistd::gettid());
    let Ok(children) = std::fs::read_to_string(list) else {
        return;
    };
    for pid in children
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse::<u32>().ok())
    {
        if Some(pid) == own {
            continue;
        }
        let Ok(raw) = i32::try_from(pid) else {
            continue;
        };
        // One that still runs stays.
        let stray = nix::unistd::Pid::from_raw(raw);
        if let Err(e) = nix::sys::wait::waitpid(stray, Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
            log::debug!("{pid} was waited for by somebody else: {e}");
        }
    }
}

struct Foreground {
    command: Vec<OsString>,
    restart: Restart,
    rules: RuleSet,
    nonce: String,
    child: Option<ProcessIdentity>,
    /// The signal that told us to end, 0 if none did.
    asked: Arc<AtomicI32>,
    /// The code of the last ending.
    last: u8,
    tell: Box<dyn Fn(&EventLine) + Send>,
    over: Sender<Word>,
}

impl Foreground {
    fn say(&self, word: Word) {
        if self.over.send(word).is_err() {
            log::debug!("nobody listens any more");
        }
    }
}

impl Host for Foreground {
    fn prepare(
        &mut self,
        _unit: UnitId,
        _generation: Generation,
        _reason: StartReason,
    ) -> Prepared {
        let Some((program, arguments)) = self.command.split_first() else {
            return Prepared::Refused {
                reason: "there is nothing to run".to_owned(),
            };
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env(MARKER, format!("{}/run", self.nonce));
        Prepared::Go(Box::new(command))
    }

    fn judge(&mut self, _unit: UnitId, ended: &Ended) -> Disposition {
        self.child = None;
        self.say(Word::Child(None));
        let mut seen = Observation::new(
            ended.status.map_or(Ending::Lost, Ending::from),
            ended.ran_for,
        );
        if ended.stop_asked {
            seen.asked = Some(Asked::Stop);
        }
        let verdict = self.rules.classify(&seen);
        self.last = code_of(ended.status);
        let line = EventLine::new(None, EventKind::Exited, format!("{} {verdict}", ended.pid));
        (self.tell)(&EventLine {
            pid: Some(ended.pid),
            verdict: Some(LastVerdict::of(&verdict, ended.pid).to_event()),
            ..line
        });
        for process in &ended.leftovers.ended {
            let text = format!(
                "ended `{}` (pid {}), left behind by {}",
                process.name, process.pid, ended.pid
            );
            (self.tell)(&EventLine {
                pid: Some(process.pid),
                ..EventLine::new(None, EventKind::OrphanEnded, text)
            });
        }
        match (wire::disposition(&verdict, None, None), self.restart) {
            (Disposition::Requested, _) => Disposition::Requested,
            (Disposition::Clean, Restart::OnFailure) | (_, Restart::Never) => Disposition::Finished,
            (other, Restart::OnFailure | Restart::Always) => other,
        }
    }

    fn spawned(&mut self, _unit: UnitId, _generation: Generation, pid: u32, start_ticks: u64) {
        let identity = ProcessIdentity {
            pid,
            start_ticks: Some(start_ticks),
            boot_id: crate::clock::boot_id().map(str::to_owned),
        };
        self.say(Word::Child(Some(identity.clone())));
        self.child = Some(identity);
    }

    fn notice(&mut self, _unit: UnitId, notice: &Notice) {
        if let Notice::SpawnFailed { failure, .. } = notice {
            self.last = match failure {
                // As shells do: 127 for what is not there, 126 for what cannot be run.
                SpawnFailure::Permanent { reason } if reason.contains("No such file") => 127,
                SpawnFailure::Permanent { .. } => 126,
                SpawnFailure::Transient { .. } => ExitCode::System.code(),
            };
        }
        if let Some(event) = notices::event(notice, "process", "", |kind, text| {
            EventLine::new(None, kind, text)
        }) {
            (self.tell)(&event);
        }
        match notice {
            Notice::Parked { .. } | Notice::Stopped | Notice::Finished => {
                self.say(Word::Over(self.last));
            }
            Notice::Spawned { .. }
            | Notice::Adopted { .. }
            | Notice::SpawnFailed { .. }
            | Notice::Exited { .. }
            | Notice::Backoff { .. }
            | Notice::Degraded { .. }
            | Notice::BudgetWarning { .. }
            | Notice::Held { .. }
            | Notice::Contended { .. }
            | Notice::HolderGone { .. }
            | Notice::Unparked { .. }
            | Notice::Idle
            | Notice::WokenEarly { .. }
            | Notice::NotNow { .. }
            | Notice::Stopping { .. } => {}
        }
    }

    fn marker(&mut self, _unit: UnitId) -> Option<Marker> {
        Some(Marker {
            name: MARKER.to_owned(),
            prefix: format!("{}/", self.nonce),
        })
    }

    fn cooperate(&mut self, _unit: UnitId, step: Cooperation) -> bool {
        // The signal that told us to end was passed on: the command knows.
        step == Cooperation::Release
            && self.child.is_some()
            && self.asked.load(Ordering::SeqCst) != 0
    }

    fn ladder(&mut self, _unit: UnitId) -> Ladder {
        Ladder {
            release_grace: Duration::from_secs(10),
            stdin_grace: Duration::ZERO,
            signals: vec![Rung {
                signal: SIGTERM,
                grace: Duration::from_secs(5),
            }],
            final_grace: Duration::from_secs(5),
        }
    }
}

fn code_of(status: Option<ExitStatus>) -> u8 {
    let Some(status) = status else {
        return ExitCode::Failed.code();
    };
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(ExitCode::Failed.code())
}
