//! What a person at a terminal sees: `chat attach` and `top` on a pseudo-terminal that is theirs, Ctrl-C and all.

#![expect(
    clippy::disallowed_methods,
    reason = "the clock is read for the watchdog"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Child;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::errors::told;
use crate::process::{wait_gone, wait_readable};
use crate::world::{WATCHDOG, WG, World, on_path};

/// A terminal with a command in it.
pub(crate) struct Terminal {
    master: File,
    /// Kept open, so that the terminal outlives the command.
    slave: File,
    /// What was shown since the last thing that was waited for.
    shown: String,
    child: Child,
}

pub(crate) const CTRL_C: &str = "\u{3}";
const CTRL_D: &str = "\u{4}";

impl Terminal {
    /// Starts `wg` as the leader of a session whose terminal this is.
    pub(crate) fn start(world: &World, args: &[&str], columns: u16) -> Self {
        Self::start_program(world, WG, args, columns)
    }

    /// Starts a program as the leader of a session whose terminal this is.
    pub(crate) fn start_program(world: &World, program: &str, args: &[&str], columns: u16) -> Self {
        let master: OwnedFd =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = File::options()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_NOCTTY)
            .open(name.to_str().unwrap())
            .unwrap();
        let size = Winsize {
            ws_row: 24,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).unwrap();
        let mut command = world.command(on_path("setsid").unwrap());
        command
            .args(["-c", "-w", program])
            .args(args)
            .env("TERM", "xterm")
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave.try_clone().unwrap());
        Self {
            master: File::from(master),
            slave,
            shown: String::new(),
            child: command.spawn().unwrap(),
        }
    }

    pub(crate) fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until this is shown after everything that was waited for before, and returns what came until then. A screen that is drawn
    /// again and again is no reason to wait for ever.
    #[track_caller]
    pub(crate) fn shows(&mut self, text: &str) -> String {
        let end = Instant::now() + WATCHDOG;
        loop {
            if let Some(at) = self.shown.find(text) {
                return self.shown.drain(..at + text.len()).collect();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero() && wait_readable(&self.master, left),
                "`{text}` is not shown: {:?}",
                self.shown
            );
            let mut bytes = [0; 4096];
            let count = self.master.read(&mut bytes).unwrap();
            self.shown
                .push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    /// Takes the terminal away, as the end of its window does, and returns what ran in it.
    pub(crate) fn goes_away(self) -> Child {
        self.child
    }

    /// Whether the terminal gives lines and shows what is typed, as a shell wants to find it.
    fn is_as_it_was(&self) -> bool {
        let flags = tcgetattr(&self.slave).unwrap().local_flags;
        flags.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    #[track_caller]
    pub(crate) fn ends_with(mut self, code: i32) {
        wait_gone(self.pid());
        assert_eq!(
            self.child.wait().unwrap().code(),
            Some(code),
            "{}",
            self.shown
        );
    }
}

#[test]
fn attach_shows_the_past_streams_a_reply_interrupts_a_turn_and_leaves_at_the_end_of_input() {
    let world = World::with_workspace();
    let agent = world.script(
        "agent",
        "#!/bin/sh\nread -r word\ncase $word in\n\
         slow) printf 'half a reply'; exec sleep 600;;\n\
         *) printf 'you said %s' \"$word\";;\nesac\n",
    );
    world
        .wg(&["chat", "new", "--command", agent.to_str().unwrap()])
        .ok();
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "earlier"]).ok();
    let mut terminal = Terminal::start(&world, &["chat", "attach", "0"], 80);
    terminal.shows("you said earlier");
    terminal.shows("chat-0, running");
    terminal.shows("Ctrl-C interrupts a turn, Ctrl-D leaves.");
    terminal.shows("> ");
    terminal.types("now\n");
    terminal.shows("you said now");
    // Once.
    assert!(!terminal.shows("> ").contains("you said"));
    terminal.types("slow\n");
    // It is not over, and is seen already.
    terminal.shows("half a reply");
    terminal.types(CTRL_C);
    terminal.shows("interrupt");
    terminal.shows("> ");
    terminal.types("after\n");
    terminal.shows("you said after");
    terminal.shows("> ");
    // Somebody else's words appear too.
    world.wg(&["chat", "send", "0", "elsewhere"]).ok();
    terminal.shows("you said elsewhere");
    terminal.types(CTRL_C);
    terminal.shows("nothing to interrupt; Ctrl-D leaves");
    terminal.types(CTRL_D);
    terminal.ends_with(0);
    world.stop();
}

