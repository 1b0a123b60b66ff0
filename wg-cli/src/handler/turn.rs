//! Runs one agent for one message: starts it, feeds it, listens to it, ends it, and leaves nothing of it behind.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use exit_classifier::{Asked, Ending};
use nix::sys::signal::Signal;
use rustix::io::Errno;

use crate::agent::{AgentSpec, Program};
use crate::clock;
use crate::unstartable;

use super::command;
use super::core::EndTurn;
use super::ladder::{Ceiling, EndedFor, Happening, Ladder, Rung};
use super::output::{BoundedLog, Collected, ERROR_TAIL, REPLY_HEAD, REPLY_TAIL};
use super::running::{Ready, Running, Stream};
use super::tree::{self, LEFTOVER_GRACE, Manner};

/// Everything that one turn needs to know.
pub(crate) struct Turn<'a> {
    /// The agent.
    pub(crate) agent: &'a AgentSpec,
    /// Where it works.
    pub(crate) cwd: &'a Path,
    /// The message, without a line end.
    pub(crate) message: &'a str,
    /// What is set in the agent's environment beside its own settings.
    pub(crate) variables: &'a [(&'static str, OsString)],
    /// The memory, in bytes, that its processes and this one may have together, if there is a limit.
    pub(crate) memory_cap: Option<u64>,
    /// How long its stop signals have before force is used.
    pub(crate) grace: Duration,
    /// Where its error output is kept.
    pub(crate) errors: Option<BoundedLog>,
    /// Processes that are not ended with the turn, asked for when somebody is to be.
    pub(crate) exempt: &'a dyn Fn() -> HashSet<u32>,
    /// Starts the command, for callers that lend it something.
    pub(crate) spawn: &'a mut dyn FnMut(&mut Command) -> io::Result<Child>,
}

/// Who may ask for a running turn to end.
pub(crate) trait Listener {
    /// Returns the descriptors that become readable when there is something to hear.
    fn fds(&self) -> Vec<BorrowedFd<'_>>;
    /// Takes in what was heard, and returns what it means for the turn.
    fn heard(&mut self) -> Vec<EndTurn>;
    /// Learns that the agent has shown a sign of life.
    fn progressed(&mut self, now: Instant);
    /// Returns when [`Listener::tick`] is due.
    fn wake_at(&self) -> Option<Instant>;
    /// Does what is due.
    fn tick(&mut self, now: Instant);
}

/// What came of a turn.
#[derive(Debug)]
pub(crate) struct Report {
    /// How the agent ended.
    pub(crate) ending: Ending,
    /// What was asked of it before it ended.
    pub(crate) asked: Option<Asked>,
    /// How long it ran.
    pub(crate) ran_for: Duration,
    /// What it said.
    pub(crate) text: String,
    /// Whether it said anything at all.
    pub(crate) shown_output: bool,
    /// The last of its error output.
    pub(crate) error_tail: String,
    /// Processes of it that still ran when it had ended, and were ended.
    pub(crate) ended_children: u32,
    /// Processes of it that could not be ended.
    pub(crate) survivors: Vec<u32>,
    /// The most memory that its processes were seen to use at once, in bytes; `None` for a turn too short to be looked at.
    pub(crate) peak_memory: Option<u64>,
    /// Whether it was ended because that was more than the cap.
    pub(crate) over_memory_cap: bool,
    /// Why it could not be started, in words.
    pub(crate) not_started: Option<String>,
}

impl Report {
    fn never_started(error: &io::Error, words: String) -> Self {
        Self {
            ending: Ending::never_started(error),
            asked: None,
            ran_for: Duration::ZERO,
            text: String::new(),
            shown_output: false,
            error_tail: String::new(),
            ended_children: 0,
            survivors: Vec::new(),
            peak_memory: None,
            over_memory_cap: false,
            not_started: Some(words),
        }
    }
}

/// Runs the turn to its end; `on_output` sees the reply as it comes.
pub(crate) fn run(
    turn: Turn<'_>,
    listener: &mut dyn Listener,
    on_output: &mut dyn FnMut(&[u8]),
) -> Report {
    match &turn.agent.program {
        Program::BuiltInEcho => echo(turn.message, on_output),
        Program::Argv(argv) => run_command(turn, argv, listener, on_output),
    }
}

/// The agent that needs nothing installed: its reply is the message.
fn echo(message: &str, on_output: &mut dyn FnMut(&[u8])) -> Report {
    on_output(message.as_bytes());
    Report {
        ending: Ending::Code(0),
        asked: None,
        ran_for: Duration::ZERO,
        text: message.to_owned(),
        shown_output: true,
        error_tail: String::new(),
        ended_children: 0,
        survivors: Vec::new(),
        peak_memory: None,
        over_memory_cap: false,
        not_started: None,
    }
}

/// Starts the agent and stays with it to its end.
fn run_command(
    mut turn: Turn<'_>,
    argv: &[OsString],
    listener: &mut dyn Listener,
    on_output: &mut dyn FnMut(&[u8]),
) -> Report {
    // A missing directory and a missing program are the same error of a spawn, and people mistake one for the other.
    if !turn.cwd.is_dir() {
        let error = io::Error::from_raw_os_error(Errno::NOENT.raw_os_error());
        let words = format!(
            "its working directory `{}` does not exist",
            turn.cwd.display()
        );
        return Report::never_started(&error, words);
    }
    let mut command = command::command(&turn, argv);
    let started_at = clock::steady();
    let spawned = (turn.spawn)(&mut command).and_then(|child| Running::attach(child, turn.message));
    let agent = match spawned {
        Ok(agent) => agent,
        Err(error) => {
            let program = argv.first().map(OsString::as_os_str).unwrap_or_default();
            let why = unstartable::in_words(turn.cwd, program, &error);
            let words = format!("`{}` could not be started: {why}", program.display());
            return Report::never_started(&error, words);
        }
    };
    let ladder = Ladder::new(
        ceiling(turn.agent),
        turn.memory_cap,
        turn.grace,
        turn.agent.stop_signals.clone(),
        started_at,
    );
    let mut watch = Watch {
        agent,
        ladder,
        reply: Collected::new(REPLY_HEAD, REPLY_TAIL),
        error_tail: Collected::new(0, ERROR_TAIL),
        errors: turn.errors.take(),
        on_output,
        buffer: vec![0; 64 << 10],
        manner: Manner::Gently(LEFTOVER_GRACE.min(turn.grace)),
        peak_memory: None,
    };
    while !watch.step(listener) {}
    watch.finish(&turn, started_at)
}

