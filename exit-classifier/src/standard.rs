//! The standard rules, one table for each kind of process. The order is the meaning: the first match wins.

use std::borrow::Cow::Borrowed;

use crate::errno::{EACCES, EAGAIN, EMFILE, ENOENT, ENOEXEC, ENOMEM};
use crate::rule::{Condition as If, Rule};
use crate::signal::{FATAL, SIGHUP, SIGINT, SIGKILL, SIGTERM};
use crate::{Asked, Cause, Counts};

const CODE_0: If = If::Code(Borrowed(&[0]));
const SIGNAL_KILL: If = If::Signal(Borrowed(&[SIGKILL]));
/// The signals by which people, terminals and service managers end a process that may tidy up first.
const SIGNAL_GENTLE: If = If::Signal(Borrowed(&[SIGTERM, SIGHUP, SIGINT]));
const SIGNAL_FATAL: If = If::Signal(Borrowed(FATAL));
const ERRNO_PERMANENT: If = If::Errno(Borrowed(&[ENOENT, EACCES, ENOEXEC]));
const ERRNO_TRANSIENT: If = If::Errno(Borrowed(&[EAGAIN, ENOMEM, EMFILE]));
const SHELL_CANNOT_RUN: If = If::Code(Borrowed(&[126, 127]));

const STOP_ASKED: Rule = Rule::standard(
    "stop_asked",
    &[If::Asked(Asked::Stop)],
    Cause::Requested,
    Counts::Nothing,
    "it was asked to stop",
);
const RESTART_ASKED: Rule = Rule::standard(
    "restart_asked",
    &[If::Asked(Asked::Restart)],
    Cause::Requested,
    Counts::Nothing,
    "it was asked to make room for a new one",
);
/// The handler ends no turn by ending itself, so only the signal that an interrupt sends is one.
const INTERRUPTED: Rule = Rule::standard(
    "interrupt_asked",
    &[If::Asked(Asked::Interrupt), If::Signal(Borrowed(&[SIGINT]))],
    Cause::Requested,
    Counts::Nothing,
    "it was interrupted on request",
);
/// What made no progress because a stranger has its session is judged by that instead.
const STALLED: Rule = Rule::standard(
    "stalled",
    &[If::Asked(Asked::Stall), If::Uncontended],
    Cause::Stalled,
    Counts::Crash,
    "it showed no progress for too long and was ended",
);
const CLEAN_EXIT: Rule = Rule::standard(
    "clean_exit",
    &[CODE_0],
    Cause::CleanExit,
    Counts::CleanRestart,
    "it finished cleanly",
);
/// Whoever asks for a session gets it, also from a program that knows no code for leaving on request.
const RELEASED_CLEANLY: Rule = Rule::standard(
    "released_clean",
    &[If::Asked(Asked::Release), CODE_0],
    Cause::Released,
    Counts::Nothing,
    "it was asked to give its session up and did",
);
/// A worker that drains on its memory limit often leaves with 0; that is no clean restart.
const DRAINED_CLEANLY: Rule = Rule::standard(
    "memory_drain_clean",
    &[If::MemoryDrained, CODE_0],
    Cause::MemoryDrain,
    Counts::Memory,
    "its memory cap was reached and it drained",
);
/// SIGKILL is left out on purpose: whoever sends that did not let it drain.
const DRAINED_BY_SIGNAL: Rule = Rule::standard(
    "memory_drain_signal",
    &[If::MemoryDrained, SIGNAL_GENTLE],
    Cause::MemoryDrain,
    Counts::Memory,
    "its memory cap was reached and it was told to end",
);
const HELD_BY_STRANGER: Rule = Rule::standard(
    "lock_held_by_other",
    &[If::Failed, If::HeldByStranger],
    Cause::LockHeld,
    Counts::Contention,
    "another live process has the session",
);
const SHELL_FOUND_NOTHING: Rule = Rule::standard(
    "shell_cannot_run",
    &[If::Wrapper, SHELL_CANNOT_RUN],
    Cause::Config,
    Counts::Permanent,
    "the shell could not find or run the program",
);
const NOT_STARTED_PERMANENT: Rule = Rule::standard(
    "not_started_permanent",
    &[ERRNO_PERMANENT],
    Cause::NotStarted,
    Counts::Permanent,
    "the program cannot be started as configured",
);
const NOT_STARTED_TRANSIENT: Rule = Rule::standard(
    "not_started_transient",
    &[ERRNO_TRANSIENT],
    Cause::NotStarted,
    Counts::Crash,
    "the system had no room for another process",
);
const NOT_STARTED_UNKNOWN: Rule = Rule::standard(
    "not_started_unknown",
    &[If::NeverStarted],
    Cause::NotStarted,
    Counts::Crash,
    "the start failed",
);
const OUT_OF_MEMORY: Rule = Rule::standard(
    "out_of_memory",
    &[SIGNAL_KILL, If::OomKilled],
    Cause::OutOfMemory,
    Counts::Crash,
    "the kernel ended it for lack of memory",
);
/// 137 alone proves nothing; with the kernel's own count it does not matter who put the signal into a code.
const OUT_OF_MEMORY_137: Rule = Rule::standard(
    "out_of_memory_137",
    &[If::Code(Borrowed(&[137])), If::OomKilled],
    Cause::OutOfMemory,
    Counts::Crash,
    "the kernel ended a process in it for lack of memory",
);
/// The status names the signal and not its sender, who may be the process itself: `kill -9 $$`.
const BY_WHOM: &str = "who sent that signal is not known";
const KILLED: Rule = Rule::standard(
    "killed",
    &[SIGNAL_KILL],
    Cause::Killed,
    Counts::Crash,
    BY_WHOM,
);
const EXTERNAL_STOP: Rule = Rule::standard(
    "external_stop",
    &[SIGNAL_GENTLE],
    Cause::Killed,
    Counts::ExternalStop,
    BY_WHOM,
);
/// Whether a fault raised it or somebody sent it, the status does not say either.
const ABORTED: Rule = Rule::standard(
    "aborted",
    &[SIGNAL_FATAL],
    Cause::Aborted,
    Counts::Crash,
    "that is the signal of a fault",
);
const LOST: Rule = Rule::standard(
    "lost",
    &[If::Lost],
    Cause::Lost,
    Counts::Crash,
    "how it ended cannot be known",
);
const RUNTIME_ERROR: Rule = Rule::standard(
    "runtime_error",
    &[If::Code(Borrowed(&[1]))],
    Cause::RuntimeError,
    Counts::Crash,
    "it failed",
);

