//! The driver: executes what machines decide, for many units on one thread.

mod controls;
mod core;
mod ending;
mod foreground;
mod handle;
mod host;
mod starting;
mod unit;

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;

use crossbeam_channel::unbounded;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};

pub use foreground::{Foreground, Outcome, Restart};
pub use handle::{
    Adopted, Completion, CompletionError, Down, Handle, QueryError, Shutdown, UnitReport,
};
pub use host::{Cooperation, Ended, Host, Ladder, Prepared, Rung, UnitId};

/// Runs many units on one thread of its own.
#[derive(Clone, Copy, Debug)]
pub struct Driver;

impl Driver {
    /// Starts the thread and returns its remote control.
    ///
    /// A unit that is idle, parked, held or stopped costs memory only. The thread
    /// sleeps until a process ends, a pause is over or a handle is used.
    ///
    /// # Errors
    ///
    /// Returns an error if the process is set up in a way that makes supervision
    /// wrong: signals that are blocked (children would inherit that and never
    /// hear a stop), or SIGCHLD being ignored (the kernel would throw every exit
    /// status away); or if a descriptor or the thread cannot be had.
    pub fn start(host: impl Host + Send + 'static) -> Result<Handle, StartError> {
        check_signals()?;
        let waker = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(
            |errno| StartError::Setup {
                doing: "create an event descriptor",
                source: errno.into(),
            },
        )?;
        let waker = Arc::new(waker);
        let (sender, receiver) = unbounded();
        let core = core::Core::new(host, receiver, Arc::clone(&waker)).map_err(|source| {
            StartError::Setup {
                doing: "create an epoll descriptor",
                source,
            }
        })?;
        let thread = thread::Builder::new()
            .name("supervisor".into())
            .spawn(move || core.run())
            .map_err(|source| StartError::Setup {
                doing: "start a thread",
                source,
            })?;
        let link = handle::Link {
            sender,
            waker,
            thread: Mutex::new(Some(thread)),
        };
        Ok(Handle {
            link: Arc::new(link),
        })
    }
}

fn check_signals() -> Result<(), StartError> {
    let mask = SigSet::thread_get_mask().map_err(|errno| StartError::Setup {
        doing: "read the signal mask",
        source: errno.into(),
    })?;
    for (signal, name) in [
        (Signal::SIGTERM, "SIGTERM"),
        (Signal::SIGINT, "SIGINT"),
        (Signal::SIGHUP, "SIGHUP"),
    ] {
        if mask.contains(signal) {
            return Err(StartError::SignalBlocked { signal: name });
        }
    }
    let status = fs::read_to_string("/proc/self/status").map_err(|source| StartError::Setup {
        doing: "read `/proc/self/status`",
        source,
    })?;
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default();
    let child_bit = 1 << (Signal::SIGCHLD as u32 - 1);
    if ignored & child_bit != 0 {
        return Err(StartError::ChildSignalIgnored);
    }
    Ok(())
}

/// A driver could not be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The calling thread blocks this signal, and every child would too.
    SignalBlocked {
        /// Its name.
        signal: &'static str,
    },
    /// SIGCHLD is ignored, so that exit statuses are lost.
    ChildSignalIgnored,
    /// Something could not be had.
    Setup {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SignalBlocked { signal } => {
                write!(f, "{signal} is blocked, and children would inherit that")
            }
            Self::ChildSignalIgnored => {
                f.write_str("SIGCHLD is ignored, so that exit statuses are lost")
            }
            Self::Setup { doing, .. } => write!(f, "failed to {doing}"),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::SignalBlocked { .. } | Self::ChildSignalIgnored => None,
            Self::Setup { source, .. } => Some(source),
        }
    }
}
