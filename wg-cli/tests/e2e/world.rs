//! A world of its own for each test: a directory, an environment with a mark, and the built `wg`.
//!
//! At its end the world looks into `/proc/*/environ` of every process for its mark: a process that is left fails the test, and is
//! ended by its pid. What `wg` says about itself is not asked.

#![expect(
    clippy::disallowed_methods,
    reason = "the clock is read for the watchdog"
)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Once, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT};
use signal_hook::flag::register_conditional_shutdown;

use crate::process::{Process, pidfd, wait_readable};

/// When a hung test is given up. Nothing is measured against it.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(120);

/// The variable that marks every process of a world. It does not begin with `WG_`: the daemon takes those out of its environment.
const MARK: &str = "E2E_WORLD";

/// The built binary.
pub(crate) const WG: &str = env!("CARGO_BIN_EXE_wg");

/// A directory with a workspace-to-be, an environment and a mark.
#[derive(Debug)]
pub(crate) struct World {
    dir: tempfile::TempDir,
    mark: String,
    env: BTreeMap<String, String>,
    /// Whose the world is, where it is not this test's own.
    user: Option<u32>,
    wg: PathBuf,
}

/// What a command did.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    what: String,
}

/// Lets what is started here heed these signals, as from a terminal.
///
/// Whoever starts these tests in the background of a script, or under `nohup`, has them ignored, which every program inherits. A handler
/// it does not inherit, and has the default instead.
fn heed_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [SIGHUP, SIGINT, SIGQUIT] {
            let end = Arc::new(AtomicBool::new(true));
            register_conditional_shutdown(signal, 128 + signal, end).unwrap();
        }
    });
}

impl World {
    /// An empty directory, with no workspace yet.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        heed_signals();
        let dir = tempfile::Builder::new()
            .prefix("wg-e2e-")
            .tempdir()
            .unwrap();
        let mark = format!(
            "{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let home = dir.path().join("home");
        let here = dir.path().join("here");
        let run = dir.path().join("run");
        let bin = dir.path().join("bin");
        for dir in [&home, &here, &run, &bin] {
            fs::create_dir(dir).unwrap();
        }
        // Not the machine's PATH: an agent that is installed there would become the default agent.
        for (name, program) in tools() {
            std::os::unix::fs::symlink(program, bin.join(name)).unwrap();
        }
        fs::set_permissions(&run, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let env = BTreeMap::from([
            ("PATH".to_owned(), text(&bin)),
            ("HOME".to_owned(), text(&home)),
            ("XDG_RUNTIME_DIR".to_owned(), text(&run)),
            ("USER".to_owned(), "tester".to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("RUST_BACKTRACE".to_owned(), "0".to_owned()),
            (MARK.to_owned(), mark.clone()),
        ]);
        Self {
            dir,
            mark,
            env,
            user: None,
            wg: PathBuf::from(WG),
        }
    }

    /// As [`World::new`], with an initialized workspace whose default agent is the built-in echo.
    pub(crate) fn with_workspace() -> Self {
        let world = Self::new();
        world.wg(&["init"]).ok();
        world
    }

    /// Gives an empty world to another user, as whom every command runs from now on. Only root can.
    pub(crate) fn of_user(mut self, uid: u32) -> Self {
        self.wg = self.copy_of_wg();
        for dir in ["", "home", "here", "run", "bin"] {
            std::os::unix::fs::chown(self.dir.path().join(dir), Some(uid), Some(uid)).unwrap();
        }
        self.user = Some(uid);
        self
    }

    /// Sets a variable for every command that follows.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The directory in which commands run.
    pub(crate) fn here(&self) -> PathBuf {
        self.dir.path().join("here")
    }

    /// A path below the directory in which commands run.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.here().join(below)
    }

    /// The text of a file below the directory in which commands run.
    pub(crate) fn read(&self, below: &str) -> String {
        let path = self.path(below);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Writes an executable script and returns its path.
    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        // Written by another process: a descriptor that is open for writing here could be inherited by a child that another test's
        // thread forks at this moment, and executing the script would then fail with ETXTBSY.
        self.sh(
            &format!("cat > '{name}' && chmod 755 '{name}'"),
            text.as_bytes(),
        );
        path
    }

    /// Runs a shell command in the directory, with bytes on its stdin; it must end well.
    #[track_caller]
    pub(crate) fn sh(&self, command: &str, stdin: &[u8]) -> Done {
        self.sh_with(command, stdin).ok()
    }

    /// Runs a shell command in the directory.
    pub(crate) fn sh_unchecked(&self, command: &str) -> Done {
        self.sh_with(command, b"")
    }

    fn sh_with(&self, command: &str, stdin: &[u8]) -> Done {
        let mut shell = self.command("/bin/sh");
        shell.args(["-c", command]);
        Self::run(shell, stdin)
    }

    /// Makes a private copy of the binary and returns its path.
    ///
    /// Whoever executes it opens this file and no other: a watch on it sees every start that is made through it.
    pub(crate) fn copy_of_wg(&self) -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("wg-copy-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.sh(&format!("cp '{WG}' {name} && chmod 755 {name}"), b"");
        self.path(&name)
    }

    /// Runs another program with nothing on stdin.
    pub(crate) fn program<S: AsRef<OsStr>>(&self, program: &Path, args: &[S]) -> Done {
        let mut command = self.command(program);
        command.args(args);
        Self::run(command, b"")
    }

    /// A command with the world's environment and nothing else.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.env).current_dir(self.here());
        if let Some(user) = self.user {
            std::os::unix::process::CommandExt::uid(&mut command, user);
            std::os::unix::process::CommandExt::gid(&mut command, user);
        }
        command
    }

