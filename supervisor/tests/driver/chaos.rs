//! Anything at any time: random wishes and deaths, on a real driver.

use std::collections::HashMap;
use std::time::Duration;

use supervisor::{Machine, Policy, UnitId, clock};

use crate::common::{Bench, LONG, Seen, shell, wait};

const UNITS: u64 = 12;
const WISHES: u32 = 200;

/// What children do; each says it in its own way.
const SCRIPTS: [&str; 8] = [
    "exec sleep 1000",
    "exit 0",
    "exit 1",
    "kill -9 $$",
    "sleep 1000 & exit 1",
    "setsid sleep 1000 & sleep 0.02; exit 1",
    "trap '' TERM; sleep 1000 & wait; sleep 1000",
    "(setsid sh -c 'sleep 1000 & sleep 1000' &); exec sleep 1000",
];

#[test]
fn no_unit_ever_has_two_processes_and_none_leaves_anything_behind() {
    let mut seed = u64::try_from(clock::now().as_nanos()).unwrap_or(1);
    println!("seed {seed}");
    let mut below = move |bound: u64| {
        // An xorshift generator is random enough to choose what happens next.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % bound
    };
    let mut policy = Policy::standard();
    policy.crash_soft = 10_000;
    policy.crash_hard = 0;
    policy.clean_budget = 10_000;
    policy.backoff_first = Duration::from_millis(1);
    policy.backoff_cap = Duration::from_millis(20);
    // Within the bounds most units would wait out a second, and hardly a wish would meet a process.
    policy.unsafe_no_backoff = true;
    let policy = policy.validate().unwrap();

    let bench = Bench::new();
    bench.grace(Duration::from_millis(20));
    for number in 0..UNITS {
        let script = SCRIPTS[usize::try_from(below(8)).unwrap()];
        bench.answer(UnitId(number), shell(script));
        let machine = Machine::new(policy.clone(), number, clock::now());
        bench.handle.add(UnitId(number), machine);
        bench.handle.start(UnitId(number));
    }
    let mut stops = Vec::new();
    for _ in 0..WISHES {
        let unit = UnitId(below(UNITS));
        match below(9) {
            0 => stops.push(bench.handle.stop(unit)),
            1 => stops.push(bench.handle.kill(unit)),
            2 | 3 => stops.push(bench.handle.restart(unit)),
            4 => bench.handle.resume(unit),
            5 => bench.handle.wake(unit),
            6 => {
                let script = SCRIPTS[usize::try_from(below(8)).unwrap()];
                bench.answer(unit, shell(script));
                bench.handle.config_changed(unit);
            }
            7 => bench.kill_some_carrier(below(1_000)),
            _ => {
                bench.handle.start(unit);
                // An answer means that everything before it was taken in.
                assert!(bench.handle.state(unit, LONG).unwrap().is_some());
            }
        }
    }
    for number in 0..UNITS {
        stops.push(bench.handle.stop(UnitId(number)));
    }
    for stop in &stops {
        assert_eq!(wait(stop).report.survivors, []);
    }
    let states = bench.handle.states(LONG).unwrap();
    assert!(
        states.iter().all(|(_, state)| state.name() == "stopped"),
        "{states:?}"
    );
    assert_eq!(bench.carriers(), []);

    let mut running: HashMap<UnitId, u32> = HashMap::new();
    let mut ends = 0;
    for seen in bench.seen.try_iter() {
        if let Seen::Spawned(unit, pid) = seen {
            let former = running.insert(unit, pid);
            assert_eq!(former, None, "{unit} got {pid} beside it");
        } else if let Seen::Ended(ended) = seen {
            running.retain(|_, pid| *pid != ended.pid);
            ends += 1;
        }
    }
    assert_eq!(running, HashMap::new());
    assert!(
        ends >= u32::try_from(UNITS).unwrap(),
        "only {ends} processes ended"
    );
}
