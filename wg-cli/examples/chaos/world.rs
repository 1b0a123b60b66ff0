//! A workspace in a directory of its own, and the hands that reach into it.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use session_lock::ProcessIdentity;
use wg_cli::presence::Presence;
use wg_cli::process_signal;
use wg_cli::store::graph::ChatId;
use wg_cli::store::workspace::Workspace;

use crate::dice::Dice;

/// How long one verb may take before it counts as hung.
const HUNG: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct World {
    root: PathBuf,
    marker: String,
    chats: u32,
}

impl World {
    /// Makes the workspace with its chats and starts the service.
    pub(crate) fn make(chats: u32) -> io::Result<Self> {
        let root = std::env::temp_dir().join(format!("wg-chaos-{}", std::process::id()));
        fs::create_dir_all(root.join("ledger"))?;
        let world = Self {
            marker: format!("CHAOS_RUN={}", root.display()),
            root,
            chats,
        };
        let agent = world.root.join("agent.sh");
        let own = std::env::current_exe()?;
        fs::write(
            &agent,
            format!("#!/bin/bash\nexec -a chaos-agent '{}'\n", own.display()),
        )?;
        fs::set_permissions(&agent, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        world.expect(&["init"])?;
        let config = format!(
            "[service]\nagent = \"canary\"\nidle_timeout = \"3s\"\nstop_grace = \"1s\"\nmax_turns = 4\n\n\
             [supervisor]\nbackoff_first = \"100ms\"\nbackoff_cap = \"500ms\"\ncrash_hard = 0\n\n\
             [agents.canary]\ncommand = [\"{}\"]\nprotocol = \"stdin\"\nenv = {{ CHAOS_DIR = \"{}\" }}\n",
            agent.display(),
            world.ledger().display()
        );
        fs::write(world.root.join(".wg/config.toml"), config)?;
        for _ in 0..chats {
            world.expect(&["chat", "new"])?;
        }
        world.expect(&["service", "start"])?;
        Ok(world)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn chats(&self) -> u32 {
        self.chats
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.root.join("ledger")
    }

    pub(crate) fn session(&self, chat: u32) -> PathBuf {
        self.root.join(format!(".wg/chat/.chat-{chat}"))
    }

    pub(crate) fn workspace(&self) -> Option<Workspace> {
        Workspace::open(&self.root.join(".wg")).ok()
    }

    fn expect(&self, args: &[&str]) -> io::Result<()> {
        match self.wg(args) {
            Some(0) => Ok(()),
            code => Err(io::Error::other(format!(
                "`wg {}` left with {code:?}",
                args.join(" ")
            ))),
        }
    }

    /// Runs a verb and returns its code; `None` where it hung and was killed, which is a fault of its own.
    pub(crate) fn wg(&self, args: &[&str]) -> Option<i32> {
        let (name, value) = self.marker.split_once('=')?;
        let mut child = Command::new("/proc/self/exe")
            .arg0("wg")
            .args(args)
            .current_dir(&self.root)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &self.root)
            .env(name, value)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let until = Instant::now() + HUNG;
        let ended = session_lock::watch(child.id())
            .ok()
            .flatten()
            .is_none_or(|watch| watch.wait(until).unwrap_or(true));
        if !ended {
            drop(child.kill());
            drop(child.wait());
            drop(fs::write(self.root.join("hung"), args.join(" ")));
            return None;
        }
        child.wait().ok()?.code()
    }

    /// A consumer that comes and is gone at once, as a screen that crashes.
    pub(crate) fn attach(&self, chat: u32) {
        if let Some(workspace) = self.workspace() {
            drop(Presence::announce(&workspace, ChatId(chat), "chaos"));
        }
    }

    pub(crate) fn kill_daemon(&self) -> u32 {
        let state =
            fs::read_to_string(self.root.join(".wg/service/state.json")).unwrap_or_default();
        let value: serde_json::Value = serde_json::from_str(&state).unwrap_or_default();
        let pid = value["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok());
        u32::from(pid.is_some_and(|pid| self.kill(pid)))
    }

    pub(crate) fn kill_handler(&self, dice: &mut Dice) -> u32 {
        self.kill_one_of(dice, |line| line.windows(4).any(|word| word == b"nex\0"))
    }

    pub(crate) fn kill_agent(&self, dice: &mut Dice) -> u32 {
        self.kill_one_of(dice, |line| line.starts_with(b"chaos-agent"))
    }

    fn kill_one_of(&self, dice: &mut Dice, is_it: impl Fn(&[u8]) -> bool) -> u32 {
        let found: Vec<u32> = self
            .own_processes()
            .into_iter()
            .filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| is_it(&line)))
            .collect();
        if found.is_empty() {
            return 0;
        }
        let at = usize::try_from(dice.below(found.len() as u64)).unwrap_or(0);
        u32::from(self.kill(found[at]))
    }

    /// Every process that carries this run's marker, told by its environment.
    pub(crate) fn own_processes(&self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| *pid != std::process::id() && self.carries_marker(*pid))
            .collect()
    }

    fn carries_marker(&self, pid: u32) -> bool {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
            environment
                .split(|byte| *byte == 0)
                .any(|one| one == self.marker.as_bytes())
        })
    }

    fn kill(&self, pid: u32) -> bool {
        let Ok(Some(identity)) = ProcessIdentity::of(pid) else {
            return false;
        };
        // Looked at after the identity was taken: what is killed is what carries the marker.
        self.carries_marker(pid) && process_signal::send(&identity, Signal::KILL).unwrap_or(false)
    }

    pub(crate) fn remove(&self) {
        drop(fs::remove_dir_all(&self.root));
    }
}
