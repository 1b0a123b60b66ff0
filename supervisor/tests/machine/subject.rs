//! A machine, a clock that only tests turn, and a driver that obeys.

use std::time::Duration;

use supervisor::{
    Action, Disposition, Event, Generation, Holder, Machine, Moment, Notice, Policy, SpawnFailure,
    StartReason, State, Step, ValidPolicy,
};

pub(crate) struct Subject {
    pub(crate) machine: Machine,
    pub(crate) now: Moment,
    pub(crate) notices: Vec<Notice>,
    pub(crate) action: Option<Action>,
    next_pid: u32,
}

impl Subject {
    /// The standard policy without jitter, so that pauses are what they are called.
    pub(crate) fn standard() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = Policy::standard();
        policy.jitter = 0.0;
        change(&mut policy);
        Self::of(policy.validate().expect("because the test wants it valid"))
    }

    pub(crate) fn of(policy: ValidPolicy) -> Self {
        let now = Moment::from_secs(1_000);
        Self {
            machine: Machine::new(policy, 1, now),
            now,
            notices: Vec::new(),
            action: None,
            next_pid: 100,
        }
    }

    pub(crate) fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
    }

    pub(crate) fn tell(&mut self, event: Event) {
        let Step { action, notices } = self.machine.handle(event, self.now);
        self.action = action;
        self.notices = notices;
    }

    /// Returns the generation and reason of the start that the last event led to.
    #[track_caller]
    pub(crate) fn start_asked(&self) -> (Generation, StartReason) {
        match &self.action {
            Some(Action::Spawn {
                generation, reason, ..
            }) => (*generation, *reason),
            other => panic!(
                "a start was expected, not {other:?} in {:?}",
                self.machine.state()
            ),
        }
    }

    /// Lets the start that was asked for succeed.
    #[track_caller]
    pub(crate) fn comes_up(&mut self) -> Generation {
        let (generation, _) = self.start_asked();
        self.next_pid += 1;
        self.tell(Event::Spawned {
            generation,
            pid: self.next_pid,
        });
        generation
    }

    #[track_caller]
    pub(crate) fn started() -> Self {
        let mut subject = Self::standard();
        subject.start();
        subject
    }

    #[track_caller]
    pub(crate) fn start(&mut self) {
        self.tell(Event::Start);
        self.comes_up();
    }

    /// Lets the process end after having run for `span`.
    #[track_caller]
    pub(crate) fn ends(&mut self, span: Duration, disposition: Disposition) {
        self.pass(span);
        let (_, generation) = self.machine.state().process().expect("because it runs");
        self.tell(Event::LeaderExited { generation });
        self.tell(Event::Exited {
            generation,
            disposition,
        });
    }

    /// Waits until the machine's deadline and returns how long that was.
    #[track_caller]
    pub(crate) fn waits(&mut self) -> Duration {
        let until = self
            .machine
            .deadline()
            .expect("because it waits for something");
        let pause = until.since(self.now);
        self.now = self.now.max(until);
        self.tell(Event::DeadlineReached);
        pause
    }

    /// Ends with this disposition and comes up again; returns the pause between.
    #[track_caller]
    pub(crate) fn cycles(&mut self, span: Duration, disposition: Disposition) -> Duration {
        self.ends(span, disposition);
        let pause = if self.action.is_some() {
            Duration::ZERO
        } else {
            self.waits()
        };
        self.comes_up();
        pause
    }

    pub(crate) fn crash_number(&self) -> u32 {
        self.machine.explain(self.now).crash.number
    }

    pub(crate) fn state_name(&self) -> &'static str {
        self.machine.state().name()
    }

    pub(crate) fn is_parked(&self) -> bool {
        matches!(self.machine.state(), State::Parked { .. })
    }
}

pub(crate) fn crash() -> Disposition {
    Disposition::Crash {
        reason: "exit code 1".into(),
    }
}

pub(crate) fn dependency() -> Disposition {
    Disposition::Dependency {
        reason: "endpoint is down".into(),
    }
}

pub(crate) fn memory(peak: u64) -> Disposition {
    Disposition::Memory { peak: Some(peak) }
}

pub(crate) fn permanent() -> Disposition {
    Disposition::Permanent {
        reason: "no such key".into(),
    }
}

pub(crate) fn transient() -> SpawnFailure {
    SpawnFailure::Transient {
        reason: "no more processes".into(),
    }
}

pub(crate) fn holder(pid: u32) -> Holder {
    Holder {
        pid,
        start: Some(u64::from(pid) * 10),
        label: "test".into(),
    }
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
