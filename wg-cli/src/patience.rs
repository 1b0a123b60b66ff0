//! How long somebody waits.

use std::time::{Duration, Instant};

use crate::clock;

/// How long somebody waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Until the reply comes.
    Forever,
    /// This long.
    For(Duration),
    /// Until this moment.
    Until(Instant),
}

impl Patience {
    /// This patience, and no more than `span`.
    #[must_use]
    pub fn at_most(self, span: Duration) -> Duration {
        match self {
            Self::Forever => span,
            Self::For(own) => own.min(span),
            Self::Until(at) => at.saturating_duration_since(clock::steady()).min(span),
        }
    }

    /// The moment at which the patience is over.
    #[must_use]
    pub fn deadline(self) -> Option<Instant> {
        match self {
            Self::Forever => None,
            Self::For(span) => clock::steady().checked_add(span),
            Self::Until(at) => Some(at),
        }
    }

    /// The same patience once the wait has begun: of several steps each has what those before it left.
    #[must_use]
    pub fn begun(self) -> Self {
        self.deadline().map_or(Self::Forever, Self::Until)
    }

    /// Whether there is nothing left of it.
    #[must_use]
    pub fn is_over(self) -> bool {
        self.at_most(Duration::MAX).is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_steps_each_has_what_those_before_it_left() {
        let limit = Duration::from_secs(5);
        let begun = Patience::For(Duration::from_secs(60)).begun();
        assert_eq!(begun.begun(), begun, "the time runs from the first step on");
        assert_eq!(begun.at_most(limit), limit);
        assert!(!begun.is_over());
        let over = Patience::Until(clock::steady());
        assert_eq!(over.at_most(limit), Duration::ZERO);
        assert!(over.is_over());
        assert_eq!(Patience::Forever.begun(), Patience::Forever);
    }

    #[test]
    fn nobody_waits_longer_for_the_service_than_for_the_reply() {
        let limit = Duration::from_secs(5);
        for (patience, expected) in [
            (Patience::Forever, limit),
            (Patience::For(Duration::from_secs(60)), limit),
            (
                Patience::For(Duration::from_millis(200)),
                Duration::from_millis(200),
            ),
        ] {
            assert_eq!(patience.at_most(limit), expected, "{patience:?}");
        }
    }
}
