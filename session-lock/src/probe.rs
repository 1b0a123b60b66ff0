//! The probe that asks this system.

use crate::judge::{Claimant, Facts, Liveness, Probe, Surroundings, judge};
use crate::process_facts::ProcessFacts;
use crate::sys;

/// Asks this system about processes: a process descriptor where there is one, else signal 0 and `/proc`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemProbe {
    shared_file_system: bool,
}

impl SystemProbe {
    /// Returns a probe for records on a file system that other hosts may use at the same time, or may not.
    pub(crate) fn on(shared_file_system: bool) -> Self {
        Self { shared_file_system }
    }

    /// Returns whether the claimant is alive.
    #[must_use]
    pub fn ask(&self, claimant: &Claimant) -> Liveness {
        liveness(claimant, self)
    }
}

impl Probe for SystemProbe {
    fn look_up(&self, pid: u32) -> ProcessFacts {
        sys::look_up(pid)
    }

    fn here(&self) -> Surroundings {
        let own = sys::own();
        Surroundings {
            boot_id: sys::boot_id().map(str::to_owned),
            pid_namespace: own.pid_namespace,
            host: own.host,
            shared_file_system: self.shared_file_system,
        }
    }
}

/// Returns whether the claimant is alive, by what `probe` finds out.
pub(crate) fn liveness(claimant: &Claimant, probe: &dyn Probe) -> Liveness {
    let facts = Facts {
        process: probe.look_up(claimant.process.pid),
        here: probe.here(),
    };
    judge(claimant, &facts)
}
