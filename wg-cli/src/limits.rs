//! How many files a process may have open.
//!
//! A daemon of a thousand chats has some thousands: a connection and a process descriptor each. It raises its own limit as far as it may,
//! and its handlers go back to the former one, because a program that uses select(2) breaks on numbers beyond 1,023.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Carries the former limit to a handler.
pub const FORMER: &str = "WG_NOFILE";

/// Raises this process's limit as far as it may; returns the former one, if it was raised.
#[must_use]
pub fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let former = limit.current?;
    if limit.maximum == Some(former) {
        return None;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => Some(former),
        Err(error) => {
            log::warn!("the limit of open files stays at {former}: {error}");
            None
        }
    }
}

/// Goes back to the limit that the daemon had before it raised its own.
pub fn restore_open_files() {
    let Some(former) = std::env::var(FORMER)
        .ok()
        .and_then(|text| text.parse().ok())
    else {
        return;
    };
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < former) {
        return;
    }
    let lowered = Rlimit {
        current: Some(former),
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, lowered) {
        log::warn!("the limit of open files stays as the daemon has it: {error}");
    }
}

/// Returns the most files that this process may ever have open; `None` where there is no limit.
#[must_use]
pub fn most_open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}