    /// Runs `wg` with nothing on stdin.
    pub(crate) fn wg<S: AsRef<OsStr>>(&self, args: &[S]) -> Done {
        self.wg_with(args, b"")
    }

    /// Runs `wg` with these bytes on stdin.
    pub(crate) fn wg_with<S: AsRef<OsStr>>(&self, args: &[S], stdin: &[u8]) -> Done {
        let mut command = self.command(&self.wg);
        command.args(args);
        Self::run(command, stdin)
    }

    /// Runs `wg … --json`, which must end well, and returns the document.
    #[track_caller]
    pub(crate) fn json<S: AsRef<OsStr>>(&self, args: &[S]) -> Value {
        let mut all: Vec<&OsStr> = args.iter().map(AsRef::as_ref).collect();
        all.push(OsStr::new("--json"));
        self.wg(&all).ok().json()
    }

    /// Starts `wg` with pipes, to be talked to.
    pub(crate) fn start<S: AsRef<OsStr>>(&self, args: &[S]) -> Running {
        let mut command = self.command(&self.wg);
        command.args(args);
        Running::of(command)
    }

    pub(crate) fn run(mut command: Command, stdin: &[u8]) -> Done {
        let what = describe(&command.get_args().collect::<Vec<_>>());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut running = Running::new(command.spawn().unwrap(), what);
        // A command that does not read its stdin may be gone already.
        let mut pipe = running.child.stdin.take().unwrap();
        let bytes = stdin.to_vec();
        let writer = thread::spawn(move || drop(pipe.write_all(&bytes)));
        let done = running.finish();
        writer.join().unwrap();
        done
    }

    /// The pid of the daemon, as its state file says.
    pub(crate) fn daemon_pid(&self) -> i32 {
        let state: Value = serde_json::from_str(&self.read(".wg/service/state.json")).unwrap();
        i32::try_from(state["pid"].as_i64().unwrap()).unwrap()
    }

