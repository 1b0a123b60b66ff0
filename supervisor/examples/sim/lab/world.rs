//! The world of one unit: its program, its driver, its people, its computer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use supervisor::{
    Action, Disposition, Event, Generation, Holder, Moment, Policy, SpawnFailure, Stamp, State,
};

use super::dice::Dice;
use super::faults::{Brain, Fault};
use super::names;
use super::rules::{Before, Rule, Rules, Truth, Violation};

/// What the program does these days.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mood {
    Healthy,
    Short,
    Crashing,
    Leaking,
    Offline,
    Misconfigured,
    Mixed,
}

const MOODS: [Mood; 7] = [
    Mood::Healthy,
    Mood::Short,
    Mood::Crashing,
    Mood::Leaking,
    Mood::Offline,
    Mood::Misconfigured,
    Mood::Mixed,
];

/// What is going to happen at some moment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Plan {
    /// The driver gets to a start that was handed out.
    MakeStart {
        generation: u64,
        epoch: u64,
    },
    /// The host's answer to it arrives.
    Answer(u64),
    /// The process with this number ends by itself.
    ProcessEnds(u64),
    /// What it left behind is gone.
    ProcessDown(u64),
    ProcessWorks(u64),
    Timer,
    EarlyTimer,
    Person,
    Message,
    HolderComes,
    HolderGoes,
    WatchFails(bool),
    MoodChanges,
    LateWord,
    DaemonRestarts,
}

#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) serial: u64,
    pub(super) generation: Generation,
    pub(super) since: Moment,
    pub(super) disposition: Disposition,
    pub(super) gone: bool,
}

/// How often what occurred, over all worlds.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) events: BTreeMap<&'static str, u64>,
    pub(crate) states: BTreeMap<&'static str, u64>,
    pub(crate) notices: BTreeMap<&'static str, u64>,
    pub(crate) simulated: Duration,
    pub(crate) steps: u64,
}

pub(crate) struct World<'a> {
    pub(super) policy: Policy,
    pub(super) fault: Option<Fault>,
    pub(super) brain: Brain,
    pub(super) rules: Rules,
    pub(super) tally: &'a mut Tally,
    pub(super) dice: Dice,
    pub(super) now: Moment,
    pub(super) wall: Duration,
    pub(super) lived: Duration,
    pub(super) boot: u64,
    pub(super) plans: BinaryHeap<Reverse<(Moment, u64, Plan)>>,
    pub(super) planned: u64,
    pub(super) answers: BTreeMap<u64, Event>,
    pub(super) start_pending: Option<Generation>,
    pub(super) process: Option<Process>,
    pub(super) serial: u64,
    pub(super) holder: Option<(Holder, bool)>,
    pub(super) mood: Mood,
    pub(super) needed: bool,
    pub(super) busy_host: bool,
    /// The last state that was written down, for daemons that die.
    pub(super) saved: Option<(supervisor::Snapshot, Stamp)>,
    pub(super) trace: Option<Vec<String>>,
}

/// Runs one world for so many happenings; returns the rule that broke, if one did,
/// and the story if it was asked for.
pub(crate) fn run(
    seed: u64,
    happenings: u32,
    fault: Option<Fault>,
    off: Option<Rule>,
    tell: bool,
    tally: &mut Tally,
) -> (Result<(), Violation>, Vec<String>) {
    let mut world = World::new(seed, fault, off, tell, tally);
    let mut outcome = Ok(());
    for _ in 0..happenings {
        outcome = world.happen();
        if outcome.is_err() {
            break;
        }
    }
    world.tally.simulated += world.lived;
    let trace = world.trace.take().unwrap_or_default();
    (outcome, trace)
}

