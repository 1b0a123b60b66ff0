//! Files of one JSON object a line that several processes append to: the shared base of messages and events.
//!
//! An append is one `write` under the lock of the side file `NAME.lock`. A last line without its line feed is torn (a crash, a full disk):
//! the next writer moves it to `NAME.corrupt` and goes on. The cost of an append does not depend on the length of the file.

use std::cmp::Ordering;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::StoreError;
use super::files::{self, Durability, SideLock};
use super::lock;

/// How much of a file is read at a time, from its end backwards.
const BLOCK: u64 = 8 * 1024;

/// A line file, open for appending, its lock held.
#[derive(Debug)]
pub struct Appender {
    path: PathBuf,
    file: File,
    length: u64,
    created: bool,
    // Last, so that the file is closed before the lock is given back.
    _lock: SideLock,
}

impl Appender {
    /// Takes the lock of `path` and opens it, after moving a torn last line aside.
    ///
    /// `is_whole` says whether a last line without a line feed is a complete record all the same (somebody's editor left it so): then only
    /// the line feed is added.
    ///
    /// # Errors
    /// [`StoreError::NotARegularFile`] or [`StoreError::Io`].
    pub fn open(path: &Path, is_whole: impl Fn(&[u8]) -> bool) -> Result<Self, StoreError> {
        Self::open_within(path, lock::PATIENCE, is_whole)
    }

    /// As [`Appender::open`], with the time given to wait for the lock.
    ///
    /// # Errors
    /// As [`Appender::open`].
    pub fn open_within(
        path: &Path,
        patience: Duration,
        is_whole: impl Fn(&[u8]) -> bool,
    ) -> Result<Self, StoreError> {
        let lock = SideLock::acquire_within(&files::with_suffix(path, ".lock"), patience)?;
        let created = matches!(fs::symlink_metadata(path), Err(error) if files::absent(&error));
        let file = files::open(
            path,
            OpenOptions::new().read(true).append(true).create(true),
        )?;
        let length = file
            .metadata()
            .map_err(StoreError::io("look at", path))?
            .len();
        let mut appender = Self {
            path: path.to_owned(),
            file,
            length,
            created,
            _lock: lock,
        };
        appender.repair(is_whole)?;
        Ok(appender)
    }

    /// Moves a torn last line to `NAME.corrupt`.
    fn repair(&mut self, is_whole: impl Fn(&[u8]) -> bool) -> Result<(), StoreError> {
        let read = |error| StoreError::Io {
            doing: "read",
            path: self.path.clone(),
            source: error,
        };
        let mut lines = LinesBackwards::new(&self.file, self.length);
        let Some(tail) = lines.torn_tail().map_err(read)? else {
            return Ok(());
        };
        if is_whole(&tail) {
            return self.write(b"\n");
        }
        let aside = files::with_suffix(&self.path, ".corrupt");
        log::warn!(
            "a torn last line of `{}` ({} bytes) was moved to `{}`",
            self.path.display(),
            tail.len(),
            aside.display()
        );
        // Order matters: a crash between the two leaves the tail in both places, never in none.
        let mut kept = files::open(&aside, OpenOptions::new().append(true).create(true))?;
        let mut record = tail.clone();
        record.push(b'\n');
        kept.write_all(&record)
            .and_then(|()| kept.sync_data())
            .map_err(StoreError::io("write", &aside))?;
        self.length -= tail.len() as u64;
        self.file
            .set_len(self.length)
            .map_err(StoreError::io("repair", &self.path))
    }

