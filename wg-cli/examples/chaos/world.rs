//! A workspace in a directory of its own, and the hands that reach into it.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use session_lock::ProcessIdentity;
use wg_cli::process_signal;

use crate::Settings;
use crate::disk::Disk;

/// How long one verb may take before it counts as hung.
const HUNG: Duration = Duration::from_secs(90);

#[derive(Debug)]
pub(crate) struct World {
    root: PathBuf,
    marker: String,
    chats: u32,
    disk: io::Result<Disk>,
}

/// What a verb came to.
#[derive(Debug)]
pub(crate) struct Said {
    /// Its code; `None` where it was killed or hung, and the latter is a fault of its own.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
}

impl World {
    /// Makes the workspace with its chats and starts the service.
    pub(crate) fn make(settings: &Settings) -> io::Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("wg-chaos-")
            .tempdir()?
            .keep();
        for dir in ["ledger", "here"] {
            fs::create_dir_all(root.join(dir))?;
        }
        let world = Self {
            marker: format!("CHAOS_RUN={}", root.display()),
            disk: Disk::mount_on(&root.join("here")),
            root,
            chats: settings.chats,
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
            "[service]\nagent = \"canary\"\nidle_timeout = \"3s\"\nstop_grace = \"1s\"\nmax_turns = 4\n\
             on_interrupted = \"{}\"\nlog_max_size = \"32MiB\"\n\n\
             [supervisor]\nbackoff_first = \"100ms\"\nbackoff_cap = \"1s\"\ncrash_hard = 0\n\n\
             [agents.canary]\ncommand = [\"{}\"]\nprotocol = \"stdin\"\nenv = {{ CHAOS_DIR = \"{}\" }}\n",
            settings.on_interrupted,
            agent.display(),
            world.ledger().display()
        );
        fs::write(world.here().join(".wg/config.toml"), config)?;
        for _ in 0..world.chats {
            world.expect(&["chat", "new"])?;
        }
        world.expect(&["service", "start"])?;
        Ok(world)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn here(&self) -> PathBuf {
        self.root.join("here")
    }

    pub(crate) fn chats(&self) -> u32 {
        self.chats
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.root.join("ledger")
    }

    pub(crate) fn service(&self) -> PathBuf {
        self.here().join(".wg/service")
    }

    pub(crate) fn session(&self, chat: u32) -> PathBuf {
        self.here().join(format!(".wg/chat/.chat-{chat}"))
    }

    /// The disk of the workspace, or why it has none of its own.
    pub(crate) fn disk(&self) -> &io::Result<Disk> {
        &self.disk
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

    /// Runs a verb and returns its code.
    pub(crate) fn wg(&self, args: &[&str]) -> Option<i32> {
        self.ask(args).code
    }

    /// Runs a verb and returns its code and what it said.
    pub(crate) fn ask(&self, args: &[&str]) -> Said {
        let mut said = Said {
            code: None,
            stdout: String::new(),
        };
        let Ok(mut child) = self.start(args, Stdio::null()) else {
            return said;
        };
        let until = Instant::now() + HUNG;
        let ended = session_lock::watch(child.id())
            .ok()
            .flatten()
            .is_none_or(|watch| watch.wait(until).unwrap_or(true));
        if !ended {
            drop(child.kill());
            drop(fs::write(self.root.join("hung"), args.join(" ")));
        }
        // A document of a verb fits into its pipe, so nobody waits for this.
        if let Some(mut pipe) = child.stdout.take() {
            drop(pipe.read_to_string(&mut said.stdout));
        }
        let status = child.wait().ok();
        said.code = status.filter(|_| ended).and_then(|status| status.code());
        said
    }

    /// Starts a verb.
    pub(crate) fn start(&self, args: &[&str], stdin: Stdio) -> io::Result<Child> {
        let (name, value) = self.marker.split_once('=').unwrap_or_default();
        Command::new("/proc/self/exe")
            .arg0("wg")
            .args(args)
            .current_dir(self.here())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &self.root)
            .env(name, value)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
    }

    /// The process of the daemon, as its state file tells it.
    pub(crate) fn daemon(&self) -> Option<u32> {
        let state = fs::read_to_string(self.service().join("state.json")).ok()?;
        let state: Value = serde_json::from_str(&state).ok()?;
        let pid = u32::try_from(state["pid"].as_u64()?).ok()?;
        self.carries_marker(pid).then_some(pid)
    }

    /// The handlers of a chat, told by the marker in their environment.
    pub(crate) fn handlers(&self, chat: u32) -> Vec<u32> {
        let wanted = format!("/chat-{chat}/");
        let is_of_chat = |pid: &u32| {
            crate::hands::is_handler(*pid)
                && fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
                    environment.split(|byte| *byte == 0).any(|entry| {
                        entry.starts_with(b"WG_SESSION=")
                            && String::from_utf8_lossy(entry).contains(&wanted)
                    })
                })
        };
        self.own_processes()
            .into_iter()
            .filter(is_of_chat)
            .collect()
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

    /// Kills a process of this run; `false` if there is none of that number.
    pub(crate) fn kill(&self, pid: u32) -> bool {
        let Ok(Some(identity)) = ProcessIdentity::of(pid) else {
            return false;
        };
        // Looked at after the identity was taken: what is killed is what carries the marker.
        self.carries_marker(pid) && process_signal::send(&identity, Signal::KILL).unwrap_or(false)
    }

    /// Ends what is left of a run that failed, and removes its files.
    pub(crate) fn remove(&self) {
        for pid in self.own_processes() {
            self.kill(pid);
        }
        drop(fs::remove_dir_all(&self.root));
        // With a disk of its own there, only what was in it is gone; the mount goes with this process.
        nix::mount::umount(&self.here()).ok();
        drop(fs::remove_dir_all(&self.root));
    }

    /// Copies what tells of the run to where it stays.
    pub(crate) fn keep(&self, kept: &Path) -> io::Result<()> {
        fs::create_dir_all(kept)?;
        for dir in [self.service(), self.ledger()] {
            for entry in fs::read_dir(dir)?.flatten() {
                if entry.path().is_file() {
                    fs::copy(entry.path(), kept.join(entry.file_name()))?;
                }
            }
        }
        for chat in 0..self.chats {
            for file in ["inbox.jsonl", "outbox.jsonl", "handler.log", ".handler.pid"] {
                let from = self.session(chat).join(file);
                if from.is_file() {
                    fs::copy(
                        from,
                        kept.join(format!("chat-{chat}-{}", file.trim_start_matches('.'))),
                    )?;
                }
            }
        }
        Ok(())
    }
}
