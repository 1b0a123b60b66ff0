//! The terminal that `wg run` was started at, if any: what it told the command itself, and whether it is still there.

use std::fs::File;
use std::io;

use nix::errno::Errno;

/// Whether this program was started with a controlling terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Terminal {
    /// With one.
    There,
    /// Without, as a service is.
    None,
}

impl Terminal {
    /// Looks for the one of this process.
    pub(super) fn of_this_process() -> Self {
        match open() {
            Ok(_) => Self::There,
            Err(_) => Self::None,
        }
    }

    /// Whether there was one and it went away: a shell that dies of it tells its jobs, after the system has taken it from them.
    pub(super) fn is_gone(self) -> bool {
        self == Self::There
            && open().is_err_and(|error| {
                error.raw_os_error() == Some(Errno::ENXIO as i32)
                    || error.raw_os_error() == Some(Errno::EIO as i32)
            })
    }
}

/// Opens the controlling terminal, whatever the three standard descriptors are; see tty(4).
fn open() -> io::Result<File> {
    File::open("/dev/tty")
}
