//! Takes the lock: performs the steps of the protocol on a real directory.
#![expect(
    clippy::disallowed_methods,
    reason = "this driver stamps the record and bounds the wait for an ending owner"
)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::claim::{Claim, GuardText, State};
use crate::error::{AcquireError, HeldReason};
use crate::files::{self, Draft, FileId, GUARD, Guard, MARKER, Opened, RECORD};
use crate::filesystem::{self, FileSystem};
use crate::holder::Holder;
use crate::identity::ProcessIdentity;
use crate::inherit;
use crate::judge::Liveness;
use crate::kind::Kind;
use crate::lock::{Parts, SessionLock};
use crate::probe::SystemProbe;
use crate::protocol::{Acquisition, Answer, Because, Step, Turn, Verdict};
use crate::record::{self, Content, Record};
use crate::registry::{self, Registration};
use crate::sys;
use crate::wait;
use crate::watch::PidWatch;

/// How long an incomplete record is taken for one that is still being written.
const IN_FLIGHT: Duration = Duration::from_secs(2);

/// How long an owner that lost the guard may take to end. The kernel frees a flock some 10 to 60 µs before the
/// process descriptor turns readable; the rest is for a busy machine.
const EXIT_GAP: Duration = Duration::from_millis(50);

/// How often a locked guard that nobody alive lays claim to is tried again: its owner may be between locking and
/// publishing, or another process may have it open between its fork and its exec.
const ORPHAN_TRIES: u32 = 20;

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
    kind: Kind,
    wait: Wait,
    observer: Option<Observer>,
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
        let mut waiting: Option<wait::Changes> = None;
        loop {
            let (holder, reason) = match attempt.run() {
                Err(AcquireError::Held { holder, reason, .. }) if Instant::now() < deadline => {
                    (holder, reason)
                }
                outcome => return outcome,
            };
            match &mut waiting {
                // The watch exists only from here on: what happened before it did is seen by one more try.
                None => waiting = Some(wait::Changes::of(dir)),
                Some(changes) => changes.next(holder.as_ref(), &reason, deadline),
            }
        }
    }
}

/// One attempt and all that it has opened so far.
struct Attempt<'a> {
    options: &'a LockOptions,
    path: &'a Path,
    dir: OwnedFd,
    dir_id: FileId,
    probe: SystemProbe,
    guard: Option<Guard>,
    text: GuardText,
    /// The record that was judged, kept open so that its inode cannot be given to another file.
    judged: Option<(std::fs::File, Option<Claim>)>,
    held: Option<(Option<Holder>, HeldReason)>,
    own: Option<(Claim, Draft)>,
    registration: Option<Registration>,
}

