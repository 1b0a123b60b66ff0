use std::time::Duration;

use crate::account::{Contention, CrashAccount, Dice, Window, doubled, same_process};
use crate::event::{
    Account, Action, Disposition, Epoch, Event, Generation, Holder, Notice, ParkReason,
    SpawnFailure, StartReason, Step, UnparkedBy,
};
use crate::state::{
    AfterStop, ContentionFacts, CrashFacts, Explanation, Mover, State, StopReason, WindowFacts,
};
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
    /// Whether work arrived while the host was being asked.
    woken: bool,
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
            State::Parked {
                reason: ParkReason::Contended { .. },
                since,
            } => {
                let probe = self.policy.contention_probe;
                (!probe.is_zero()).then(|| *since + probe)
            }
            State::Idle { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Ending { .. }
            | State::Held { .. }
            | State::Parked { .. }
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

    // Wishes.

    fn start(&mut self, now: Moment, step: &mut Step) {
        match &mut self.state {
            State::Idle { .. } | State::Stopped { .. } => {
                self.spawn(StartReason::Asked, now, step);
            }
            State::Stopping { then, .. } => *then = AfterStop::Start,
            // All of these come up by themselves, or say what they wait for.
            State::Starting { .. }
            | State::Running { .. }
            | State::Ending { .. }
            | State::Backoff { .. }
            | State::Degraded { .. }
            | State::Held { .. }
            | State::Contended { .. }
            | State::Parked { .. } => {}
        }
    }

    fn stop(&mut self, now: Moment, after: AfterStop, step: &mut Step) {
        self.books.epoch.0 += 1;
        match &mut self.state {
            State::Running {
                pid, generation, ..
            } => {
                let (pid, generation) = (*pid, *generation);
                self.state = State::Stopping {
                    since: now,
                    pid,
                    generation,
                    then: after,
                };
                step.action = Some(Action::Terminate { generation });
                let restart = after == AfterStop::Start;
                step.notices.push(Notice::Stopping {
                    generation,
                    pid,
                    restart,
                });
            }
            State::Ending {
                pid, generation, ..
            } => {
                // The process is gone already; only what follows changes.
                let (pid, generation) = (*pid, *generation);
                self.state = State::Stopping {
                    since: now,
                    pid,
                    generation,
                    then: after,
                };
            }
            State::Stopping { then, .. } => *then = after,
            State::Stopped { .. } => {}
            State::Idle { .. }
            | State::Starting { .. }
            | State::Backoff { .. }
            | State::Degraded { .. }
            | State::Held { .. }
            | State::Contended { .. }
            | State::Parked { .. } => self.stopped(StopReason::Asked, now, step),
        }
    }

    fn kill(&mut self, now: Moment, step: &mut Step) {
        let process = self.state.process();
        self.stop(now, AfterStop::StayDown, step);
        if let Some((_, generation)) = process {
            step.action = Some(Action::Kill { generation });
        }
    }

    fn restart(&mut self, now: Moment, step: &mut Step) {
        match &self.state {
            State::Running { .. } | State::Ending { .. } | State::Stopping { .. } => {
                self.stop(now, AfterStop::Start, step);
            }
            State::Idle { .. } | State::Stopped { .. } => self.start(now, step),
            State::Starting { .. }
            | State::Backoff { .. }
            | State::Degraded { .. }
            | State::Held { .. }
            | State::Contended { .. }
            | State::Parked { .. } => {}
        }
    }

    fn resume(&mut self, now: Moment, step: &mut Step) {
        match &mut self.state {
            State::Parked { .. } => {
                self.unpark(UnparkedBy::Resume, step);
                self.spawn(StartReason::Resumed, now, step);
            }
            State::Idle { .. }
            | State::Backoff { .. }
            | State::Degraded { .. }
            | State::Contended { .. }
            | State::Stopped { .. } => self.spawn(StartReason::Resumed, now, step),
            State::Stopping { then, .. } => *then = AfterStop::Start,
            // A holder that lives is watched: an attempt could only fail.
            State::Held { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Ending { .. } => {}
        }
    }

    fn wake(&mut self, now: Moment, step: &mut Step) {
        match &self.state {
            State::Idle { .. } => self.spawn(StartReason::Woken, now, step),
            State::Starting { .. } => self.run.woken = true,
            State::Backoff {
                account, number, ..
            } => {
                let (account, number) = (*account, *number);
                if self.may_cut_short(account, number) {
                    step.notices.push(Notice::WokenEarly { account, number });
                    self.spawn(StartReason::WokenEarly, now, step);
                }
            }
            // After every ending the host is asked before the unit settles, so
            // work that arrives while there is a process is not forgotten.
            State::Running { .. }
            | State::Ending { .. }
            | State::Stopping { .. }
            | State::Degraded { .. }
            | State::Held { .. }
            | State::Contended { .. }
            | State::Parked { .. }
            | State::Stopped { .. } => {}
        }
    }

    /// Once per number and account. The dependency number stops rising at its
    /// cap, so a stream of messages cannot turn a long pause into none.
    fn may_cut_short(&mut self, account: Account, number: u32) -> bool {
        let used = match account {
            Account::Crash => &mut self.books.early_crash,
            Account::Dependency => &mut self.books.early_dependency,
            Account::Clean
            | Account::Memory
            | Account::Contention
            | Account::Release
            | Account::NotNow => return false,
        };
        if *used == number {
            return false;
        }
        *used = number;
        true
    }

    fn config_changed(&mut self, now: Moment, step: &mut Step) {
        match &self.state {
            State::Parked { .. } => {
                self.unpark(UnparkedBy::ConfigChanged, step);
                self.spawn(StartReason::ConfigChanged, now, step);
            }
            State::Backoff { .. } | State::Degraded { .. } | State::Contended { .. } => {
                self.spawn(StartReason::ConfigChanged, now, step);
            }
            State::Idle { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Ending { .. }
            | State::Held { .. }
            | State::Stopping { .. }
            | State::Stopped { .. } => {}
        }
    }

    fn unpark(&mut self, by: UnparkedBy, step: &mut Step) {
        step.notices.push(Notice::Unparked { by });
        self.books.contention.clear();
        match by {
            UnparkedBy::Resume | UnparkedBy::ConfigChanged => {
                self.books.crash.clear();
                self.books.early_crash = 0;
                self.forgive_dependency();
            }
            UnparkedBy::HolderGone | UnparkedBy::Adopted => {}
        }
    }

    // Holders.

    fn holder_gone(&mut self, now: Moment, step: &mut Step) {
        let holder = match &self.state {
            State::Held { holder, .. } | State::Contended { holder, .. } => holder.clone(),
            State::Parked {
                reason: ParkReason::Contended { holder, .. },
                ..
            } => {
                let holder = holder.clone();
                self.unpark(UnparkedBy::HolderGone, step);
                holder
            }
            State::Idle { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Ending { .. }
            | State::Backoff { .. }
            | State::Degraded { .. }
            | State::Parked { .. }
            | State::Stopping { .. }
            | State::Stopped { .. } => return,
        };
        step.notices.push(Notice::HolderGone {
            holder: holder.clone(),
        });
        self.books.last_gone = Some(holder);
        self.spawn(StartReason::HolderGone, now, step);
    }

    fn holder_unwatchable(&mut self, now: Moment, step: &mut Step) {
        if let State::Held { holder, .. } = &self.state {
            let holder = holder.clone();
            self.refused(&holder, now, step);
        }
    }

    /// Somebody holds the place. One who can be watched is waited for; one who
    /// cannot, or who was reported gone and is here again, is probed.
    fn contended(&mut self, holder: Holder, watchable: bool, now: Moment, step: &mut Step) {
        let ghost = self
            .books
            .last_gone
            .as_ref()
            .is_some_and(|gone| same_process(gone, &holder));
        if !watchable || ghost || holder.pid == 0 {
            self.refused(&holder, now, step);
            return;
        }
        if self.run.reason == Some(StartReason::HolderGone) {
            // Holders that come and go as fast as they are waited for would
            // otherwise make a loop without any pause.
            let taken =
                self.books
                    .takeovers
                    .push(now, self.policy.clean_window, self.policy.clean_budget);
            if taken > self.policy.clean_budget {
                self.refused(&holder, now, step);
                return;
            }
        }
        self.run.probe_of = None;
        step.action = Some(Action::Watch {
            holder: holder.clone(),
        });
        step.notices.push(Notice::Held {
            holder: holder.clone(),
        });
        self.state = State::Held { holder, since: now };
    }

    fn refused(&mut self, holder: &Holder, now: Moment, step: &mut Step) {
        if let Some((
            ParkReason::Contended {
                holder: known,
                since,
                refusals,
            },
            _,
        )) = self.run.probe_of.take()
            && same_process(&known, holder)
        {
            // Still the same: parked as before, and nothing new to tell.
            let reason = ParkReason::Contended {
                holder: known,
                since,
                refusals,
            };
            self.state = State::Parked { reason, since: now };
            return;
        }
        let (refusals, since) = self.books.contention.refuse(holder, now);
        let pauses = &self.policy.contention_pauses;
        let Some(pause) = pauses.get(refusals as usize - 1).copied() else {
            self.park(
                ParkReason::Contended {
                    holder: holder.clone(),
                    since,
                    refusals,
                },
                now,
                step,
            );
            return;
        };
        let until = now + pause;
        step.notices.push(Notice::Contended {
            holder: holder.clone(),
            refusals,
            until,
        });
        self.state = State::Contended {
            until,
            holder: holder.clone(),
            refusals,
            since,
        };
    }

    // Answers to a spawn.

    fn is_starting(&self, of: Generation) -> bool {
        matches!(self.state, State::Starting { generation, .. } if generation == of)
    }

    fn not_needed(&mut self, now: Moment, step: &mut Step) {
        if self.run.woken {
            // The answer was made before the work arrived: ask again.
            self.spawn(StartReason::Woken, now, step);
            return;
        }
        self.forgive_contention();
        self.state = State::Idle { since: now };
        step.notices.push(Notice::Idle);
    }

    fn not_now(&mut self, reason: String, after: Duration, now: Moment, step: &mut Step) {
        let until = now + after.max(LEAST_REPEAT);
        step.notices.push(Notice::NotNow { reason, until });
        self.state = State::Backoff {
            until,
            account: Account::NotNow,
            number: 1,
        };
    }

    fn spawn_failed(
        &mut self,
        generation: Generation,
        failure: SpawnFailure,
        now: Moment,
        step: &mut Step,
    ) {
        step.notices.push(Notice::SpawnFailed {
            generation,
            failure: failure.clone(),
        });
        self.forgive_contention();
        match failure {
            SpawnFailure::Permanent { reason } => {
                self.books.last_failure = Some(reason.clone());
                self.park(ParkReason::Permanent { reason }, now, step);
            }
            SpawnFailure::Transient { reason } => self.crashed(false, reason, now, step),
        }
    }

    fn spawned(&mut self, generation: Generation, pid: u32, now: Moment, step: &mut Step) {
        let State::Starting {
            generation: expected,
            reason,
            ..
        } = &self.state
        else {
            // A driver that obeys the epoch never gets here. One that does not
            // has a process that nobody wants: it is ended, not forgotten.
            if self.state.process().is_none() && generation == self.books.generation {
                self.state = State::Stopping {
                    since: now,
                    pid,
                    generation,
                    then: AfterStop::StayDown,
                };
            }
            step.action = Some(Action::Terminate { generation });
            return;
        };
        if *expected != generation {
            step.action = Some(Action::Terminate { generation });
            return;
        }
        // The books of contention stay open: a process that leaves because it
        // finds its place taken goes on with the ladder where the probes were.
        let reason = *reason;
        self.run = Run {
            reason: Some(reason),
            since: now,
            ..Run::default()
        };
        self.state = State::Running {
            since: now,
            pid,
            generation,
            adopted: false,
        };
        step.notices.push(Notice::Spawned {
            generation,
            pid,
            reason,
        });
    }

    fn adopted(&mut self, pid: u32, since: Moment, now: Moment, step: &mut Step) {
        if self.state.process().is_some() {
            return;
        }
        if let State::Parked { .. } = self.state {
            self.unpark(UnparkedBy::Adopted, step);
        }
        self.books.epoch.0 += 1;
        self.books.generation.0 += 1;
        self.books.contention.clear();
        let generation = self.books.generation;
        let since = since.min(now);
        self.run = Run {
            since,
            ..Run::default()
        };
        self.state = State::Running {
            since,
            pid,
            generation,
            adopted: true,
        };
        step.notices.push(Notice::Adopted { generation, pid });
    }

    // The run and its end.

    fn progress(&mut self) {
        if let State::Running { .. } = self.state {
            self.run.progressed = true;
            self.forgive_contention();
            self.forgive_dependency();
        }
    }

    fn leader_exited(&mut self, of: Generation, now: Moment) {
        match &self.state {
            State::Running {
                pid, generation, ..
            } if *generation == of => {
                self.run.ended = Some(now);
                self.state = State::Ending {
                    since: now,
                    pid: *pid,
                    generation: of,
                };
            }
            State::Stopping { generation, .. } if *generation == of => {
                self.run.ended = Some(now);
            }
            // Anything else is a late word about a former process.
            State::Idle { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Ending { .. }
            | State::Backoff { .. }
            | State::Degraded { .. }
            | State::Held { .. }
            | State::Contended { .. }
            | State::Parked { .. }
            | State::Stopping { .. }
            | State::Stopped { .. } => {}
        }
    }

    fn exited(&mut self, of: Generation, disposition: Disposition, now: Moment, step: &mut Step) {
        let Some((pid, generation)) = self.state.process() else {
            return;
        };
        if generation != of {
            return;
        }
        let ran_for = self.run.ended.unwrap_or(now).since(self.run.since);
        let stopping = match &self.state {
            State::Stopping { then, .. } => Some(*then),
            State::Idle { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Ending { .. }
            | State::Backoff { .. }
            | State::Degraded { .. }
            | State::Held { .. }
            | State::Contended { .. }
            | State::Parked { .. }
            | State::Stopped { .. } => None,
        };
        step.notices.push(Notice::Exited {
            generation,
            pid,
            ran_for,
            requested: stopping.is_some(),
            disposition: disposition.clone(),
        });
        self.books.crash.live(ran_for, self.policy.decay_every);
        if ran_for > self.policy.stable_after {
            self.forgive_dependency();
        }
        match stopping {
            Some(AfterStop::StayDown) => self.stopped(StopReason::Asked, now, step),
            Some(AfterStop::Start) => self.spawn(StartReason::Restarted, now, step),
            None => self.dispose(disposition, ran_for, now, step),
        }
    }

    fn dispose(
        &mut self,
        disposition: Disposition,
        ran_for: Duration,
        now: Moment,
        step: &mut Step,
    ) {
        if !matches!(disposition, Disposition::Contention { .. }) {
            self.forgive_contention();
        }
        match disposition {
            Disposition::Clean | Disposition::IdleLeft => {
                self.forgive_dependency();
                self.restart_promptly(now, step);
            }
            Disposition::Requested | Disposition::ExternalStop { .. } => {
                self.restart_promptly(now, step);
            }
            Disposition::Released => {
                let pause = self.policy.release_pause;
                self.wait(Account::Release, 1, pause, now, step);
            }
            Disposition::Finished => {
                self.forgive_dependency();
                step.notices.push(Notice::Finished);
                self.state = State::Stopped {
                    since: now,
                    why: StopReason::Finished,
                };
            }
            Disposition::Memory { peak } => self.memory_capped(peak, now, step),
            Disposition::Contention { holder, watchable } => {
                self.contended(holder, watchable, now, step);
            }
            Disposition::Permanent { reason } => {
                self.books.last_failure = Some(reason.clone());
                self.park(ParkReason::Permanent { reason }, now, step);
            }
            Disposition::Dependency { reason } => self.dependency_failed(reason, now, step),
            Disposition::Crash { reason } => {
                let forgiven = ran_for > self.policy.stable_after || self.run.progressed;
                self.crashed(forgiven, reason, now, step);
            }
        }
    }

    fn forgive_contention(&mut self) {
        self.books.contention.clear();
        self.books.last_gone = None;
    }

    fn forgive_dependency(&mut self) {
        self.books.dependency = 0;
        self.books.early_dependency = 0;
    }

    /// Restarts at once within the clean budget, with a pause each beyond it.
    fn restart_promptly(&mut self, now: Moment, step: &mut Step) {
        let policy = &self.policy;
        let count = self
            .books
            .clean
            .push(now, policy.clean_window, policy.clean_budget);
        let over = count > policy.clean_budget;
        if self.books.clean.announce(over) {
            step.notices.push(Notice::BudgetWarning {
                account: Account::Clean,
                count,
                budget: policy.clean_budget,
                window: policy.clean_window,
                peak: None,
            });
        }
        let pause = if over {
            policy.clean_pause
        } else {
            Duration::ZERO
        };
        self.wait(Account::Clean, count, pause, now, step);
    }

    fn memory_capped(&mut self, peak: Option<u64>, now: Moment, step: &mut Step) {
        let policy = &self.policy;
        self.books.memory_peak = self.books.memory_peak.max(peak);
        let count = self
            .books
            .memory
            .push(now, policy.memory_window, policy.memory_budget);
        if self.books.memory.announce(count > policy.memory_budget) {
            step.notices.push(Notice::BudgetWarning {
                account: Account::Memory,
                count,
                budget: policy.memory_budget,
                window: policy.memory_window,
                peak: self.books.memory_peak,
            });
        }
        let pause = policy.memory_pause;
        self.wait(Account::Memory, count, pause, now, step);
    }

    fn dependency_failed(&mut self, reason: String, now: Moment, step: &mut Step) {
        self.books.last_failure = Some(reason);
        let policy = &self.policy;
        let (first, cap) = (policy.dependency_first, policy.dependency_cap);
        // The number stops rising where the pause does.
        if self.books.dependency == 0 || doubled(first, self.books.dependency, cap) < cap {
            self.books.dependency += 1;
        }
        let number = self.books.dependency;
        let pause = self
            .books
            .dice
            .vary(doubled(first, number, cap), policy.jitter);
        self.wait(Account::Dependency, number, pause, now, step);
    }

    fn crashed(&mut self, forgiven: bool, reason: String, now: Moment, step: &mut Step) {
        self.books.last_failure = Some(reason.clone());
        if forgiven {
            self.books.early_crash = 0;
        }
        let policy = self.policy.clone();
        let in_window = self.books.crash.crash(forgiven, now, &policy);
        let number = self.books.crash.number;
        if policy.crash_hard > 0 && number >= policy.crash_hard {
            self.park(
                ParkReason::CrashLimit {
                    crashes: number,
                    last: reason,
                },
                now,
                step,
            );
            return;
        }
        let over = in_window > policy.crash_soft;
        if self.books.crash.window.announce(over) {
            step.notices.push(Notice::Degraded {
                number,
                in_window,
                window: policy.crash_window,
                pace: policy.backoff_cap,
            });
        }
        if over {
            let pause = self.books.dice.vary(policy.backoff_cap, policy.jitter);
            self.wait_degraded(number, pause, now, step);
        } else {
            let pause = doubled(policy.backoff_first, number, policy.backoff_cap);
            let pause = self.books.dice.vary(pause, policy.jitter);
            self.wait(Account::Crash, number, pause, now, step);
        }
    }

    // Rest.

    fn wait(
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
                until,
                account,
                number,
            };
        }
    }

    fn wait_degraded(&mut self, number: u32, delay: Duration, now: Moment, step: &mut Step) {
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
            self.state = State::Degraded { until, number };
        }
    }

    fn park(&mut self, reason: ParkReason, now: Moment, step: &mut Step) {
        step.notices.push(Notice::Parked {
            reason: reason.clone(),
        });
        self.state = State::Parked { reason, since: now };
    }

    fn stopped(&mut self, why: StopReason, now: Moment, step: &mut Step) {
        step.notices.push(Notice::Stopped);
        self.state = State::Stopped { since: now, why };
    }

    fn spawn(&mut self, reason: StartReason, now: Moment, step: &mut Step) {
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

    fn deadline_reached(&mut self, now: Moment, step: &mut Step) {
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

    /// Returns everything that decides what happens next, as of `now`.
    #[must_use]
    pub fn explain(&self, now: Moment) -> Explanation {
        let policy = &self.policy;
        let mut crash = self.books.crash.clone();
        if let State::Running { .. } = self.state {
            crash.live(now.since(self.run.since), policy.decay_every);
        }
        let allowed = u32::try_from(policy.contention_pauses.len()).unwrap_or(u32::MAX);
        Explanation {
            state: self.state.clone(),
            next_at: self.deadline(),
            moved_by: self.movers(),
            crash: CrashFacts {
                number: crash.number,
                in_window: crash.window.count(now, policy.crash_window),
                soft: policy.crash_soft,
                window: policy.crash_window,
                hard: policy.crash_hard,
                next_decay_in: (crash.number > 0)
                    .then(|| policy.decay_every.saturating_sub(crash.health)),
            },
            clean: WindowFacts {
                count: self.books.clean.count(now, policy.clean_window),
                budget: policy.clean_budget,
                window: policy.clean_window,
            },
            memory: WindowFacts {
                count: self.books.memory.count(now, policy.memory_window),
                budget: policy.memory_budget,
                window: policy.memory_window,
            },
            memory_peak: self.books.memory_peak,
            dependency: self.books.dependency,
            contention: self
                .books
                .contention
                .by
                .clone()
                .map(|(holder, since)| ContentionFacts {
                    holder,
                    refusals: self.books.contention.refusals,
                    allowed,
                    since,
                }),
            last_failure: self.books.last_failure.clone(),
        }
    }

    fn movers(&self) -> Vec<Mover> {
        match &self.state {
            State::Idle { .. } => vec![Mover::Wake, Mover::Start, Mover::Resume],
            State::Stopped { .. } => vec![Mover::Start, Mover::Resume],
            State::Held { .. } => vec![Mover::HolderGone],
            State::Contended { .. }
            | State::Parked {
                reason: ParkReason::Contended { .. },
                ..
            } => {
                vec![Mover::HolderGone, Mover::Resume, Mover::ConfigChange]
            }
            State::Parked { .. } | State::Degraded { .. } => {
                vec![Mover::Resume, Mover::ConfigChange]
            }
            State::Backoff {
                account, number, ..
            } => {
                let mut movers = vec![Mover::Resume, Mover::ConfigChange];
                if self.clone().may_cut_short(*account, *number) {
                    movers.insert(0, Mover::Wake);
                }
                movers
            }
            State::Starting { .. }
            | State::Running { .. }
            | State::Ending { .. }
            | State::Stopping { .. } => Vec::new(),
        }
    }
}

/// A host that answers "ask again at once" must not make the driver spin.
const LEAST_REPEAT: Duration = Duration::from_millis(100);
