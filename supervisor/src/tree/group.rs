//! A control group that holds one unit's processes: who is in it, and what is done to all of them with one write.
//!
//! Only files are read and written here; what follows from them is in `sweep`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A control group (version 2) whose members are one unit's processes and nobody else.
///
/// **How that is proven.** Its maker made the directory itself, for one start, under a name
/// that nobody had before, so that it began empty. The unit's process enters it before it
/// starts anything, and whatever is forked by a member is a member, in whatever session,
/// under whatever parent and with whatever environment. That the process did enter is
/// looked at and not believed: until it was seen, the group is evidence and no proof.
///
/// **Who may be in it all the same.** Somebody with the right to write to the group and to
/// the one above it can move a process in, which gives it to the unit, or out, which takes
/// it away: then only parents and markers lead to it, as without a group. A process that is
/// older than the unit's own, that is another unit's, that a host exempts, or from which the
/// calling process descends stays untouched whoever moved it in; where there is such a one, or one of
/// a pid namespace that cannot be seen from here, nothing is done to the group as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    dir: PathBuf,
}

/// What a group showed at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inside {
    /// All who were in it, by pid.
    pub(crate) members: Vec<u32>,
    /// How many members have no pid here.
    pub(crate) hidden: usize,
    /// Whether anybody alive was in it; never later than `members`.
    pub(crate) populated: bool,
    /// Whether all of them stood still; never later than `members`.
    pub(crate) frozen: bool,
    /// Whether the unit's own process is or was a member.
    pub(crate) has_leader: bool,
}

