//! What a verb ended: handlers are counted as handlers, everybody else as a process.

use std::iter::Sum;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// How many processes were ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Handlers, whether they left when they were asked or had to be ended.
    #[serde(rename = "handlers_ended", default)]
    pub handlers: u32,
    /// Other processes: what was below handlers, and what dead ones had left.
    #[serde(rename = "others_ended", default)]
    pub others: u32,
}

impl Ended {
    /// So many of each.
    pub(crate) fn of(handlers: usize, others: usize) -> Self {
        let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            handlers: number(handlers),
            others: number(others),
        }
    }

    /// `2 handlers and 1 other process ended`; `None` where nobody was.
    #[must_use]
    pub fn in_words(self) -> Option<String> {
        let handlers = match self.handlers {
            1 => "1 handler".to_owned(),
            several => format!("{several} handlers"),
        };
        let others = |what: &str| match self.others {
            1 => format!("1 {what} process"),
            several => format!("{several} {what} processes"),
        };
        match (self.handlers, self.others) {
            (0, 0) => None,
            (_, 0) => Some(format!("{handlers} ended")),
            (0, _) => Some(format!("{} ended", others("leftover"))),
            (_, _) => Some(format!("{handlers} and {} ended", others("other"))),
        }
    }
}

impl Add for Ended {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            handlers: self.handlers.saturating_add(more.handlers),
            others: self.others.saturating_add(more.others),
        }
    }
}

impl AddAssign for Ended {
    fn add_assign(&mut self, more: Self) {
        *self = *self + more;
    }
}

impl Sum for Ended {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Self::add)
    }
}

#[cfg(test)]
mod tests {
    use super::Ended;

    #[test]
    fn handlers_are_counted_as_handlers_and_other_processes_as_processes() {
        for (handlers, others, words) in [
            (0, 0, None),
            (1, 0, Some("1 handler ended")),
            (2, 0, Some("2 handlers ended")),
            (0, 1, Some("1 leftover process ended")),
            (0, 3, Some("3 leftover processes ended")),
            (1, 1, Some("1 handler and 1 other process ended")),
            (2, 3, Some("2 handlers and 3 other processes ended")),
        ] {
            let ended = Ended::of(handlers, others);
            assert_eq!(ended.in_words().as_deref(), words);
            assert_eq!(
                serde_json::to_value(ended).unwrap(),
                serde_json::json!({"handlers_ended": handlers, "others_ended": others})
            );
        }
        assert_eq!(Ended::of(1, 2) + Ended::of(3, 4), Ended::of(4, 6));
    }

    #[test]
    fn a_service_of_an_earlier_version_tells_of_handlers_alone() {
        let earlier = serde_json::json!({"handlers_ended": 2});
        assert_eq!(
            serde_json::from_value::<Ended>(earlier).unwrap(),
            Ended::of(2, 0)
        );
    }
}
