//! Where the locks of directories are kept, for agents that ask for their directory and for `wg lock`.

use std::path::PathBuf;

/// Returns the registry of the user's directory locks: `wg/locks` in the state directory, `None` where the user has no home.
///
/// Everything that one user starts must agree about it, whatever workspace it belongs to, so a missing `HOME` is looked up as a shell
/// does it.
#[must_use]
pub fn of_this_user() -> Option<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let home = || {
        variable("HOME").or_else(|| {
            let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok()??;
            user.dir.is_absolute().then_some(user.dir)
        })
    };
    let state =
        variable("XDG_STATE_HOME").or_else(|| Some(home()?.join(".local").join("state")))?;
    Some(state.join("wg").join("locks"))
}
