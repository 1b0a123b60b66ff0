//! `wg top`: all chats on a live screen, and a key for what can be done to one.
//!
//! The screen is drawn from the same rows as `wg chat list`; what the rows do not hold (turns, restarts) is read from the events, and memory
//! from the kernel. Nothing here decides anything: each key calls the verb of the same name.

mod activity;
mod keys;
mod memory;
mod said;
mod terminal;
mod view;

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};

use self::activity::Activity;
use self::keys::{Key, Keys};
use self::said::Deed;
use self::terminal::Terminal;
use self::view::{Body, Line, Screen};
use super::args::Top;
use super::context::Context;
use super::follow::Follower;
use super::{attach, input};
use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::ops::{self, Caller, ChatChange, ChatRow};
use crate::patience::Patience;
use crate::store::graph::ChatId;
use crate::store::resolve::{self, Make};
use crate::store::watch::{DirWatch, Woke};
use crate::store::workspace::Workspace;

/// How often ages and memory are drawn anew; changes of a chat's state come at once.
const EVERY: Duration = Duration::from_secs(1);

pub(super) fn run(cx: &Context<'_>, args: &Top) -> Outcome {
    let workspace = cx.workspace()?;
    if cx.report.is_json() || !input::is_terminal() || !cx.report.out_is_terminal() {
        return Err(Failure::new(
            ExitCode::Usage,
            "`wg top` is a screen, and there is no terminal to draw it on",
        )
        .with_cure("wg chat list --json; wg service events -f --json"));
    }
    let mut watch = DirWatch::new(&workspace.ensure_service_dir()?)?;
    let signals = Signals::listen()?;
    let (deeds, done) = Deeds::new()?;
    let mut top = Live {
        cx,
        workspace: &workspace,
        all: args.all,
        events: Follower::new(&workspace.events_path()),
        activity: Activity::default(),
        screen: Screen::default(),
        keys: Keys::default(),
        deeds,
    };
    let mut terminal = Some(Terminal::enter()?);
    loop {
        top.look();
        Terminal::draw(&top.screen)?;
        let stdin = io::stdin();
        let also = [
            stdin.as_fd(),
            signals.ending.as_fd(),
            signals.resized.as_fd(),
            done.wake.as_fd(),
        ];
        let until = clock::steady() + EVERY;
        match watch.wait(Some(until), &also).map_err(input::broken_wait)? {
            Woke::Ready(0) => match top.hear(&stdin)? {
                Wish::Nothing => {}
                Wish::Leave => return Ok(ExitCode::Ok),
                Wish::Attach(chat) => {
                    // The conversation has the terminal as it was, and gives it back.
                    drop(terminal.take());
                    let outcome = attach::run(cx, &workspace, chat);
                    terminal = Some(Terminal::enter()?);
                    if let Err(failure) = outcome {
                        top.screen.said.say(failure.to_string());
                    }
                }
            },
            Woke::Ready(1) => return Ok(ExitCode::Ok),
            Woke::Ready(2) => drain(&signals.resized),
            Woke::Ready(_) => {
                drain(&done.wake);
                for (deed, words) in done.words.try_iter() {
                    top.screen.said.end(deed, words);
                }
            }
            Woke::Changed | Woke::Deadline => {}
        }
    }
}

/// What a key asks of the loop; everything else was done already.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    Leave,
    Attach(ChatId),
}

struct Live<'a> {
    cx: &'a Context<'a>,
    workspace: &'a Workspace,
    all: bool,
    events: Follower,
    activity: Activity,
    screen: Screen,
    keys: Keys,
    deeds: Deeds,
}

