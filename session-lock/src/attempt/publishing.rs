//! Our claim into the guard, our record into its place.
#![expect(clippy::disallowed_methods, reason = "this driver stamps the record")]

use std::ffi::CString;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Attempt;
use crate::claim::{Claim, State};
use crate::draft::{Draft, STAGED_PREFIX};
use crate::error::AcquireError;
use crate::files::{self, FileId, GUARD, MARKER, RECORD};
use crate::identity::ProcessIdentity;
use crate::protocol::Answer;
use crate::record::{self, Record};
use crate::registry::Registration;
use crate::sys;

impl Attempt<'_> {
    /// Makes our claim and our record. A record that had a name before is made anew.
    pub(super) fn prepare(&mut self) -> Result<&mut (Claim, Draft), AcquireError> {
        if self.own.as_ref().is_none_or(|(_claim, draft)| draft.named) {
            let claim = self.own_claim();
            let record = Record {
                pid: claim.process.pid,
                since: claim.at.clone(),
                kind: claim.kind.clone(),
            };
            let draft = Draft::create(self.dir(), record.format());
            self.own = Some((claim, draft.map_err(self.io("write the record", RECORD))?));
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

    pub(super) fn clear_marker(&self) -> Answer<FileId> {
        // Nobody can have addressed us yet: whatever is there was meant for somebody before us.
        if let Err(error) = files::remove(self.dir(), MARKER) {
            let dir = self.path.display();
            log::warn!("failed to remove a release request in `{dir}`: {error}");
        }
        Answer::Done
    }

    pub(super) fn write_claim(&mut self) -> Result<Answer<FileId>, AcquireError> {
        if self.registration.is_none() {
            self.registration = Some(Registration::new(self.dir_id));
        }
        // Without a generation to continue from, the clock seeds one: in microseconds it runs ahead of any number
        // of acquisitions, so that deleting the guard does not make the tokens fall.
        let seed = || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            u64::try_from(now.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
        };
        let highest = self.text.highest_generation;
        let generation = highest.map_or_else(seed, |highest| highest.saturating_add(1));
        let (claim, _draft) = self.prepare()?;
        claim.generation = generation;
        let mut text = claim.format();
        // The claim of the record that is still in place stays readable until that record is gone: if we are
        // killed in between, the next one must be able to pair the two.
        if let Some((_file, Some(before))) = &self.judged {
            text.push_str(&before.format());
        }
        let shrinks = text.len() < self.guard_length;
        let error = self.io("write the guard", GUARD);
        let file = &self.guard().file;
        let written = file.write_all_at(text.as_bytes(), 0).and_then(|()| {
            if shrinks {
                file.set_len(text.len() as u64)
            } else {
                Ok(())
            }
        });
        written.map_err(error)?;
        self.guard_length = text.len();
        self.claimed = true;
        Ok(Answer::Done)
    }

    pub(super) fn link_record(&mut self) -> Result<Answer<FileId>, AcquireError> {
        let error = self.io("publish the record", RECORD);
        let (draft, dir) = self.draft();
        let linked = draft.link(dir).map_err(error)?;
        Ok(if linked { Answer::Done } else { Answer::Taken })
    }

    pub(super) fn stage_record(&mut self) -> Result<Answer<FileId>, AcquireError> {
        self.sweep();
        let error = self.io("publish the record", RECORD);
        let (draft, dir) = self.draft();
        draft.stage(dir).map_err(error)?;
        Ok(Answer::Done)
    }

    /// Removes the temporary records of processes that were killed while they replaced one.
    ///
    /// Such a process leaves a stale record too, so it is enough to look when one is being replaced.
    fn sweep(&self) {
        let dir = self.path.display();
        let names = match std::fs::read_dir(self.path) {
            Ok(entries) => entries.flatten().map(|entry| entry.file_name()),
            Err(error) => {
                log::debug!("failed to sweep `{dir}`: {error}");
                return;
            }
        };
        for name in names.filter_map(|name| name.into_string().ok()) {
            let owner = name.strip_prefix(STAGED_PREFIX).and_then(|rest| {
                let (pid, _count) = rest.split_once('-')?;
                record::parse_pid(pid)
            });
            let gone = owner.is_some_and(|pid| sys::is_running(pid).is_ok_and(|running| !running));
            if gone
                && let Ok(name) = CString::new(name)
                && let Err(error) = files::remove(self.dir(), &name)
            {
                log::debug!("failed to sweep `{dir}`: {error}");
            }
        }
    }

    pub(super) fn exchange_records(&mut self) -> Result<Answer<FileId>, AcquireError> {
        let error = self.io("replace the record", RECORD);
        let judged = match &self.judged {
            Some((file, _claim)) => FileId::of(file).map_err(self.io("look at", RECORD))?,
            None => return Ok(Answer::Absent),
        };
        let (draft, dir) = self.draft();
        match draft.exchange(dir, judged) {
            Ok(displaced) => {
                self.displaced = Some(displaced);
                Ok(Answer::Done)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Answer::Absent),
            Err(source) => Err(error(source)),
        }
    }

    pub(super) fn look_at_displaced(&self) -> Answer<FileId> {
        let displaced = self.displaced;
        Answer::Displaced(displaced.expect("because an exchange brought something out"))
    }

    pub(super) fn give_back(&mut self) -> Result<Answer<FileId>, AcquireError> {
        let path = self.path.display();
        log::warn!("a record in `{path}` changed while it was being replaced: giving it back");
        let error = self.io("give back the record", RECORD);
        let (draft, dir) = self.draft();
        draft.give_back(dir).map_err(error)?;
        Ok(Answer::Done)
    }

    pub(super) fn drop_staged(&mut self) -> Result<Answer<FileId>, AcquireError> {
        let error = self.io("remove the replaced record", RECORD);
        let (draft, dir) = self.draft();
        draft.drop_staged(dir).map_err(error)?;
        Ok(Answer::Done)
    }

    pub(super) fn unlink_record(&mut self) -> Result<Answer<FileId>, AcquireError> {
        let error = self.io("remove", RECORD);
        let (draft, dir) = self.draft();
        let removed = draft.is_in_place(dir).and_then(|in_place| {
            if in_place {
                files::remove(dir, RECORD)
            } else {
                Ok(())
            }
        });
        removed.map_err(error)?;
        Ok(Answer::Done)
    }

    pub(super) fn void_record(&mut self) -> Result<Answer<FileId>, AcquireError> {
        let error = self.io("void", RECORD);
        let (draft, _dir) = self.draft();
        draft.void().map_err(error)?;
        Ok(Answer::Done)
    }
}
