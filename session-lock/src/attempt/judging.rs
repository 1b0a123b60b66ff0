//! Who owns the record, and who has the guard.
#![expect(
    clippy::disallowed_methods,
    reason = "this driver bounds the wait for an ending owner"
)]

use std::time::{Duration, Instant};

use nix::fcntl::OFlag;

use super::Attempt;
use crate::claim::State;
use crate::error::{AcquireError, HeldReason};
use crate::files::{self, FileId, Opened, RECORD};
use crate::holder::Holder;
use crate::inherit;
use crate::judge::Liveness;
use crate::protocol::{Answer, Verdict};
use crate::readable;
use crate::record::{self, Content, Record};
use crate::registry;
use crate::watch::PidWatch;

/// How long an owner that lost the guard may take to end. The kernel frees a flock some 10 to 60 µs before the
/// process descriptor turns readable; the rest is for a busy machine.
const EXIT_GAP: Duration = Duration::from_millis(50);

/// How often a guard that nobody alive lays claim to is tried again before all processes are searched.
pub(super) const TRIES_WITHOUT_SEARCH: u32 = 10;

impl Attempt<'_> {
    pub(super) fn read_record(&mut self) -> Result<Answer<FileId>, AcquireError> {
        let opened = files::open_regular(self.dir(), RECORD, OFlag::O_RDONLY);
        let (file, id, stat) = match opened.map_err(self.io("open the record", RECORD))? {
            Opened::Absent => {
                self.judged = None;
                return Ok(Answer::Absent);
            }
            Opened::Regular(file, id, stat) => (file, id, stat),
            Opened::Other(node) => {
                return Err(AcquireError::Refused {
                    path: files::path_of(self.path, RECORD),
                    node,
                });
            }
        };
        let bytes = files::read_small(&file).map_err(self.io("read the record", RECORD))?;
        let content = record::parse(&bytes);
        let claim = match &content {
            Content::Complete(record) => self.text.claim_of(record).cloned(),
            Content::Unterminated(_) | Content::InFlight | Content::Corrupt => None,
        };
        let verdict = match &content {
            Content::InFlight | Content::Unterminated(_)
                if self.is_young(files::modified_at(&stat))? =>
            {
                self.held = Some((None, HeldReason::Initialising));
                Verdict::Holds
            }
            Content::Complete(record) | Content::Unterminated(record) => self.judge_owner(record),
            Content::InFlight | Content::Corrupt => {
                log::warn!(
                    "replacing a record in `{}` that is none",
                    self.path.display()
                );
                Verdict::Stale
            }
        };
        self.judged = Some((file, claim));
        Ok(Answer::Found(id, verdict))
    }

    /// Judges the owner of a complete record, now that the guard is ours.
    pub(super) fn judge_owner(&mut self, record: &Record) -> Verdict {
        let claim = self.text.claim_of(record);
        let holder = Holder::from_record(record, claim);
        let ours = claim.is_some();
        let reason = match self.probe.ask(&holder.claimant()) {
            Liveness::Alive if record.pid == std::process::id() => {
                if !registry::holds(self.dir_id, self.registration.as_ref()) {
                    // Planted for us by whoever started us, left by the program that we replaced, or by a process
                    // of our number in a container that is gone.
                    log::debug!("adopting the record in `{}`", self.path.display());
                    return Verdict::Stale;
                }
                HeldReason::ThisProcess
            }
            Liveness::Alive if ours => return Verdict::PerhapsEnding,
            Liveness::Alive => HeldReason::Foreign,
            Liveness::OtherHost => HeldReason::OtherHost,
            Liveness::Unknown => HeldReason::Unknown,
            Liveness::Dead
            | Liveness::Zombie
            | Liveness::Reused
            | Liveness::Rebooted
            | Liveness::Left
            // Its number says nothing here, but the guard reaches across namespaces, and it is ours.
            | Liveness::OtherNamespace => return Verdict::Stale,
        };
        self.held = Some((Some(holder), reason));
        Verdict::Holds
    }

    /// Returns whether a file written at that time may still be in the making.
    pub(super) fn is_young(&mut self, modified_at: i128) -> Result<bool, AcquireError> {
        // The file system's clock says when our own draft was written: no other clock is comparable.
        let (_claim, draft) = self.prepare()?;
        Ok(files::is_in_the_making(modified_at, draft.written_at))
    }

    pub(super) fn await_exit(&mut self) -> Answer<FileId> {
        let Some(holder) = self.judged_holder() else {
            return Answer::StillRunning;
        };
        let deadline = Instant::now() + EXIT_GAP;
        let watch = holder.identity().map(PidWatch::of);
        loop {
            if self.probe.ask(&holder.claimant()).is_gone() {
                return Answer::Done;
            }
            let now = Instant::now();
            if now >= deadline {
                return Answer::StillRunning;
            }
            match &watch {
                // In slices, because a process is known to end before its descriptor turns readable.
                Some(Ok(Some(watch))) if watch.wait(now + readable::MOMENT).is_ok() => {}
                Some(_) | None => readable::moment(),
            }
        }
    }

    pub(super) fn judged_holder(&self) -> Option<Holder> {
        let (_file, claim) = self.judged.as_ref()?;
        claim.as_ref().map(Holder::from_claim)
    }

    /// Finds out who has the guard; `None` if nobody alive lays claim to it and nobody can be found.
    ///
    /// The search through all processes costs more than the moment for which somebody who is just taking or
    /// releasing the lock is in that state, so the first tries go without it.
    pub(super) fn explain_busy(
        &mut self,
        tries: u32,
    ) -> Result<Option<(Option<Holder>, HeldReason)>, AcquireError> {
        self.read_guard()?;
        let opened = files::open_regular(self.dir(), RECORD, OFlag::O_RDONLY);
        let record = match opened.map_err(self.io("open the record", RECORD))? {
            Opened::Regular(file, _, _) => {
                match record::parse(
                    &files::read_small(&file).map_err(self.io("read the record", RECORD))?,
                ) {
                    Content::Complete(record) => Some(record),
                    Content::Unterminated(_) | Content::InFlight | Content::Corrupt => None,
                }
            }
            Opened::Absent | Opened::Other(_) => None,
        };
        let holder = match &record {
            Some(record) => Some(Holder::from_record(record, self.text.claim_of(record))),
            None => self
                .text
                .latest()
                .filter(|claim| claim.state == State::Held)
                .map(Holder::from_claim),
        };
        if let Some(holder) = &holder {
            let reason = match self.probe.ask(&holder.claimant()) {
                Liveness::Alive => Some(HeldReason::Guarded),
                Liveness::OtherNamespace => Some(HeldReason::OtherNamespace),
                Liveness::OtherHost => Some(HeldReason::OtherHost),
                Liveness::Unknown => Some(HeldReason::Unknown),
                Liveness::Dead
                | Liveness::Zombie
                | Liveness::Reused
                | Liveness::Rebooted
                | Liveness::Left => None,
            };
            if let Some(reason) = reason {
                return Ok(Some((Some(holder.clone()), reason)));
            }
        }
        if tries < TRIES_WITHOUT_SEARCH {
            return Ok(None);
        }
        let id = self.guard().id;
        let pids: Vec<u32> = inherit::inheritors(id)
            .into_iter()
            .map(|inheritor| inheritor.pid)
            .collect();
        Ok((!pids.is_empty()).then_some((holder, HeldReason::Inherited { pids })))
    }
}
