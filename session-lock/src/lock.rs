//! The lock in the hands of its holder.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::attempt::mark;
use crate::claim::{Claim, State};
use crate::draft::Draft;
use crate::error::{AcquireError, ReleaseError};
use crate::files::{self, FileId, GUARD, Guard, Opened, RECORD};
use crate::holder::Holder;
use crate::inherit;
use crate::inspect::inspect;
use crate::kind::Kind;
use crate::marker;
use crate::options::{LockOptions, Observer};
use crate::probe::SystemProbe;
use crate::protocol::{RELEASE, Step};
use crate::readable;
use crate::record::{self, Content, Record};
use crate::registry::Registration;

/// How often a lent guard is tried after the holder let it go, to prove that nobody has it any more: a process
/// between its fork and its exec has it for some microseconds.
const PROOF_TRIES: u32 = 20;

/// What an acquisition hands over.
pub(crate) struct Parts {
    pub(crate) path: PathBuf,
    pub(crate) dir: OwnedFd,
    pub(crate) dir_id: FileId,
    pub(crate) guard: Guard,
    pub(crate) draft: Draft,
    pub(crate) claim: Claim,
    pub(crate) probe: SystemProbe,
    pub(crate) observer: Option<Observer>,
    /// Taken away when the lock is.
    pub(crate) registration: Option<Registration>,
}

/// A lock on a directory, held until it is released or dropped.
///
/// In a forked child the copy of this value does nothing: the lock stays its parent's.
#[must_use = "the lock is released when this value is dropped"]
pub struct SessionLock {
    parts: Parts,
    /// Guards whose name somebody deleted; borrowers may still have them.
    former_guards: Vec<Guard>,
    holder: Holder,
    acquirer: u32,
    lent: AtomicBool,
    released: bool,
}

impl fmt::Debug for SessionLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.parts.path;
        f.debug_struct("SessionLock")
            .field("path", path)
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}

/// How a release went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Released {
    /// The directory is free.
    Released,
    /// A child that borrowed the lock still runs: the directory stays held until the last of them has ended.
    StillLent {
        /// The borrowers that could be found; empty where the system does not show them.
        pids: Vec<u32>,
    },
    /// The record is another's by now, and was left alone; or this is a copy of the handle in a forked child.
    NotMine {
        /// Whose it is, where it says.
        now: Option<Holder>,
    },
    /// The record was gone already.
    AlreadyGone,
}

/// Whether a lock still stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It does.
    Held,
    /// Something had been deleted or overwritten, and is in place again.
    Repaired,
    /// Another has the directory, or the directory itself is gone or replaced. Stop writing to it.
    Lost {
        /// Who has it now, where anybody is named.
        by: Option<Holder>,
    },
}

/// Why a lock could not be verified.
#[derive(Debug)]
#[non_exhaustive]
pub struct VerifyError {
    /// What was being done, after "failed to".
    pub doing: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {} `{}`", self.doing, self.path.display())
    }
}

impl Error for VerifyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

impl SessionLock {
    /// Returns the options of a lock that is yet to be taken.
    pub fn options() -> LockOptions {
        LockOptions::new()
    }

    /// Takes the lock on the directory `dir` if it is free now.
    ///
    /// # Errors
    ///
    /// [`AcquireError::Held`] if another has it.
    pub fn try_acquire(dir: &Path, kind: Kind) -> Result<Self, AcquireError> {
        Self::options().kind(kind).acquire(dir)
    }

    pub(crate) fn from_parts(parts: Parts) -> Self {
        Self {
            holder: Holder::from_claim(&parts.claim),
            acquirer: std::process::id(),
            former_guards: Vec::new(),
            lent: AtomicBool::new(false),
            released: false,
            parts,
        }
    }

