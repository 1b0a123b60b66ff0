//! `wg lock run`: one command under the lock of a directory, from its first instruction to the end of its process group.
//!
//! The command stays in the caller's process group, as with `nice` or `env`: the terminal reaches it, and whoever ends the group ends
//! it too. What the command leaves behind in that group comes to this process, a child subreaper, which keeps the lock until it
//! has ended. What has left the group keeps the lock only as long as it has the descriptor that was lent.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

// Not nix, to which an ending by a real-time signal is an error.
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use session_lock::{DirLock, ProcessIdentity, Released, Standing};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use supervisor::tree;

use crate::ears::{self, Heard};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::process_signal;
use crate::store::watch::{DirWatch, Woke};
use crate::strays;
use crate::unstartable;

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
    let (_listening, mut ears) =
        ears::listen(SIGCHLD).map_err(system("failed to handle signals"))?;
    let mut watch = DirWatch::new(lock.session().path())?;
    let leader = match lock.spawn_lent(Command::new(program).args(arguments)) {
        Ok(child) => child.id(),
        Err(error) => {
            let why = unstartable::in_words(Path::new(""), program, &error);
            tell(&format!("failed to start `{}`: {why}", program.display()));
            let code = unstartable::shell_code(&error);
            release(lock, &tell);
            return Ok(code);
        }
    };
    let mut code = None;
    let mut told = Told::default();
    loop {
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
        match watch
            .wait(again, &[ears.as_fd()])
            .map_err(system("failed to wait for the command"))?
        {
            Woke::Ready(_) => {
                for heard in ears.listen() {
                    if heard.number == SIGCHLD {
                        code = reap(leader).or(code);
                    } else {
                        pass_on(code.is_none().then_some(leader), heard);
                    }
                }
            }
            Woke::Changed => look_at_lock(&mut lock, &mut told, &tell),
            Woke::Deadline => {}
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
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if u32::try_from(pid.as_raw_pid()) == Ok(leader) => {
                let by_signal = || status.terminating_signal().map(|signal| 128 + signal);
                let told = status.exit_status().or_else(by_signal);
                let told = told.and_then(|code| u8::try_from(code).ok());
                code = Some(told.unwrap_or(ExitCode::Failed.code()));
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            // Nobody else has ended, or there is no child at all.
            Ok(None) | Err(_) => return code,
        }
    }
}

/// Lists the living processes below this one that are in its process group.
fn members() -> Vec<tree::Process> {
    let below = tree::descendants(std::process::id()).unwrap_or_else(|error| {
        log::warn!("failed to look for what the command left: {error}");
        Vec::new()
    });
    below
        .into_iter()
        .filter(|process| process_signal::shares_our_group(process.pid))
        .filter(|process| tree::is_alive(process.pid, process.start))
        .collect()
}

fn names(processes: &[tree::Process]) -> String {
    let names: Vec<String> = processes
        .iter()
        .map(|process| format!("`{}` (pid {})", process.name, process.pid))
        .collect();
    names.join(", ")
}

/// Passes a signal on: to the command while it runs, as whoever sent it to the command itself would have it. What asks for the end reaches
/// everything of the command that is in the group, and so does every signal to what it left.
fn pass_on(leader: Option<u32>, heard: Heard) {
    let ends = matches!(heard.number, SIGTERM | SIGINT | SIGQUIT | SIGHUP);
    let mut to: Vec<(u32, Option<u64>)> = Vec::new();
    if ends || leader.is_none() {
        to.extend(members().into_iter().map(|it| (it.pid, Some(it.start))));
    }
    // It may have left the group. Nobody but this thread waits for it, so the number is still its own.
    if let Some(leader) = leader
        && to.iter().all(|(pid, _)| *pid != leader)
    {
        to.push((leader, tree::start_ticks(leader)));
    }
    // These two a terminal sends to its whole foreground group.
    if heard.from_kernel && matches!(heard.number, SIGINT | SIGQUIT) {
        to.retain(|(pid, _)| !process_signal::shares_our_group(*pid));
    }
    for (pid, start_ticks) in to {
        let identity = ProcessIdentity {
            pid,
            start_ticks,
            boot_id: None,
        };
        if let Err(error) = process_signal::queue(&identity, heard.number, heard.value) {
            log::warn!(
                "signal {} could not be passed on to {pid}: {error}",
                heard.number
            );
        }
    }
}
