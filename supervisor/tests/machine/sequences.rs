//! All sequences of events up to a length, with what must hold after each.

use std::time::Duration;

use supervisor::{
    Action, Disposition, Event, Generation, Machine, Moment, Policy, SpawnFailure, State, Step,
};

use crate::subject::{crash, dependency, holder, memory, permanent};

const DEPTH: u32 = 6;

/// What can happen next, in terms of what the machine last said.
#[derive(Clone, Copy, Debug)]
enum Move {
    Start,
    Stop,
    Kill,
    Restart,
    Resume,
    Wake,
    ConfigChanged,
    HolderGone,
    TimePasses,
    TimerFiresEarly,
    ComesUp,
    FailsForNow,
    FailsForGood,
    IsHeld,
    IsHeldUnwatched,
    NotNeeded,
    Progress,
    LateExit,
    Crashes,
    EndsClean,
    LeavesOnMemory,
    LosesDependency,
    EndsPermanently,
    FindsPlaceTaken,
    Adopted,
}

const MOVES: [Move; 25] = [
    Move::Start,
    Move::Stop,
    Move::Kill,
    Move::Restart,
    Move::Resume,
    Move::Wake,
    Move::ConfigChanged,
    Move::HolderGone,
    Move::TimePasses,
    Move::TimerFiresEarly,
    Move::ComesUp,
    Move::FailsForNow,
    Move::FailsForGood,
    Move::IsHeld,
    Move::IsHeldUnwatched,
    Move::NotNeeded,
    Move::Progress,
    Move::LateExit,
    Move::Crashes,
    Move::EndsClean,
    Move::LeavesOnMemory,
    Move::LosesDependency,
    Move::EndsPermanently,
    Move::FindsPlaceTaken,
    Move::Adopted,
];

#[derive(Clone)]
struct World {
    machine: Machine,
    now: Moment,
    /// The start that was handed out and is still in force.
    start: Option<Generation>,
    /// The one process that exists.
    process: Option<Generation>,
    /// Whether the last wish of a person was that it be down.
    wanted_down: bool,
    path: Vec<Move>,
}

impl World {
    /// Returns the event that this move is here, or `None` if it cannot happen.
    fn event(&mut self, choice: Move) -> Option<Event> {
        let starting = self.start;
        let running = self.process;
        let exit = |disposition| {
            running.map(|generation| Event::Exited {
                generation,
                disposition,
            })
        };
        match choice {
            Move::Start => Some(Event::Start),
            Move::Stop => Some(Event::Stop),
            Move::Kill => Some(Event::Kill),
            Move::Restart => Some(Event::Restart),
            Move::Resume => Some(Event::Resume),
            Move::Wake => Some(Event::Wake),
            Move::ConfigChanged => Some(Event::ConfigChanged),
            Move::HolderGone => Some(Event::HolderGone),
            Move::TimePasses => {
                self.now = self
                    .machine
                    .deadline()
                    .map_or(self.now, |at| at.max(self.now));
                Some(Event::DeadlineReached)
            }
            Move::TimerFiresEarly => Some(Event::DeadlineReached),
            Move::ComesUp => starting.map(|generation| Event::Spawned { generation, pid: 9 }),
            Move::FailsForNow => starting.map(|generation| Event::SpawnFailed {
                generation,
                failure: SpawnFailure::Transient {
                    reason: String::new(),
                },
            }),
            Move::FailsForGood => starting.map(|generation| Event::SpawnFailed {
                generation,
                failure: SpawnFailure::Permanent {
                    reason: String::new(),
                },
            }),
            Move::IsHeld => starting.map(|generation| Event::Held {
                generation,
                holder: holder(5),
                watchable: true,
            }),
            Move::IsHeldUnwatched => starting.map(|generation| Event::Held {
                generation,
                holder: holder(6),
                watchable: false,
            }),
            Move::NotNeeded => starting.map(|generation| Event::NotNeeded { generation }),
            Move::Progress => Some(Event::Progress),
            Move::LateExit => {
                let late = running.map_or(0, |generation| generation.0.saturating_sub(1));
                Some(Event::Exited {
                    generation: Generation(late),
                    disposition: crash(),
                })
            }
            Move::Crashes => exit(crash()),
            Move::EndsClean => exit(Disposition::Clean),
            Move::LeavesOnMemory => exit(memory(1)),
            Move::LosesDependency => exit(dependency()),
            Move::EndsPermanently => exit(permanent()),
            Move::FindsPlaceTaken => exit(Disposition::Contention {
                holder: holder(5),
                watchable: true,
            }),
            Move::Adopted => (running.is_none()).then_some(Event::Adopted {
                pid: 8,
                since: self.now,
            }),
        }
    }

