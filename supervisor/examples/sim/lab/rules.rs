//! What must hold, whatever happens. The rules keep books of their own, in the
//! plainest form: lists of what was seen.

use std::time::Duration;

use supervisor::{
    Account, Action, Disposition, Event, Explanation, Generation, Machine, Moment, Notice, Policy,
    SpawnFailure, StartReason, State, Step,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    OneProcess,
    StopIsObeyed,
    LateWordsChangeNothing,
    TimersAreNotEarly,
    CrashPause,
    CrashRate,
    CrashLimit,
    OnlyCrashesAreCrashes,
    CleanBudget,
    MemoryPause,
    DependencyPause,
    ContentionLadder,
    NoAttemptAgainstAHolder,
    EarlyWakes,
    PermanentParks,
    NoDeadEnd,
    AnnouncedOnce,
    WorkIsReached,
    RestoreKeeps,
    Forgiveness,
}

/// A rule was broken.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) text: String,
}

/// The machine before an event.
pub(crate) struct Before {
    pub(crate) state: State,
    pub(crate) facts: Explanation,
    pub(crate) deadline: Option<Moment>,
}

impl Before {
    pub(crate) fn of(machine: &Machine, now: Moment) -> Self {
        Self {
            state: machine.state().clone(),
            facts: machine.explain(now),
            deadline: machine.deadline(),
        }
    }
}

/// What the world knows besides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Truth {
    pub(crate) now: Moment,
    /// The process that exists, if one does.
    pub(crate) process: Option<Generation>,
    /// Whether a start is on its way.
    pub(crate) start_pending: bool,
    /// Whether there is work, or somebody waits.
    pub(crate) needed: bool,
}

/// The rules and what they have seen.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one thing that was seen or not"
)]
pub(crate) struct Rules {
    policy: Policy,
    off: Option<Rule>,
    wanted_down: bool,
    crashes: Vec<Moment>,
    prompt_restarts: Vec<Moment>,
    /// The pause that was told last, and when.
    paused: Option<(Account, u32, Moment)>,
    refusal: Option<(u32, Moment)>,
    announced: bool,
    early: Option<(Account, u32)>,
    progressed: bool,
    reconfigured: bool,
    run_since: Moment,
    ran_until: Option<Moment>,
}

/// What clocks and timers may be off by.
const SLACK: Duration = Duration::from_millis(5);

type Outcome = Result<(), Violation>;

impl Rules {
    pub(crate) fn new(policy: Policy, off: Option<Rule>) -> Self {
        Self {
            policy,
            off,
            wanted_down: false,
            crashes: Vec::new(),
            prompt_restarts: Vec::new(),
            paused: None,
            refusal: None,
            announced: false,
            early: None,
            progressed: false,
            reconfigured: false,
            run_since: Moment::ZERO,
            ran_until: None,
        }
    }

    fn demand(&self, rule: Rule, holds: bool, text: impl FnOnce() -> String) -> Outcome {
        if holds || self.off == Some(rule) {
            return Ok(());
        }
        Err(Violation { rule, text: text() })
    }

    /// Returns whether the last wish of a person was that it be down.
    pub(crate) fn wants_down(&self) -> bool {
        self.wanted_down
    }

    /// A process is about to be created.
    pub(crate) fn creating(&self, truth: &Truth) -> Outcome {
        self.demand(Rule::OneProcess, truth.process.is_none(), || {
            format!("a second process beside {:?}", truth.process)
        })?;
        self.demand(Rule::StopIsObeyed, !self.wanted_down, || {
            "started against a stop".into()
        })
    }

    /// The machine was saved and restored; `lost` if what was saved was not the
    /// latest.
    pub(crate) fn restored(&mut self, before: &Before, after: &Before, lost: bool) -> Outcome {
        // Moments of the former boot mean nothing now; the books start again.
        if lost {
            self.crashes.clear();
            self.prompt_restarts.clear();
            self.announced = false;
            self.early = None;
        }
        self.paused = None;
        self.refusal = None;
        if lost {
            return Ok(());
        }
        if before.state.process().is_some() {
            // A run that goes on is booked when it ends.
            return Ok(());
        }
        let kept = before.facts.crash.number == after.facts.crash.number
            && before.facts.dependency == after.facts.dependency;
        self.demand(Rule::RestoreKeeps, kept, || {
            format!("{:?} became {:?}", before.facts.crash, after.facts.crash)
        })?;
        let pausing = matches!(
            before.state,
            State::Backoff { .. } | State::Degraded { .. } | State::Contended { .. }
        );
        if pausing {
            let same = before.state.name() == after.state.name();
            self.demand(Rule::RestoreKeeps, same, || {
                format!("{:?} became {:?}", before.state, after.state)
            })?;
        }
        Ok(())
    }

