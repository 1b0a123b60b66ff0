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
    /// The moment at which the patience is over.
    #[must_use]
    pub fn deadline(self) -> Option<Instant> {
        match self {
            Self::Forever => None,
            Self::For(span) => clock::steady().checked_add(span),
        }
    }
}
