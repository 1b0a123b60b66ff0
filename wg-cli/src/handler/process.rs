//! What a handler does to its own process before anything else.

use nix::sys::prctl::set_child_subreaper;
use nix::unistd::{getpid, getsid, setsid};

/// Makes this process the root of everything that its agents will start.
///
/// A session of its own keeps it alive when the terminal or the group of whoever started it goes; at a terminal it stays
/// where the person's Ctrl-C reaches it. As a child subreaper it inherits whatever an agent leaves behind, through any
/// number of forks and sessions, so that nothing can get away from a stop.
pub(crate) fn become_handler(at_terminal: bool) {
    // The session's leader may be outside our pid namespace and then reads as 0 (pid_namespaces(7)), which rustix takes for
    // impossible; nix hands it out as it is.
    let leads_session = getsid(None) == Ok(getpid());
    // Refused to the leader of a process group, which then at least has a group of its own.
    if !at_terminal
        && !leads_session
        && let Err(error) = setsid()
    {
        log::debug!("no session of our own: {error}");
    }
    if let Err(error) = set_child_subreaper(true) {
        log::warn!("what an agent leaves behind may get away: not a child subreaper: {error}");
    }
}
