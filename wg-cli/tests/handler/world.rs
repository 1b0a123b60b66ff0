//! A workspace with one chat, handlers in it, and the proof at the end that nothing of them is left.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot do its part is a failed test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tempfile::TempDir;
use wg_cli::exit_code::ExitCode;
use wg_cli::store::Workspace;
use wg_cli::store::exit_record::ExitRecord;
use wg_cli::store::graph::{ChatId, Graph, NewChat};
use wg_cli::store::messages::{self, Durability, Message, NewMessage, Role, Side};
use wg_cli::store::resolve::{self, Make};
use wg_cli::store::watch::DirWatch;

/// Names every process of a world in its environment.
const MARKER: &str = "WG_TEST_WORLD";

/// A wait that takes this long is a failure of the test, never a wait that was meant.
pub(crate) const LOST: Duration = Duration::from_secs(60);

/// The present moment of the steady clock.
#[expect(
    clippy::disallowed_methods,
    reason = "a lost test is told from a slow one by the clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A workspace in a directory of its own.
pub(crate) struct World {
    dir: TempDir,
    pub(crate) workspace: Workspace,
    pub(crate) chat: ChatId,
    pub(crate) session: PathBuf,
}

impl World {
    /// Makes a workspace whose agent is this command line, with protocol `stdin`.
    pub(crate) fn with_agent(argv: &[&str]) -> Self {
        Self::with_config(&format!("[agents.test]\ncommand = {argv:?}\n"), "")
    }

    /// Makes a workspace whose agent is this shell script; `$D` is the world's directory.
    pub(crate) fn with_script(script: &str) -> Self {
        Self::with_script_and(script, "", "")
    }

    /// As [`World::with_script`], with further lines for the agent's and the service's section.
    pub(crate) fn with_script_and(script: &str, agent: &str, service: &str) -> Self {
        // The name is no shell's, so that codes 126 and 127 of the script are codes like any other.
        let world = Self::with_config(
            &format!("[agents.test]\ncommand = [\"AGENT\"]\n{agent}\n"),
            service,
        );
        let path = world.path("agent");
        world.write_script(&path, script);
        let config = fs::read_to_string(world.workspace.config_path()).unwrap();
        fs::write(
            world.workspace.config_path(),
            config.replace("AGENT", path.to_str().unwrap()),
        )
        .unwrap();
        world
    }

    /// Makes a workspace with these lines in its configuration; the agent is `test`.
    pub(crate) fn with_config(agents: &str, service: &str) -> Self {
        let dir = TempDir::with_prefix("wg-handler-").unwrap();
        let workspace = Workspace::init(dir.path()).unwrap();
        let config =
            format!("[service]\nagent = \"test\"\nstop_grace = \"5s\"\n{service}\n\n{agents}");
        fs::write(workspace.config_path(), config).unwrap();
        let chat = Graph::edit(&workspace, |graph| {
            graph.add_chat(
                &workspace,
                NewChat {
                    id: None,
                    name: None,
                    argv: None,
                    preset: None,
                    cwd: None,
                    model: None,
                    endpoint: None,
                    user: "tester".to_owned(),
                },
            )
        })
        .unwrap();
        let session = resolve::session_dir(&workspace, chat, Make::Yes).unwrap();
        Self {
            dir,
            workspace,
            chat,
            session,
        }
    }

