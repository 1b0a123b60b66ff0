//! The small functions between crates that do not know each other.
//!
//! Facts flow one way: lock → observation → verdict → disposition. Each edge is one function here, so that a
//! change in one crate touches one place.

use exit_classifier::{Cause, Counts, Verdict};
use supervisor::{Disposition, Holder, ValidPolicy};

use crate::store::config::Config;

/// What a verdict on a handler's ending counts as for its machine.
///
/// `holder` is who held the session when the handler ended, and whether that process can be watched; it is used
/// for contention only. Contention without a known holder keeps pid 0: "somebody".
#[must_use]
pub fn disposition(
    verdict: &Verdict,
    holder: Option<(Holder, bool)>,
    memory_peak: Option<u64>,
) -> Disposition {
    let reason = || verdict.sentence();
    match verdict.counts {
        Counts::CleanRestart | Counts::TurnDone => Disposition::Clean,
        Counts::Nothing if verdict.cause == Cause::Released => Disposition::Released,
        Counts::Nothing => Disposition::Requested,
        Counts::NothingNoRespawn => Disposition::IdleLeft,
        Counts::Memory => Disposition::Memory { peak: memory_peak },
        Counts::Contention => {
            let (holder, watchable) = holder.unwrap_or_else(|| {
                (
                    Holder {
                        pid: 0,
                        start: None,
                        label: String::new(),
                    },
                    false,
                )
            });
            Disposition::Contention { holder, watchable }
        }
        Counts::Permanent => Disposition::Permanent { reason: reason() },
        Counts::Dependency => Disposition::Dependency { reason: reason() },
        Counts::ExternalStop => Disposition::ExternalStop { reason: reason() },
        // A turn that failed is the handler's matter; from a handler itself it would be a crash.
        Counts::Crash | Counts::TurnFailed => Disposition::Crash { reason: reason() },
    }
}

/// The holder of a session lock, as the machine knows holders.
#[must_use]
pub fn holder(holder: &session_lock::Holder, start_ticks: Option<u64>) -> Holder {
    Holder {
        pid: holder.pid,
        start: start_ticks,
        label: holder.kind.to_string(),
    }
}

/// The restart policy of a configuration.
///
/// # Panics
///
/// Never: [`Config::load`] refuses a policy that is not valid.
#[must_use]
pub fn policy(config: &Config) -> ValidPolicy {
    config
        .supervisor
        .clone()
        .validate()
        .expect("because a configuration with another policy is refused when it is read")
}
