//! A workspace that is struck once: what was promised to its sender, and whether that was kept.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use wg_cli::store::messages::{self, Message, Side};

use super::blow::{Blow, Moment};
use crate::frame::{Attack, Done, pause};

/// How long what was accepted may take to be answered once nothing is in the way.
const ANSWERED: Duration = Duration::from_secs(60);

/// One workspace with one chat, whose agent keeps a ledger.
#[derive(Debug)]
pub(super) struct Workspace {
    folder: PathBuf,
    accepted: Vec<String>,
    struck: Option<Blow>,
    /// What was removed and is not ours to lose: put back before the audit.
    put_back: Option<(PathBuf, Vec<u8>)>,
    /// Messages that were in a file that was removed.
    removed: Vec<String>,
}

impl Workspace {
    pub(super) fn make(attack: &mut Attack, folder: &Path) -> io::Result<Self> {
        let workspace = Self {
            folder: folder.to_owned(),
            accepted: Vec::new(),
            struck: None,
            put_back: None,
            removed: Vec::new(),
        };
        fs::create_dir_all(folder.join("here"))?;
        workspace.must(attack, &["init"])?;
        let settings = "[service]\nstop_grace = \"1s\"\n[supervisor]\nbackoff_first = \"100ms\"\n";
        fs::write(workspace.wg_dir().join("config.toml"), settings)?;
        let agent = format!(
            "echo \"$WG_REQUEST_ID\" >> '{}'; sleep 0.2; cat",
            workspace.ledger().display()
        );
        workspace.must(attack, &["chat", "new", "--command", &agent])?;
        workspace.must(attack, &["service", "start"])?;
        Ok(workspace)
    }

    fn here(&self) -> PathBuf {
        self.folder.join("here")
    }

    fn wg_dir(&self) -> PathBuf {
        self.here().join(".wg")
    }

    fn session(&self) -> PathBuf {
        self.wg_dir().join("chat/.chat-0")
    }

    /// Out of the reach of the blow.
    fn ledger(&self) -> PathBuf {
        self.folder.join("ledger")
    }

    fn run(&self, attack: &mut Attack, args: &[&str]) -> io::Result<Done> {
        let mut wg = attack.wg(args);
        wg.current_dir(self.here());
        attack.finish(&mut wg)
    }

    fn must(&self, attack: &mut Attack, args: &[&str]) -> io::Result<()> {
        let done = self.run(attack, args)?;
        if done.code == Some(0) {
            return Ok(());
        }
        let blow = &self.struck;
        Err(io::Error::other(format!(
            "{args:?} after {blow:?}: {}",
            done.stderr
        )))
    }

    /// Sends a message; it is promised if its sender was told so.
    pub(super) fn send(&mut self, attack: &mut Attack, text: &str) -> io::Result<()> {
        let done = self.run(attack, &["chat", "send", "0", text])?;
        if done.code == Some(0) {
            attack.count("accepted");
            self.accepted.push(text.to_owned());
        } else {
            attack.count("refused");
        }
        Ok(())
    }

    /// Starts the service, if it is down and can be started.
    pub(super) fn start(&self, attack: &mut Attack) -> io::Result<()> {
        self.run(attack, &["service", "start"]).map(drop)
    }

    /// Waits for the moment of the blow.
    pub(super) fn wait_for(&self, attack: &mut Attack, moment: Moment) {
        let reached = || match moment {
            Moment::InATurn => self.executions().len() == 1,
            Moment::AtRest => self.open() == 0,
        };
        if !wait_until(reached) && moment == Moment::AtRest {
            attack.found(format!(
                "{} messages are not answered, unstruck",
                self.open()
            ));
        }
    }