/// What holds where no rule matched: the safe branch.
pub(crate) const UNKNOWN: Rule = Rule::standard(
    "unknown_ending",
    &[],
    Cause::RuntimeError,
    Counts::Crash,
    "it failed",
);

/// The rules for a handler of ours, whose codes have an agreed meaning.
pub(crate) static HANDLER: &[Rule] = &[
    STOP_ASKED,
    RESTART_ASKED,
    STALLED,
    INTERRUPTED,
    Rule::standard(
        "released",
        &[If::Code(Borrowed(&[92]))],
        Cause::Released,
        Counts::Nothing,
        "it gave its session up at a turn boundary",
    ),
    RELEASED_CLEANLY,
    Rule::standard(
        "idle",
        &[If::Code(Borrowed(&[91]))],
        Cause::Idle,
        Counts::NothingNoRespawn,
        "nobody needed it",
    ),
    Rule::standard(
        "memory_drain",
        &[If::Code(Borrowed(&[90, 12]))],
        Cause::MemoryDrain,
        Counts::Memory,
        "its memory cap was reached",
    ),
    DRAINED_CLEANLY,
    DRAINED_BY_SIGNAL,
    CLEAN_EXIT,
    // What is left of the predecessor is ended before the ending is judged; a lock that only it held is free now, and
    // waiting for it as for a stranger would be waiting for nobody.
    Rule::standard(
        "lock_held_by_own",
        &[If::Code(Borrowed(&[75])), If::HeldByOwn],
        Cause::RuntimeError,
        Counts::Crash,
        "only something of our own held the session lock",
    ),
    Rule::standard(
        "lock_held",
        &[If::Code(Borrowed(&[75]))],
        Cause::LockHeld,
        Counts::Contention,
        "the session lock was held",
    ),
    HELD_BY_STRANGER,
    Rule::standard(
        "config",
        &[If::Code(Borrowed(&[78, 77, 64, 2]))],
        Cause::Config,
        Counts::Permanent,
        "it says that its configuration is at fault",
    ),
    SHELL_FOUND_NOTHING,
    Rule::standard(
        "unavailable",
        &[If::Code(Borrowed(&[69]))],
        Cause::Unavailable,
        Counts::Dependency,
        "it says that its agent or endpoint is unavailable",
    ),
    NOT_STARTED_PERMANENT,
    NOT_STARTED_TRANSIENT,
    NOT_STARTED_UNKNOWN,
    OUT_OF_MEMORY,
    OUT_OF_MEMORY_137,
    KILLED,
    EXTERNAL_STOP,
    ABORTED,
    LOST,
    RUNTIME_ERROR,
];

