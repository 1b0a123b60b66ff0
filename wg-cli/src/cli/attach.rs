//! A chat at a terminal, line by line: what was said, what is being said, and what keeps it waiting.
//!
//! One thread waits for four things at once: a line from the keyboard, Ctrl-C, a change in the session's directory (messages and the reply
//! in the making), and a change in the service's directory (events).

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde_json::Value;

use super::chat::read::{mark_as_read, merge, print_one};
use super::context::Context;
use super::conversation::{Stream, streamed};
use super::follow::Follower;
use super::input;
use super::wait::LOOK_FOR_STANDSTILL;
use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::names::EventKind;
use crate::ops::{self, Caller, SendOptions};
use crate::patience::Patience;
use crate::presence::Presence;
use crate::report::{Paint, one_line};
use crate::standstill::{self, Told};
use crate::store::attempt;
use crate::store::graph::ChatId;
use crate::store::messages::{self, Durability, Message, Role, Side};
use crate::store::resolve::{self, Make};
use crate::store::watch::{DirWatch, Woke};
use crate::store::workspace::Workspace;

/// How much of the past is shown.
const HISTORY: usize = 10;

/// Talks until Ctrl-D.
pub(super) fn run(cx: &Context<'_>, workspace: &Workspace, chat: ChatId) -> Outcome {
    let dir = resolve::session_dir(workspace, chat, Make::Yes)?;
    let service_dir = workspace.ensure_service_dir()?;
    let mut session_changes = DirWatch::new(&dir)?;
    let mut service_changes = DirWatch::new(&service_dir)?;
    let interrupts = interrupts()?;
    // Being connected is what tells the service that somebody reads; it ends with this value.
    let presence = Presence::announce(workspace, chat, "chat attach", Patience::Forever)?;
    if !presence.is_attached() {
        cx.report
            .note("the service is not running: messages wait until `wg service start`");
    }
    let mut screen = Screen::open(cx, workspace, chat, dir)?;
    screen.greet()?;
    loop {
        screen.show_news()?;
        if cx.report.reader_is_gone() {
            return Ok(ExitCode::Ok);
        }
        let stdin = io::stdin();
        let mut also = vec![stdin.as_fd(), interrupts.as_fd()];
        also.extend(service_changes.fd());
        let look_at = screen
            .waiting_since
            .map(|_| clock::steady() + LOOK_FOR_STANDSTILL);
        match session_changes
            .wait(look_at, &also)
            .map_err(input::broken_wait)?
        {
            Woke::Ready(0) => {
                if screen.hear(&stdin)? == Heard::End {
                    screen.leave();
                    return Ok(ExitCode::Ok);
                }
            }
            Woke::Ready(1) => {
                drain(&interrupts);
                screen.interrupt()?;
            }
            Woke::Ready(_) => {
                // What the notices are about is in the event log.
                service_changes.drain();
            }
            Woke::Changed => {}
            Woke::Deadline => screen.show_who_stands_still()?,
        }
    }
}

/// Makes Ctrl-C a readable descriptor instead of an end.
fn interrupts() -> Outcome<UnixStream> {
    let failed = |error: io::Error| {
        Failure::new(ExitCode::System, "failed to listen for Ctrl-C").caused_by(error)
    };
    let (read, write) = UnixStream::pair().map_err(failed)?;
    read.set_nonblocking(true).map_err(failed)?;
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGINT, write).map_err(failed)?;
    Ok(read)
}

fn drain(mut pipe: &UnixStream) {
    let mut bytes = [0; 64];
    while io::Read::read(&mut pipe, &mut bytes).is_ok_and(|read| read > 0) {}
}

/// Whether the person is still there.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    More,
    End,
}

#[derive(Debug)]
struct Screen<'a> {
    cx: &'a Context<'a>,
    workspace: &'a Workspace,
    chat: ChatId,
    dir: PathBuf,
    stream: Stream<'a>,
    /// What the file of the reply in the making held when its reply was shown: its turn is over, and the file goes a moment later.
    over: Option<String>,
    /// The last message on each side that is on the screen.
    seen: (u64, u64),
    /// What was typed here: it is on the screen already.
    own: Vec<u64>,
    typed: Vec<u8>,
    events: Follower,
    /// Who was said to stand still.
    standstill: Told,
    waiting_since: Option<u64>,
    prompt_shown: bool,
}

impl<'a> Screen<'a> {
    fn open(
        cx: &'a Context<'a>,
        workspace: &'a Workspace,
        chat: ChatId,
        dir: PathBuf,
    ) -> Outcome<Self> {
        let mut events = Follower::new(&workspace.events_path());
        // What happened before is for `wg service events`.
        drop(events.lines()?);
        Ok(Self {
            cx,
            workspace,
            chat,
            dir,
            stream: Stream::live(cx),
            over: None,
            seen: (0, 0),
            own: Vec::new(),
            typed: Vec::new(),
            events,
            standstill: Told::default(),
            waiting_since: None,
            prompt_shown: false,
        })
    }

