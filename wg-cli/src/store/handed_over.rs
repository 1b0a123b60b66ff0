//! A file that a person names on the command line, or a pipe, as a shell makes one of `<(…)`.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, poll};

use super::StoreError;
use super::files;
use super::watch::timeout;
use crate::clock;

/// Reads a whole file or pipe of at most so many bytes; `None` if there is none. A pipe has so long to come to its end, a writer included.
///
/// # Errors
/// As [`files::read_following`]; [`StoreError::Io`] for a pipe that nobody writes to its end in time.
pub fn read(path: &Path, most: u64, patience: Duration) -> Result<Option<Vec<u8>>, StoreError> {
    let is_pipe = fs::metadata(path).is_ok_and(|there| there.file_type().is_fifo());
    if !is_pipe {
        return files::read_following(path, most);
    }
    let bytes = read_pipe(path, most, patience).map_err(StoreError::io("read", path))?;
    if bytes.len() as u64 > most {
        let path = path.to_owned();
        return Err(StoreError::TooLarge { path, most });
    }
    Ok(Some(bytes))
}

/// Reads until the writers are gone, or there is one byte more than so many.
fn read_pipe(path: &Path, most: u64, patience: Duration) -> io::Result<Vec<u8>> {
    let until = clock::steady() + patience;
    // No open waits for the other end, and no read for its bytes.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let pipe = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)?;
    let mut bytes = Vec::new();
    loop {
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout(Some(until))) {
            // Also where nobody has begun to write: of such a pipe poll(2) says nothing, not that it is over.
            Ok(0) if clock::steady() >= until => {
                let what = format!(
                    "it did not come to its end within {}",
                    clock::span(patience)
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let left = (most + 1).saturating_sub(bytes.len() as u64);
        match (&pipe).take(left).read_to_end(&mut bytes) {
            // The end of the pipe, or as much as is taken of it.
            Ok(_) => return Ok(bytes),
            // There is no more at the moment; what there was is kept.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::thread;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use tempfile::TempDir;

    use super::*;

    fn pipe() -> (TempDir, std::path::PathBuf) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("pipe");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        (dir, path)
    }

    #[test]
    fn a_pipe_is_read_to_its_end_however_it_comes() {
        let (_dir, path) = pipe();
        let to = path.clone();
        let writer = thread::spawn(move || {
            let mut to = OpenOptions::new().write(true).open(to).unwrap();
            to.write_all(b"one ").unwrap();
            to.write_all(&vec![b'x'; 200_000]).unwrap();
        });
        let bytes = read(&path, 1 << 20, Duration::from_secs(600)).unwrap();
        writer.join().unwrap();
        assert_eq!(bytes.unwrap().len(), 200_004);
    }

    #[test]
    fn a_pipe_without_a_writer_or_without_an_end_is_given_up() {
        let (_dir, path) = pipe();
        let told = |error: Result<Option<Vec<u8>>, StoreError>| {
            let StoreError::Io { source, .. } = error.unwrap_err() else {
                panic!("it is the pipe's error")
            };
            source.to_string()
        };
        let patience = Duration::from_millis(20);
        assert_eq!(
            told(read(&path, 100, patience)),
            "it did not come to its end within 0 s"
        );
        let mut endless = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        endless.write_all(b"half").unwrap();
        assert_eq!(
            told(read(&path, 100, patience)),
            "it did not come to its end within 0 s"
        );
    }

    #[test]
    fn a_pipe_that_gives_more_than_is_read_is_too_large() {
        let (_dir, path) = pipe();
        let mut endless = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        endless.write_all(&[b'x'; 101]).unwrap();
        let refused = read(&path, 100, Duration::from_secs(600));
        assert!(
            matches!(refused, Err(StoreError::TooLarge { most: 100, .. })),
            "{refused:?}"
        );
    }
}
