//! Takes the lock: performs the steps of the protocol on a real directory.

mod judging;
mod publishing;

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::claim::{Claim, GuardText, STATE_AT, State};
use crate::draft::Draft;
use crate::error::{AcquireError, HeldReason};
use crate::files::{self, FileId, GUARD, Guard, Opened};
use crate::filesystem::{self, FileSystem};
use crate::holder::Holder;
use crate::lock::{Parts, SessionLock};
use crate::options::{LockOptions, Wait};
use crate::probe::SystemProbe;
use crate::protocol::{Acquisition, Answer, Because, Step, Turn};
use crate::readable;
use crate::registry::Registration;
use crate::sys;

/// How often a locked guard that nobody alive lays claim to is tried again: its owner may be between locking and
/// publishing, or another process may have it open between its fork and its exec.
const ORPHAN_TRIES: u32 = 30;

/// One attempt and all that it has opened so far.
pub(crate) struct Attempt<'a> {
    options: &'a LockOptions,
    path: &'a Path,
    /// Open from the first step until the lock takes it over.
    dir: Option<OwnedFd>,
    dir_id: FileId,
    probe: SystemProbe,
    guard: Option<Guard>,
    text: GuardText,
    guard_length: usize,
    /// The record that was judged, kept open so that its inode cannot be given to another file.
    judged: Option<(File, Option<Claim>)>,
    held: Option<(Option<Holder>, HeldReason)>,
    own: Option<(Claim, Draft)>,
    /// Whether our claim stands in the guard.
    claimed: bool,
    /// What the exchange brought out.
    displaced: Option<FileId>,
    registration: Option<Registration>,
}

impl<'a> Attempt<'a> {
    pub(crate) fn new(options: &'a LockOptions, path: &'a Path) -> Result<Self, AcquireError> {
        let io = |doing| {
            move |source| AcquireError::Io {
                doing,
                path: path.to_owned(),
                source,
            }
        };
        let dir = files::open_directory(path).map_err(io("open the directory"))?;
        let shared = match filesystem::of(&dir) {
            FileSystem::Local => false,
            FileSystem::Shared => true,
            FileSystem::Network(name) => {
                return Err(AcquireError::NetworkFileSystem {
                    path: path.to_owned(),
                    name,
                });
            }
        };
        let dir_id = FileId::of(&dir).map_err(io("look at the directory"))?;
        Ok(Self {
            options,
            path,
            dir: Some(dir),
            dir_id,
            probe: SystemProbe::on(shared),
            guard: None,
            text: GuardText::default(),
            guard_length: 0,
            judged: None,
            held: None,
            own: None,
            claimed: false,
            displaced: None,
            registration: None,
        })
    }

    /// Returns whether the path still leads to the directory that was opened.
    pub(crate) fn is_current(&self) -> bool {
        FileId::of_path(self.path).is_ok_and(|id| id == self.dir_id)
    }

    /// Returns whether others wait for the lock already.
    pub(crate) fn is_awaited(&mut self) -> Result<bool, AcquireError> {
        self.open_guard()?;
        Ok(sys::is_awaited(&self.guard().file))
    }

    /// Marks this attempt as one that waits, for as long as it does.
    pub(crate) fn mark_waiting(&mut self, waiting: bool) {
        if let Some(guard) = &self.guard
            && let Err(error) = sys::set_waiting(&guard.file, waiting)
        {
            log::debug!("failed to mark a waiter: {error}");
        }
    }

    pub(crate) fn run(&mut self) -> Result<SessionLock, AcquireError> {
        let mut tries = 0;
        loop {
            let mut machine = Acquisition::new();
            let mut step = machine.first();
            let because = loop {
                let answer = self.perform(step)?;
                if let Some(observer) = &self.options.observer {
                    observer(step);
                }
                match machine.next(answer) {
                    Turn::Do(next) => step = next,
                    Turn::Acquired => return Ok(self.finish()),
                    Turn::Held(because) => break because,
                }
            };
            let (holder, reason) = match because {
                Because::GuardBusy => match self.explain_busy(tries)? {
                    Some(explained) => explained,
                    None if tries < ORPHAN_TRIES => {
                        tries += 1;
                        if tries < judging::TRIES_WITHOUT_SEARCH {
                            std::thread::yield_now();
                        } else {
                            readable::moment();
                        }
                        continue;
                    }
                    None => (None, HeldReason::Inherited { pids: Vec::new() }),
                },
                Because::RecordHolds => self.held.take().unwrap_or((None, HeldReason::Unknown)),
                Because::StillRunning => (self.judged_holder(), HeldReason::Unguarded),
                Because::Unsettled => (None, HeldReason::Unsettled),
            };
            return Err(AcquireError::Held {
                path: self.path.to_owned(),
                holder,
                reason,
            });
        }
    }

    fn perform(&mut self, step: Step) -> Result<Answer<FileId>, AcquireError> {
        match step {
            Step::OpenGuard => self.open_guard(),
            Step::LockGuard => self.lock_guard(),
            Step::CheckGuard | Step::ConfirmGuard => self.check_guard(),
            Step::ReadGuard => self.read_guard(),
            Step::ReadRecord => self.read_record(),
            Step::AwaitExit => Ok(self.await_exit()),
            Step::ClearMarker => Ok(self.clear_marker()),
            Step::WriteClaim => self.write_claim(),
            Step::LinkRecord => self.link_record(),
            Step::StageRecord => self.stage_record(),
            Step::ExchangeRecords => self.exchange_records(),
            Step::LookAtDisplaced => Ok(self.look_at_displaced()),
            Step::GiveBack => self.give_back(),
            Step::DropStaged => self.drop_staged(),
            Step::UnlinkRecord => self.unlink_record(),
            Step::VoidRecord => self.void_record(),
            Step::MarkFree => self.mark_free(),
            Step::UnlockGuard => self.unlock_guard(),
        }
    }