    /// The chat's state in words, and the end of its history.
    fn greet(&mut self) -> Outcome<()> {
        let inbox = messages::read_last(&self.dir, Side::Inbox, HISTORY)?.messages;
        let outbox = messages::read_last(&self.dir, Side::Outbox, HISTORY)?.messages;
        self.seen = (last_of(&inbox), last_of(&outbox));
        let answered = outbox
            .iter()
            .filter_map(|reply| reply.in_reply_to)
            .max()
            .unwrap_or(0);
        self.waiting_since = inbox
            .iter()
            .map(|message| message.id)
            .find(|id| *id > answered);
        // A handler that was killed after its reply was written has left that: it is no reply in the making.
        let begun = attempt::read(&self.dir).map(|begun| begun.message);
        if self.waiting_since.is_none() || (begun.is_some() && begun != self.waiting_since) {
            self.over = streamed(&self.dir);
        }
        let past = merge(inbox, outbox);
        let now = clock::now();
        for (_, message) in &past[past.len().saturating_sub(HISTORY)..] {
            print_one(self.cx, self.chat, message, now)?;
        }
        let row = ops::list_chats(self.workspace, true)?
            .into_iter()
            .find(|row| row.chat_id == self.chat.0);
        let (state, agent) = row.map_or((String::new(), String::new()), |row| {
            (
                format!(", {}", row.state),
                format!(", agent {}", one_line(&row.agent)),
            )
        });
        self.cx.report.note(&format!(
            "{}{state}{agent}. Ctrl-C interrupts a turn, Ctrl-D leaves.",
            self.chat
        ));
        Ok(())
    }

    /// Shows whatever is new on either side, the reply in the making, and why nothing comes.
    fn show_news(&mut self) -> Outcome<()> {
        let inbox = messages::read_after(&self.dir, Side::Inbox, self.seen.0)?.messages;
        let outbox = messages::read_after(&self.dir, Side::Outbox, self.seen.1)?.messages;
        self.seen = (
            self.seen.0.max(last_of(&inbox)),
            self.seen.1.max(last_of(&outbox)),
        );
        for (side, message) in merge(inbox, outbox) {
            match side {
                Side::Inbox => self.show_said(&message)?,
                Side::Outbox => self.show_reply(&message)?,
            }
        }
        self.show_streamed()?;
        self.show_events()?;
        self.prompt();
        Ok(())
    }

    /// A message of this person stands on the screen already; one of another does not.
    fn show_said(&mut self, message: &Message) -> Outcome<()> {
        if let Some(at) = self.own.iter().position(|id| *id == message.id) {
            self.own.swap_remove(at);
            return Ok(());
        }
        self.wipe_prompt()?;
        print_one(self.cx, self.chat, message, clock::now())
    }

    fn show_reply(&mut self, reply: &Message) -> Outcome<()> {
        self.wipe_prompt()?;
        if self
            .waiting_since
            .is_some_and(|id| reply.in_reply_to.is_none_or(|answered| answered >= id))
        {
            self.waiting_since = None;
        }
        match reply.role {
            Role::SystemError => {
                self.stream.give_up()?;
                let words = self.cx.report.paint(Paint::Bad, "failed:");
                self.cx
                    .report
                    .speech(&format!("{words} {}\n", reply.content.trim_end()))?;
            }
            Role::User | Role::Coordinator => self.stream.finish(&reply.content)?,
        }
        self.over = streamed(&self.dir);
        mark_as_read(self.cx, &self.dir, reply.id);
        Ok(())
    }

    /// The reply so far; the file is emptied or removed when its turn is over.
    fn show_streamed(&mut self) -> Outcome<()> {
        let so_far = streamed(&self.dir);
        if self.over.is_some() && self.over == so_far {
            return Ok(());
        }
        self.over = None;
        let Some(so_far) = so_far else {
            return Ok(());
        };
        if let Some(news) = self.stream.news_of(&so_far) {
            let news = news.to_owned();
            self.wipe_prompt()?;
            self.stream.piece(&news);
        }
        Ok(())
    }

    /// What happened to the chat, where it explains why nothing comes.
    fn show_events(&mut self) -> Outcome<()> {
        for line in self.events.lines()? {
            let Ok(event) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            let ours = event.get("chat_id").and_then(Value::as_u64) == Some(u64::from(self.chat.0));
            let kind = event
                .get("event")
                .and_then(Value::as_str)
                .and_then(EventKind::parse);
            if ours && kind.is_some_and(explains_a_wait) {
                self.wipe_prompt()?;
                self.stream.end_line()?;
                let text = event
                    .get("text")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                self.cx.report.note(
                    &self
                        .cx
                        .report
                        .paint_err(Paint::Faint, &format!("({})", one_line(text))),
                );
            }
        }
        Ok(())
    }

