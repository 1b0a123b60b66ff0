//! How often what occurred: a simulation in which a thing never happens proves nothing about it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// What the generator did to the world.
    Fault,
    /// What happened in the world.
    Event,
    /// A state of the closed list that a chat was in after an event.
    State,
    /// A rule of the exit classifier that judged an ending.
    Rule,
    /// What a machine told.
    Notice,
    /// A decision of the pure core about a start.
    Decision,
}

/// The counts of one run or of many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    counts: BTreeMap<(Kind, Cow<'static, str>), u64>,
}

impl Census {
    pub(super) fn count(&mut self, kind: Kind, name: impl Into<Cow<'static, str>>) {
        *self.counts.entry((kind, name.into())).or_default() += 1;
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.counts {
            *self.counts.entry(key.clone()).or_default() += count;
        }
    }

    /// Returns how often this occurred.
    #[must_use]
    pub fn of(&self, kind: Kind, name: &str) -> u64 {
        let key = (kind, Cow::Owned(name.to_owned()));
        self.counts.get(&key).copied().unwrap_or(0)
    }

    /// Returns all names of one kind with their counts.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = (&str, u64)> {
        self.counts
            .iter()
            .filter(move |((of, _), _)| *of == kind)
            .map(|((_, name), count)| (name.as_ref(), *count))
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((kind, name), count) in &self.counts {
            let kind = match kind {
                Kind::Fault => "fault",
                Kind::Event => "event",
                Kind::State => "state",
                Kind::Rule => "rule",
                Kind::Notice => "notice",
                Kind::Decision => "decision",
            };
            writeln!(f, "{kind:<9} {name:<28} {count:>12}")?;
        }
        Ok(())
    }
}
