//! `wg lock run`: one command under the lock of a directory, from its first instruction to the end of its process group.
//!
//! The command stays in the caller's process group, as with `nice` or `env`: the terminal reaches it, and whoever ends the group ends
//! it too. What the command leaves behind in that group comes to this process, a child subreaper, which keeps the lock until it
//! has ended. What has left the group keeps the lock only as long as it has the descriptor that was lent.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgid, getpgrp};
use session_lock::{DirLock, ProcessIdentity, Released, Standing};
use signal_hook::SigId;
use signal_hook::consts::SIGCHLD;
use supervisor::tree;

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::foreground::PASSED_ON;
use crate::process_signal::{self, Signal};
use crate::store::watch::{DirWatch, Woke};
use crate::strays;

/// Where the group may change without a word: a process that is no child of ours ends, and its parent is told.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// Runs the command with the lock lent to it, waits for it and for what it left in its process group, and releases the lock. Returns the
/// code to exit with: the command's, 128 + n for a signal, 127 or 126 for a program that cannot be started.
///
/// `tell` gets what a person at the terminal should know.
///
/// # Errors
///
/// The operating system refuses what is needed to wait for the command.
pub fn run(mut lock: DirLock, command: &[OsString], tell: impl Fn(&str)) -> Result<u8, Failure> {
    let system =
        |what: &'static str| move |e: io::Error| Failure::new(ExitCode::System, what).caused_by(e);
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::new(ExitCode::Usage, "there is nothing to run"));
    };
    strays::come_here();
    let mut ears = Ears::open().map_err(system("failed to handle signals"))?;
    let mut watch = DirWatch::new(lock.session().path())?;
    let leader = match lock.spawn_lent(Command::new(program).args(arguments)) {
        Ok(child) => child.id(),
        Err(error) => {
            tell(&format!(
                "failed to start `{}`: {error}",
                program.to_string_lossy()
            ));
            // As shells do: 127 for what is not there, 126 for what cannot be run.
            let code = if error.kind() == io::ErrorKind::NotFound {
                127
            } else {
                126
            };
            release(lock, &tell);
            return Ok(code);
        }
    };
    let mut code = None;
    let mut told = Told::default();
    loop {
        for heard in ears.listen() {
            if heard == SIGCHLD {
                code = reap(leader).or(code);
            } else if !process_signal::told_by_the_terminal(heard) {
                pass_on(leader, code.is_none(), heard);
            }
        }
        let mut again = None;
        if let Some(code) = code {
            let left = members();
            if left.is_empty() {
                release(lock, &tell);
                return Ok(code);
            }
            if !std::mem::replace(&mut told.left, true) {
                tell(&format!(
                    "the command has ended and left {}; the lock stays until they have ended",
                    names(&left)
                ));
            }
            again = Some(crate::clock::steady() + LOOK_AGAIN);
        }
        let fds: Vec<_> = ears.pipes.iter().map(|(_, pipe)| pipe.as_fd()).collect();
        let woke = watch
            .wait(again, &fds)
            .map_err(system("failed to wait for the command"))?;
        if woke == Woke::Changed {
            look_at_lock(&mut lock, &mut told, &tell);
        }
    }
}

/// What was said already.
#[derive(Debug, Default)]
struct Told {
    left: bool,
    requested: bool,
    lost: bool,
}

/// Puts back what somebody deleted from the lock's files, and says what the holder should know.
fn look_at_lock(lock: &mut DirLock, told: &mut Told, tell: &impl Fn(&str)) {
    let directory = lock.directory().display().to_string();
    match lock.session().verify() {
        Ok(Standing::Lost { by }) if !std::mem::replace(&mut told.lost, true) => {
            let by = by.map_or_else(String::new, |by| format!(" to {by}"));
            tell(&format!("the lock of `{directory}` is lost{by}"));
        }
        Ok(Standing::Held | Standing::Repaired | Standing::Lost { .. } | _) => {}
        Err(error) => log::warn!("{error}: {}", error.source),
    }
    if lock.session().is_release_requested() && !std::mem::replace(&mut told.requested, true) {
        tell(&format!(
            "somebody asks for `{directory}`; it is free when the command has ended"
        ));
    }
}

