//! One running task: when it is suspected, when it is stopped, and what holds its slot afterwards.

use std::time::{Duration, Instant};

use crate::config::{IdleLimit, LaneConfig, Limit};
use crate::error::Timeout;

/// Limits of one task that differ from the lane's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) budget: Option<Duration>,
    pub(crate) idle: IdleLimit,
    pub(crate) queue: Option<Duration>,
    /// No thread of the queue runs this task, so none is lost with it.
    pub(crate) threadless: bool,
}

impl Limits {
    /// Returns nothing for the usual task, which then costs no memory for its limits.
    pub(crate) fn boxed(
        budget: Limit,
        idle: IdleLimit,
        queue: Limit,
        threadless: bool,
    ) -> Option<Box<Self>> {
        let limits = Self {
            budget: budget.span(),
            idle,
            queue: queue.span(),
            threadless,
        };
        let usual = Self {
            budget: None,
            idle: IdleLimit::LaneCeiling,
            queue: None,
            threadless: false,
        };
        (limits != usual).then(|| Box::new(limits))
    }
}

/// Why a running task was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Stalled,
    TimedOut { kind: Timeout, limit: Duration },
    Reset,
}

/// Why an abandoned task still holds its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// The lane belongs to a single writer.
    ByLane,
    /// Freeing it would exceed the number of phantoms.
    ByPhantoms,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Live,
    /// As `Live`; the owner was asked for progress and has until then to answer.
    Asked {
        until: Instant,
    },
    /// Its caller has the error; it may still end by itself until then.
    Cancelling {
        until: Instant,
    },
    Abandoned(Held),
}

/// What the driver knows about a task's progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The time of the last progress, if there was any.
    Known(Option<Instant>),
    /// Its owner has to be asked, or has been asked and did not answer yet.
    Ask,
}

#[derive(Debug)]
pub(crate) struct Active<T> {
    pub(crate) seq: u64,
    pub(crate) started: Instant,
    /// The later of the start and the last progress.
    pub(crate) progress: Instant,
    pub(crate) stage: Stage,
    pub(crate) suspected: bool,
    pub(crate) threadless: bool,
    /// A unit of the phantom budget is spent on the thread that is stuck in this task.
    pub(crate) thread_lost: bool,
    /// Absent for a task that has none of its own.
    limits: Option<Box<Limits>>,
    pub(crate) item: T,
}

pub(crate) enum Judgement {
    Fine,
    Suspect,
    Stop(Cause),
}

impl<T> Active<T> {
    pub(crate) fn new(seq: u64, started: Instant, limits: Option<Box<Limits>>, item: T) -> Self {
        Self {
            seq,
            started,
            progress: started,
            stage: Stage::Live,
            suspected: false,
            threadless: limits.as_ref().is_some_and(|limits| limits.threadless),
            thread_lost: false,
            limits,
            item,
        }
    }

    /// Returns whether this task has no limits of its own and nothing was ever held against it.
    pub(crate) fn is_usual(&self) -> bool {
        self.stage == Stage::Live && !self.suspected && self.limits.is_none()
    }

    /// Puts another usual task in the place of this one, which [was usual](Self::is_usual), too.
    pub(crate) fn replace(&mut self, seq: u64, started: Instant, item: T) {
        self.seq = seq;
        self.started = started;
        self.progress = started;
        self.item = item;
    }

    pub(crate) fn renew(&mut self, at: Instant) {
        if at > self.progress {
            self.progress = at;
            self.suspected = false;
        }
    }

    fn budget(&self) -> Option<Duration> {
        self.limits.as_ref().and_then(|limits| limits.budget)
    }

    /// Returns whether its caller has no answer yet.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Live | Stage::Asked { .. })
    }

    /// Returns the silence that is too long, and what it is called then.
    fn silence(&self, config: &LaneConfig) -> Option<(Duration, Cause)> {
        match self
            .limits
            .as_ref()
            .map_or(IdleLimit::LaneCeiling, |limits| limits.idle)
        {
            IdleLimit::LaneCeiling => config
                .stall_ceiling
                .span()
                .map(|span| (span, Cause::Stalled)),
            IdleLimit::After(span) => Some((
                span,
                Cause::TimedOut {
                    kind: Timeout::Idle,
                    limit: span,
                },
            )),
            IdleLimit::Never => None,
        }
    }

    pub(crate) fn judge(&self, config: &LaneConfig, now: Instant) -> Judgement {
        let ran = now.saturating_duration_since(self.started);
        if let Some(limit) = self.budget().filter(|limit| ran >= *limit) {
            return Judgement::Stop(Cause::TimedOut {
                kind: Timeout::Budget,
                limit,
            });
        }
        let Some((span, cause)) = self.silence(config) else {
            return Judgement::Fine;
        };
        let silent = now.saturating_duration_since(self.progress);
        if silent >= span {
            Judgement::Stop(cause)
        } else if !self.suspected && silent >= suspicion(span) {
            Judgement::Suspect
        } else {
            Judgement::Fine
        }
    }

    /// Returns when this task has to be looked at next. An addition that overflows means never.
    pub(crate) fn due(&self, config: &LaneConfig) -> Option<Instant> {
        match self.stage {
            Stage::Live => {
                let budget = self
                    .budget()
                    .and_then(|span| self.started.checked_add(span));
                let silence = self.silence(config).and_then(|(span, _)| {
                    let span = if self.suspected {
                        span
                    } else {
                        suspicion(span)
                    };
                    self.progress.checked_add(span)
                });
                earlier(budget, silence)
            }
            Stage::Asked { until } | Stage::Cancelling { until } => Some(until),
            Stage::Abandoned(_) => None,
        }
    }
}

/// A task is suspected at four fifths of the silence that stops it.
fn suspicion(span: Duration) -> Duration {
    span / 5 * 4
}

pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}
