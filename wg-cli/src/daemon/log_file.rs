//! `daemon.log`: one line an event, bounded in size, read by people and by scripts.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use log::{Level, Log, Metadata, Record};
use parking_lot::Mutex;

use crate::clock;
use crate::store::files;

/// Writes what this process and its libraries log, as `2026-11-20T20:26:09.675Z [INFO] text`.
///
/// The file is rotated by size with `keep` old ones. Standard error follows the file, so that a panic or an
/// abort is found in the log and not on the old inode.
#[derive(Debug)]
pub(super) struct DaemonLog {
    file: Mutex<Rotating>,
    level: Level,
}

#[derive(Debug)]
struct Rotating {
    path: PathBuf,
    file: File,
    size: u64,
    /// What stands at its end is half a line: the disk was full.
    is_torn: bool,
    max: u64,
    keep: u32,
    takes_stderr: bool,
}

impl DaemonLog {
    /// Opens the log for appending.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub(super) fn open(
        path: &Path,
        max: u64,
        keep: u32,
        level: Level,
        takes_stderr: bool,
    ) -> io::Result<Self> {
        let (file, size, is_torn) = open(path)?;
        let rotating = Rotating {
            path: path.to_owned(),
            file,
            size,
            is_torn,
            max,
            keep,
            takes_stderr,
        };
        rotating.take_stderr();
        Ok(Self {
            file: Mutex::new(rotating),
            level,
        })
    }

    /// Makes this the log of the process, and sends panics there.
    ///
    /// A second daemon in one process keeps the first one's log, which happens in tests only.
    pub(super) fn install(self) {
        if log::set_boxed_logger(Box::new(self)).is_ok() {
            log::set_max_level(log::LevelFilter::Debug);
            std::panic::set_hook(Box::new(|panic| log::error!("panic: {panic}")));
        }
    }
}

impl Log for DaemonLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = format!(
            "{} [{}] {}\n",
            clock::now().format_millis(),
            record.level(),
            escape(&record.args().to_string())
        );
        let mut file = self.file.lock();
        // There is nobody to tell that the log cannot be written, and the work goes on without it.
        drop(file.write(line.as_bytes()));
    }

    fn flush(&self) {}
}

impl Rotating {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + line.len() as u64 > self.max {
            self.rotate()?;
        }
        // Never cut off: standard error, which comes to the same file, may have written behind it.
        if self.is_torn {
            self.append(b"\n")?;
        }
        self.append(line)
    }

    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.size += count as u64;
                    self.is_torn = bytes[count - 1] != b'\n';
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let name = |n: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        for n in (1..self.keep).rev() {
            if name(n).exists() {
                std::fs::rename(name(n), name(n + 1))?;
            }
        }
        if self.keep > 0 {
            std::fs::rename(&self.path, name(1))?;
        } else {
            std::fs::remove_file(&self.path)?;
        }
        (self.file, self.size, self.is_torn) = open(&self.path)?;
        self.take_stderr();
        Ok(())
    }

    fn take_stderr(&self) {
        if self.takes_stderr
            && let Err(e) = nix::unistd::dup2_stderr(&self.file)
        {
            log::debug!("standard error does not follow the log: {e}");
        }
    }
}

/// Opens the log for appending: a regular file, never through a link and never a pipe that nobody reads. Says how long it is, and whether
/// it ends in the middle of a line.
fn open(path: &Path) -> io::Result<(File, u64, bool)> {
    let file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let is_torn = files::ends_torn(&file)?;
    Ok((file, metadata.len(), is_torn))
}

/// One line stays one line, whatever a message carries.
fn escape(text: &str) -> String {
    if !text.contains(|c: char| c.is_control()) {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|c| {
            if c.is_control() && c != '\t' {
                c.escape_default().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_many_lines_stays_one_line() {
        assert_eq!(escape("a\nb\u{1b}[31m\tc"), "a\\nb\\u{1b}[31m\tc");
    }

    #[test]
    fn a_link_in_the_place_of_the_log_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, target) = (dir.path().join("daemon.log"), dir.path().join("elsewhere"));
        std::fs::write(&target, "").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(DaemonLog::open(&path, 100, 2, Level::Info, false).is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"");
    }

    fn say(log: &DaemonLog, text: &str) {
        let level = Level::Info;
        log.log(
            &Record::builder()
                .args(format_args!("{text}"))
                .level(level)
                .build(),
        );
    }

    #[test]
    fn a_line_that_a_full_disk_cut_off_is_ended_before_the_next_one_begins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.log");
        // By a former daemon, and by this one.
        std::fs::write(&path, "2026-11-20T20:26:09.675Z [INFO] the first ha").unwrap();
        let log = DaemonLog::open(&path, 1 << 20, 2, Level::Info, false).unwrap();
        say(&log, "whole");
        log.file.lock().append(b"the second ha").unwrap();
        say(&log, "whole again");
        let text = std::fs::read_to_string(&path).unwrap();
        let ends: Vec<&str> = text.lines().map(|line| &line[line.len() - 5..]).collect();
        assert_eq!(ends, ["st ha", "whole", "nd ha", "again"], "{text}");
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn the_log_is_bounded_and_keeps_what_it_is_told_to_keep() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.log");
        let log = DaemonLog::open(&path, 100, 2, Level::Info, false).unwrap();
        for n in 0..20 {
            log.log(
                &Record::builder()
                    .args(format_args!("line {n}"))
                    .level(Level::Info)
                    .build(),
            );
        }
        let mut names: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["daemon.log", "daemon.log.1", "daemon.log.2"]);
        for name in names {
            assert!(dir.path().join(name).metadata().unwrap().len() <= 100);
        }
        let last = std::fs::read_to_string(&path).unwrap();
        assert!(last.ends_with("[INFO] line 19\n"), "{last}");
    }
}
