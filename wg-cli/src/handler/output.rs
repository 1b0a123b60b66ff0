//! What an agent writes, bounded: the reply, the tail of its errors, and the files that others watch.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::store::files;

/// Bytes at the start of a reply that are kept.
pub const REPLY_HEAD: usize = 3 << 20;
/// Bytes at the end of a reply that are kept when it is longer than its head: an answer ends with its conclusion.
pub const REPLY_TAIL: usize = 1 << 20;
/// Bytes of the agent's error output that are kept as evidence.
pub const ERROR_TAIL: usize = 4 << 10;

/// Collects a reply in bounded memory: its head, its tail, and how much was left out between them.
#[derive(Debug)]
pub struct Collected {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_max: usize,
    tail_max: usize,
    total: u64,
}

impl Collected {
    /// Returns an empty reply that will hold at most `head_max` + `tail_max` bytes.
    #[must_use]
    pub fn new(head_max: usize, tail_max: usize) -> Self {
        Self {
            head: Vec::new(),
            tail: VecDeque::new(),
            head_max,
            tail_max,
            total: 0,
        }
    }

    /// Takes in what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = self.head_max - self.head.len();
        let (to_head, rest) = bytes.split_at(bytes.len().min(room));
        self.head.extend_from_slice(to_head);
        // Only the last `tail_max` bytes can stay, so nothing before them is copied.
        let rest = &rest[rest.len().saturating_sub(self.tail_max)..];
        let surplus = (self.tail.len() + rest.len()).saturating_sub(self.tail_max);
        self.tail.drain(..surplus);
        self.tail.extend(rest);
    }

    /// Returns whether anything at all was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Returns the text: invalid UTF-8 replaced, one line end at its end removed, a gap named by its size.
    #[must_use]
    pub fn into_text(mut self) -> String {
        let left_out = self.total - (self.head.len() + self.tail.len()) as u64;
        if left_out == 0 {
            self.head.extend(self.tail);
            let mut text = lossy(self.head);
            strip_line_end(&mut text);
            return text;
        }
        let mut text = String::from_utf8_lossy(&self.head).into_owned();
        text.extend(["\n[... ", &left_out.to_string(), " bytes left out ...]\n"]);
        text.push_str(&String::from_utf8_lossy(self.tail.make_contiguous()));
        strip_line_end(&mut text);
        text
    }
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn strip_line_end(text: &mut String) {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
}

/// Turns a stream of bytes into a stream of valid text, holding back a character that is still incomplete.
#[derive(Debug, Default)]
pub struct Utf8Stream {
    pending: Vec<u8>,
}

impl Utf8Stream {
    /// Returns the text that is complete with these bytes; invalid sequences become U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.pending.len());
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    self.pending.clear();
                    return text;
                }
                Err(error) => {
                    let (valid, bad) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    if let Some(length) = error.error_len() {
                        text.push(char::REPLACEMENT_CHARACTER);
                        rest = &bad[length..];
                    } else {
                        self.pending = bad.to_vec();
                        return text;
                    }
                }
            }
        }
    }
}

/// The file in which others watch a reply grow (`.streaming`), bounded by [`REPLY_HEAD`].
///
/// It is a view, not a record: a disk that is full costs the view and not the turn.
#[derive(Debug)]
pub struct StreamFile {
    file: Option<File>,
    text: Utf8Stream,
    room: usize,
}

impl StreamFile {
    /// Empties the file, so that what is in it belongs to the turn that begins now.
    ///
    /// # Errors
    ///
    /// Fails where the file cannot be made or emptied: an old reply in it would be taken for output of this turn.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let file = files::open_plainly(
            path,
            OpenOptions::new().create(true).write(true).truncate(true),
        )?;
        Ok(Self {
            file: Some(file),
            text: Utf8Stream::default(),
            room: REPLY_HEAD,
        })
    }

    /// Appends what was read, in valid UTF-8.
    pub fn push(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let text = self.text.push(bytes);
        if text.len() > self.room {
            self.file = None;
            return;
        }
        self.room -= text.len();
        if let Err(error) = file.write_all(text.as_bytes()) {
            log::warn!("the reply can no longer be watched while it grows: {error}");
            self.file = None;
        }
    }
}

/// An append-only log of bounded size: when it is full it becomes `NAME.1` and a new one begins.
#[derive(Debug)]
pub struct BoundedLog {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    max: u64,
}

