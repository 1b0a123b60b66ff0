//! A queue of numbers on a manual clock.

use std::time::{Duration, Instant};

use command_queue::{
    Claim, Decision, LaneConfig, LaneSnapshot, Outcome, Queue, SubmitOptions, TaskError, Timeout,
};

use crate::common::now;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const CEILING: Duration = Duration::from_secs(600);
/// When a task is suspected.
pub(crate) const SUSPICION: Duration = Duration::from_secs(480);
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// A queue of numbers and the time it is.
pub(crate) struct World {
    pub(crate) queue: Queue<u32>,
    pub(crate) now: Instant,
    next: u32,
}

impl World {
    pub(crate) fn new(config: LaneConfig) -> Self {
        Self {
            queue: Queue::new(config, 16),
            now: now(),
            next: 0,
        }
    }

    pub(crate) fn serial() -> Self {
        Self::new(LaneConfig::serial())
    }

    /// Submits the next number.
    pub(crate) fn submit(&mut self, lane: &str, options: &SubmitOptions) -> u32 {
        let number = self.next;
        self.next += 1;
        self.queue
            .submit(lane, options, number, self.now)
            .expect("the lane takes it");
        number
    }

    pub(crate) fn normal(&mut self, lane: &str) -> u32 {
        self.submit(lane, &SubmitOptions::normal())
    }

    pub(crate) fn claim(&mut self) -> Option<Claim<u32>> {
        self.queue.claim(self.now)
    }

    #[track_caller]
    pub(crate) fn start(&mut self) -> Claim<u32> {
        self.claim().expect("a task can start")
    }

    /// Starts everything that can start and says what, ending each at once.
    pub(crate) fn drain(&mut self) -> Vec<u32> {
        std::iter::from_fn(|| {
            let claim = self.claim()?;
            let number = *claim.item;
            self.queue
                .finish(claim.lease, Outcome::Finished, self.now)
                .expect("its lease is good");
            Some(number)
        })
        .collect()
    }

    pub(crate) fn pass(&mut self, span: Duration) -> Vec<Decision<u32>> {
        self.now += span;
        self.queue.reclaim(self.now)
    }

    pub(crate) fn lane(&self, name: &str) -> LaneSnapshot {
        let lane = self
            .queue
            .snapshot(self.now)
            .into_iter()
            .find(|lane| &*lane.lane == name);
        lane.expect("the lane was named")
    }
}

/// Says briefly what was decided.
pub(crate) fn brief(decisions: &[Decision<u32>]) -> Vec<String> {
    decisions
        .iter()
        .map(|decision| match decision {
            Decision::Suspect { .. } => "suspect".to_owned(),
            Decision::Stop { item, error, .. } => format!("stop {item}: {}", kind(error)),
            Decision::Freed { .. } => "freed".to_owned(),
            Decision::Kept { .. } => "kept".to_owned(),
            Decision::Expired { item, .. } => format!("expired {item}"),
            Decision::Blocked { suppressed, .. } => format!("blocked, {suppressed} suppressed"),
            Decision::RecoveryIneffective { .. } => "ineffective".to_owned(),
        })
        .collect()
}

fn kind(error: &TaskError) -> &'static str {
    if let TaskError::TimedOut { kind, .. } = error {
        return if *kind == Timeout::Budget {
            "budget"
        } else {
            "idle"
        };
    }
    if matches!(error, TaskError::Stalled { .. }) {
        "stalled"
    } else {
        "reset"
    }
}
