//! Machines that are broken on purpose, one for each rule.

use std::time::Duration;

use supervisor::{
    AfterStop, Disposition, Event, Machine, Moment, Notice, Policy, Snapshot, Stamp, State, Step,
    ValidPolicy,
};

use super::rules::Rule;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    RestartsWithoutWaiting,
    ForgetsStopsInAPause,
    StartsOnALateWord,
    FiresTimersEarly,
    CrashPauseTooShort,
    NeverDegrades,
    NeverGivesUp,
    CleanIsACrash,
    CleanBudgetUnlimited,
    MemoryPauseTooShort,
    DependencyPauseTooShort,
    ProbesTooOften,
    StartsAgainstAHolder,
    WakesTheDegraded,
    RetriesThePermanent,
    DeafWhenParked,
    AnnouncesEachTime,
    MissesWorkWhileStarting,
    ForgetsItsPauseOnRestore,
    ForgivesWithEveryStart,
}

impl Fault {
    pub(crate) const ALL: [(Self, Rule); 20] = [
        (Self::RestartsWithoutWaiting, Rule::OneProcess),
        (Self::ForgetsStopsInAPause, Rule::StopIsObeyed),
        (Self::StartsOnALateWord, Rule::LateWordsChangeNothing),
        (Self::FiresTimersEarly, Rule::TimersAreNotEarly),
        (Self::CrashPauseTooShort, Rule::CrashPause),
        (Self::NeverDegrades, Rule::CrashRate),
        (Self::NeverGivesUp, Rule::CrashLimit),
        (Self::CleanIsACrash, Rule::OnlyCrashesAreCrashes),
        (Self::CleanBudgetUnlimited, Rule::CleanBudget),
        (Self::MemoryPauseTooShort, Rule::MemoryPause),
        (Self::DependencyPauseTooShort, Rule::DependencyPause),
        (Self::ProbesTooOften, Rule::ContentionLadder),
        (Self::StartsAgainstAHolder, Rule::NoAttemptAgainstAHolder),
        (Self::WakesTheDegraded, Rule::EarlyWakes),
        (Self::RetriesThePermanent, Rule::PermanentParks),
        (Self::DeafWhenParked, Rule::NoDeadEnd),
        (Self::AnnouncesEachTime, Rule::AnnouncedOnce),
        (Self::MissesWorkWhileStarting, Rule::WorkIsReached),
        (Self::ForgetsItsPauseOnRestore, Rule::RestoreKeeps),
        (Self::ForgivesWithEveryStart, Rule::Forgiveness),
    ];

    fn bend(self, policy: &mut Policy) {
        match self {
            Self::CrashPauseTooShort => policy.backoff_first = Duration::from_millis(200),
            Self::NeverDegrades => {
                policy.crash_soft = 10_000;
                policy.unsafe_no_backoff = true;
            }
            Self::NeverGivesUp => policy.crash_hard = 0,
            Self::CleanBudgetUnlimited => {
                policy.clean_budget = 10_000;
                policy.unsafe_no_backoff = true;
            }
            Self::MemoryPauseTooShort => policy.memory_pause = Duration::from_secs(1),
            Self::DependencyPauseTooShort => policy.dependency_first = Duration::from_secs(1),
            Self::ProbesTooOften => policy.contention_pauses = vec![Duration::from_secs(1); 5],
            Self::RestartsWithoutWaiting
            | Self::ForgetsStopsInAPause
            | Self::StartsOnALateWord
            | Self::FiresTimersEarly
            | Self::CleanIsACrash
            | Self::StartsAgainstAHolder
            | Self::WakesTheDegraded
            | Self::RetriesThePermanent
            | Self::DeafWhenParked
            | Self::AnnouncesEachTime
            | Self::MissesWorkWhileStarting
            | Self::ForgetsItsPauseOnRestore
            | Self::ForgivesWithEveryStart => {}
        }
    }
}

/// A machine, sound or broken.
#[derive(Clone, Debug)]
pub(crate) struct Brain {
    pub(crate) machine: Machine,
    fault: Option<Fault>,
}

impl Brain {
    pub(crate) fn new(policy: &Policy, fault: Option<Fault>, seed: u64, now: Moment) -> Self {
        Self {
            machine: Machine::new(valid(policy, fault), seed, now),
            fault,
        }
    }

