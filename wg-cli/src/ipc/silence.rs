//! A daemon that says nothing: how long it is waited for, and how it is noticed that it stands still.

#![expect(
    clippy::disallowed_methods,
    reason = "a client reads the clock for its deadline"
)]

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt::SendTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::client::{CallError, ConnectError, is_out_of_time};
use crate::standstill::{self, LOOK_EVERY};

/// Reaches the daemon's socket; `None` where it had no room for another connection until then.
pub(super) fn reach(
    path: &Path,
    service: &Path,
    until: Instant,
) -> Result<Option<UnixStream>, ConnectError> {
    let mut silence = Silence::default();
    loop {
        let wait = match silence.next_wait(service, Some(until)) {
            Ok(wait) => wait.unwrap_or(LOOK_EVERY),
            Err(CallError::StandsStill(daemon)) => return Err(ConnectError::StandsStill(daemon)),
            Err(_) => return Ok(None),
        };
        match connected(path, wait) {
            Ok(stream) => return Ok(Some(stream)),
            Err(error) if is_only_late(&error) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                // It may have been stopped before it could listen.
                return Err(match standstill::of_service(service) {
                    Some(daemon) => ConnectError::StandsStill(daemon),
                    None => ConnectError::NotRunning,
                });
            }
            Err(source) => {
                return Err(ConnectError::Io {
                    path: path.to_owned(),
                    source,
                });
            }
        }
    }
}

/// Connects within this time. A daemon that was stopped accepts nobody, and once the queue of its socket is full the kernel lets others
/// wait for room in it: for as long as they may take to send, which is for ever by default.
fn connected(path: &Path, within: Duration) -> io::Result<UnixStream> {
    let fd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let micros = i64::try_from(within.as_micros()).unwrap_or(i64::MAX).max(1);
    setsockopt(&fd, SendTimeout, &TimeVal::microseconds(micros))?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(fd))
}

/// A wait for a daemon that says nothing, in pieces: after each it is looked whether the daemon stands still.
#[derive(Debug, Default)]
pub(super) struct Silence {
    has_begun: bool,
    stood_still: bool,
}

impl Silence {
    /// How long to wait next; `None` where nobody waits for anything but the next event.
    pub(super) fn next_wait(
        &mut self,
        service: &Path,
        deadline: Option<Instant>,
    ) -> Result<Option<Duration>, CallError> {
        let Some(at) = deadline else {
            return Ok(None);
        };
        let left = at.saturating_duration_since(Instant::now());
        if std::mem::replace(&mut self.has_begun, true) || left.is_zero() {
            let stands_still = standstill::of_service(service);
            let stood_still = std::mem::replace(&mut self.stood_still, stands_still.is_some());
            if let Some(daemon) = stands_still
                && (stood_still || left.is_zero())
            {
                return Err(CallError::StandsStill(daemon));
            }
        }
        if left.is_zero() {
            return Err(CallError::Broken(io::ErrorKind::TimedOut.into()));
        }
        Ok(Some(left.min(LOOK_EVERY)))
    }
}

/// Whether nothing is wrong but that nothing has come yet.
pub(super) fn is_only_late(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted || is_out_of_time(error)
}