#[test]
fn attach_says_in_words_why_nothing_comes() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    world.wg(&["service", "start"]).ok();
    let mut terminal = Terminal::start(&world, &["chat", "attach", "0"], 80);
    terminal.shows("Ctrl-D leaves.");
    world.wg(&["chat", "stop", "0"]).ok();
    terminal.shows("stopped");
    terminal.types("are you there?\n");
    terminal.shows("wg chat resume chat-0");
    terminal.types(CTRL_D);
    terminal.ends_with(0);
    world.stop();
}

#[test]
fn top_shows_the_chats_acts_on_a_key_and_gives_the_terminal_back() {
    let world = World::with_workspace();
    for _ in 0..2 {
        world.wg(&["chat", "new"]).ok();
    }
    world.wg(&["service", "start"]).ok();
    world.wg(&["chat", "hello"]).ok();
    let mut terminal = Terminal::start(&world, &["top"], 100);
    terminal.shows("\u{1b}[?1049h");
    terminal.shows("2 chats, 1 served");
    terminal.shows("RESTARTS");
    terminal.shows("chat-0");
    assert!(!terminal.is_as_it_was(), "keys would wait for a line's end");
    terminal.types("w");
    terminal.shows("started for: message");
    terminal.types("w");
    terminal.shows("CHAT");
    terminal.types("s");
    terminal.shows("stopped chat-0; it stays down");
    terminal.types("c");
    terminal.shows("resumed chat-0");
    terminal.types("jp");
    terminal.shows("end chat-1 for good? its history stays (y/N)");
    terminal.types("n");
    terminal.shows("nothing was purged");
    terminal.types("py");
    terminal.shows("archived chat-1; its history stays");
    // Into the conversation and back.
    terminal.types("a");
    terminal.shows("\u{1b}[?1049l");
    terminal.shows("Ctrl-D leaves.");
    assert!(terminal.is_as_it_was());
    terminal.types("from the screen\n");
    terminal.shows("> ");
    terminal.types(CTRL_D);
    terminal.shows("\u{1b}[?1049h");
    terminal.shows("chat-0");
    terminal.types("q");
    terminal.shows("\u{1b}[?25h\u{1b}[?1049l");
    assert!(terminal.is_as_it_was());
    terminal.ends_with(0);
    assert!(
        world
            .read(".wg/chat/.chat-0/inbox.jsonl")
            .contains("from the screen")
    );
    world.stop();
}

#[test]
fn top_shows_the_results_of_two_keys_together() {
    let world = World::with_workspace();
    for _ in 0..2 {
        world.wg(&["chat", "new"]).ok();
    }
    world.wg(&["service", "start"]).ok();
    let mut terminal = Terminal::start(&world, &["top"], 100);
    terminal.shows("2 chats");
    terminal.types("sjs");
    terminal.shows("stopped chat-1; it stays down");
    // In a later picture both, whichever came first.
    terminal.shows("stopped chat-0; it stays down");
    let between = terminal.shows("stopped chat-1; it stays down");
    assert!(!between.contains("wg top"), "{between:?}");
    terminal.types("q");
    terminal.ends_with(0);
    world.stop();
}

#[test]
fn top_gives_the_terminal_back_whatever_ends_it() {
    let world = World::with_workspace();
    for end in [CTRL_C, CTRL_D, "TERM", "HUP", "INT"] {
        let mut terminal = Terminal::start(&world, &["top"], 40);
        terminal.shows("no chats: wg chat new");
        match end {
            "TERM" | "HUP" | "INT" => {
                let signal = format!("SIG{end}").parse::<Signal>().unwrap();
                kill(Pid::from_raw(terminal.pid()), signal).unwrap();
            }
            key => terminal.types(key),
        }
        terminal.shows("\u{1b}[?1049l");
        wait_gone(terminal.pid());
        assert!(terminal.is_as_it_was(), "{end:?}");
        terminal.ends_with(0);
    }
}

#[test]
fn top_without_a_terminal_is_refused_in_one_sentence() {
    let world = World::with_workspace();
    told(
        &world.wg(&["top"]),
        2,
        &["no terminal", "wg chat list --json"],
    );
}

#[test]
fn a_purge_of_twenty_chats_shows_how_far_it_is_with_the_service_up_or_down() {
    for up in [true, false] {
        let world = World::with_workspace();
        if up {
            world.wg(&["service", "start"]).ok();
        }
        for _ in 0..20 {
            world.wg(&["chat", "new"]).ok();
        }
        let mut terminal = Terminal::start(&world, &["service", "purge-chats"], 80);
        terminal.shows("purging [");
        terminal.shows("] 20/20");
        terminal.shows("Purged 20 chat(s)");
        terminal.ends_with(0);
        world.stop();
    }
}