fn ceiling(agent: &AgentSpec) -> Ceiling {
    if agent.stall_ceiling.is_zero() {
        Ceiling::None
    } else {
        Ceiling::After(agent.stall_ceiling)
    }
}

/// A turn under way.
struct Watch<'a> {
    agent: Running,
    ladder: Ladder,
    reply: Collected,
    error_tail: Collected,
    errors: Option<BoundedLog>,
    on_output: &'a mut dyn FnMut(&[u8]),
    buffer: Vec<u8>,
    manner: Manner,
    peak_memory: Option<u64>,
}

impl Watch<'_> {
    /// Waits for one thing and deals with it; returns whether the agent has ended.
    fn step(&mut self, listener: &mut dyn Listener) -> bool {
        let deadline = [self.ladder.deadline(), listener.wake_at()]
            .into_iter()
            .flatten()
            .min();
        let ready = self.agent.wait(listener.fds(), deadline);
        let now = clock::steady();
        for what in &ready {
            match what {
                Ready::Stdin => self.agent.feed(),
                Ready::Output(stream) => {
                    let count = self.agent.read(*stream, &mut self.buffer);
                    if count > 0 {
                        self.take(*stream, count);
                        self.happened(Happening::Output, now);
                    }
                }
                Ready::Ended | Ready::Listener => {}
            }
        }
        // Before anything that was asked, so that an agent that has ended by itself is not called stopped.
        if ready.contains(&Ready::Ended) {
            return true;
        }
        if ready.contains(&Ready::Listener) {
            for end in listener.heard() {
                self.happened(Happening::End(end), now);
            }
            tree::reap_strays(Some(self.agent.id()));
        }
        self.happened(Happening::DeadlineReached, now);
        if listener.wake_at().is_some_and(|at| now >= at) {
            listener.tick(now);
        }
        if self.ladder.progress_at() == now {
            listener.progressed(now);
        }
        false
    }

    fn take(&mut self, stream: Stream, count: usize) {
        let bytes = &self.buffer[..count];
        match stream {
            Stream::Out => {
                self.reply.push(bytes);
                (self.on_output)(bytes);
            }
            Stream::Err => {
                self.error_tail.push(bytes);
                if let Some(log) = &mut self.errors {
                    log.push(bytes);
                }
            }
        }
    }

    fn happened(&mut self, happening: Happening, now: Instant) {
        match self.ladder.handle(happening, now) {
            Rung::Nothing => {}
            Rung::Sample => {
                let me = std::process::id();
                let tree = tree::below(me);
                let memory = tree::memory(me, &tree);
                self.peak_memory = self.peak_memory.max(Some(memory));
                let cpu_ticks = tree::cpu_ticks(&tree);
                // A sample leads to a signal at the most, never to another sample.
                self.happened(Happening::Sampled { cpu_ticks, memory }, now);
            }
            Rung::SignalGroup(signal) => self.agent.signal_group(signal),
            Rung::SignalLeader(signal) => self.agent.signal_leader(signal),
            Rung::Kill => {
                self.agent.signal_leader(Signal::SIGKILL);
                self.agent.signal_group(Signal::SIGKILL);
                self.manner = Manner::ByForce;
            }
        }
    }

    /// Takes what is left of the agent: its last words, its processes, its status.
    fn finish(mut self, turn: &Turn<'_>, started_at: Instant) -> Report {
        let ran_for = clock::steady().saturating_duration_since(started_at);
        for stream in [Stream::Out, Stream::Err] {
            // Everything that the agent wrote is in the pipe by now. What somebody else who holds the pipe may still
            // write is not its reply, so only what is there is taken: no end of file is waited for.
            let mut left = self.agent.unread(stream);
            while left > 0 {
                let count = self.agent.read(stream, &mut self.buffer);
                if count == 0 {
                    break;
                }
                self.take(stream, count);
                left = left.saturating_sub(count);
            }
        }
        let ended = if turn.agent.leave_children {
            tree::Ended::default()
        } else {
            tree::end_below(Some(self.agent.id()), self.manner, turn.exempt)
        };
        // Reaped only now: until here its number and its group could not pass to another process.
        let ending = self.agent.reap();
        Report {
            ending,
            asked: self.ladder.ended_for().and_then(|why| match why {
                EndedFor::Interrupt => Some(Asked::Interrupt),
                EndedFor::Stall => Some(Asked::Stall),
                EndedFor::Stop => Some(Asked::Stop),
                EndedFor::Memory => None,
            }),
            over_memory_cap: self.ladder.ended_for() == Some(EndedFor::Memory),
            ran_for,
            shown_output: !self.reply.is_empty(),
            text: self.reply.into_text(),
            error_tail: self.error_tail.into_text(),
            ended_children: ended.count,
            survivors: ended.survivors,
            peak_memory: self.peak_memory,
            not_started: None,
        }
    }
}
