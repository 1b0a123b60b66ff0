//! The simulator, short form. The long form is `examples/sim`.

#[path = "../examples/sim/lab/mod.rs"]
mod lab;

use lab::faults::Fault;
use lab::names;
use lab::world::{self, Tally};

const HAPPENINGS: u32 = 1_000;

#[test]
fn five_hundred_worlds_break_no_rule_and_meet_every_event_state_and_notice() {
    let mut tally = Tally::default();
    for seed in 1..=500 {
        let (outcome, _) = world::run(seed, HAPPENINGS, None, None, false, &mut tally);
        if let Err(violation) = outcome {
            panic!(
                "{violation:?}\nagain: cargo run --release -p wg-supervisor --example sim -- \
                 --seed {seed} --steps {HAPPENINGS}"
            );
        }
    }
    for (all, counts) in [
        (&names::EVENTS[..], &tally.events),
        (&names::STATES[..], &tally.states),
        (&names::NOTICES[..], &tally.notices),
    ] {
        for name in all {
            let count = counts.get(name).copied().unwrap_or(0);
            assert!(count >= 100, "`{name}` was met {count} times only");
        }
    }
}

#[test]
fn each_broken_machine_is_caught_and_only_by_the_rule_that_it_breaks() {
    for (fault, rule) in Fault::ALL {
        let mut tally = Tally::default();
        let mut caught = 0;
        for seed in 1..=40 {
            let (outcome, _) = world::run(seed, HAPPENINGS, Some(fault), None, false, &mut tally);
            if let Err(violation) = outcome {
                assert_eq!(
                    violation.rule, rule,
                    "{fault:?}, seed {seed}: {}",
                    violation.text
                );
                caught += 1;
            }
            // With that rule turned off nobody notices.
            let (outcome, _) =
                world::run(seed, HAPPENINGS, Some(fault), Some(rule), false, &mut tally);
            if let Err(violation) = outcome {
                panic!("{fault:?}, seed {seed}, is caught by {violation:?} as well");
            }
        }
        assert!(caught > 0, "{fault:?} is not caught");
    }
}
