//! A person at a terminal: a private session, and a chat taken over from its handler.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot do its part is a failed test"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use session_lock::{Kind, SessionLock};
use wg_cli::exit_code::ExitCode;

use crate::world::{Handler, World, wait_readable};

/// A terminal and a command that has it as its stdin and stdout.
struct Terminal {
    master: File,
    shown: String,
}

impl Terminal {
    fn open() -> (Self, File) {
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        (
            Self {
                master: File::from(master),
                shown: String::new(),
            },
            slave,
        )
    }

    /// Starts a command at this terminal; its stderr stays a pipe.
    fn start(world: &World, arguments: &[&str]) -> (Self, Handler) {
        let (terminal, slave) = Self::open();
        let mut command = world.wg(arguments);
        command.stdin(slave.try_clone().unwrap()).stdout(slave);
        let handler = world.start(&mut command);
        (terminal, handler)
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until this was shown after everything that was waited for before.
    #[track_caller]
    fn shows(&mut self, text: &str) {
        loop {
            if let Some(at) = self.shown.find(text) {
                self.shown.drain(..at + text.len());
                return;
            }
            wait_readable(&self.master.as_fd());
            let mut bytes = [0; 1024];
            let count = self.master.read(&mut bytes).unwrap();
            self.shown
                .push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }
}

/// The end of input, as a terminal says it.
const CTRL_D: &str = "\u{4}";

#[test]
fn a_private_session_answers_line_by_line_until_the_end_of_input() {
    let world = World::with_agent(&["tr", "a-z", "A-Z"]);
    let (mut terminal, handler) = Terminal::start(&world, &["nex"]);
    terminal.types("hello\n");
    terminal.shows("HELLO");
    terminal.types("again\n");
    terminal.shows("AGAIN");
    terminal.types(CTRL_D);
    assert_eq!(handler.output().status.code(), Some(0));
}

#[test]
fn an_interrupt_ends_the_turn_of_a_private_session_and_at_the_prompt_the_session() {
    let world = World::with_script(
        "read line; test $line = slow || exec echo quick; echo up >$D/up; cat $D/gate",
    );
    world.fifo("up");
    world.fifo("gate");
    let (mut terminal, mut handler) = Terminal::start(&world, &["nex"]);
    handler.errors_until("> ");
    terminal.types("slow\n");
    world.wait_at("up");
    handler.signal("INT");
    handler.errors_until("interrupted");
    handler.errors_until("> ");
    terminal.types("other\n");
    terminal.shows("quick");
    handler.errors_until("> ");
    handler.signal("INT");
    assert_eq!(handler.output().status.code(), Some(0));
}

#[test]
fn a_private_session_in_which_nothing_was_said_leaves_no_trace() {
    let world = World::with_agent(&["cat"]);
    let sessions = || {
        std::fs::read_dir(world.workspace.chat_root())
            .unwrap()
            .count()
    };
    let before = sessions();
    let (mut terminal, handler) = Terminal::start(&world, &["nex"]);
    terminal.types(CTRL_D);
    assert_eq!(handler.output().status.code(), Some(0));
    assert_eq!(sessions(), before);
}

#[test]
fn a_person_gets_the_chat_from_its_handler_and_talks_in_its_history() {
    let world = World::with_agent(&["tr", "a-z", "A-Z"]);
    let first = world.handler();
    world.wait_locked_by(first.pid());
    let (mut terminal, mut person) = Terminal::start(&world, &["nex", "--chat", "chat-0"]);
    let line = person.first_error_line_with("asked it to leave");
    assert!(line.contains(&format!("pid={}", first.pid())), "{line}");
    first.leaves_with(ExitCode::Released);
    world.wait_locked_by(person.pid());
    terminal.types("hello\n");
    terminal.shows("HELLO");
    let outbox = world.outbox();
    assert_eq!((outbox.len(), outbox[0].content.as_str()), (1, "HELLO"));
    terminal.types(CTRL_D);
    assert_eq!(
        person.output().status.code(),
        Some(i32::from(ExitCode::Released.code()))
    );
}

#[test]
fn a_person_who_does_not_want_to_wait_is_told_who_has_the_chat() {
    let world = World::with_agent(&["cat"]);
    let lock = SessionLock::try_acquire(&world.session, Kind::Adapter).unwrap();
    let (_terminal, mut person) = Terminal::start(&world, &["nex", "--chat", "chat-0"]);
    person.first_error_line_with("asked it to leave");
    assert!(world.session.join(".handler.release-requested").exists());
    person.first_error_line_with("still held, waiting");
    person.signal("INT");
    let output = person.output();
    assert_eq!(output.status.code(), Some(i32::from(ExitCode::Held.code())));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains(&format!("pid={}", std::process::id())),
        "{errors}"
    );
    drop(lock);
}
