//! `wg run`: one command in the foreground, under the same machine and driver as the chats.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use exit_classifier::{Asked, Ending, Observation, RuleSet};
use session_lock::ProcessIdentity;
use signal_hook::consts::{
    SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2,
    SIGVTALRM, SIGWINCH, SIGXCPU,
};
use signal_hook::iterator::Signals;
use supervisor::tree::Marker;
use supervisor::{
    Cooperation, Disposition, Ended, Foreground, Generation, Host, Ladder, Machine, Notice,
    Outcome, Prepared, Restart, Rung, SpawnFailure, StartReason, UnitId, ValidPolicy,
};

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::names::EventKind;
use crate::notices;
use crate::process_signal::{self, Signal};
use crate::store::events::EventLine;
use crate::store::registry;
use crate::strays;
use crate::why::LastVerdict;
use crate::wire;

/// The environment variable that everything below the command carries.
const MARKER: &str = "WG_RUN";

/// What is passed on to the command; the first four end it. The later ones would end this program and leave the command alone.
const PASSED_ON: [i32; 14] = [
    SIGTERM,
    SIGINT,
    SIGQUIT,
    SIGHUP,
    SIGUSR1,
    SIGUSR2,
    SIGWINCH,
    SIGALRM,
    SIGVTALRM,
    SIGPROF,
    SIGXCPU,
    SIGIO,
    nix::sys::signal::Signal::SIGPWR as i32,
    nix::sys::signal::Signal::SIGSTKFLT as i32,
];

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
/// 128 + n for a signal, 127 or 126 for a program that cannot be started. Where a signal ends a wait between two runs it is 128 + n
/// for that signal, whatever the last run left with: no run ended because of it.
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
    let system =
        |what: &'static str| move |e: io::Error| Failure::new(ExitCode::System, what).caused_by(e);
    let before = strays::children();
    // What loses its parent below the command comes to us and is found by its place, whatever it did to its environment.
    strays::come_here();
    let told = Arc::new(Told::default());
    let teller = Teller::start(tell).map_err(system("failed to start a thread"))?;
    let host = OneCommand {
        command: options.command.clone(),
        rules: RuleSet::command(),
        nonce: registry::nonce()?,
        child: None,
        before,
        told: Arc::clone(&told),
        tell: teller.line(),
    };
    let ignored = process_signal::ignored();
    let heard = PASSED_ON
        .into_iter()
        // What the caller ignores, as `nohup` does, stays ignored, by the command too.
        .filter(|number| ignored & (1 << (number - 1)) == 0)
        .chain([SIGCHLD]);
    let mut signals = Signals::new(heard).map_err(system("failed to handle signals"))?;
    let stopper = signals.handle();
    let machine = Machine::new(
        options.policy.clone(),
        u64::from(std::process::id()),
        supervisor::clock::now(),
    );
    let foreground = Foreground::start(host, machine, options.restart).map_err(|e| {
        Failure::new(ExitCode::System, "failed to start the supervisor").caused_by(e)
    })?;
    let outcome = std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("signals".into())
            .spawn_scoped(scope, || listen(&mut signals, &foreground, &told))
            .map_err(system("failed to start a thread"))?;
        let outcome = foreground.outcome();
        stopper.close();
        Ok::<_, Failure>(outcome)
    })?;
    // The host goes with it, and with the host the teller's line.
    drop(foreground);
    teller.finish();
    Ok(told.code_after(&outcome))
}

/// A thread that tells what happened: whoever reads that may be slow, and nothing that is supervised waits for him.
struct Teller {
    line: Line,
    over: Receiver<()>,
}

/// Where the events go.
#[derive(Clone)]
struct Line(Sender<EventLine>);

/// So many events wait for a reader; those that follow are not told.
const UNTOLD: usize = 1_024;
/// How long a reader may take for what is left in the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Teller {
    fn start(tell: impl Fn(&EventLine) + Send + 'static) -> io::Result<Self> {
        let (line, events) = bounded(UNTOLD);
        let (done, over) = bounded(0);
        std::thread::Builder::new()
            .name("teller".into())
            .spawn(move || {
                for event in events {
                    tell(&event);
                }
                drop(done);
            })?;
        Ok(Self {
            line: Line(line),
            over,
        })
    }

    fn line(&self) -> Line {
        self.line.clone()
    }

    /// Waits until all is told, or nobody has listened for too long.
    fn finish(self) {
        drop(self.line);
        if self.over.recv_timeout(LAST_WORDS) == Err(RecvTimeoutError::Timeout) {
            log::debug!("nobody reads what is told");
        }
    }
}

impl Line {
    fn say(&self, event: EventLine) {
        if let Err(error) = self.0.try_send(event) {
            log::debug!("an event is not told: {error}");
        }
    }
}

/// Passes on what this process is told, until it is told nothing more.
fn listen(signals: &mut Signals, foreground: &Foreground, told: &Told) {
    for number in signals {
        if number == SIGCHLD {
            strays::reap();
            continue;
        }
        if !matches!(number, SIGINT | SIGTERM | SIGQUIT | SIGHUP) {
            foreground.signal(number);
            continue;
        }
        // The first step of the stop passes it on: a command that died of it before the stop was known would be started again.
        let before = told.to_end_by.swap(number, Ordering::SeqCst);
        drop(if before == 0 {
            foreground.stop()
        } else {
            foreground.kill()
        });
    }
}

