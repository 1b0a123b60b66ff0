//! What others may leave in the place of the lock's files: records of every kind, links, pipes, sockets, folders.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::sys::stat::Mode;

use crate::frame::Attack;

/// A process number that no process of this system has: the kernel gives out no higher ones.
const NOBODY: u32 = 4_194_304;

/// What is put in the place of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plant {
    /// A complete record of another tool whose process is gone.
    Dead,
    /// A complete record of another tool whose process lives.
    Living,
    /// A file with nothing in it, just made.
    Empty,
    /// The same, made long ago.
    OldEmpty,
    /// Half a record, made long ago.
    OldPrefix,
    /// A number that `kill` would take for a group.
    Minus,
    /// Text that is no record.
    Noise,
    /// More than anybody reads.
    Huge,
    /// No text at all.
    Bytes,
    Symlink,
    Dangling,
    Fifo,
    Socket,
    Folder,
}

const PLANTS: [Plant; 14] = [
    Plant::Dead,
    Plant::Living,
    Plant::Empty,
    Plant::OldEmpty,
    Plant::OldPrefix,
    Plant::Minus,
    Plant::Noise,
    Plant::Huge,
    Plant::Bytes,
    Plant::Symlink,
    Plant::Dangling,
    Plant::Fifo,
    Plant::Socket,
    Plant::Folder,
];

const FILES: [&str; 8] = [
    ".handler.pid",
    ".handler.guard",
    ".handler.release-requested",
    "note",
    "note.new",
    "hold",
    "hold.new",
    "directory",
];

/// Plants one thing where `wg lock` keeps the lock of a directory, and one in a session.
pub(super) fn round(attack: &mut Attack) -> io::Result<()> {
    let (plant, file) = (attack.one_of(&PLANTS), attack.one_of(&FILES));
    in_registry(attack, plant, file)?;
    let (plant, file) = (attack.one_of(&PLANTS), attack.one_of(&FILES[..3]));
    in_session(attack, plant, file)
}

fn in_registry(attack: &mut Attack, plant: Plant, file: &str) -> io::Result<()> {
    let dir = attack.folder("planted")?;
    let dir = dir.to_string_lossy().into_owned();
    let run = ["lock", "run", "--dir", &dir, "--", "true"];
    attack.run(&run)?;
    let Some(entry) = super::entry_of(attack.root(), Path::new(&dir)) else {
        attack.found(format!("`{dir}` has no entry"));
        return Ok(());
    };
    let what = format!("{plant:?} at `{file}` of a locked directory");
    let planted = Planted::at(attack, &entry.join(file), plant)?;
    attack.count("planted in registries");
    let mut codes = Vec::new();
    for verb in [
        &["lock", "list"][..],
        &["lock", "status", &dir],
        &run,
        &["lock", "release", &dir, "--wait", "0.05"],
        &["lock", "hold", &dir, "--by", "ann"],
        &["lock", "release", &dir, "--wait", "0", "--force"],
        &run,
    ] {
        let done = attack.run(verb)?;
        codes.push(done.code);
        if !matches!(done.code, Some(0 | 75 | 77 | 78 | 71)) {
            attack.found(format!(
                "{what}: {verb:?} left with {:?}: {}",
                done.code, done.stderr
            ));
        }
        if done.code != Some(0)
            && !done.stderr.starts_with("error: ")
            && !done.stderr.contains("\nerror: ")
        {
            attack.found(format!(
                "{what}: {verb:?} left with {:?} and no reason: {}",
                done.code, done.stderr
            ));
        }
    }
    if plant == Plant::Living && file == ".handler.pid" && codes[2] != Some(75) {
        attack.found(format!("{what}: taken from a live process: {codes:?}"));
    }
    planted.remove()?;
    // What a person is told to do is to remove what stands there, and to end the hold.
    attack.run(&["lock", "release", &dir, "--wait", "0", "--force"])?;
    let done = attack.run(&run)?;
    // Without its path an entry protects nobody knows what; only removing the whole of it helps.
    if file != "directory" && done.code != Some(0) {
        attack.found(format!(
            "{what}: the lock is stuck ({codes:?}): {}",
            done.stderr
        ));
    }
    fs::remove_dir_all(entry)
}

