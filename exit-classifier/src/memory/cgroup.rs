//! What the control group of a process says about memory, in version 2 and in version 1.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::MemoryError;
use crate::label::labels;

labels! {
    /// Which interface a control group has (`cgroups(7)`).
    #[non_exhaustive]
    pub enum Version {
        /// The unified hierarchy: `memory.max`, `memory.events`.
        V2 = "v2",
        /// The memory hierarchy of version 1: `memory.limit_in_bytes`, `memory.oom_control`.
        V1 = "v1",
    }
}

/// From here on a limit of version 1 means "none": it writes the largest multiple of the page size that a counter can hold.
const V1_NO_LIMIT: u64 = 1 << 62;

/// The control group in which the memory of a process is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryGroup {
    dir: PathBuf,
    /// The mount point; limits of groups up to here hold as well.
    top: PathBuf,
    version: Version,
}

impl MemoryGroup {
    /// Returns the memory control group of a process, or `None` where it has none that can be seen from here.
    ///
    /// # Errors
    ///
    /// [`MemoryError::NoProcess`] where there is no such process, [`MemoryError::Read`] where `/proc` cannot be read.
    pub fn of(pid: u32) -> Result<Option<Self>, MemoryError> {
        let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let groups = fs::read_to_string(&path)
            .map_err(|source| MemoryError::of_process(pid, &path, source))?;
        let path = Path::new("/proc/self/mountinfo");
        let mounts = fs::read(path).map_err(|source| MemoryError::read(path, source))?;
        Ok(locate(&groups, &String::from_utf8_lossy(&mounts)))
    }

    /// Returns the group whose files are in `dir`; groups above it are not looked at.
    #[must_use]
    pub fn at(dir: impl Into<PathBuf>, version: Version) -> Self {
        let dir = dir.into();
        Self {
            top: dir.clone(),
            dir,
            version,
        }
    }

    /// Returns the directory of its files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns which interface it has.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Returns the memory limit in bytes that holds in this group: the smallest from here up to the mount point; `None` = no limit.
    ///
    /// A group without the file (the root of version 2, or one to which the controller is not given) limits nothing.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Read`] where a file exists and cannot be read, [`MemoryError::Format`] where it holds no limit.
    pub fn limit(&self) -> Result<Option<u64>, MemoryError> {
        let file = match self.version {
            Version::V2 => "memory.max",
            Version::V1 => "memory.limit_in_bytes",
        };
        let mut smallest = None;
        for dir in self.dir.ancestors() {
            if !dir.starts_with(&self.top) {
                break;
            }
            let path = dir.join(file);
            let Some(text) = read_if_there(&path)? else {
                continue;
            };
            let limit = Limit::parse(&text)
                .ok_or_else(|| MemoryError::format(&path, "a limit in bytes"))?;
            if let Limit::Bytes(bytes) = limit {
                smallest = Some(smallest.map_or(bytes, |least: u64| least.min(bytes)));
            }
        }
        Ok(smallest)
    }

    /// Returns how many processes the kernel has ended here for lack of memory since the group exists; `None` where it does not count them.
    ///
    /// Read it when a process starts and when it has ended: the difference is [`Observation::oom_kills`](crate::Observation::oom_kills). Version 2
    /// (`oom_kill` of `memory.events`) counts groups below as well; version 1 (`memory.oom_control`, Linux 4.13 and later) counts the group alone.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Read`] where the file exists and cannot be read.
    pub fn oom_kills(&self) -> Result<Option<u64>, MemoryError> {
        let file = match self.version {
            Version::V2 => "memory.events",
            Version::V1 => "memory.oom_control",
        };
        Ok(read_if_there(&self.dir.join(file))?.and_then(|text| parse_oom_kills(&text)))
    }
}

/// What a limit file says.
enum Limit {
    None,
    Bytes(u64),
}

impl Limit {
    /// A limit is a number of bytes or, in version 2, the word `max`.
    fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "max" => Some(Self::None),
            number => Some(match number.parse().ok()? {
                V1_NO_LIMIT.. => Self::None,
                bytes => Self::Bytes(bytes),
            }),
        }
    }
}

