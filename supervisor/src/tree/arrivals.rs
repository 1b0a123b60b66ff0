//! Whether anybody has come to this program from a parent that ended, in three system calls.

use std::collections::HashSet;
use std::fs::File;
use std::io;

use super::stat::{parse_stat, read_all};

/// The lists of this program's children in which its own descendants turn up, kept open.
///
/// If this program is a subreaper, whatever a dead child of it left behind is below one of
/// its children (see [`Table::read_near`](super::Table::read_near)): an orphan becomes a
/// child of the first thread, and a child can make a sibling of itself, which is a child of
/// the thread that started it. So if these two lists name nobody but processes that were
/// started here, there is nobody else. That is seen at one moment, unlike a look through
/// all processes: the first list is empty, and from the second nobody is taken out but by
/// the thread that reads it. Who leaves the second list for the first in between is seen
/// there, because the first is read last.
#[derive(Debug)]
pub(crate) struct Arrivals {
    first_thread: File,
    of_first_thread: File,
    of_this_thread: File,
    buffer: Vec<u8>,
}

impl Arrivals {
    /// Opens the lists. The calling thread is the one that starts the children and looks.
    ///
    /// # Errors
    ///
    /// Returns an error if the kernel does not keep such lists (`CONFIG_PROC_CHILDREN`).
    pub(crate) fn open() -> io::Result<Self> {
        let first = format!("/proc/{0}/task/{0}", std::process::id());
        Ok(Self {
            first_thread: File::open(format!("{first}/stat"))?,
            of_first_thread: File::open(format!("{first}/children"))?,
            of_this_thread: File::open("/proc/thread-self/children")?,
            buffer: Vec::new(),
        })
    }

    /// Returns true if this program has no children but `own`, which were started by the
    /// calling thread, as far as orphans and siblings of theirs are concerned.
    ///
    /// # Errors
    ///
    /// Returns an error if a list cannot be read, or if the first thread has ended, so that
    /// another one inherits.
    pub(crate) fn none_but(&mut self, own: &HashSet<u32>) -> io::Result<bool> {
        read_all(&self.of_this_thread, &mut self.buffer)?;
        let mut started = self.buffer.split(u8::is_ascii_whitespace);
        if !started.all(|pid| pid.is_empty() || number(pid).is_some_and(|pid| own.contains(&pid))) {
            return Ok(false);
        }
        read_all(&self.of_first_thread, &mut self.buffer)?;
        if !self.buffer.is_empty() {
            return Ok(false);
        }
        // Asked last: while it lived, it was the one to inherit.
        read_all(&self.first_thread, &mut self.buffer)?;
        match parse_stat(std::process::id(), &self.buffer) {
            Some(first) if !first.headless => Ok(true),
            _ => Err(io::Error::other("the first thread has ended")),
        }
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_of_this_thread_that_was_not_started_here_has_come_from_somewhere() {
        // Not the first thread, whichever the tests run on.
        let looks = std::thread::spawn(|| {
            let mut child = Command::new("sleep")
                .arg("1000")
                .stdin(Stdio::null())
                .spawn()
                .unwrap();
            let mut arrivals = Arrivals::open().unwrap();
            let with = arrivals.none_but(&HashSet::from([child.id()]));
            let without = arrivals.none_but(&HashSet::new());
            child.kill().unwrap();
            // A zombie is still listed: what it left may have come as well.
            let dying = arrivals.none_but(&HashSet::new());
            child.wait().unwrap();
            let after = arrivals.none_but(&HashSet::new());
            [with, without, dying, after].map(io::Result::unwrap)
        });
        assert_eq!(looks.join().unwrap(), [true, false, false, true]);
    }

    #[test]
    fn a_list_that_is_longer_than_one_read_is_read_to_its_end() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("children");
        let text = "4711 ".repeat(2_000);
        std::fs::write(&file, &text).unwrap();
        let mut buffer = b"before".to_vec();
        read_all(&File::open(&file).unwrap(), &mut buffer).unwrap();
        assert_eq!(buffer, text.as_bytes());
    }
}
