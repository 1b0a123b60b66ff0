//! The one call that a test needs and that no safe interface has.
#![expect(unsafe_code, reason = "a forked child is what is tested")]

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// Runs `work` in a forked child that ends without running anything else, and waits for it.
pub(crate) fn in_forked_child(work: impl FnOnce() -> bool) {
    // SAFETY: the child of this threaded process calls only `work`, which takes no lock that another thread may
    // have held, and then ends without returning to the test harness.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Child => {
            let code = i32::from(!work());
            // SAFETY: it ends the process at once; there is nothing to clean up in a copy.
            unsafe { nix::libc::_exit(code) }
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).expect("its end");
            assert_eq!(status, WaitStatus::Exited(child, 0));
        }
    }
}