/// Both versions write lines of a key and a number; the key is `oom_kill` in both, and `oom_kill_disable` is another one.
fn parse_oom_kills(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?
        .trim()
        .parse()
        .ok()
}

fn read_if_there(path: &Path) -> Result<Option<String>, MemoryError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(MemoryError::read(path, source)),
    }
}

/// Returns the directory of a process's group in the hierarchy of version 2, whichever controllers that has, from the texts of its
/// `/proc/<pid>/cgroup` and of `/proc/self/mountinfo`; `None` where it cannot be seen from here.
#[must_use]
pub fn unified_dir(groups: &str, mounts: &str) -> Option<PathBuf> {
    locate_in(groups, mounts, Version::V2).map(|group| group.dir)
}

/// Returns the group from the texts of `/proc/<pid>/cgroup` and `/proc/self/mountinfo`.
///
/// Where version 1 has the memory controller, version 2 cannot have it (it is in one hierarchy only), so version 1 is asked first.
fn locate(groups: &str, mounts: &str) -> Option<MemoryGroup> {
    let found = |version| locate_in(groups, mounts, version);
    found(Version::V1).or_else(|| found(Version::V2))
}

/// Returns the group in the memory hierarchy of version 1, or in the one hierarchy of version 2.
fn locate_in(groups: &str, mounts: &str, version: Version) -> Option<MemoryGroup> {
    let path = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is_it = match version {
            Version::V1 => controllers.split(',').any(|name| name == "memory"),
            Version::V2 => id == "0" && controllers.is_empty(),
        };
        is_it.then_some(path)
    })?;
    mounts
        .lines()
        .filter_map(Mount::parse)
        .filter(|mount| mount.is_memory(version))
        .find_map(|mount| mount.group(path, version))
}

/// One line of `/proc/<pid>/mountinfo`: `36 35 98:0 /root /point options - type source super-options` (`proc_pid_mountinfo(5)`).
struct Mount {
    root: PathBuf,
    point: PathBuf,
    kind: String,
    options: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1)?);
        Some(Self {
            root: unescape(root).into(),
            point: unescape(point).into(),
            kind: kind.to_owned(),
            options: options.to_owned(),
        })
    }

    fn is_memory(&self, version: Version) -> bool {
        match version {
            Version::V2 => self.kind == "cgroup2",
            Version::V1 => {
                self.kind == "cgroup" && self.options.split(',').any(|name| name == "memory")
            }
        }
    }

    /// Returns the group at `path` of this hierarchy, unless the mount shows another part of it.
    fn group(&self, path: &str, version: Version) -> Option<MemoryGroup> {
        // `/../x` is a group outside of our namespace, which no mount of ours shows.
        let below = Path::new(path).strip_prefix(&self.root).ok()?;
        if below.components().any(|part| part.as_os_str() == "..") {
            return None;
        }
        Some(MemoryGroup {
            // Collected from its parts, because joining an empty path would leave a slash at the end.
            dir: self.point.components().chain(below.components()).collect(),
            top: self.point.clone(),
            version,
        })
    }
}

