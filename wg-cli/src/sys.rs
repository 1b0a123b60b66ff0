//! The two things that no library wraps safely.
#![expect(
    unsafe_code,
    reason = "close_range(2) has no safe wrapper, nor has a signal handler that is told who sent the signal"
)]

use std::io;
use std::sync::Arc;

use nix::libc::{SI_QUEUE, siginfo_t};
use signal_hook::SigId;

use crate::ears::Rope;

/// Has this rope pulled at each signal of this number, and nothing else done at one.
///
/// # Errors
///
/// The system or the C library keeps the signal to itself.
pub(crate) fn hear(number: i32, rope: Arc<Rope>) -> io::Result<SigId> {
    let heard = move |info: &siginfo_t| {
        let value = (info.si_code == SI_QUEUE).then(|| {
            // SAFETY: the code says that sigqueue(3) made this, which fills in the value.
            unsafe { info.si_value() }.sival_ptr.addr()
        });
        rope.pull(number, info.si_code, value);
    };
    // SAFETY: reading the structure and pulling the rope are async-signal-safe, and neither can panic.
    unsafe { signal_hook_registry::register_sigaction(number, heard) }
}

/// Marks every descriptor above standard error as one that no started program inherits.
///
/// A shell inside a chat passes the lent session lock on to whatever it starts. A daemon that kept it would hold that chat's
/// session for its whole life.
pub(crate) fn inherit_nothing() {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the call takes numbers only. With this flag it closes nothing, so no descriptor that this process uses
        // becomes invalid; it only sets a flag that every descriptor of ours has already.
        let done = unsafe {
            nix::libc::syscall(
                nix::libc::SYS_close_range,
                3,
                nix::libc::c_uint::MAX,
                nix::libc::CLOSE_RANGE_CLOEXEC,
            )
        };
        if done != 0 {
            log::debug!(
                "descriptors may be inherited: {}",
                io::Error::last_os_error()
            );
        }
    }
}
