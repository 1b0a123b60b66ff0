use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// How endings are answered: every pause, budget and limit by name.
///
/// All fields are public; start from [`Policy::standard`] and change what you
/// know better. A policy becomes usable by passing [`Policy::validate`] once.
/// Under one that passed, and in which `unsafe_no_backoff` is false, a unit whose
/// starts come to nothing is started no more than twice a second for long, however it
/// ends and whatever the other fields are.
///
/// ```
/// use supervisor::Policy;
///
/// let mut policy = Policy::standard();
/// policy.crash_hard = 5;
/// let policy = policy.validate()?;
/// # Ok::<(), supervisor::PolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The pause after crash number 1, at least 100 ms; doubled with each further number.
    pub backoff_first: Duration,
    /// The longest pause after a crash, and the pace of a degraded unit. This and every
    /// other pause that can come again and again is at least a second.
    pub backoff_cap: Duration,
    /// The share by which a pause is varied either way, from 0.0 to 0.5, so that
    /// many units that fell together do not rise together.
    pub jitter: f64,
    /// A crash after a run longer than this is number 1 again.
    pub stable_after: Duration,
    /// More crashes than this within `crash_window` make a unit degraded.
    pub crash_soft: u32,
    /// The window in which crashes are counted for `crash_soft`.
    pub crash_window: Duration,
    /// The crash number at which a unit is parked; 0 means never.
    pub crash_hard: u32,
    /// The health (time up, over all runs since the last crash) that takes one
    /// step off the crash number.
    pub decay_every: Duration,
    /// Clean restarts within `clean_window` that are free of a pause.
    pub clean_budget: u32,
    /// The window in which clean restarts are counted.
    pub clean_window: Duration,
    /// The pause before each clean restart beyond the budget.
    pub clean_pause: Duration,
    /// Restarts on the memory cap within `memory_window` that cause no warning.
    pub memory_budget: u32,
    /// The window in which restarts on the memory cap are counted.
    pub memory_window: Duration,
    /// The pause before every restart that follows a memory cap.
    pub memory_pause: Duration,
    /// The pauses between probes of a lock whose holder cannot be watched. One
    /// refusal more than there are pauses parks the unit.
    pub contention_pauses: Vec<Duration>,
    /// How often a unit that is parked because of such a holder looks again
    /// whether it is still there; zero means only when told.
    pub contention_probe: Duration,
    /// The pause after the first failure of something that the unit depends on.
    pub dependency_first: Duration,
    /// The longest pause of that kind. There is no giving up.
    pub dependency_cap: Duration,
    /// How long a unit that left on request stays away, so that whoever asked
    /// can take its place.
    pub release_pause: Duration,
    /// Allows shorter pauses, down to zero, and larger budgets. Nothing then limits how
    /// often a broken program is started: for measurements only.
    pub unsafe_no_backoff: bool,
}

impl Policy {
    /// Returns the policy that this crate recommends.
    #[must_use]
    pub fn standard() -> Self {
        Self {
            backoff_first: Duration::from_secs(1),
            backoff_cap: Duration::from_secs(60),
            jitter: 0.1,
            stable_after: Duration::from_secs(300),
            crash_soft: 3,
            crash_window: Duration::from_secs(600),
            crash_hard: 100,
            decay_every: Duration::from_secs(600),
            clean_budget: 10,
            clean_window: Duration::from_secs(60),
            clean_pause: Duration::from_secs(1),
            memory_budget: 3,
            memory_window: Duration::from_secs(600),
            memory_pause: Duration::from_secs(30),
            contention_pauses: [10, 20, 40, 80, 120].map(Duration::from_secs).to_vec(),
            contention_probe: Duration::from_secs(600),
            dependency_first: Duration::from_secs(5),
            dependency_cap: Duration::from_secs(300),
            release_pause: Duration::from_secs(10),
            unsafe_no_backoff: false,
        }
    }