    /// Every process that carries this world's mark, by what the kernel says.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let wanted = format!("{MARK}={}", self.mark);
        Process::all()
            .into_iter()
            .filter(|process| {
                process
                    .environ
                    .split(|&byte| byte == 0)
                    .any(|entry| entry == wanted.as_bytes())
            })
            .collect()
    }

    /// The processes that serve a chat: marked with a `WG_SESSION`, and running `wg nex` or about to.
    pub(crate) fn handlers(&self) -> Vec<Process> {
        self.processes()
            .into_iter()
            .filter(Process::is_handler)
            .collect()
    }

    /// Stops the service and checks by the processes' environment that nothing is left.
    #[track_caller]
    pub(crate) fn stop(&self) {
        self.wg(&["service", "stop"]).ok();
        let left = self.processes();
        assert!(
            left.is_empty(),
            "left behind after `service stop`: {left:#?}"
        );
    }

    /// What a failed test needs to be understood.
    fn show_what_the_service_wrote(&self) {
        for file in [".wg/service/daemon.log", ".wg/service/events.jsonl"] {
            let path = self.path(file);
            // A test may have put a pipe there.
            if path.is_file()
                && let Ok(text) = fs::read_to_string(path)
            {
                let lines: Vec<&str> = text.lines().collect();
                eprintln!(
                    "--- {file}\n{}",
                    lines[lines.len().saturating_sub(40)..].join("\n")
                );
            }
        }
    }

    /// Waits until a file below the directory satisfies a condition, woken by changes of its directory.
    #[track_caller]
    pub(crate) fn wait_for_file(
        &self,
        below: &str,
        mut enough: impl FnMut(&str) -> bool,
    ) -> String {
        let path = self.path(below);
        let name = below.to_owned();
        let text = std::cell::RefCell::new(String::new());
        watch_until(path.parent().unwrap(), &name, || {
            let Ok(bytes) = fs::read(&path) else {
                return false;
            };
            text.replace(String::from_utf8_lossy(&bytes).into_owned());
            enough(&text.borrow())
        });
        text.into_inner()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let mut left = Vec::new();
        let started = Instant::now();
        // A process may fork between the scan and its end, so until a scan is empty.
        loop {
            let found = self.processes();
            if found.is_empty() {
                break;
            }
            for process in found {
                process.end();
                left.push(process);
            }
            assert!(
                started.elapsed() < WATCHDOG,
                "processes do not end: {left:#?}"
            );
        }
        if thread::panicking() {
            self.show_what_the_service_wrote();
        } else {
            assert!(
                left.is_empty(),
                "left behind at the end of the test: {left:#?}"
            );
        }
    }
}

/// Waits until `enough` holds, looking again whenever something in the directory changes.
#[track_caller]
pub(crate) fn watch_until(dir: &Path, what: &str, mut enough: impl FnMut() -> bool) {
    let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap();
    let started = Instant::now();
    let flags = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_CLOSE_WRITE;
    watch
        .add_watch(dir, flags)
        .unwrap_or_else(|error| panic!("cannot watch {}: {error}", dir.display()));
    while !enough() {
        let left = WATCHDOG
            .checked_sub(started.elapsed())
            .unwrap_or_else(|| panic!("gave up waiting for {what}"));
        assert!(wait_readable(&watch, left), "gave up waiting for {what}");
        drop(watch.read_events());
    }
}

/// Looks until it is so, where nothing tells of the moment.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < WATCHDOG, "gave up waiting for {what}");
        thread::yield_now();
    }
}

/// A command that is running.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    what: String,
    lines: Option<Receiver<String>>,
}

impl Running {
    fn new(child: Child, what: String) -> Self {
        Self {
            child,
            what,
            lines: None,
        }
    }

