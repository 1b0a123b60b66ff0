//! The events of `wg run`, on their way to whoever reads them.

use std::io;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::ears;
use crate::names::ChatState;
use crate::store::events::EventLine;

/// A thread that tells what happened: whoever reads that may be slow, and nothing that is supervised waits for him.
pub(super) struct Teller {
    over: Receiver<()>,
}

/// Where the events go, each with its number and with the state that the command is in after it.
pub(super) struct Line {
    to: Sender<EventLine>,
    last: u64,
    state: ChatState,
}

/// So many events wait for a reader; those that follow are not told.
const UNTOLD: usize = 1_024;
/// How long a reader may take for what is left in the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Teller {
    /// Starts the thread; it ends when the line is dropped and everything is told.
    pub(super) fn start(tell: impl Fn(&EventLine) + Send + 'static) -> io::Result<(Self, Line)> {
        let (line, events) = bounded(UNTOLD);
        let (done, over) = bounded(0);
        let thread = std::thread::Builder::new().name("teller".into());
        ears::apart(|| {
            thread.spawn(move || {
                for event in events {
                    tell(&event);
                }
                drop(done);
            })
        })??;
        let line = Line {
            to: line,
            last: 0,
            state: ChatState::Starting,
        };
        Ok((Self { over }, line))
    }

    /// Waits until all is told, or nobody has listened for too long.
    pub(super) fn finish(self) {
        if self.over.recv_timeout(LAST_WORDS) == Err(RecvTimeoutError::Timeout) {
            log::debug!("nobody reads what is told");
        }
    }
}

impl Line {
    /// Takes note of the state that the command is in from now on.
    pub(super) fn state(&mut self, state: ChatState) {
        self.state = state;
    }

    /// Tells an event; one that finds no room leaves a gap in the numbers.
    pub(super) fn say(&mut self, event: EventLine) {
        self.last += 1;
        let event = EventLine {
            seq: self.last,
            state: Some(self.state),
            ..event
        };
        if let Err(error) = self.to.try_send(event) {
            log::debug!("an event is not told: {error}");
        }
    }
}
