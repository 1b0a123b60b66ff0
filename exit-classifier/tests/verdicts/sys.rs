//! The one call that these tests need and that no safe interface has.
#![expect(
    unsafe_code,
    reason = "what a signal does to this process is process-global"
)]

use std::sync::Once;

use nix::sys::signal::{SigHandler, Signal, signal};

/// Lets the signals that tests send do what they do to a program that was started from a terminal.
///
/// Whoever starts these tests in the background of a script, or under `nohup`, has them ignored, and what is started here would ignore
/// them, too, as it should.
pub(crate) fn heed_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for number in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
            // SAFETY: the default action runs no code of this program, and nothing here has a handler that it would replace.
            unsafe { signal(number, SigHandler::SigDfl) }.unwrap();
        }
    });
}