    /// Starts a command with pipes, to be talked to.
    pub(crate) fn of(mut command: Command) -> Self {
        let what = describe(&command.get_args().collect::<Vec<_>>());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self::new(command.spawn().unwrap(), what)
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Writes to its stdin.
    pub(crate) fn say(&mut self, text: &str) {
        let pipe = self.child.stdin.as_mut().unwrap();
        pipe.write_all(text.as_bytes()).unwrap();
        pipe.flush().unwrap();
    }

    /// Closes its stdin.
    pub(crate) fn hang_up(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits for the next line on its stdout.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        if self.lines.is_none() {
            let (sender, receiver) = mpsc::channel();
            let stdout = BufReader::new(self.child.stdout.take().unwrap());
            thread::spawn(move || {
                stdout
                    .lines()
                    .map_while(Result::ok)
                    .all(|line| sender.send(line).is_ok())
            });
            self.lines = Some(receiver);
        }
        let lines = self.lines.as_ref().unwrap();
        lines
            .recv_timeout(WATCHDOG)
            .unwrap_or_else(|error| panic!("`{}`: no further line: {error}", self.what))
    }

    /// Waits for its end and returns what it wrote.
    pub(crate) fn finish(mut self) -> Done {
        let collect = |pipe: Option<Box<dyn Read + Send>>| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                if let Some(mut pipe) = pipe {
                    drop(pipe.read_to_end(&mut bytes));
                }
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let stdout = collect(
            self.child
                .stdout
                .take()
                .map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        );
        let stderr = collect(
            self.child
                .stderr
                .take()
                .map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        );
        let fd = pidfd(self.pid());
        if let Some(fd) = fd
            && !wait_readable(&fd, WATCHDOG)
        {
            drop(self.child.kill());
            drop(self.child.wait());
            panic!("`{}` hangs", self.what);
        }
        let status = self.child.wait().unwrap();
        Done {
            status,
            stdout: stdout.join().unwrap(),
            stderr: stderr.join().unwrap(),
            what: self.what.clone(),
        }
    }
}

impl Done {
    /// The exit code; a signal is told apart as 1000 + its number.
    pub(crate) fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 1_000 + self.status.signal().unwrap_or_default())
    }

    /// It must have ended with 0.
    #[track_caller]
    pub(crate) fn ok(&self) -> Self {
        self.with_code(0)
    }

    /// It must have ended with this code.
    #[track_caller]
    pub(crate) fn with_code(&self, code: i32) -> Self {
        assert_eq!(
            self.code(),
            code,
            "`{}`\n--- stdout\n{}\n--- stderr\n{}",
            self.what,
            self.stdout,
            self.stderr
        );
        self.clone()
    }

    /// Its stdout as one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("`{}`: {error}\n{}", self.what, self.stdout))
    }
}

/// Finds a program on this machine's PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|program| program.is_file())
}

/// The programs that the tests and the agents in them use, found once on this machine's PATH.
fn tools() -> &'static [(&'static str, PathBuf)] {
    static TOOLS: OnceLock<Vec<(&'static str, PathBuf)>> = OnceLock::new();
    TOOLS.get_or_init(|| {
        let names = [
            "sh", "bash", "cat", "chmod", "cp", "date", "false", "find", "id", "ln", "mkdir",
            "env", "mkfifo", "prlimit", "rm", "printf", "setsid", "sleep", "sort", "touch", "tr",
            "true",
        ];
        let find = |name: &'static str| {
            let found = on_path(name);
            (
                name,
                found.unwrap_or_else(|| panic!("the tests need `{name}`")),
            )
        };
        let mut tools: Vec<_> = names.map(find).to_vec();
        // A version manager's shim is a script that needs more than this PATH; python itself knows where it is.
        let python = Command::new("python3")
            .args(["-c", "import sys; print(sys.executable)"])
            .output()
            .unwrap();
        tools.push((
            "python3",
            PathBuf::from(String::from_utf8(python.stdout).unwrap().trim()),
        ));
        tools
    })
}

fn describe<S: AsRef<OsStr>>(args: &[S]) -> String {
    let words: Vec<String> = args
        .iter()
        .map(|arg| {
            let text = arg.as_ref().to_string_lossy().escape_debug().to_string();
            if text.chars().count() > 80 {
                format!("{}…", text.chars().take(80).collect::<String>())
            } else {
                text
            }
        })
        .collect();
    format!("wg {}", words.join(" "))
}

#[test]
fn a_process_that_is_left_behind_fails_its_test_and_is_ended() {
    let world = World::new();
    // It says who it is once it runs what it will run to its end: half-way into another program it would show no mark.
    let script = "mkfifo hold; setsid sh -c 'echo $$; exec >/dev/null 2>&1; read -r end <hold' &";
    let left = world.sh(script, b"");
    let pid: i32 = left.stdout.trim().parse().unwrap();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(world)));
    assert!(ended.is_err(), "the world did not notice {pid}");
    assert!(
        !Path::new(&format!("/proc/{pid}/environ")).exists()
            || Process::look_at(pid).is_none_or(|now| now.environ.is_empty())
    );
}
