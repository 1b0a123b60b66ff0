//! What a handler does to its own process before anything else.

use rustix::process::{getpid, getsid, set_child_subreaper, setsid};

/// Makes this process the root of everything that its agents will start.
///
/// A session of its own keeps it alive when the terminal or the group of whoever started it goes; at a terminal it stays
/// where the person's Ctrl-C reaches it. As a child subreaper it inherits whatever an agent leaves behind, through any
/// number of forks and sessions, so that nothing can get away from a stop.
pub(crate) fn become_handler(at_terminal: bool) {
    let leads_session = getsid(None).is_ok_and(|session| session == getpid());
    // Refused to the leader of a process group, which then at least has a group of its own.
    if !at_terminal
        && !leads_session
        && let Err(error) = setsid()
    {
        log::debug!("no session of our own: {error}");
    }
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        log::warn!("what an agent leaves behind may get away: not a child subreaper: {error}");
    }
}