    /// Everything that can be done to it at this moment.
    pub(super) fn blows(&self) -> Vec<Blow> {
        let mut blows: Vec<Blow> = Blow::KILLS.into_iter().cloned().collect();
        let mut dirs = vec![self.wg_dir()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    dirs.push(path);
                } else if let Ok(below) = path.strip_prefix(self.wg_dir()) {
                    blows.push(Blow::Remove(below.to_owned()));
                }
            }
        }
        blows
    }

    pub(super) fn strike(&mut self, attack: &mut Attack, what: &Blow) -> io::Result<()> {
        self.struck = Some(what.clone());
        match what {
            Blow::KillDaemon => kill(attack, &[b"daemon"]),
            Blow::KillHandler => kill(attack, &[b"nex"]),
            Blow::KillAgent => kill(attack, &[b"sleep", b"cat"]),
            Blow::Remove(below) => {
                attack.count("removals");
                let path = self.wg_dir().join(below);
                match below.to_str() {
                    // The graph is the person's: without it there are no chats, and with it again nothing is lost.
                    Some("graph.jsonl") => self.put_back = Some((path.clone(), fs::read(&path)?)),
                    // Messages whose only copy is removed are lost by the hand that removed it.
                    Some("chat/.chat-0/inbox.jsonl") => self.removed = self.accepted.clone(),
                    _ => {}
                }
                match fs::remove_file(path) {
                    // Some come and go with a turn.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Lets the service come to rest, ends it, and compares what it did with what was promised.
    pub(super) fn settle(&mut self, attack: &mut Attack) -> io::Result<()> {
        attack.count("workspaces");
        let blow = format!("{:?}", self.struck);
        if let Some((path, bytes)) = self.put_back.take() {
            fs::write(path, bytes)?;
        }
        // A daemon that was struck may be on its way out: whoever starts it waits for that.
        self.must(attack, &["service", "start"])?;
        self.must(attack, &["chat", "resume", "0"])?;
        self.send(attack, "last")?;
        let begun = Instant::now();
        let answered = wait_until(|| self.open() == 0 && self.replies_to("last") > 0);
        if !answered {
            let why = self.run(attack, &["why", "0"])?.stdout;
            attack.found(format!(
                "after {blow}: {} messages open {:?} later: {why}",
                self.open(),
                begun.elapsed()
            ));
        }
        self.run(attack, &["service", "stop"])?;
        for pid in attack.processes() {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            attack.signal(pid, Signal::KILL);
            attack.found(format!("after {blow}: process {pid} is left: {line}"));
        }
        self.compare(attack, &blow);
        Ok(())
    }

    fn compare(&self, attack: &mut Attack, blow: &str) {
        let outbox_removed =
            self.struck == Some(Blow::Remove(PathBuf::from("chat/.chat-0/outbox.jsonl")));
        let inbox = read(&self.session(), Side::Inbox);
        for text in &self.accepted {
            let there = inbox
                .iter()
                .filter(|message| message.content == *text)
                .count();
            let replies = self.replies_to(text);
            let lost_by_hand = self.removed.contains(text);
            if there != 1 && !(lost_by_hand && there == 0) {
                attack.found(format!(
                    "after {blow}: `{text}` is in the inbox {there} times"
                ));
            }
            if replies > 1 || (replies == 0 && !lost_by_hand && !outbox_removed) {
                attack.found(format!(
                    "after {blow}: `{text}` is answered {replies} times"
                ));
            }
        }
        let mut runs: BTreeMap<String, u32> = BTreeMap::new();
        for request in self.executions() {
            *runs.entry(request).or_default() += 1;
        }
        for (request, count) in runs {
            if count > 2 {
                attack.found(format!(
                    "after {blow}: {request} was executed {count} times"
                ));
            }
        }
        match session_lock::inspect(&self.session()) {
            Ok(found) if !found.is_held() => {}
            found => attack.found(format!("after {blow}: the lock is {found:?}")),
        }
    }

    /// How many replies name this message, by its request: the numbers of a removed file are not those of its successor.
    fn replies_to(&self, text: &str) -> usize {
        let answers = |reply: &Message| {
            reply.content.trim_end() == text || reply.content.contains(&format!("\n{text}\n"))
        };
        let named: Vec<String> = read(&self.session(), Side::Inbox)
            .into_iter()
            .filter(|message| message.content == text)
            .map(|message| message.request_id)
            .collect();
        let replies = read(&self.session(), Side::Outbox);
        replies
            .iter()
            .filter(|reply| answers(reply) || named.contains(&reply.request_id))
            .count()
    }

    fn open(&self) -> usize {
        messages::unanswered(&self.session()).map_or(1, |open| open.len())
    }

    fn executions(&self) -> Vec<String> {
        let ledger = fs::read_to_string(self.ledger()).unwrap_or_default();
        ledger.lines().map(str::to_owned).collect()
    }

    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(self.here())?;
        match fs::remove_file(self.ledger()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn read(session: &Path, side: Side) -> Vec<Message> {
    messages::read_after(session, side, 0)
        .unwrap_or_default()
        .messages
}

/// Kills every process of this run that has one of these words in its command line.
fn kill(attack: &mut Attack, words: &[&[u8]]) {
    for pid in attack.processes() {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let meant = line
            .split(|byte| *byte == 0)
            .any(|word| words.contains(&word));
        if meant && attack.signal(pid, Signal::KILL) {
            attack.count("kills");
        }
    }
}

fn wait_until(reached: impl Fn() -> bool) -> bool {
    let until = Instant::now() + ANSWERED;
    while !reached() {
        if Instant::now() >= until {
            return false;
        }
        pause(Duration::from_millis(5));
    }
    true
}