fn in_session(attack: &mut Attack, plant: Plant, file: &str) -> io::Result<()> {
    let dir = session(attack)?;
    let what = format!("{plant:?} at `{file}` of a session");
    let planted = Planted::at(attack, &dir.join(file), plant)?;
    attack.count("planted in sessions");
    for verb in [
        &["session", "list"][..],
        &["session", "status", "0"],
        &["session", "check"],
        &["session", "release", "0", "--wait", "0.05"],
        &["session", "takeover", "0", "--force"],
        &["session", "check", "--fix"],
        &["session", "status", "0", "--json"],
    ] {
        let done = attack.run(verb)?;
        if !matches!(done.code, Some(0 | 1 | 75 | 77 | 71)) {
            attack.found(format!(
                "{what}: {verb:?} left with {:?}: {}",
                done.code, done.stderr
            ));
        }
    }
    if plant == Plant::Living && file == ".handler.pid" && !planted.is_victim_alive() {
        attack.found(format!(
            "{what}: a process that is not proven to be the holder was ended"
        ));
    }
    planted.remove()?;
    let done = attack.run(&["session", "takeover", "0", "--force"])?;
    let status = attack.run(&["session", "status", "0", "--json"])?;
    if done.code != Some(0) || status.stdout.contains("\"held\"") {
        attack.found(format!(
            "{what}: the session is stuck: {}{}",
            done.stderr, status.stdout
        ));
    }
    Ok(())
}

/// The session directory of chat 0, made where it is missing.
fn session(attack: &mut Attack) -> io::Result<PathBuf> {
    if !attack.root().join(".wg").exists() {
        attack.run(&["init"])?;
        attack.run(&["chat", "new"])?;
    }
    let status = attack.run(&["session", "status", "0", "--json"])?;
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap_or_default();
    let dir = PathBuf::from(status["dir"].as_str().unwrap_or_default());
    if !dir.starts_with(attack.root()) {
        return Err(io::Error::other("the session has no directory"));
    }
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// What stands in the place of a file, until it is removed.
#[derive(Debug)]
struct Planted {
    path: PathBuf,
    victim: Option<Child>,
}

impl Planted {
    fn at(attack: &Attack, path: &Path, plant: Plant) -> io::Result<Self> {
        let mut planted = Self {
            path: path.to_owned(),
            victim: None,
        };
        planted.clear()?;
        let record = |pid: u32| format!("{pid}\n2026-01-01T00:00:00Z\nother-tool\n");
        match plant {
            Plant::Dead => fs::write(path, record(NOBODY)),
            Plant::Living => {
                let mut sleep = Command::new("sleep");
                attack.confine(&mut sleep);
                let victim = sleep.arg("1000").spawn()?;
                let text = record(victim.id());
                planted.victim = Some(victim);
                fs::write(path, text)
            }
            Plant::Empty => fs::write(path, ""),
            Plant::OldEmpty => aged(path, ""),
            Plant::OldPrefix => aged(path, "12345\n2026-01-0"),
            Plant::Minus => fs::write(path, "-1\n2026-01-01T00:00:00Z\nx\n"),
            Plant::Noise => fs::write(path, "what is this\n"),
            Plant::Huge => fs::write(path, vec![b'1'; 1 << 20]),
            Plant::Bytes => fs::write(path, [0xff, 0xfe, 0, 1, 2]),
            Plant::Symlink => symlink("/etc/passwd", path),
            Plant::Dangling => symlink("/nowhere/at/all", path),
            Plant::Fifo => Ok(nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?),
            Plant::Socket => {
                // A socket's path is short; that of the folder may not be.
                let beside = attack.root().join("s");
                drop(UnixListener::bind(&beside)?);
                fs::rename(beside, path)
            }
            Plant::Folder => fs::create_dir(path),
        }?;
        Ok(planted)
    }

    fn clear(&self) -> io::Result<()> {
        match fs::symlink_metadata(&self.path) {
            Ok(it) if it.is_dir() => fs::remove_dir_all(&self.path),
            Ok(_) => fs::remove_file(&self.path),
            Err(_) => Ok(()),
        }
    }

    fn is_victim_alive(&self) -> bool {
        let pid = self.victim.as_ref().map(Child::id);
        pid.is_some_and(|pid| {
            session_lock::watch(pid)
                .ok()
                .flatten()
                .is_some_and(|watch| watch.has_ended().is_ok_and(|ended| !ended))
        })
    }

    fn remove(mut self) -> io::Result<()> {
        if let Some(victim) = &mut self.victim {
            victim.kill()?;
            victim.wait()?;
        }
        self.clear()
    }
}

fn aged(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    let long_ago =
        std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::options()
        .write(true)
        .open(path)?
        .set_modified(long_ago)
}