    /// Returns a path in the world's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write_script(&self, path: &Path, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        let text = format!("#!/bin/sh\nD='{}'\n{script}\n", self.dir.path().display());
        // What is run is written by another process: a file that another thread's child still has open for writing cannot be run.
        let text_of = path.with_extension("text");
        fs::write(&text_of, text).unwrap();
        let beside = path.with_extension("new");
        let copied = Command::new("cp").arg(text_of).arg(&beside).status();
        assert!(copied.unwrap().success());
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(beside, path).unwrap();
    }

    /// Makes a FIFO that agents and tests wait at.
    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        path
    }

    /// Lets whoever reads the FIFO go on; waits until somebody does.
    pub(crate) fn open_gate(&self, name: &str) {
        fs::write(self.path(name), "go\n").unwrap();
    }

    /// Waits until somebody writes to the FIFO, and returns what.
    pub(crate) fn wait_at(&self, name: &str) -> String {
        // Opened without waiting for the other side, so that one that never comes fails the test.
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
        let mut fifo = fs::File::options()
            .read(true)
            .custom_flags(nonblocking)
            .open(self.path(name))
            .unwrap();
        let mut said = String::new();
        while !said.ends_with('\n') {
            wait_readable(&fifo);
            let mut bytes = [0; 64];
            let count = fifo.read(&mut bytes).unwrap();
            said.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        said
    }

    /// Puts a message into the inbox.
    pub(crate) fn send(&self, text: &str) -> u64 {
        let message = NewMessage::new(Role::User, text);
        messages::append(&self.session, Side::Inbox, message, Durability::NoSync).unwrap()
    }

    /// Returns everything in the outbox.
    pub(crate) fn outbox(&self) -> Vec<Message> {
        messages::read_after(&self.session, Side::Outbox, 0)
            .unwrap()
            .messages
    }

    /// Waits for the answer to a message.
    #[track_caller]
    pub(crate) fn answer_to(&self, id: u64) -> Message {
        let mut found = None;
        self.wait_until("an answer", || {
            found = self
                .outbox()
                .into_iter()
                .find(|message| message.in_reply_to == Some(id));
            found.is_some()
        });
        found.unwrap()
    }

    /// Waits until something in the session directory makes this true.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let mut watch = DirWatch::new(&self.session).unwrap();
        let give_up_at = now() + LOST;
        while !is_so() {
            assert!(
                now() < give_up_at,
                "no {what} in {LOST:?}; outbox: {:#?}",
                self.outbox()
            );
            watch.wait(Some(give_up_at), &[]).unwrap();
        }
    }

    /// Returns the messages that have no answer.
    pub(crate) fn unanswered(&self) -> Vec<u64> {
        messages::unanswered(&self.session)
            .unwrap()
            .into_iter()
            .map(|message| message.id)
            .collect()
    }

    /// Returns a `wg` command in this world.
    pub(crate) fn wg(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wg"));
        command.env_clear();
        for name in ["PATH", "HOME", "TMPDIR", "LANG"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env(MARKER, self.dir.path());
        command
            .arg("--dir")
            .arg(self.workspace.root())
            .args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts a handler of the chat.
    pub(crate) fn handler(&self) -> Handler {
        self.start(&mut self.wg(&["nex", "--chat", &self.chat.to_string()]))
    }

    /// Starts a command that is ended with the test.
    pub(crate) fn start(&self, command: &mut Command) -> Handler {
        Handler {
            child: Some(command.spawn().unwrap()),
            session: self.session.clone(),
        }
    }

    /// Waits until the session is locked by this process.
    #[track_caller]
    pub(crate) fn wait_locked_by(&self, pid: u32) {
        self.wait_until("lock of the handler", || {
            session_lock::inspect(&self.session)
                .unwrap()
                .holder()
                .is_some_and(|holder| holder.pid == pid)
        });
    }

    /// Returns every process that carries this world's marker.
    pub(crate) fn processes(&self) -> BTreeSet<u32> {
        let wanted = format!("{MARKER}={}", self.dir.path().display());
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environment
                    .split(|byte| *byte == 0)
                    .any(|variable| variable == wanted.as_bytes())
            })
            .collect()
    }

    /// Ends whatever this world left behind on purpose, and returns how many that were.
    pub(crate) fn sweep(&self) -> usize {
        let left = self.processes();
        for pid in &left {
            kill(*pid, "KILL");
        }
        let give_up_at = now() + LOST;
        while !self.processes().is_empty() {
            assert!(now() < give_up_at, "processes outlive SIGKILL: {left:?}");
            std::thread::yield_now();
        }
        left.len()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let left = self.processes();
        let names: Vec<String> = left
            .iter()
            .map(|pid| {
                fs::read_to_string(format!("/proc/{pid}/cmdline"))
                    .unwrap_or_default()
                    .replace('\0', " ")
            })
            .collect();
        self.sweep();
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind: {names:?}");
        }
    }
}

