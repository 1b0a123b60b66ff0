//! One thread that sleeps until the earliest thing that has to be looked at. At rest it never wakes.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::clock;
use super::lane::LaneCell;
use super::pool::{PATIENCE, RETRY};
use super::shared::Shared;
use crate::core::active::earlier;

/// Fewer alarms than this are never searched for overtaken ones.
const MANY: usize = 1024;

/// One alarm. A lane has one that counts and maybe some that were overtaken by an earlier one.
struct Alarm {
    /// As a number, because there may be one for every lane.
    at: u64,
    lane: Weak<LaneCell>,
}

// Only the time matters, and the earliest is the greatest, because the heap gives the greatest first.
impl Ord for Alarm {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl PartialOrd for Alarm {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Alarm {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Alarm {}

pub(crate) struct Watchdog {
    state: Mutex<State>,
    changed: Condvar,
    /// A sweep is due some time; asked on every end of a task, so it must cost nothing.
    sweeping: AtomicBool,
    /// As `State::pool`, for those who only want to know whether they have to ask.
    watching: AtomicBool,
}

struct State {
    alarms: BinaryHeap<Alarm>,
    /// When to look whether the workers get on, and what they had taken when that was decided.
    pool: Option<(Instant, Option<usize>)>,
    /// When to look for lanes that nobody needs.
    sweep: Option<Instant>,
    /// With this many alarms, those that were overtaken are removed before another is set.
    crowded: usize,
    stopped: bool,
}

enum Due {
    Lane(u64, Arc<LaneCell>),
    Pool(Option<usize>),
    Sweep,
    Over,
}

impl Watchdog {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                alarms: BinaryHeap::new(),
                pool: None,
                sweep: None,
                crowded: MANY,
                stopped: false,
            }),
            changed: Condvar::new(),
            sweeping: AtomicBool::new(false),
            watching: AtomicBool::new(false),
        }
    }

    pub(crate) fn start(shared: &Arc<Shared>, name: &str) -> io::Result<()> {
        let shared = Arc::clone(shared);
        thread::Builder::new()
            .name(format!("{name}-watchdog"))
            .spawn(move || shared.watchdog.watch(&shared))?;
        Ok(())
    }

    pub(crate) fn arm(&self, at: Instant, lane: &Arc<LaneCell>) {
        let mut state = self.state.lock();
        let at = clock::to_nanos(at);
        let first = state.alarms.peek().is_none_or(|alarm| at < alarm.at);
        if state.alarms.len() >= state.crowded {
            state.alarms.retain(|alarm| {
                alarm
                    .lane
                    .upgrade()
                    .is_some_and(|lane| lane.is_armed_for(alarm.at))
            });
            state.crowded = (state.alarms.len() * 2).max(MANY);
        }
        state.alarms.push(Alarm {
            at,
            lane: Arc::downgrade(lane),
        });
        drop(state);
        if first {
            self.changed.notify_one();
        }
    }

    /// Lanes have become idle: look some time whether they are still needed.
    pub(crate) fn sweep_later(&self, retention: Duration) {
        if self.sweeping.load(Relaxed) || self.sweeping.swap(true, SeqCst) {
            return;
        }
        self.state.lock().sweep = clock::now().checked_add(retention);
        self.changed.notify_one();
    }

    /// Tokens wait and workers are awake: look soon whether they get on.
    pub(crate) fn watch_pool(&self, now: Instant) {
        // While a look is due it will see this token, too: the flag is cleared before the look.
        if self.watching.load(SeqCst) || self.watching.swap(true, SeqCst) {
            return;
        }
        self.state.lock().pool = now.checked_add(PATIENCE).map(|at| (at, None));
        self.changed.notify_one();
    }

    /// Lets the thread leave once nothing is left that could still stall. Called again when a worker leaves.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_one();
    }

    fn watch(&self, shared: &Arc<Shared>) {
        loop {
            match self.next() {
                Due::Lane(at, lane) => shared.alarm_rang(&lane, at),
                Due::Pool(taken) => self.check_pool(shared, taken),
                Due::Sweep => {
                    // Cleared first: a lane that becomes idle behind the sweep's back asks for another.
                    self.sweeping.store(false, SeqCst);
                    let retention = shared.config.lane_retention;
                    if shared.lanes.sweep(clock::now(), retention) {
                        self.sweep_later(retention);
                    }
                }
                Due::Over => return,
            }
        }
    }

    fn next(&self) -> Due {
        let mut state = self.state.lock();
        loop {
            let now = clock::now();
            if let Some((_, taken)) = state.pool.filter(|(at, _)| *at <= now) {
                state.pool = None;
                return Due::Pool(taken);
            }
            if state.sweep.is_some_and(|at| at <= now) {
                state.sweep = None;
                return Due::Sweep;
            }
            if let Some(alarm) = state.alarms.peek()
                && alarm.at <= clock::to_nanos(now)
            {
                let Some(Alarm { at, lane }) = state.alarms.pop() else {
                    continue;
                };
                match lane.upgrade() {
                    Some(lane) => return Due::Lane(at, lane),
                    None => continue,
                }
            }
            if state.stopped {
                // No work comes any more. Only lanes where something still runs have to be looked at.
                state.alarms.retain(|alarm| {
                    alarm
                        .lane
                        .upgrade()
                        .is_some_and(|lane| lane.needs_alarm(alarm.at))
                });
                if state.alarms.is_empty() && state.pool.is_none() {
                    return Due::Over;
                }
            }
            let alarm = state
                .alarms
                .peek()
                .and_then(|alarm| clock::from_nanos(alarm.at));
            let pool = state.pool.map(|(at, _)| at);
            match earlier(earlier(alarm, pool), state.sweep) {
                Some(at) => drop(self.changed.wait_until(&mut state, at)),
                None => self.changed.wait(&mut state),
            }
        }
    }

    /// Wakes or adds workers if tokens wait and those awake do not get on with them.
    fn check_pool(&self, shared: &Arc<Shared>, before: Option<usize>) {
        // Cleared before the look: whoever sends a token after it asks for another look.
        self.watching.store(false, SeqCst);
        let pool = &shared.pool;
        let waiting = pool.waiting();
        if waiting == 0 {
            return;
        }
        let (now, taken) = (clock::now(), pool.taken());
        // Workers that take more in a millisecond than they leave are quick enough; more would not help.
        let slow = before.is_some_and(|before| taken.wrapping_sub(before) < waiting);
        let none = pool.threads() == pool.asleep();
        let roused = if slow || none {
            pool.rouse_many(shared, waiting)
        } else {
            Ok(())
        };
        let wait = if roused.is_ok() { PATIENCE } else { RETRY };
        let mut state = self.state.lock();
        self.watching.store(true, SeqCst);
        state.pool = now.checked_add(wait).map(|at| (at, Some(taken)));
    }
}