    /// Moves the rules' own moments to another clock.
    pub(crate) fn shift(&mut self, convert: impl Fn(Moment) -> Moment) {
        for at in self.crashes.iter_mut().chain(&mut self.prompt_restarts) {
            *at = convert(*at);
        }
    }

    /// Checks one event and what the machine made of it.
    pub(crate) fn seen(
        &mut self,
        event: &Event,
        before: &Before,
        step: &Step,
        machine: &Machine,
        truth: &Truth,
    ) -> Outcome {
        let now = truth.now;
        let state = machine.state();
        let facts = machine.explain(now);
        self.note_wishes(event, before, step);
        self.note_run(event, before, now);
        if let Event::Exited { generation, .. } = event
            && before.state.process().map(|(_, own)| own) != Some(*generation)
        {
            let same = &before.state == state && before.facts.crash == facts.crash;
            return self.demand(Rule::LateWordsChangeNothing, same, || {
                format!("{event:?} made {:?} of {:?}", state, before.state)
            });
        }
        if *event == Event::DeadlineReached && step.action.is_some() {
            let due = before.deadline.is_some_and(|at| at <= now);
            self.demand(Rule::TimersAreNotEarly, due, || {
                format!("due at {:?}", before.deadline)
            })?;
        }
        self.check_starts(event, before, step, now)?;
        if let Event::Exited { disposition, .. } = event {
            self.check_exit(disposition, before, state, &facts, now)?;
        }
        if let Event::SpawnFailed { failure, .. } = event {
            match failure {
                SpawnFailure::Permanent { .. } => self.check_parked(state)?,
                SpawnFailure::Transient { .. } => {
                    self.check_crash(false, before, state, &facts, now)?;
                }
            }
        }
        if facts.crash.in_window <= self.policy.crash_soft {
            self.announced = false;
        }
        self.note_notices(step, now)?;
        if step
            .action
            .as_ref()
            .is_some_and(|action| matches!(action, Action::Spawn { .. }))
        {
            self.reconfigured = false;
        }
        self.check_rest(machine, truth)
    }

    fn note_wishes(&mut self, event: &Event, before: &Before, step: &Step) {
        if *event == Event::ConfigChanged {
            self.reconfigured = true;
        }
        if matches!(event, Event::Stop | Event::Kill) {
            self.wanted_down = true;
        }
        if matches!(
            event,
            Event::Start | Event::Restart | Event::Resume | Event::Adopted { .. }
        ) {
            self.wanted_down = false;
        }
        let unparked = step.notices.iter().any(|notice| {
            matches!(
                notice,
                Notice::Unparked {
                    by: supervisor::UnparkedBy::Resume | supervisor::UnparkedBy::ConfigChanged
                }
            )
        });
        let resumed = *event == Event::Resume && matches!(before.state, State::Degraded { .. });
        if unparked || resumed {
            self.crashes.clear();
            self.announced = false;
            self.early = None;
        }
    }

    fn note_run(&mut self, event: &Event, before: &Before, now: Moment) {
        if let Event::Spawned { .. } = event {
            (self.run_since, self.ran_until, self.progressed) = (now, None, false);
        }
        if let Event::Adopted { since, .. } = event {
            (self.run_since, self.ran_until, self.progressed) = (*since, None, false);
        }
        if *event == Event::Progress && matches!(before.state, State::Running { .. }) {
            self.progressed = true;
            self.early = None;
        }
        if let Event::LeaderExited { generation } = event
            && before.state.process().map(|(_, own)| own) == Some(*generation)
            && self.ran_until.is_none()
        {
            self.ran_until = Some(now);
        }
    }

