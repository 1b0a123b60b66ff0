//! One command, run until it is done or given up on.

use std::ffi::OsStr;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::host::{Cooperation, Ended, Host, Ladder, Prepared, UnitId};
use super::{Completion, Driver, Handle, Shutdown, StartError};
use crate::tree::Marker;
use crate::{Disposition, Generation, Machine, Notice, ParkReason, SpawnFailure, StartReason};

/// When a command is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// After every ending that is not a success; to be ended by a signal that nobody
    /// here sent is none.
    OnFailure,
    /// After every ending.
    Always,
    /// Never: it runs once.
    Never,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is done, or a stop was asked for; the status of its last run.
    Done {
        /// `None` if it never ran.
        status: Option<ExitStatus>,
    },
    /// It was given up on.
    GaveUp {
        /// The status of its last run; `None` if it never ran.
        status: Option<ExitStatus>,
        /// Why.
        reason: ParkReason,
    },
}

impl Outcome {
    /// Returns what a shell would call the last run's status: its code, or 128 and
    /// the number of the signal; `None` if it never ran.
    #[must_use]
    pub fn shell_code(&self) -> Option<u8> {
        use std::os::unix::process::ExitStatusExt;
        let (Self::Done { status } | Self::GaveUp { status, .. }) = self;
        let status = (*status)?;
        let code = status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal))?;
        u8::try_from(code).ok()
    }
}

/// A driver for one command, with the same machine and the same rules as for many.
#[derive(Debug)]
pub struct Foreground {
    handle: Handle,
    outcome: Receiver<Outcome>,
}

const UNIT: UnitId = UnitId(0);

impl Foreground {
    /// Starts the command that `host` prepares for the one unit there is, number 0.
    ///
    /// # Errors
    ///
    /// As [`Driver::start`].
    pub fn start(
        host: impl Host + Send + 'static,
        machine: Machine,
        restart: Restart,
    ) -> Result<Self, StartError> {
        let (sender, outcome) = bounded(1);
        let handle = Driver::start(OneUnit {
            host,
            restart,
            sender,
            status: None,
        })?;
        handle.add(UNIT, machine);
        handle.start(UNIT);
        Ok(Self { handle, outcome })
    }

    /// Passes a signal on to the command.
    pub fn signal(&self, signal: i32) {
        self.handle.signal(UNIT, signal);
    }

    /// Passes a signal on with the value that came with it; see sigqueue(3).
    pub fn queue(&self, signal: i32, value: usize) {
        self.handle.queue(UNIT, signal, value);
    }

    /// Stops the command by its ladder; the outcome follows when it is down.
    pub fn stop(&self) -> Completion {
        self.handle.stop(UNIT)
    }

    /// Ends the command without patience.
    pub fn kill(&self) -> Completion {
        self.handle.kill(UNIT)
    }

    /// Waits for the outcome for at most so long; `None` if there is none yet.
    /// After an outcome there is no other.
    #[must_use]
    pub fn wait(&self, within: Duration) -> Option<Outcome> {
        match self.outcome.recv_timeout(within) {
            Ok(outcome) => Some(outcome),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Outcome::Done { status: None }),
        }
    }

    /// Waits for the outcome, however long it takes. After an outcome there is no
    /// other.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
            .recv()
            .unwrap_or(Outcome::Done { status: None })
    }

    /// Returns the handle of the driver, for everything else.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Foreground {
    /// Ends what still runs and waits for that.
    fn drop(&mut self) {
        drop(self.handle.shutdown(Shutdown::StopAll));
        self.handle.join();
    }
}

/// A host that knows when its one unit is done.
struct OneUnit<H> {
    host: H,
    restart: Restart,
    sender: Sender<Outcome>,
    status: Option<ExitStatus>,
}

impl<H: Host> OneUnit<H> {
    fn done(&self, outcome: Outcome) {
        // A second outcome, after somebody resumed what was done, has no reader.
        drop(self.sender.try_send(outcome));
    }

    fn bend(&self, disposition: Disposition) -> Disposition {
        match self.restart {
            Restart::Always => disposition,
            Restart::Never => Disposition::Finished,
            Restart::OnFailure => match disposition {
                Disposition::Clean
                | Disposition::Requested
                | Disposition::Released
                | Disposition::IdleLeft => Disposition::Finished,
                failure @ (Disposition::Finished
                | Disposition::ExternalStop { .. }
                | Disposition::Memory { .. }
                | Disposition::Contention { .. }
                | Disposition::Permanent { .. }
                | Disposition::Dependency { .. }
                | Disposition::Crash { .. }) => failure,
            },
        }
    }
}

impl<H: Host> Host for OneUnit<H> {
    fn prepare(&mut self, unit: UnitId, generation: Generation, reason: StartReason) -> Prepared {
        self.host.prepare(unit, generation, reason)
    }

    fn judge(&mut self, unit: UnitId, ended: &Ended) -> Disposition {
        self.status = ended.status.or(self.status);
        let disposition = self.host.judge(unit, ended);
        self.bend(disposition)
    }

    fn spawned(&mut self, unit: UnitId, generation: Generation, pid: u32, start_ticks: u64) {
        self.host.spawned(unit, generation, pid, start_ticks);
    }

    fn spawn_error(&mut self, unit: UnitId, program: &OsStr, error: &io::Error) -> SpawnFailure {
        self.host.spawn_error(unit, program, error)
    }

    fn lost_status(&mut self, unit: UnitId, pid: u32, start_ticks: u64) -> Option<ExitStatus> {
        self.host.lost_status(unit, pid, start_ticks)
    }

    fn notice(&mut self, unit: UnitId, notice: &Notice) {
        self.host.notice(unit, notice);
        let status = self.status;
        if let Notice::Finished | Notice::Stopped | Notice::Idle = notice {
            self.done(Outcome::Done { status });
        }
        if let Notice::Parked { reason } = notice {
            // Behind a holder it goes on by itself.
            if !matches!(reason, ParkReason::Contended { .. }) {
                self.done(Outcome::GaveUp {
                    status,
                    reason: reason.clone(),
                });
            }
        }
    }

    fn marker(&mut self, unit: UnitId) -> Option<Marker> {
        self.host.marker(unit)
    }

    fn cooperate(&mut self, unit: UnitId, step: Cooperation) -> bool {
        self.host.cooperate(unit, step)
    }

    fn ladder(&mut self, unit: UnitId) -> Ladder {
        self.host.ladder(unit)
    }

    fn owns_orphans(&mut self, unit: UnitId) -> bool {
        self.host.owns_orphans(unit)
    }

    fn is_exempt(&mut self, pid: u32) -> bool {
        self.host.is_exempt(pid)
    }
}
