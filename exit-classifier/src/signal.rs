//! Signal numbers and their names on this platform.
//!
//! The numbers are written out because the crate has no dependencies. The nine that POSIX fixes are used everywhere; the
//! others are known for Linux (all ports but mips, sparc, alpha and parisc, which number them differently) and for the BSD family,
//! macOS among it. On any other platform such a signal is shown as a number and classified as a crash.

/// Hang-up of the controlling terminal.
pub const SIGHUP: i32 = 1;
/// Interrupt from the keyboard.
pub const SIGINT: i32 = 2;
/// Quit from the keyboard.
pub const SIGQUIT: i32 = 3;
/// Abort, as `abort(3)` raises it.
pub const SIGABRT: i32 = 6;
/// Kill, which cannot be caught.
pub const SIGKILL: i32 = 9;
/// Request to end.
pub const SIGTERM: i32 = 15;

/// Signals by which a program that has gone wrong is ended: SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGSYS.
pub(crate) const FATAL: &[i32] = platform::FATAL;

/// Returns the name of a signal number on this platform, such as `SIGTERM` for 15.
///
/// Returns `None` for a number without a name of its own, real-time signals among them.
#[must_use]
pub fn name(number: i32) -> Option<&'static str> {
    let fixed = match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        other => return platform::name(other),
    };
    Some(fixed)
}

#[cfg(all(
    any(target_os = "linux", target_os = "android"),
    not(any(
        target_arch = "mips",
        target_arch = "mips32r6",
        target_arch = "mips64",
        target_arch = "mips64r6",
        target_arch = "sparc",
        target_arch = "sparc64"
    ))
))]
mod platform {
    /// Order: SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGSYS (`signal(7)`).
    pub(super) const FATAL: &[i32] = &[6, 11, 7, 4, 8, 31];

    pub(super) const fn name(number: i32) -> Option<&'static str> {
        Some(match number {
            7 => "SIGBUS",
            10 => "SIGUSR1",
            12 => "SIGUSR2",
            16 => "SIGSTKFLT",
            17 => "SIGCHLD",
            18 => "SIGCONT",
            19 => "SIGSTOP",
            20 => "SIGTSTP",
            21 => "SIGTTIN",
            22 => "SIGTTOU",
            23 => "SIGURG",
            24 => "SIGXCPU",
            25 => "SIGXFSZ",
            26 => "SIGVTALRM",
            27 => "SIGPROF",
            28 => "SIGWINCH",
            29 => "SIGIO",
            30 => "SIGPWR",
            31 => "SIGSYS",
            _ => return None,
        })
    }
}

#[cfg(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly"
))]
mod platform {
    /// Order: SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGSYS (`signal(3)` of the BSD family).
    pub(super) const FATAL: &[i32] = &[6, 11, 10, 4, 8, 12];

    pub(super) const fn name(number: i32) -> Option<&'static str> {
        Some(match number {
            7 => "SIGEMT",
            10 => "SIGBUS",
            12 => "SIGSYS",
            16 => "SIGURG",
            17 => "SIGSTOP",
            18 => "SIGTSTP",
            19 => "SIGCONT",
            20 => "SIGCHLD",
            21 => "SIGTTIN",
            22 => "SIGTTOU",
            23 => "SIGIO",
            24 => "SIGXCPU",
            25 => "SIGXFSZ",
            26 => "SIGVTALRM",
            27 => "SIGPROF",
            28 => "SIGWINCH",
            29 => "SIGINFO",
            30 => "SIGUSR1",
            31 => "SIGUSR2",
            _ => return None,
        })
    }
}

#[cfg(not(any(
    all(
        any(target_os = "linux", target_os = "android"),
        not(any(
            target_arch = "mips",
            target_arch = "mips32r6",
            target_arch = "mips64",
            target_arch = "mips64r6",
            target_arch = "sparc",
            target_arch = "sparc64"
        ))
    ),
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly"
)))]
mod platform {
    /// SIGABRT, SIGSEGV, SIGILL and SIGFPE; the numbers of the other two are not known here.
    pub(super) const FATAL: &[i32] = &[6, 11, 4, 8];

    pub(super) const fn name(_number: i32) -> Option<&'static str> {
        None
    }
}
