//! `wg run`: one command in the foreground, under the same machine and driver as the chats.

mod line;
mod terminal;

use std::collections::HashSet;
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvError, bounded};
use exit_classifier::{Asked, Ending, Observation, RuleSet};
use session_lock::ProcessIdentity;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use supervisor::tree::Marker;
use supervisor::{
    Cooperation, Disposition, Ended, Foreground, Generation, Host, Ladder, Machine, Notice,
    Outcome, Prepared, Restart, Rung, SpawnFailure, StartReason, UnitId, ValidPolicy,
};

use self::line::{Line, Teller};
use self::terminal::Terminal;
use crate::ears::{self, Board, Ears};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::names::{ChatState, EventKind};
use crate::notices;
use crate::process_signal::{self, Signal};
use crate::store::events::EventLine;
use crate::store::registry;
use crate::strays;
use crate::unstartable;
use crate::why::LastVerdict;
use crate::wire;

/// The environment variable that everything below the command carries.
const MARKER: &str = "WG_RUN";

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
    let terminal = Terminal::of_this_process();
    let (listening, ears) = ears::listen(SIGCHLD).map_err(system("failed to handle signals"))?;
    let told = Arc::new(Told::of(ears.board(), terminal));
    let (teller, line) = Teller::start(tell).map_err(system("failed to start a thread"))?;
    let (starting, apart) = bounded(0);
    let host = OneCommand {
        command: options.command.clone(),
        rules: RuleSet::command(),
        nonce: registry::nonce()?,
        child: None,
        before,
        told: Arc::clone(&told),
        apart,
        tell: line,
    };
    let machine = Machine::new(
        options.policy.clone(),
        u64::from(std::process::id()),
        supervisor::clock::now(),
    );
    let foreground = Foreground::start(host, machine, options.restart).map_err(|e| {
        Failure::new(ExitCode::System, "failed to start the supervisor").caused_by(e)
    })?;
    ears::leave_to_others();
    drop(starting);
    let outcome = std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("signals".into())
            .spawn_scoped(scope, || heed(ears, &foreground, &told))
            .map_err(system("failed to start a thread"))?;
        let outcome = foreground.outcome();
        drop(listening);
        Ok::<_, Failure>(outcome)
    })?;
    // The host goes with it, and with the host the teller's line.
    drop(foreground);
    teller.finish();
    Ok(told.code_after(&outcome))
}

/// Passes on what this process is told, until it is told nothing more.
fn heed(ears: Ears, foreground: &Foreground, told: &Told) {
    for heard in ears {
        match heard.number {
            SIGCHLD => strays::reap(),
            SIGINT | SIGTERM | SIGQUIT => {
                told.by_terminal.store(heard.from_kernel, Ordering::SeqCst);
                // The first step of the stop passes it on: a command that died of it before the stop was known would be started again.
                let before = told.to_end_by.swap(heard.number, Ordering::SeqCst);
                // A hang-up is not the first of two demands: at a session's end both come at once.
                drop(if matches!(before, 0 | SIGHUP) {
                    foreground.stop()
                } else {
                    foreground.kill()
                });
            }
            // Both the shell and the system tell of a terminal that is gone: to be told twice is no impatience.
            SIGHUP => match told.hang_up(heard.from_kernel) {
                HangUp::OfTheCommand => {
                    told.passing_on(SIGHUP);
                    foreground.signal(SIGHUP);
                }
                HangUp::TheEnd => drop(foreground.stop()),
                HangUp::Known => {}
            },
            number => {
                told.passing_on(number);
                match heard.value {
                    Some(value) => foreground.queue(number, value),
                    None => foreground.signal(number),
                }
            }
        }
    }
}

/// What the one that supervises and the one that listens tell each other.
#[derive(Debug)]
struct Told {
    board: Arc<Board>,
    terminal: Terminal,
    /// The signal that told us to end, 0 if none did.
    to_end_by: AtomicI32,
    /// Whether it came from the terminal, which tells all of its foreground group.
    by_terminal: AtomicBool,
    /// The code that says why the command could not be started, 0 if it could.
    not_started: AtomicU8,
    /// A run ended after that signal, or the command was done without it.
    ended: AtomicBool,
    /// What was passed on to the run that goes on, a bit for each signal.
    passed_on: AtomicU64,
}

/// What a hang-up means.
enum HangUp {
    /// The command may do with it what it likes.
    OfTheCommand,
    /// The terminal is gone.
    TheEnd,
    /// It is, and the end was asked for already.
    Known,
}

