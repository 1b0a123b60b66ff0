//! How many files the daemon may have open: as many as the system lets it. What it starts keeps the limit that it came with.

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::exit_code::ExitCode;
use crate::failure::Failure;

/// What a daemon has open before the first chat is served, and room for some chats and clients.
const NEEDED: u64 = 64;

/// Refuses where the system lets this process have fewer files open than a daemon needs: it would start, and answer nobody.
pub(super) fn check() -> Result<(), Failure> {
    match getrlimit(Resource::Nofile).maximum {
        Some(most) if most < NEEDED => Err(Failure::new(
            ExitCode::System,
            format!("only {most} files may be open at once, and the service needs {NEEDED}"),
        )
        .with_cure(format!(
            "ulimit -n {NEEDED}, or more, where the limit was set"
        ))),
        Some(_) | None => Ok(()),
    }
}

/// The limit that this process was started with.
#[derive(Debug)]
pub(super) struct Descriptors {
    former: Option<Rlimit>,
}

impl Descriptors {
    /// Raises this process's own limit. A chat that runs costs two or three descriptors, and 1,024 is a common limit.
    pub(super) fn raise() -> Self {
        let former = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: former.maximum,
            maximum: former.maximum,
        };
        if former.current == raised.current {
            return Self { former: None };
        }
        if let Err(e) = setrlimit(Resource::Nofile, raised) {
            log::warn!("the limit of open files stays as it is: {e}");
            return Self { former: None };
        }
        Self {
            former: Some(former),
        }
    }

    /// Gives a process that was just started the former limit: programs that close every possible descriptor are slow under a
    /// high one. Whatever it starts comes after this.
    pub(super) fn restore_for(&self, pid: u32) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        if let (Some(former), Some(_)) = (&self.former, pid)
            && let Err(e) = prlimit(pid, Resource::Nofile, *former)
        {
            log::debug!("a process keeps the raised limit of open files: {e}");
        }
    }
}