    fn dir(&self) -> BorrowedFd<'_> {
        let dir = self.dir.as_ref();
        dir.expect("because only the finished attempt gives it away")
            .as_fd()
    }

    fn io(
        &self,
        doing: &'static str,
        name: &'static CStr,
    ) -> impl FnOnce(io::Error) -> AcquireError + use<'a> {
        let dir = self.path;
        move |source| {
            let path = files::path_of(dir, name);
            AcquireError::Io {
                doing,
                path,
                source,
            }
        }
    }

    fn guard(&mut self) -> &mut Guard {
        self.guard
            .as_mut()
            .expect("because every step but the first comes after the guard was opened")
    }

    /// Returns our record, and the directory that it goes to.
    fn draft(&mut self) -> (&mut Draft, BorrowedFd<'_>) {
        let dir = self.dir.as_ref();
        let dir = dir.expect("because only the finished attempt gives it away");
        let own = self.own.as_mut();
        let (_claim, draft) =
            own.expect("because the claim is written before the record is published");
        (draft, dir.as_fd())
    }

    fn own(&mut self) -> &mut (Claim, Draft) {
        self.own
            .as_mut()
            .expect("because the claim is written before the record is published")
    }

    fn open_guard(&mut self) -> Result<Answer<FileId>, AcquireError> {
        // A waiting attempt keeps the guard open from try to try: closing it would wake every other waiter.
        let kept = self.guard.as_ref().map(|guard| guard.id);
        if kept.is_some()
            && kept == FileId::at(self.dir(), GUARD).map_err(self.io("look at", GUARD))?
        {
            return Ok(Answer::Done);
        }
        self.guard = None;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT;
        match files::open_regular(self.dir(), GUARD, flags)
            .map_err(self.io("open the guard", GUARD))?
        {
            Opened::Regular(file, id, stat) => {
                files::ensure_mode(&file, &stat, Mode::S_IRUSR | Mode::S_IWUSR)
                    .map_err(self.io("set the permissions of", GUARD))?;
                self.guard = Some(Guard::new(file, id));
                Ok(Answer::Done)
            }
            Opened::Other(node) => Err(AcquireError::Refused {
                path: files::path_of(self.path, GUARD),
                node,
            }),
            // It was created just now: only the directory itself can be gone.
            Opened::Absent => Err(self.io("create the guard", GUARD)(
                io::ErrorKind::NotFound.into(),
            )),
        }
    }

    fn lock_guard(&mut self) -> Result<Answer<FileId>, AcquireError> {
        let error = self.io("lock the guard", GUARD);
        let locked = self.guard().try_lock().map_err(error)?;
        Ok(if locked { Answer::Done } else { Answer::Busy })
    }

    fn check_guard(&mut self) -> Result<Answer<FileId>, AcquireError> {
        let now = FileId::at(self.dir(), GUARD).map_err(self.io("look at", GUARD))?;
        Ok(if now == Some(self.guard().id) {
            Answer::Done
        } else {
            Answer::Replaced
        })
    }

    fn read_guard(&mut self) -> Result<Answer<FileId>, AcquireError> {
        let error = self.io("read the guard", GUARD);
        let bytes = files::read_small(&self.guard().file).map_err(error)?;
        self.text = GuardText::parse(&bytes);
        self.guard_length = bytes.len();
        Ok(Answer::Done)
    }

    fn mark_free(&mut self) -> Result<Answer<FileId>, AcquireError> {
        let error = self.io("write the guard", GUARD);
        self.claimed = false;
        mark(self.guard(), State::Free).map_err(error)?;
        Ok(Answer::Done)
    }

    fn unlock_guard(&mut self) -> Result<Answer<FileId>, AcquireError> {
        let error = self.io("unlock the guard", GUARD);
        self.claimed = false;
        self.guard().unlock().map_err(error)?;
        self.registration = None;
        Ok(Answer::Done)
    }

    fn finish(&mut self) -> SessionLock {
        if self.options.wait != Wait::Never {
            self.mark_waiting(false);
        }
        let (claim, draft) = self.own.take().expect("because the record was published");
        self.claimed = false;
        log::debug!(
            "acquired `{}`, generation {}",
            self.path.display(),
            claim.generation
        );
        SessionLock::from_parts(Parts {
            path: self.path.to_owned(),
            dir: self
                .dir
                .take()
                .expect("because an attempt is finished once"),
            dir_id: self.dir_id,
            guard: self.guard.take().expect("because the guard was locked"),
            draft,
            claim,
            probe: self.probe,
            observer: self.options.observer.clone(),
            registration: self.registration.take(),
        })
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut undone = Ok(());
        if let (Some((_claim, draft)), Some(dir)) = (&mut self.own, &self.dir) {
            undone = draft.drop_staged(dir.as_fd());
        }
        // An attempt that failed half-way must not leave a claim that reads as held while its process lives.
        if let (true, Some(guard)) = (self.claimed, &self.guard) {
            undone = undone.and(mark(guard, State::Free));
        }
        if let Err(error) = undone {
            log::warn!(
                "failed to undo an attempt on `{}`: {error}",
                self.path.display()
            );
        }
    }
}

/// Changes the state word of the guard's first line.
pub(crate) fn mark(guard: &Guard, state: State) -> io::Result<()> {
    guard.file.write_all_at(state.word().as_bytes(), STATE_AT)
}
