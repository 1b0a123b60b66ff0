mod answers;
mod endings;
mod explain;
mod holders;
mod wishes;

use std::time::Duration;

use crate::account::{Contention, CrashAccount, Dice, Window};
use crate::event::{
    Account, Action, Epoch, Event, Generation, Holder, Notice, ParkReason, StartReason, Step,
};
use crate::state::{AfterStop, State, StopReason};
use crate::{Moment, ValidPolicy};

/// What happens to one unit, decided without looking at anything but what it is
/// told: no clock, no process, no randomness but its seed, no log.
///
/// A driver feeds it [`Event`]s, does what the [`Action`] of each [`Step`] says,
/// and comes back with [`Event::DeadlineReached`] at [`deadline`](Self::deadline).
///
/// ```
/// use supervisor::{Action, Event, Machine, Moment, Policy, State};
///
/// let policy = Policy::standard().validate()?;
/// let mut machine = Machine::new(policy, 1, Moment::ZERO);
/// let step = machine.handle(Event::Wake, Moment::from_secs(5));
/// let Some(Action::Spawn { generation, .. }) = step.action else { panic!("it starts") };
/// let _ = machine.handle(Event::Spawned { generation, pid: 4711 }, Moment::from_secs(5));
/// assert!(matches!(machine.state(), State::Running { pid: 4711, .. }));
/// # Ok::<(), supervisor::PolicyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Machine {
    pub(crate) policy: ValidPolicy,
    pub(crate) books: Books,
    pub(crate) state: State,
    /// When a unit that is parked behind a holder looks again.
    pub(crate) probe_at: Option<Moment>,
    /// The facts of the attempt or run that is going on.
    run: Run,
}

/// All that outlives a run, and the daemon that watched it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Books {
    pub(crate) dice: Dice,
    pub(crate) epoch: Epoch,
    pub(crate) generation: Generation,
    pub(crate) crash: CrashAccount,
    pub(crate) clean: Window,
    pub(crate) memory: Window,
    pub(crate) memory_peak: Option<u64>,
    pub(crate) contention: Contention,
    /// Starts that followed the end of a watched holder.
    pub(crate) takeovers: Window,
    /// The holder that was last reported gone; reported again, it is a ghost.
    pub(crate) last_gone: Option<Holder>,
    pub(crate) dependency: u32,
    /// The number of each account whose pause a message has already cut short.
    pub(crate) early_crash: u32,
    pub(crate) early_dependency: u32,
    pub(crate) last_failure: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Run {
    /// Why the process was started.
    reason: Option<StartReason>,
    /// When the process started; the state shows later moments.
    since: Moment,
    /// When the process was seen to be gone, before its leftovers were.
    ended: Option<Moment>,
    /// Whether it finished a piece of work.
    progressed: bool,
    /// Whether somebody wanted it up while the host was being asked.
    ask_again: bool,
    /// Whether the configuration changed since the start was decided.
    reconfigured: bool,
    /// Where a probe returns to if the same holder refuses again.
    probe_of: Option<(ParkReason, Moment)>,
}

impl Machine {
    /// Returns a machine that is [`State::Idle`] and has counted nothing. Units
    /// with different seeds vary their pauses differently.
    #[must_use]
    pub fn new(policy: ValidPolicy, seed: u64, now: Moment) -> Self {
        let books = Books {
            dice: Dice::new(seed),
            epoch: Epoch(0),
            generation: Generation(0),
            crash: CrashAccount::default(),
            clean: Window::default(),
            memory: Window::default(),
            memory_peak: None,
            contention: Contention::default(),
            takeovers: Window::default(),
            last_gone: None,
            dependency: 0,
            early_crash: 0,
            early_dependency: 0,
            last_failure: None,
        };
        Self::from_parts(policy, books, State::Idle { since: now })
    }

    pub(crate) fn from_parts(policy: ValidPolicy, books: Books, state: State) -> Self {
        Self {
            policy,
            books,
            state,
            probe_at: None,
            run: Run::default(),
        }
    }

