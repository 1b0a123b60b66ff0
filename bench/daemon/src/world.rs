//! A workspace in a directory of its own, as large as is asked for.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wg_cli::clock::Timestamp;
use wg_cli::ipc::{Client, Request};
use wg_cli::ops::{self, SendOptions};
use wg_cli::patience::Patience;
use wg_cli::presence::Presence;
use wg_cli::store::files::Durability;
use wg_cli::store::graph::{ChatId, Graph, NewChat};
use wg_cli::store::messages::{self, Message, Role, Side};
use wg_cli::store::resolve::{self, Make};
use wg_cli::store::watch::DirWatch;
use wg_cli::store::workspace::Workspace;

const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct World {
    root: PathBuf,
    workspace: Workspace,
}

impl World {
    pub(crate) fn make(chats: u32) -> Result<Self, Box<dyn Error>> {
        let root = std::env::temp_dir().join(format!("bench-daemon-{}", std::process::id()));
        fs::create_dir_all(&root)?;
        run(&root, &["init"])?;
        let settings = "[service]\nagent = \"echo\"\nidle_timeout = \"600s\"\n";
        fs::write(root.join(".wg/config.toml"), settings)?;
        let workspace = Workspace::open(&root.join(".wg"))?;
        Graph::edit(&workspace, |graph| {
            for _ in 0..chats {
                graph.add_chat(&workspace, NewChat::default())?;
            }
            Ok(())
        })?;
        for chat in 0..chats {
            resolve::session_dir(&workspace, ChatId(chat), Make::Yes)?;
        }
        Ok(Self { root, workspace })
    }

    fn session(&self, chat: u32) -> PathBuf {
        self.root.join(format!(".wg/chat/.chat-{chat}"))
    }

    /// Runs a verb, which must end well, and returns what it said.
    pub(crate) fn wg(&self, args: &[&str]) -> Result<String, Box<dyn Error>> {
        run(&self.root, args)
    }

    pub(crate) fn socket(&self) -> Result<PathBuf, Box<dyn Error>> {
        Ok(self.workspace.socket_path()?)
    }

    /// Asks the daemon over a new connection.
    pub(crate) fn status(&self) -> Result<(), Box<dyn Error>> {
        let mut client = Client::connect(&self.workspace)?;
        client.call(&Request::Status)?;
        Ok(())
    }

    pub(crate) fn daemon(&self) -> Result<u32, Box<dyn Error>> {
        let client = Client::connect(&self.workspace)?;
        client
            .daemon_pid()
            .ok_or_else(|| "the daemon does not tell its process".into())
    }

    pub(crate) fn send(&self, chat: u32, text: &str) -> Result<(), Box<dyn Error>> {
        let options = SendOptions {
            request_id: None,
            user: None,
            durability: Durability::Sync,
            patience: Patience::Forever,
        };
        ops::send(&self.workspace, ChatId(chat), text, options)?;
        Ok(())
    }

    pub(crate) fn wait_for_handler(&self, chat: u32) -> Result<(), Box<dyn Error>> {
        let record = self.session(chat).join(".handler.pid");
        self.wait(chat, || Ok(record.exists()))
    }

    /// Adds to the settings.
    pub(crate) fn set(&self, settings: &str) -> Result<(), Box<dyn Error>> {
        let path = self.root.join(".wg/config.toml");
        let mut file = fs::OpenOptions::new().append(true).open(path)?;
        Ok(file.write_all(settings.as_bytes())?)
    }

    /// Is somebody who reads the chat.
    pub(crate) fn attach(&self, chat: u32) -> Result<Presence, Box<dyn Error>> {
        let patience = Patience::Forever;
        Ok(Presence::announce(
            &self.workspace,
            ChatId(chat),
            "bench",
            patience,
        )?)
    }

    /// Kills the handler of a chat and waits until another one has its lock.
    pub(crate) fn replace_handler(&self, chat: u32) -> Result<(), Box<dyn Error>> {
        let record = self.session(chat).join(".handler.pid");
        let pid = || -> Result<Option<i32>, Box<dyn Error>> {
            match fs::read_to_string(&record) {
                Ok(text) => Ok(text.lines().next().and_then(|pid| pid.parse().ok())),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let first = pid()?.ok_or("there is no handler")?;
        kill(Pid::from_raw(first), Signal::SIGKILL)?;
        self.wait(chat, || Ok(pid()?.is_some_and(|now| now != first)))
    }

    /// Waits until there are so many replies.
    pub(crate) fn wait_for_replies(&self, chat: u32, count: u64) -> Result<(), Box<dyn Error>> {
        let dir = self.session(chat);
        self.wait(chat, || Ok(messages::last_id(&dir, Side::Outbox)? >= count))
    }

    fn wait(
        &self,
        chat: u32,
        reached: impl Fn() -> Result<bool, Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        let mut watch = DirWatch::new(&self.session(chat))?;
        let until = Instant::now() + PATIENCE;
        while !reached()? {
            if Instant::now() >= until {
                return Err(format!("chat {chat} does not come to it").into());
            }
            watch.wait(Some(until), &[])?;
        }
        Ok(())
    }

    /// The handlers of this workspace, by their command lines.
    pub(crate) fn handlers(&self) -> Vec<u32> {
        let dir = self.root.join(".wg").display().to_string();
        let is_handler = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.contains(&dir.as_bytes()) && words.contains(&&b"nex"[..])
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(is_handler)
            .collect()
    }

    /// Writes a history of so many messages, all of them answered.
    pub(crate) fn fill(&self, chat: u32, length: u64) -> Result<(), Box<dyn Error>> {
        let dir = self.session(chat);
        for side in [Side::Inbox, Side::Outbox] {
            let mut text = String::new();
            for id in 1..=length {
                let line = line(side, id).format();
                writeln!(text, "{}", String::from_utf8(line)?)?;
            }
            fs::write(side.path(&dir), text)?;
        }
        messages::advance_handler_cursors(&dir, length)?;
        Ok(())
    }

    pub(crate) fn end(self) -> Result<(), Box<dyn Error>> {
        self.wg(&["service", "stop"])?;
        fs::remove_dir_all(&self.root)?;
        Ok(())
    }
}

fn line(side: Side, id: u64) -> Message {
    let (role, in_reply_to) = match side {
        Side::Inbox => (Role::User, None),
        Side::Outbox => (Role::Coordinator, Some(id)),
    };
    Message {
        id,
        timestamp: Timestamp::EPOCH,
        role,
        content: format!("a message of the past that is neither short nor long, number {id}"),
        request_id: format!("past-{id}"),
        user: "bench".to_owned(),
        in_reply_to,
        retry_of: None,
        turn: None,
        extra: serde_json::Map::new(),
    }
}

fn run(dir: &Path, args: &[&str]) -> Result<String, Box<dyn Error>> {
    let done = Command::new("/proc/self/exe")
        .arg0("wg")
        .args(args)
        .current_dir(dir)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", dir)
        .stdin(Stdio::null())
        .output()?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        return Err(format!("`wg {}` ended with {}: {said}", args.join(" "), done.status).into());
    }
    Ok(String::from_utf8(done.stdout)?)
}
