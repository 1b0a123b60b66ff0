//! What a service manager such as systemd is told: that the daemon is ready, that it is alive, that it ends.
//!
//! The manager names a datagram socket in `NOTIFY_SOCKET` (`sd_notify(3)`), and in `WATCHDOG_USEC` how long it bears silence. Only a daemon
//! in the foreground is a manager's own: a background one may have inherited the variables from whoever started it.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The variables of the protocol; nothing that the daemon starts may have them.
pub(super) const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// A service manager that listens.
#[derive(Debug)]
pub(super) struct ServiceManager {
    socket: UnixDatagram,
    /// How often it wants to hear, halved as `sd_watchdog_enabled(3)` advises.
    pub(super) watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Returns the manager that the environment names, if it names one that can be reached.
    pub(super) fn of_this_process() -> Option<Self> {
        let place = std::env::var_os("NOTIFY_SOCKET")?;
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| meant && *usec > 0);
        match connect(place.as_bytes()) {
            Ok(socket) => Some(Self {
                socket,
                watchdog: watchdog.map(|usec| Duration::from_micros(usec) / 2),
            }),
            Err(error) => {
                log::warn!("the service manager cannot be told: {error}");
                None
            }
        }
    }

    /// The daemon serves its chats.
    pub(super) fn ready(&self) {
        self.tell("READY=1\nSTATUS=serving");
    }

    /// The daemon is alive, as far as it can tell.
    pub(super) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// The daemon ends.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, what: &str) {
        if let Err(error) = self.socket.send(what.as_bytes()) {
            log::warn!("the service manager was not told `{what}`: {error}");
        }
    }
}

/// A path, or `@` and a name of Linux's abstract sockets.
fn connect(place: &[u8]) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // A manager that does not listen must not keep the daemon.
    socket.set_nonblocking(true)?;
    match place {
        [b'/', ..] => socket.connect(std::ffi::OsStr::from_bytes(place))?,
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            use std::os::linux::net::SocketAddrExt;
            socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?;
        }
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "NOTIFY_SOCKET is neither a path nor an abstract name",
            ));
        }
    }
    Ok(socket)
}
