use std::error::Error;
use std::fmt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use nix::sys::eventfd::EventFd;

use super::UnitId;
use crate::tree::Report;
use crate::{Event, Explanation, Machine, State, ValidPolicy};

/// A driver's remote control. Clones control the same driver; when the last one
/// is dropped, the driver stops all its units and ends.
///
/// Except for the queries no call waits. A call about a unit that does not exist
/// has no effect.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) link: Arc<Link>,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) sender: Sender<Control>,
    pub(super) waker: Arc<EventFd>,
    pub(super) thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a handle says to the driver's thread.
#[derive(Debug)]
pub(super) enum Control {
    Add {
        unit: UnitId,
        machine: Box<Machine>,
    },
    Event {
        unit: UnitId,
        event: Event,
    },
    Stop {
        unit: UnitId,
        event: Event,
        done: Sender<Down>,
    },
    Adopt {
        unit: UnitId,
        pid: u32,
        start_ticks: u64,
        answer: Sender<Adopted>,
    },
    Signal {
        unit: UnitId,
        signal: i32,
        value: Option<usize>,
    },
    Policy {
        unit: UnitId,
        policy: ValidPolicy,
    },
    Remove {
        unit: UnitId,
        done: Sender<Down>,
    },
    Explain {
        unit: UnitId,
        answer: Sender<Option<UnitReport>>,
    },
    List {
        answer: Sender<Vec<(UnitId, State)>>,
    },
    Snapshot {
        unit: UnitId,
        answer: Sender<Option<Machine>>,
    },
    Shutdown {
        how: Shutdown,
        done: Sender<Down>,
    },
    NobodyLeft,
}

/// What becomes of the processes when a driver ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// All are stopped by their ladders, in parallel.
    StopAll,
    /// All are killed without patience.
    KillAll,
    /// All are left to run, for somebody else to adopt. Nobody reaps them while the
    /// calling program lives: it is expected to end.
    LeaveRunning,
}

/// A unit is down: its process and everything below it are gone.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Down {
    /// The status of the process, if there was one and it is known.
    pub status: Option<ExitStatus>,
    /// Whether there was a process.
    pub was_running: bool,
    /// What was ended below it, who survived, and whether all could be seen.
    pub report: Report,
}

/// What came of an adoption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Adopted {
    /// The process is supervised from now on.
    Alive,
    /// That process has ended; its ending is judged like any other.
    Ended,
    /// The unit has a process already, or does not exist.
    Refused,
}

/// Where a unit stands, and why.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnitReport {
    /// What its machine knows.
    pub explanation: Explanation,
    /// Whether a stop is in progress and how far: the number of the ladder's step.
    pub stop_step: Option<usize>,
}

/// Something that will be down.
#[derive(Debug)]
#[must_use = "without waiting nobody knows whether it is down"]
pub struct Completion {
    pub(super) receiver: Receiver<Down>,
}

impl Completion {
    /// Waits until it is down.
    ///
    /// # Errors
    ///
    /// Returns [`CompletionError::TimedOut`] if it is not within that time (ask
    /// again), [`CompletionError::DriverGone`] if the driver has ended.
    pub fn wait(&self, within: Duration) -> Result<Down, CompletionError> {
        self.receiver
            .recv_timeout(within)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => CompletionError::TimedOut,
                RecvTimeoutError::Disconnected => CompletionError::DriverGone,
            })
    }
}

impl Handle {
    /// Adds a unit with its machine: a new one, or one that was restored. A unit
    /// of that number that is there already stays as it is.
    pub fn add(&self, unit: UnitId, machine: Machine) {
        self.send(Control::Add {
            unit,
            machine: Box::new(machine),
        });
    }

    /// Wants the unit up; see [`Event::Start`].
    pub fn start(&self, unit: UnitId) {
        self.event(unit, Event::Start);
    }

    /// Wants another try, by a person; see [`Event::Resume`].
    pub fn resume(&self, unit: UnitId) {
        self.event(unit, Event::Resume);
    }

    /// Passes a signal on to the unit's process, if it has one. Nothing is expected
    /// of it: to stop a unit, use [`stop`](Self::stop).
    pub fn signal(&self, unit: UnitId, signal: i32) {
        self.send(Control::Signal {
            unit,
            signal,
            value: None,
        });
    }

    /// As [`signal`](Self::signal), with a value that goes along; see sigqueue(3).
    pub fn queue(&self, unit: UnitId, signal: i32, value: usize) {
        self.send(Control::Signal {
            unit,
            signal,
            value: Some(value),
        });
    }

    /// Says that there is work; see [`Event::Wake`].
    pub fn wake(&self, unit: UnitId) {
        self.event(unit, Event::Wake);
    }

    /// Says that the unit's process finished a piece of work.
    pub fn progress(&self, unit: UnitId) {
        self.event(unit, Event::Progress);
    }

    /// Says that the holder that was reported is gone. Needed only where the
    /// driver cannot watch it.
    pub fn holder_gone(&self, unit: UnitId) {
        self.event(unit, Event::HolderGone);
    }

    /// Says that the unit's configuration changed; see [`Event::ConfigChanged`].
    pub fn config_changed(&self, unit: UnitId) {
        self.event(unit, Event::ConfigChanged);
    }