/// The rules for any other program: no code but 0 has a meaning, unless a shell says it.
pub(crate) static COMMAND: &[Rule] = &[
    STOP_ASKED,
    RESTART_ASKED,
    STALLED,
    INTERRUPTED,
    RELEASED_CLEANLY,
    DRAINED_CLEANLY,
    DRAINED_BY_SIGNAL,
    CLEAN_EXIT,
    HELD_BY_STRANGER,
    SHELL_FOUND_NOTHING,
    NOT_STARTED_PERMANENT,
    NOT_STARTED_TRANSIENT,
    NOT_STARTED_UNKNOWN,
    OUT_OF_MEMORY,
    OUT_OF_MEMORY_137,
    KILLED,
    EXTERNAL_STOP,
    ABORTED,
    LOST,
    RUNTIME_ERROR,
];

/// What holds where no rule for an agent matched.
pub(crate) const TURN_FAILED: Rule = Rule::standard(
    "turn_failed",
    &[],
    Cause::RuntimeError,
    Counts::TurnFailed,
    "the agent failed in its turn",
);

/// The rules for an agent inside a turn: whatever goes wrong is one failed turn, but for what the handler must leave over.
pub(crate) static AGENT: &[Rule] = &[
    STOP_ASKED,
    RESTART_ASKED,
    Rule::standard(
        "turn_stalled",
        &[If::Asked(Asked::Stall)],
        Cause::Stalled,
        Counts::TurnFailed,
        "the agent showed no progress for too long and was ended",
    ),
    // Agents answer an interrupt with 0, 1, 130 or the signal, so any ending after it is the interrupt.
    Rule::standard(
        "turn_interrupted",
        &[If::Asked(Asked::Interrupt)],
        Cause::Requested,
        Counts::Nothing,
        "the turn was interrupted on request",
    ),
    Rule::standard(
        "turn_done",
        &[CODE_0],
        Cause::CleanExit,
        Counts::TurnDone,
        "the agent finished its turn",
    ),
    Rule::standard(
        "agent_config",
        &[If::Code(Borrowed(&[78]))],
        Cause::Config,
        Counts::Permanent,
        "the agent says that its configuration is at fault",
    ),
    SHELL_FOUND_NOTHING,
    Rule::standard(
        "agent_unavailable",
        &[If::Code(Borrowed(&[69]))],
        Cause::Unavailable,
        Counts::Dependency,
        "the agent says that what it depends on is unavailable",
    ),
    NOT_STARTED_PERMANENT,
    NOT_STARTED_TRANSIENT,
    NOT_STARTED_UNKNOWN,
    Rule::standard(
        "turn_out_of_memory",
        &[SIGNAL_KILL, If::OomKilled],
        Cause::OutOfMemory,
        Counts::TurnFailed,
        "the kernel ended the agent for lack of memory",
    ),
    Rule::standard(
        "turn_out_of_memory_137",
        &[If::Code(Borrowed(&[137])), If::OomKilled],
        Cause::OutOfMemory,
        Counts::TurnFailed,
        "the kernel ended a process of the agent for lack of memory",
    ),
    Rule::standard(
        "turn_killed",
        &[If::Signal(Borrowed(&[SIGKILL, SIGTERM, SIGHUP, SIGINT]))],
        Cause::Killed,
        Counts::TurnFailed,
        "a signal ended the agent; who sent it is not known",
    ),
    Rule::standard(
        "turn_aborted",
        &[SIGNAL_FATAL],
        Cause::Aborted,
        Counts::TurnFailed,
        "the agent died of the signal of a fault",
    ),
    Rule::standard(
        "turn_lost",
        &[If::Lost],
        Cause::Lost,
        Counts::TurnFailed,
        "how the agent ended cannot be known",
    ),
];
