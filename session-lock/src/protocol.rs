//! The protocol as a machine: which step comes next, given how the last one went.
//!
//! Nothing here touches a file. The driver in `attempt.rs` performs the steps on a directory; the model in
//! `tests/model.rs` performs the same steps on a pretended one, in every order that three processes can produce.

/// One step of taking or releasing the lock. Each is one change that others can see, or one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Open the guard, creating it where it is missing.
    OpenGuard,
    /// Try to lock the guard.
    LockGuard,
    /// See whether the guard's name still leads to the file that was locked.
    CheckGuard,
    /// Read what the guard says.
    ReadGuard,
    /// Read the record and judge its owner.
    ReadRecord,
    /// Wait a moment for an owner that lost the guard and is perhaps just ending.
    AwaitExit,
    /// Remove a release request that was meant for somebody before us.
    ClearMarker,
    /// Write who we are, with the next generation, into the guard.
    WriteClaim,
    /// Give our finished record its name, unless the name is taken.
    LinkRecord,
    /// Give our finished record a temporary name.
    StageRecord,
    /// Exchange our record with the one that was judged.
    ExchangeRecords,
    /// See which record the exchange brought out.
    LookAtDisplaced,
    /// Exchange again, because it was not the record that was judged.
    GiveBack,
    /// Remove the temporary name.
    DropStaged,
    /// See whether the guard's name still leads to our guard, now that the record is published.
    ConfirmGuard,
    /// Remove our record, unless the name leads to another file by now.
    UnlinkRecord,
    /// See whether our record still has a name somewhere, and if so make it say nothing: somebody whose guard was
    /// deleted may have it in hand after an exchange, about to give it back.
    VoidRecord,
    /// Mark our claim in the guard as given up.
    MarkFree,
    /// Unlock the guard.
    UnlockGuard,
}

/// The steps of releasing a lock that no child has borrowed, in order.
///
/// The record goes first, so that nobody who wins the guard finds the record of a process that is alive and no
/// longer holds it; the guard is unlocked by an explicit call, because a child between its fork and its exec still
/// has a copy of the descriptor.
pub const RELEASE: [Step; 4] = [
    Step::UnlinkRecord,
    Step::VoidRecord,
    Step::MarkFree,
    Step::UnlockGuard,
];

/// How a step went. `F` tells files apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer<F> {
    /// It was done, or what was looked for is so.
    Done,
    /// Another has the guard ([`Step::LockGuard`]).
    Busy,
    /// The guard's name leads to another file, or nowhere ([`Step::CheckGuard`], [`Step::ConfirmGuard`]).
    Replaced,
    /// There is no record ([`Step::ReadRecord`], [`Step::ExchangeRecords`]).
    Absent,
    /// The name is taken ([`Step::LinkRecord`]).
    Taken,
    /// There is a record ([`Step::ReadRecord`]).
    Found(F, Verdict),
    /// This is the file that the exchange brought out ([`Step::LookAtDisplaced`]).
    Displaced(F),
    /// The owner did not end ([`Step::AwaitExit`]).
    StillRunning,
}

/// What a record's owner is, to somebody who has just won the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is gone, or never was: the record may be replaced.
    Stale,
    /// It has the lock although it does not have the guard.
    Holds,
    /// It took part in the protocol, seems to run, and yet let the guard go: it may be ending this very moment.
    PerhapsEnding,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Turn {
    /// Perform a step and come back with its answer.
    Do(Step),
    /// The lock is ours.
    Acquired,
    /// Another has the lock.
    Held(Because),
}

/// Why another has the lock, as far as the machine knows; the driver knows who.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Because {
    /// The guard is locked.
    GuardBusy,
    /// The record was judged so.
    RecordHolds,
    /// The owner of the record runs without the guard.
    StillRunning,
    /// The files changed under our hands too often.
    Unsettled,
}

/// How often an acquisition starts over before it gives up. Each turn means that another process, or a user with
/// `rm`, changed the files in the middle of it.
const MOST_TURNS: u8 = 64;

/// What an acquisition is going to do with the name of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Plan<F> {
    /// The name is free.
    Link,
    /// The name leads to this file, which is stale.
    Replace(F),
}

/// Where `DropStaged` leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum After {
    Published,
    StartOver,
}

/// One attempt to take the lock. `F` tells files apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Acquisition<F> {
    at: Step,
    plan: Plan<F>,
    after_drop: After,
    verdict: Option<Because>,
    claimed: bool,
    turns: u8,
}

