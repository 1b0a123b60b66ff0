//! Following a file that grows and is rotated away under its reader.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::store::{StoreError, files};

/// Reads the complete lines of a file as they come; after a rotation it goes on with the new file.
#[derive(Debug)]
pub(super) struct Follower {
    path: PathBuf,
    file: Option<File>,
    partial: Vec<u8>,
}

impl Follower {
    /// Starts at the beginning of the file, which need not exist yet.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: None,
            partial: Vec::new(),
        }
    }

    /// Returns the complete lines since the last call, without their line feeds.
    ///
    /// # Errors
    ///
    /// The file is there and cannot be read, or it is a link, a pipe or anything else that is no file.
    pub(super) fn lines(&mut self) -> Result<Vec<String>, StoreError> {
        let path = self.path.clone();
        let mut lines = Vec::new();
        if self.file.is_none() {
            self.file = files::open_to_read(&path)?;
        }
        self.drain(&mut lines)
            .map_err(StoreError::io("read", &path))?;
        if self
            .was_rotated()
            .map_err(StoreError::io("look at", &path))?
        {
            // What was written to the old file between the last read and its renaming was drained above; a writer that still has
            // it open writes nothing more to it.
            self.partial.clear();
            self.file = files::open_to_read(&path)?;
            self.drain(&mut lines)
                .map_err(StoreError::io("read", &path))?;
        }
        Ok(lines)
    }

    fn drain(&mut self, lines: &mut Vec<String>) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        if file.metadata()?.len() < file.stream_position()? {
            // Truncated in place by somebody's hand: what is there now is new.
            file.seek(SeekFrom::Start(0))?;
            self.partial.clear();
        }
        file.read_to_end(&mut self.partial)?;
        while let Some(end) = self.partial.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            lines.push(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        Ok(())
    }

    fn was_rotated(&self) -> io::Result<bool> {
        let Some(file) = &self.file else {
            return Ok(false);
        };
        let here = file.metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(there) => Ok((here.dev(), here.ino()) != (there.dev(), there.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Follower;
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    #[test]
    fn lines_come_once_each_over_a_rotation_and_half_lines_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut follower = Follower::new(&path);
        assert!(follower.lines().unwrap().is_empty());
        fs::write(&path, "one\ntwo\nhal").unwrap();
        assert_eq!(follower.lines().unwrap(), ["one", "two"]);
        let mut old = OpenOptions::new().append(true).open(&path).unwrap();
        old.write_all(b"f\n").unwrap();
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        fs::write(&path, "new\n").unwrap();
        assert_eq!(follower.lines().unwrap(), ["half", "new"]);
        assert!(follower.lines().unwrap().is_empty());
    }

    #[test]
    fn a_file_that_was_truncated_is_read_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "one\ntwo\n").unwrap();
        let mut follower = Follower::new(&path);
        assert_eq!(follower.lines().unwrap().len(), 2);
        fs::write(&path, "3\n").unwrap();
        assert_eq!(follower.lines().unwrap(), ["3"]);
    }
}