    /// Returns the lines from the last to the first.
    #[must_use]
    pub fn lines_backwards(&self) -> LinesBackwards<'_> {
        LinesBackwards::new(&self.file, self.length)
    }

    /// Returns how many bytes the file has.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends a line, which must not contain a line feed.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the file is as it was then.
    pub fn append(&mut self, line: &[u8], durability: Durability) -> Result<(), StoreError> {
        debug_assert!(!line.contains(&b'\n'), "JSON escapes line feeds");
        let mut record = Vec::with_capacity(line.len() + 1);
        record.extend_from_slice(line);
        record.push(b'\n');
        self.write(&record)?;
        if durability == Durability::Sync {
            self.file
                .sync_data()
                .map_err(StoreError::io("sync", &self.path))?;
            if self.created {
                files::sync_directory_of(&self.path)?;
            }
        }
        Ok(())
    }

    /// Moves the file to `NAME.1` (after `NAME.1` to `NAME.2`, `keep` of them) and goes on with an empty one, the lock held throughout.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn rotate(&mut self, keep: u32) -> Result<(), StoreError> {
        files::rotate(&self.path, keep)?;
        self.file = files::open(
            &self.path,
            OpenOptions::new().read(true).append(true).create(true),
        )?;
        self.length = 0;
        self.created = true;
        Ok(())
    }

    /// Writes `bytes` at the end, all or nothing.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if let Err(source) = self.file.write_all(bytes) {
            // A full disk may have taken the first half; the lock is still ours, so nothing came after it.
            if let Err(error) = self.file.set_len(self.length) {
                log::warn!(
                    "half a line stays in `{}` until the next writer moves it aside: {error}",
                    self.path.display()
                );
            }
            return Err(StoreError::Io {
                doing: "append to",
                path: self.path.clone(),
                source,
            });
        }
        self.length += bytes.len() as u64;
        Ok(())
    }
}

/// A line file, open for reading, as long as it was when it was opened.
#[derive(Debug)]
pub struct LineFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl LineFile {
    /// Opens a line file; `None` if there is none.
    ///
    /// # Errors
    /// As [`files::open_to_read`].
    pub fn open(path: &Path) -> Result<Option<Self>, StoreError> {
        let Some(file) = files::open_to_read(path)? else {
            return Ok(None);
        };
        let length = file
            .metadata()
            .map_err(StoreError::io("look at", path))?
            .len();
        Ok(Some(Self {
            path: path.to_owned(),
            file,
            length,
        }))
    }

    /// Returns how many bytes it has.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Shows its complete lines, from the last to the first, to `look`, and returns what that says first.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn find_backwards<T>(
        &self,
        look: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        LinesBackwards::new(&self.file, self.length)
            .find(look)
            .map_err(StoreError::io("read", &self.path))
    }

    /// As [`first_rising`].
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn first_rising(
        &self,
        place: impl Fn(&[u8]) -> Option<Ordering>,
    ) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        first_rising(&self.file, self.length, place).map_err(StoreError::io("read", &self.path))
    }

    /// As [`find_rising`].
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn find_rising(
        &self,
        place: impl Fn(&[u8]) -> Option<Ordering>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        find_rising(&self.file, self.length, place).map_err(StoreError::io("read", &self.path))
    }
}

/// The complete lines of a file from its end to its start, without their line feeds.
///
/// Only as much is read as is asked for. Bytes after the last line feed are no line; see [`LinesBackwards::torn_tail`].
#[derive(Debug)]
pub struct LinesBackwards<'a> {
    file: &'a File,
    // Everything before this offset has not been read.
    unread: u64,
    // What has been read and not been returned: the file's bytes from `unread` on.
    pending: Vec<u8>,
    complete_end: Option<u64>,
}

impl<'a> LinesBackwards<'a> {
    /// Starts at `length` bytes from the start of `file`.
    #[must_use]
    pub fn new(file: &'a File, length: u64) -> Self {
        Self {
            file,
            unread: length,
            pending: Vec::new(),
            complete_end: None,
        }
    }