impl Told {
    fn of(board: Arc<Board>, terminal: Terminal) -> Self {
        Self {
            board,
            terminal,
            to_end_by: AtomicI32::new(0),
            by_terminal: AtomicBool::new(false),
            not_started: AtomicU8::new(0),
            ended: AtomicBool::new(false),
            passed_on: AtomicU64::new(0),
        }
    }

    /// Takes note of a signal that is about to be passed on.
    fn passing_on(&self, number: i32) {
        self.passed_on.fetch_or(bit(number), Ordering::SeqCst);
    }

    /// Whether this run was passed that signal.
    fn has_passed_on(&self, number: i32) -> bool {
        self.passed_on.load(Ordering::SeqCst) & bit(number) != 0
    }

    /// Whether a stop is asked for, or about to be.
    fn to_end(&self) -> bool {
        // A command that died of its shell's hang-up would be started again, were that only known when it is heard.
        let hung_up = || self.board.says_hang_up() && self.terminal.is_gone();
        // In this order: a hang-up that is decided about has left its mark already.
        self.board.says_end() || hung_up() || self.to_end_by.load(Ordering::SeqCst) != 0
    }

    fn hang_up(&self, from_kernel: bool) -> HangUp {
        let order = Ordering::SeqCst;
        self.board.weigh(|| {
            if !from_kernel && !self.terminal.is_gone() {
                HangUp::OfTheCommand
            } else if self
                .to_end_by
                .compare_exchange(0, SIGHUP, order, order)
                .is_ok()
            {
                HangUp::TheEnd
            } else {
                HangUp::Known
            }
        })
    }

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

/// The bit of a signal, which are 64 at most.
fn bit(number: i32) -> u64 {
    u32::try_from(number - 1)
        .ok()
        .and_then(|place| 1_u64.checked_shl(place))
        .unwrap_or(0)
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
    /// Ends when no other thread has the signals any more.
    apart: Receiver<Infallible>,
    tell: Line,
}

impl Host for OneCommand {
    fn prepare(
        &mut self,
        _unit: UnitId,
        _generation: Generation,
        _reason: StartReason,
    ) -> Prepared {
        let Err(RecvError) = self.apart.recv();
        self.tell.state(ChatState::Starting);
        // The stop is on its way.
        if self.told.to_end() {
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
        // The terminal tells the command at the same moment as this program, whose listener may be slower.
        if ended.stop_asked || self.told.to_end() {
            seen.asked = Some(Asked::Stop);
            self.told.ended.store(true, Ordering::SeqCst);
        }
        let mut verdict = self.rules.classify(&seen);
        // The status does not say who sent it; here it is known.
        if let Ending::Signal { number, .. } = seen.ending
            && seen.asked.is_none()
            && self.told.has_passed_on(number)
        {
            verdict.because = "wg run was sent that signal and passed it on".into();
            verdict.evidence.push(("passed_on", "true".to_owned()));
        }
        self.tell.state(ChatState::Stopping);
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
        self.told.passed_on.store(0, Ordering::SeqCst);
    }

    fn spawn_error(&mut self, _unit: UnitId, program: &OsStr, error: &io::Error) -> SpawnFailure {
        let why = unstartable::in_words(Path::new(""), program, error);
        let reason = format!("failed to start `{}`: {why}", program.display());
        let (code, failure) = match SpawnFailure::of(program, error) {
            SpawnFailure::Permanent { .. } => (
                unstartable::shell_code(error),
                SpawnFailure::Permanent { reason },
            ),
            SpawnFailure::Transient { .. } => {
                (ExitCode::System.code(), SpawnFailure::Transient { reason })
            }
        };
        self.told.not_started.store(code, Ordering::SeqCst);
        failure
    }

    fn notice(&mut self, _unit: UnitId, notice: &Notice) {
        if matches!(notice, Notice::Finished) {
            self.told.ended.store(true, Ordering::SeqCst);
        }
        if let Some(state) = notices::state_after(notice) {
            self.tell.state(state);
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
        let by_terminal = self.told.by_terminal.load(Ordering::SeqCst);
        let knows = by_terminal && process_signal::shares_our_group(child.pid);
        // A process that somebody stopped hears nothing before it goes on.
        for signal in (!knows).then_some(signal).into_iter().chain([Signal::CONT]) {
            if let Err(e) = process_signal::send(child, signal) {
                log::warn!("signal {} could not be passed on: {e}", signal.as_raw());
            }
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