impl Live<'_> {
    /// Reads everything that the screen shows; what cannot be read is said on it, and the rest stays.
    fn look(&mut self) {
        match self.events.lines() {
            Ok(lines) => lines.iter().for_each(|line| self.activity.hear(line)),
            Err(error) => self.screen.said.say(Failure::from(error).to_string()),
        }
        match ops::service_status(self.workspace) {
            Ok(status) => {
                let now = clock::now();
                let memory = memory::of_trees(status.chats.iter().filter_map(|row| row.pid));
                let lines = status
                    .chats
                    .into_iter()
                    .filter(|row| self.all || !view::is_retired(row.state))
                    .map(|row| self.line(row, &memory, now))
                    .collect();
                self.screen.show(status.pid, status.paused, lines);
            }
            Err(failure) => self.screen.said.say(failure.to_string()),
        }
    }

    fn line(&self, row: ChatRow, memory: &memory::Trees, now: clock::Timestamp) -> Line {
        let chat = ChatId(row.chat_id);
        Line {
            memory: row.pid.and_then(|pid| memory.bytes(pid)),
            turn: self.activity.turn_since(chat).map(|since| since.ago(now)),
            restarts: self.activity.restarts(chat),
            since: row.since.map(|since| since.ago(now)),
            row,
        }
    }

    fn hear(&mut self, stdin: &io::Stdin) -> Outcome<Wish> {
        let mut bytes = [0; 256];
        let read = match nix::unistd::read(stdin.as_fd(), &mut bytes) {
            // The terminal is gone.
            Ok(0) | Err(nix::errno::Errno::EIO) => return Ok(Wish::Leave),
            Ok(read) => read,
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::EAGAIN) => return Ok(Wish::Nothing),
            Err(error) => return Err(input::unreadable(error.into())),
        };
        for key in self.keys.take(&bytes[..read]) {
            let wish = self.press(key);
            if wish != Wish::Nothing {
                return Ok(wish);
            }
        }
        Ok(Wish::Nothing)
    }

    fn press(&mut self, key: Key) -> Wish {
        if let Some(chat) = self.screen.asked_to_purge() {
            self.screen.body = Body::Chats;
            if key == Key::Letter('y') {
                self.purge(chat);
            } else {
                self.screen.said.say("nothing was purged".to_owned());
            }
            return Wish::Nothing;
        }
        if self.screen.body != Body::Chats {
            // Any key leaves the explanation.
            self.screen.body = Body::Chats;
            return Wish::Nothing;
        }
        match key {
            Key::Leave | Key::Letter('q') => return Wish::Leave,
            Key::Up | Key::Letter('k') => self.screen.select(-1),
            Key::Down | Key::Letter('j') => self.screen.select(1),
            Key::Letter(letter) => {
                if let Some(chat) = self.screen.selected() {
                    return self.act(letter, chat);
                }
            }
            Key::Other => {}
        }
        Wish::Nothing
    }

    fn act(&mut self, letter: char, chat: ChatId) -> Wish {
        match letter {
            'a' => return Wish::Attach(chat),
            'w' => match crate::why::explain(self.workspace, Some(chat)) {
                Ok(explanations) => {
                    let now = clock::now();
                    let text: String = explanations.iter().map(|one| one.to_text(now)).collect();
                    self.screen.body = Body::Why(text);
                }
                Err(failure) => self.screen.said.say(failure.to_string()),
            },
            's' => self.change(chat, "stopping", ops::stop),
            'c' => self.change(chat, "resuming", ops::resume),
            'i' => self.change(chat, "interrupting", ops::interrupt),
            'r' => self.release(chat),
            'p' => self.screen.body = Body::AskToPurge(chat),
            _ => {}
        }
        Wish::Nothing
    }

    /// A verb may wait for a handler's end, and the screen must not.
    fn change(
        &mut self,
        chat: ChatId,
        doing: &str,
        verb: fn(&Workspace, ChatId, &Caller) -> Outcome<ChatChange>,
    ) {
        let deed = self.screen.said.begin(format!("{doing} {chat} …"));
        let workspace = self.workspace.clone();
        self.deeds.start(deed, move || {
            verb(&workspace, chat, &Caller::from_env()).map(|change| change.text)
        });
    }

    fn release(&mut self, chat: ChatId) {
        let deed = self.screen.said.begin(format!("asking for {chat} …"));
        let workspace = self.workspace.clone();
        self.deeds.start(deed, move || {
            ops::hold_off(&workspace, chat, &Caller::from_env(), Patience::Forever)?;
            let dir = resolve::session_dir(&workspace, chat, Make::Yes)?;
            session_lock::request_release(&dir).map_err(|error| {
                Failure::new(
                    ExitCode::System,
                    format!("failed to ask for the release of {chat}"),
                )
                .caused_by(error)
            })?;
            Ok(format!("{chat}: its handler leaves at the end of its turn"))
        });
    }

    /// One chat: what `wg service archive-chat` does to it.
    fn purge(&mut self, chat: ChatId) {
        self.change(chat, "purging", ops::archive);
        self.cx.report.detail(&format!("purging {chat}"));
    }
}

/// Verbs that run beside the screen, each in a thread of its own.
#[derive(Debug, Clone)]
struct Deeds {
    words: Sender<(Deed, String)>,
    wake: Arc<UnixStream>,
}

/// What they have to say, and the descriptor that tells that there is something.
struct Done {
    words: Receiver<(Deed, String)>,
    wake: UnixStream,
}

impl Deeds {
    fn new() -> Outcome<(Self, Done)> {
        let (wake, woken) = pair()?;
        let (words, heard) = mpsc::channel();
        let done = Done {
            words: heard,
            wake: woken,
        };
        let wake = Arc::new(wake);
        Ok((Self { words, wake }, done))
    }

    fn start(&self, deed: Deed, act: impl FnOnce() -> Outcome<String> + Send + 'static) {
        let deeds = self.clone();
        let act = move || {
            let said = act().unwrap_or_else(|failure| failure.to_string());
            deeds.tell(deed, said);
        };
        if let Err(error) = thread::Builder::new().name("deed".to_owned()).spawn(act) {
            self.tell(deed, format!("failed to start a thread: {error}"));
        }
    }

    fn tell(&self, deed: Deed, said: String) {
        // A screen that was left needs no words.
        drop(self.words.send((deed, said)));
        drop(io::Write::write_all(&mut &*self.wake, b"."));
    }
}

/// Signals as readable descriptors: those that end the screen, and that of another size.
struct Signals {
    ending: UnixStream,
    resized: UnixStream,
}

impl Signals {
    fn listen() -> Outcome<Self> {
        let (end, ending) = pair()?;
        let (size, resized) = pair()?;
        let register = |signal, pipe: &UnixStream| {
            pipe.try_clone()
                .and_then(|pipe| signal_hook::low_level::pipe::register(signal, pipe))
                .map_err(|error| {
                    Failure::new(ExitCode::System, "failed to listen for signals").caused_by(error)
                })
        };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            register(signal, &end)?;
        }
        register(SIGWINCH, &size)?;
        Ok(Self { ending, resized })
    }
}

fn pair() -> Outcome<(UnixStream, UnixStream)> {
    let made = UnixStream::pair().and_then(|(write, read)| {
        write.set_nonblocking(true)?;
        read.set_nonblocking(true)?;
        Ok((write, read))
    });
    made.map_err(|error| Failure::new(ExitCode::System, "failed to make a pipe").caused_by(error))
}

fn drain(mut pipe: &UnixStream) {
    let mut bytes = [0; 64];
    while pipe.read(&mut bytes).is_ok_and(|read| read > 0) {}
}
