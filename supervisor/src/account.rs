//! The books: what was counted, and what that means for the next pause.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{Holder, Moment, Policy};

/// Endings within a sliding window, pruned on every push.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Window {
    pub(crate) times: VecDeque<Moment>,
    /// How many there were since the window was last empty, those that are no longer in it included.
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) in_a_row: u32,
    /// Whether the episode that is going on has been announced.
    pub(crate) announced: bool,
}

impl Window {
    /// Adds `now` and returns how many are within the window, as far as they are kept.
    pub(crate) fn push(&mut self, now: Moment, window: Duration, keep: u32) -> u32 {
        self.prune(now, window);
        if self.times.is_empty() {
            self.in_a_row = 0;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.times.push_back(now);
        // With pauses of zero a window could hold millions; one more than the
        // budget is all that any rule asks for.
        while self.times.len() > keep as usize + 1 {
            self.times.pop_front();
        }
        u32::try_from(self.times.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn count(&self, now: Moment, window: Duration) -> u32 {
        let inside = self
            .times
            .iter()
            .filter(|at| now.since(**at) < window)
            .count();
        u32::try_from(inside).unwrap_or(u32::MAX)
    }

    /// Returns true once per episode: when `over` is true and was false before.
    pub(crate) fn announce(&mut self, over: bool) -> bool {
        let first = over && !self.announced;
        self.announced = over;
        first
    }

    fn prune(&mut self, now: Moment, window: Duration) {
        while self
            .times
            .front()
            .is_some_and(|at| now.since(*at) >= window)
        {
            self.times.pop_front();
        }
    }
}

/// The crash account: a number that grows, decays with health and is forgiven
/// by a run of its own that was long or finished something.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct CrashAccount {
    pub(crate) number: u32,
    pub(crate) window: Window,
    /// Time up since the last crash that has not yet taken a step off.
    pub(crate) health: Duration,
}

impl CrashAccount {
    /// Books time up, whatever the run ended with.
    pub(crate) fn live(&mut self, ran_for: Duration, decay_every: Duration) {
        if self.number == 0 {
            return;
        }
        self.health = self.health.saturating_add(ran_for);
        while self.number > 0 && self.health >= decay_every {
            self.health -= decay_every;
            self.number -= 1;
        }
        if self.number == 0 {
            self.health = Duration::ZERO;
        }
    }

    /// Books a crash and returns how many are within the window.
    pub(crate) fn crash(&mut self, forgiven: bool, now: Moment, policy: &Policy) -> u32 {
        self.number = if forgiven {
            1
        } else {
            self.number.saturating_add(1)
        };
        self.health = Duration::ZERO;
        self.window.push(
            now,
            policy.crash_window,
            KEEP_AT_LEAST.max(policy.crash_soft),
        )
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// So that the figure that people see in `crashes in the window` is true for
/// every paced unit.
const KEEP_AT_LEAST: u32 = 100;

/// Consecutive refusals by one holder.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Contention {
    pub(crate) by: Option<(Holder, Moment)>,
    pub(crate) refusals: u32,
}

impl Contention {
    /// Books a refusal; another holder than before starts from the first pause.
    pub(crate) fn refuse(&mut self, holder: &Holder, now: Moment) -> (u32, Moment) {
        match &self.by {
            Some((known, since)) if same_process(known, holder) => {
                self.refusals = self.refusals.saturating_add(1);
                (self.refusals, *since)
            }
            Some(_) | None => {
                self.by = Some((holder.clone(), now));
                self.refusals = 1;
                (1, now)
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The label is what a holder says about itself and may change; pid and start
/// time are what it is.
pub(crate) fn same_process(one: &Holder, other: &Holder) -> bool {
    one.pid == other.pid && one.start == other.start
}

/// Returns `first` doubled `number - 1` times, at most `cap`.
pub(crate) fn doubled(first: Duration, number: u32, cap: Duration) -> Duration {
    let factor = 1_u32
        .checked_shl(number.saturating_sub(1))
        .unwrap_or(u32::MAX);
    first
        .checked_mul(factor)
        .map_or(cap, |pause| pause.min(cap))
}

/// Returns the first number whose pause is `cap`; the last there is where none is.
pub(crate) fn first_at_cap(first: Duration, cap: Duration) -> u32 {
    (1..=u32::BITS + 1)
        .find(|number| doubled(first, *number, cap) >= cap)
        .unwrap_or(u32::MAX)
}

/// A generator of fractions whose whole state is two numbers, so that a restored
/// machine goes on where it was and a test can repeat what it saw (splitmix64).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Dice {
    state: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns `pause`, varied by up to `share` of itself either way.
    pub(crate) fn vary(&mut self, pause: Duration, share: f64) -> Duration {
        if share <= 0.0 || pause.is_zero() {
            return pause;
        }
        // 32 random bits are exact in an f64 and make a fraction in [-1, 1].
        let high = u32::try_from(self.next() >> 32).unwrap_or(u32::MAX);
        let fraction = f64::from(high) / f64::from(u32::MAX) * 2.0 - 1.0;
        pause.mul_f64(1.0 + share * fraction)
    }
}