impl BoundedLog {
    /// Returns the log at `path`, each of whose two files holds at most `max` bytes. Nothing is opened before the first
    /// write.
    #[must_use]
    pub fn new(path: PathBuf, max: u64) -> Self {
        Self {
            path,
            file: None,
            size: 0,
            max,
        }
    }

    /// Appends bytes; a log that cannot be written is reported once per turn and costs nothing else.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.max == 0 {
            return;
        }
        if let Err(error) = self.append(bytes) {
            log::warn!("failed to write {}: {error}", self.path.display());
            self.max = 0;
        }
    }

    fn open(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        files::open_plainly(&self.path, options.create(true).append(true).mode(0o600))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            let file = self.open()?;
            self.size = file.metadata()?.len();
            self.file = Some(file);
        }
        if self.size > 0 && self.size + bytes.len() as u64 > self.max {
            let mut older = self.path.clone().into_os_string();
            older.push(".1");
            std::fs::rename(&self.path, older)?;
            self.file = Some(self.open()?);
            self.size = 0;
        }
        if let Some(file) = &mut self.file {
            let kept = usize::try_from(self.max).unwrap_or(usize::MAX);
            let bytes = &bytes[bytes.len().saturating_sub(kept)..];
            file.write_all(bytes)?;
            self.size += bytes.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(head: usize, tail: usize, parts: &[&[u8]]) -> String {
        let mut collected = Collected::new(head, tail);
        for part in parts {
            collected.push(part);
        }
        collected.into_text()
    }

    #[test]
    fn a_short_reply_is_kept_whole_without_its_last_line_end() {
        assert_eq!(collected(10, 5, &[b"hello\n"]), "hello");
        assert_eq!(collected(10, 5, &[b"hello\r\n"]), "hello");
        assert_eq!(collected(10, 5, &[b"a\n\n"]), "a\n");
        assert_eq!(collected(10, 5, &[]), "");
    }

    #[test]
    fn a_reply_that_fills_head_and_tail_exactly_has_no_gap() {
        assert_eq!(collected(4, 4, &[b"abcdef", b"gh"]), "abcdefgh");
    }

    #[test]
    fn a_long_reply_keeps_its_head_and_its_tail_and_names_the_gap() {
        assert_eq!(
            collected(4, 4, &[b"abcdefgh", b"ijkl"]),
            "abcd\n[... 4 bytes left out ...]\nijkl"
        );
    }

    #[test]
    fn however_a_reply_is_cut_into_reads_it_is_the_same() {
        let bytes: Vec<u8> = (0..200_u8).map(|i| b'a' + i % 26).collect();
        let whole = collected(50, 30, &[&bytes]);
        for size in 1..bytes.len() {
            let parts: Vec<&[u8]> = bytes.chunks(size).collect();
            assert_eq!(collected(50, 30, &parts), whole, "in reads of {size}");
        }
    }

    #[test]
    fn memory_is_bounded_however_much_is_written() {
        let mut collected = Collected::new(1_000, 1_000);
        for _ in 0..10_000 {
            collected.push(&[b'x'; 1_000]);
        }
        assert!(collected.head.capacity() + collected.tail.capacity() < 8_000);
        assert!(collected.into_text().contains("9998000 bytes left out"));
    }

    #[test]
    fn invalid_utf_8_becomes_replacement_characters() {
        assert_eq!(collected(10, 5, &[b"a\xffb\n"]), "a\u{fffd}b");
    }

    #[test]
    fn a_character_that_arrives_in_two_reads_is_one_character() {
        let text = "aé→🦀z";
        for cut in 0..text.len() {
            let mut stream = Utf8Stream::default();
            let (first, second) = text.as_bytes().split_at(cut);
            assert_eq!(
                stream.push(first) + &stream.push(second),
                text,
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn an_invalid_byte_in_a_stream_does_not_hold_the_rest_back() {
        let mut stream = Utf8Stream::default();
        assert_eq!(stream.push(b"a\xff\xfeb\xc3"), "a\u{fffd}\u{fffd}b");
        assert_eq!(stream.push(b"\xa9"), "é");
    }

    #[test]
    fn a_full_log_becomes_the_older_one_and_stays_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent-stderr.log");
        let mut log = BoundedLog::new(path.clone(), 10);
        log.push(b"12345");
        log.push(b"67890");
        log.push(b"abc");
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        assert_eq!(
            std::fs::read(dir.path().join("agent-stderr.log.1")).unwrap(),
            b"1234567890"
        );
        log.push(&[b'z'; 100]);
        assert_eq!(std::fs::read(&path).unwrap(), [b'z'; 10]);
    }
}
