//! Processes that the tests start: this very test program, told by an argument which part to play.
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use std::time::{Duration, Instant};

use session_lock::record::{Content, parse};

const ROLE: &str = "SESSION_LOCK_TEST_ROLE";
const DIR: &str = "SESSION_LOCK_TEST_DIR";

/// Plays a part if this process was started for one. To be called by a test named `part`.
pub(crate) fn play(parts: impl Fn(&str, &Path)) {
    if let (Ok(role), Some(dir)) = (std::env::var(ROLE), std::env::var_os(DIR)) {
        parts(&role, Path::new(&dir));
    }
}

/// Says something to whoever started this process.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "@{text}").expect("a reader");
    out.flush().expect("a reader");
}

/// Waits until whoever started this process says something, or is gone.
pub(crate) fn listen() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("a line");
    line.trim_end().to_owned()
}

/// Returns the command that plays a part, behind `wrapper`.
pub(crate) fn command(wrapper: &[&str], role: &str, dir: &Path) -> Command {
    let mut words: Vec<&OsStr> = wrapper.iter().map(OsStr::new).collect();
    let exe = std::env::current_exe().expect("a path");
    words.extend([exe.as_os_str()]);
    words.extend(["--exact", "part", "--nocapture", "--test-threads=1"].map(OsStr::new));
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .env_clear()
        .env(ROLE, role)
        .env(DIR, dir);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    if !wrapper.is_empty() {
        // Wrappers complain about what is done to them on purpose.
        command.stderr(Stdio::null());
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0);
    command
}

/// A started process, killed with its group when it is dropped.
pub(crate) struct Player {
    pub(crate) child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Player {
    pub(crate) fn start(role: &str, dir: &Path) -> Self {
        Self::start_command(command(&[], role, dir))
    }

    pub(crate) fn start_behind(wrapper: &[&str], role: &str, dir: &Path) -> Self {
        Self::start_command(command(wrapper, role, dir))
    }

    pub(crate) fn start_command(mut command: Command) -> Self {
        let mut child = command.spawn().expect("a process");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        Self {
            child,
            stdin,
            stdout,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns what it says next; what the test harness says is skipped.
    #[track_caller]
    pub(crate) fn hear(&mut self) -> String {
        let said = self.hear_anything();
        said.unwrap_or_else(|| panic!("it ended without a word: {:?}", self.child.wait()))
    }

    /// Returns what it says next, or `None` if it ends first.
    pub(crate) fn hear_anything(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).expect("a line") == 0 {
                return None;
            }
            if let Some((_, text)) = line.split_once('@') {
                return Some(text.trim_end().to_owned());
            }
        }
    }

    pub(crate) fn tell(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "{text}").expect("a listener");
    }

    /// Lets it end by itself and returns how.
    pub(crate) fn finish(&mut self) -> ExitStatus {
        drop(self.stdin.take());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("the rest");
        self.child.wait().expect("its end")
    }

    /// Kills it and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a signal");
        self.child.wait().expect("its end");
    }

    /// Kills the process that its wrapper has started, and waits for the end of both.
    pub(crate) fn kill_behind(&mut self) {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = std::fs::read_to_string(children).expect("its children");
        let pid = children.trim().parse().expect("one child");
        let watch = session_lock::watch(pid)
            .expect("a watch")
            .expect("a process");
        signal(pid, "KILL");
        let deadline = Instant::now() + Duration::from_secs(60);
        assert!(watch.wait(deadline).expect("an event"));
        self.finish();
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let group = format!("-{}", self.pid());
            drop(Command::new("kill").args(["-KILL", "--", &group]).status());
            drop(self.child.wait());
        }
    }
}

pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status();
    assert!(status.expect("kill").success(), "no signal to {pid}");
}

/// Returns whether this process may do everything; says so if not.
pub(crate) fn is_root(what: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        say(&format!("not run: {what} needs root"));
    }
    root
}

/// Returns whether a program works here; says so if not.
pub(crate) fn works(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let works = command.status().is_ok_and(|status| status.success());
    if !works {
        say(&format!(
            "not run: `{program} {}` does not work here",
            args.join(" ")
        ));
    }
    works
}

pub(crate) fn record(dir: &Path) -> PathBuf {
    dir.join(".handler.pid")
}

pub(crate) fn guard(dir: &Path) -> PathBuf {
    dir.join(".handler.guard")
}

/// Plants the record of another tool.
pub(crate) fn plant(dir: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::write(record(dir), bytes).expect("a record");
}

/// Returns the three lines that another tool writes.
pub(crate) fn lines(pid: u32) -> String {
    format!("{pid}\n2026-11-21T02:45:50.123456789+00:00\nchat-nex\n")
}

/// Returns the process that the record in `dir` names.
#[track_caller]
pub(crate) fn recorded_pid(dir: &Path) -> u32 {
    let bytes = std::fs::read(record(dir)).expect("a record");
    let Content::Complete(record) = parse(&bytes) else {
        panic!("{bytes:?}")
    };
    record.pid
}

/// A process that does nothing, and ends with this one.
pub(crate) struct Idler(pub(crate) Child);

impl Idler {
    pub(crate) fn new() -> Self {
        let mut cat = Command::new("cat");
        Self(
            cat.stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .expect("cat"),
        )
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Idler {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
