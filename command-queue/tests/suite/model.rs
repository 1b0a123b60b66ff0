//! Random operations against a model that is too simple to be wrong: lists, searched from the front.
//!
//! What is compared after every operation: which task starts, what is decided about whom, every count, and
//! that each accepted task is in exactly one place.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use command_queue::{
    Capacity, Claim, Close, Decision, IdleLimit, LaneConfig, LaneSnapshot, Lease, Limit, Outcome,
    Overrun, Priority, Queue, SubmitOptions, Totals,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::common::now;

const LANES: usize = 3;
const CEILING: u64 = 100;
const GRACE: u64 = 10;
const AGEING: u64 = 30;
const MAX_PHANTOMS: usize = 1;
const ALL_PHANTOMS: usize = 2;

#[derive(Clone, Debug)]
enum Op {
    Submit {
        lane: usize,
        priority: u8,
        budget: Option<u64>,
        queue_limit: Option<u64>,
    },
    Claim,
    Finish {
        which: usize,
        outcome: u8,
    },
    Renew {
        which: usize,
    },
    Cancel {
        which: usize,
    },
    Pass {
        span: u64,
    },
    Width {
        lane: usize,
        width: usize,
    },
    Pause {
        lane: usize,
        paused: bool,
    },
    Clear {
        lane: usize,
    },
    Reset {
        lane: usize,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let lane = 0..LANES;
    let op = prop_oneof![
        8 => (lane.clone(), 0..3_u8, prop::option::weighted(0.2, 1..200_u64), prop::option::weighted(0.2, 1..80_u64))
            .prop_map(|(lane, priority, budget, queue_limit)| Op::Submit { lane, priority, budget, queue_limit }),
        8 => Just(Op::Claim),
        6 => (any::<usize>(), 0..4_u8).prop_map(|(which, outcome)| Op::Finish { which, outcome }),
        3 => any::<usize>().prop_map(|which| Op::Renew { which }),
        2 => any::<usize>().prop_map(|which| Op::Cancel { which }),
        4 => (0..60_u64).prop_map(|span| Op::Pass { span }),
        1 => (lane.clone(), 0..4_usize).prop_map(|(lane, width)| Op::Width { lane, width }),
        1 => (lane.clone(), any::<bool>()).prop_map(|(lane, paused)| Op::Pause { lane, paused }),
        1 => lane.clone().prop_map(|lane| Op::Clear { lane }),
        1 => lane.prop_map(|lane| Op::Reset { lane }),
    ];
    prop::collection::vec(op, 1..400)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Live,
    Cancelling { until: u64 },
    Kept,
    Freed,
}

#[derive(Clone, Debug)]
struct Running {
    number: u32,
    started: u64,
    progress: u64,
    budget: Option<u64>,
    stage: Stage,
}

#[derive(Clone, Debug)]
struct Waiting {
    number: u32,
    since: u64,
    priority: u8,
    budget: Option<u64>,
    until: Option<u64>,
}

#[derive(Default)]
struct Lane {
    width: usize,
    paused: bool,
    hold: bool,
    capacity: Option<usize>,
    waiting: Vec<Waiting>,
    running: Vec<Running>,
    totals: Totals,
}

impl Lane {
    fn occupied(&self) -> usize {
        self.running
            .iter()
            .filter(|task| task.stage != Stage::Freed)
            .count()
    }

    fn ready(&self) -> bool {
        !self.paused && !self.waiting.is_empty() && self.occupied() < self.width
    }