    /// Checks every field and returns the policy in the form that a
    /// [`Machine`](crate::Machine) takes. Cloning that form is cheap.
    ///
    /// # Errors
    ///
    /// Returns the first field that is out of its range, its value and what is
    /// allowed instead.
    pub fn validate(self) -> Result<ValidPolicy, PolicyError> {
        self.check_pauses()?;
        self.check_windows()?;
        if !(0.0..=0.5).contains(&self.jitter) {
            return Err(PolicyError::new(
                "jitter",
                self.jitter,
                "a share from 0.0 to 0.5",
            ));
        }
        if self.crash_soft == 0 {
            return Err(PolicyError::new("crash_soft", 0, "at least 1"));
        }
        if self.clean_budget == 0 {
            return Err(PolicyError::new("clean_budget", 0, "at least 1"));
        }
        if self.memory_budget == 0 {
            return Err(PolicyError::new("memory_budget", 0, "at least 1"));
        }
        for (field, budget) in [
            ("crash_soft", self.crash_soft),
            ("clean_budget", self.clean_budget),
            ("memory_budget", self.memory_budget),
        ] {
            if budget > MOST_COUNTED {
                return Err(PolicyError::new(field, budget, "at most 10000"));
            }
        }
        self.check_rates()?;
        Ok(ValidPolicy(Arc::new(self)))
    }

    fn check_pauses(&self) -> Result<(), PolicyError> {
        for (field, pause) in [
            ("backoff_first", self.backoff_first),
            ("dependency_first", self.dependency_first),
        ] {
            self.check_pause(field, pause, Pause::Doubled)?;
        }
        for (field, pause) in [
            ("backoff_cap", self.backoff_cap),
            ("clean_pause", self.clean_pause),
            ("memory_pause", self.memory_pause),
            ("dependency_cap", self.dependency_cap),
            ("release_pause", self.release_pause),
        ] {
            self.check_pause(field, pause, Pause::Repeated)?;
        }
        if self.contention_pauses.is_empty() {
            return Err(PolicyError::new(
                "contention_pauses",
                "[]",
                "at least one pause",
            ));
        }
        for pause in &self.contention_pauses {
            self.check_pause("contention_pauses", *pause, Pause::Repeated)?;
        }
        if self.contention_probe > LONGEST {
            return Err(PolicyError::new(
                "contention_probe",
                Shown(self.contention_probe),
                "at most a week",
            ));
        }
        if self.contention_probe > Duration::ZERO && self.contention_probe < Duration::from_secs(1)
        {
            return Err(PolicyError::new(
                "contention_probe",
                Shown(self.contention_probe),
                "0s (only when told) or at least 1s",
            ));
        }
        for (cap_field, first, cap) in [
            ("backoff_cap", self.backoff_first, self.backoff_cap),
            ("dependency_cap", self.dependency_first, self.dependency_cap),
        ] {
            if cap < first {
                return Err(PolicyError::new(
                    cap_field,
                    Shown(cap),
                    "not less than the first pause",
                ));
            }
        }
        Ok(())
    }

    /// A pause of a millisecond is a storm as well, and so is one of a tenth of a second
    /// that comes for ever: three attempts in under 250 ms is how this crate's first
    /// incident began. Only a pause that is doubled may begin below a second, the pace
    /// that supervisors since daemontools keep.
    fn check_pause(
        &self,
        field: &'static str,
        pause: Duration,
        kind: Pause,
    ) -> Result<(), PolicyError> {
        if pause > LONGEST {
            return Err(PolicyError::new(field, Shown(pause), "at most a week"));
        }
        let (least, allowed) = match kind {
            Pause::Doubled => (
                SHORTEST,
                "at least 100ms, unless `unsafe_no_backoff` is true",
            ),
            Pause::Repeated => (PACE, "at least 1s, unless `unsafe_no_backoff` is true"),
        };
        if pause < least && !self.unsafe_no_backoff {
            return Err(PolicyError::new(field, Shown(pause), allowed));
        }
        Ok(())
    }

    /// What is free of a pause is rare beside what is paced: clean restarts within
    /// their budget, and crashes within theirs, whose pauses a message may cut short.
    fn check_rates(&self) -> Result<(), PolicyError> {
        for (field, budget, window) in [
            ("crash_soft", self.crash_soft, self.crash_window),
            ("clean_budget", self.clean_budget, self.clean_window),
        ] {
            let most = (window.as_secs() / FREE_EVERY.as_secs()).min(MOST_AT_ONCE);
            if u64::from(budget) > most && !self.unsafe_no_backoff {
                return Err(PolicyError::new(
                    field,
                    budget,
                    "at most 100, and one for each five seconds of its window, unless `unsafe_no_backoff` is true",
                ));
            }
        }
        Ok(())
    }

    fn check_windows(&self) -> Result<(), PolicyError> {
        let spans = [
            ("stable_after", self.stable_after),
            ("crash_window", self.crash_window),
            ("decay_every", self.decay_every),
            ("clean_window", self.clean_window),
            ("memory_window", self.memory_window),
        ];
        for (field, span) in spans {
            if span < Duration::from_secs(1) || span > LONGEST {
                return Err(PolicyError::new(field, Shown(span), "from 1s to a week"));
            }
        }
        Ok(())
    }
}

