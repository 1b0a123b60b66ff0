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
}

impl Patience {
    /// This patience, and no more than `span`.
    #[must_use]
    pub fn at_most(self, span: Duration) -> Duration {
        match self {
            Self::Forever => span,
            Self::For(own) => own.min(span),
        }
    }

    /// The moment at which the patience is over.
    #[must_use]
    pub fn deadline(self) -> Option<Instant> {
        match self {
            Self::Forever => None,
            Self::For(span) => clock::steady().checked_add(span),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