    pub(crate) fn handle(&mut self, event: Event, now: Moment) -> Step {
        let Some(fault) = self.fault else {
            return self.machine.handle(event, now);
        };
        let state = self.machine.state().clone();
        let bent = self.bent(fault, event, &state, now);
        let Some(event) = bent else {
            return Step::default();
        };
        let spawned = matches!(event, Event::Spawned { .. });
        let mut step = self.machine.handle(event, now);
        let crashes_only = self.machine.explain(now).dependency == 0;
        if fault == Fault::ForgivesWithEveryStart && spawned && crashes_only {
            drop(self.machine.handle(Event::Progress, now));
        }
        if fault == Fault::AnnouncesEachTime
            && let State::Degraded { number, .. } = self.machine.state()
        {
            let window = self.machine.policy().crash_window;
            let pace = self.machine.policy().backoff_cap;
            let number = *number;
            step.notices.push(Notice::Degraded {
                number,
                in_window: number,
                window,
                pace,
            });
        }
        step
    }

    /// Returns what the broken machine makes of an event; `None` if it is deaf to it.
    fn bent(&self, fault: Fault, event: Event, state: &State, now: Moment) -> Option<Event> {
        let own = state.process().map(|(_, generation)| generation);
        match (fault, event) {
            (Fault::RestartsWithoutWaiting, Event::Restart) => {
                let disposition = Disposition::Requested;
                Some(own.map_or(Event::Restart, |generation| Event::Exited {
                    generation,
                    disposition,
                }))
            }
            (Fault::ForgetsStopsInAPause, Event::Stop | Event::Kill)
                if matches!(state, State::Backoff { .. }) =>
            {
                None
            }
            (Fault::StartsOnALateWord, Event::Exited { generation, .. })
                if own != Some(generation) && matches!(state, State::Backoff { .. }) =>
            {
                Some(Event::ConfigChanged)
            }
            (
                Fault::CleanIsACrash,
                Event::Exited {
                    generation,
                    disposition: Disposition::Clean,
                },
            ) => {
                let disposition = Disposition::Crash {
                    reason: "code 0".into(),
                };
                Some(Event::Exited {
                    generation,
                    disposition,
                })
            }
            (
                Fault::RetriesThePermanent,
                Event::Exited {
                    generation,
                    disposition,
                },
            ) => {
                let disposition = match disposition {
                    Disposition::Permanent { reason } => Disposition::Dependency { reason },
                    sound @ (Disposition::Clean
                    | Disposition::Requested
                    | Disposition::Released
                    | Disposition::IdleLeft
                    | Disposition::Finished
                    | Disposition::ExternalStop { .. }
                    | Disposition::Memory { .. }
                    | Disposition::Contention { .. }
                    | Disposition::Dependency { .. }
                    | Disposition::Crash { .. }) => sound,
                };
                Some(Event::Exited {
                    generation,
                    disposition,
                })
            }
            (Fault::StartsAgainstAHolder, Event::Wake) if matches!(state, State::Held { .. }) => {
                Some(Event::HolderGone)
            }
            (Fault::WakesTheDegraded, Event::Wake) if matches!(state, State::Degraded { .. }) => {
                Some(Event::ConfigChanged)
            }
            (Fault::DeafWhenParked, Event::Resume) if matches!(state, State::Parked { .. }) => None,
            (Fault::MissesWorkWhileStarting, Event::Wake)
                if matches!(state, State::Starting { .. }) =>
            {
                None
            }
            (Fault::FiresTimersEarly, Event::DeadlineReached)
                if self.machine.deadline().is_some_and(|at| at > now) =>
            {
                // It fires now what it should fire then.
                Some(Event::ConfigChanged)
            }
            (_, event) => Some(event),
        }
    }

    pub(crate) fn restore(
        saved: Snapshot,
        policy: &Policy,
        fault: Option<Fault>,
        now: &Stamp,
    ) -> Self {
        let pauses = matches!(
            saved.state(),
            State::Backoff { .. } | State::Degraded { .. } | State::Contended { .. }
        );
        let stays_down = matches!(
            saved.state(),
            State::Stopping {
                then: AfterStop::StayDown,
                ..
            }
        );
        let mut machine = saved
            .restore(valid(policy, fault), now)
            .expect("because this version wrote it");
        if fault == Some(Fault::ForgetsItsPauseOnRestore) && pauses && !stays_down {
            drop(machine.handle(Event::ConfigChanged, now.at));
            if let State::Starting { generation, .. } = machine.state() {
                let generation = *generation;
                drop(machine.handle(Event::NotNeeded { generation }, now.at));
            }
        }
        Self { machine, fault }
    }
}

fn valid(policy: &Policy, fault: Option<Fault>) -> ValidPolicy {
    let mut policy = policy.clone();
    if let Some(fault) = fault {
        fault.bend(&mut policy);
    }
    policy
        .validate()
        .expect("because both the sound and the bent ones are valid")
}
