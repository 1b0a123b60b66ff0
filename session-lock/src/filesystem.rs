//! Which file systems cannot carry the lock.

use std::os::fd::AsFd;

/// What sort of file system a directory lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// Only this machine uses it.
    Local,
    /// Other hosts may use it too, but locks on it do not hang (FUSE, of any kind).
    Shared,
    /// Locks on it may hang even when asked not to wait, and a process number in a record may be another host's.
    Network(&'static str),
}

/// Returns the sort of file system that `dir` lies on.
pub(crate) fn of(dir: impl AsFd) -> FileSystem {
    #[cfg(target_os = "linux")]
    {
        // The field's type differs between architectures; the magic numbers all fit in 32 bits.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a magic number is 32 bits of pattern"
        )]
        nix::sys::statfs::fstatfs(dir).map_or(FileSystem::Local, |stat| {
            by_magic(stat.filesystem_type().0 as u32)
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        use nix::sys::statfs::fstatfs;
        let name = fstatfs(dir)
            .map(|stat| stat.filesystem_type_name().to_owned())
            .unwrap_or_default();
        match name.as_str() {
            "nfs" => FileSystem::Network("NFS"),
            "smbfs" => FileSystem::Network("SMB"),
            "afpfs" => FileSystem::Network("AFP"),
            "webdav" => FileSystem::Network("WebDAV"),
            "macfuse" | "osxfuse" => FileSystem::Shared,
            _other => FileSystem::Local,
        }
    }
}

/// Returns what a magic number of `statfs(2)` stands for.
#[cfg(target_os = "linux")]
fn by_magic(magic: u32) -> FileSystem {
    match magic {
        0x6969 => FileSystem::Network("NFS"),
        0xFF53_4D42 | 0xFE53_4D42 | 0x517B => FileSystem::Network("SMB"),
        0x0102_1997 => FileSystem::Network("9P"),
        0x00C3_6400 => FileSystem::Network("Ceph"),
        0x5346_414F | 0x6B41_4653 => FileSystem::Network("AFS"),
        0x7375_7245 => FileSystem::Network("Coda"),
        0x564C => FileSystem::Network("NCP"),
        0x0BD0_0BD0 => FileSystem::Network("Lustre"),
        0x0116_1970 => FileSystem::Network("GFS2"),
        0x7461_636F => FileSystem::Network("OCFS2"),
        0x4750_4653 => FileSystem::Network("GPFS"),
        0x786F_4256 => FileSystem::Network("VirtualBox shared folder"),
        0x6573_5546 => FileSystem::Shared,
        _local => FileSystem::Local,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_magic() {
        assert_eq!(by_magic(0x6969), FileSystem::Network("NFS"));
        assert_eq!(by_magic(0xFF53_4D42), FileSystem::Network("SMB"));
        assert_eq!(by_magic(0x6573_5546), FileSystem::Shared);
        for local in [0xEF53, 0x0102_1994, 0x794C_7630, 0x9123_683E, 0x5846_5342] {
            assert_eq!(by_magic(local), FileSystem::Local, "{local:#x}");
        }
    }
}