impl Group {
    /// Names the group with this directory, which the caller knows to be one unit's.
    #[must_use]
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Makes a new group.
    ///
    /// # Errors
    ///
    /// Returns an error if there is one of that name, if none may be made there, or if
    /// the kernel cannot end a group (before 5.14).
    pub fn create(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let group = Self::at(dir);
        fs::create_dir(&group.dir)?;
        if fs::metadata(group.dir.join(KILL)).is_err() {
            group.remove()?;
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(group)
    }

    /// Returns its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Moves the calling process into it, with all its threads. What was forked before stays where it is.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such group or this process may not enter it.
    pub fn enter(&self) -> io::Result<()> {
        self.write(PROCS, "0")
    }

    /// Returns who is in it and in the groups below it, without zombies.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such group or it cannot be read.
    pub fn members(&self) -> io::Result<Vec<u32>> {
        let mut members = Vec::new();
        // A group that nobody is in need not be listed, nor the groups below it.
        if self.is_populated()? {
            collect(&self.dir, &mut members)?;
            members.retain(|pid| *pid != 0);
        }
        Ok(members)
    }

    /// Returns true if anybody is alive in it or below it.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such group or it cannot be read.
    pub fn is_populated(&self) -> io::Result<bool> {
        Ok(self.events()?.0)
    }

    /// Returns true if everybody in it stands still.
    ///
    /// # Errors
    ///
    /// As for [`is_populated`](Self::is_populated).
    pub fn is_frozen(&self) -> io::Result<bool> {
        Ok(self.events()?.1)
    }

    /// Lets everybody in it stand still, also whoever is forked meanwhile. The kernel does that one by one after this returned.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such group or it may not be written.
    pub fn freeze(&self) -> io::Result<()> {
        self.write(FREEZE, "1")
    }

    /// Lets everybody in it go on.
    ///
    /// # Errors
    ///
    /// As for [`freeze`](Self::freeze).
    pub fn thaw(&self) -> io::Result<()> {
        self.write(FREEZE, "0")
    }

    /// Ends everybody in it and below it with SIGKILL. Nobody forks away from that: a child that is being made is ended as well.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such group or it may not be written.
    pub fn kill(&self) -> io::Result<()> {
        self.write(KILL, "1")
    }

    /// Removes it and the groups below it. That nobody is in it any more is checked by the kernel.
    ///
    /// # Errors
    ///
    /// Returns an error if somebody is in it. One that is gone already is no error.
    pub fn remove(&self) -> io::Result<()> {
        match remove(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Returns true if this process is in it or below it, or was when it ended.
    #[must_use]
    pub fn has(&self, pid: u32) -> bool {
        let Some(name) = self.dir.file_name() else {
            return false;
        };
        fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|groups| is_below(&groups, name))
    }

    /// Looks at it. The state is read first: of a group that stood still before it was listed, the list is complete.
    pub(crate) fn look(&self, leader: Option<u32>) -> io::Result<Inside> {
        let (populated, frozen) = self.events()?;
        let mut members = Vec::new();
        if populated {
            collect(&self.dir, &mut members)?;
        }
        let all = members.len();
        members.retain(|pid| *pid != 0);
        // Of one that has ended only its own file tells.
        let has_leader = leader.is_some_and(|pid| members.contains(&pid) || self.has(pid));
        Ok(Inside {
            hidden: all - members.len(),
            members,
            populated,
            frozen,
            has_leader,
        })
    }

    fn events(&self) -> io::Result<(bool, bool)> {
        let text = fs::read_to_string(self.dir.join(EVENTS))?;
        let populated = is_set(&text, "populated").ok_or(io::ErrorKind::InvalidData)?;
        // A kernel before 5.2 freezes nobody.
        Ok((populated, is_set(&text, "frozen").unwrap_or(false)))
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        // Never `fs::write`: in the place of a group that is gone no file is to be made.
        let mut file = fs::OpenOptions::new()
            .write(true)
            .open(self.dir.join(file))?;
        io::Write::write_all(&mut file, text.as_bytes())
    }
}

const PROCS: &str = "cgroup.procs";
const EVENTS: &str = "cgroup.events";
const FREEZE: &str = "cgroup.freeze";
const KILL: &str = "cgroup.kill";

/// One line of `cgroup.events` is a key and 0 or 1.
fn is_set(events: &str, key: &str) -> Option<bool> {
    let value = events
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    match value.trim() {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

/// Whether a text of `/proc/<pid>/cgroup` names a group of this name, or one below it, in the hierarchy of version 2.
fn is_below(groups: &str, name: &OsStr) -> bool {
    let Some(path) = groups.lines().find_map(|line| line.strip_prefix("0::")) else {
        return false;
    };
    // The kernel says so of a zombie whose group was removed.
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    Path::new(path)
        .components()
        .any(|part| part.as_os_str() == name)
}

/// Lists a group and those below it; 0 stands for a member of a pid namespace that cannot be seen from here.
fn collect(dir: &Path, members: &mut Vec<u32>) -> io::Result<()> {
    let text = fs::read_to_string(dir.join(PROCS))?;
    members.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    for below in groups_below(dir)? {
        // One that was removed meanwhile has nobody. One of threads (`cgroup.type`) does not
        // list its processes: the group above it does.
        match collect(&below, members) {
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(nix::errno::Errno::EOPNOTSUPP as i32)
                    || error.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32) => {}
            done => done?,
        }
    }
    Ok(())
}

fn remove(dir: &Path) -> io::Result<()> {
    for below in groups_below(dir)? {
        remove(&below)?;
    }
    fs::remove_dir(dir)
}

fn groups_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut below = Vec::new();
    // This file system counts the directories in one, beside itself and the one above.
    if fs::metadata(dir)?.nlink() == 2 {
        return Ok(below);
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            below.push(entry.path());
        }
    }
    Ok(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_known_by_the_name_of_its_group_alone() {
        let name = OsStr::new("wg-7f");
        for (groups, expected) in [
            ("0::/user.slice/wg-7f\n", true),
            ("4:memory:/a\n0::/wg-7f/made/by/the/agent\n", true),
            ("0::/wg-7f (deleted)\n", true),
            ("0::/user.slice/wg-7f0\n", false),
            ("0::/user.slice\n", false),
            ("1:name=systemd:/wg-7f\n0::/\n", false),
            ("1:name=systemd:/wg-7f\n", false),
            ("", false),
        ] {
            assert_eq!(is_below(groups, name), expected, "{groups:?}");
        }
    }

    #[test]
    fn what_the_kernel_says_of_a_group_is_a_key_and_one_digit() {
        let text = "populated 1\nfrozen 0\n";
        assert_eq!(is_set(text, "populated"), Some(true));
        assert_eq!(is_set(text, "frozen"), Some(false));
        assert_eq!(is_set("frozenness 1\n", "frozen"), None);
        assert_eq!(is_set("frozen much\n", "frozen"), None);
        assert_eq!(is_set("", "populated"), None);
    }

    #[test]
    fn a_group_that_is_not_there_is_an_error_and_makes_no_file() {
        let place = tempfile::tempdir().unwrap();
        let group = Group::at(place.path().join("nowhere"));
        for done in [group.enter(), group.freeze(), group.thaw(), group.kill()] {
            assert_eq!(done.unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        assert!(group.members().is_err() && group.is_populated().is_err());
        group.remove().unwrap();
        // Where the kernel makes no files in a new directory there is no group.
        assert!(Group::create(place.path().join("plain")).is_err());
        assert!(!place.path().join("plain").exists());
    }
}
