//! What a handler hears while it waits or runs a turn: signals, and requests for its session.
//!
//! Signals arrive through pipes that their handlers write to; none is blocked, because a blocked signal would stay blocked
//! in every agent that is started.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::SigId;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

/// Something that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// SIGTERM or SIGHUP.
    Stop,
    /// SIGINT.
    Interrupt,
    /// SIGCHLD: a child ended, or something that was left below this process.
    Child,
}

const WORDS: [(Heard, &[i32]); 3] = [
    (Heard::Stop, &[SIGTERM, SIGHUP]),
    (Heard::Interrupt, &[SIGINT]),
    (Heard::Child, &[SIGCHLD]),
];

/// The signals of this process, as descriptors that can be waited for.
#[derive(Debug)]
pub(crate) struct Ears {
    pipes: Vec<(Heard, UnixStream)>,
    registered: Vec<SigId>,
}

impl Ears {
    /// Starts to listen. From here on none of the signals ends this process.
    pub(crate) fn open() -> io::Result<Self> {
        let mut ears = Self {
            pipes: Vec::new(),
            registered: Vec::new(),
        };
        for (heard, signals) in WORDS {
            let (read, write) = UnixStream::pair()?;
            read.set_nonblocking(true)?;
            // A full pipe has told enough: the handler must never wait in write.
            write.set_nonblocking(true)?;
            for &signal in signals {
                ears.registered.push(signal_hook::low_level::pipe::register(
                    signal,
                    write.try_clone()?,
                )?);
            }
            ears.pipes.push((heard, read));
        }
        Ok(ears)
    }

    /// Returns the descriptors that become readable when there is something to hear.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.pipes.iter().map(|(_, pipe)| pipe.as_fd())
    }

    /// Takes in everything that was heard since the last call, each signal once per time it was sent.
    pub(crate) fn listen(&mut self) -> Vec<Heard> {
        let mut all = Vec::new();
        for (heard, pipe) in &mut self.pipes {
            let mut bytes = [0; 64];
            // An empty pipe says "would block"; there is nothing else to learn from an error here.
            while let Ok(count @ 1..) = pipe.read(&mut bytes) {
                all.extend(std::iter::repeat_n(*heard, count));
            }
        }
        all
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_heard_as_often_as_it_was_sent() {
        let mut ears = Ears::open().unwrap();
        // SIGHUP is used because no other test of this binary sends or expects it.
        for _ in 0..2 {
            signal_hook::low_level::raise(SIGHUP).unwrap();
        }
        assert_eq!(
            ears.listen()
                .into_iter()
                .filter(|heard| *heard == Heard::Stop)
                .count(),
            2
        );
        assert_eq!(
            ears.listen()
                .into_iter()
                .filter(|heard| *heard == Heard::Stop)
                .count(),
            0
        );
    }
}