    /// Returns the directory, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.parts.path
    }

    /// Returns what others see: this process.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Returns the fencing token of this acquisition: higher than that of every earlier one of the directory.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.parts.claim.generation
    }

    /// Returns whether somebody asked this holder to release.
    #[must_use]
    pub fn is_release_requested(&self) -> bool {
        marker::is_requested(&self.parts.path, self.holder.pid, &self.holder.since)
    }

    pub(crate) fn guard_fd(&self) -> BorrowedFd<'_> {
        self.parts.guard.file.as_fd()
    }

    pub(crate) fn note_lent(&self) {
        self.lent.store(true, Ordering::Relaxed);
    }

    /// Releases the lock.
    ///
    /// # Errors
    ///
    /// Returns an error where a file could not be changed. The guard is closed all the same, and the kernel frees
    /// it with the last process that has it open.
    pub fn release(mut self) -> Result<Released, ReleaseError> {
        self.let_go()
    }

    fn let_go(&mut self) -> Result<Released, ReleaseError> {
        self.released = true;
        if self.acquirer != std::process::id() {
            return Ok(Released::NotMine {
                now: Some(self.holder.clone()),
            });
        }
        let claimed = self.parts.guard.id;
        if self.lent.load(Ordering::Relaxed)
            && let Some(still_lent) = self.let_go_lent()?
        {
            return Ok(still_lent);
        }
        let mut outcome = Released::AlreadyGone;
        for step in RELEASE {
            if step == Step::UnlinkRecord {
                outcome = self.unlink_record()?;
            } else if step == Step::VoidRecord {
                self.parts
                    .draft
                    .void()
                    .map_err(self.failed("void", RECORD))?;
            } else if step == Step::MarkFree {
                // A guard that was made while the lock was let go has no claim in it.
                if self.parts.guard.id == claimed {
                    mark(&self.parts.guard, State::Free).map_err(self.failed("write", GUARD))?;
                }
            } else {
                let error = self.failed("unlock", GUARD);
                self.parts.guard.unlock().map_err(error)?;
                self.parts.registration = None;
            }
            if let Some(observer) = &self.parts.observer {
                observer(step);
            }
        }
        log::debug!("released `{}`: {outcome:?}", self.parts.path.display());
        Ok(outcome)
    }

    fn dir(&self) -> BorrowedFd<'_> {
        self.parts.dir.as_fd()
    }

    fn failed(
        &self,
        doing: &'static str,
        name: &std::ffi::CStr,
    ) -> impl FnOnce(io::Error) -> ReleaseError + use<> {
        let path = files::path_of(&self.parts.path, name);
        move |source| ReleaseError {
            doing,
            path,
            source,
        }
    }

    /// Removes the record if the name still leads to ours.
    fn unlink_record(&self) -> Result<Released, ReleaseError> {
        let dir = self.parts.dir.as_fd();
        let now = FileId::at(dir, RECORD).map_err(self.failed("look at", RECORD))?;
        if now == Some(self.parts.draft.id) {
            files::remove(dir, RECORD).map_err(self.failed("remove", RECORD))?;
            return Ok(Released::Released);
        }
        Ok(if now.is_none() {
            Released::AlreadyGone
        } else {
            Released::NotMine {
                now: self.record_owner(),
            }
        })
    }

    /// Returns whom the record in place names.
    fn record_owner(&self) -> Option<Holder> {
        let opened = files::open_regular(self.parts.dir.as_fd(), RECORD, OFlag::O_RDONLY).ok()?;
        let Opened::Regular(file, _, _) = opened else {
            return None;
        };
        match record::parse(&files::read_small(&file).ok()?) {
            Content::Complete(record) | Content::Unterminated(record) => {
                Some(Holder::from_record(&record, None))
            }
            Content::InFlight | Content::Corrupt => None,
        }
    }

    /// Lets a lent guard go: returns `None` once the guard is provably this handle's alone, and locked.
    ///
    /// To unlock it now would free it under the borrowers too, because they share the open file. So this process
    /// closes its part and tries the guard anew: whoever gets it knows that nobody else has it.
    fn let_go_lent(&mut self) -> Result<Option<Released>, ReleaseError> {
        // Whatever goes wrong from here on, no drop may free the guard under a borrower.
        self.parts.guard.leave();
        self.former_guards.iter_mut().for_each(Guard::leave);
        let stranded = borrowers(self.former_guards.iter().map(|guard| guard.id));
        if !stranded.is_empty() {
            // They have a guard that lost its name, which nobody who comes will ask. Only the claim is left to speak
            // for them, as long as this process lives.
            return Ok(Some(Released::StillLent { pids: stranded }));
        }
        mark(&self.parts.guard, State::Left).map_err(self.failed("write", GUARD))?;
        let opened = files::open_regular(self.dir(), GUARD, OFlag::O_RDWR | OFlag::O_CREAT);
        let Opened::Regular(file, id, _) = opened.map_err(self.failed("open", GUARD))? else {
            return Err(self.failed("open", GUARD)(
                io::ErrorKind::AlreadyExists.into(),
            ));
        };
        let lent = self.parts.guard.id;
        self.parts.guard = Guard::new(file, id);
        for _ in 0..PROOF_TRIES {
            let pids = borrowers([lent]);
            if !pids.is_empty() {
                return Ok(Some(Released::StillLent { pids }));
            }
            let error = self.failed("lock", GUARD);
            if self.parts.guard.try_lock().map_err(error)? {
                return Ok(None);
            }
            // Somebody may have taken it in between: the guard says that we left.
            let in_place = self.parts.draft.is_in_place(self.dir());
            if !in_place.map_err(self.failed("look at", RECORD))? {
                return Ok(Some(Released::Released));
            }
            readable::moment();
        }
        Ok(Some(Released::StillLent { pids: Vec::new() }))
    }

    /// Returns whether the path still leads to the directory that is locked.
    pub(crate) fn is_in_place(&self) -> bool {
        FileId::of_path(&self.parts.path).is_ok_and(|id| id == self.parts.dir_id)
    }

    /// Looks whether the lock still stands, and puts back what was deleted. To be called between two pieces of work.
    ///
    /// # Errors
    ///
    /// Returns an error where the files can be neither read nor put back.
    pub fn verify(&mut self) -> Result<Standing, VerifyError> {
        if self.acquirer != std::process::id() {
            return Ok(Standing::Lost {
                by: Some(self.holder.clone()),
            });
        }
        let path = self.parts.path.clone();
        if !self.is_in_place() {
            let by = inspect(&path).ok().filter(crate::Inspection::is_held);
            return Ok(Standing::Lost {
                by: by.and_then(|found| found.holder().cloned()),
            });
        }
        let record = self.verify_record()?;
        if matches!(record, Standing::Lost { .. }) {
            return Ok(record);
        }
        let guard_is_new = self.verify_guard()?;
        Ok(if guard_is_new {
            Standing::Repaired
        } else {
            record
        })
    }

    fn unverified(
        &self,
        doing: &'static str,
        name: &std::ffi::CStr,
    ) -> impl Fn(io::Error) -> VerifyError + use<> {
        let path = files::path_of(&self.parts.path, name);
        move |source| VerifyError {
            doing,
            path: path.clone(),
            source,
        }
    }

    fn verify_record(&mut self) -> Result<Standing, VerifyError> {
        let failed = self.unverified("publish again", RECORD);
        let claim = &self.parts.claim;
        let text = Record {
            pid: claim.process.pid,
            since: claim.at.clone(),
            kind: claim.kind.clone(),
        }
        .format();
        let dir = self.parts.dir.as_fd();
        let now = FileId::at(dir, RECORD).map_err(self.unverified("look at", RECORD))?;
        if now == Some(self.parts.draft.id) {
            return Ok(Standing::Held);
        }
        let by = self.record_owner();
        if by.as_ref().is_some_and(|holder| {
            !self.parts.probe.ask(&holder.claimant()).is_gone() && holder.pid != self.acquirer
        }) {
            return Ok(Standing::Lost { by });
        }
        let mut draft = Draft::create(dir, text).map_err(&failed)?;
        if let Some(judged) = now {
            draft.stage(dir).map_err(&failed)?;
            if draft.exchange(dir, judged).map_err(&failed)? != judged {
                // Another tool put its record there after we looked.
                draft.give_back(dir).map_err(&failed)?;
                draft.drop_staged(dir).map_err(&failed)?;
                return Ok(Standing::Lost {
                    by: self.record_owner(),
                });
            }
            draft.drop_staged(dir).map_err(&failed)?;
        } else if !draft.link(dir).map_err(&failed)? {
            return Ok(Standing::Lost {
                by: self.record_owner(),
            });
        }
        self.parts.draft = draft;
        Ok(Standing::Repaired)
    }

    /// Locks a new guard if the name no longer leads to ours; returns whether it did.
    fn verify_guard(&mut self) -> Result<bool, VerifyError> {
        let failed = self.unverified("put back", GUARD);
        let dir = self.parts.dir.as_fd();
        if FileId::at(dir, GUARD).map_err(&failed)? == Some(self.parts.guard.id) {
            return Ok(false);
        }
        let opened =
            files::open_regular(dir, GUARD, OFlag::O_RDWR | OFlag::O_CREAT).map_err(&failed)?;
        let Opened::Regular(file, id, stat) = opened else {
            return Err(failed(io::ErrorKind::AlreadyExists.into()));
        };
        files::ensure_mode(&file, &stat, Mode::S_IRUSR | Mode::S_IWUSR).map_err(&failed)?;
        let mut guard = Guard::new(file, id);
        if !guard.try_lock().map_err(&failed)? {
            // Somebody else is just trying. It will find our record and let go; the next look puts the guard back.
            return Ok(false);
        }
        let text = self.parts.claim.format();
        guard
            .file
            .write_all_at(text.as_bytes(), 0)
            .and_then(|()| guard.file.set_len(text.len() as u64))
            .map_err(&failed)?;
        self.former_guards
            .push(std::mem::replace(&mut self.parts.guard, guard));
        Ok(true)
    }
}

/// Returns the processes that have one of the guards through a descriptor that was lent to them.
fn borrowers(guards: impl IntoIterator<Item = FileId>) -> Vec<u32> {
    let found = guards.into_iter().flat_map(inherit::inheritors);
    let mut pids: Vec<u32> = found.filter(|it| it.lent).map(|it| it.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

impl Drop for SessionLock {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        if let Err(error) = self.let_go() {
            let cause = &error.source;
            log::warn!(
                "failed to release `{}`: {error}: {cause}",
                self.parts.path.display()
            );
        }
    }
}
