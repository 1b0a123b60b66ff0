//! Control groups for handlers: where they may be made, and how a handler gets into its own.
//!
//! A handler that is a member of a group of its own is ended with everything that it ever started by one write, see
//! [`supervisor::tree::Group`]. Its daemon makes the group before the start, as a directory below its own group, and the handler
//! enters it with its first lines.
//!
//! Groups are made only where that is ours to do. A service manager is the one writer of its tree, except below a group
//! that it gave away: systemd says so by an attribute of the directory (`Delegate=yes`). In a container the root of the
//! namespace is ours if it can be written. No controller is needed and none is ever enabled.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use exit_classifier::memory::cgroup::unified_dir;
use rustix::fs::{Access, access, getxattr};
use supervisor::tree::Group;

/// The environment variable that names the group which a handler is to enter.
pub(crate) const VARIABLE: &str = "WG_GROUP";

/// What systemd writes to a group that it gave away (systemd.resource-control(5)); the first can be read by its user.
const DELEGATED: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// Why handlers have no control groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Without {
    /// No hierarchy of version 2 can be seen from here.
    NoHierarchy,
    /// This process is in the group of the whole machine.
    Root(PathBuf),
    /// Its group is somebody else's to divide.
    NotDelegated(PathBuf),
    /// The kernel cannot end a group (before 5.14).
    NoKill,
    /// Its group cannot be written.
    NotWritable(PathBuf),
}

impl fmt::Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHierarchy => f.write_str("there is no control group of version 2 here"),
            Self::Root(dir) => write!(f, "`{}` is the group of the whole machine", dir.display()),
            Self::NotDelegated(dir) => write!(f, "`{}` is not delegated", dir.display()),
            Self::NoKill => f.write_str("this kernel cannot end a control group (before 5.14)"),
            Self::NotWritable(dir) => write!(f, "`{}` cannot be written", dir.display()),
        }
    }
}

/// What the directory of a group shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    kind: Kind,
    /// Whether it has the mark of a service manager that gave it away.
    marked: bool,
    /// Whether this process may make groups in it and move members to them.
    writable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The root of the hierarchy, which is no group that could be ended.
    Root,
    /// A group of a kernel that cannot end it.
    WithoutKill,
    /// A group that can be ended.
    Full,
}

/// Returns the group of this process, below which groups for handlers may be made.
pub(crate) fn delegated() -> Result<PathBuf, Without> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    choose(&groups, &String::from_utf8_lossy(&mounts), look)
}

/// The rule, given what the kernel says of this process and what is asked of its directory.
fn choose(
    groups: &str,
    mounts: &str,
    look: impl FnOnce(&Path) -> Shown,
) -> Result<PathBuf, Without> {
    let dir = unified_dir(groups, mounts).ok_or(Without::NoHierarchy)?;
    let Shown {
        kind,
        marked,
        writable,
    } = look(&dir);
    // Seen from inside, the root of a namespace has no name.
    let is_root_of_namespace = groups.lines().any(|line| line == "0::/");
    match kind {
        Kind::Root => Err(Without::Root(dir)),
        Kind::WithoutKill | Kind::Full if !(marked || is_root_of_namespace) => {
            Err(Without::NotDelegated(dir))
        }
        Kind::WithoutKill => Err(Without::NoKill),
        Kind::Full if !writable => Err(Without::NotWritable(dir)),
        Kind::Full => Ok(dir),
    }
}

fn look(dir: &Path) -> Shown {
    let has = |file: &str| dir.join(file).exists();
    let marked = DELEGATED.iter().any(|name| {
        let mut value = [0; 8];
        getxattr(dir, *name, &mut value).is_ok_and(|length| value[..length] == *b"1")
    });
    // Whoever moves a process must be allowed to write the list of the group that both are below.
    let writable = [dir.to_owned(), dir.join("cgroup.procs")]
        .iter()
        .all(|path| access(path, Access::WRITE_OK).is_ok());
    Shown {
        kind: if has("cgroup.kill") {
            Kind::Full
        } else if has("cgroup.events") {
            Kind::WithoutKill
        } else {
            Kind::Root
        },
        marked,
        writable,
    }
}

/// Enters the group that the daemon made for this handler: before anything is started, so that nothing is outside of it.
///
/// A handler that cannot enter serves its chat all the same; its daemon sees that it is not in there, and ends it as without one.
pub(crate) fn enter(named: Option<&OsStr>) {
    if let Some(dir) = named
        && let Err(error) = Group::at(dir).enter()
    {
        log::warn!(
            "the control group `{}` was not entered: {error}",
            dir.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNT: &str = "30 23 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const FULL: Shown = Shown {
        kind: Kind::Full,
        marked: false,
        writable: true,
    };

    #[test]
    fn groups_are_made_only_where_they_were_given_away_or_in_a_container() {
        let own = || PathBuf::from("/sys/fs/cgroup/user.slice/a.scope");
        let top = || PathBuf::from("/sys/fs/cgroup");
        let marked = Shown {
            marked: true,
            ..FULL
        };
        let unwritable = |shown| Shown {
            writable: false,
            ..shown
        };
        let kind = |kind, shown| Shown { kind, ..shown };
        let scope = "0::/user.slice/a.scope\n";
        for (groups, shown, expected) in [
            (scope, marked, Ok(own())),
            (scope, FULL, Err(Without::NotDelegated(own()))),
            (scope, unwritable(marked), Err(Without::NotWritable(own()))),
            (scope, kind(Kind::WithoutKill, marked), Err(Without::NoKill)),
            // A container: the root of its namespace is a group of the machine.
            ("0::/\n", FULL, Ok(top())),
            ("0::/\n", unwritable(FULL), Err(Without::NotWritable(top()))),
            (
                "0::/\n",
                kind(Kind::WithoutKill, FULL),
                Err(Without::NoKill),
            ),
            // The machine itself.
            ("0::/\n", kind(Kind::Root, FULL), Err(Without::Root(top()))),
            (
                "0::/\n",
                kind(Kind::Root, marked),
                Err(Without::Root(top())),
            ),
            ("4:memory:/a\n", marked, Err(Without::NoHierarchy)),
            ("0::/../outside\n", marked, Err(Without::NoHierarchy)),
            ("", marked, Err(Without::NoHierarchy)),
        ] {
            assert_eq!(
                choose(groups, MOUNT, |_| shown),
                expected,
                "{groups:?} {shown:?}"
            );
        }
    }

    #[test]
    fn a_plain_directory_is_nobodys_group() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(look(dir.path()).kind, Kind::Root);
        assert!(!look(dir.path()).marked);
    }
}
