//! The system calls that no library wraps safely.
#![expect(
    unsafe_code,
    reason = "PIDFD_GET_INFO is an ioctl that no library wraps yet, and none sends a value with a signal through a pidfd"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

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

/// What sigqueue(3) fills in of `siginfo_t`, and room for the rest, which is zero.
#[repr(C)]
struct Queued {
    signal: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    sent: Sent,
    rest: [u8; 104],
}

/// The part of the union in `siginfo_t` that is for a signal with a value.
#[repr(C)]
struct Sent {
    pid: libc::pid_t,
    uid: libc::uid_t,
    value: usize,
}

/// Sends the process of a pidfd a signal of any number, as kill(2), or with a value, as sigqueue(3).
///
/// # Errors
///
/// Those of `pidfd_send_signal(2)`: ESRCH for a process that has ended and was reaped, EINVAL for a number that
/// is no signal.
pub fn send(pidfd: BorrowedFd<'_>, signal: i32, value: Option<usize>) -> io::Result<()> {
    let queued = value.map(|value| Queued {
        signal,
        errno: 0,
        code: libc::SI_QUEUE,
        sent: Sent {
            pid: rustix::process::getpid().as_raw_pid(),
            uid: rustix::process::getuid().as_raw(),
            value,
        },
        rest: [0; 104],
    });
    let info: *const Queued = queued.as_ref().map_or(std::ptr::null(), |queued| queued);
    // SAFETY: the descriptor is open for the length of the call; `info` is null or points to a structure that is
    // laid out as `siginfo_t`, not smaller than it, and only read.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            info,
            0,
        )
    };
    if sent == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use nix::libc;

    use super::{PidfdInfo, Queued};

    #[test]
    fn the_structures_have_the_size_that_the_kernel_knows() {
        assert_eq!(size_of::<PidfdInfo>(), 64);
        assert!(size_of::<Queued>() >= size_of::<libc::siginfo_t>());
        assert_eq!(
            offset_of!(Queued, code),
            offset_of!(libc::siginfo_t, si_code)
        );
        assert_eq!(offset_of!(Queued, sent) % align_of::<usize>(), 0);
    }
}