    /// Replaces the unit's policy.
    pub fn set_policy(&self, unit: UnitId, policy: ValidPolicy) {
        self.send(Control::Policy { unit, policy });
    }

    /// Stops the unit by its ladder. The completion resolves when it is down.
    pub fn stop(&self, unit: UnitId) -> Completion {
        self.stop_by(unit, Event::Stop)
    }

    /// Stops the unit without patience, or hurries a stop that is going on.
    pub fn kill(&self, unit: UnitId) -> Completion {
        self.stop_by(unit, Event::Kill)
    }

    /// Replaces the process that runs now by another; the completion resolves when
    /// the former is down.
    pub fn restart(&self, unit: UnitId) -> Completion {
        self.stop_by(unit, Event::Restart)
    }

    /// Takes over a process that somebody started earlier, if it still is the one
    /// that started then.
    ///
    /// # Errors
    ///
    /// Returns an error if the driver does not answer within that time.
    pub fn adopt(
        &self,
        unit: UnitId,
        pid: u32,
        start_ticks: u64,
        within: Duration,
    ) -> Result<Adopted, QueryError> {
        self.ask(within, |answer| Control::Adopt {
            unit,
            pid,
            start_ticks,
            answer,
        })
    }

    /// Stops the unit and forgets it.
    pub fn remove(&self, unit: UnitId) -> Completion {
        let (done, receiver) = bounded(1);
        self.send(Control::Remove { unit, done });
        Completion { receiver }
    }

    /// Returns where the unit stands and why; `None` if there is no such unit.
    ///
    /// # Errors
    ///
    /// Returns an error if the driver does not answer within that time.
    pub fn explain(
        &self,
        unit: UnitId,
        within: Duration,
    ) -> Result<Option<UnitReport>, QueryError> {
        self.ask(within, |answer| Control::Explain { unit, answer })
    }

    /// Returns where the unit stands; `None` if there is no such unit.
    ///
    /// # Errors
    ///
    /// Returns an error if the driver does not answer within that time.
    pub fn state(&self, unit: UnitId, within: Duration) -> Result<Option<State>, QueryError> {
        let report = self.explain(unit, within)?;
        Ok(report.map(|report| report.explanation.state))
    }

    /// Returns where all units stand, by their numbers.
    ///
    /// # Errors
    ///
    /// Returns an error if the driver does not answer within that time.
    pub fn states(&self, within: Duration) -> Result<Vec<(UnitId, State)>, QueryError> {
        self.ask(within, |answer| Control::List { answer })
    }

    /// Returns a copy of the unit's machine, to be saved.
    ///
    /// # Errors
    ///
    /// Returns an error if the driver does not answer within that time.
    pub fn machine(&self, unit: UnitId, within: Duration) -> Result<Option<Machine>, QueryError> {
        self.ask(within, |answer| Control::Snapshot { unit, answer })
    }

    /// Ends the driver. The completion resolves when all units are down (or, if
    /// they are left running, let go), with what was ended below all of them.
    pub fn shutdown(&self, how: Shutdown) -> Completion {
        let (done, receiver) = bounded(1);
        self.send(Control::Shutdown { how, done });
        Completion { receiver }
    }

    /// Waits until the driver's thread has ended, after a shutdown.
    pub fn join(&self) {
        let thread = self
            .link
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            log::warn!("the supervisor's thread panicked");
        }
    }

    fn event(&self, unit: UnitId, event: Event) {
        self.send(Control::Event { unit, event });
    }

    fn stop_by(&self, unit: UnitId, event: Event) -> Completion {
        let (done, receiver) = bounded(1);
        self.send(Control::Stop { unit, event, done });
        Completion { receiver }
    }

    fn ask<T>(
        &self,
        within: Duration,
        control: impl FnOnce(Sender<T>) -> Control,
    ) -> Result<T, QueryError> {
        let (answer, receiver) = bounded(1);
        self.send(control(answer));
        receiver.recv_timeout(within).map_err(|error| match error {
            RecvTimeoutError::Timeout => QueryError::TimedOut,
            RecvTimeoutError::Disconnected => QueryError::DriverGone,
        })
    }

    fn send(&self, control: Control) {
        self.link.send(control);
    }
}

impl Link {
    fn send(&self, control: Control) {
        // A driver that is gone has nothing to be told; who waits for an answer
        // sees its channel closed.
        if self.sender.send(control).is_err() {
            return;
        }
        if let Err(error) = self.waker.write(1) {
            log::warn!("failed to wake the supervisor's thread: {error}");
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.send(Control::NobodyLeft);
    }
}

/// A driver did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryError {
    /// Not within the given time: a host's method is taking long.
    TimedOut,
    /// It has ended.
    DriverGone,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "the supervisor's thread did not answer in time",
            Self::DriverGone => "the supervisor's thread has ended",
        })
    }
}

impl Error for QueryError {}

/// A unit is not known to be down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompletionError {
    /// Not within the given time.
    TimedOut,
    /// The driver has ended.
    DriverGone,
}

impl fmt::Display for CompletionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "the unit is not down yet",
            Self::DriverGone => "the supervisor's thread has ended",
        })
    }
}

impl Error for CompletionError {}
