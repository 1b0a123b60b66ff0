//! What every part of the attack needs: a folder, dice, the program under a time limit, and a list of findings.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use session_lock::ProcessIdentity;
use wg_cli::process_signal;

use crate::Part;
use crate::dice::Dice;

/// How long the program may take before it counts as hung. Generous, because the machine may be busy.
pub(crate) const HUNG: Duration = Duration::from_secs(60);

/// As many findings are told; the rest is most likely the same.
const TOLD: usize = 20;

/// Runs one part for some time and prints what it did and found; returns whether it found nothing.
pub(crate) fn run(part: Part, span: Duration, seed: u64) -> io::Result<bool> {
    let folder = tempfile::Builder::new().prefix("wg-attack-").tempdir()?;
    let mut attack = Attack {
        root: folder.path().canonicalize()?,
        folders: 0,
        marker: format!("ATTACK_RUN={}", folder.path().display()),
        dice: Dice::new(seed),
        until: Instant::now() + span,
        counts: BTreeMap::new(),
        findings: Vec::new(),
    };
    let outcome = part(&mut attack);
    attack.end_what_is_left();
    let counts: Vec<String> = attack
        .counts
        .iter()
        .map(|(what, count)| format!("{what} {count}"))
        .collect();
    println!("  {}", counts.join(", "));
    for finding in attack.findings.iter().take(TOLD) {
        println!("  FOUND: {finding}");
    }
    println!("  findings {}", attack.findings.len());
    let nothing_found = outcome.is_ok() && attack.findings.is_empty();
    if !nothing_found {
        println!("  the folder is kept: {}", folder.keep().display());
    }
    outcome.map(|()| nothing_found)
}

/// One run of one part.
#[derive(Debug)]
pub(crate) struct Attack {
    pub(crate) dice: Dice,
    root: PathBuf,
    folders: u32,
    marker: String,
    until: Instant,
    counts: BTreeMap<&'static str, u64>,
    findings: Vec<String>,
}

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Attack {
    /// The folder of this run. Nothing outside it is touched.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Makes a new folder in that of the run.
    pub(crate) fn folder(&mut self, name: &str) -> io::Result<PathBuf> {
        self.folders += 1;
        let folder = self.root.join(format!("{name}-{}", self.folders));
        fs::create_dir(&folder)?;
        Ok(folder)
    }

    /// Whether there is time left.
    pub(crate) fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    /// Counts something for the report.
    pub(crate) fn count(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    /// Counts several at once.
    pub(crate) fn add(&mut self, what: &'static str, how_many: u64) {
        *self.counts.entry(what).or_default() += how_many;
    }

    /// Remembers that a rule was broken.
    pub(crate) fn found(&mut self, what: impl Into<String>) {
        self.findings.push(what.into());
    }

    /// One of several.
    pub(crate) fn one_of<T: Copy>(&mut self, several: &[T]) -> T {
        let at = self.dice.below(several.len() as u64);
        several[usize::try_from(at).unwrap_or(0)]
    }

    /// The program, with a home and an environment of its own, in the folder of the run.
    pub(crate) fn wg<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Command {
        let mut wg = Command::new("/proc/self/exe");
        wg.arg0("wg").args(args);
        self.confine(&mut wg);
        wg
    }

    /// Gives a command the environment of this run, by which what it leaves is found.
    pub(crate) fn confine(&self, command: &mut Command) {
        let (name, value) = self.marker.split_once('=').unwrap_or_default();
        command
            .current_dir(&self.root)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &self.root)
            .env(name, value)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
    }

    /// Runs the program until it ends. A hang, a panic and an end by a signal are findings.
    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(&mut self, args: &[S]) -> io::Result<Done> {
        let mut wg = self.wg(args);
        self.count("runs");
        self.finish(&mut wg)
    }

    /// Runs a command of this run until it ends; see [`run`](Self::run).
    pub(crate) fn finish(&mut self, command: &mut Command) -> io::Result<Done> {
        // Files, because a process that is left behind would keep a pipe open.
        let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
        command.stdout(out.try_clone()?).stderr(err.try_clone()?);
        let child = command.spawn()?;
        let what = format!("{:?}", command.get_args().collect::<Vec<_>>());
        let status = self.wait(child, &what)?;
        let done = Done {
            code: status.and_then(|status| status.code()),
            stdout: text_of(&mut out)?,
            stderr: text_of(&mut err)?,
        };
        if let Some(signal) = status.and_then(|status| status.signal()) {
            self.found(format!("{what} was ended by signal {signal}"));
        }
        if done.code == Some(101) || done.stderr.contains("panicked at") {
            self.found(format!("{what} panicked: {}", done.stderr));
        }
        Ok(done)
    }

    /// Waits for a child; one that hangs is a finding, and is killed.
    pub(crate) fn wait(&mut self, mut child: Child, what: &str) -> io::Result<Option<ExitStatus>> {
        let until = Instant::now() + HUNG;
        let ended = match session_lock::watch(child.id())? {
            Some(watch) => watch.wait(until)?,
            None => true,
        };
        if !ended {
            self.found(format!("{what} hung for {} s", HUNG.as_secs()));
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        child.wait().map(Some)
    }

    /// Every process of this run but this one, told by its environment.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| *pid != std::process::id() && self.is_own(*pid))
            .collect()
    }

    fn is_own(&self, pid: u32) -> bool {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|one| one == self.marker.as_bytes())
    }

    /// Signals a process of this run, and no other.
    pub(crate) fn signal(&self, pid: u32, signal: Signal) -> bool {
        let Ok(Some(identity)) = ProcessIdentity::of(pid) else {
            return false;
        };
        // Looked at after the identity was taken: what is signalled is what carries the marker.
        self.is_own(pid) && process_signal::send(&identity, signal).unwrap_or(false)
    }

    /// Whatever is left when a part is over is a finding, and is killed.
    fn end_what_is_left(&mut self) {
        for pid in self.processes() {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            self.signal(pid, Signal::KILL);
            self.found(format!("process {pid} is left behind: {line}"));
        }
    }
}

pub(crate) fn text_of(file: &mut fs::File) -> io::Result<String> {
    use std::io::Seek;
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Lets some time pass.
pub(crate) fn pause(span: Duration) {
    let (keep, never) = std::sync::mpsc::channel::<()>();
    // Nobody sends, so this waits for as long as it may.
    if never.recv_timeout(span).is_err() {
        drop(keep);
    }
}