impl<'a> World<'a> {
    fn new(
        seed: u64,
        fault: Option<Fault>,
        off: Option<Rule>,
        tell: bool,
        tally: &'a mut Tally,
    ) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(1));
        let mut policy = Policy::standard();
        // Some worlds give up early, so that giving up is met often.
        if dice.one_in(2) {
            policy.crash_hard = 5 + u32::try_from(dice.below(10)).unwrap_or(0);
        }
        if dice.one_in(8) {
            policy.jitter = 0.0;
        }
        let now = Moment::from_secs(100);
        let mut world = Self {
            brain: Brain::new(&policy, fault, seed, now),
            rules: Rules::new(policy.clone(), off),
            policy,
            fault,
            tally,
            dice,
            now,
            wall: Duration::from_secs(1_800_000_000),
            lived: Duration::ZERO,
            boot: 1,
            plans: BinaryHeap::new(),
            planned: 0,
            answers: BTreeMap::new(),
            start_pending: None,
            process: None,
            serial: 0,
            holder: None,
            mood: Mood::Healthy,
            needed: false,
            busy_host: false,
            saved: None,
            trace: tell.then(Vec::new),
        };
        for plan in [
            Plan::Message,
            Plan::Person,
            Plan::MoodChanges,
            Plan::HolderComes,
            Plan::LateWord,
            Plan::DaemonRestarts,
        ] {
            world.plan_again(plan);
        }
        world
    }

    pub(super) fn plan(&mut self, after: Duration, plan: Plan) {
        self.planned += 1;
        self.plans
            .push(Reverse((self.now + after, self.planned, plan)));
    }

    /// Things that come back by themselves, each at its own pace.
    pub(super) fn plan_again(&mut self, plan: Plan) {
        let seconds = match plan {
            Plan::Message => 1_000,
            Plan::Person => 6_000,
            Plan::MoodChanges => 4_000,
            Plan::HolderComes => 5_000,
            Plan::LateWord => 800,
            Plan::DaemonRestarts => 9_000,
            Plan::MakeStart { .. }
            | Plan::Answer(_)
            | Plan::ProcessEnds(_)
            | Plan::ProcessDown(_)
            | Plan::ProcessWorks(_)
            | Plan::Timer
            | Plan::EarlyTimer
            | Plan::HolderGoes
            | Plan::WatchFails(_) => return,
        };
        // Sometimes things come thick and fast.
        let seconds = if self.dice.one_in(4) {
            seconds / 200
        } else {
            seconds
        };
        let after = Duration::from_millis(self.dice.below(seconds * 2_000) + 1);
        self.plan(after, plan);
    }

    fn happen(&mut self) -> Result<(), Violation> {
        let Some(Reverse((at, _, plan))) = self.plans.pop() else {
            return Ok(());
        };
        self.wall += at.since(self.now);
        self.lived += at.since(self.now);
        self.now = self.now.max(at);
        match plan {
            Plan::MakeStart { generation, epoch } => self.make_start(generation, epoch),
            Plan::Answer(generation) => self.answer(generation),
            Plan::ProcessEnds(serial) => self.process_ends(serial),
            Plan::ProcessDown(serial) => self.process_down(serial),
            Plan::ProcessWorks(serial) => {
                if self
                    .process
                    .as_ref()
                    .is_some_and(|p| p.serial == serial && !p.gone)
                {
                    self.needed = false;
                    return self.tell(Event::Progress);
                }
                Ok(())
            }
            Plan::Timer | Plan::EarlyTimer => self.timer(),
            Plan::Person => {
                self.plan_again(Plan::Person);
                self.person()
            }
            Plan::Message => {
                self.plan_again(Plan::Message);
                self.needed = true;
                self.tell(Event::Wake)
            }
            Plan::HolderComes => {
                self.plan_again(Plan::HolderComes);
                if self.holder.is_none() {
                    self.serial += 1;
                    let pid = u32::try_from(1_000 + self.serial).unwrap_or(1_000);
                    let holder = Holder {
                        pid,
                        start: Some(self.serial),
                        label: "tui".into(),
                    };
                    let watchable = self.dice.one_in(2);
                    self.holder = Some((holder, watchable));
                    let stays = Duration::from_secs(self.dice.below(3_000) + 1);
                    self.plan(stays, Plan::HolderGoes);
                }
                Ok(())
            }
            Plan::HolderGoes => {
                let told = self.holder.take().is_some_and(|(_, watchable)| watchable);
                if told || self.dice.one_in(2) {
                    self.tell(Event::HolderGone)
                } else {
                    Ok(())
                }
            }
            Plan::WatchFails(true) => self.tell(Event::HolderGone),
            Plan::WatchFails(false) => self.tell(Event::HolderUnwatchable),
            Plan::MoodChanges => {
                self.plan_again(Plan::MoodChanges);
                self.mood = MOODS[usize::try_from(self.dice.below(7)).unwrap_or(0)];
                self.busy_host = self.dice.one_in(5);
                Ok(())
            }
            Plan::LateWord => {
                self.plan_again(Plan::LateWord);
                let now = self.brain.machine.state().process();
                let late = now
                    .map_or(1, |(_, generation)| generation.0)
                    .saturating_sub(1);
                let disposition = self.ending();
                self.tell(Event::Exited {
                    generation: Generation(late),
                    disposition,
                })
            }
            Plan::DaemonRestarts => {
                self.plan_again(Plan::DaemonRestarts);
                self.daemon_restarts()
            }
        }
    }

    // The driver.

    #[expect(clippy::needless_pass_by_value, reason = "events are told and gone")]
    pub(super) fn tell(&mut self, event: Event) -> Result<(), Violation> {
        let before = Before::of(&self.brain.machine, self.now);
        let step = self.brain.handle(event.clone(), self.now);
        let state = self.brain.machine.state().clone();
        *self.tally.events.entry(names::event(&event)).or_default() += 1;
        *self.tally.states.entry(state.name()).or_default() += 1;
        for notice in &step.notices {
            *self.tally.notices.entry(names::notice(notice)).or_default() += 1;
        }
        self.tally.steps += 1;
        if let Some(trace) = &mut self.trace {
            trace.push(format!(
                "{} {event:?} → {state:?} {:?} {:?}",
                self.now, step.action, step.notices
            ));
        }
        if let Event::Adopted { .. } = event
            && let (Some(process), Some((_, generation))) = (&mut self.process, state.process())
        {
            process.generation = generation;
        }
        if let Some(pending) = self.start_pending
            && !matches!(state, State::Starting { generation, .. } if generation == pending)
        {
            self.start_pending = None;
        }
        match &step.action {
            Some(Action::Spawn {
                generation, epoch, ..
            }) => {
                self.start_pending = Some(*generation);
                let after = Duration::from_micros(self.dice.below(5_000));
                self.plan(
                    after,
                    Plan::MakeStart {
                        generation: generation.0,
                        epoch: epoch.0,
                    },
                );
            }
            Some(Action::Terminate { generation }) => {
                let within = self.dice.below(10_000);
                self.ends_within(*generation, Duration::from_millis(within));
            }
            Some(Action::Kill { generation }) => {
                self.ends_within(*generation, Duration::from_millis(1));
            }
            Some(Action::Watch { holder }) => {
                let lives = self.holder.as_ref().is_some_and(|(h, _)| h == holder);
                // A few holders turn out not to be watchable after all.
                if !lives {
                    self.plan(Duration::ZERO, Plan::WatchFails(true));
                } else if self.dice.one_in(8) {
                    self.plan(Duration::ZERO, Plan::WatchFails(false));
                }
            }
            None => {}
        }
        self.check(&event, &before, &step)?;
        if event == Event::Resume {
            self.rules.resumed(&step, &before)?;
        }
        self.plan_timer();
        if self.dice.one_in(10) {
            self.save();
        }
        Ok(())
    }

    fn check(
        &mut self,
        event: &Event,
        before: &Before,
        step: &supervisor::Step,
    ) -> Result<(), Violation> {
        let truth = Truth {
            now: self.now,
            process: self.process.as_ref().map(|process| process.generation),
            start_pending: self.start_pending.is_some(),
            needed: self.needed,
        };
        self.rules
            .seen(event, before, step, &self.brain.machine, &truth)
    }

    pub(super) fn plan_timer(&mut self) {
        if let Some(at) = self.brain.machine.deadline() {
            let exact = at.since(self.now);
            if self.dice.one_in(4) {
                let early = exact.saturating_sub(Duration::from_micros(self.dice.below(2_000)));
                self.plan(early, Plan::EarlyTimer);
            }
            let late = Duration::from_micros(self.dice.below(1_000));
            self.plan(exact + late, Plan::Timer);
        }
    }

    fn timer(&mut self) -> Result<(), Violation> {
        // A timer of an earlier pause has nothing to say, except for clocks that
        // are a little ahead.
        let near = self.now + Duration::from_millis(3);
        if self.brain.machine.deadline().is_some_and(|at| at <= near) {
            return self.tell(Event::DeadlineReached);
        }
        Ok(())
    }

    fn make_start(&mut self, generation: u64, epoch: u64) -> Result<(), Violation> {
        let generation = Generation(generation);
        if self.start_pending != Some(generation) || self.brain.machine.epoch().0 != epoch {
            return Ok(());
        }
        let roll = self.dice.below(200);
        let answer = if let Some((holder, watchable)) = self.holder.clone() {
            Event::Held {
                generation,
                holder,
                watchable,
            }
        } else if self.busy_host && roll < 100 {
            let after = Duration::from_millis(self.dice.below(3_000));
            Event::NotNow {
                generation,
                reason: "busy".into(),
                after,
            }
        } else if !self.needed && !self.dice.one_in(3) {
            Event::NotNeeded { generation }
        } else if roll < 2 {
            let failure = SpawnFailure::Permanent {
                reason: "missing".into(),
            };
            Event::SpawnFailed {
                generation,
                failure,
            }
        } else if roll < 8 {
            let failure = SpawnFailure::Transient {
                reason: "full".into(),
            };
            Event::SpawnFailed {
                generation,
                failure,
            }
        } else {
            self.create(generation)?;
            return Ok(());
        };
        // The answer may be late, and older than what happens meanwhile.
        self.answers.insert(generation.0, answer);
        let after = Duration::from_millis(self.dice.below(30));
        self.plan(after, Plan::Answer(generation.0));
        Ok(())
    }

    fn answer(&mut self, generation: u64) -> Result<(), Violation> {
        match self.answers.remove(&generation) {
            Some(event) => self.tell(event),
            None => Ok(()),
        }
    }

    fn create(&mut self, generation: Generation) -> Result<(), Violation> {
        let truth = Truth {
            now: self.now,
            process: self.process.as_ref().map(|process| process.generation),
            start_pending: true,
            needed: self.needed,
        };
        self.rules.creating(&truth)?;
        self.serial += 1;
        let serial = self.serial;
        let disposition = self.ending();
        self.process = Some(Process {
            serial,
            generation,
            since: self.now,
            disposition,
            gone: false,
        });
        let lives = self.lifetime();
        self.plan(lives, Plan::ProcessEnds(serial));
        if self.dice.one_in(3) {
            self.plan(lives.mul_f64(0.5), Plan::ProcessWorks(serial));
        }
        let pid = u32::try_from(serial).unwrap_or(1);
        self.tell(Event::Spawned { generation, pid })
    }

    fn lifetime(&mut self) -> Duration {
        let seconds = match self.mood {
            Mood::Healthy => self.dice.below(4_000) + 1,
            Mood::Mixed => self.dice.below(600),
            Mood::Leaking => self.dice.below(100),
            Mood::Short | Mood::Crashing | Mood::Offline | Mood::Misconfigured => {
                self.dice.below(3)
            }
        };
        Duration::from_secs(seconds) + Duration::from_millis(self.dice.below(1_000))
    }

    fn ending(&mut self) -> Disposition {
        let crash = || Disposition::Crash {
            reason: "exit code 1".into(),
        };
        let usual = match self.mood {
            Mood::Healthy | Mood::Short => Disposition::Clean,
            Mood::Crashing => crash(),
            Mood::Leaking => Disposition::Memory {
                peak: Some(1 << 33),
            },
            Mood::Offline => Disposition::Dependency {
                reason: "down".into(),
            },
            Mood::Misconfigured => Disposition::Permanent {
                reason: "no key".into(),
            },
            Mood::Mixed => match self.dice.below(8) {
                0 => Disposition::IdleLeft,
                1 => Disposition::Released,
                2 => Disposition::Requested,
                3 => Disposition::ExternalStop {
                    reason: "SIGTERM".into(),
                },
                4 => Disposition::Finished,
                5 => match &self.holder {
                    Some((holder, watchable)) => Disposition::Contention {
                        holder: holder.clone(),
                        watchable: *watchable,
                    },
                    None => Disposition::Clean,
                },
                6 => crash(),
                _ => Disposition::Clean,
            },
        };
        if self.dice.one_in(30) { crash() } else { usual }
    }

    fn ends_within(&mut self, generation: Generation, within: Duration) {
        if let Some(process) = &self.process
            && process.generation == generation
            && !process.gone
        {
            let serial = process.serial;
            self.plan(within, Plan::ProcessEnds(serial));
        }
    }

    fn process_ends(&mut self, serial: u64) -> Result<(), Violation> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        if process.serial != serial || process.gone {
            return Ok(());
        }
        process.gone = true;
        let generation = process.generation;
        let leftovers = if self.dice.one_in(4) {
            self.dice.below(3_000)
        } else {
            0
        };
        self.plan(Duration::from_millis(leftovers), Plan::ProcessDown(serial));
        self.tell(Event::LeaderExited { generation })
    }

    fn process_down(&mut self, serial: u64) -> Result<(), Violation> {
        let down = self.process.take_if(|process| process.serial == serial);
        let Some(process) = down else { return Ok(()) };
        let Process {
            generation,
            disposition,
            ..
        } = process;
        // What it was doing is done, unless it failed.
        // One that ends again and again has somebody who waits for it.
        let done = matches!(disposition, Disposition::Clean | Disposition::IdleLeft);
        if done && !matches!(self.mood, Mood::Short) {
            self.needed = false;
        }
        self.tell(Event::Exited {
            generation,
            disposition,
        })
    }

    // People.

    fn person(&mut self) -> Result<(), Violation> {
        let event = match self.dice.below(8) {
            0 | 1 => Event::Stop,
            2 => Event::Kill,
            3 => Event::Restart,
            4 => Event::ConfigChanged,
            5 => Event::Start,
            _ => Event::Resume,
        };
        if matches!(event, Event::Start | Event::Resume) {
            self.needed = true;
            if let Mood::Misconfigured = self.mood {
                self.mood = Mood::Healthy;
            }
        }
        self.tell(event)
    }
}