impl<'a> Attempt<'a> {
    fn new(options: &'a LockOptions, path: &'a Path) -> Result<Self, AcquireError> {
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
            dir,
            dir_id,
            probe: SystemProbe::on(shared),
            guard: None,
            text: GuardText::default(),
            judged: None,
            held: None,
            own: None,
            registration: None,
        })
    }

    fn run(&mut self) -> Result<SessionLock, AcquireError> {
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
                    Turn::Acquired => return self.finish(),
                    Turn::Held(because) => break because,
                }
            };
            let (holder, reason) = match because {
                Because::GuardBusy => match self.explain_busy()? {
                    Some(explained) => explained,
                    None if tries < ORPHAN_TRIES => {
                        tries += 1;
                        wait::moment();
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
            Step::LookAtDisplaced => self.look_at_displaced(),
            Step::GiveBack => self.give_back(),
            Step::DropStaged => self.drop_staged(),
            Step::UnlinkRecord => self.unlink_record(),
            Step::MarkFree => self.mark_free(),
            Step::UnlockGuard => self.unlock_guard(),
        }
    }

    fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    fn io(
        &self,
        doing: &'static str,
        name: &std::ffi::CStr,
    ) -> impl FnOnce(std::io::Error) -> AcquireError + use<> {
        let path = files::path_of(self.path, name);
        move |source| AcquireError::Io {
            doing,
            path,
            source,
        }
    }

    fn guard(&mut self) -> &mut Guard {
        self.guard
            .as_mut()
            .expect("because every step but the first comes after the guard was opened")
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
                std::io::ErrorKind::NotFound.into(),
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
        Ok(Answer::Done)
    }

    fn read_record(&mut self) -> Result<Answer<FileId>, AcquireError> {
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
    fn judge_owner(&mut self, record: &Record) -> Verdict {
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
    fn is_young(&mut self, modified_at: i128) -> Result<bool, AcquireError> {
        // The file system's clock says when our own draft was written: no other clock is comparable.
        let (_claim, draft) = self.prepare()?;
        let age = draft.written_at.abs_diff(modified_at);
        Ok(age < IN_FLIGHT.as_nanos())
    }

    /// Makes our claim and our record, once.
    fn prepare(&mut self) -> Result<&mut (Claim, Draft), AcquireError> {
        if self.own.is_none() {
            let claim = self.own_claim();
            let record = Record {
                pid: claim.process.pid,
                since: claim.at.clone(),
                kind: claim.kind.clone(),
            };
            let draft = Draft::create(self.dir(), record.format().as_bytes());
            let draft = draft.map_err(self.io("write the record", RECORD))?;
            self.own = Some((claim, draft));
        }
        Ok(self.own())
    }

    fn own_claim(&self) -> Claim {
        let own = sys::own();
        Claim {
            state: State::Held,
            generation: 0,
            process: ProcessIdentity::own(),
            pid_namespace: own.pid_namespace,
            host: own.host,
            uid: nix::unistd::geteuid().as_raw(),
            at: crate::time::format(SystemTime::now()),
            kind: self.options.kind.clone(),
        }
    }

    fn await_exit(&mut self) -> Answer<FileId> {
        let Some(holder) = self.judged_holder() else {
            return Answer::StillRunning;
        };
        let deadline = Instant::now() + EXIT_GAP;
        let ended = holder
            .identity()
            .and_then(|identity| match PidWatch::of(identity) {
                Ok(Some(watch)) => watch.wait(deadline).ok(),
                Ok(None) => Some(true),
                Err(_unavailable) => None,
            });
        let gone = ended.unwrap_or(false) || self.probe.ask(&holder.claimant()).is_gone();
        if gone {
            Answer::Done
        } else {
            Answer::StillRunning
        }
    }

    fn judged_holder(&self) -> Option<Holder> {
        let (_file, claim) = self.judged.as_ref()?;
        claim.as_ref().map(Holder::from_claim)
    }

    fn clear_marker(&self) -> Answer<FileId> {
        // Nobody can have addressed us yet: whatever is there was meant for somebody before us.
        if let Err(error) = files::remove(self.dir(), MARKER) {
            log::warn!(
                "failed to remove a release request in `{}`: {error}",
                self.path.display()
            );
        }
        Answer::Done
    }

    fn write_claim(&mut self) -> Result<Answer<FileId>, AcquireError> {
        if self.registration.is_none() {
            self.registration = Some(Registration::new(self.dir_id));
        }
        // Without a generation to continue from, the clock seeds one: in microseconds it runs ahead of any number
        // of acquisitions, so that deleting the guard does not make the tokens fall.
        let seed = || {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
        };
        let generation = self
            .text
            .highest_generation
            .map_or_else(seed, |highest| highest.saturating_add(1));
        let (claim, _draft) = self.prepare()?;
        claim.generation = generation;
        let mut text = claim.format();
        // The claim of the record that is still in place stays readable until that record is gone: if we are
        // killed in between, the next one must be able to pair the two.
        if let Some((_file, Some(before))) = &self.judged {
            text.push_str(&before.format());
        }
        let error = self.io("write the guard", GUARD);
        let file = &self.guard().file;
        let written = file
            .write_all_at(text.as_bytes(), 0)
            .and_then(|()| file.set_len(text.len() as u64));
        written.map_err(error)?;
        Ok(Answer::Done)
    }

    fn link_record(&mut self) -> Result<Answer<FileId>, AcquireError> {
        let error = self.io("publish the record", RECORD);
        let dir = self.dir.as_fd();
        let (_claim, draft) = self
            .own
            .as_mut()
            .expect("because the claim is written first");
        Ok(if draft.link(dir).map_err(error)? {
            Answer::Done
        } else {
            Answer::Taken
        })
    }

    fn stage_record(&mut self) -> Result<Answer<FileId>, AcquireError> {
        let error = self.io("publish the record", RECORD);
        self.sweep();
        let dir = self.dir.as_fd();
        let (_claim, draft) = self
            .own
            .as_mut()
            .expect("because the claim is written first");
        draft.stage(dir).map_err(error)?;
        Ok(Answer::Done)
    }

    /// Removes the temporary records of processes that were killed while they replaced one.
    ///
    /// Such a process leaves a stale record too, so it is enough to look when one is being replaced.
    fn sweep(&self) {
        let names = match std::fs::read_dir(self.path) {
            Ok(entries) => entries.flatten().map(|entry| entry.file_name()),
            Err(error) => {
                log::debug!("failed to sweep `{}`: {error}", self.path.display());
                return;
            }
        };
        for name in names.filter_map(|name| name.into_string().ok()) {
            let Some(rest) = name.strip_prefix(files::STAGED_PREFIX) else {
                continue;
            };
            let owner = rest.split('-').next().and_then(record::parse_pid);
            let gone = owner.is_some_and(|pid| sys::is_running(pid).is_ok_and(|running| !running));
            if gone
                && let Ok(name) = std::ffi::CString::new(name)
                && let Err(error) = files::remove(self.dir(), &name)
            {
                log::debug!("failed to sweep `{}`: {error}", self.path.display());
            }
        }
    }

    fn exchange_records(&mut self) -> Result<Answer<FileId>, AcquireError> {
        let dir = self.dir.as_fd();
        let (_claim, draft) = self
            .own
            .as_ref()
            .expect("because the claim is written first");
        let Some(staged) = draft.staged() else {
            return Ok(Answer::Absent);
        };
        match sys::exchange(dir, staged, RECORD) {
            Ok(()) => Ok(Answer::Done),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Answer::Absent),
            Err(source) => Err(self.io("replace the record", RECORD)(source)),
        }
    }

    fn look_at_displaced(&mut self) -> Result<Answer<FileId>, AcquireError> {
        let (_claim, draft) = self
            .own
            .as_ref()
            .expect("because the claim is written first");
        let displaced = match draft.staged() {
            Some(staged) => FileId::at(self.dir(), staged).map_err(self.io("look at", RECORD))?,
            None => None,
        };
        // Somebody removed the temporary name: what it led to is gone either way.
        Ok(Answer::Displaced(displaced.unwrap_or(FileId {
            device: 0,
            inode: 0,
        })))
    }

    fn give_back(&mut self) -> Result<Answer<FileId>, AcquireError> {
        log::warn!(
            "a record in `{}` changed while it was being replaced: giving it back",
            self.path.display()
        );
        self.exchange_records()?;
        Ok(Answer::Done)
    }

    fn drop_staged(&mut self) -> Result<Answer<FileId>, AcquireError> {
        let error = self.io("remove the replaced record", RECORD);
        let dir = self.dir.as_fd();
        if let Some((_claim, draft)) = &mut self.own {
            draft.drop_staged(dir).map_err(error)?;
            // After a failed exchange it was our own record that the temporary name led to.
            if FileId::at(dir, RECORD).ok().flatten() != Some(draft.id) {
                self.own = None;
            }
        }
        Ok(Answer::Done)
    }

    fn unlink_record(&mut self) -> Result<Answer<FileId>, AcquireError> {
        if let Some((_claim, draft)) = self.own.take()
            && FileId::at(self.dir(), RECORD).map_err(self.io("look at", RECORD))? == Some(draft.id)
        {
            files::remove(self.dir(), RECORD).map_err(self.io("remove", RECORD))?;
        }
        Ok(Answer::Done)
    }

    fn mark_free(&mut self) -> Result<Answer<FileId>, AcquireError> {
        let error = self.io("write the guard", GUARD);
        mark(self.guard(), State::Free).map_err(error)?;
        Ok(Answer::Done)
    }

    fn unlock_guard(&mut self) -> Result<Answer<FileId>, AcquireError> {
        let error = self.io("unlock the guard", GUARD);
        self.guard().unlock().map_err(error)?;
        self.registration = None;
        Ok(Answer::Done)
    }

    /// Finds out who has the guard; `None` if nobody alive lays claim to it and nobody can be found.
    fn explain_busy(&mut self) -> Result<Option<(Option<Holder>, HeldReason)>, AcquireError> {
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
        let id = self.guard().id;
        let pids: Vec<u32> = inherit::inheritors(id)
            .into_iter()
            .map(|inheritor| inheritor.pid)
            .collect();
        Ok((!pids.is_empty()).then_some((holder, HeldReason::Inherited { pids })))
    }

    fn finish(&mut self) -> Result<SessionLock, AcquireError> {
        let (claim, draft) = self.own.take().expect("because the record was published");
        let dir = self.dir.try_clone().map_err(self.io("keep open", c"."))?;
        log::debug!(
            "acquired `{}`, generation {}",
            self.path.display(),
            claim.generation
        );
        Ok(SessionLock::from_parts(Parts {
            path: self.path.to_owned(),
            dir,
            dir_id: self.dir_id,
            guard: self.guard.take().expect("because the guard was locked"),
            draft,
            claim,
            probe: self.probe,
            observer: self.options.observer.clone(),
            registration: self.registration.take(),
        }))
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some((_claim, draft)) = &mut self.own
            && let Err(error) = draft.drop_staged(self.dir.as_fd())
        {
            log::warn!(
                "failed to remove a temporary record in `{}`: {error}",
                self.path.display()
            );
        }
    }
}

/// Changes the state word of the guard's first line.
pub(crate) fn mark(guard: &Guard, state: State) -> std::io::Result<()> {
    guard
        .file
        .write_all_at(state.word().as_bytes(), crate::claim::STATE_AT)
}
