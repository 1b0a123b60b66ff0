use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::account::Window;
use crate::machine::Books;
use crate::{Account, AfterStop, Machine, Moment, ParkReason, State, StopReason, ValidPolicy};

/// One moment on the two clocks that a saved state needs: the monotonic one, which
/// means nothing after a reboot, and the wall clock, which somebody may set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Stamp {
    /// Names the boot: two stamps of one boot share the monotonic clock.
    pub boot: String,
    /// The monotonic clock.
    pub at: Moment,
    /// The wall clock: the time since the Unix epoch.
    pub wall: Duration,
}

/// All that a machine has counted and why it is where it is, to be written down.
///
/// With the feature `serde` it can be serialized; the text is meant for a later
/// version of this crate, not for other programs.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Snapshot {
    version: u32,
    taken: Stamp,
    state: State,
    probe_at: Option<Moment>,
    books: Books,
}

const VERSION: u32 = 1;

impl Machine {
    /// Returns everything that must outlive this process.
    #[must_use]
    pub fn snapshot(&self, taken: Stamp) -> Snapshot {
        Snapshot {
            version: VERSION,
            taken,
            state: self.state.clone(),
            probe_at: self.probe_at,
            books: self.books.clone(),
        }
    }
}

impl Snapshot {
    /// Returns where the unit stood.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Makes a machine of it again, as of `now`.
    ///
    /// Pauses keep their end, windows their content, parks and stops their reason.
    /// A unit that had a process or was about to have one becomes idle: whether the
    /// process is still there only the caller can find out, and says so with
    /// [`Event::Adopted`](crate::Event::Adopted). One that was held looks again at
    /// once.
    ///
    /// Within one boot all moments stay what they were. After a reboot the distance
    /// is taken from the wall clock; if that went backwards no time has passed, so
    /// that no pause grows.
    ///
    /// # Errors
    ///
    /// Returns an error if it was written by a later version of this crate.
    pub fn restore(self, policy: ValidPolicy, now: &Stamp) -> Result<Machine, RestoreError> {
        if self.version != VERSION {
            return Err(RestoreError::Version {
                found: self.version,
                known: VERSION,
            });
        }
        let same_boot = self.taken.boot == now.boot && now.at >= self.taken.at;
        let away = if same_boot {
            now.at.since(self.taken.at)
        } else {
            now.wall.saturating_sub(self.taken.wall)
        };
        let clock = Conversion {
            then: self.taken.at,
            now: now.at,
            away,
        };
        let mut books = self.books;
        for window in [
            &mut books.crash.window,
            &mut books.clean,
            &mut books.memory,
            &mut books.takeovers,
        ] {
            clock.window(window);
        }
        if let Some((_, since)) = &mut books.contention.by {
            *since = clock.moment(*since);
        }
        // Nothing that was handed out before is in force.
        books.epoch.0 += 1;
        let state = clock.state(self.state);
        let mut machine = Machine::from_parts(policy, books, state);
        if let State::Parked { .. } = machine.state {
            machine.probe_at = self.probe_at.map(|at| clock.moment(at));
        }
        Ok(machine)
    }
}

/// Moves moments of one clock to another.
struct Conversion {
    then: Moment,
    now: Moment,
    /// How long the state lay on disk.
    away: Duration,
}

impl Conversion {
    fn moment(&self, at: Moment) -> Moment {
        let taken = self.now.before(self.away);
        if at >= self.then {
            taken + at.since(self.then)
        } else {
            taken.before(self.then.since(at))
        }
    }

    fn window(&self, window: &mut Window) {
        for at in &mut window.times {
            *at = self.moment(*at);
        }
    }

    fn state(&self, state: State) -> State {
        let now = self.now;
        match state {
            State::Idle { since } => State::Idle {
                since: self.moment(since),
            },
            State::Starting { .. } | State::Running { .. } | State::Ending { .. } => {
                State::Idle { since: now }
            }
            State::Stopping {
                then: AfterStop::Start,
                ..
            } => State::Idle { since: now },
            State::Stopping {
                then: AfterStop::StayDown,
                ..
            } => State::Stopped {
                since: now,
                why: StopReason::Asked,
            },
            State::Stopped { since, why } => State::Stopped {
                since: self.moment(since),
                why,
            },
            State::Backoff {
                since,
                until,
                account,
                number,
            } => State::Backoff {
                since: self.moment(since),
                until: self.moment(until),
                account,
                number,
            },
            State::Degraded {
                since,
                until,
                number,
            } => State::Degraded {
                since: self.moment(since),
                until: self.moment(until),
                number,
            },
            State::Contended {
                until,
                holder,
                refusals,
                since,
            } => State::Contended {
                until: self.moment(until),
                holder,
                refusals,
                since: self.moment(since),
            },
            State::Held { .. } => State::Backoff {
                since: now,
                until: now,
                account: Account::NotNow,
                number: 1,
            },
            State::Parked { reason, since } => {
                let reason = match reason {
                    ParkReason::Contended {
                        holder,
                        since,
                        refusals,
                    } => ParkReason::Contended {
                        holder,
                        since: self.moment(since),
                        refusals,
                    },
                    ParkReason::Permanent { .. } | ParkReason::CrashLimit { .. } => reason,
                };
                State::Parked {
                    reason,
                    since: self.moment(since),
                }
            }
        }
    }
}

/// A saved state cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreError {
    /// It has a form that this version does not know.
    Version {
        /// The form it has.
        found: u32,
        /// The form that is known.
        known: u32,
    },
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found, known } => {
                write!(f, "the saved state has form {found}, known is {known}")
            }
        }
    }
}

impl Error for RestoreError {}