    /// Who keeps the reply from coming because he stands still, and what helps.
    fn show_who_stands_still(&mut self) -> Outcome<()> {
        let now = standstill::in_the_way(&self.workspace.service_dir(), &self.dir);
        for one in self.standstill.news(now) {
            self.wipe_prompt()?;
            self.stream.end_line()?;
            let words = format!("({})", one.to_line());
            let words = self.cx.report.paint_err(Paint::Faint, &words);
            self.cx.report.note(&words);
        }
        Ok(())
    }

    /// Takes what was typed; a whole line is a message.
    fn hear(&mut self, stdin: &io::Stdin) -> Outcome<Heard> {
        let mut bytes = [0; 4096];
        let read = match nix::unistd::read(stdin.as_fd(), &mut bytes) {
            Ok(0) => return Ok(Heard::End),
            Ok(read) => read,
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::EAGAIN) => return Ok(Heard::More),
            Err(error) => return Err(input::unreadable(error.into())),
        };
        if bytes[..read].contains(&b'\n') {
            // The terminal has echoed the end of the line: the prompt is above the cursor now.
            self.prompt_shown = false;
        }
        self.typed.extend_from_slice(&bytes[..read]);
        while let Some(end) = self.typed.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.typed.drain(..=end).collect();
            let text = String::from_utf8_lossy(&line);
            let text = text.trim();
            if !text.is_empty() {
                self.say(text);
            }
        }
        Ok(Heard::More)
    }

    /// A message that cannot be sent is told and does not end the conversation.
    fn say(&mut self, text: &str) {
        let options = SendOptions {
            request_id: None,
            durability: Durability::Sync,
            user: None,
            patience: Patience::Forever,
        };
        match ops::send(self.workspace, self.chat, text, options) {
            Ok(sent) => {
                self.own.push(sent.inbox_id);
                self.waiting_since.get_or_insert(sent.inbox_id);
                if let Some(note) = sent.note {
                    self.cx.report.note(&note);
                }
            }
            Err(failure) => self.cx.report.failure(&failure),
        }
    }

    fn interrupt(&mut self) -> Outcome<()> {
        self.wipe_prompt()?;
        self.stream.end_line()?;
        if self.waiting_since.is_none() {
            self.cx.report.note("nothing to interrupt; Ctrl-D leaves");
            return Ok(());
        }
        match ops::ask_to_interrupt(self.workspace, self.chat, &Caller::from_env()) {
            Ok(change) => self.cx.report.note(&change.text),
            Err(failure) => self.cx.report.failure(&failure),
        }
        Ok(())
    }

    fn leave(&mut self) {
        if self.waiting_since.is_some() {
            self.cx.report.note(&format!(
                "the turn goes on; read its reply with `wg chat read {}`",
                self.chat
            ));
        }
    }

    /// A prompt only where nothing is under way: it would stand in the middle of a reply.
    fn prompt(&mut self) {
        if self.cx.report.out_is_terminal() && !self.prompt_shown && self.waiting_since.is_none() {
            drop(self.cx.report.speech("> "));
            self.prompt_shown = true;
        }
    }

    fn wipe_prompt(&mut self) -> Outcome<()> {
        if std::mem::take(&mut self.prompt_shown) {
            self.cx.report.restart_line()
        } else {
            Ok(())
        }
    }
}

fn last_of(messages: &[Message]) -> u64 {
    messages.last().map_or(0, |message| message.id)
}

/// Whether an event tells a waiting person something.
fn explains_a_wait(kind: EventKind) -> bool {
    match kind {
        EventKind::Held
        | EventKind::HolderGone
        | EventKind::SpawnFailed
        | EventKind::Backoff
        | EventKind::Degraded
        | EventKind::Parked
        | EventKind::Unparked
        | EventKind::LaneBlocked
        | EventKind::TakenOver
        | EventKind::Archived
        | EventKind::Purged
        | EventKind::Restored
        | EventKind::Stopped => true,
        EventKind::DaemonStarted
        | EventKind::Adopted
        | EventKind::Spawned
        | EventKind::Exited
        | EventKind::Idle
        | EventKind::Woken
        | EventKind::TurnStarted
        | EventKind::TurnFinished
        | EventKind::TurnInterrupted
        | EventKind::LaneReclaimed
        | EventKind::MemoryWarning
        | EventKind::ReleaseRequested
        | EventKind::OrphanEnded
        | EventKind::BudgetWarning => false,
    }
}