    fn check_starts(
        &mut self,
        event: &Event,
        before: &Before,
        step: &Step,
        now: Moment,
    ) -> Outcome {
        let Some(Action::Spawn { reason, .. }) = &step.action else {
            return Ok(());
        };
        if let State::Held { .. } = before.state {
            let told = matches!(
                event,
                Event::HolderGone | Event::Resume | Event::ConfigChanged
            );
            self.demand(Rule::NoAttemptAgainstAHolder, told, || {
                format!("{event:?} while held")
            })?;
        }
        if *event == Event::Wake {
            let allowed = match before.state {
                // For a held one the rule about holders is asked, not this one.
                State::Idle { .. } | State::Held { .. } => true,
                State::Backoff {
                    account, number, ..
                } => {
                    let fresh = self.early != Some((account, number));
                    self.early = Some((account, number));
                    fresh && matches!(account, Account::Crash | Account::Dependency)
                }
                State::Starting { .. }
                | State::Running { .. }
                | State::Ending { .. }
                | State::Degraded { .. }
                | State::Contended { .. }
                | State::Parked { .. }
                | State::Stopping { .. }
                | State::Stopped { .. } => false,
            };
            self.demand(Rule::EarlyWakes, allowed, || {
                format!("woken in {:?}", before.state)
            })?;
        }
        let policy = &self.policy;
        let least = 1.0 - policy.jitter;
        let StartReason::Retry(account) = reason else {
            return Ok(());
        };
        if *account == Account::Contention
            && let Some((refusals, at)) = self.refusal
        {
            let pause = policy.contention_pauses.get(refusals as usize - 1);
            let kept = pause.is_none_or(|pause| now.since(at) + SLACK >= *pause);
            return self.demand(Rule::ContentionLadder, kept, || {
                format!("probed {:?} after refusal {refusals}", now.since(at))
            });
        }
        let Some((paused, number, at)) = self.paused else {
            return Ok(());
        };
        if paused != *account {
            return Ok(());
        }
        let waited = now.since(at) + SLACK;
        let doubled = |first: Duration, cap: Duration| {
            (0..number.saturating_sub(1).min(40))
                .fold(first, |pause, _| (pause * 2).min(cap))
                .min(cap)
        };
        let (rule, pause) = match account {
            Account::Crash => (
                Rule::CrashPause,
                doubled(policy.backoff_first, policy.backoff_cap).mul_f64(least),
            ),
            Account::Dependency => (
                Rule::DependencyPause,
                doubled(policy.dependency_first, policy.dependency_cap).mul_f64(least),
            ),
            Account::Memory => (Rule::MemoryPause, policy.memory_pause),
            Account::Clean | Account::Contention | Account::Release | Account::NotNow => {
                return Ok(());
            }
        };
        self.demand(rule, waited >= pause, || {
            format!("{account:?} number {number} waited {waited:?} instead of {pause:?}")
        })
    }

    fn check_exit(
        &mut self,
        disposition: &Disposition,
        before: &Before,
        state: &State,
        facts: &Explanation,
        now: Moment,
    ) -> Outcome {
        if let State::Stopping { .. } = before.state {
            if self.wanted_down {
                let down = matches!(state, State::Stopped { .. });
                self.demand(Rule::StopIsObeyed, down, || {
                    format!("stopped, yet {state:?}")
                })?;
            }
            return Ok(());
        }
        let is_crash = matches!(disposition, Disposition::Crash { .. });
        if !is_crash {
            let same = facts.crash.number <= before.facts.crash.number
                && facts.crash.in_window <= before.facts.crash.in_window;
            self.demand(Rule::OnlyCrashesAreCrashes, same, || {
                format!(
                    "{disposition:?} made {:?} of {:?}",
                    facts.crash, before.facts.crash
                )
            })?;
        }
        match disposition {
            Disposition::Crash { .. } => {
                let ran_for = self.ran_until.unwrap_or(now).since(self.run_since);
                let forgiven = ran_for > self.policy.stable_after || self.progressed;
                self.check_crash(forgiven, before, state, facts, now)
            }
            Disposition::Clean
            | Disposition::IdleLeft
            | Disposition::Requested
            | Disposition::ExternalStop { .. } => {
                let window = self.policy.clean_window;
                self.prompt_restarts.retain(|at| now.since(*at) < window);
                self.prompt_restarts.push(now);
                let over = self.prompt_restarts.len() > self.policy.clean_budget as usize;
                let at_once = matches!(state, State::Starting { .. });
                self.demand(Rule::CleanBudget, !(over && at_once), || {
                    format!(
                        "{} restarts in {window:?} and no pause",
                        self.prompt_restarts.len()
                    )
                })
            }
            Disposition::Permanent { .. } => self.check_parked(state),
            Disposition::Released
            | Disposition::Finished
            | Disposition::Memory { .. }
            | Disposition::Contention { .. }
            | Disposition::Dependency { .. } => Ok(()),
        }
    }