/// What the one that supervises and the one that listens tell each other.
#[derive(Debug, Default)]
struct Told {
    /// The signal that told us to end, 0 if none did.
    to_end_by: AtomicI32,
    /// The code that says why the command could not be started, 0 if it could.
    not_started: AtomicU8,
    /// A run ended after that signal, or the command was done without it.
    ended: AtomicBool,
}

impl Told {
    /// The code of what happened last: as a shell would say it.
    fn code_after(&self, outcome: &Outcome) -> u8 {
        let not_started = self.not_started.load(Ordering::SeqCst);
        let by_signal = u8::try_from(self.to_end_by.load(Ordering::SeqCst))
            .ok()
            .filter(|number| *number != 0)
            .map(|number| 128 + number);
        match (outcome, by_signal) {
            // It waited for its next run, or was not even started yet.
            (Outcome::Done { .. }, Some(code)) if !self.ended.load(Ordering::SeqCst) => code,
            _ if not_started != 0 => not_started,
            (_, by_signal) => outcome
                .shell_code()
                .or(by_signal)
                .unwrap_or(ExitCode::Failed.code()),
        }
    }
}

struct OneCommand {
    command: Vec<OsString>,
    rules: RuleSet,
    nonce: String,
    /// The process that runs or ran last.
    child: Option<ProcessIdentity>,
    /// The children that this process had before it was `wg`.
    before: HashSet<u32>,
    told: Arc<Told>,
    tell: Line,
}

impl Host for OneCommand {
    fn prepare(
        &mut self,
        _unit: UnitId,
        _generation: Generation,
        _reason: StartReason,
    ) -> Prepared {
        // The stop is on its way.
        if self.told.to_end_by.load(Ordering::SeqCst) != 0 {
            return Prepared::NotNeeded;
        }
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
        let mut seen = Observation::new(
            ended.status.map_or(Ending::Lost, Ending::from),
            ended.ran_for,
        );
        // The terminal tells the command at the same moment as this program, which may be slower.
        if ended.stop_asked || self.told.to_end_by.load(Ordering::SeqCst) != 0 {
            seen.asked = Some(Asked::Stop);
            self.told.ended.store(true, Ordering::SeqCst);
        }
        let verdict = self.rules.classify(&seen);
        let line = EventLine::new(None, EventKind::Exited, format!("{} {verdict}", ended.pid));
        self.tell.say(EventLine {
            pid: Some(ended.pid),
            verdict: Some(LastVerdict::of(&verdict, ended.pid).to_event()),
            ..line
        });
        for process in &ended.leftovers.ended {
            let text = format!(
                "ended `{}` (pid {}), left behind by {}",
                process.name, process.pid, ended.pid
            );
            self.tell.say(EventLine {
                pid: Some(process.pid),
                ..EventLine::new(None, EventKind::OrphanEnded, text)
            });
        }
        wire::disposition(&verdict, None, None)
    }

    fn spawned(&mut self, _unit: UnitId, _generation: Generation, pid: u32, start_ticks: u64) {
        self.child = Some(ProcessIdentity {
            pid,
            start_ticks: Some(start_ticks),
            boot_id: crate::clock::boot_id().map(str::to_owned),
        });
        self.told.not_started.store(0, Ordering::SeqCst);
    }

    fn spawn_error(&mut self, _unit: UnitId, program: &OsStr, error: &io::Error) -> SpawnFailure {
        let failure = SpawnFailure::of(program, error);
        let code = match &failure {
            // As shells do: 127 for what is not there, 126 for what cannot be run.
            SpawnFailure::Permanent { .. } if error.kind() == io::ErrorKind::NotFound => 127,
            SpawnFailure::Permanent { .. } => 126,
            SpawnFailure::Transient { .. } => ExitCode::System.code(),
        };
        self.told.not_started.store(code, Ordering::SeqCst);
        failure
    }

    fn notice(&mut self, _unit: UnitId, notice: &Notice) {
        if matches!(notice, Notice::Finished) {
            self.told.ended.store(true, Ordering::SeqCst);
        }
        if let Some(event) = notices::event(notice, "process", "", |kind, text| {
            EventLine::new(None, kind, text)
        }) {
            self.tell.say(event);
        }
    }

    fn marker(&mut self, _unit: UnitId) -> Option<Marker> {
        Some(Marker {
            name: MARKER.to_owned(),
            prefix: format!("{}/", self.nonce),
        })
    }

    fn cooperate(&mut self, _unit: UnitId, step: Cooperation) -> bool {
        let number = self.told.to_end_by.load(Ordering::SeqCst);
        let (Cooperation::Release, Some(child), Some(signal)) =
            (step, &self.child, Signal::from_named_raw(number))
        else {
            return false;
        };
        if !process_signal::told_by_the_terminal(number)
            && let Err(e) = process_signal::send(child, signal)
        {
            log::warn!("signal {number} could not be passed on: {e}");
        }
        true
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

    fn owns_orphans(&mut self, _unit: UnitId) -> bool {
        true
    }

    fn is_exempt(&mut self, pid: u32) -> bool {
        self.before.contains(&pid)
    }
}