fn release(lock: DirLock, tell: &impl Fn(&str)) {
    let directory = lock.directory().display().to_string();
    match lock.release() {
        Ok(Released::StillLent { pids }) => {
            let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
            let who = if pids.is_empty() {
                "a process that the command left behind".to_owned()
            } else {
                format!("what the command left behind: pid {}", pids.join(", "))
            };
            tell(&format!("`{directory}` stays locked by {who}"));
        }
        Ok(Released::Released | Released::NotMine { .. } | Released::AlreadyGone | _) => {}
        // The kernel frees it when this process ends, which it does now.
        Err(error) => log::warn!("{error}: {}", error.source),
    }
}

/// Waits for every child that has ended; returns the code of the command if it is among them.
fn reap(leader: u32) -> Option<u8> {
    let mut code = None;
    loop {
        let ended = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) => (pid, u8::try_from(status & 0xff)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, u8::try_from(128 + signal as i32)),
            Err(Errno::EINTR) => continue,
            // Nobody else has ended, or there is no child at all.
            Ok(_) | Err(_) => return code,
        };
        if u32::try_from(ended.0.as_raw()) == Ok(leader) {
            code = Some(ended.1.unwrap_or(ExitCode::Failed.code()));
        }
    }
}

/// Lists the living processes below this one that are in its process group.
fn members() -> Vec<tree::Process> {
    let group = getpgrp();
    let below = tree::descendants(std::process::id()).unwrap_or_else(|error| {
        log::warn!("failed to look for what the command left: {error}");
        Vec::new()
    });
    let in_group = |pid: u32| {
        i32::try_from(pid).is_ok_and(|pid| getpgid(Some(Pid::from_raw(pid))) == Ok(group))
    };
    below
        .into_iter()
        .filter(|process| in_group(process.pid) && tree::is_alive(process.pid, process.start))
        .collect()
}

fn names(processes: &[tree::Process]) -> String {
    let names: Vec<String> = processes
        .iter()
        .map(|process| format!("`{}` (pid {})", process.name, process.pid))
        .collect();
    names.join(", ")
}

/// Sends a signal to the command, if it still runs, and to everything of it that is in the group.
fn pass_on(leader: u32, runs: bool, number: i32) {
    let Some(signal) = Signal::from_named_raw(number) else {
        return;
    };
    let mut to: Vec<(u32, Option<u64>)> = members()
        .into_iter()
        .map(|process| (process.pid, Some(process.start)))
        .collect();
    // It may have left the group. Nobody but this thread waits for it, so the number is still its own.
    if runs && to.iter().all(|(pid, _)| *pid != leader) {
        to.push((leader, tree::start_ticks(leader)));
    }
    for (pid, start_ticks) in to {
        let identity = ProcessIdentity {
            pid,
            start_ticks,
            boot_id: None,
        };
        if let Err(error) = process_signal::send(&identity, signal) {
            log::warn!("signal {number} could not be passed on to {pid}: {error}");
        }
    }
}

/// The signals of this process, as descriptors that can be waited for, one each.
#[derive(Debug)]
struct Ears {
    pipes: Vec<(i32, UnixStream)>,
    registered: Vec<SigId>,
}

impl Ears {
    /// Starts to listen. A signal that the caller ignores, as `nohup` does, stays ignored, by the command too.
    fn open() -> io::Result<Self> {
        let ignored = process_signal::ignored();
        let mut ears = Self {
            pipes: Vec::new(),
            registered: Vec::new(),
        };
        for signal in PASSED_ON.into_iter().chain([SIGCHLD]) {
            if signal != SIGCHLD && ignored & (1 << (signal - 1)) != 0 {
                continue;
            }
            let (read, write) = UnixStream::pair()?;
            read.set_nonblocking(true)?;
            // A full pipe has told enough: a signal handler must never wait in write.
            write.set_nonblocking(true)?;
            ears.registered
                .push(signal_hook::low_level::pipe::register(signal, write)?);
            ears.pipes.push((signal, read));
        }
        Ok(ears)
    }

    /// Takes in what was heard since the last call, each signal once.
    fn listen(&mut self) -> Vec<i32> {
        let mut heard = Vec::new();
        for (signal, pipe) in &mut self.pipes {
            let mut bytes = [0; 64];
            let mut any = false;
            // An empty pipe says "would block"; there is nothing else to learn from an error here.
            while let Ok(1..) = pipe.read(&mut bytes) {
                any = true;
            }
            heard.extend(any.then_some(*signal));
        }
        heard
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}