/// Sends a signal to a process that the test started.
pub(crate) fn kill(pid: u32, signal: &str) {
    assert!(pid > 1, "0 would mean the group of the test itself");
    let status = Command::new("kill")
        .arg(format!("-{signal}"))
        .arg(pid.to_string())
        .stderr(Stdio::null())
        .status();
    assert!(status.is_ok(), "there is a `kill` command");
}

/// Waits until there is something to read.
#[track_caller]
pub(crate) fn wait_readable(what: &impl AsFd) {
    let lost = Timespec::try_from(LOST).unwrap();
    let ready = poll(&mut [PollFd::new(what, PollFlags::IN)], Some(&lost)).unwrap();
    assert!(ready > 0, "nothing came in {LOST:?}");
}

/// A running command, ended with the test.
pub(crate) struct Handler {
    child: Option<Child>,
    session: PathBuf,
}

impl Handler {
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn signal(&self, signal: &str) {
        kill(self.pid(), signal);
    }

    /// Writes to its stdin.
    pub(crate) fn say(&mut self, text: &str) {
        self.child
            .as_mut()
            .unwrap()
            .stdin
            .as_mut()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    /// Reads its stderr up to this text and returns what was read.
    pub(crate) fn errors_until(&mut self, text: &str) -> String {
        let stderr = self.child.as_mut().unwrap().stderr.as_mut().unwrap();
        let mut read = Vec::new();
        while !read.ends_with(text.as_bytes()) {
            let mut byte = [0];
            wait_readable(stderr);
            assert_eq!(stderr.read(&mut byte).unwrap(), 1, "no `{text}`");
            read.extend(byte);
        }
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Reads its stderr up to the end of the first line that holds this text, and returns the line.
    pub(crate) fn first_error_line_with(&mut self, text: &str) -> String {
        let before = self.errors_until(text);
        let start = before.lines().next_back().unwrap_or_default().to_owned();
        start + &self.errors_until("\n")
    }

    /// Waits for its end and returns everything that it wrote.
    #[track_caller]
    pub(crate) fn output(mut self) -> Output {
        let mut child = self.child.take().unwrap();
        drop(child.stdin.take());
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        let lost = Timespec::try_from(LOST).unwrap();
        let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&lost)).unwrap();
        if ended == 0 {
            self.child = Some(child);
            panic!("still running after {LOST:?}");
        }
        child.wait_with_output().unwrap()
    }

    /// Waits for its end, requires that it wrote nothing to stdout, and returns its status and what it wrote to stderr.
    #[track_caller]
    pub(crate) fn ended(self) -> (ExitStatus, String) {
        let output = self.output();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "",
            "stdout belongs to the protocol; stderr: {errors}"
        );
        (output.status, errors)
    }

    /// Waits for its end and requires this code, in the status and in `exit.json`.
    #[track_caller]
    pub(crate) fn leaves_with(self, code: ExitCode) -> String {
        let (pid, session) = (self.pid(), self.session.clone());
        let (status, errors) = self.ended();
        assert_eq!(
            status.code(),
            Some(i32::from(code.code())),
            "{status:?}: {errors}"
        );
        let record = ExitRecord::read(&session)
            .unwrap()
            .expect("every handler that had the lock leaves a note");
        assert_eq!(record.pid, pid);
        assert_eq!(record.code, Some(i32::from(code.code())));
        errors
    }

    /// Kills it as the kernel would, without any chance to clean up.
    pub(crate) fn dies(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        let mut rest = String::new();
        // An agent that it left behind does not have this descriptor, so the end of file comes.
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut rest)
            .unwrap();
        assert_eq!(rest, "");
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