impl<F: Copy + Eq> Default for Acquisition<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: Copy + Eq> Acquisition<F> {
    /// Returns an attempt whose first step is [`Step::OpenGuard`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            at: Step::OpenGuard,
            plan: Plan::Link,
            after_drop: After::StartOver,
            verdict: None,
            claimed: false,
            turns: 0,
        }
    }

    /// Returns the step to perform first.
    #[must_use]
    pub fn first(&self) -> Step {
        self.at
    }

    /// Returns what comes after the current step went like this.
    ///
    /// # Panics
    ///
    /// Panics on an answer that the current step cannot have.
    #[expect(
        clippy::match_same_arms,
        reason = "one arm for each transition reads as a table"
    )]
    #[must_use = "the turn says what to do next"]
    pub fn next(&mut self, answer: Answer<F>) -> Turn {
        use Answer::{Absent, Busy, Displaced, Done, Found, Replaced, StillRunning, Taken};
        match (self.at, answer) {
            (Step::OpenGuard, Done) => self.go(Step::LockGuard),
            (Step::LockGuard, Done) => self.go(Step::CheckGuard),
            (Step::LockGuard, Busy) => Turn::Held(Because::GuardBusy),
            (Step::CheckGuard, Done) => self.go(Step::ReadGuard),
            (Step::CheckGuard, Replaced) => self.again(Step::OpenGuard),
            (Step::ReadGuard, Done) => self.go(Step::ReadRecord),

            (Step::ReadRecord, Absent) => {
                self.plan = Plan::Link;
                self.go(Step::ClearMarker)
            }
            (Step::ReadRecord, Found(_, Verdict::Holds)) => self.let_go(Because::RecordHolds),
            (Step::ReadRecord, Found(file, Verdict::PerhapsEnding)) => {
                self.plan = Plan::Replace(file);
                self.go(Step::AwaitExit)
            }
            (Step::ReadRecord, Found(file, Verdict::Stale)) => {
                self.plan = Plan::Replace(file);
                self.go(Step::ClearMarker)
            }
            (Step::AwaitExit, Done) => self.go(Step::ClearMarker),
            (Step::AwaitExit, StillRunning) => self.let_go(Because::StillRunning),

            (Step::ClearMarker, Done) => self.go(Step::WriteClaim),
            (Step::WriteClaim, Done) => {
                self.claimed = true;
                match self.plan {
                    Plan::Link => self.go(Step::LinkRecord),
                    Plan::Replace(_) => self.go(Step::StageRecord),
                }
            }
            (Step::LinkRecord, Done) => self.go(Step::ConfirmGuard),
            // A tool that does not know the guard was faster.
            (Step::LinkRecord, Taken) => self.again(Step::ReadRecord),

            (Step::StageRecord, Done) => self.go(Step::ExchangeRecords),
            (Step::ExchangeRecords, Done) => self.go(Step::LookAtDisplaced),
            (Step::ExchangeRecords, Absent) => self.drop_staged(After::StartOver),
            (Step::LookAtDisplaced, Displaced(file)) if self.plan == Plan::Replace(file) => {
                self.drop_staged(After::Published)
            }
            // Between judging and exchanging, a tool that does not know the guard, or somebody whose guard was
            // deleted, replaced the record: what came out may be a live owner's.
            (Step::LookAtDisplaced, Displaced(_)) => self.go(Step::GiveBack),
            (Step::GiveBack, Done) => self.drop_staged(After::StartOver),
            (Step::DropStaged, Done) => match self.after_drop {
                After::Published => self.go(Step::ConfirmGuard),
                After::StartOver => self.again(Step::ReadRecord),
            },

            (Step::ConfirmGuard, Done) => Turn::Acquired,
            // The guard was deleted before our record stood: somebody with a new guard may have come and gone in
            // between with a higher generation than ours. Withdraw and take the new guard.
            (Step::ConfirmGuard, Replaced) => self.go(Step::UnlinkRecord),
            (Step::UnlinkRecord, Done) => self.go(Step::VoidRecord),
            (Step::VoidRecord, Done) => self.go(Step::UnlockGuard),

            (Step::MarkFree, Done) => self.go(Step::UnlockGuard),
            (Step::UnlockGuard, Done) => match self.verdict {
                Some(because) => Turn::Held(because),
                None => self.again(Step::OpenGuard),
            },
            // The pairs that are left cannot happen, whatever the files look like.
            (step, _) => unreachable!("because {step:?} has no such answer"),
        }
    }

    fn go(&mut self, step: Step) -> Turn {
        self.at = step;
        Turn::Do(step)
    }

    fn again(&mut self, step: Step) -> Turn {
        self.turns += 1;
        if step == Step::OpenGuard {
            self.claimed = false;
        }
        if self.turns < MOST_TURNS {
            self.go(step)
        } else {
            self.let_go(Because::Unsettled)
        }
    }

    fn drop_staged(&mut self, then: After) -> Turn {
        self.after_drop = then;
        self.go(Step::DropStaged)
    }

    /// Gives the guard up, with our claim in it if it is there already.
    fn let_go(&mut self, because: Because) -> Turn {
        self.verdict = Some(because);
        let step = if self.claimed {
            Step::MarkFree
        } else {
            Step::UnlockGuard
        };
        self.go(step)
    }
}
