//! The driver does what the model says: the system calls of a real process, step by step.
//!
//! Each step of the machine stands for a few calls on the lock's files. A trace of a real process is cut into steps by
//! what the calls name, and must be the sequence of the machine.

use std::fs;
use std::path::Path;

use session_lock::protocol::Step;

use crate::support::{Idler, Player, lines, plant, works};

const CALLS: &str =
    "trace=openat,flock,newfstatat,pread64,pwrite64,ftruncate,unlinkat,linkat,renameat2,fstat";

/// Returns the steps that a traced call belongs to, as far as it shows by itself.
fn step_of(call: &str, before: Option<Step>) -> Option<Step> {
    let of = |name: &str| call.contains(&format!("\"{name}\""));
    let (guard, record) = (of(".handler.guard"), of(".handler.pid"));
    let own = call.starts_with("fstat") || call.contains("\"\", ");
    let staged = call.contains("\".handler.pid.");
    let name = call.split('(').next().unwrap_or_default();
    Some(match name {
        "openat" if guard => Step::OpenGuard,
        "flock" if call.contains("LOCK_UN") => Step::UnlockGuard,
        "flock" => Step::LockGuard,
        "newfstatat" if guard && before.is_some_and(|before| before != Step::LockGuard) => {
            Step::ConfirmGuard
        }
        "newfstatat" if guard => Step::CheckGuard,
        "pread64" if call.contains("handler.guard>") => Step::ReadGuard,
        "openat" if record => Step::ReadRecord,
        "unlinkat" if of(".handler.release-requested") => Step::ClearMarker,
        "pwrite64" if call.contains("handler.guard>") && call.contains("\"free\"") => {
            Step::MarkFree
        }
        "pwrite64" if call.contains("handler.guard>") => Step::WriteClaim,
        // Before Linux 6.10 only a capability opens the short way; the long one follows.
        "linkat" if call.contains("AT_EMPTY_PATH") && call.contains("ENOENT") => return None,
        "linkat" if staged => Step::StageRecord,
        "linkat" => Step::LinkRecord,
        "renameat2" if call.contains("RENAME_EXCHANGE") => Step::ExchangeRecords,
        "newfstatat" if staged => Step::LookAtDisplaced,
        "unlinkat" if staged => Step::DropStaged,
        "unlinkat" if record => Step::UnlinkRecord,
        // A look at what a descriptor leads to has one name or the other, by the C library's version.
        "fstat" | "newfstatat" if own && before == Some(Step::UnlinkRecord) => Step::VoidRecord,
        // Looking before unlinking, reading what was opened, making the draft: parts of a step, seen elsewhere.
        _part => return None,
    })
}

/// Lets a process try once, and returns its steps as the system saw them.
fn traced(dir: &Path) -> Option<Vec<Step>> {
    if !works("strace", &["-qq", "-o", "/dev/null", "true"]) {
        return None;
    }
    let output = tempfile::NamedTempFile::new().unwrap();
    let path = output.path().to_str().unwrap();
    let wrapper = [
        "strace", "-qq", "-f", "-y", "-s", "200", "-o", path, "-e", CALLS,
    ];
    let mut player = Player::start_behind(&wrapper, "try", dir);
    player.hear();
    assert!(player.finish().success());
    let trace = fs::read_to_string(path).unwrap();
    let mut steps: Vec<Step> = Vec::new();
    for line in trace
        .lines()
        .filter(|line| line.contains(".handler") || line.contains("(deleted)"))
    {
        let call = line
            .split_once(' ')
            .map_or(line, |(_pid, call)| call.trim_start());
        let step = step_of(call, steps.last().copied());
        steps.extend(step.filter(|step| steps.last() != Some(step)));
    }
    Some(steps)
}

#[test]
fn taking_a_free_lock_and_releasing_it_is_the_models_sequence() {
    use Step::{
        CheckGuard, ClearMarker, ConfirmGuard, LinkRecord, LockGuard, MarkFree, OpenGuard,
        ReadGuard, ReadRecord, UnlinkRecord, UnlockGuard, VoidRecord, WriteClaim,
    };
    let dir = tempfile::tempdir().unwrap();
    let Some(steps) = traced(dir.path()) else {
        return;
    };
    let model = [
        OpenGuard,
        LockGuard,
        CheckGuard,
        ReadGuard,
        ReadRecord,
        ClearMarker,
        WriteClaim,
        LinkRecord,
        ConfirmGuard,
        UnlinkRecord,
        VoidRecord,
        MarkFree,
        UnlockGuard,
    ];
    assert_eq!(steps, model);
}

#[test]
fn taking_over_is_the_models_sequence() {
    use Step::{
        CheckGuard, ClearMarker, ConfirmGuard, DropStaged, ExchangeRecords, LockGuard,
        LookAtDisplaced, MarkFree, OpenGuard, ReadGuard, ReadRecord, StageRecord, UnlinkRecord,
        UnlockGuard, VoidRecord, WriteClaim,
    };
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Player::start("hold", dir.path());
    holder.hear();
    holder.kill();
    let Some(steps) = traced(dir.path()) else {
        return;
    };
    let model = [
        OpenGuard,
        LockGuard,
        CheckGuard,
        ReadGuard,
        ReadRecord,
        ClearMarker,
        WriteClaim,
        StageRecord,
        ExchangeRecords,
        LookAtDisplaced,
        DropStaged,
        ConfirmGuard,
        UnlinkRecord,
        VoidRecord,
        MarkFree,
        UnlockGuard,
    ];
    assert_eq!(steps, model);
}

#[test]
fn giving_way_is_the_models_sequence() {
    use Step::{CheckGuard, LockGuard, OpenGuard, ReadGuard, ReadRecord, UnlockGuard};
    let (dir, idler) = (tempfile::tempdir().unwrap(), Idler::new());
    plant(dir.path(), lines(idler.pid()));
    let Some(steps) = traced(dir.path()) else {
        return;
    };
    let model = [
        OpenGuard,
        LockGuard,
        CheckGuard,
        ReadGuard,
        ReadRecord,
        UnlockGuard,
    ];
    assert_eq!(steps, model);
}
