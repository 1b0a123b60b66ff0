//! How this handler ended, written where its successor's daemon can read it (`exit.json`).
//!
//! A daemon that adopted a handler is not its parent and cannot wait for it; the note is how it learns the code.

use std::path::PathBuf;

use session_lock::SessionLock;

use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, with_causes};
use crate::store::exit_record::{AgentEnd, ExitRecord, MemoryEnd, VERSION};

/// The note of a handler that has the session lock. It is written even when the handler panics.
#[derive(Debug)]
pub(crate) struct ExitNote {
    session: PathBuf,
    pid: u32,
    at_line2: String,
    nonce: String,
    written: bool,
}

impl ExitNote {
    pub(crate) fn open(session: PathBuf, lock: &SessionLock, nonce: String) -> Self {
        let holder = lock.holder();
        Self {
            session,
            pid: holder.pid,
            at_line2: holder.since.clone(),
            nonce,
            written: false,
        }
    }

    /// Writes how the handler ends. Called while the lock is still held, so that no successor's note is overwritten.
    pub(crate) fn close(
        mut self,
        outcome: &Result<ExitCode, Failure>,
        agent: Option<String>,
        memory: Option<MemoryEnd>,
    ) {
        let (code, cause) = match outcome {
            Ok(code) => (*code, code.meaning().to_owned()),
            Err(failure) => (failure.code, failure.to_string()),
        };
        self.write(code, &cause, agent, memory);
    }

    fn write(
        &mut self,
        code: ExitCode,
        cause: &str,
        agent: Option<String>,
        memory: Option<MemoryEnd>,
    ) {
        self.written = true;
        let record = ExitRecord {
            version: VERSION,
            pid: self.pid,
            at_line2: self.at_line2.clone(),
            nonce: Some(self.nonce.clone()),
            code: Some(i32::from(code.code())),
            signal: None,
            cause: cause.to_owned(),
            agent: agent.map(|ending| AgentEnd { ending }),
            memory,
            at: clock::now(),
        };
        if let Err(error) = record.write(&self.session) {
            log::error!(
                "failed to write how this handler ended: {}",
                with_causes(&error)
            );
        }
    }
}

impl Drop for ExitNote {
    fn drop(&mut self) {
        if !self.written {
            self.write(ExitCode::Bug, "the handler ended by a bug", None, None);
        }
    }
}
