//! What the machine gives: its limits, its file system, and who else may write here.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

use crate::cli::finding::{Finding, Fix, Weight};
use crate::failure::Failure;
use crate::store::StoreError;
use crate::store::room;
use crate::store::workspace::Workspace;

/// Descriptors that a service needs for each chat: its handler's connection, its handler, and those who read it.
const PER_CHAT: u64 = 4;

/// Descriptors that it needs besides.
const BESIDES: u64 = 128;

/// Whether this many chats can all be looked after.
pub(super) fn limits(chats: usize) -> Vec<Finding> {
    let chats = u64::try_from(chats).unwrap_or(u64::MAX);
    let mut findings = Vec::new();
    let needed = chats.saturating_mul(PER_CHAT).saturating_add(BESIDES);
    if let Some(most) = getrlimit(Resource::Nofile).maximum
        && most < needed
    {
        findings.push(
            Finding::new(
                "open files",
                Weight::Warning,
                format!("a process may have {most} files open; {chats} chats may need {needed}"),
            )
            .with_advice("raise the hard limit (ulimit -Hn), then wg service restart"),
        );
    }
    let watches = fs::read_to_string("/proc/sys/fs/inotify/max_user_watches")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    if let Some(watches) = watches
        && watches < chats
    {
        findings.push(
            Finding::new(
                "kernel watches",
                Weight::Warning,
                format!("the kernel watches {watches} directories per user, fewer than there are chats; the others are looked at every second"),
            )
            .with_advice("raise fs.inotify.max_user_watches"),
        );
    }
    findings
}

/// A disk that takes nothing more, whatever is the reason; each verb that writes says so, too.
pub(super) fn room(workspace: &Workspace) -> Option<Finding> {
    // Somebody else's is not written to.
    workspace.check_owner().ok()?;
    let failure = Failure::from(room::check(workspace).err()?);
    let finding = Finding::new("disk", Weight::Error, failure.what_and_why());
    Some(match failure.cure() {
        Some(cure) => finding.with_advice(cure),
        None => finding,
    })
}

/// The file systems of other machines, by the number that statfs(2) gives.
const NETWORK: [(i64, &str); 7] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x5346_414f, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
];

/// A lock on a network file system may hang, and a process number in it proves nothing.
pub(super) fn file_system(workspace: &Workspace) -> Option<Finding> {
    let kind = rustix::fs::statfs(workspace.root()).ok()?.f_type;
    let name = network_name(kind)?;
    let text = format!(
        "`{}` is on a network file system ({name}), where locks prove nothing",
        workspace.root().display()
    );
    Some(
        Finding::new("file system", Weight::Error, text)
            .with_advice("move the workspace to a local disk"),
    )
}

fn network_name(kind: i64) -> Option<&'static str> {
    // Only the low 32 bits are the number; some systems extend their sign.
    let kind = kind & 0xffff_ffff;
    NETWORK
        .iter()
        .find(|(number, _)| *number == kind)
        .map(|(_, name)| *name)
}

/// What is in the workspace, three levels deep, without following links.
fn everything(workspace: &Workspace) -> Vec<(PathBuf, fs::Metadata)> {
    let mut found = Vec::new();
    let mut waiting = vec![(workspace.root().to_owned(), 0)];
    while let Some((path, depth)) = waiting.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.is_dir() && depth < 3 {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            waiting.extend(entries.map(|entry| (entry.path(), depth + 1)));
        }
        found.push((path, metadata));
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

/// Files of somebody else in our workspace: what is in them steers what we run, and we may not be able to write them.
pub(super) fn foreign_files(workspace: &Workspace) -> Option<Finding> {
    let us = nix::unistd::geteuid().as_raw();
    let foreign: Vec<(PathBuf, u32)> = everything(workspace)
        .into_iter()
        .filter(|(_, metadata)| metadata.uid() != us)
        .map(|(path, metadata)| (path, metadata.uid()))
        .collect();
    let (first, owner) = foreign.first()?;
    let text = format!(
        "{} file(s) belong to another user, the first is `{}` (user {owner})",
        foreign.len(),
        first.display()
    );
    Some(
        Finding::new("owner", Weight::Error, text)
            .with_advice("change their owner, or remove them"),
    )
}

/// Whoever may write here can make the service run their commands.
pub(super) fn open_to_others(workspace: &Workspace, fix: Fix) -> Option<Finding> {
    let service = workspace.service_dir();
    let open: Vec<PathBuf> = everything(workspace)
        .into_iter()
        // Nobody comes past a closed directory; that one is looked at by itself.
        .filter(|(path, metadata)| {
            !path.starts_with(&service) && !metadata.is_symlink() && metadata.mode() & 0o022 != 0
        })
        .map(|(path, _)| path)
        .collect();
    let first = open.first()?;
    let text = format!(
        "{} file(s) can be written by others, the first is `{}`: what stands there steers which commands run",
        open.len(),
        first.display()
    );
    Some(Finding::new("modes", Weight::Warning, text).fixed_by(
        "take that right from them (chmod go-w)",
        fix,
        || {
            open.iter().try_for_each(|path| close(path))?;
            Ok(())
        },
    ))
}

fn close(path: &Path) -> Result<(), StoreError> {
    let metadata = fs::symlink_metadata(path).map_err(StoreError::io("look at", path))?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = metadata.mode() & 0o7777 & !0o022;
    fs::set_permissions(path, PermissionsExt::from_mode(mode))
        .map_err(StoreError::io("close", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_numbers_and_local_ones_are_not() {
        for (kind, name) in [
            (0x6969, Some("NFS")),
            (0xff53_4d42, Some("CIFS")),
            (0xff53_4d42 - (1 << 32), Some("CIFS")),
            (0xef53, None),
            (0x0102_1994, None),
        ] {
            assert_eq!(network_name(kind), name, "{kind:x}");
        }
    }

    #[test]
    fn limits_are_too_low_only_for_more_chats_than_they_carry() {
        assert!(limits(1).is_empty());
        let checks: Vec<Finding> = limits(usize::MAX);
        assert!(!checks.is_empty());
    }
}
