//! The terminal as a screen, and as it was before once this value is dropped: at the end, on a failure and in a panic.

use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::sys::termios::{self, SetArg, Termios};

use super::view::Screen;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};

/// Another screen, without a cursor, whose lines end at its edge however wide a character is.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
/// All that back, and the screen that was there.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// A terminal that gives keys one by one and shows no cursor.
#[derive(Debug)]
pub(super) struct Terminal {
    before: Termios,
}

impl Terminal {
    /// Takes the terminal of standard input and output.
    pub(super) fn enter() -> Outcome<Self> {
        let refused = |error: nix::errno::Errno| {
            Failure::new(ExitCode::System, "failed to set the terminal up")
                .caused_by(io::Error::from(error))
        };
        let stdin = io::stdin();
        let before = termios::tcgetattr(stdin.as_fd()).map_err(refused)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(stdin.as_fd(), SetArg::TCSADRAIN, &raw).map_err(refused)?;
        let terminal = Self { before };
        write(ENTER)?;
        Ok(terminal)
    }

    /// Draws over what is there: no flicker, and nothing of the last picture is left.
    pub(super) fn draw(screen: &Screen) -> Outcome<()> {
        let (width, height) = size();
        let mut picture = String::from("\x1b[H");
        let lines = screen.lines(width, height);
        for (at, line) in lines.iter().enumerate() {
            if at > 0 {
                picture.push_str("\r\n");
            }
            picture.push_str(line);
            picture.push_str("\x1b[K");
        }
        picture.push_str("\x1b[J");
        write(&picture)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Each of the two may fail where the terminal is gone, and then there is nothing to restore. The old screen comes last: whoever
        // sees it finds the keyboard as it was.
        let restored = termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &self.before);
        if let Err(error) = restored {
            log::debug!("the terminal is gone: {error}");
        }
        drop(write(LEAVE));
    }
}

fn write(text: &str) -> Outcome<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| {
            Failure::new(ExitCode::System, "failed to draw on the terminal").caused_by(error)
        })
}

/// Columns and rows; 80 and 24 where the terminal does not know.
fn size() -> (usize, usize) {
    let known = rustix::termios::tcgetwinsize(io::stdout());
    match known {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            (usize::from(size.ws_col), usize::from(size.ws_row))
        }
        Ok(_) | Err(_) => (80, 24),
    }
}
