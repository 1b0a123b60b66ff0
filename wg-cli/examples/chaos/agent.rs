//! The agent of the run: it keeps a ledger of its own, holds a canary while it works, and answers.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::ledger::{self, Line, What};
use crate::pause;

/// How long it waits until its handler has taken in what it said.
const HEARD: Duration = Duration::from_secs(5);

/// Answers one message. `CHAOS_DIR` names the directory of ledgers and canaries.
pub(crate) fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let dir = PathBuf::from(variable("CHAOS_DIR"));
    let chat = variable("WG_CHAT_REF");
    let request = variable("WG_REQUEST_ID");
    let note = |what: What| Line::now(what, &request).append_to(&ledger::path(&dir, &chat));
    if note(What::Start).is_err() {
        return ExitCode::FAILURE;
    }
    let canary = ledger::canary(&dir, &chat);
    match hold(&canary, &chat) {
        Ok(true) => {}
        Ok(false) => {
            drop(note(What::Double));
            return ExitCode::FAILURE;
        }
        Err(_) => return ExitCode::FAILURE,
    }
    let mut message = String::new();
    drop(io::stdin().read_to_string(&mut message));
    let own = u64::from(std::process::id());
    // Half of them speak before they are done, so that a kill in the turn finds both kinds.
    if own.is_multiple_of(2) {
        say("thinking about ");
        let growing = Path::new(&variable("WG_DIR")).join(format!("chat/.{chat}/.streaming"));
        // From here on the handler knows that there was output, and the message may not be taken again.
        if heard(&growing) {
            drop(note(What::Shown));
        }
    }
    pause(Duration::from_millis(30 + own % 170));
    say(message.trim_end());
    drop(fs::remove_file(&canary));
    drop(note(What::End));
    ExitCode::SUCCESS
}

/// Takes the canary; `false` if another live agent of this chat has it.
fn hold(canary: &Path, chat: &str) -> io::Result<bool> {
    let own = canary.with_extension(std::process::id().to_string());
    fs::write(&own, std::process::id().to_string())?;
    let taken = loop {
        // A link fails where the name is taken, and whoever reads it reads a whole number.
        match fs::hard_link(&own, canary) {
            Ok(()) => break true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        // One that was killed leaves its canary; one that lives is a second writer.
        if ledger::holder(canary).is_some_and(|owner| is_agent_of(owner, chat)) {
            break false;
        }
        drop(fs::remove_file(canary));
    };
    drop(fs::remove_file(&own));
    Ok(taken)
}

fn heard(growing: &Path) -> bool {
    let step = Duration::from_millis(1);
    let mut waited = Duration::ZERO;
    while waited < HEARD {
        if fs::metadata(growing).is_ok_and(|file| file.len() > 0) {
            return true;
        }
        pause(step);
        waited += step;
    }
    false
}

fn say(text: &str) {
    let mut out = io::stdout();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

fn is_agent_of(pid: u32, chat: &str) -> bool {
    let is_this_chat = |environment: Vec<u8>| {
        let wanted = format!("WG_CHAT_REF={chat}");
        environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == wanted.as_bytes())
    };
    ledger::is_agent(pid) && fs::read(format!("/proc/{pid}/environ")).is_ok_and(is_this_chat)
}

/// Appends to a file, as an agent and the run do to theirs.
pub(crate) fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(line.as_bytes())
}