    /// Lets it happen. Returns false if it cannot, or if it changed nothing: what
    /// could follow is then walked without it.
    fn step(&mut self, choice: Move) -> bool {
        let before = self.machine.clone();
        let deadline = before.deadline();
        let Some(event) = self.event(choice) else {
            return false;
        };
        self.path.push(choice);
        if matches!(event, Event::Stop | Event::Kill) {
            self.wanted_down = true;
        }
        if matches!(
            event,
            Event::Start | Event::Restart | Event::Resume | Event::Adopted { .. }
        ) {
            self.wanted_down = false;
        }
        if let Event::Spawned { generation, .. } = &event {
            self.process = Some(*generation);
        }
        if let Event::Exited { generation, .. } = &event
            && Some(*generation) == self.process
        {
            self.process = None;
        }
        let answers = matches!(
            event,
            Event::Spawned { .. }
                | Event::SpawnFailed { .. }
                | Event::Held { .. }
                | Event::NotNeeded { .. }
        );
        if answers {
            self.start = None;
        }
        let late = matches!(choice, Move::LateExit);
        let Step { action, notices } = self.machine.handle(event, self.now);
        if let (Move::Adopted, Some((_, generation))) = (choice, self.machine.state().process()) {
            self.process = Some(generation);
        }
        // A driver drops starts whose epoch is no longer in force.
        if self.machine.epoch() != before.epoch() {
            self.start = None;
        }
        match &action {
            Some(Action::Spawn {
                generation, epoch, ..
            }) => {
                assert_eq!(*epoch, self.machine.epoch(), "{:?}", self.path);
                assert_eq!(self.process, None, "a second process: {:?}", self.path);
                assert!(!self.wanted_down, "started against a stop: {:?}", self.path);
                let fired = matches!(choice, Move::TimePasses | Move::TimerFiresEarly);
                assert!(
                    !fired || deadline.is_some_and(|at| at <= self.now),
                    "{:?}",
                    self.path
                );
                self.start = Some(*generation);
            }
            Some(Action::Terminate { generation } | Action::Kill { generation }) => {
                assert_eq!(
                    Some(*generation),
                    self.process,
                    "a stranger: {:?}",
                    self.path
                );
            }
            Some(Action::Watch { .. }) | None => {}
        }
        if late {
            assert_eq!(self.machine.state(), before.state(), "{:?}", self.path);
        }
        self.check();
        // These leave a mark that only shows later.
        let marks = matches!(choice, Move::Progress | Move::Wake) && !silent_state(before.state());
        marks
            || action.is_some()
            || !notices.is_empty()
            || self.machine.epoch() != before.epoch()
            || self.machine.state() != before.state()
    }

    fn check(&self) {
        let path = &self.path;
        let state = self.machine.state();
        assert_eq!(
            state.process().map(|(_, generation)| generation),
            self.process,
            "{path:?}"
        );
        let starting = matches!(state, State::Starting { .. });
        assert_eq!(
            starting,
            self.start.is_some(),
            "nobody works on it: {state:?} {path:?}"
        );
        // No dead end: a person's resume gets a start or there is a process.
        let mut copy = self.machine.clone();
        let resumed = copy.handle(Event::Resume, self.now).action.is_some();
        let busy = starting || self.process.is_some();
        assert!(resumed || busy, "a dead end: {state:?} {path:?}");
        if let Some(until) = self.machine.deadline() {
            assert!(
                until > self.now || matches!(state, State::Backoff { .. }),
                "{path:?}"
            );
            let pause = until.since(self.now);
            assert!(
                pause <= Duration::from_secs(660),
                "waits for ever: {pause:?} {path:?}"
            );
        }
    }
}

/// States in which neither finished work nor new work is noted.
fn silent_state(state: &State) -> bool {
    !matches!(state, State::Running { .. } | State::Starting { .. })
}

fn walk(world: &World, depth: u32, walked: &mut u64) {
    for choice in MOVES {
        let mut next = world.clone();
        *walked += 1;
        if next.step(choice) && depth > 1 {
            walk(&next, depth - 1, walked);
        }
    }
}

#[test]
fn every_sequence_of_six_events_keeps_one_process_obeys_stops_and_has_a_way_on() {
    let policy = Policy::standard().validate().unwrap();
    let now = Moment::from_secs(100);
    let world = World {
        machine: Machine::new(policy, 1, now),
        now,
        start: None,
        process: None,
        wanted_down: false,
        path: Vec::new(),
    };
    let mut walked = 0;
    walk(&world, DEPTH, &mut walked);
    println!("{walked} sequences");
    assert!(walked > 1_000_000, "only {walked} sequences were walked");
}