/// The kernel writes blank, tab, line feed and backslash in paths as three octal digits.
fn unescape(field: &str) -> String {
    field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2_MOUNT: &str =
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1_MOUNT: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    #[track_caller]
    fn check(groups: &str, mounts: &str, expected: Option<(&str, Version)>) {
        let found = locate(groups, mounts);
        let found = found
            .as_ref()
            .map(|group| (group.dir().to_str().unwrap(), group.version()));
        assert_eq!(found, expected);
    }

    #[test]
    fn the_group_is_found_in_either_version() {
        check(
            "0::/user.slice/a.scope\n",
            V2_MOUNT,
            Some(("/sys/fs/cgroup/user.slice/a.scope", Version::V2)),
        );
        check("0::/\n", V2_MOUNT, Some(("/sys/fs/cgroup", Version::V2)));
        check(
            "9:name=systemd:/\n4:memory:/a/b\n0::/\n",
            &format!("{V1_MOUNT}{V2_MOUNT}"),
            Some(("/sys/fs/cgroup/memory/a/b", Version::V1)),
        );
        check(
            "4:cpu,memory:/a:b\n",
            V1_MOUNT,
            Some(("/sys/fs/cgroup/memory/a:b", Version::V1)),
        );
        // A container without a namespace of its own sees the whole path, and only its part of the mount.
        check(
            "4:memory:/docker/abc/inner\n",
            "35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
            Some(("/sys/fs/cgroup/memory/inner", Version::V1)),
        );
        check(
            "0::/a\n",
            "30 23 0:26 / /odd\\040place rw - cgroup2 cgroup2 rw\n",
            Some(("/odd place/a", Version::V2)),
        );
    }

    #[test]
    fn the_directory_in_version_2_is_found_beside_a_memory_hierarchy_of_version_1() {
        let groups = "9:name=systemd:/\n4:memory:/a/b\n0::/c d\n";
        let hybrid =
            format!("{V1_MOUNT}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        for (groups, mounts, expected) in [
            (groups, hybrid.as_str(), Some("/sys/fs/cgroup/unified/c d")),
            ("0::/\n", hybrid.as_str(), Some("/sys/fs/cgroup/unified")),
            ("4:memory:/a/b\n", hybrid.as_str(), None),
            (groups, V1_MOUNT, None),
            ("0::/../other\n", V2_MOUNT, None),
        ] {
            assert_eq!(unified_dir(groups, mounts), expected.map(PathBuf::from));
        }
    }

    #[test]
    fn a_group_that_cannot_be_seen_from_here_is_none() {
        check("", V2_MOUNT, None);
        check("0::/a\n", "", None);
        check("0::/../../other\n", V2_MOUNT, None);
        check("3:cpu:/a\n", V1_MOUNT, None);
        check("4:memory:/a\n", V2_MOUNT, None);
        check(
            "4:memory:/elsewhere\n",
            "35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
            None,
        );
        check("nonsense\n::\n", "nonsense - \n\n - - -\n", None);
    }

    #[test]
    fn the_smallest_limit_up_to_the_mount_point_holds() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("a/b");
        fs::create_dir_all(&dir).unwrap();
        let group = |version| MemoryGroup {
            dir: dir.clone(),
            top: top.path().to_owned(),
            version,
        };
        let write = |at: &str, text: &str| fs::write(top.path().join(at), text).unwrap();

        assert_eq!(group(Version::V2).limit().unwrap(), None, "no file at all");
        write("a/b/memory.max", "max\n");
        assert_eq!(group(Version::V2).limit().unwrap(), None);
        write("a/memory.max", "4294967296\n");
        assert_eq!(group(Version::V2).limit().unwrap(), Some(4 << 30));
        write("a/b/memory.max", "1048576\n");
        assert_eq!(group(Version::V2).limit().unwrap(), Some(1 << 20));
        write("a/b/memory.max", "0\n");
        assert_eq!(group(Version::V2).limit().unwrap(), Some(0));
        write("a/b/memory.max", "much\n");
        let error = group(Version::V2).limit().unwrap_err();
        assert!(matches!(error, MemoryError::Format { .. }), "{error}");

        write("a/b/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(group(Version::V1).limit().unwrap(), None);
        write("a/memory.limit_in_bytes", "2147483648\n");
        assert_eq!(group(Version::V1).limit().unwrap(), Some(2 << 30));
        // Of a directory that was only named, nothing above is asked.
        let named = MemoryGroup::at(&dir, Version::V1);
        assert_eq!(named.limit().unwrap(), None);
    }

    #[test]
    fn kills_are_counted_in_either_version() {
        let dir = tempfile::tempdir().unwrap();
        let count = |version| MemoryGroup::at(dir.path(), version).oom_kills().unwrap();
        assert_eq!(count(Version::V2), None);
        assert_eq!(count(Version::V1), None);
        fs::write(
            dir.path().join("memory.events"),
            "low 0\nhigh 7\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n",
        )
        .unwrap();
        assert_eq!(count(Version::V2), Some(2));
        fs::write(
            dir.path().join("memory.oom_control"),
            "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n",
        )
        .unwrap();
        assert_eq!(count(Version::V1), Some(5));
        // A kernel before 4.13 does not count.
        fs::write(
            dir.path().join("memory.oom_control"),
            "oom_kill_disable 0\nunder_oom 0\n",
        )
        .unwrap();
        assert_eq!(count(Version::V1), None);
    }
}