    /// Returns where the unit stands.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Returns the number of the wish that is in force. It changes with every
    /// event that makes a spawn that was handed out void.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.books.epoch
    }

    /// Returns the policy.
    #[must_use]
    pub fn policy(&self) -> &ValidPolicy {
        &self.policy
    }

    /// Replaces the policy. Pauses that are being waited out keep their length;
    /// send [`Event::ConfigChanged`] to cut them short.
    pub fn set_policy(&mut self, policy: ValidPolicy) {
        self.policy = policy;
    }

    /// Returns when [`Event::DeadlineReached`] is due. Only
    /// [`handle`](Self::handle) changes it.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        match &self.state {
            State::Backoff { until, .. }
            | State::Degraded { until, .. }
            | State::Contended { until, .. } => Some(*until),
            State::Parked { .. } => self.probe_at,
            State::Idle { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Ending { .. }
            | State::Held { .. }
            | State::Stopping { .. }
            | State::Stopped { .. } => None,
        }
    }

    /// Takes in what happened at `now` and returns what follows.
    ///
    /// Events that do not fit (a late word about a former process, a second
    /// stop) change nothing and return an empty step.
    pub fn handle(&mut self, event: Event, now: Moment) -> Step {
        let mut step = Step::default();
        match event {
            Event::Start => self.start(now, &mut step),
            Event::Stop => self.stop(now, AfterStop::StayDown, &mut step),
            Event::Kill => self.kill(now, &mut step),
            Event::Restart => self.restart(now, &mut step),
            Event::Resume => self.resume(now, &mut step),
            Event::Wake => self.wake(now, &mut step),
            Event::ConfigChanged => self.config_changed(now, &mut step),
            Event::HolderGone => self.holder_gone(now, &mut step),
            Event::HolderUnwatchable => self.holder_unwatchable(now, &mut step),
            Event::NotNeeded { generation } => {
                if self.is_starting(generation) {
                    self.not_needed(now, &mut step);
                }
            }
            Event::Held {
                generation,
                holder,
                watchable,
            } => {
                if self.is_starting(generation) {
                    self.contended(holder, watchable, now, &mut step);
                }
            }
            Event::NotNow {
                generation,
                reason,
                after,
            } => {
                if self.is_starting(generation) {
                    self.not_now(reason, after, now, &mut step);
                }
            }
            Event::SpawnFailed {
                generation,
                failure,
            } => {
                if self.is_starting(generation) {
                    self.spawn_failed(generation, failure, now, &mut step);
                }
            }
            Event::Spawned { generation, pid } => self.spawned(generation, pid, now, &mut step),
            Event::Adopted { pid, since } => self.adopted(pid, since, now, &mut step),
            Event::Progress => self.progress(),
            Event::LeaderExited { generation } => self.leader_exited(generation, now),
            Event::Exited {
                generation,
                disposition,
            } => {
                self.exited(generation, disposition, now, &mut step);
            }
            Event::DeadlineReached => self.deadline_reached(now, &mut step),
        }
        step
    }

    pub(super) fn wait(
        &mut self,
        account: Account,
        number: u32,
        delay: Duration,
        now: Moment,
        step: &mut Step,
    ) {
        let until = now + delay;
        step.notices.push(Notice::Backoff {
            account,
            number,
            delay,
            until,
        });
        if delay.is_zero() {
            self.spawn(StartReason::Retry(account), now, step);
        } else {
            self.state = State::Backoff {
                since: now,
                until,
                account,
                number,
            };
        }
    }

    pub(super) fn wait_degraded(
        &mut self,
        number: u32,
        delay: Duration,
        now: Moment,
        step: &mut Step,
    ) {
        let until = now + delay;
        step.notices.push(Notice::Backoff {
            account: Account::Crash,
            number,
            delay,
            until,
        });
        if delay.is_zero() {
            self.spawn(StartReason::Retry(Account::Crash), now, step);
        } else {
            self.state = State::Degraded {
                since: now,
                until,
                number,
            };
        }
    }

    pub(super) fn park(&mut self, reason: ParkReason, now: Moment, step: &mut Step) {
        step.notices.push(Notice::Parked {
            reason: reason.clone(),
        });
        self.rest_parked(reason, now, now);
    }

    /// A park behind a holder who cannot be watched looks again from time to time,
    /// so that it ends by itself when the holder does.
    fn rest_parked(&mut self, reason: ParkReason, since: Moment, now: Moment) {
        let probe = self.policy.contention_probe;
        let probes = matches!(reason, ParkReason::Contended { .. }) && !probe.is_zero();
        self.probe_at = probes.then(|| now + probe);
        self.state = State::Parked { reason, since };
    }

    pub(super) fn stopped(&mut self, why: StopReason, now: Moment, step: &mut Step) {
        step.notices.push(Notice::Stopped);
        self.state = State::Stopped { since: now, why };
    }

    pub(super) fn spawn(&mut self, reason: StartReason, now: Moment, step: &mut Step) {
        self.books.generation.0 += 1;
        let generation = self.books.generation;
        let epoch = self.books.epoch;
        self.run = Run {
            reason: Some(reason),
            ..Run::default()
        };
        self.state = State::Starting {
            since: now,
            reason,
            generation,
        };
        step.action = Some(Action::Spawn {
            generation,
            epoch,
            reason,
        });
    }

    pub(super) fn deadline_reached(&mut self, now: Moment, step: &mut Step) {
        // A timer that fires early changes nothing; it is asked again.
        if self.deadline().is_none_or(|at| now < at) {
            return;
        }
        let mut probe_of = None;
        let account = match &self.state {
            State::Backoff { account, .. } => *account,
            State::Degraded { .. } => Account::Crash,
            State::Contended { .. } => Account::Contention,
            State::Parked { reason, since } => {
                probe_of = Some((reason.clone(), *since));
                Account::Contention
            }
            State::Idle { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Ending { .. }
            | State::Held { .. }
            | State::Stopping { .. }
            | State::Stopped { .. } => return,
        };
        self.spawn(StartReason::Retry(account), now, step);
        self.run.probe_of = probe_of;
    }
}
