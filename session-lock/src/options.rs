//! How a lock is to be taken, and the wait for it.
#![expect(
    clippy::disallowed_methods,
    reason = "this driver waits until a deadline"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::attempt::Attempt;
use crate::error::{AcquireError, HeldReason};
use crate::kind::Kind;
use crate::lock::SessionLock;
use crate::protocol::Step;
use crate::wait;

/// How long one who just comes lets those go first who wait already.
const COURTESY: Duration = Duration::from_millis(2);

/// What to do when another holds the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Fail at once.
    Never,
    /// Wait for it until then, woken by its release or its end.
    Until(Instant),
}

/// Called after each step of an acquisition or a release.
pub(crate) type Observer = Arc<dyn Fn(Step) + Send + Sync>;

/// How to take a lock; see [`SessionLock::options`].
#[derive(Clone)]
#[must_use = "options do nothing until `acquire` is called"]
pub struct LockOptions {
    pub(crate) kind: Kind,
    pub(crate) wait: Wait,
    pub(crate) observer: Option<Observer>,
}

impl std::fmt::Debug for LockOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LockOptions")
            .field("kind", &self.kind)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

impl LockOptions {
    pub(crate) fn new() -> Self {
        Self {
            kind: Kind::Other("unnamed".to_owned()),
            wait: Wait::Never,
            observer: None,
        }
    }

    /// Sets the label that others see; `unnamed` if it is not set.
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Sets what to do when another holds the directory; [`Wait::Never`] if it is not set.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Has `observer` called after each step of the acquisition and of the release.
    ///
    /// For traces, and for tests that end the process at a chosen point.
    pub fn observe(mut self, observer: impl Fn(Step) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Takes the lock on the directory `dir`, which must exist.
    ///
    /// # Errors
    ///
    /// [`AcquireError::Held`] if another has it, for as long as was to be waited. The other variants do not go
    /// away by waiting.
    pub fn acquire(self, dir: &Path) -> Result<SessionLock, AcquireError> {
        if !self.kind.is_writable() {
            return Err(AcquireError::UnusableKind { kind: self.kind });
        }
        let mut attempt = Attempt::new(&self, dir)?;
        let deadline = match self.wait {
            Wait::Never => return attempt.run(),
            Wait::Until(deadline) => deadline,
        };
        let mut changes: Option<wait::Changes> = None;
        if attempt.is_awaited()? {
            // Whoever released the lock this very moment and wants it again would always be faster than those who
            // wait, because it runs already. It joins them, but not for long: one of them may be stopped.
            attempt.mark_waiting(true);
            changes = Some(wait::Changes::of(dir));
            if let Some(changes) = &mut changes {
                let turn = deadline.min(Instant::now() + COURTESY);
                let _in_time: bool = changes.next(None, &HeldReason::ThisProcess, turn);
            }
        }
        loop {
            let (holder, reason) = match attempt.run() {
                Err(AcquireError::Held { holder, reason, .. }) if Instant::now() < deadline => {
                    (holder, reason)
                }
                outcome => return outcome,
            };
            match &mut changes {
                // The watch exists only from here on: what happened before it did is seen by one more try.
                None => {
                    attempt.mark_waiting(true);
                    changes = Some(wait::Changes::of(dir));
                }
                Some(changes) => {
                    // Whether any time is left shows at the next turn, after one more try.
                    let _in_time: bool = changes.next(holder.as_ref(), &reason, deadline);
                }
            }
            if !attempt.is_current() {
                // Somebody replaced the directory while we waited: what its path leads to now is what counts.
                attempt = Attempt::new(&self, dir)?;
                changes = None;
            }
        }
    }
}
