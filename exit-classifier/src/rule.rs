//! Rules are data: what must hold, and what it then means.

use std::borrow::Cow;
use std::fmt;

use crate::{Asked, Cause, Counts, Ending, LockHolder, Observation};

/// One thing that must hold for a rule to match.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// It left with one of these codes.
    Code(Cow<'static, [i32]>),
    /// It died of one of these signals, or a known shell wrapper reported one of them with its code.
    Signal(Cow<'static, [i32]>),
    /// Its start failed with one of these error numbers.
    Errno(Cow<'static, [i32]>),
    /// Its start failed, with whatever error number.
    NeverStarted,
    /// Its status cannot be known.
    Lost,
    /// It ended in any way but with code 0.
    Failed,
    /// This had been asked of it.
    Asked(Asked),
    /// Nothing had been asked of it.
    Unasked,
    /// A live process of somebody else has the session.
    HeldByStranger,
    /// No live process of somebody else has the session.
    Uncontended,
    /// The session was held by one of our own: something that the process left behind.
    HeldByOwn,
    /// A memory watchdog had told it to drain.
    MemoryDrained,
    /// The kernel counted an out-of-memory kill in its control group.
    OomKilled,
    /// The child is a known shell wrapper.
    Wrapper,
    /// The last bytes of its standard error contain this text.
    StderrContains(Cow<'static, str>),
}

impl Condition {
    /// Returns whether this holds for what was seen.
    #[must_use]
    pub fn holds(&self, seen: &Observation<'_>) -> bool {
        match self {
            Self::Code(codes) => {
                matches!(seen.ending, Ending::Code(code) if codes.contains(&code))
            }
            Self::Signal(numbers) => seen
                .signal()
                .is_some_and(|number| numbers.contains(&number)),
            Self::Errno(numbers) => {
                matches!(seen.ending, Ending::NeverStarted { errno } if numbers.contains(&errno))
            }
            Self::NeverStarted => matches!(seen.ending, Ending::NeverStarted { .. }),
            Self::Lost => seen.ending == Ending::Lost,
            Self::Failed => !seen.ending.is_success(),
            Self::Asked(what) => seen.asked == Some(*what),
            Self::Unasked => seen.asked.is_none(),
            Self::HeldByStranger => seen.lock_holder.is_some_and(LockHolder::is_live_stranger),
            Self::Uncontended => !Self::HeldByStranger.holds(seen),
            Self::HeldByOwn => seen.lock_holder.is_some_and(|holder| holder.own_child),
            Self::MemoryDrained => seen.memory_drained,
            Self::OomKilled => seen.oom_kills > 0,
            Self::Wrapper => seen.wrapper,
            Self::StderrContains(text) => contains(seen.stderr_tail, text.as_bytes()),
        }
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty()
        || haystack
            .windows(needle.len())
            .any(|window| window == needle)
}

/// What must hold, and what it then means.
///
/// A rule matches when all its conditions hold. Its fields cannot be set one by one: cause and account have to fit together
/// ([`Cause::may_count_as`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub(crate) name: Cow<'static, str>,
    pub(crate) when: Cow<'static, [Condition]>,
    pub(crate) cause: Cause,
    pub(crate) counts: Counts,
    pub(crate) because: Cow<'static, str>,
}

impl Rule {
    /// Returns a rule that gives `cause` and `counts` when all of `when` hold; without any condition it always matches.
    ///
    /// # Errors
    ///
    /// [`RuleError::Disagrees`] where an ending of this cause cannot be charged to this account, [`RuleError::Name`] where the
    /// name is empty or has characters other than ASCII letters, digits, `_`, `-` and `.` (it is printed in sentences and logs).
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        when: impl Into<Cow<'static, [Condition]>>,
        cause: Cause,
        counts: Counts,
    ) -> Result<Self, RuleError> {
        let name = name.into();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(RuleError::Name {
                name: name.into_owned(),
            });
        }
        if !cause.may_count_as(counts) {
            return Err(RuleError::Disagrees { cause, counts });
        }
        Ok(Self {
            name,
            when: when.into(),
            cause,
            counts,
            because: Cow::Borrowed(cause.phrase()),
        })
    }

    /// Replaces the explanation, a phrase for the middle of a sentence such as "the sign-in has run out".
    ///
    /// Control characters are replaced by spaces: the phrase is printed to terminals and to one-line records.
    #[must_use]
    pub fn because(mut self, phrase: &str) -> Self {
        self.because = phrase
            .replace(|c: char| c.is_control(), " ")
            .trim()
            .to_owned()
            .into();
        self
    }

    /// A rule of this crate; that its parts fit together is checked by a test.
    pub(crate) const fn standard(
        name: &'static str,
        when: &'static [Condition],
        cause: Cause,
        counts: Counts,
        because: &'static str,
    ) -> Self {
        Self {
            name: Cow::Borrowed(name),
            when: Cow::Borrowed(when),
            cause,
            counts,
            because: Cow::Borrowed(because),
        }
    }

    /// Returns the rule's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what must hold, all of it.
    #[must_use]
    pub fn when(&self) -> &[Condition] {
        &self.when
    }

    /// Returns the cause that it gives.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    /// Returns the account that it charges.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns whether all its conditions hold for what was seen.
    #[must_use]
    pub fn matches(&self, seen: &Observation<'_>) -> bool {
        self.when.iter().all(|condition| condition.holds(seen))
    }
}

/// Why a rule could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuleError {
    /// The name cannot be printed in a sentence.
    Name {
        /// The name that was given.
        name: String,
    },
    /// Label and counter would say different things.
    Disagrees {
        /// The cause that was given.
        cause: Cause,
        /// The account that was given.
        counts: Counts,
    },
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { name } => write!(f, "`{}` is no name for a rule", name.escape_debug()),
            Self::Disagrees { cause, counts } => {
                write!(f, "an ending of cause `{cause}` cannot count as `{counts}`")
            }
        }
    }
}

impl std::error::Error for RuleError {}
