//! Lines from stdin, read only when there is something to read.

use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::exit_code::ExitCode;
use crate::failure::Failure;

/// What was read of stdin and not yet taken.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pending: Vec<u8>,
    at_end: bool,
}

impl Lines {
    /// Reads once; waits if there is nothing to read.
    pub(super) fn read(&mut self) -> Result<(), Failure> {
        let mut buffer = [0; 8 << 10];
        match rustix::io::read(io::stdin().as_fd(), &mut buffer) {
            // A terminal that has gone away has no more lines either.
            Ok(0) | Err(Errno::IO) => self.at_end = true,
            Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => {
                let error = io::Error::from(errno);
                return Err(
                    Failure::new(ExitCode::System, "failed to read a line").caused_by(error)
                );
            }
        }
        Ok(())
    }

    /// Takes the next line without its end; the last one needs none.
    pub(super) fn take(&mut self) -> Option<String> {
        if let Some(at) = self.pending.iter().position(|byte| *byte == b'\n') {
            let rest = self.pending.split_off(at + 1);
            return Some(text(std::mem::replace(&mut self.pending, rest)));
        }
        if self.at_end && !self.pending.is_empty() {
            return Some(text(std::mem::take(&mut self.pending)));
        }
        None
    }

    /// Returns whether nothing more can be read.
    pub(super) fn is_at_end(&self) -> bool {
        self.at_end
    }
}

/// Returns what was typed, without line ends at its end.
pub(super) fn text(mut line: Vec<u8>) -> String {
    while line
        .last()
        .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
    {
        line.pop();
    }
    String::from_utf8_lossy(&line).into_owned()
}