    fn check_parked(&self, state: &State) -> Outcome {
        // What was wrong with a former configuration is worth another try.
        let parked = matches!(state, State::Parked { .. }) || self.reconfigured;
        self.demand(Rule::PermanentParks, parked, || {
            format!("permanent, yet {state:?}")
        })
    }

    fn check_crash(
        &mut self,
        forgiven: bool,
        before: &Before,
        state: &State,
        facts: &Explanation,
        now: Moment,
    ) -> Outcome {
        let window = self.policy.crash_window;
        self.crashes.retain(|at| now.since(*at) < window);
        self.crashes.push(now);
        let number = facts.crash.number;
        // What was shown before the exit already holds the decay of the run.
        let expected = if forgiven {
            1
        } else {
            before.facts.crash.number + 1
        };
        self.demand(Rule::Forgiveness, number == expected, || {
            format!("crash number {number}, expected {expected}")
        })?;
        let parked = matches!(state, State::Parked { .. });
        let hard = self.policy.crash_hard;
        self.demand(
            Rule::CrashLimit,
            hard == 0 || number < hard || parked,
            || format!("crash number {number} of {hard}, yet {state:?}"),
        )?;
        let over = self.crashes.len() > self.policy.crash_soft as usize;
        let paced = parked || matches!(state, State::Degraded { .. });
        self.demand(Rule::CrashRate, !over || paced, || {
            format!(
                "{} crashes in {window:?}, yet {state:?}",
                self.crashes.len()
            )
        })?;
        Ok(())
    }

    fn note_notices(&mut self, step: &Step, now: Moment) -> Outcome {
        for notice in &step.notices {
            if let Notice::Degraded { .. } = notice {
                self.demand(Rule::AnnouncedOnce, !self.announced, || {
                    "announced again".into()
                })?;
                self.announced = true;
            }
            if let Notice::Backoff {
                account, number, ..
            } = notice
            {
                self.paused = Some((*account, *number, now));
            }
            if let Notice::Contended { refusals, .. } = notice {
                self.refusal = Some((*refusals, now));
            }
            if matches!(notice, Notice::Spawned { .. } | Notice::Parked { .. }) {
                self.refusal = None;
            }
            if let Notice::Exited {
                disposition,
                ran_for,
                ..
            } = notice
            {
                // Anything but one more failure of a dependency after a short run
                // makes its number one that may be cut short anew.
                let again = matches!(disposition, Disposition::Dependency { .. });
                if !again || *ran_for > self.policy.stable_after {
                    self.early = None;
                }
            }
            if let Notice::SpawnFailed { .. } = notice {
                self.early = None;
            }
        }
        Ok(())
    }

    fn check_rest(&self, machine: &Machine, truth: &Truth) -> Outcome {
        let state = machine.state();
        let starting = matches!(state, State::Starting { .. });
        let busy = starting || truth.process.is_some();
        self.demand(Rule::NoDeadEnd, !starting || truth.start_pending, || {
            "starting, and nobody works on it".into()
        })?;
        if !busy && self.off != Some(Rule::NoDeadEnd) {
            let mut copy = machine.clone();
            let moved = copy.handle(Event::Resume, truth.now).action.is_some();
            self.demand(Rule::NoDeadEnd, moved, || format!("a dead end: {state:?}"))?;
        }
        let idle = matches!(state, State::Idle { .. });
        self.demand(Rule::WorkIsReached, !(idle && truth.needed), || {
            "idle although there is work".into()
        })
    }

    /// A person resumed a unit without a process: something must happen.
    pub(crate) fn resumed(&self, step: &Step, before: &Before) -> Outcome {
        let busy =
            matches!(before.state, State::Starting { .. }) || before.state.process().is_some();
        self.demand(Rule::NoDeadEnd, busy || step.action.is_some(), || {
            format!("a resume in {:?} did nothing", before.state)
        })
    }
}
