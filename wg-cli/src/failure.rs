//! What every verb returns when it did not do what it was asked: one sentence with cause and cure, and an exit code.

use std::error::Error;
use std::fmt;

use crate::exit_code::ExitCode;

/// The end of an error's way: it is shown to a person and becomes an exit code.
///
/// `Display` tells everything, causes included: `message: cause: its cause (cure)`. So [`Error::source`] is `None` here, and nobody who
/// prints a chain says the cause twice.
#[derive(Debug)]
pub struct Failure {
    /// What the process exits with.
    pub code: ExitCode,
    message: String,
    cure: Option<String>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

/// An error and what it came from, each in its own words.
fn chain(mut next: Option<&dyn Error>) -> Vec<String> {
    let mut told = Vec::new();
    while let Some(error) = next {
        told.push(error.to_string());
        next = error.source();
    }
    told
}

/// Returns an error with its causes, as a [`Failure`] tells them: for a line of a log.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    chain(Some(error)).join(": ")
}

/// What a verb of `wg` returns.
pub type Outcome<T = ExitCode> = Result<T, Failure>;

impl Failure {
    /// Returns a failure that says `message`: lower case, no period.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            cure: None,
            cause: None,
        }
    }

    /// Adds what the user can do about it, shown in parentheses.
    #[must_use]
    pub fn with_cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    /// Adds the error that led to this one.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Returns what failed, without cause and cure.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns what the user can do about it.
    #[must_use]
    pub fn cure(&self) -> Option<&str> {
        self.cure.as_deref()
    }

    /// Returns the causes, the nearest first.
    #[must_use]
    pub fn causes(&self) -> Vec<String> {
        chain(self.cause.as_deref().map(|cause| cause as &dyn Error))
    }

    /// Returns what failed and why, without the cure.
    #[must_use]
    pub fn what_and_why(&self) -> String {
        let mut text = self.message.clone();
        for cause in self.causes() {
            text.push_str(": ");
            text.push_str(&cause);
        }
        text
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what_and_why())?;
        match &self.cure {
            Some(cure) => write!(f, " ({cure})"),
            None => Ok(()),
        }
    }
}

impl Error for Failure {}

#[cfg(test)]
mod tests {
    use super::{ExitCode, Failure};

    #[test]
    fn a_failure_reads_message_then_causes_then_cure() {
        let failure = Failure::new(ExitCode::System, "failed to read `x`")
            .with_cure("look at x")
            .caused_by(Failure::new(ExitCode::Bug, "the inner one").caused_by("the innermost"));
        assert_eq!(
            failure.to_string(),
            "failed to read `x`: the inner one: the innermost (look at x)"
        );
        assert_eq!(failure.code, ExitCode::System);
    }

    #[test]
    fn a_failure_without_cause_or_cure_is_its_message() {
        assert_eq!(Failure::new(ExitCode::Failed, "no").to_string(), "no");
    }
}