    /// Reads one more block before what is pending; `false` at the start of the file.
    fn fill(&mut self) -> io::Result<bool> {
        let size = self.unread.min(BLOCK.max(self.pending.len() as u64));
        if size == 0 {
            return Ok(false);
        }
        let mut block = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut block, self.unread - size)?;
        self.unread -= size;
        block.append(&mut self.pending);
        self.pending = block;
        Ok(true)
    }

    /// Removes and returns what follows the last line feed; `None` if nothing does. Only before the first line is taken.
    ///
    /// # Errors
    /// What the system says.
    pub fn torn_tail(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.complete_end.is_some() {
            return Ok(None);
        }
        let mut end = self.unread + self.pending.len() as u64;
        let start = loop {
            if let Some(at) = self.pending.iter().rposition(|byte| *byte == b'\n') {
                break at + 1;
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) => break 0,
                // A writer has moved a torn tail away since we looked at the length; whole lines it leaves alone.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.unread = self.file.metadata()?.len();
                    self.pending.clear();
                    end = self.unread;
                }
                Err(error) => return Err(error),
            }
        };
        let tail = self.pending.split_off(start);
        self.complete_end = Some(end - tail.len() as u64);
        Ok(if tail.is_empty() { None } else { Some(tail) })
    }

    /// Returns the offset after the last complete line, after skipping what is torn.
    ///
    /// # Errors
    /// What the system says.
    pub fn complete_end(&mut self) -> io::Result<u64> {
        self.torn_tail()?;
        Ok(self.complete_end.unwrap_or(0))
    }

    /// Shows the lines to `look`, from the last to the first, and returns what that says first.
    ///
    /// # Errors
    /// What the system says.
    pub fn find<T>(mut self, mut look: impl FnMut(&[u8]) -> Option<T>) -> io::Result<Option<T>> {
        while let Some(line) = self.next_line()? {
            let said = look(&line);
            if said.is_some() {
                return Ok(said);
            }
        }
        Ok(None)
    }

    /// Returns the line before those that were returned.
    ///
    /// # Errors
    /// What the system says.
    pub fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.torn_tail()?;
        if self.pending.is_empty() && !self.fill()? {
            return Ok(None);
        }
        // What is pending ends with the line feed of the line to return.
        let mut searched = 0;
        loop {
            let unsearched = self.pending.len() - 1 - searched;
            if let Some(at) = self.pending[..unsearched]
                .iter()
                .rposition(|byte| *byte == b'\n')
            {
                let mut line = self.pending.split_off(at + 1);
                line.pop();
                return Ok(Some(line));
            }
            searched = self.pending.len() - 1;
            if !self.fill()? {
                let mut line = std::mem::take(&mut self.pending);
                line.pop();
                return Ok(Some(line));
            }
        }
    }
}

/// Looks by halves for the line whose place is equal, in a file whose lines rise in that order; what has no place is passed over.
///
/// # Errors
/// What the system says.
pub fn find_rising(
    file: &File,
    length: u64,
    place: impl Fn(&[u8]) -> Option<Ordering>,
) -> io::Result<Option<Vec<u8>>> {
    let first = first_rising(file, length, &place)?;
    Ok(first
        .map(|(_, line)| line)
        .filter(|line| place(line) == Some(Ordering::Equal)))
}

/// Looks by halves for the first line whose place is not less, in a file whose lines rise in that order; what has no place is passed
/// over. Returns it and where it begins.
///
/// # Errors
/// What the system says.
pub fn first_rising(
    file: &File,
    length: u64,
    place: impl Fn(&[u8]) -> Option<Ordering>,
) -> io::Result<Option<(u64, Vec<u8>)>> {
    // What is looked for begins at one of these offsets, unless it is what was found last.
    let (mut low, mut high) = (0, length);
    let mut best = None;
    while low < high {
        let middle = low + (high - low) / 2;
        let mut from = middle;
        let found = loop {
            let Some((begin, line)) = line_from(file, from, length)? else {
                break None;
            };
            if begin >= high {
                break None;
            }
            from = begin + line.len() as u64 + 1;
            if let Some(place) = place(&line) {
                break Some((place, begin, line));
            }
        };
        match found {
            Some((Ordering::Less, ..)) => low = from,
            Some((Ordering::Equal | Ordering::Greater, begin, line)) => {
                best = Some((begin, line));
                high = middle;
            }
            None => high = middle,
        }
    }
    Ok(best)
}

