//! The shortcut from one task to the next must leave a lane as the long way does.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{Lane, Outcome};
use crate::config::{IdleLimit, LaneConfig, Priority};
use crate::core::active::{Limits, Look};
use crate::core::phantom::PhantomBudget;
use crate::driver::clock;

#[derive(Clone, Copy, Debug)]
enum Op {
    Submit { priority: u8, limited: bool },
    Cancel(u64),
    Pass(u64),
    Pause(bool),
    Width(usize),
    Tick,
    Next,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0..12_u8, 0..12_u8).prop_map(|(priority, limited)| Op::Submit {
            priority,
            limited: limited == 0,
        }),
        1 => (0..40_u64).prop_map(Op::Cancel),
        2 => (0..700_u64).prop_map(Op::Pass),
        1 => any::<bool>().prop_map(Op::Pause),
        1 => (0..3_usize).prop_map(Op::Width),
        2 => Just(Op::Tick),
        6 => Just(Op::Next),
    ];
    prop::collection::vec(op, 1..120)
}

/// One of two lanes that are treated alike but for the shortcut.
struct One {
    lane: Lane<u64>,
    running: Vec<(u64, u32)>,
    budget: PhantomBudget,
}

impl One {
    fn new() -> Self {
        Self {
            lane: Lane::new(Arc::new(LaneConfig::serial())),
            running: Vec::new(),
            budget: PhantomBudget::new(8),
        }
    }

    fn claim(&mut self, now: std::time::Instant) {
        while let Some(claimed) = self.lane.claim(now) {
            self.running.push((claimed.seq, claimed.index));
        }
    }

    fn finish(&mut self, (seq, index): (u64, u32), now: std::time::Instant) {
        let mut steps = Vec::new();
        let outcome = Outcome::Finished;
        self.lane
            .finish(seq, index, outcome, now, &self.budget, &mut steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_shortcut_leaves_a_lane_as_the_end_of_one_task_and_the_start_of_the_next_do(ops in ops()) {
        let (mut long, mut short) = (One::new(), One::new());
        let mut now = clock::now();
        let mut next = 0;
        for op in ops {
            for one in [&mut long, &mut short] {
                match op {
                    Op::Submit { priority, limited } => {
                        let priority = match priority {
                            0 => Priority::Background,
                            1 => Priority::Foreground,
                            _ => Priority::Normal,
                        };
                        let limits = limited.then(|| Box::new(Limits {
                            budget: Some(Duration::from_secs(1)),
                            idle: IdleLimit::LaneCeiling,
                            queue: None,
                            threadless: false,
                        }));
                        one.lane.submit(now, next, priority, limits, next);
                    }
                    Op::Cancel(seq) => drop(one.lane.cancel(seq)),
                    Op::Pause(paused) => one.lane.set_paused(paused),
                    Op::Width(width) => one.lane.set_width(width),
                    Op::Tick => {
                        let mut steps = Vec::new();
                        one.lane.tick(now, &one.budget, &mut |_| Look::Known(None), &mut steps);
                    }
                    Op::Pass(_) | Op::Next => {}
                }
            }
            match op {
                Op::Submit { .. } => next += 1,
                Op::Pass(seconds) => now += Duration::from_secs(seconds) / 100,
                Op::Next if !long.running.is_empty() => {
                    let place = long.running.remove(0);
                    long.finish(place, now);
                    // The same task; its place has another number, where one before it had become free.
                    let place = short.running.remove(0);
                    match short.lane.succeed(place.0, place.1, now) {
                        Some(claimed) => {
                            let started = long.lane.claim(now);
                            prop_assert!(started.as_ref().is_some_and(|started| started.late.is_none()));
                            long.running.extend(started.map(|started| (started.seq, started.index)));
                            short.running.push((claimed.seq, claimed.index));
                        }
                        None => short.finish(place, now),
                    }
                }
                Op::Next | Op::Cancel(_) | Op::Pause(_) | Op::Width(_) | Op::Tick => {}
            }
            long.claim(now);
            short.claim(now);
            prop_assert!(long.running.iter().map(|(seq, _)| seq).eq(short.running.iter().map(|(seq, _)| seq)));
            prop_assert_eq!(long.lane.totals(), short.lane.totals());
            prop_assert_eq!(long.lane.queued(), short.lane.queued());
            prop_assert_eq!(long.lane.occupied(), short.lane.occupied());
            prop_assert_eq!(long.lane.is_dispatchable(), short.lane.is_dispatchable());
            prop_assert_eq!(long.lane.gone(), short.lane.gone());
            prop_assert_eq!(long.lane.oldest_active(), short.lane.oldest_active());
            // The deadline may come too early, never too late.
            prop_assert!(short.lane.deadline() <= long.lane.deadline() || long.lane.deadline().is_none());
        }
    }
}
