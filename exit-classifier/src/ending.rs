//! How a process ended, as it was observed.

use std::fmt;
use std::io;
use std::process::ExitStatus;

use crate::{errno, signal};

/// How a process ended.
///
/// The list is complete: a process leaves with a code, dies of a signal, never came to life, or nobody can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// It left by itself with this code (0–255 on Unix).
    Code(i32),
    /// It died of a signal.
    Signal {
        /// The signal's number on this platform.
        number: i32,
        /// Whether the kernel says that it wrote a core dump.
        core: bool,
    },
    /// It is gone, and its status cannot be known: somebody else reaped it, or it was adopted and left no record.
    Lost,
    /// It was never started.
    NeverStarted {
        /// The error number of the failed start; 0 = unknown.
        errno: i32,
    },
}

impl Ending {
    /// Returns the ending that `waitid(2)` describes with `si_code` and `si_status`.
    ///
    /// This is the form for a look without reaping (`WEXITED | WNOWAIT`), after which the process id and its group are
    /// still pinned and may be signalled safely. A `code` that describes no ending (stopped, continued, trapped) gives
    /// [`Ending::Lost`].
    #[must_use]
    pub const fn from_wait(code: i32, status: i32) -> Self {
        // CLD_EXITED, CLD_KILLED and CLD_DUMPED have these values on Linux and on the BSD family alike.
        match code {
            1 => Self::Code(status),
            2 => Self::Signal {
                number: status,
                core: false,
            },
            3 => Self::Signal {
                number: status,
                core: true,
            },
            _ => Self::Lost,
        }
    }

    /// Returns the ending that is packed into a raw wait status, as `waitpid(2)` stores it and as `PIDFD_GET_INFO` reports it.
    ///
    /// A status of a process that is merely stopped or continued gives [`Ending::Lost`].
    #[must_use]
    pub const fn from_raw_status(status: i32) -> Self {
        let low = status & 0x7f;
        if low == 0 {
            Self::Code((status >> 8) & 0xff)
        } else if low == 0x7f {
            Self::Lost
        } else {
            Self::Signal {
                number: low,
                core: status & 0x80 != 0,
            }
        }
    }

    /// Returns the ending of a process whose start failed with `error`.
    #[must_use]
    pub fn never_started(error: &io::Error) -> Self {
        Self::NeverStarted {
            errno: error.raw_os_error().unwrap_or(0),
        }
    }

    /// Returns whether it left by itself with code 0.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Code(0))
    }

    /// Returns the signal that a shell reports with its exit code, 129–159 for the signals 1–31.
    ///
    /// Only the caller knows whether the child was a shell; from any other program such a code is just a code.
    #[must_use]
    pub const fn signal_told_by_shell(self) -> Option<i32> {
        match self {
            Self::Code(code) if code >= 129 && code <= 159 => Some(code - 128),
            Self::Code(_) | Self::Signal { .. } | Self::Lost | Self::NeverStarted { .. } => None,
        }
    }
}

impl From<ExitStatus> for Ending {
    #[cfg(unix)]
    fn from(status: ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt;
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(number)) => Self::Signal {
                number,
                core: status.core_dumped(),
            },
            // Neither: the status of a process that is stopped, not ended.
            (None, None) => Self::Lost,
        }
    }

    #[cfg(not(unix))]
    fn from(status: ExitStatus) -> Self {
        status.code().map_or(Self::Lost, Self::Code)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal { number, core } => {
                write_signal(f, number)?;
                f.write_str(if core { " (core dumped)" } else { "" })
            }
            Self::Lost => f.write_str("status unknown"),
            Self::NeverStarted { errno: 0 } => f.write_str("never started"),
            Self::NeverStarted { errno } => match errno::describe(errno) {
                Some((name, meaning)) => write!(f, "never started ({name}: {meaning})"),
                None => write!(f, "never started (error number {errno})"),
            },
        }
    }
}

/// Writes a signal by name, or by number where it has none.
pub(crate) fn write_signal(f: &mut fmt::Formatter<'_>, number: i32) -> fmt::Result {
    match signal::name(number) {
        Some(name) => f.write_str(name),
        None => write!(f, "signal {number}"),
    }
}
