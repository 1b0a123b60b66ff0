//! Asking a holder to release, and being asked.
#![expect(
    clippy::disallowed_methods,
    reason = "this driver stamps requests and waits for them"
)]

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use nix::fcntl::OFlag;

use crate::error::{RequestError, WatchError};
use crate::files::{self, MARKER, Opened};
use crate::holder::Holder;
use crate::inspect::{Inspection, inspect};
use crate::lock::SessionLock;
use crate::notify::DirectoryEvents;
use crate::readable;

/// A release request, as it stands in the file.
///
/// ```text
/// <RFC 3339>\nfor <pid> <line two of its record>\nfrom <pid>\n
/// ```
///
/// Line one alone is a request to whoever holds the lock; the earliest requesters write no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) at: String,
    pub(crate) addressee: Option<(u32, String)>,
}

impl Marker {
    fn format(&self, from: u32) -> String {
        match &self.addressee {
            Some((pid, since)) => format!("{}\nfor {pid} {since}\nfrom {from}\n", self.at),
            None => format!("{}\n", self.at),
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let at = lines.next().unwrap_or_default().to_owned();
        let addressee = lines.find_map(|line| {
            let (pid, since) = line.strip_prefix("for ")?.split_once(' ')?;
            Some((crate::record::parse_pid(pid)?, since.to_owned()))
        });
        Self { at, addressee }
    }

    /// Returns whether it asks this acquisition to release.
    pub(crate) fn is_for(&self, pid: u32, since: &str) -> bool {
        match &self.addressee {
            Some((to, of)) => *to == pid && of == since,
            // Without an address, only a request that is newer than the acquisition can be meant for it.
            None => match (crate::time::parse(&self.at), crate::time::parse(since)) {
                (Some(at), Some(since)) => at > since,
                _ => false,
            },
        }
    }
}

/// What became of a release request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReleaseRequest {
    /// It was left for this holder.
    Asked {
        /// Who was asked.
        holder: Holder,
    },
    /// Nobody holds the directory, so nobody was asked.
    Free,
    /// It is held, but by nobody who can be addressed: a request without an address was left.
    AskedUnnamed,
}

/// Asks whoever holds `dir` to release it when it can.
///
/// The request names one acquisition: a successor never obeys it.
///
/// # Errors
///
/// Returns an error where the directory cannot be looked at, or the request not be written.
pub fn request_release(dir: &Path) -> Result<ReleaseRequest, RequestError> {
    let looked = inspect(dir).map_err(|error| RequestError {
        doing: error.doing,
        path: error.path,
        source: error.source,
    })?;
    let holder = match looked {
        Inspection::Held(held) => held.holder,
        Inspection::Free | Inspection::Stale { .. } | Inspection::Corrupt { .. } => {
            return Ok(ReleaseRequest::Free);
        }
    };
    let addressee = holder
        .as_ref()
        .map(|holder| (holder.pid, holder.since.clone()));
    let marker = Marker {
        at: crate::time::format(SystemTime::now()),
        addressee,
    };
    let failed = |source| RequestError {
        doing: "write",
        path: files::path_of(dir, MARKER),
        source,
    };
    write(dir, marker.format(std::process::id()).as_bytes()).map_err(failed)?;
    Ok(holder.map_or(ReleaseRequest::AskedUnnamed, |holder| {
        ReleaseRequest::Asked { holder }
    }))
}

/// Writes the marker beside its place and renames it there, so that nobody reads half of it.
fn write(dir: &Path, bytes: &[u8]) -> io::Result<()> {
    let unique = format!(".handler.release-requested.{}", std::process::id());
    let (beside, place) = (dir.join(unique), files::path_of(dir, MARKER));
    let written = files::create_anew(&beside)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&beside, &place));
    if written.is_err() {
        // It may be there half-written. That it cannot be removed either is not what the caller asked about.
        drop(std::fs::remove_file(&beside));
    }
    written
}

/// Tells the holder of a lock when it is asked to release.
#[derive(Debug)]
pub struct ReleaseWatch {
    dir: PathBuf,
    pid: u32,
    since: String,
    events: DirectoryEvents,
}

impl ReleaseWatch {
    /// Watches for requests to release `lock`.
    ///
    /// Where the kernel has no watch to give (a user has 128 by default) the descriptor turns readable once a second.
    ///
    /// # Errors
    ///
    /// Returns an error where there is not even a descriptor to spare, and outside Linux;
    /// [`SessionLock::is_release_requested`] still answers then.
    pub fn new(lock: &SessionLock) -> Result<Self, WatchError> {
        let dir = lock.path().to_owned();
        let events = DirectoryEvents::of(&dir).map_err(|source| WatchError {
            doing: "watch the directory",
            path: dir.clone(),
            source,
        })?;
        Ok(Self {
            dir,
            pid: lock.holder().pid,
            since: lock.holder().since.clone(),
            events,
        })
    }

    /// Returns whether the holder is asked to release now. Empties the descriptor.
    #[must_use]
    pub fn is_requested(&mut self) -> bool {
        self.events.take_relevant(&[MARKER]);
        is_requested(&self.dir, self.pid, &self.since)
    }

    /// Waits until the holder is asked to release or `deadline` has passed; returns whether it is asked.
    ///
    /// # Errors
    ///
    /// Returns the error of `poll(2)`.
    pub fn wait(&mut self, deadline: Instant) -> Result<bool, WatchError> {
        loop {
            if self.is_requested() {
                return Ok(true);
            }
            let ready = readable::any_readable(&[self.events.as_fd()], Some(deadline));
            let failed = |source| WatchError {
                doing: "wait for a request in",
                path: self.dir.clone(),
                source,
            };
            if ready.map_err(failed)?.is_none() {
                return Ok(false);
            }
        }
    }
}

/// The descriptor turns readable when a request may be there; [`ReleaseWatch::is_requested`] tells and empties it.
impl AsFd for ReleaseWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// Returns whether there is a request for this acquisition.
pub(crate) fn is_requested(dir: &Path, pid: u32, since: &str) -> bool {
    let Ok(dir) = files::open_directory(dir) else {
        return false;
    };
    match files::open_regular(dir.as_fd(), MARKER, OFlag::O_RDONLY) {
        Ok(Opened::Regular(file, _, _)) => files::read_small(&file)
            .is_ok_and(|bytes| Marker::parse(&String::from_utf8_lossy(&bytes)).is_for(pid, since)),
        Ok(Opened::Absent | Opened::Other(_)) | Err(_) => false,
    }
}
