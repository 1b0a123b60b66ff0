//! The agent of the run: it keeps a ledger of its own, holds a canary while it works, and answers.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Answers one message. `CHAOS_DIR` names the directory of ledgers and canaries.
pub(crate) fn main() -> ExitCode {
    let dir = std::env::var("CHAOS_DIR").unwrap_or_default();
    let chat = std::env::var("WG_CHAT_REF").unwrap_or_default();
    let request = std::env::var("WG_REQUEST_ID").unwrap_or_default();
    let dir = Path::new(&dir);
    let ledger = dir.join(format!("{chat}.ledger"));
    let note = |what: &str| {
        let line = format!("{what} {request} {}\n", std::process::id());
        let opened = OpenOptions::new().create(true).append(true).open(&ledger);
        opened
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .is_ok()
    };
    if !note("start") {
        return ExitCode::from(1);
    }
    let canary = dir.join(format!("{chat}.canary"));
    loop {
        if let Ok(mut file) = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(&canary)
        {
            drop(file.write_all(std::process::id().to_string().as_bytes()));
            break;
        }
        // One that was killed leaves its canary; one that lives is a second writer.
        let owner: u32 = fs::read_to_string(&canary)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        if owner > 1 && is_an_agent(owner) {
            note("DOUBLE");
            return ExitCode::from(1);
        }
        drop(fs::remove_file(&canary));
    }
    let mut message = String::new();
    drop(std::io::stdin().read_to_string(&mut message));
    let work = 5 + u64::from(std::process::id() % 90);
    let (_keep, never) = std::sync::mpsc::channel::<()>();
    // Half of them speak before they are done, so that a kill in the turn finds both kinds.
    if std::process::id().is_multiple_of(2) {
        say("thinking about ");
    }
    if never.recv_timeout(Duration::from_millis(work)).is_ok() {
        return ExitCode::from(70);
    }
    say(message.trim_end());
    drop(fs::remove_file(&canary));
    note("end");
    ExitCode::SUCCESS
}

fn say(text: &str) {
    let mut out = std::io::stdout();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

fn is_an_agent(pid: u32) -> bool {
    let running =
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    running
        && fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.starts_with(b"chaos-agent"))
}