    /// The task whose turn it is: the highest tier after ageing, then the oldest.
    fn turn(&self, now: u64) -> usize {
        let tier = |task: &Waiting| (u64::from(task.priority) + (now - task.since) / AGEING).min(2);
        let best = self
            .waiting
            .iter()
            .map(tier)
            .max()
            .expect("something waits");
        self.waiting
            .iter()
            .position(|task| tier(task) == best)
            .expect("it is among them")
    }
}

/// The model and the queue, side by side.
struct Pair {
    queue: Queue<u32>,
    start: Instant,
    now: u64,
    lanes: Vec<Lane>,
    /// Which lanes have a turn coming, in order.
    ready: Vec<usize>,
    leases: Vec<(usize, u32, Lease)>,
    ids: Vec<(usize, u32, command_queue::TaskId)>,
    next: u32,
    /// How often each task's caller was answered.
    answers: HashMap<u32, u32>,
    started: HashMap<u32, u32>,
}

fn name(lane: usize) -> String {
    format!("lane-{lane}")
}

fn ticks(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl Pair {
    fn new() -> Self {
        let mut queue = Queue::new(LaneConfig::serial(), ALL_PHANTOMS);
        let mut lanes = Vec::new();
        for lane in 0..LANES {
            let width = lane + 1;
            let hold = lane == 1;
            let capacity = (lane == 2).then_some(5);
            let config = LaneConfig {
                width,
                stall_ceiling: Limit::After(ticks(CEILING)),
                cancel_grace: ticks(GRACE),
                overrun: if hold { Overrun::Hold } else { Overrun::Free },
                max_phantoms: MAX_PHANTOMS,
                capacity: capacity.map_or(Capacity::Unbounded, Capacity::Bounded),
                ageing: ticks(AGEING),
                ..LaneConfig::serial()
            };
            queue
                .configure_lane(&name(lane), config)
                .expect("no group is named");
            lanes.push(Lane {
                width,
                hold,
                capacity,
                ..Lane::default()
            });
        }
        Self {
            queue,
            start: now(),
            now: 0,
            lanes,
            ready: Vec::new(),
            leases: Vec::new(),
            ids: Vec::new(),
            next: 0,
            answers: HashMap::new(),
            started: HashMap::new(),
        }
    }

    fn at(&self) -> Instant {
        self.start + ticks(self.now)
    }

    fn answer(&mut self, number: u32) {
        *self.answers.entry(number).or_default() += 1;
    }

    /// A lane gets in line when it has something to start and is not in line yet.
    fn line_up(&mut self) {
        for lane in 0..LANES {
            if self.lanes[lane].ready() && !self.ready.contains(&lane) {
                self.ready.push(lane);
            }
        }
    }

    fn phantoms(&self) -> usize {
        // A kept task's thread is lost as well, if the budget had a unit for it; counted in `spent`.
        self.lanes
            .iter()
            .flat_map(|lane| &lane.running)
            .filter(|task| task.stage == Stage::Freed)
            .count()
    }

    fn apply(&mut self, op: &Op) -> Result<(), TestCaseError> {
        match *op {
            Op::Submit {
                lane,
                priority,
                budget,
                queue_limit,
            } => self.submit(lane, priority, budget, queue_limit)?,
            Op::Claim => self.claim()?,
            Op::Finish { which, outcome } => self.finish(which, outcome)?,
            Op::Renew { which } => {
                if !self.leases.is_empty() {
                    let which = which % self.leases.len();
                    let (lane, number, lease) = &self.leases[which];
                    let at = self.start + ticks(self.now);
                    let renewed = self.queue.renew(lease.ticket(), at).is_ok();
                    let now = self.now;
                    let task = self.lanes[*lane]
                        .running
                        .iter_mut()
                        .find(|task| task.number == *number);
                    let live = task.filter(|task| task.stage == Stage::Live);
                    prop_assert_eq!(renewed, live.is_some());
                    if let Some(task) = live {
                        task.progress = now;
                    }
                }
            }
            Op::Cancel { which } => {
                if !self.ids.is_empty() {
                    let (lane, number, id) = self.ids[which % self.ids.len()];
                    let removed = self.queue.cancel(id).map(|item| *item);
                    let model = &mut self.lanes[lane];
                    let at = model.waiting.iter().position(|task| task.number == number);
                    prop_assert_eq!(removed, at.map(|_| number));
                    if let Some(at) = at {
                        model.waiting.remove(at);
                        model.totals.cancelled += 1;
                        self.answer(number);
                    }
                }
            }
            Op::Pass { span } => {
                self.now += span;
                self.reclaim()?;
            }
            Op::Width { lane, width } => {
                self.queue.set_width(&name(lane), width);
                self.lanes[lane].width = width;
            }
            Op::Pause { lane, paused } => {
                if paused {
                    self.queue.pause(&name(lane));
                } else {
                    self.queue.resume(&name(lane));
                }
                self.lanes[lane].paused = paused;
            }
            Op::Clear { lane } => {
                let cleared: Vec<u32> = self
                    .queue
                    .clear(&name(lane))
                    .iter()
                    .map(|item| **item)
                    .collect();
                let model = &mut self.lanes[lane];
                let expected: Vec<u32> = model.waiting.drain(..).map(|task| task.number).collect();
                model.totals.cleared += expected.len() as u64;
                prop_assert_eq!(&cleared, &expected);
                for number in expected {
                    self.answer(number);
                }
            }
            Op::Reset { lane } => self.reset(lane)?,
        }
        self.line_up();
        self.compare()
    }

    fn submit(
        &mut self,
        lane: usize,
        priority: u8,
        budget: Option<u64>,
        queue_limit: Option<u64>,
    ) -> Result<(), TestCaseError> {
        let limit = |span: Option<u64>| span.map_or(Limit::Never, |span| Limit::After(ticks(span)));
        let options = SubmitOptions {
            priority: [Priority::Background, Priority::Normal, Priority::Foreground]
                [usize::from(priority)],
            budget: limit(budget),
            idle: IdleLimit::LaneCeiling,
            queue_limit: limit(queue_limit),
            ..SubmitOptions::normal()
        };
        let number = self.next;
        let submitted = self.queue.submit(&name(lane), &options, number, self.at());
        let now = self.now;
        let model = &mut self.lanes[lane];
        let starts = model.waiting.is_empty() && !model.paused && model.occupied() < model.width;
        let room = model
            .capacity
            .is_none_or(|capacity| model.waiting.len() < capacity || starts);
        prop_assert_eq!(submitted.is_ok(), room);
        let Ok(id) = submitted else {
            model.totals.refused += 1;
            return Ok(());
        };
        self.next += 1;
        model.totals.submitted += 1;
        model.waiting.push(Waiting {
            number,
            since: now,
            priority,
            budget,
            until: queue_limit.map(|span| now + span),
        });
        self.ids.push((lane, number, id));
        Ok(())
    }

    fn claim(&mut self) -> Result<(), TestCaseError> {
        let claim = self.queue.claim(self.at());
        // A lane whose turn comes and that has nothing to start loses it.
        let mut expected = None;
        while expected.is_none() && !self.ready.is_empty() {
            let lane = self.ready.remove(0);
            expected = self.lanes[lane].ready().then_some(lane);
        }
        let now = self.now;
        let expected = expected.map(|lane| {
            let model = &mut self.lanes[lane];
            let task = model.waiting.remove(model.turn(now));
            model.running.push(Running {
                number: task.number,
                started: now,
                progress: now,
                budget: task.budget,
                stage: Stage::Live,
            });
            (lane, task.number)
        });
        let found = claim.map(|Claim { lease, lane, item }| {
            let lane = lane
                .trim_start_matches("lane-")
                .parse::<usize>()
                .expect("lanes are numbered");
            self.leases.push((lane, *item, lease));
            (lane, *item)
        });
        prop_assert_eq!(found, expected);
        if let Some((_, number)) = found {
            *self.started.entry(number).or_default() += 1;
        }
        Ok(())
    }

    fn finish(&mut self, which: usize, outcome: u8) -> Result<(), TestCaseError> {
        if self.leases.is_empty() {
            return Ok(());
        }
        let (lane, number, lease) = self.leases.remove(which % self.leases.len());
        let outcome = [
            Outcome::Finished,
            Outcome::Failed,
            Outcome::Panicked,
            Outcome::Cancelled,
        ][usize::from(outcome)];
        let counted = self.queue.finish(lease, outcome, self.at()).is_ok();
        let model = &mut self.lanes[lane];
        let at = model
            .running
            .iter()
            .position(|task| task.number == number)
            .expect("it runs until it ends");
        let task = model.running.remove(at);
        prop_assert_eq!(counted, task.stage == Stage::Live);
        if task.stage == Stage::Live {
            match outcome {
                Outcome::Finished => model.totals.finished += 1,
                Outcome::Failed => model.totals.failed += 1,
                Outcome::Panicked => model.totals.panicked += 1,
                Outcome::Cancelled => model.totals.cancelled += 1,
            }
            self.answer(number);
        } else {
            model.totals.late += 1;
        }
        // The lane itself gets in line before those that its end may help.
        if self.lanes[lane].ready() && !self.ready.contains(&lane) {
            self.ready.push(lane);
        }
        // A phantom that returns may let others become one; what the queue did is checked, not foretold, because
        // the order over lanes is its own business.
        self.follow_frees()
    }

    fn reset(&mut self, lane: usize) -> Result<(), TestCaseError> {
        let report = self.queue.reset_lane(&name(lane), self.at());
        let model = &mut self.lanes[lane];
        let live: Vec<u32> = model
            .running
            .iter()
            .filter(|task| task.stage == Stage::Live)
            .map(|task| task.number)
            .collect();
        let occupied = model.occupied();
        prop_assert_eq!(report.cancelled, live.len());
        prop_assert_eq!(report.freed + report.kept, occupied);
        prop_assert_eq!(report.queued, model.waiting.len());
        if model.hold {
            prop_assert_eq!(report.freed, 0);
        }
        model.totals.cancelled += live.len() as u64;
        for task in &mut model.running {
            if matches!(task.stage, Stage::Live | Stage::Cancelling { .. }) {
                task.stage = Stage::Kept;
            }
        }
        for number in live {
            self.answer(number);
        }
        self.follow_frees()
    }

    /// Lets time-driven rules act and checks that exactly those were stopped that had to be.
    fn reclaim(&mut self) -> Result<(), TestCaseError> {
        let now = self.now;
        let mut stopped = Vec::new();
        let mut expired = Vec::new();
        for lane in &mut self.lanes {
            for task in &mut lane.running {
                let budget = task
                    .budget
                    .is_some_and(|budget| now - task.started >= budget);
                let stalled = now - task.progress >= CEILING;
                if task.stage == Stage::Live && (budget || stalled) {
                    task.stage = Stage::Cancelling { until: now + GRACE };
                    if budget {
                        lane.totals.timed_out += 1;
                    } else {
                        lane.totals.stalled += 1;
                    }
                    stopped.push(task.number);
                } else if matches!(task.stage, Stage::Cancelling { until } if until <= now) {
                    task.stage = Stage::Kept;
                }
            }
            let gone = |task: &Waiting| task.until.is_some_and(|until| until <= now);
            expired.extend(
                lane.waiting
                    .iter()
                    .filter(|task| gone(task))
                    .map(|task| task.number),
            );
            let before = lane.waiting.len();
            lane.waiting.retain(|task| !gone(task));
            lane.totals.timed_out += (before - lane.waiting.len()) as u64;
        }
        for decision in self.queue.reclaim(self.at()) {
            match decision {
                Decision::Stop { item, .. } => stopped.retain(|number| *number != *item),
                Decision::Expired { item, .. } => expired.retain(|number| *number != *item),
                Decision::Suspect { .. }
                | Decision::Freed { .. }
                | Decision::Kept { .. }
                | Decision::Blocked { .. }
                | Decision::RecoveryIneffective { .. } => {}
            }
        }
        // Stops of resets come with the next reclaim; they were answered when the reset was made.
        prop_assert!(stopped.is_empty(), "not stopped: {:?}", stopped);
        prop_assert!(expired.is_empty(), "not expired: {:?}", expired);
        self.answer_all();
        self.follow_frees()
    }

    /// Counts an answer for every task that is in no list any more and was not answered yet.
    fn answer_all(&mut self) {
        let waiting: Vec<u32> = self
            .lanes
            .iter()
            .flat_map(|lane| &lane.waiting)
            .map(|task| task.number)
            .collect();
        let live: Vec<u32> = self
            .lanes
            .iter()
            .flat_map(|lane| &lane.running)
            .filter(|task| task.stage == Stage::Live)
            .map(|task| task.number)
            .collect();
        for number in 0..self.next {
            if !waiting.contains(&number) && !live.contains(&number) {
                self.answers.entry(number).or_insert(1);
            }
        }
    }

    /// Takes over which of the given-up tasks have lost their slot, and checks that the bounds hold.
    fn follow_frees(&mut self) -> Result<(), TestCaseError> {
        for (index, snapshot) in self.queue.snapshot(self.at()).iter().enumerate() {
            let lane = &mut self.lanes[index];
            let holders: Vec<u64> = snapshot.tasks.iter().map(|task| seq_of(task.id)).collect();
            let numbers: HashMap<u64, u32> = self
                .ids
                .iter()
                .filter(|(of, ..)| *of == index)
                .map(|(_, number, id)| (seq_of(*id), *number))
                .collect();
            let holding: Vec<u32> = holders.iter().map(|seq| numbers[seq]).collect();
            for task in &mut lane.running {
                match task.stage {
                    Stage::Live | Stage::Cancelling { .. } => {
                        prop_assert!(
                            holding.contains(&task.number),
                            "{} lost its slot",
                            task.number
                        );
                    }
                    Stage::Kept if !holding.contains(&task.number) => {
                        prop_assert!(!lane.hold, "a lane with one writer freed a slot");
                        task.stage = Stage::Freed;
                        lane.totals.reclaimed += 1;
                    }
                    Stage::Kept => {}
                    Stage::Freed => {
                        prop_assert!(!holding.contains(&task.number), "a slot was taken twice");
                    }
                }
            }
            let freed = lane
                .running
                .iter()
                .filter(|task| task.stage == Stage::Freed)
                .count();
            prop_assert!(freed <= MAX_PHANTOMS);
        }
        prop_assert!(self.phantoms() <= ALL_PHANTOMS);
        Ok(())
    }

    fn compare(&self) -> Result<(), TestCaseError> {
        for (lane, found) in self.lanes.iter().zip(self.queue.snapshot(self.at())) {
            let live = lane
                .running
                .iter()
                .filter(|task| task.stage == Stage::Live)
                .count();
            prop_assert!(found.is_conserved(), "{:?}", found);
            prop_assert_eq!(found.active, live);
            prop_assert_eq!(found.occupied, lane.occupied());
            prop_assert_eq!(found.queued, lane.waiting.len());
            prop_assert_eq!(found.totals, lane.totals);
            let abandoned = lane
                .running
                .iter()
                .filter(|task| matches!(task.stage, Stage::Kept | Stage::Freed))
                .count();
            prop_assert_eq!(found.abandoned, abandoned);
        }
        prop_assert!(
            self.started.values().all(|times| *times == 1),
            "nothing runs twice"
        );
        prop_assert!(
            self.answers.values().all(|times| *times == 1),
            "nobody is answered twice"
        );
        Ok(())
    }

    /// Lets everything end: nothing may be left waiting, and everybody must have been answered.
    fn wind_up(&mut self) -> Result<(), TestCaseError> {
        for lane in 0..LANES {
            self.apply(&Op::Pause {
                lane,
                paused: false,
            })?;
            self.apply(&Op::Width { lane, width: 2 })?;
        }
        loop {
            self.apply(&Op::Claim)?;
            if self.leases.is_empty() {
                break;
            }
            self.apply(&Op::Finish {
                which: 0,
                outcome: 0,
            })?;
        }
        self.answer_all();
        prop_assert_eq!(
            self.answers.len(),
            self.next as usize,
            "everybody has an answer"
        );
        let idle =
            |lane: &LaneSnapshot| lane.queued + lane.active + lane.occupied + lane.abandoned == 0;
        prop_assert!(
            self.queue.snapshot(self.at()).iter().all(idle),
            "nothing is left"
        );
        prop_assert!(self.queue.close(Close::Now).is_empty());
        Ok(())
    }
}

/// The part of a task's name that is its number within the lane.
fn seq_of(id: command_queue::TaskId) -> u64 {
    let text = id.to_string();
    text.rsplit('.')
        .next()
        .and_then(|seq| seq.parse().ok())
        .expect("a name ends in a number")
}

#[test]
fn random_operations_agree_with_a_naive_model() {
    // About 200 operations a case, so some 120,000 in all. A failure is shrunk and printed; to repeat it, set
    // PROPTEST_RNG_SEED to the seed that stands in the report.
    let seed = std::env::var("PROPTEST_RNG_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(20_261_121);
    let config = Config {
        cases: 600,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(seed),
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let operations = std::cell::Cell::new(0);
    let result = TestRunner::new(config).run(&ops(), |ops| {
        operations.set(operations.get() + ops.len());
        let mut pair = Pair::new();
        for op in &ops {
            pair.apply(op)?;
        }
        pair.wind_up()
    });
    if let Err(failure) = result {
        panic!("seed {seed}: {failure}");
    }
    assert!(
        operations.get() >= 100_000,
        "{} operations",
        operations.get()
    );
}
