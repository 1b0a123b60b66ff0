//! Starting the daemon from the outside, and waiting until it answers.

#![expect(
    clippy::disallowed_methods,
    reason = "a starter reads the clock for its deadline"
)]

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::{Client, ConnectError};
use crate::patience::Patience;
use crate::standstill::{self, LOOK_EVERY};
use crate::store::watch::DirWatch;
use crate::store::workspace::Workspace;

/// How long a daemon may take until it serves its chats; the boot of a thousand chats included.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether a daemon that does not answer yet still has its lock.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How a daemon is started.
#[derive(Debug, Clone, Default)]
pub struct StartOptions {
    /// Recorded for the earlier tool's sake; chats do not heed it.
    pub max_agents: Option<u32>,
}

/// A daemon that runs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Started {
    /// Its process.
    pub pid: u32,
    /// Whether it ran before.
    pub already: bool,
    /// Where it listens.
    pub socket: PathBuf,
    /// Its log.
    pub log: PathBuf,
}

/// Starts the daemon of this workspace, or finds that it runs, and returns when it answers.
///
/// # Errors
///
/// The daemon's own words where it could not start, with its code; [`ExitCode::TimedOut`] where it did not start within the patience.
pub fn start(
    workspace: &Workspace,
    options: &StartOptions,
    patience: Patience,
) -> Result<Started, Failure> {
    workspace.check_owner()?;
    let service = workspace.ensure_service_dir()?;
    let socket = workspace.socket_path()?;
    let running = |pid: u32, already: bool| Started {
        pid,
        already,
        socket: socket.clone(),
        log: workspace.daemon_log_path(),
    };
    let until = Instant::now() + patience.at_most(PATIENCE);
    loop {
        let found = session_lock::inspect(&service)
            .ok()
            .filter(session_lock::Inspection::is_held);
        let (pid, already) = match found.as_ref().and_then(|found| found.holder()) {
            // The record may still be in the making: the daemon itself knows best who it is.
            Some(holder) => (holder.pid, true),
            None => spawn(workspace, options, until)?,
        };
        if !already {
            return Ok(running(pid, false));
        }
        match await_answer(workspace, until)? {
            Awaited::Answer(answered) => return Ok(running(answered.unwrap_or(pid), true)),
            // It was about to end, or was killed a moment ago: its place is free.
            Awaited::End if Instant::now() < until => {}
            Awaited::End => {
                return Err(Failure::new(
                    ExitCode::Unavailable,
                    "the service ends as often as it starts",
                )
                .with_cure(format!("look at {}", workspace.daemon_log_path().display())));
            }
        }
    }
}

/// Starts a daemon and waits for its first word: its process, or the one that was there before it, and whether it was.
fn spawn(
    workspace: &Workspace,
    options: &StartOptions,
    until: Instant,
) -> Result<(u32, bool), Failure> {
    let mut command = Command::new(crate::self_exe());
    command
        .arg0("wg")
        .arg("--dir")
        .arg(workspace.root())
        .args(["service", "daemon"]);
    if let Some(agents) = options.max_agents {
        command.arg("--max-agents").arg(agents.to_string());
    }
    // A daemon that is started from inside a chat is not part of it.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WG_") {
            command.env_remove(name);
        }
    }
    // Nor is it the service that somebody's manager keeps.
    for name in super::service_manager::VARIABLES {
        command.env_remove(name);
    }
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0);
    crate::sys::inherit_nothing();
    let mut child = command
        .spawn()
        .map_err(|e| Failure::new(ExitCode::System, "failed to start the daemon").caused_by(e))?;
    let Some(out) = child.stdout.take() else {
        return Err(Failure::new(
            ExitCode::Bug,
            "the daemon has no standard output",
        ));
    };
    let mut fds = [PollFd::new(out.as_fd(), PollFlags::POLLIN)];
    let silent = loop {
        let left = until.saturating_duration_since(Instant::now());
        let wait = PollTimeout::try_from(left.min(LOOK_EVERY)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, wait) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(0) if left.is_zero() => break true,
            Ok(0) => stands_still(child.id())?,
            Ok(_) => break false,
            Err(e) => {
                return Err(
                    Failure::new(ExitCode::System, "failed to wait for the daemon").caused_by(e),
                );
            }
        }
    };
    let mut line = String::new();
    if !silent && let Err(e) = BufReader::new(out).read_line(&mut line) {
        log::debug!("the daemon's word could not be read: {e}");
    }
    let word: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
    let number = |name: &str| {
        word.get(name)
            .and_then(Value::as_u64)
            .and_then(|n| u32::try_from(n).ok())
    };
    if let Some(pid) = number("ready") {
        return Ok((pid, false));
    }
    if let Some(pid) = number("already") {
        reap(&mut child);
        return Ok((pid, true));
    }
    if let Some(error) = word.get("error").and_then(Value::as_str) {
        reap(&mut child);
        let code = number("code")
            .and_then(|code| i32::try_from(code).ok())
            .and_then(ExitCode::from_code);
        return Err(Failure::new(
            code.unwrap_or(ExitCode::System),
            error.to_owned(),
        ));
    }
    if silent {
        return Err(
            Failure::new(ExitCode::TimedOut, "the service is not ready yet")
                .with_cure("wg service status says whether it is"),
        );
    }
    Err(Failure::new(
        ExitCode::System,
        "the daemon ended, or hangs, before it was ready",
    )
    .with_cure(format!("look at {}", workspace.daemon_log_path().display())))
}

/// A daemon that is stopped before it is ready says nothing more.
fn stands_still(daemon: u32) -> Result<(), Failure> {
    match standstill::of_service_process(daemon) {
        Some(daemon) => Err(ConnectError::StandsStill(daemon).into()),
        None => Ok(()),
    }
}

/// The daemon has said its last word, so its end is near.
fn reap(child: &mut std::process::Child) {
    if let Err(e) = child.wait() {
        log::debug!("the daemon could not be waited for: {e}");
    }
}

/// What came of a daemon that had the lock.
enum Awaited {
    /// It answers, and tells its process.
    Answer(Option<u32>),
    /// It does not have the lock any more.
    End,
}

/// Waits until the daemon answers or is gone: its socket appears in a directory that is watched.
fn await_answer(workspace: &Workspace, until: Instant) -> Result<Awaited, Failure> {
    let socket = workspace.socket_path()?;
    let dir = socket
        .parent()
        .map_or_else(|| workspace.service_dir(), std::path::Path::to_path_buf);
    let mut watch = DirWatch::new(&dir)?;
    loop {
        match Client::connect_within(workspace, Patience::Until(until)) {
            Ok(client) => return Ok(Awaited::Answer(client.daemon_pid())),
            Err(ConnectError::NotRunning) => {}
            Err(e) => return Err(e.into()),
        }
        if Instant::now() >= until {
            return Err(Failure::new(
                ExitCode::Unavailable,
                "the service holds its lock and does not answer",
            )
            .with_cure("wg service stop --force"));
        }
        // Whatever it left behind, a lock that nobody holds is free. A file of the earlier tool's daemon, which has no lock, was
        // looked at by the connection.
        let held =
            session_lock::inspect(&workspace.service_dir()).is_ok_and(|found| found.is_held());
        if !held {
            return Ok(Awaited::End);
        }
        // A daemon that ends instead of answering makes no file: look again from time to time.
        if let Err(e) = watch.wait(Some(until.min(Instant::now() + LOOK_AGAIN)), &[]) {
            return Err(
                Failure::new(ExitCode::System, "failed to wait for the daemon").caused_by(e),
            );
        }
    }
}
