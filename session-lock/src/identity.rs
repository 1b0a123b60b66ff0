//! Which process a number means: its start time and the boot it belongs to, beside the number.

use std::io;

use crate::sys;

/// A process, told apart from any other that had or will have its number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProcessIdentity {
    /// The process number.
    pub pid: u32,
    /// When it started, in clock ticks after the boot, as the initial time namespace counts them; `None` where
    /// the system does not tell.
    pub start_ticks: Option<u64>,
    /// The boot that it belongs to; `None` where the system does not tell.
    pub boot_id: Option<String>,
}

impl ProcessIdentity {
    /// Returns the identity of the process that has the number `pid` now, or `None` if there is none.
    ///
    /// A process that has ended but was not yet waited for is none.
    ///
    /// # Errors
    ///
    /// Returns the system's error where it does not say whether there is such a process.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        if !sys::is_running(pid)? {
            return Ok(None);
        }
        Ok(Some(Self {
            pid,
            start_ticks: sys::start_ticks(pid),
            boot_id: sys::boot_id().map(str::to_owned),
        }))
    }

    /// Returns the identity of the calling process.
    #[must_use]
    pub fn own() -> Self {
        let own = sys::own();
        Self {
            pid: own.pid,
            start_ticks: own.start_ticks,
            boot_id: sys::boot_id().map(str::to_owned),
        }
    }

    /// Returns whether this very process still runs.
    ///
    /// Where the system does not say, the answer is yes: taking a live process for a dead one is the mistake
    /// that cannot be undone.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        match Self::of(self.pid) {
            Ok(Some(now)) => self.may_be(&now),
            Ok(None) => false,
            Err(_unknown) => true,
        }
    }

    /// Returns whether `other` may be the same process: nothing that both sides know differs.
    #[must_use]
    pub fn may_be(&self, other: &Self) -> bool {
        fn agree<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
            one.zip(other).is_none_or(|(one, other)| one == other)
        }
        self.pid == other.pid
            && agree(self.start_ticks.as_ref(), other.start_ticks.as_ref())
            && agree(self.boot_id.as_ref(), other.boot_id.as_ref())
    }
}
