//! Whether this daemon still is the daemon: its lock and its socket must be where they were.
//!
//! Somebody may remove the service directory, or the whole workspace, under a running daemon. One that went on would serve
//! chats that nobody can reach, beside a successor.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use session_lock::{SessionLock, Standing};

use super::Control;
use super::run::Ending;
use crate::failure::Failure;
use crate::store::watch::{DirWatch, Woke};

/// Watches the service directory until it is dropped, and gives the lock back then.
#[derive(Debug)]
pub(super) struct StandingWatch {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<SessionLock>>,
}

impl StandingWatch {
    /// Takes the lock over and starts to watch; `control` is told to end the daemon when it no longer is one.
    pub(super) fn start(
        lock: SessionLock,
        dir: &Path,
        socket: &Path,
        control: Sender<Control>,
    ) -> Result<Self, Failure> {
        let watch = DirWatch::new(dir)?;
        let system = |e: io::Error| {
            Failure::new(
                crate::exit_code::ExitCode::System,
                "failed to watch the service directory",
            )
            .caused_by(e)
        };
        let (stop, stopped) = UnixStream::pair().map_err(system)?;
        let post = Post {
            path: socket.to_owned(),
            inode: inode(socket),
        };
        let thread = std::thread::Builder::new()
            .name("standing".into())
            .spawn(move || stand(lock, watch, &stopped, &post, &control))
            .map_err(system)?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Ends the watch and returns the lock.
    pub(super) fn end(mut self) -> Option<SessionLock> {
        drop(self.stop.take());
        self.thread.take().and_then(|thread| thread.join().ok())
    }
}

/// The socket as it was made.
struct Post {
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

/// Which file is at this path, if one is.
pub(super) fn inode(path: &Path) -> Option<(u64, u64)> {
    path.symlink_metadata()
        .ok()
        .map(|metadata| (metadata.dev(), metadata.ino()))
}

fn stand(
    mut lock: SessionLock,
    mut watch: DirWatch,
    stopped: &UnixStream,
    post: &Post,
    control: &Sender<Control>,
) -> SessionLock {
    loop {
        let fallen = match lock.verify() {
            // A successor has the place, and may have the handlers too: they are left to it.
            Ok(Standing::Lost { by: Some(by) }) => {
                Some((format!("the service lock is lost to {by}"), Ending::Keep))
            }
            Ok(Standing::Lost { by: None }) => {
                Some(("the service lock is lost".to_owned(), Ending::Stop))
            }
            Ok(_) => match inode(&post.path) {
                now if now == post.inode => None,
                Some(_) => Some(("the socket was replaced".to_owned(), Ending::Keep)),
                None => Some(("the socket was removed".to_owned(), Ending::Stop)),
            },
            Err(e) => Some((format!("the service directory is gone: {e}"), Ending::Stop)),
        };
        if let Some((why, ending)) = fallen {
            log::error!("this daemon can no longer be reached and ends: {why}");
            if control.send(Control::Shutdown(ending)).is_err() {
                log::debug!("it is ending already");
            }
            return lock;
        }
        match watch.wait(None, &[stopped.as_fd()]) {
            Ok(Woke::Ready(_)) => return lock,
            Ok(Woke::Changed | Woke::Deadline) => watch.drain(),
            Err(e) => {
                log::warn!("the service directory cannot be watched: {e}");
                return lock;
            }
        }
    }
}
