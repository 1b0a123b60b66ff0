//! The one system call that no library wraps safely.
#![expect(unsafe_code, reason = "close_range(2) has no safe wrapper")]

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
                std::io::Error::last_os_error()
            );
        }
    }
}
