//! The system calls that no library wraps safely.
#![expect(
    unsafe_code,
    reason = "PIDFD_GET_INFO is an ioctl that no library wraps yet"
)]

use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct pidfd_info` of `linux/pidfd.h` in its first published size.
#[repr(C)]
#[derive(Default)]
pub(crate) struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ids: [u32; 8],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;

nix::ioctl_readwrite!(pidfd_get_info, 0xff, 11, PidfdInfo);

/// Returns the wait status of a process that has ended and was reaped, by
/// whomever; `None` where the kernel (before 6.15) or the moment cannot tell.
pub(crate) fn exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = PidfdInfo {
        mask: PIDFD_INFO_EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the descriptor is open for the length of the call, and `info` is a
    // writable structure of the size that the request number carries.
    unsafe { pidfd_get_info(pidfd.as_raw_fd(), &raw mut info) }.ok()?;
    (info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

#[cfg(test)]
mod tests {
    use super::PidfdInfo;

    #[test]
    fn the_structure_has_the_size_that_the_kernel_knows() {
        assert_eq!(size_of::<PidfdInfo>(), 64);
    }
}