/// What a pause is part of.
#[derive(Clone, Copy)]
enum Pause {
    /// The first of a row in which each is twice the one before.
    Doubled,
    /// It can come again and again.
    Repeated,
}

const SHORTEST: Duration = Duration::from_millis(100);
const PACE: Duration = Duration::from_secs(1);
/// A budget has so much of its window for each start that is free of a pause.
const FREE_EVERY: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Each counted ending costs eight bytes for the length of its window.
const MOST_COUNTED: u32 = 10_000;
/// At most so many starts of a window are free of a pause.
const MOST_AT_ONCE: u64 = 100;

/// A policy whose fields have been checked. Clones share one allocation.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidPolicy(Arc<Policy>);

impl Deref for ValidPolicy {
    type Target = Policy;

    fn deref(&self) -> &Policy {
        &self.0
    }
}

/// A field of a [`Policy`] is out of its range.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyError {
    /// The name of the field.
    pub field: &'static str,
    /// Its value as text.
    pub value: String,
    /// What is allowed.
    pub allowed: &'static str,
}

impl PolicyError {
    fn new(field: &'static str, value: impl fmt::Display, allowed: &'static str) -> Self {
        Self {
            field,
            value: value.to_string(),
            allowed,
        }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is {}, allowed is {}",
            self.field, self.value, self.allowed
        )
    }
}

impl Error for PolicyError {}

/// A duration as people write it in a configuration file.
struct Shown(Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.subsec_nanos() == 0 {
            write!(f, "{}s", self.0.as_secs())
        } else {
            write!(f, "{:?}", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Policy), text: &str) {
        let mut policy = Policy::standard();
        change(&mut policy);
        assert_eq!(policy.validate().unwrap_err().to_string(), text);
    }

    #[test]
    fn the_standard_policy_is_valid() {
        assert!(Policy::standard().validate().is_ok());
    }

    #[test]
    fn each_bad_value_is_refused_by_field_value_and_what_is_allowed() {
        refused(
            |p| p.backoff_first = Duration::ZERO,
            "`backoff_first` is 0s, allowed is at least 100ms, unless `unsafe_no_backoff` is true",
        );
        refused(
            |p| p.backoff_first = Duration::from_secs(61),
            "`backoff_cap` is 60s, allowed is not less than the first pause",
        );
        refused(
            |p| p.backoff_cap = Duration::from_millis(500),
            "`backoff_cap` is 500ms, allowed is at least 1s, unless `unsafe_no_backoff` is true",
        );
        refused(
            |p| p.jitter = 0.9,
            "`jitter` is 0.9, allowed is a share from 0.0 to 0.5",
        );
        refused(
            |p| p.jitter = f64::NAN,
            "`jitter` is NaN, allowed is a share from 0.0 to 0.5",
        );
        refused(
            |p| p.crash_soft = 0,
            "`crash_soft` is 0, allowed is at least 1",
        );
        refused(
            |p| p.clean_budget = 20_000,
            "`clean_budget` is 20000, allowed is at most 10000",
        );
        refused(
            |p| p.clean_budget = 101,
            "`clean_budget` is 101, allowed is at most 100, and one for each five seconds of its window, unless `unsafe_no_backoff` is true",
        );
        refused(
            |p| p.release_pause = Duration::ZERO,
            "`release_pause` is 0s, allowed is at least 1s, unless `unsafe_no_backoff` is true",
        );
        refused(
            |p| p.contention_pauses.clear(),
            "`contention_pauses` is [], allowed is at least one pause",
        );
        refused(
            |p| p.contention_pauses[3] = Duration::ZERO,
            "`contention_pauses` is 0s, allowed is at least 1s, unless `unsafe_no_backoff` is true",
        );
        refused(
            |p| p.crash_window = Duration::from_millis(1),
            "`crash_window` is 1ms, allowed is from 1s to a week",
        );
        refused(
            |p| p.dependency_cap = Duration::MAX,
            "`dependency_cap` is 18446744073709551615.999999999s, allowed is at most a week",
        );
    }

    #[test]
    fn a_zero_pause_needs_the_field_that_is_named_unsafe() {
        let mut policy = Policy::standard();
        policy.backoff_first = Duration::ZERO;
        policy.backoff_cap = Duration::ZERO;
        policy.unsafe_no_backoff = true;
        assert!(policy.validate().is_ok());
    }
}