/// Returns the first complete line that begins at `from` or later, and where it begins.
fn line_from(file: &File, from: u64, length: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    // A line begins after a line feed, so the byte before `from` is looked at too.
    let mut at = from.saturating_sub(1);
    let mut begin = (from == 0).then_some(0);
    let mut line = Vec::new();
    while at < length {
        let size = usize::try_from((length - at).min(BLOCK)).map_err(io::Error::other)?;
        let mut block = vec![0; size];
        match file.read_exact_at(&mut block, at) {
            Ok(()) => {}
            // A writer has moved a torn tail away since the length was looked at.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut bytes = &block[..];
        if begin.is_none()
            && let Some(feed) = bytes.iter().position(|byte| *byte == b'\n')
        {
            begin = Some(at + feed as u64 + 1);
            bytes = &bytes[feed + 1..];
        }
        if let Some(begin) = begin {
            if let Some(feed) = bytes.iter().position(|byte| *byte == b'\n') {
                line.extend_from_slice(&bytes[..feed]);
                return Ok(Some((begin, line)));
            }
            line.extend_from_slice(bytes);
        }
        at += size as u64;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::{BLOCK, LinesBackwards, find_rising};

    #[test]
    fn a_line_is_found_by_its_place_whatever_the_lengths_and_what_is_between() {
        let block = usize::try_from(BLOCK).unwrap();
        for filler in [0, 1, 7, block - 6, block, 3 * block] {
            for count in [0_u64, 1, 2, 3, 50] {
                let mut file = tempfile::tempfile().unwrap();
                for number in 1..=count {
                    let filler = "x".repeat(filler * usize::from(number % 3 != 0));
                    writeln!(file, "{:03} {filler}", number * 2).unwrap();
                    if number % 4 == 0 {
                        writeln!(file, "\nno place").unwrap();
                    }
                }
                write!(file, "{:03} torn", count * 2 + 2).unwrap();
                let length = file.metadata().unwrap().len();
                for wanted in 0..=count * 2 + 3 {
                    let place = |line: &[u8]| {
                        let number: u64 = std::str::from_utf8(line.get(..3)?).ok()?.parse().ok()?;
                        Some(number.cmp(&wanted))
                    };
                    let found = find_rising(&file, length, place).unwrap();
                    let is_there = wanted % 2 == 0 && (2..=count * 2).contains(&wanted);
                    assert_eq!(
                        found.is_some_and(
                            |line| line.starts_with(format!("{wanted:03} ").as_bytes())
                        ),
                        is_there,
                        "{wanted} of {count}, {filler}"
                    );
                }
            }
        }
    }

    #[test]
    fn lines_come_back_whole_and_in_reverse_whatever_their_length() {
        let block = usize::try_from(BLOCK).unwrap();
        let lengths = [0, 1, block - 1, block, block + 1, 3 * block, 5, 0];
        let lines: Vec<Vec<u8>> = lengths.iter().map(|length| vec![b'x'; *length]).collect();
        for torn in [&b""[..], b"torn", &vec![b't'; 2 * block]] {
            let mut file = tempfile::tempfile().unwrap();
            for line in &lines {
                file.write_all(&[line, &b"\n"[..]].concat()).unwrap();
            }
            file.write_all(torn).unwrap();
            let length = file.metadata().unwrap().len();
            let mut back = LinesBackwards::new(&file, length);
            assert_eq!(back.torn_tail().unwrap().unwrap_or_default(), torn);
            for line in lines.iter().rev() {
                assert_eq!(back.next_line().unwrap().as_ref(), Some(line));
            }
            assert_eq!(back.next_line().unwrap(), None);
        }
    }

    #[test]
    fn a_tail_that_a_writer_took_away_meanwhile_is_no_error() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one\ntwo\n").unwrap();
        let mut back = LinesBackwards::new(&file, 100);
        assert_eq!(back.next_line().unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(back.next_line().unwrap().as_deref(), Some(&b"one"[..]));
        assert_eq!(back.next_line().unwrap(), None);
    }
}
